"""Many records at once: decoded and checked by msgspec, laid out column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from lepton_lib.cases.columns import InputColumn

EXACT = 2.0**53  # from here on an integer, read as a float, may be another number


class RecordReader:
    """Reads records of these columns; learns only that something is wrong, not what.

    Attributes:
        records: The type of a list of records, as msgspec decodes it: kinds, ranges and categories
            are checked.
    """

    def __init__(self, columns: Sequence[InputColumn]) -> None:
        fields: list[Any] = []
        for position, column in enumerate(columns):
            kind = column.json_type
            field = (f"f{position}", kind)
            fields.append((f"f{position}", kind | None, None) if column.nullable else field)
        names = {f"f{position}": column.name for position, column in enumerate(columns)}
        record = msgspec.defstruct(
            "Record", fields, rename=names, kw_only=True, forbid_unknown_fields=True, gc=False
        )
        self.records: Any = list[record]  # type: ignore[valid-type]
        self._columns = columns
        self._width = sum(len(column.fields) for column in columns)

    def rows(self, records: Sequence[msgspec.Struct]) -> np.ndarray:
        """The raw input matrix of records of this reader's type, as `encode_records` gives it.

        Raises:
            ValueError: A moment is none, or a number so large that its digits must be looked at.
        """
        values: list[Sequence[float]] = []
        cells = zip(*map(msgspec.structs.astuple, records), strict=True)
        for column, column_cells in zip(self._columns, cells, strict=bool(records)):
            values += column.encode_cells(column_cells)
        matrix = np.array(values, dtype=np.float32).reshape(self._width, len(records))
        if (np.abs(matrix) >= EXACT).any():
            raise ValueError("a number whose range needs a closer look")
        return np.ascontiguousarray(matrix.T)
