"""The prediction log: every answer of a service, stored before it is given, and the labels for it.

One SQLite file in WAL mode. A stored prediction survives the death of the process (kill -9); a
power cut may take the last moments. Knows records and answers, nothing of models or HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lepton_lib.cases import Case
from lepton_lib.errors import DataError, RunError
from lepton_lib.serving.microbatching import MicroBatcher
from lepton_lib.utils import transaction

_TABLES = Path(__file__).with_name("log.sql").read_text(encoding="utf-8")
SINGLE = "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)"
_BATCH = "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
IDS = "(SELECT value FROM json_each(?1))"
_KNOWN = f"""
SELECT id FROM predictions WHERE id IN {IDS} UNION
SELECT value FROM json_each(?1) JOIN batches ON token = substr(value, 1, 16)
WHERE CAST(substr(value, 18) AS INTEGER) BETWEEN 0 AND rows - 1
    AND value = token || '-' || CAST(substr(value, 18) AS INTEGER)"""
_PRAGMAS = {
    "auto_vacuum": "INCREMENTAL",  # of a new file; before anything is written to it
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "wal_autocheckpoint": 16_000,  # pages of 4 KiB before a commit carries them into the file
    "secure_delete": "ON",  # what is deleted is overwritten
}
LEAST_FREE = 16 << 20  # bytes on the disk: with less, the service says that it isn't ready
RETRY_SECONDS = 0.003  # between two attempts to write to a log that is locked
CHECK_SECONDS = 2.0  # for a lock, when the question is whether predictions can be stored
TOKEN = 16  # characters of a request's token: its predictions' ids are TOKEN-0, TOKEN-1, ...


class Entry(NamedTuple):
    """What is stored of one request: a statement, its values, token and number of predictions."""

    statement: str
    values: tuple[Any, ...]
    token: str
    rows: int

    @property
    def ids(self) -> list[str]:
        """The predictions'."""
        return [f"{self.token}-{position}" for position in range(self.rows)]


def make_entry(
    request_id: str,
    model_version: str,
    records: Sequence[Any],
    answers: Sequence[Any],
    *,
    form: str = "json",
    outputs: bytes | None = None,
) -> Entry:
    """One request's checked records and answers: a row for one, a row of lists for several.

    Several may be stored with their ``outputs`` instead of answers, see `codec.expand`.
    """
    token = secrets.token_hex(TOKEN // 2)
    head = request_id, datetime.now(UTC).isoformat(timespec="microseconds"), model_version
    if len(records) == 1:
        content = to_text(records[0]), to_text(answers[0])
        return Entry(SINGLE, (f"{token}-0", *head, *content), token, 1)
    stored = msgspec.json.encode(records), outputs or msgspec.json.encode(answers)
    return Entry(_BATCH, (token, *head, len(records), form, *stored), token, len(records))


class PredictionLog:
    """The log, open for writing.

    Args:
        path: The SQLite file; created if it doesn't exist.
        timeout: Seconds to wait for a lock that another process holds.

    Raises:
        RunError: The file can't be created or isn't such a log.
    """

    def __init__(self, path: Path, *, timeout: float = 0.2) -> None:
        self.path = path
        self._timeout = timeout
        # The event loop never waits for a lock: `store` does, between attempts.
        self._write_batched = MicroBatcher(partial(self._write, timeout=0.0))
        self._checkpointed = True  # all that was committed stands in the file itself
        with wrap_sqlite_errors(path):
            # What people asked is for its owner's eyes.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=timeout, isolation_level=None, check_same_thread=False
            )
            for name, value in _PRAGMAS.items():
                self._connection.execute(f"PRAGMA {name} = {value}")
            self._connection.executescript(_TABLES)
            self._file = os.stat(path).st_ino

    def check_pages(self) -> None:
        """Look at every page of the file, as a service does when it starts.

        Raises:
            RunError: One is damaged: which.
        """
        with wrap_sqlite_errors(self.path):
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(f"a damaged file ({found})")

    def append(
        self,
        request_id: str,
        model_version: str,
        records: Sequence[Mapping[str, Any]],
        answers: Sequence[Mapping[str, Any]],
    ) -> list[str]:
        """Store the answers to one request, all or none.

        Returns:
            An id for each prediction, under which its label can be attached later.

        Raises:
            RunError: They could not be stored (locked, read-only, full, removed): the answer must
                not be given.
        """
        entry = make_entry(request_id, model_version, records, answers)
        self._write([entry], self._timeout)
        return entry.ids

    async def store(self, entry: Entry) -> None:
        """Store one request's answers, in one transaction with those of its tick of the event loop.

        Raises:
            RunError: As for `append`; all requests of the tick fail together.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return await self._write_batched(entry)
            except RunError as error:
                code = getattr(error.__cause__, "sqlite_errorcode", 0)
                locked = code & 0xFF == sqlite3.SQLITE_BUSY
                if not locked or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    def _write(self, entries: Sequence[Entry], timeout: float) -> Sequence[None]:
        with self.transaction(timeout):
            for statement in (SINGLE, _BATCH):
                if values := [entry.values for entry in entries if entry.statement is statement]:
                    self._connection.executemany(statement, values)
        self._checkpointed = False
        return [None] * len(entries)

    def check(self) -> None:
        """Find out whether a prediction could be stored now; with a connection of its own.

        Raises:
            RunError: It could not, or the disk is nearly full.
        """
        with wrap_sqlite_errors(self.path):
            self._check_file()
            if shutil.disk_usage(self.path).free < LEAST_FREE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with connect(self.path, "rw", CHECK_SECONDS) as connection, transaction(connection):
                connection.execute("UPDATE predictions SET id = id WHERE 0")

    def _check_file(self) -> None:
        if os.stat(self.path).st_ino != self._file:
            # SQLite would go on writing to the removed one.
            raise FileNotFoundError("a file that was removed")

    def checkpoint(self) -> None:
        """Carry what was committed from the WAL into the file; waits for the disk.

        Raises:
            RunError: The disk doesn't let it; what was committed stays in the WAL.
        """
        if not self._checkpointed:
            self._checkpointed = True
            with connect(self.path, "rw") as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # waits for no reader

    def close(self) -> None:
        """Close the file; whatever was appended stays."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done to the connection inside; ``timeout`` is for a lock.

        Raises:
            RunError: It could not be done.
        """
        seconds = self._timeout if timeout is None else timeout
        with wrap_sqlite_errors(self.path):
            self._check_file()
            self._connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
            with transaction(self._connection):
                yield self._connection


def to_text(value: Any) -> str:
    """JSON, many times faster than Python's own."""
    return msgspec.json.encode(value).decode()


