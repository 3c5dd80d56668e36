"""Stored summaries of reference rows, so that a new window is judged without reading them again.

A file is a zip of NumPy arrays and one JSON text: no pickle, a checksum for every part, read column
by column.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from lepton_lib.cases import Case, InputColumn
from lepton_lib.errors import DataError
from lepton_lib.monitoring.distances import Summary, summarise

Maker = Callable[[], Summary]


class Reference:
    """The summaries of a table's columns, each made or read when it is asked for, so that one is held at a time.

    Attributes:
        rows: Rows of the table.
        names: The columns; a timestamp's parts stand one by one, the model's answers last.
        answers: The names of the model's answers.
        about: What the maker noted beside it, such as the model's version.
    """

    def __init__(
        self,
        makers: Mapping[str, Maker],
        answers: tuple[str, ...],
        rows: int,
        about: Mapping[str, Any],
    ) -> None:
        self._makers = dict(makers)
        self.names, self.answers, self.rows, self.about = tuple(makers), answers, rows, dict(about)

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        case: Case,
        predictions: Any = None,
        *,
        lenient: bool = False,
        **about: Any,
    ) -> Self:
        """The summaries of clean rows and of a model's answers.

        Args:
            frame: Rows with the case's columns.
            case: The case.
            predictions: ``(n,)`` or ``(n, k)``, the answers to rows that the model hasn't learnt
                from.
            lenient: Let columns, or all rows, be missing.
            **about: To be noted; plain values.

        Raises:
            DataError: A column or every row is missing.
        """
        makers: dict[str, Maker] = {}
        for column in case.inputs:
            if column.name in frame and (lenient or len(frame)):
                makers |= _views(column, frame[column.name])
            elif not lenient:
                raise DataError(
                    "reference rows",
                    f"no column {column.name!r}" if len(frame) else "no rows",
                    "the clean training rows of the case",
                    "Read data/train.parquet of the same run.",
                )
        answers = {} if predictions is None else _answers(case, predictions)
        return cls(makers | answers, tuple(answers), len(frame), about)

    def summary(self, name: str) -> Summary:
        """One column's summary."""
        return self._makers[name]()

    def save(self, path: Path) -> None:
        """Write all summaries, whole or not at all; a column of repeating numbers is stored as values and counts."""
        columns, aside = [], path.with_name(f".{path.name}.partial")
        with zipfile.ZipFile(aside, "w") as archive:
            for position, name in enumerate(self.names):
                summary = self.summary(name)
                arrays = {}
                if summary.values is not None:
                    distinct, repeats = np.unique(summary.values, return_counts=True)
                    few = len(distinct) < len(summary.values) / 2
                    arrays = (
                        {"values": distinct, "repeats": repeats}
                        if few
                        else {"values": summary.values}
                    )
                for part, array in arrays.items():
                    with archive.open(f"{position}.{part}.npy", "w", force_zip64=True) as target:
                        np.lib.format.write_array(target, array, allow_pickle=False)
                columns.append([name, sorted(arrays), summary.counts, summary.missing])
            head = {
                "rows": self.rows,
                "answers": self.answers,
                "about": self.about,
                "columns": columns,
            }
            archive.writestr("summary.json", json.dumps(head))
        os.replace(aside, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written; a column's numbers are read when they are asked for.

        Raises:
            DataError: It isn't there, isn't such a file, or was damaged.
        """
        with _reading(path) as archive:
            head = json.loads(archive.read("summary.json"))
            makers = {
                name: _reader(path, position, parts, Summary(None, counts, missing))
                for position, (name, parts, counts, missing) in enumerate(head["columns"])
            }
            return cls(makers, tuple(head["answers"]), head["rows"], head["about"])


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise DataError(
            path.name,
            "no such file"
            if isinstance(error, FileNotFoundError)
            else f"a file that can't be read ({error})",
            "the stored summaries of reference rows",
            "Delete it and make it again, from data/train.parquet of the same run.",
        ) from error


def _reader(path: Path, position: int, parts: list[str], rest: Summary) -> Maker:
    def read() -> Summary:
        if not parts:
            return rest
        found = {}
        with _reading(path) as archive:
            for part in parts:
                with archive.open(f"{position}.{part}.npy") as file:
                    found[part] = np.lib.format.read_array(file, allow_pickle=False)
        values = (
            np.repeat(found["values"], found["repeats"]) if "repeats" in found else found["values"]
        )
        return Summary(values, missing=rest.missing)

    return read


def _views(column: InputColumn, values: pd.Series) -> dict[str, Maker]:
    """How to summarise a column, by its own name or by those of its timestamp's parts."""
    return {
        name: lambda view=view: summarise(view())  # type: ignore[misc]
        for name, view in column.views(values).items()
    }


def _answers(case: Case, given: Any) -> dict[str, Maker]:
    values = np.asarray(given, dtype=np.float64)
    values = (
        values.reshape(len(values), -1) if values.size else np.zeros((0, max(len(case.classes), 1)))
    )
    if case.task == "regression" or values.shape[1] == 1:
        return {"prediction": partial(summarise, values[:, 0])}
    # Of two classes one says all: the other is what it lacks to 1.
    start = 1 if len(case.classes) == 2 else 0
    return {
        f"p_{name}": partial(summarise, values[:, k])
        for k, name in enumerate(case.classes)
        if k >= start
    }
