"""The prediction log: every answer of a service, stored before it is given, and the labels for it.

One SQLite file in WAL mode. A stored prediction survives the death of the process (kill -9); a
power cut may take the last moments. Knows records and answers, nothing of models or HTTP. pandas is
imported by the readers alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from lepton_lib.cases import Case
from lepton_lib.cases.sections import TARGET
from lepton_lib.errors import DataError, RunError
from lepton_lib.serving.codec import expand
from lepton_lib.serving.microbatching import MicroBatcher
from lepton_lib.utils import transaction

if TYPE_CHECKING:
    import pandas as pd

_TABLES = Path(__file__).with_name("log.sql").read_text(encoding="utf-8")
_SINGLE = "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)"
_BATCH = "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_IDS = "(SELECT value FROM json_each(?1))"
_KNOWN = f"""
SELECT id FROM predictions WHERE id IN {_IDS} UNION
SELECT value FROM json_each(?1) JOIN batches ON token = substr(value, 1, 16)
WHERE CAST(substr(value, 18) AS INTEGER) BETWEEN 0 AND rows - 1
    AND value = token || '-' || CAST(substr(value, 18) AS INTEGER)"""
_PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "wal_autocheckpoint": 16_000,  # pages of 4 KiB before a commit carries them into the file
    "secure_delete": "ON",  # what is deleted is overwritten
}
LEAST_FREE = 16 << 20  # bytes on the disk: with less, the service says that it isn't ready
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
    records: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
) -> Entry:
    """One request's records and answers: a row for one, a row of JSON lists for several."""
    parts = [[dict(each) for each in part] for part in (records, answers)]
    if len(records) == 1:
        return single_entry(request_id, model_version, *(to_text(part[0]) for part in parts))
    return batch_entry(request_id, model_version, len(records), "json", *map(to_text, parts))