@contextlib.contextmanager
def wrap_sqlite_errors(path: Path) -> Iterator[None]:
    """Turn whatever SQLite and the disk complain of into a `RunError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        got = (isinstance(error, OSError) and error.strerror) or str(error)
        remedy = "Check disk space and permissions, and that no other program locks the file."
        where = f"prediction log {path.name}"
        raise RunError(where, got, "a log that can be written to", remedy) from error


@contextlib.contextmanager
def connect(path: Path, mode: str = "ro", timeout: float = 5.0) -> Iterator[sqlite3.Connection]:
    """A connection to a log that exists, read-only unless the mode is ``rw``.

    Raises:
        RunError: There is no such log.
    """
    address = f"{path.resolve().as_uri()}?mode={mode}"
    with (
        wrap_sqlite_errors(path),
        contextlib.closing(
            sqlite3.connect(address, timeout, uri=True, isolation_level=None)
        ) as connection,
    ):
        # A text that isn't UTF-8 is no JSON, either; it must not end the reading of others.
        connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        yield connection


def attach_labels(path: Path, labels: Mapping[str, str | float], case: Case) -> None:
    """Note what really happened, once it is known; a later label replaces the earlier.

    Args:
        path: The log.
        labels: Prediction id (the index of `read_log`) to class name, or to a number for
            regression.
        case: The log's case.

    Raises:
        DataError: An id that the log doesn't hold, or a label that the case doesn't know; nothing
            is noted then.
        RunError: The log can't be written to.
    """
    for id_, label in labels.items():
        _check_label(id_, label, case)
    with (
        contextlib.closing(PredictionLog(path, timeout=5.0)) as log,
        log.transaction() as connection,
    ):
        known = {id_ for (id_,) in connection.execute(_KNOWN, [to_text(list(labels))])}
        if unknown := [id_ for id_ in labels if id_ not in known]:
            got, expected = f"the prediction id {unknown[0]!r}", "an id of the service"
            remedy = "Take the ids from its answers, or from the index of read_log()."
            raise DataError("labels", got, expected, remedy)
        rows = [(id_, json.dumps(label)) for id_, label in labels.items()]
        connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?)", rows)


def _check_label(id_: str, label: str | float, case: Case) -> None:
    number = isinstance(label, int | float) and math.isfinite(label)
    if not (label in case.classes if case.classes else number):
        expected = f"one of {list(case.classes)}" if case.classes else "a finite number"
        raise DataError(f"label of prediction {id_!r}", repr(label), expected, "Correct the label.")
