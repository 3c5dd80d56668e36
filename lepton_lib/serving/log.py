"""The prediction log: every answer of the service, kept before it is given, and the labels that come later.

One SQLite file in WAL mode. A kept prediction survives the death of the process (kill -9); a power
cut may take the last moments. Knows records and answers, nothing of models or HTTP. pandas is
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
from lepton_lib.serving.batches import expand
from lepton_lib.serving.ticks import MicroBatcher
from lepton_lib.utils import transaction

if TYPE_CHECKING:
    import pandas as pd

_TABLES = """
CREATE TABLE IF NOT EXISTS predictions (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL, time TEXT NOT NULL, model_version TEXT NOT NULL,
    inputs TEXT NOT NULL, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    token TEXT PRIMARY KEY, request_id TEXT NOT NULL, time TEXT NOT NULL, model_version TEXT NOT NULL,
    rows INTEGER NOT NULL, form TEXT NOT NULL, inputs BLOB NOT NULL, answers BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS labels (id TEXT PRIMARY KEY, label TEXT NOT NULL);
"""
_SINGLE = "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)"
_BATCH = "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_GIVEN = "(SELECT value FROM json_each(?1))"
_KNOWN = f"""
SELECT id FROM predictions WHERE id IN {_GIVEN} UNION
SELECT value FROM json_each(?1) JOIN batches ON token = substr(value, 1, 16)
WHERE CAST(substr(value, 18) AS INTEGER) BETWEEN 0 AND rows - 1
    AND value = token || '-' || CAST(substr(value, 18) AS INTEGER)"""
# of 4 KiB, that the WAL may have before a commit itself carries them into the file
WAL_PAGES = 16_000
LEAST_FREE = 16 << 20  # bytes on the disk: with less, nobody is to be sent here
TOKEN = 16  # characters of a request's token: its predictions' ids are TOKEN-0, TOKEN-1, ...


class Entry(NamedTuple):
    """What is to be kept of one request: a statement, its values, its token and how many predictions it has."""

    statement: str
    values: tuple[Any, ...]
    token: str
    rows: int

    @property
    def ids(self) -> list[str]:
        """The predictions'."""
        return [f"{self.token}-{position}" for position in range(self.rows)]

    @property
    def version(self) -> str:
        """The model's."""
        return str(self.values[3])


def entry(
    request_id: str,
    model_version: str,
    records: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
) -> Entry:
    """One request's records and answers, to be kept: a row for one, a row of JSON lists for several."""
    if len(records) == 1:
        return single_entry(
            request_id,
            model_version,
            record=_json(dict(records[0])),
            answer=_json(dict(answers[0])),
        )
    content = (
        _json([dict(record) for record in records]),
        _json([dict(answer) for answer in answers]),
    )
    token = secrets.token_hex(TOKEN // 2)
    values = (token, request_id, _now(), model_version, len(records), "json", *content)
    return Entry(_BATCH, values, token, len(records))


def single_entry(request_id: str, model_version: str, *, record: str, answer: str) -> Entry:
    """One record and its answer, both JSON, to be kept."""
    token = secrets.token_hex(TOKEN // 2)
    return Entry(
        _SINGLE, (f"{token}-0", request_id, _now(), model_version, record, answer), token, 1
    )


def batch_entry(
    request_id: str,
    model_version: str,
    *,
    rows: int,
    form: Mapping[str, Any],
    inputs: bytes,
    answers: bytes,
) -> Entry:
    """A batch, to be kept as it came; ``form`` says how it is read, see `batches.expand`."""
    token = secrets.token_hex(TOKEN // 2)
    values = (token, request_id, _now(), model_version, rows, _json(form), inputs, answers)
    return Entry(_BATCH, values, token, rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


class PredictionLog:
    """The log, open for writing.

    Args:
        path: The SQLite file; made if it isn't there.
        timeout: Seconds to wait for a lock that another process holds.

    Raises:
        RunError: The file can't be made or isn't such a log.
    """

    def __init__(self, path: Path, *, timeout: float = 0.2) -> None:
        self.path = path
        self._together = MicroBatcher(self._write)
        self._carried = True  # all that was committed stands in the file itself
        with kept(path):
            # what people are asked is for its owner's eyes
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=timeout, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            self._connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            self._connection.executescript(_TABLES)
            self._file = os.stat(path).st_ino

    def append(
        self,
        request_id: str,
        model_version: str,
        records: Sequence[Mapping[str, Any]],
        answers: Sequence[Mapping[str, Any]],
    ) -> list[str]:
        """Keep the answers to one request, all or none.

        Returns:
            An id for each prediction, under which its label can be attached later.

        Raises:
            RunError: They could not be kept (locked, read-only, full, removed): the answer must not
                be given.
        """
        made = entry(request_id, model_version, records, answers)
        self._write([made])
        return made.ids

    async def keep(self, made: Entry) -> None:
        """Keep one request's answers, in one transaction with those of all requests of this tick of the event loop.

        Raises:
            RunError: As for `append`; all requests of the tick fail together.
        """
        await self._together(made)

    def _write(self, entries: Sequence[Entry]) -> Sequence[None]:
        with self.transaction():
            for statement in (_SINGLE, _BATCH):
                if values := [made.values for made in entries if made.statement is statement]:
                    self._connection.executemany(statement, values)
        self._carried = False
        return [None] * len(entries)

    def check(self) -> None:
        """Find out whether a prediction could be kept now.

        Raises:
            RunError: It could not, or the disk is nearly full.
        """
        with kept(self.path):
            if shutil.disk_usage(self.path).free < LEAST_FREE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self.transaction():
            self._connection.execute("UPDATE predictions SET id = id WHERE 0")

    def checkpoint(self) -> None:
        """Carry what was committed from the WAL into the file, and wait for the disk: for a thread beside the service.

        Raises:
            RunError: The disk doesn't let it; what was committed stays in the WAL.
        """
        if not self._carried:
            self._carried, address = True, f"{self.path.resolve().as_uri()}?mode=rw"
            with (
                kept(self.path),
                contextlib.closing(sqlite3.connect(address, uri=True)) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # nobody waits for it

    def close(self) -> None:
        """Close the file; whatever was appended stays."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done to the connection inside.

        Raises:
            RunError: It could not be done.
        """
        with kept(self.path):
            if os.stat(self.path).st_ino != self._file:
                # SQLite would go on writing to the removed one
                raise FileNotFoundError("a file that was removed")
            with transaction(self._connection):
                yield self._connection


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # many times faster than Python's own


@contextlib.contextmanager
def kept(path: Path) -> Iterator[None]:
    """Turn whatever SQLite and the disk complain of into a `RunError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RunError(
            f"prediction log {path.name}",
            (isinstance(error, OSError) and error.strerror) or str(error),
            "a log that can be written to",
            "See that the disk has room, the folder is yours and no other program holds the file.",
        ) from error


def attach_labels(path: Path, labels: Mapping[str, str | float], case: Case) -> None:
    """Note what really happened, once it is known; a later label of the same prediction replaces the earlier.

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
        known = (
            label in case.classes
            if case.classes
            else isinstance(label, int | float) and math.isfinite(label)
        )
        if not known:
            raise DataError(
                f"label of prediction {id_!r}",
                repr(label),
                f"one of {list(case.classes)}" if case.classes else "a finite number",
                "Correct the label.",
            )
    log = PredictionLog(path, timeout=5.0)
    try:
        with log.transaction():
            ids = {id_ for (id_,) in log._connection.execute(_KNOWN, [_json(list(labels))])}
            if unknown := [id_ for id_ in labels if id_ not in ids]:
                raise DataError(
                    "labels",
                    f"the prediction id {unknown[0]!r}",
                    "an id that the service has given",
                    "Take the ids from the service's answers, or from the index of read_log().",
                )
            rows = [(id_, json.dumps(label)) for id_, label in labels.items()]
            log._connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?)", rows)
    finally:
        log.close()


class Row(NamedTuple):
    """One prediction, as it was kept."""

    id: str
    request_id: str
    time: str
    model_version: str
    inputs: dict[str, Any]
    answer: dict[str, Any]


def read_rows(
    connection: sqlite3.Connection, id_: str | None = None, ids: Iterable[str] | None = None
) -> list[Row]:
    """Predictions, oldest first: all, those with ``ids``, or of this prediction id, request id or batch's token."""
    singles, batches, given = "SELECT * FROM predictions", "SELECT * FROM batches", []
    wanted = None if ids is None else set(ids)
    if wanted is not None:
        singles += f" WHERE id IN {_GIVEN}"
        batches += " WHERE token IN (SELECT substr(value, 1, 16) FROM json_each(?1))"
        given = [_json(list(wanted))]
    elif id_ is not None:
        singles += " WHERE ?1 IN (id, request_id)"
        batches += " WHERE request_id = ?1 OR token = substr(?1, 1, 16)"
        given = [id_]
    made = []
    for name, request_id, time, version, record, answer in connection.execute(
        f"{singles} ORDER BY rowid", given
    ):
        made.append(Row(name, request_id, time, version, json.loads(record), json.loads(answer)))
    for token, request_id, time, version, rows, *content in connection.execute(batches, given):
        records, answers = expand(*content)
        for position in range(rows):
            row = Row(
                f"{token}-{position}",
                request_id,
                time,
                version,
                records[position],
                answers[position],
            )
            if row.id in wanted if wanted is not None else id_ in (None, row.id, request_id, token):
                made.append(row)
    return sorted(made, key=lambda row: row.time)  # stable: the order within a request stays


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

    with (
        kept(path),
        contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        ) as connection,
    ):
        rows = read_rows(connection, ids=ids)
        named = _json([row.id for row in rows])
        labels = dict(
            connection.execute(
                f"SELECT id, label FROM labels WHERE id IN {_GIVEN}", [named]
            ).fetchall()
        )
    ids, requests, times, versions, records, given = zip(*rows, strict=True) if rows else [()] * 6
    _check_written_under(case, path, records, given)
    columns: dict[str, Any] = {}
    for column in case.inputs:
        cells = pd.Series([record.get(column.name) for record in records], dtype=object)
        columns[column.name] = column.parse(cells)
    known: dict[Any, float] = {name: float(index) for index, name in enumerate(case.classes)}
    told = [json.loads(labels[id_]) if id_ in labels else None for id_ in ids]
    columns[TARGET] = pd.Series([known.get(label, label) for label in told], dtype="float64")
    for key in ("class", "action", "band") if case.classes else ("prediction",):
        if not given or key in given[0]:
            columns[f"answer.{key}"] = [answer.get(key) for answer in given]
    for name in case.classes:
        columns[f"answer.p_{name}"] = [answer["probabilities"][name] for answer in given]
    columns |= {
        "log.request_id": requests,
        "log.time": pd.to_datetime(list(times), format="ISO8601", utc=True),
    }
    columns["log.model_version"] = versions
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(ids, name="id")
    return frame


def _check_written_under(
    case: Case, path: Path, records: Sequence[Any], given: Sequence[Any]
) -> None:
    """Refuse a log whose records or answers have other names than the case has now: they would be read as missing."""
    wanted = {column.name for column in case.inputs}
    odd = [sorted(record.keys() - wanted) for record in records if not record.keys() <= wanted][:1]
    if case.classes:
        classes = set(case.classes)
        odd += [sorted(a["probabilities"]) for a in given if a["probabilities"].keys() != classes][
            :1
        ]
    if odd:
        raise RunError(
            f"prediction log {path.name}",
            f"the names {odd[0]}",
            f"inputs {sorted(wanted)} and classes {list(case.classes)}, as case.toml has them",
            "Bring the names in case.toml back, or begin another run folder.",
        )
