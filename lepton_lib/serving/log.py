"""The prediction log: every answer of the service, kept before it is given, and the labels that come later.

One SQLite file in WAL mode. A kept prediction survives the death of the process (kill -9); a power cut may take the
last moments. Knows records and answers, nothing of models or HTTP. pandas is imported by the readers alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_lib.cases import Case
from lepton_lib.cases.schema import TARGET
from lepton_lib.errors import DataError, RunError

if TYPE_CHECKING:
    import pandas as pd

_TABLES = """
CREATE TABLE IF NOT EXISTS predictions (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL, time TEXT NOT NULL, model_version TEXT NOT NULL,
    inputs TEXT NOT NULL, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (id TEXT PRIMARY KEY REFERENCES predictions (id), label TEXT NOT NULL);
"""


class PredictionLog:
    """The log, open for writing.

    Args:
        path: The SQLite file; made if it isn't there.
        patience: Seconds to wait for a lock that another process holds.

    Raises:
        RunError: The file can't be made or isn't such a log.
    """

    def __init__(self, path: Path, *, patience: float = 0.2) -> None:
        self.path = path
        with _kept(path):
            self._connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
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
            RunError: They could not be kept (locked, read-only, full, removed): the answer must not be given.
        """
        token, now = secrets.token_hex(8), datetime.now(UTC).isoformat()
        ids = [f"{token}-{position}" for position in range(len(records))]
        rows = [
            (id_, request_id, now, model_version, json.dumps(dict(record)), json.dumps(dict(answer)))
            for id_, record, answer in zip(ids, records, answers, strict=True)
        ]
        with self._transaction():
            self._connection.executemany("INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)", rows)
        return ids

    def check(self) -> None:
        """Find out whether a prediction could be kept now.

        Raises:
            RunError: It could not.
        """
        with self._transaction():
            self._connection.execute("UPDATE predictions SET id = id WHERE 0")

    def close(self) -> None:
        """Close the file; whatever was appended stays."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _kept(self.path):
            if os.stat(self.path).st_ino != self._file:
                raise FileNotFoundError("a file that was removed")  # SQLite would go on writing to the removed one
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RunError(
            f"prediction log {path.name}",
            got=(isinstance(error, OSError) and error.strerror) or str(error),  # without the machine's path
            expected="a log that can be written to",
            remedy="See that the disk has room, the folder is yours and no other program holds the file.",
        ) from error


def attach_labels(path: Path, labels: Mapping[str, str | float], case: Case) -> None:
    """Note what really happened, once it is known; a later label of the same prediction replaces the earlier.

    Args:
        path: The log.
        labels: Prediction id (the index of `read_log`) to class name, or to a number for regression.
        case: The log's case.

    Raises:
        DataError: An id that the log doesn't hold, or a label that the case doesn't know; nothing is noted then.
        RunError: The log can't be written to.
    """
    for id_, label in labels.items():
        known = label in case.classes if case.classes else isinstance(label, int | float) and math.isfinite(label)
        if not known:
            raise DataError(
                f"label of prediction {id_!r}",
                got=repr(label),
                expected=f"one of {list(case.classes)}" if case.classes else "a finite number",
                remedy="Correct the label.",
            )
    log = PredictionLog(path, patience=5.0)
    try:
        with log._transaction():
            ids = {row[0] for row in log._connection.execute("SELECT id FROM predictions")}
            if unknown := [id_ for id_ in labels if id_ not in ids]:
                raise DataError(
                    "labels",
                    got=f"the prediction id {unknown[0]!r}",
                    expected="an id that the service has given",
                    remedy="Take the ids from the service's answers, or from the index of read_log().",
                )
            rows = [(id_, json.dumps(label)) for id_, label in labels.items()]
            log._connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?)", rows)
    finally:
        log.close()


def read_log(path: Path, case: Case) -> pd.DataFrame:
    """The log as a table, oldest first, its inputs typed like the clean tables of notebook 01.

    Returns:
        Index ``id``; the case's inputs under their own names; ``target`` (class index or number as float64, NaN while
        no label has come); ``answer.class``, ``answer.action``, ``answer.band``, ``answer.p_<class>`` or
        ``answer.prediction``, as far as the case has them; ``log.request_id``, ``log.time`` (UTC) and
        ``log.model_version``.

    Raises:
        RunError: There is no such log.
    """
    import pandas as pd

    query = "SELECT p.id, request_id, time, model_version, inputs, answer, label FROM predictions p"
    with _kept(path), contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(f"{query} LEFT JOIN labels USING (id) ORDER BY p.rowid").fetchall()
    ids, requests, times, versions, inputs, answers, labels = zip(*rows, strict=True) if rows else [()] * 7
    records = [json.loads(text) for text in inputs]
    columns: dict[str, Any] = {}
    for column in case.inputs:
        values = [record.get(column.name) for record in records]
        if column.kind == "number":
            columns[column.name] = pd.Series(values, dtype="float64")
        elif column.kind == "category":
            columns[column.name] = pd.Categorical(values, categories=list(column.categories))
        else:  # the clock where it was noted, as in the tables
            moments = [datetime.fromisoformat(value).replace(tzinfo=None) if value else None for value in values]
            columns[column.name] = pd.Series(moments, dtype="datetime64[us]")
    known: dict[Any, float] = {name: float(index) for index, name in enumerate(case.classes)}
    told = [None if label is None else json.loads(label) for label in labels]
    columns[TARGET] = pd.Series([known.get(label, label) for label in told], dtype="float64")
    given = [json.loads(text) for text in answers]
    for key in ("class", "action", "band") if case.classes else ("prediction",):
        if not given or key in given[0]:
            columns[f"answer.{key}"] = [answer.get(key) for answer in given]
    for name in case.classes:
        columns[f"answer.p_{name}"] = [answer["probabilities"][name] for answer in given]
    columns |= {"log.request_id": requests, "log.time": pd.to_datetime(list(times), format="ISO8601", utc=True)}
    columns["log.model_version"] = versions
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(ids, name="id")
    return frame
