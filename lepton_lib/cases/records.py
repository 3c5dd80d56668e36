"""Raw records, as a client posts them, to the model's raw input matrix.

The service and the notebooks both go through here, so training and serving can't disagree about
what a value means.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from lepton_lib.cases.columns import CategoryColumn, ColumnBase, NumberColumn, TimestampColumn
from lepton_lib.cases.schema import Case
from lepton_lib.errors import DataError, RecordError


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
    return _encode_singly(case, records)


def _encode_singly(case: Case, records: Sequence[Any]) -> np.ndarray:
    """The same, record by record: slower, but names the first fault."""
    rows = [_encode_record(case, record, position) for position, record in enumerate(records)]
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(case.fields))


def _encode_record(case: Case, record: Any, position: int) -> list[float]:
    if not isinstance(record, Mapping):
        where, got = f"record {position}", repr(record)[:80]
        raise DataError(where, got, "an object of field names and values", "Send such an object.")
    names = {column.name for column in case.inputs}
    if unknown := [str(name)[:80] for name in record if name not in names]:
        got, expected = "a field that the case doesn't know", f"only {sorted(names)}"
        remedy = "Take it out, or check its spelling."
        raise RecordError(position, unknown[0], got, expected, remedy)
    row: list[float] = []
    for column in case.inputs:
        try:
            row += column.encode_value(record.get(column.name))
        except ValueError as error:
            remedy = "Send such a value" + (", or null." if column.nullable else ".")
            got, expected = str(error), column.describe()
            raise RecordError(position, column.name, got, expected, remedy) from error
    return row


def describe(column: ColumnBase) -> str:
    """What the column accepts, in words: ``a number from 18 to 99 (years)``."""
    return column.describe()


def example_record(case: Case, rows: np.ndarray | None = None) -> dict[str, Any]:
    """A record that the case accepts.

    Args:
        case: The case.
        rows: Raw inputs float32 ``(n, len(case.fields))``: the record has the median of each number
            and the most frequent category. Without them it has the middle of each range and the
            first category of each list.
    """
    record = {column.name: column.example() for column in case.inputs}
    if rows is not None:
        names = [field.name for field in case.fields]
        for column in case.inputs:
            if not isinstance(column, TimestampColumn):  # whose moment stays the example
                known = rows[:, names.index(column.name)]
                if len(known := known[~np.isnan(known)]):
                    record[column.name] = _typical(column, known)
    return record


def _typical(column: NumberColumn | CategoryColumn, values: np.ndarray) -> float | str:
    """The median of raw inputs ``(n,)``, one of them; of categories the most frequent."""
    if isinstance(column, CategoryColumn):
        return column.categories[np.bincount(values.astype(np.int64)).argmax()]
    median = np.clip(np.sort(values)[len(values) // 2], *column.limits)
    return float(f"{median:.7g}")  # a float32 has no more digits
