"""The page that sums a run up: ``index.html`` in the run folder.

Pages extend ``runs/templates/page.html`` and stand alone: no script, font or style from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lepton_lib.artefacts import STEPS, Run
from lepton_lib.cases import Case, load_case
from lepton_lib.errors import CaseError
from lepton_lib.runs.summary import (
    RunSummary,
    StepEntry,
    metric_name,
    number,
    read_steps,
)
from lepton_lib.utils import render, write_atomic

if TYPE_CHECKING:
    from lepton_lib.runs.curves import Curve

EVERYWHERE = 3  # a parameter that more steps than this take is shown once, without their names


class StepRow(NamedTuple):
    """A line of the steps' table."""

    name: str
    done: bool | None  # None: not run; False: out of date
    pages: list[tuple[str, str]]  # address and text
    seconds: str


class GateLine(msgspec.Struct):
    """One of the charter's criteria in ``gate.json``, with its verdict."""

    name: str
    value: bool | int | float | str | None
    bound: str
    passed: bool | None
    why: str
    judged: bool | int | float | str | None = None  # the interval's worse end, for example


class _Gate(msgspec.Struct):
    criteria: list[GateLine]


def write_index(run: Run) -> Path:
    """Write ``index.html``: question, gate, key figures, and links to what the run has left.

    Raises:
        RunError: The manifest can't be read.
    """
    steps, summary = read_steps(run), RunSummary.of(run)
    title, question, drawn = str(summary.case or "No case yet"), "", []
    try:
        case = load_case(title)
        title, question, drawn = case.title, case.question, _curves(run, case)
    except CaseError:  # the run may be read where the case isn't
        pass
    packages: dict[str, str] = {}
    for entry in steps.values():
        packages |= {"python": entry.python, "commit": entry.commit or "none"} | entry.packages
    page = render(
        "runs/templates/index.html",
        title=title,
        question=question,
        case=summary.case,
        gate_passed=summary.gate_passed,
        figures=[figure for figure in summary.figures() if figure.label != "gate"],
        criteria=_criteria(run),
        curves=drawn,
        steps=[_step_row(run, step, steps.get(step)) for step in _shown(steps)],
        files=_file_rows(run, steps),
        parameters=_parameter_rows(steps),
        packages=packages,
        number=number,
        metric_name=metric_name,
    )
    path = run.folder / "index.html"
    write_atomic(path, page)
    return path


def _shown(steps: Mapping[str, StepEntry]) -> list[str]:
    """All steps of the loop and those lessons that ran; only the lessons where no step did."""
    lessons = [step for step in steps if step not in STEPS]
    return lessons if lessons and len(lessons) == len(steps) else [*STEPS, *lessons]


def _criteria(run: Run) -> list[GateLine] | None:
    """The gate's criteria; None where there is no gate that can be read."""
    try:
        content = (run.folder / "evaluation" / "gate.json").read_bytes()
        return msgspec.json.decode(content, type=_Gate).criteria
    except (OSError, ValueError):
        return None


def _curves(run: Run, case: Case) -> list[Curve]:
    """The curves of the run; none where its files, or what reads them, are missing."""
    try:
        from lepton_lib.runs.curves import curves  # a second of imports

        return [*curves(run, case)]
    except (OSError, ValueError, KeyError, ImportError):
        return []


def _step_row(run: Run, step: str, entry: StepEntry | None) -> StepRow:
    pages = [
        (f"notebooks/{step}{suffix}", text)
        for suffix, text in ((".html", "read"), (".ipynb", "open in Jupyter"))
        if (run.folder / "notebooks" / f"{step}{suffix}").is_file()
    ]
    if entry is None:
        return StepRow(step, None, pages, "–")
    return StepRow(step, run.done(step, entry.parameters), pages, f"{entry.seconds:.1f}")


def _file_rows(run: Run, steps: Mapping[str, StepEntry]) -> Iterator[tuple[str, str, str]]:
    """The name, step and size of each result."""
    for step in steps:
        for name in steps[step].files:
            if (run.folder / name).is_file():
                size = (run.folder / name).stat().st_size / 1000
                yield name, step, f"{max(size, 0.1):,.1f} kB"


def _parameter_rows(steps: Mapping[str, StepEntry]) -> Iterator[tuple[str, str, str]]:
    """The name and value of each parameter, and the steps that had this value."""
    by_name: dict[str, dict[str, str]] = {}
    for step, entry in steps.items():
        for name, value in entry.parameters.items():
            by_name.setdefault(name, {})[step] = repr(value)
    for name, values in sorted(by_name.items()):
        for value in dict.fromkeys(values.values()):
            users = [step for step in values if values[step] == value]
            everywhere = len(users) == len(values) > EVERYWHERE
            yield name, value, "all that take it" if everywhere else ", ".join(users)