def single_entry(request_id: str, model_version: str, record: str, answer: str) -> Entry:
    """One record and its answer, both JSON."""
    token = secrets.token_hex(TOKEN // 2)
    values = (f"{token}-0", request_id, _now(), model_version, record, answer)
    return Entry(_SINGLE, values, token, 1)


def batch_entry(
    request_id: str, model_version: str, rows: int, form: str, *content: bytes | str
) -> Entry:
    """Several records and their answers, in a form that `codec.expand` reads."""
    token = secrets.token_hex(TOKEN // 2)
    values = (token, request_id, _now(), model_version, rows, form, *content)
    return Entry(_BATCH, values, token, rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


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
        self._write_batched = MicroBatcher(self._write)
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
        self._write([entry])
        return entry.ids

    async def store(self, entry: Entry) -> None:
        """Store one request's answers, in one transaction with those of its tick of the event loop.

        Raises:
            RunError: As for `append`; all requests of the tick fail together.
        """
        await self._write_batched(entry)

    def _write(self, entries: Sequence[Entry]) -> Sequence[None]:
        with self.transaction():
            for statement in (_SINGLE, _BATCH):
                if values := [entry.values for entry in entries if entry.statement is statement]:
                    self._connection.executemany(statement, values)
        self._checkpointed = False
        return [None] * len(entries)

    def check(self) -> None:
        """Find out whether a prediction could be stored now.

        Raises:
            RunError: It could not, or the disk is nearly full.
        """
        with wrap_sqlite_errors(self.path):
            if shutil.disk_usage(self.path).free < LEAST_FREE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self.transaction():
            self._connection.execute("UPDATE predictions SET id = id WHERE 0")

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
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done to the connection inside.

        Raises:
            RunError: It could not be done.
        """
        with wrap_sqlite_errors(self.path):
            if os.stat(self.path).st_ino != self._file:
                # SQLite would go on writing to the removed one.
                raise FileNotFoundError("a file that was removed")
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
def connect(path: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    """A connection to a log that exists, read-only unless the mode is ``rw``.

    Raises:
        RunError: There is no such log.
    """
    address = f"{path.resolve().as_uri()}?mode={mode}"
    with (
        wrap_sqlite_errors(path),
        contextlib.closing(sqlite3.connect(address, uri=True)) as connection,
    ):
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


class Row(NamedTuple):
    """One prediction, as it was stored."""

    id: str
    request_id: str
    time: str
    model_version: str
    inputs: dict[str, Any]
    answer: dict[str, Any]


def read_rows(
    connection: sqlite3.Connection, id_: str | None = None, ids: Iterable[str] | None = None
) -> list[Row]:
    """Predictions, oldest first: all, those with ``ids``, or of a prediction, request or batch."""
    singles, batches = "SELECT * FROM predictions", "SELECT * FROM batches"
    parameters, chosen = [], None if ids is None else set(ids)
    if chosen is not None:
        singles += f" WHERE id IN {_IDS}"
        batches += " WHERE token IN (SELECT substr(value, 1, 16) FROM json_each(?1))"
        parameters = [to_text(list(chosen))]
    elif id_ is not None:
        singles += " WHERE ?1 IN (id, request_id)"
        batches += " WHERE request_id = ?1 OR token = substr(?1, 1, 16)"
        parameters = [id_]
    rows = []
    for row in map(Row._make, connection.execute(f"{singles} ORDER BY rowid", parameters)):
        inputs, answer = json.loads(str(row.inputs)), json.loads(str(row.answer))
        rows.append(row._replace(inputs=inputs, answer=answer))
    for token, request_id, time, version, _, *content in connection.execute(batches, parameters):
        for position, parts in enumerate(zip(*expand(*content), strict=True)):
            row = Row(f"{token}-{position}", request_id, time, version, *parts)
            named = id_ in (None, row.id, request_id, token)
            if named if chosen is None else row.id in chosen:
                rows.append(row)
    return sorted(rows, key=lambda row: row.time)  # stable: the order within a request stays


def read_log(path: Path, case: Case, ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The log as a table, oldest first, its inputs typed like the clean tables of notebook 01.

    Args:
        path: The log.
        case: Its case.
        ids: Read these predictions alone; one that the log doesn't hold is left out.

    Returns:
        Index ``id``; the case's inputs under their own names; ``target`` (class index or number as
        float64, NaN while no label has come); ``answer.class``, ``answer.action``, ``answer.band``,
        ``answer.p_<class>`` or ``answer.prediction``, as far as the case has them;
        ``log.request_id``, ``log.time`` (UTC) and ``log.model_version``.

    Raises:
        RunError: There is no such log, or a class or column of the case was renamed since it
            answered.
    """
    import pandas as pd

    with connect(path) as connection:
        rows = read_rows(connection, ids=ids)
        query, names = f"SELECT id, label FROM labels WHERE id IN {_IDS}", [row.id for row in rows]
        labels = dict(connection.execute(query, [to_text(names)]).fetchall())
    records, answers = [row.inputs for row in rows], [row.answer for row in rows]
    _check_names(case, path, records, answers)
    columns: dict[str, Any] = {
        column.name: column.parse(pd.Series([r.get(column.name) for r in records], dtype=object))
        for column in case.inputs
    }
    codes: dict[Any, float] = {name: float(index) for index, name in enumerate(case.classes)}
    attached = [json.loads(labels[id_]) if id_ in labels else None for id_ in names]
    columns[TARGET] = pd.Series([codes.get(label, label) for label in attached], dtype="float64")
    for key in ("class", "action", "band") if case.classes else ("prediction",):
        if not answers or key in answers[0]:
            columns[f"answer.{key}"] = [answer.get(key) for answer in answers]
    for name in case.classes:
        columns[f"answer.p_{name}"] = [answer["probabilities"][name] for answer in answers]
    columns["log.request_id"] = [row.request_id for row in rows]
    times = [row.time for row in rows]
    columns["log.time"] = pd.to_datetime(times, format="ISO8601", utc=True)
    columns["log.model_version"] = [row.model_version for row in rows]
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(names, name="id")
    return frame


def _check_names(
    case: Case, path: Path, records: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]
) -> None:
    """Refuse a log with other names than the case has now: they would be read as missing."""
    inputs, classes = {column.name for column in case.inputs}, set(case.classes)
    odd = [record.keys() - inputs for record in records if not record.keys() <= inputs][:1]
    if classes:
        names = (answer["probabilities"].keys() for answer in answers)
        odd += [set(shares) for shares in names if shares != classes][:1]
    if odd:
        expected = (
            f"inputs {sorted(inputs)} and classes {list(case.classes)}, as case.toml has them"
        )
        remedy = "Restore the names in case.toml, or begin another run folder."
        raise RunError(
            f"prediction log {path.name}", f"the names {sorted(odd[0])}", expected, remedy
        )
