"""Raw records, as a client posts them, to the model's raw input matrix.

The service and the notebooks both go through here, so training and serving can't disagree about what a value means.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from lepton_lib.cases.schema import Case
from lepton_lib.cases.sections import Column
from lepton_lib.errors import DataError, RecordError

LARGEST = float(np.finfo(np.float32).max)  # the model's inputs are float32: what lies beyond would become infinite
_PART = {"hour": lambda t: t.hour, "weekday": lambda t: t.weekday(), "month": lambda t: t.month - 1}


def encode_records(case: Case, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Check records against their case and lay them out as ``case.fields`` says.

    Args:
        case: The case.
        records: One mapping of column name to value each; ``None`` or a missing key means missing.

    Returns:
        float32 ``(n, len(case.fields))``; NaN where a value is missing.

    Raises:
        RecordError: An unknown field, a wrong type, a value out of range or not among the categories, or a missing
            value in a column that isn't nullable: which record and field, got, expected.
    """
    known = {column.name for column in case.inputs}
    rows: list[list[float]] = []
    for position, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise DataError(
                f"record {position}",
                got=repr(record)[:80],
                expected="an object of field names and values",
                remedy="Send such an object.",
            )
        if unknown := [name for name in record if name not in known]:
            raise RecordError(
                position,
                str(unknown[0])[:80],
                got="a field that the case doesn't know",
                expected=f"only {sorted(known)}",
                remedy="Take it out, or check its spelling.",
            )
        row: list[float] = []
        for column in case.inputs:
            row += _encode_value(column, record.get(column.name), position)
        rows.append(row)
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(case.fields))


def _encode_value(column: Column, value: Any, position: int) -> list[float]:
    width = max(len(column.parts), 1)
    if value is None:
        if not column.nullable:
            raise _refusal(column, position, "nothing")
        return [math.nan] * width
    if column.kind == "number":
        low, high = limits(column)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _refusal(column, position, repr(value)[:80])
        return [float(value)]
    if not isinstance(value, str):
        raise _refusal(column, position, repr(value)[:80])
    if column.kind == "category":
        if value not in column.categories:
            raise _refusal(column, position, repr(value)[:80])
        return [float(column.categories.index(value))]
    if (moment := parse_moment(value)) is None:
        raise _refusal(column, position, repr(value)[:80])
    return [float(_PART[part](moment)) for part in column.parts]


def limits(column: Column) -> tuple[float, float]:
    """The least and the greatest number that the column accepts."""
    return -LARGEST if column.min is None else column.min, LARGEST if column.max is None else column.max


def parse_moment(text: str) -> datetime | None:
    """A moment in ISO 8601 without a time zone, for the hour of another zone is another hour; None if it is none."""
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else None
    return None


def _refusal(column: Column, position: int, got: str) -> RecordError:
    return RecordError(
        position,
        column.name,
        got=got,
        expected=describe(column),
        remedy="Send such a value" + (", or null." if column.nullable else "."),
    )


def describe(column: Column) -> str:
    """What the column accepts, in words: ``a number from 18 to 99 (years)``."""
    if column.kind == "category":
        return "one of " + ", ".join(map(repr, column.categories))
    if column.kind == "text":
        return "text"
    if column.kind == "timestamp":
        return "a moment in ISO 8601 without a time zone, such as '2018-03-01T08:00:00'"
    match column.min, column.max:
        case None, None:
            text = "a finite number"
        case low, None:
            text = f"a number of at least {low:g}"
        case None, high:
            text = f"a number of at most {high:g}"
        case low, high:
            text = f"a number from {low:g} to {high:g}"
    return f"{text} ({column.unit})" if column.unit else text


def example_record(case: Case) -> dict[str, Any]:
    """A record that the case accepts: the middle of each range, the first of each list of categories."""
    record: dict[str, Any] = {}
    for column in case.inputs:
        if column.kind == "category":
            record[column.name] = column.categories[0]
        elif column.kind == "timestamp":
            record[column.name] = "2018-03-01T08:00:00"
        else:
            bounds = [bound for bound in (column.min, column.max) if bound is not None]
            record[column.name] = sum(bounds) / len(bounds) if bounds else 0.0
    return record
