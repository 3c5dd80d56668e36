"""How long a section takes, what fits into a lesson, and a common start for a class."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.artefacts import OUTPUTS, STEPS, Run
from lepton_lib.classroom.notebooks import keys_in, write_notebook
from lepton_lib.errors import ExerciseError, ParameterError
from lepton_lib.exercises.definitions import find_definition, notebook_number
from lepton_lib.runs import find_notebook, find_notebooks, run_loop
from lepton_lib.runs.execution import ProgressCallback
from lepton_lib.runs.notebooks import (
    SKIPPED_TAGS,
    is_code,
    loop_notebooks,
    read_notebook,
    tags,
)
from lepton_lib.runs.readings import COMMENT
from lepton_lib.utils import render

WORDS = 110  # read in a minute: prose that is to be understood
CODE_MINUTES = 1.0  # for a code cell: to read it, run it and look at what it shows
BREAK_AFTER, BREAK = 50, 10  # minutes of work, and of the break after them
MEASURED = ("service/latency.json", "service/manifest.json")  # files that differ from run to run
INTRODUCTION = "Introduction"
_MINUTES_LINE = re.compile(r"\n\n\*About \d+ minutes?\.\*$", re.MULTILINE)
_TOTAL = re.compile(r"(?<=^\*\*Time:\*\* )\d+ minutes", re.MULTILINE)
_HEADING = re.compile(r"^## +(.+?)[ \t]*$", re.MULTILINE)


class Section(NamedTuple):
    """A section of a notebook, from one heading to the next."""

    notebook: str  # its number
    title: str  # the heading's, or "Introduction"
    minutes: int
    exercises: tuple[str, ...] = ()  # their keys
    needed: bool = False  # whether the loop runs its code, so that what follows has its results


def sections(path: Path) -> list[Section]:
    """The sections of a notebook; their time is that of their words, code cells and exercises."""
    titles, minutes, exercises, needed = [INTRODUCTION], [0.0], [list[str]()], [True]
    for cell in read_notebook(path).cells:
        if is_code(cell):
            if "hide-input" in tags(cell):
                continue  # its figure is read with the words around it
            keys = keys_in(cell.source)
            minutes[-1] += _code_minutes(keys)
            exercises[-1] += keys
            needed[-1] |= not SKIPPED_TAGS & set(tags(cell))
        elif cell.cell_type == "markdown":
            source = COMMENT.sub("", _MINUTES_LINE.sub("", cell.source))
            before, *parts = _HEADING.split(source)
            minutes[-1] += len(before.split()) / WORDS
            for title, text in zip(parts[::2], parts[1::2], strict=True):
                titles.append(title)
                minutes.append(len(f"{title} {text}".split()) / WORDS)
                exercises.append([])
                needed.append(False)
    return [
        Section(notebook_number(path), title, max(1, round(time)), tuple(keys), is_needed)
        for title, time, keys, is_needed in zip(titles, minutes, exercises, needed, strict=True)
    ]


def _code_minutes(keys: Sequence[str]) -> float:
    try:
        return sum(find_definition(key).minutes for key in keys) or CODE_MINUTES
    except ExerciseError:
        return CODE_MINUTES


def stamp(nb: Any, parts: Sequence[Section]) -> Any:
    """Write the minutes: ``*About 5 minutes.*`` under headings, their sum after ``**Time:**``."""
    rest = iter(parts[1:])
    total = f"{5 * math.ceil(sum(section.minutes for section in parts) / 5)} minutes"

    def with_minutes(heading: re.Match[str]) -> str:
        minutes = next(rest).minutes
        return f"{heading[0].rstrip()}\n\n*About {minutes} minute{'s' if minutes > 1 else ''}.*"

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            source = _MINUTES_LINE.sub("", _TOTAL.sub(total, cell.source))
            cell.source = _HEADING.sub(with_minutes, source)
    return nb


def stamp_minutes(path: Path) -> None:
    """Stamp a notebook's file, if its minutes have changed."""
    import nbformat

    nb = nbformat.read(path, as_version=4)
    before = [cell.source for cell in nb.cells]
    if [cell.source for cell in stamp(nb, sections(path)).cells] != before:
        write_notebook(path, nb)


