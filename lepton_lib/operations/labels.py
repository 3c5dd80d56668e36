"""Labels that come late, from a table with prediction ids, and a count of those that don't fit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lepton_lib.cases import Case
from lepton_lib.cases.sections import TARGET
from lepton_lib.data.reading import read_cells
from lepton_lib.errors import DataError
from lepton_lib.serving import attach_labels, read_log

Label = str | float  # a class's name, or a number


class LabelCount(NamedTuple):
    """What became of a table of labels; of the last three the ids."""

    attached: int
    repeated: int  # the log had the same label already
    corrected: int  # the log had another
    contradictory: Sequence[str]  # twice in the table, with two labels: none is taken
    unknown: Sequence[str]  # the log holds no such prediction
    invalid: Sequence[str]  # with a label that the case doesn't know

    @property
    def clean(self) -> bool:
        """Whether every line was usable."""
        return not any((self.contradictory, self.unknown, self.invalid))

    def __str__(self) -> str:
        text = f"{self.attached} labels attached, {self.repeated} known already, "
        text += f"{self.corrected} corrected"
        for ids, problem in (
            (self.contradictory, "ids with two labels, none of them taken"),
            (self.unknown, "ids that no prediction has"),
            (self.invalid, "ids with a label that the case doesn't know"),
        ):
            text += f"\n{len(ids)} {problem}; the first is {ids[0]!r}" if ids else ""
        return text


def attach_file(log: Path, table: Path, case: Case) -> LabelCount:
    """Attach the labels of a CSV file with the columns ``id`` and ``label``; count the others.

    Args:
        log: The prediction log.
        table: Prediction ids, and class names or numbers.
        case: The log's case.

    Raises:
        DataError: The table can't be read, or lacks a column.
        RunError: The log can't be read or written to.
    """
    labels = _read_labels(table, case)
    invalid = [id_ for id_, entries in labels.items() if None in entries]
    logged = read_log(log, case, labels)[TARGET].to_dict()
    unknown = [id_ for id_ in labels if id_ not in logged]
    contradictory = [id_ for id_, entries in labels.items() if len(entries - {None}) > 1]
    unusable = {*invalid, *unknown, *contradictory}
    valid = {i: v for i, (v, *_) in labels.items() if v is not None and i not in unusable}
    values = {id_: case.classes.index(str(v)) if case.classes else v for id_, v in valid.items()}
    changed = [id_ for id_ in valid if logged[id_] != values[id_]]  # NaN, no label yet, among them
    attach_labels(log, {id_: valid[id_] for id_ in changed}, case)
    new, repeated = sum(math.isnan(logged[id_]) for id_ in changed), len(valid) - len(changed)
    return LabelCount(new, repeated, len(changed) - new, contradictory, unknown, invalid)


def _read_labels(table: Path, case: Case) -> dict[str, set[Label | None]]:
    """The different labels of each id; None for one that the case doesn't know."""
    if not table.is_file():
        raise DataError(str(table), "no such file", "a CSV file", "Check its name.")
    for delimiter in ",;\t":
        rows = read_cells(table, delimiter=delimiter, encoding="utf-8")
        head = [name.casefold() for name in next(rows)[1]]
        if {"id", "label"} <= set(head):
            break
    else:
        expected, remedy = "the columns 'id' and 'label'", "Take the ids of the service's answers."
        raise DataError(f"{table.name}, line 1", repr(head), expected, remedy)
    labels: dict[str, set[Label | None]] = {}
    for _, cells in rows:
        id_, text = (cells[head.index(name)].strip() for name in ("id", "label"))
        labels.setdefault(id_, set()).add(_parse_label(text, case.classes))
    return labels


def _parse_label(text: str, classes: Sequence[str]) -> Label | None:
    """A class or number as a spreadsheet may write it: ``1.0`` for ``1``, ``YES`` for ``yes``."""
    plain = _plain(text)
    if not classes:
        return plain if isinstance(plain, float) and math.isfinite(plain) else None
    return text if text in classes else {_plain(name): name for name in classes}.get(plain)


def _plain(text: str) -> Label:
    with contextlib.suppress(ValueError):
        return float(text.replace(",", "."))
    return text.casefold()
