"""How long a section takes, what fits into a lesson, and where a class starts together."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.artefacts import OUTPUTS, STEPS, Run
from lepton_lib.classroom.cells import keys_in
from lepton_lib.errors import ExerciseError, ParameterError
from lepton_lib.exercises.definitions import find_definition
from lepton_lib.runs import find_notebook, find_notebooks, run_loop
from lepton_lib.runs.execution import Listener
from lepton_lib.runs.parameters import is_code, loop_notebooks, read_notebook
from lepton_lib.utils import write_atomic

WORDS = 110  # read in a minute: prose that is to be understood
CODE_MINUTES = 1.0  # for a code cell: to read it, run it and look at what it shows
BREAK_AFTER, BREAK = 50, 10  # minutes of work, and of the break after them
MEASURED = ("service/latency.json", "service/manifest.json")  # files that differ from run to run
_LINE = re.compile(r"\n\n\*About \d+ minutes?\.\*$", re.MULTILINE)
_TIME = re.compile(r"(?<=^\*\*Time:\*\* )\d+ minutes", re.MULTILINE)
_SECTION = re.compile(r"^## +(.+?)[ \t]*$", re.MULTILINE)


class Section(NamedTuple):
    """A section of a notebook, from one heading to the next.

    Attributes:
        notebook: Its stem.
        title: The heading's, or ``Introduction``.
        minutes: That it takes.
        exercises: The keys of the exercises in it.
    """

    notebook: str
    title: str
    minutes: int
    exercises: tuple[str, ...]


def sections(path: Path) -> list[Section]:
    """The sections of a notebook with the minutes that they take: words, code cells and exercises."""
    found: list[tuple[str, float, list[str]]] = [("Introduction", 0.0, [])]
    for cell in read_notebook(path).cells:
        if is_code(cell):
            title, minutes, keys = found[-1]
            here = keys_in(cell.source)
            found[-1] = (
                title,
                minutes + (_exercise_minutes(here) if here else CODE_MINUTES),
                [*keys, *here],
            )
            continue
        before, *parts = (
            _SECTION.split(_LINE.sub("", cell.source)) if cell.cell_type == "markdown" else [""]
        )
        found[-1] = (found[-1][0], found[-1][1] + len(before.split()) / WORDS, found[-1][2])
        for title, text in zip(parts[::2], parts[1::2], strict=True):
            found.append((title, len(f"{title} {text}".split()) / WORDS, []))
    return [
        Section(path.stem, title, max(1, round(minutes)), tuple(keys))
        for title, minutes, keys in found
    ]


def _exercise_minutes(keys: Sequence[str]) -> float:
    try:
        return sum(find_definition(key).minutes for key in keys)
    except ExerciseError:
        return CODE_MINUTES


def stamp(nb: Any, found: Sequence[Section]) -> Any:
    """Write the minutes: ``*About 5 minutes.*`` under each section's heading, and their sum after ``**Time:**``."""
    rest = iter(found[1:])
    whole = f"{5 * math.ceil(sum(section.minutes for section in found) / 5)} minutes"

    def line(heading: re.Match[str]) -> str:
        minutes = next(rest).minutes
        return f"{heading[0].rstrip()}\n\n*About {minutes} minute{'s' if minutes > 1 else ''}.*"

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = _SECTION.sub(line, _LINE.sub("", _TIME.sub(whole, cell.source)))
    return nb


def stamp_minutes(path: Path) -> None:
    """Stamp a notebook's file, if its minutes aren't what they were."""
    import nbformat

    nb = nbformat.read(path, as_version=4)
    before = [cell.source for cell in nb.cells]
    if [cell.source for cell in stamp(nb, sections(path)).cells] != before:
        write_atomic(path, nbformat.writes(nb) + "\n")


