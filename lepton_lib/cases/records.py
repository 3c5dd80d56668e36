"""Raw records, as a client posts them, to the model's raw input matrix.

The service and the notebooks both go through here, so training and serving can't disagree about
what a value means.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from lepton_lib.cases.schema import Case
from lepton_lib.cases.sections import Column
from lepton_lib.errors import DataError, RecordError

# the model's inputs are float32: what lies beyond would become infinite
LARGEST = float(np.finfo(np.float32).max)
_EXACT = 2.0**53  # from here on an integer, read as a float, may be another number
_PART = {"hour": lambda t: t.hour, "weekday": lambda t: t.weekday(), "month": lambda t: t.month - 1}


def encode_records(case: Case, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Check records against their case and lay them out as ``case.fields`` says.

    Args:
        case: The case.
        records: One mapping of column name to value each; ``None`` or a missing key means missing.

    Returns:
        float32 ``(n, len(case.fields))``; NaN where a value is missing.

    Raises:
        RecordError: An unknown field, a wrong type, a value out of range or not among the
            categories, or a missing value in a column that isn't nullable: which record and field,
            got, expected.
    """
    with contextlib.suppress(msgspec.ValidationError, RecursionError, ValueError):
        return case.reader.rows(msgspec.convert(records, case.reader.records))
    return _encode_one_by_one(case, records)


class Reader:
    """Reads a case's records in one sweep, a column at a time, and knows only that something is wrong, not what.

    Attributes:
        records: The type of a list of records, as msgspec decodes it: kinds, ranges and categories
            checked.
    """

    def __init__(self, case: Case) -> None:
        fields: list[Any] = []
        for column in case.inputs:
            low, high = limits(column)
            kinds = {"category": Literal[column.categories or ("",)], "timestamp": str}
            kind: Any = kinds.get(column.kind, Annotated[float, msgspec.Meta(ge=low, le=high)])
            fields.append(
                (f"f{len(fields)}", kind | None, None)
                if column.nullable
                else (f"f{len(fields)}", kind)
            )
        names = {field[0]: column.name for field, column in zip(fields, case.inputs, strict=True)}
        record = msgspec.defstruct(
            "Record", fields, rename=names, kw_only=True, forbid_unknown_fields=True, gc=False
        )
        self.records: Any = list[record]  # type: ignore[valid-type]
        self._columns = case.inputs
        self._width = len(case.fields)
        self._codes: list[dict[str | None, float]] = [
            {None: math.nan} | {name: float(place) for place, name in enumerate(column.categories)}
            for column in case.inputs
        ]

    def rows(self, records: Sequence[msgspec.Struct]) -> np.ndarray:
        """The raw input matrix of records of this reader's type, as `encode_records` gives it.

        Raises:
            ValueError: A moment is none, or a number so large that only one look at its digits
                tells its range.
        """
        values: list[Sequence[float]] = []
        given = zip(*map(msgspec.structs.astuple, records), strict=True)
        for column, codes, cells in zip(self._columns, self._codes, given, strict=bool(records)):
            if column.kind == "number":
                values.append(
                    [math.nan if cell is None else cell for cell in cells]
                    if column.nullable
                    else cells
                )
            elif column.kind == "category":
                values.append([codes[cell] for cell in cells])
            else:
                moments = [None if cell is None else datetime.fromisoformat(cell) for cell in cells]
                if any(moment is not None and moment.tzinfo is not None for moment in moments):
                    raise ValueError("a time zone")
                values += [
                    [math.nan if moment is None else _PART[part](moment) for moment in moments]
                    for part in column.parts
                ]
        matrix = np.array(values, dtype=np.float32).reshape(self._width, len(records))
        if (np.abs(matrix) >= _EXACT).any():
            raise ValueError("a number whose range needs a closer look")
        return np.ascontiguousarray(matrix.T)


def _encode_one_by_one(case: Case, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The same, slower: finds the first fault, and names it."""
    known = {column.name for column in case.inputs}
    rows: list[list[float]] = []
    for position, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise DataError(
                f"record {position}",
                repr(record)[:80],
                "an object of field names and values",
                "Send such an object.",
            )
        if unknown := [name for name in record if name not in known]:
            raise RecordError(
                position,
                str(unknown[0])[:80],
                "a field that the case doesn't know",
                f"only {sorted(known)}",
                "Take it out, or check its spelling.",
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
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
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
    return (
        -LARGEST if column.min is None else column.min,
        LARGEST if column.max is None else column.max,
    )


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
        got,
        describe(column),
        "Send such a value" + (", or null." if column.nullable else "."),
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
            text = f"a number of at least {low:.15g}"
        case None, high:
            text = f"a number of at most {high:.15g}"
        case low, high:
            text = f"a number from {low:.15g} to {high:.15g}"
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