class Plan(NamedTuple):
    """A lesson: what is done in it, and what isn't."""

    items: list[tuple[int, Section | None]]  # sections and breaks (None), by their first minutes
    left: list[Section]  # that don't fit
    minutes: int  # the minute that it ends at

    def to_text(self) -> str:
        """A line for each section and break."""
        return render("classroom/templates/plan.txt", plan=self, pause=BREAK).rstrip("\n")


def plan_lesson(minutes: int, goals: Sequence[str] = ()) -> Plan:
    """Which sections fit into a lesson, in the notebooks' order, with breaks.

    Introductions and sections whose code the loop runs come in first, then those with exercises,
    then the rest, as long as they fit.

    Args:
        minutes: The lesson's, with its breaks.
        goals: Steps of the loop by name (``data``) or number (``01``); the whole loop by default.

    Raises:
        ParameterError: A goal is no step, or nothing fits.
    """
    paths = [_notebook_of(goal) for goal in dict.fromkeys(goals)] or loop_notebooks()
    every = [part for path in sorted(paths, key=notebook_number) for part in sections(path)]

    def rank(k: int) -> int:
        return 0 if every[k].needed else 1 if every[k].exercises else 2

    chosen: set[int] = set()
    for k in sorted(range(len(every)), key=rank):
        if _schedule([every[i] for i in sorted(chosen | {k})])[1] <= minutes:
            chosen.add(k)
    if not chosen:
        got, expected = f"{minutes} minutes", "time for one section"
        raise ParameterError("the plan", got, expected, "Allow more minutes.")
    items, end = _schedule([every[k] for k in sorted(chosen)])
    return Plan(items, [section for k, section in enumerate(every) if k not in chosen], end)


def _schedule(chosen: Sequence[Section]) -> tuple[list[tuple[int, Section | None]], int]:
    """The sections with their starts and the breaks between them, and the minute of the end."""
    items: list[tuple[int, Section | None]] = []
    now, worked = 0, 0
    for section in chosen:
        if worked and worked + section.minutes > BREAK_AFTER:
            items.append((now, None))
            now, worked = now + BREAK, 0
        items.append((now, section))
        now, worked = now + section.minutes, worked + section.minutes
    return items, now


def _notebook_of(goal: str) -> Path:
    word, names = goal.strip().lower(), []
    for path in find_notebooks().values():
        number, name = notebook_number(path), path.stem.partition("_")[2]
        if word and (word in (name, path.stem) or word.zfill(2) == number):
            return path
        names.append(name)
    expected = f"one of: {', '.join(names)}"
    raise ParameterError(f"goal {goal!r}", "no such step", expected, "Check its spelling.")


def run_steps_before(
    name: str, run_dir: Path, *, progress: ProgressCallback | None = None
) -> list[tuple[str, str]]:
    """Bring a run folder to where a notebook starts; steps that are done there stay as they are.

    Returns:
        Each step before the notebook with a short hash of its files, which is the same on every
        seat.

    Raises:
        ParameterError: It is no notebook of the loop.
        RunError: The run folder can't be used.
        NotebookError: A notebook didn't come to its end.
    """
    stem = _notebook_of(name).stem
    if stem not in STEPS:
        where, expected = f"notebook {stem!r}", ", ".join(STEPS)
        raise ParameterError(where, "no step of the loop", expected, "Take one of them.")
    before = STEPS[: STEPS.index(stem)]
    if before:
        notebooks = [find_notebook(step) for step in before]
        run_loop(run_dir=run_dir, notebooks=notebooks, progress=progress)
    steps, codes = Run(run_dir).manifest["steps"], []
    for step in before:
        files = {file: steps[step]["files"][file] for file in OUTPUTS[step] if file not in MEASURED}
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        codes.append((step, digest[:12]))
    return codes