class Plan(NamedTuple):
    """A lesson: sections and breaks (None) in order, each with the minute that it starts at, and what stays at home."""

    items: list[tuple[int, Section | None]]
    left: list[Section]
    minutes: int

    def to_text(self) -> str:
        """A line for each section and break."""
        lines = []
        for start, section in self.items:
            clock = f"{start // 60}:{start % 60:02}"
            if section is None:
                lines.append(f"{clock}  {BREAK:3} min  break")
            else:
                task = f"  ({', '.join(section.exercises)})" if section.exercises else ""
                lines.append(
                    f"{clock}  {section.minutes:3} min  {section.notebook[:2]} {section.title}{task}"
                )
        lines.append(f"{self.minutes // 60}:{self.minutes % 60:02}  end")
        if self.left:
            lines.append("To read before or after:")
            lines += [
                f"      {one.minutes:3} min  {one.notebook[:2]} {one.title}" for one in self.left
            ]
        return "\n".join(lines)


def plan(minutes: int, goals: Sequence[str] = ()) -> Plan:
    """Which sections fit into a lesson, in the notebooks' order, with breaks.

    Each notebook's introduction and its sections with exercises come in first, then the rest, as
    long as they fit.

    Args:
        minutes: That the lesson has, with its breaks.
        goals: Steps of the loop by name (``data``) or number (``01``); the whole loop by default.

    Raises:
        ParameterError: A goal is no step, or nothing fits.
    """
    paths = [_notebook_of(goal) for goal in dict.fromkeys(goals)] or loop_notebooks()
    every = [
        section for path in sorted(paths, key=lambda path: path.stem) for section in sections(path)
    ]
    order = sorted(
        range(len(every)),
        key=lambda k: (not (every[k].exercises or every[k].title == "Introduction"), k),
    )
    chosen: set[int] = set()
    for k in order:
        if _laid_out([every[i] for i in sorted(chosen | {k})])[1] <= minutes:
            chosen.add(k)
    if not chosen:
        raise ParameterError(
            "the plan", f"{minutes} minutes", "time for one section", "Allow more minutes."
        )
    items, end = _laid_out([every[k] for k in sorted(chosen)])
    return Plan(items, [section for k, section in enumerate(every) if k not in chosen], end)


def _laid_out(chosen: Sequence[Section]) -> tuple[list[tuple[int, Section | None]], int]:
    items: list[tuple[int, Section | None]] = []
    now, since = 0, 0
    for section in chosen:
        if since and since + section.minutes > BREAK_AFTER:
            items.append((now, None))
            now, since = now + BREAK, 0
        items.append((now, section))
        now, since = now + section.minutes, since + section.minutes
    return items, now


def _notebook_of(goal: str) -> Path:
    name = goal.strip().lower()
    for stem, path in find_notebooks().items():
        if name and (stem.partition("_")[2] == name or stem.partition("_")[0] == name.zfill(2)):
            return path
    known = ", ".join(stem.partition("_")[2] for stem in find_notebooks())
    raise ParameterError(
        f"goal {goal!r}", "no such step", f"one of: {known}", "Check its spelling."
    )


def jump(name: str, run_dir: Path, *, progress: Listener | None = None) -> list[tuple[str, str]]:
    """Bring a run folder to where a notebook starts: the steps before it, without lessons and exercises.

    Args:
        name: The notebook, as for `find_notebook`.
        run_dir: The run folder. Steps that are done with the default parameters stay as they are.
        progress: As for `run_loop`.

    Returns:
        Each step before the notebook with a short hash over what it left, which is the same on
        every seat.

    Raises:
        ParameterError: It is no notebook of the loop.
        RunError: The run folder can't be used.
        NotebookError: A notebook didn't come to its end.
    """
    stem = find_notebook(name).stem
    if stem not in STEPS:
        raise ParameterError(
            f"notebook {stem!r}", "no step of the loop", ", ".join(STEPS), "Take one of them."
        )
    before = STEPS[: STEPS.index(stem)]
    if before:
        run_loop(
            run_dir=run_dir, notebooks=[find_notebook(step) for step in before], progress=progress
        )
    steps = Run(run_dir).manifest["steps"]
    found = []
    for step in before:
        files = {file: steps[step]["files"][file] for file in OUTPUTS[step] if file not in MEASURED}
        found.append((step, hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:12]))
    return found
