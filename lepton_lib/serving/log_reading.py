"""What the prediction log holds: predictions one by one, or as a table. Imports pandas for that."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from lepton_lib.cases import Case
from lepton_lib.cases.sections import TARGET
from lepton_lib.errors import RunError
from lepton_lib.serving.codec import expand
from lepton_lib.serving.log import IDS, connect, to_text
from lepton_lib.serving.telemetry import log_error

if TYPE_CHECKING:
    import pandas as pd

PREDICTION_ID = re.compile(r"[0-9a-f]{16}-[0-9]+")


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
    """Predictions, oldest first: all, those with ``ids``, or of one prediction's or request's id.

    A row that can't be read is left out, and the service's log says how many were.
    """
    if id_ is not None and PREDICTION_ID.fullmatch(id_):
        ids = [id_]
    single, batch, parameters = "1", "1", []
    if ids is not None:
        ids = set(ids)
        single = f"id IN {IDS}"
        batch = "token IN (SELECT substr(value, 1, 16) FROM json_each(?1))"
        parameters = [to_text(list(ids))]
    elif id_ is not None:
        single = batch = "request_id = ?1"
        parameters = [id_]
    rows, unreadable = [], []
    query = f"SELECT * FROM predictions WHERE {single} ORDER BY rowid"
    for *head, inputs, answer in connection.execute(query, parameters):
        try:
            parts = msgspec.json.decode(inputs), msgspec.json.decode(answer)
            rows.append(_checked(Row(head[0], head[1], head[2], head[3], *parts)))
        except (ValueError, TypeError, RecursionError):
            unreadable.append(head[0])
    for values in connection.execute(f"SELECT * FROM batches WHERE {batch}", parameters):
        try:
            rows += [row for row in read_batch(values) if ids is None or row.id in ids]
        except (ValueError, TypeError, LookupError, RecursionError):
            unreadable.append(values[0])
    if unreadable:
        log_error("unreadable rows left out", count=len(unreadable), first=str(unreadable[0]))
    return sorted(rows, key=lambda row: row.time)  # stable: the order within a request stays


def read_batch(batch: Sequence[Any]) -> list[Row]:
    """A batch's predictions, of what the table holds.

    Raises:
        ValueError, TypeError, LookupError: It can't be read.
        RunError: It is of an older version.
    """
    token, request_id, when, version, count, form, *content = batch
    rows = [
        _checked(Row(f"{token}-{position}", request_id, when, version, *parts))
        for position, parts in enumerate(zip(*expand(form, *content), strict=True))
    ]
    if len(rows) != count:
        raise ValueError("another number of rows than was stored")
    return rows


def _checked(row: Row) -> Row:
    datetime.fromisoformat(row.time)
    if not (isinstance(row.inputs, dict) and isinstance(row.answer, dict)):
        raise TypeError("no objects")
    return row


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
        query, names = f"SELECT id, label FROM labels WHERE id IN {IDS}", [row.id for row in rows]
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
