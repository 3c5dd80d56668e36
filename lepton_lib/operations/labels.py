"""Labels that come late, attached from a table by prediction id, with a count of what didn't fit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lepton_lib.cases import Case
from lepton_lib.cases.columns import TARGET
from lepton_lib.data.reading import read_cells
from lepton_lib.errors import DataError
from lepton_lib.serving import attach_labels, read_log

Label = str | float  # a class's name, or a number


class LabelCount(NamedTuple):
    """What became of a table of labels; of the last two the ids."""

    attached: int
    repeated: int  # the log had the same label already
    corrected: int  # the log had another
    contradictory: Sequence[str]  # twice in the table, with two labels: none is taken
    unknown: Sequence[str]  # the log holds no such prediction

    @property
    def clean(self) -> bool:
        """Whether every line was usable."""
        return not self.contradictory and not self.unknown

    def __str__(self) -> str:
        counts = f"{self.attached} labels attached, {self.repeated} known already"
        lines = [f"{counts}, {self.corrected} corrected"]
        for ids, problem in (
            (self.contradictory, "ids with two labels, none of them taken"),
            (self.unknown, "ids that no prediction has"),
        ):
            if ids:
                lines.append(f"{len(ids)} {problem}; the first is {ids[0]!r}")
        return "\n".join(lines)


def attach_file(log: Path, table: Path, case: Case) -> LabelCount:
    """Attach the labels of a CSV file with the columns ``id`` and ``label``; count what doesn't fit.

    Args:
        log: The prediction log.
        table: Prediction ids, and class names or numbers.
        case: The log's case.

    Raises:
        DataError: The table can't be read, lacks a column, or holds a label that the case doesn't
            know.
        RunError: The log can't be read or written to.
    """
    labels = _read_labels(table, case)
    known = read_log(log, case, labels)[TARGET].to_dict()
    contradictory = [id_ for id_, found in labels.items() if len(found) > 1]
    new: dict[str, Label] = {}
    corrected: dict[str, Label] = {}
    repeated = 0
    for id_, (label, *others) in labels.items():
        if others or id_ not in known:
            continue
        if math.isnan(known[id_]):
            new[id_] = label
        elif known[id_] != (case.classes.index(str(label)) if case.classes else label):
            corrected[id_] = label
        else:
            repeated += 1
    attach_labels(log, new | corrected, case)
    unknown = [id_ for id_ in labels if id_ not in known]
    return LabelCount(len(new), repeated, len(corrected), contradictory, unknown)


def _read_labels(table: Path, case: Case) -> dict[str, set[Label]]:
    """The different labels of each id."""
    try:
        (_, head), *lines = read_cells(table, delimiter=",", encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(str(table), "no such file", "a CSV file", "Check its name.") from error
    if sorted(head) != ["id", "label"]:
        remedy = "Name them so; an id is what the service gave with its answer."
        expected = "the columns 'id' and 'label'"
        raise DataError(f"{table.name}, line 1", repr(head), expected, remedy)
    labels: dict[str, set[Label]] = {}
    for line, cells in lines:
        entry = dict(zip(head, cells, strict=True))
        label = _parse_label(entry["label"].strip(), case, f"{table.name}, line {line}")
        labels.setdefault(entry["id"].strip(), set()).add(label)
    return labels


def _parse_label(text: str, case: Case, where: str) -> Label:
    if text in case.classes:
        return text
    if not case.classes:
        with contextlib.suppress(ValueError):
            if math.isfinite(number := float(text)):
                return number
    expected = f"one of {list(case.classes)}" if case.classes else "a finite number"
    raise DataError(where, repr(text), expected, "Correct the label.")
