"""The class report: a table for other programs, and a page that begins with what the class has not understood yet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from lepton_lib.classroom.grading import NOT_RUN, Learner
from lepton_lib.errors import wrap_os_errors
from lepton_lib.exercises.definitions import find_definition
from lepton_lib.exercises.progress import CORRECT, NOT_ATTEMPTED, NOT_YET
from lepton_lib.runs.pages import page, table
from lepton_lib.utils import write_atomic

NO_EXAM = (
    "This report helps to teach; it is no exam supervision. It doesn't know who wrote a notebook, and the course's "
    "definitions, which a learner may read, hold the answers."
)
_STYLE = """
.correct { color: var(--good); } .not-yet { color: var(--bad); } .soft { color: var(--soft); }
.many { font-weight: 650; white-space: nowrap; }
"""
_MARKS = {CORRECT: "correct", NOT_YET: "not-yet", NOT_ATTEMPTED: "soft", NOT_RUN: "soft"}


def shared_misconceptions(learners: Sequence[Learner]) -> list[tuple[int, str, str]]:
    """What *not yet* said, as count, exercise and message; what most learners share comes first."""
    counts: dict[tuple[str, str], int] = {}
    for learner in learners:
        for key, result in learner.results.items():
            if result.status == NOT_YET:
                counts[key, result.message] = counts.get((key, result.message), 0) + 1
    return sorted(
        ((n, key, message) for (key, message), n in counts.items()),
        key=lambda entry: (-entry[0], entry[1:]),
    )


def write_report(learners: Sequence[Learner], folder: Path) -> list[Path]:
    """Write ``class.csv`` and ``class.html`` into the folder.

    Raises:
        RunError: It can't be written to.
    """
    with wrap_os_errors(folder, remedy="Copy the notebooks to a folder of your own first."):
        write_atomic(folder / "class.csv", to_csv(learners))
        write_atomic(folder / "class.html", to_html(learners))
    return [folder / "class.csv", folder / "class.html"]


def to_csv(learners: Sequence[Learner]) -> str:
    """A row a learner, a column an exercise; no cell begins as a spreadsheet's formula does."""
    file = io.StringIO()
    writer = csv.writer(file)
    keys = list(learners[0].results) if learners else []
    writer.writerow(["learner", "correct", *keys, "notes"])
    for learner in learners:
        states = [result.status for result in learner.results.values()]
        row = [learner.name, learner.n_correct, *states, "; ".join(learner.notes)]
        writer.writerow(
            [f"'{cell}" if str(cell)[:1] in "=+-@\t\r\n" and cell != "" else cell for cell in row]
        )
    return file.getvalue()


def to_html(learners: Sequence[Learner]) -> str:
    """The page."""
    keys = list(learners[0].results) if learners else []
    titles = {key: find_definition(key).title for key in keys}
    shared = [
        [
            f'<span class="many">{n} of {len(learners)}</span>',
            f"{key} {escape(titles[key])}",
            escape(message),
        ]
        for n, key, message in shared_misconceptions(learners)
    ]
    rows = [
        [escape(one.name), f"{one.n_correct} of {len(keys)}"]
        + [
            f'<span class="{_MARKS[result.status]}">{result.status}</span>'
            for result in one.results.values()
        ]
        for one in learners
    ]
    why = [
        [escape(one.name), f"{key} {escape(titles[key])}", escape(result.message)]
        for one in learners
        for key, result in one.results.items()
        if result.status == NOT_RUN
    ]
    notes = [[escape(one.name), escape("; ".join(one.notes))] for one in learners if one.notes]
    lead = f"{len(learners)} learners, {len(keys)} exercises and questions. {NO_EXAM}"
    body = f"""<header><h1>Class report</h1><p class="lead">{escape(lead)}</p></header><main>
<h2>What the class shares</h2>
{table("Misconceptions, the most frequent first", ("Learners", "Exercise", "Misconception"), shared)}
<h2>Each learner</h2>
{table("How each exercise stands", ("Learner", "Correct", *keys), rows)}
<h2>What could not be run</h2>
{table("Learners whose notebooks need a look", ("Learner", "What was found"), notes)}
<details><summary>Exercise by exercise</summary>
{table("Why an exercise has no result", ("Learner", "Exercise", "Why"), why)}</details>
</main>"""
    return page("Class report", body, _STYLE)
