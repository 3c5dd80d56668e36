"""Stored summaries of reference rows, so that a new window is judged without reading them again.

A Parquet file with a line, and a row group, for each column: it is written and read column by
column, and its pages have checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lepton_lib.cases import Case
from lepton_lib.errors import DataError
from lepton_lib.monitoring.distances import ColumnSummary, summarise

_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "values": pa.list_(pa.field("item", pa.float64(), nullable=False)),  # null for categories
        "repeats": pa.list_(pa.field("item", pa.int64(), nullable=False)),  # null if each is 1
        "counts": pa.map_(pa.string(), pa.int64()),  # rows of each category
        "missing": pa.int64(),
    }
)
_REMEDY = "Delete it and make it again, from data/train.parquet of the same run."


class Reference:
    """The summaries of a table's columns, each made or read on demand: one is held at a time.

    Attributes:
        rows: Rows of the table.
        names: The columns; a timestamp's parts stand one by one, the model's outputs last.
        outputs: The names of the model's outputs.
        about: Notes beside them, such as the model's version.
    """

    def __init__(
        self,
        columns: Mapping[str, Callable[[], Any]],  # values or their summary, on demand
        outputs: tuple[str, ...],
        rows: int,
        about: Mapping[str, Any],
    ) -> None:
        self._columns, self.about = dict(columns), dict(about)
        self.names, self.outputs, self.rows = tuple(columns), outputs, rows

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        case: Case,
        predictions: Any = None,
        *,
        complete: bool = True,
        **about: Any,
    ) -> Self:
        """Summarise clean rows and a model's outputs.

        Args:
            frame: Rows with the case's columns.
            case: The case.
            predictions: ``(n,)`` or ``(n, k)``, of rows that the model hasn't learnt from.
            complete: Whether rows, and all columns, must be there.
            **about: Notes; plain values.

        Raises:
            DataError: ``complete``, and a column or every row is missing.
        """
        missing = [column.name for column in case.inputs if column.name not in frame]
        if complete and (missing or frame.empty):
            got = f"no column {missing[0]!r}" if missing and len(frame) else "no rows"
            expected, remedy = "the case's clean training rows", "Read data/train.parquet."
            raise DataError("reference rows", got, expected, remedy)
        columns: dict[str, Callable[[], Any]] = {}
        for column in case.inputs:
            if column.name not in missing:
                columns |= column.views(frame[column.name])
        outputs = {} if predictions is None else _named_outputs(case, predictions)
        columns |= {name: partial(np.asarray, values) for name, values in outputs.items()}
        return cls(columns, tuple(outputs), len(frame), about)

    def summary(self, name: str) -> ColumnSummary:
        """One column's summary."""
        return summarise(self._columns[name]())

    def save(self, path: Path) -> None:
        """Write all summaries, whole or not at all."""
        head = json.dumps({"rows": self.rows, "outputs": self.outputs, "about": self.about})
        digest = hashlib.sha256(head.encode()).hexdigest()
        schema = _SCHEMA.with_metadata({"head": head, "sha256": digest})
        aside = path.with_name(f".{path.name}.partial")
        raw = {"use_dictionary": False, "compression": "none"}  # quick to read
        with pq.ParquetWriter(aside, schema, write_page_checksum=True, **raw) as writer:
            for name in self.names:
                writer.write_table(_to_table(name, self.summary(name)))
        os.replace(aside, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written; a column's numbers are read on demand.

        Raises:
            DataError: It isn't there, isn't such a file, or was damaged.
        """
        with _open(path) as file:
            metadata = file.schema_arrow.metadata or {}
            head = metadata[b"head"]
            if metadata[b"sha256"].decode() != hashlib.sha256(head).hexdigest():
                raise ValueError("a wrong checksum")
            names = file.read(columns=["name"])["name"].to_pylist()
            columns = {name: partial(_read, path, row) for row, name in enumerate(names)}
            content = json.loads(head)
            return cls(columns, tuple(content["outputs"]), content["rows"], content["about"])


def _to_table(name: str, summary: ColumnSummary) -> pa.Table:
    """One line; repeating numbers are stored as distinct values and their counts."""
    values, repeats = summary.values, None
    if values is not None:
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) < len(values) / 2:
            values, repeats = distinct, counts
    line: dict[str, Any] = {"name": name, "values": values, "repeats": repeats}
    line |= {"counts": list(summary.counts.items()), "missing": summary.missing}
    return pa.Table.from_pylist([line], schema=_SCHEMA)


def _read(path: Path, row_group: int) -> ColumnSummary:
    with _open(path) as file:
        _, values, repeats, counts, missing = (cells[0] for cells in file.read_row_group(row_group))
        if not values.is_valid:
            return ColumnSummary(None, dict(counts.as_py()), missing.as_py())
        numbers = values.values.to_numpy()
        if repeats.is_valid:
            numbers = np.repeat(numbers, repeats.values.to_numpy())
        return ColumnSummary(numbers, missing=missing.as_py())


@contextlib.contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        missing = isinstance(error, FileNotFoundError)
        got = "no such file" if missing else f"a file that can't be read ({error})"
        raise DataError(path.name, got, "stored summaries of reference rows", _REMEDY) from error


def _named_outputs(case: Case, predictions: Any) -> dict[str, np.ndarray]:
    """Predictions ``(n,)`` or ``(n, k)`` by name."""
    outputs = np.asarray(predictions, dtype=np.float64)
    if not outputs.size:
        outputs = np.zeros((0, max(len(case.classes), 1)))
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        return {"prediction": outputs.reshape(-1)}
    return case.task.answer_columns(case.classes, outputs)
