"""Labels that come late, attached from a table by prediction id, with a count of what didn't fit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.cases import Case
from lepton_lib.cases.sections import TARGET
from lepton_lib.data.reading import read_cells
from lepton_lib.errors import DataError
from lepton_lib.serving import attach_labels, read_log


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
        parts = [
            f"{self.attached} labels attached, {self.repeated} known already, {self.corrected} corrected"
        ]
        for ids, text in (
            (self.contradictory, "ids with two labels, none of them taken"),
            (self.unknown, "ids that no prediction has"),
        ):
            if ids:
                parts.append(f"{len(ids)} {text}; the first is {ids[0]!r}")
        return "\n".join(parts)


def attach_file(log: Path, table: Path, case: Case) -> LabelCount:
    """Attach the labels of a CSV file with the columns ``id`` and ``label``; what fits is attached, the rest counted.

    Args:
        log: The prediction log.
        table: Prediction ids, and class names or numbers.
        case: The log's case.

    Raises:
        DataError: The table can't be read, lacks a column, or holds a label that the case doesn't
            know.
        RunError: The log can't be read or written to.
    """
    try:
        cells = list(read_cells(table, delimiter=",", encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(str(table), "no such file", "a CSV file", "Check its name.") from error
    if sorted(cells[0][1]) != ["id", "label"]:
        raise DataError(
            f"{table.name}, line 1",
            repr(cells[0][1]),
            "the columns 'id' and 'label'",
            "Name them so; an id is what the service gave with its answer.",
        )
    wanted: dict[str, set[Any]] = {}
    for line, pair in cells[1:]:
        entry = dict(zip(cells[0][1], pair, strict=True))
        wanted.setdefault(entry["id"].strip(), set()).add(
            _label(entry["label"].strip(), case, table, line)
        )
    known = read_log(log, case, wanted)[TARGET].to_dict()
    once = {id_: labels.copy().pop() for id_, labels in wanted.items() if len(labels) == 1}
    found = {id_: label for id_, label in once.items() if id_ in known}
    value = {
        id_: case.classes.index(label) if case.classes else label for id_, label in found.items()
    }
    new = [id_ for id_ in found if math.isnan(known[id_])]
    changed = [id_ for id_ in found if not math.isnan(known[id_]) and known[id_] != value[id_]]
    attach_labels(log, {id_: found[id_] for id_ in (*new, *changed)}, case)
    twice, odd = (
        [i for i, labels in wanted.items() if len(labels) > 1],
        [i for i in wanted if i not in known],
    )
    return LabelCount(len(new), len(found) - len(new) - len(changed), len(changed), twice, odd)


def _label(text: str, case: Case, table: Path, line: int) -> str | float:
    if text in case.classes:
        return text
    number = math.nan
    if not case.classes:
        with contextlib.suppress(ValueError):
            number = float(text)
    if math.isfinite(number):
        return number
    raise DataError(
        f"{table.name}, line {line}",
        repr(text),
        f"one of {list(case.classes)}" if case.classes else "a finite number",
        "Correct the label.",
    )
