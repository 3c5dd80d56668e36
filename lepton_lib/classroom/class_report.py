"""The class report: a table for other programs, and a page that begins with misconceptions."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lepton_lib.classroom.grading import NOT_RUN, Graded, Learner
from lepton_lib.errors import wrap_os_errors
from lepton_lib.exercises.definitions import find_definition
from lepton_lib.exercises.progress import NOT_YET
from lepton_lib.utils import render, write_atomic

NO_EXAM = (
    "This report helps to teach; it is no exam supervision. It doesn't know who wrote a notebook, "
    "and the course's definitions, which a learner may read, hold the answers."
)


def shared_misconceptions(learners: Sequence[Learner]) -> list[tuple[int, str, str]]:
    """The messages of *not yet*: how many learners earned each, the exercise's key, the message."""
    counts = Counter(
        (key, result.message.partition("\n")[0])  # without the input that fails
        for learner in learners
        for key, result in learner.results.items()
        if result.status == NOT_YET
    )
    return [(n, *entry) for entry, n in sorted(counts.items(), key=lambda item: (-item[1], item))]


def write_class_report(graded: Graded, folder: Path) -> list[Path]:
    """Write ``class.csv`` and ``class.html`` into the folder.

    Raises:
        RunError: It can't be written to.
    """
    with wrap_os_errors(folder, remedy="Copy the notebooks to a folder of your own first."):
        write_atomic(folder / "class.csv", class_csv(graded.learners).encode("utf-8-sig"))
        write_atomic(folder / "class.html", class_html(graded))
    return [folder / "class.csv", folder / "class.html"]


def class_csv(learners: Sequence[Learner]) -> str:
    """A row a learner, a column an exercise; no cell begins as a spreadsheet's formula does."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["learner", "correct", *_keys(learners), "notes"])
    for learner in learners:
        states = [result.status for result in learner.results.values()]
        row = [learner.name, str(learner.n_correct), *states, "; ".join(learner.notes)]
        writer.writerow(f"'{cell}" if cell[:1] in set("=+-@\t\r\n") else cell for cell in row)
    return file.getvalue()


def class_html(graded: Graded) -> str:
    """The page: shared misconceptions, each learner's results, and what could not be run."""
    learners = graded.learners
    return render(
        "classroom/templates/class.html",
        title="Class report",
        remark=NO_EXAM,
        warnings=graded.warnings,
        shared=shared_misconceptions(learners),
        titles={key: find_definition(key).title for key in _keys(learners)},
        learners=learners,
        not_run=not_run(learners),
    )


def not_run(learners: Sequence[Learner]) -> list[tuple[str, str, str]]:
    """What could not be run, and notes: the learner's name, the exercises' keys, and why."""
    found = []
    for learner in learners:
        reasons: dict[str, list[str]] = {note: [] for note in learner.notes}
        for key, result in learner.results.items():
            if result.status == NOT_RUN:
                reasons.setdefault(result.message, []).append(key)
        found += [(learner.name, ", ".join(keys), why) for why, keys in reasons.items()]
    return found


def _keys(learners: Sequence[Learner]) -> list[str]:
    return list(learners[0].results) if learners else []
