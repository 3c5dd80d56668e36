"""Grades a folder of learners' notebooks by the answers that they give in a sandbox.

It never stops: whatever a notebook is or does, its learner has a row with what could be learnt. It
is no supervision of an exam: a notebook doesn't tell who wrote it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lepton_lib.classroom.sandbox import Limits, SandboxRunner, can_isolate
from lepton_lib.classroom.sandbox_protocol import SandboxEvent, decode
from lepton_lib.errors import ParameterError, wrap_os_errors
from lepton_lib.exercises.definitions import definition_files, definitions_of, number_of
from lepton_lib.exercises.grading import grade_answer
from lepton_lib.exercises.progress import CORRECT, NOT_ATTEMPTED, NOT_YET

NOT_RUN = "could not be run"
NOT_ISOLATED = (
    "These notebooks were not isolated: this machine allows no user namespaces. Their code could "
    "read and write your files, use the network and leave programs running."
)
INTERRUPTED = "Grading was interrupted: learners without results have not been graded."
# what is handed in instead of a notebook, by its suffix
NO_NOTEBOOKS = {
    ".json": "rename it, so that it ends in .ipynb",
    ".zip": "an archive: unpack it",
    ".py": "code alone: ask for the .ipynb",
    ".html": "a page: ask for the .ipynb",
    ".pdf": "a page: ask for the .ipynb",
}
REPORTS = ("class.csv", "class.html")  # what `class_report` leaves among the notebooks
_RANKED = (NOT_RUN, NOT_ATTEMPTED, NOT_YET, CORRECT)


class Result(NamedTuple):
    """An exercise's status: correct, not yet, not attempted or could not be run; and why."""

    status: str
    message: str = ""


Results = dict[str, Result]  # by the exercise's key


@dataclass
class Learner:
    """A row of the class report."""

    name: str  # the file's or the folder's
    notebooks: list[Path] = field(default_factory=list)
    results: Results = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what else is to be said

    @property
    def n_correct(self) -> int:
        """How many are correct."""
        return sum(result.status == CORRECT for result in self.results.values())


def find_learners(folder: Path) -> list[Learner]:
    """The learners of a folder: each notebook in it is one's, and each folder with its notebooks.

    Folders are searched to the bottom. What was handed in instead of a notebook gets a note. Hidden
    files and copies that `lepton work` keeps are skipped.

    Raises:
        RunError: The folder can't be read.
    """
    learners = []
    got, expected = "a folder that can't be read", "the folder with the learners' notebooks"
    with wrap_os_errors(folder, got=got, expected=expected, remedy="Check its name."):
        own = {folder / name for name in REPORTS}
        paths = [
            path for path in sorted(folder.iterdir()) if path.name[0] != "." and path not in own
        ]
        folders = {path.name for path in paths if path.is_dir()}
        for path in paths:
            learner = _find_learner(path, folders)
            if learner.notebooks or learner.notes:
                learners.append(learner)
    return learners


def _find_learner(path: Path, folders: set[str]) -> Learner:
    # a folder of the same name is another learner
    keep_suffix = path.is_symlink() or path.is_dir() or path.stem in folders
    name = path.name if keep_suffix else path.stem
    learner = Learner(name.encode("utf-8", "replace").decode())
    if path.is_symlink():
        learner.notes = ["a link, which isn't followed"] * (_is_notebook(path) or path.is_dir())
    elif path.is_dir():
        for own in sorted(path.rglob("*")):
            hidden = any(part[0] == "." for part in own.relative_to(path).parts)
            if _is_plain(own) and not hidden and ".before-update" not in own.name:
                learner.notebooks.append(own)
        others = [
            (own.name, NO_NOTEBOOKS.get(own.suffix.lower())) for own in sorted(path.rglob("*"))
        ]
        notes = [f"{name}: {note}" for name, note in others if note and name[0] != "."]
        learner.notes = [] if learner.notebooks else notes or ["a folder without a notebook in it"]
    elif _is_notebook(path):
        learner.notebooks = [path] if _is_plain(path) else []
        learner.notes = [] if learner.notebooks else ["no file that can be read"]
    elif note := NO_NOTEBOOKS.get(path.suffix.lower()):
        learner.name, learner.notes = path.name, [note]
    return learner


def _is_plain(path: Path) -> bool:
    # reading a pipe would never end
    return _is_notebook(path) and path.is_file() and not path.is_symlink()


def _is_notebook(path: Path) -> bool:
    return path.suffix.lower() == ".ipynb"  # .IPYNB, too, as some USB sticks have it


class Graded(NamedTuple):
    """A class's results, and what restricts them."""

    learners: list[Learner]
    isolated: bool  # whether the notebooks were kept from the machine
    complete: bool  # whether nothing interrupted it

    @property
    def warnings(self) -> list[str]:
        """What must be known beside the results."""
        said = ((NOT_ISOLATED, self.isolated), (INTERRUPTED, self.complete))
        return [text for text, is_well in said if not is_well]


def grade(
    folder: Path,
    *,
    limits: Limits | None = None,
    unisolated: bool = False,
    progress: Callable[[Learner], None] | None = None,
) -> Graded:
    """Run and grade all notebooks of a folder; Ctrl-C keeps what has been graded by then.

    Args:
        folder: Where the notebooks lie.
        limits: What one notebook may take.
        unisolated: Run them also where the machine can't isolate them.
        progress: Called with each graded learner.

    Returns:
        The learners, each with a result for every exercise of every notebook that anyone handed in.

    Raises:
        RunError: The folder can't be read.
        ParameterError: This machine can't isolate the notebooks.
        NotebookError: The course's own notebooks, whose results the learners' read, fail here.
    """
    limits, learners = limits or Limits(), find_learners(folder)
    if not (isolated := can_isolate()) and not unisolated:
        expected, remedy = "Linux with user namespaces", "Grade there, or add --unisolated."
        got = "a machine that can't keep a learner's code from your files and the network"
        raise ParameterError("grade", got, expected, remedy)
    waiting = list(learners)
    with (
        tempfile.TemporaryDirectory(prefix="lepton-class-") as place,
        ThreadPoolExecutor(limits.jobs) as pool,
    ):
        sandbox = SandboxRunner(Path(place), limits, isolated=isolated)
        try:
            sandbox.prepare(path for learner in learners for path in learner.notebooks)
            runs = [[pool.submit(sandbox.run, path) for path in one.notebooks] for one in learners]
            for learner, own in zip(learners, runs, strict=True):
                for path, events in zip(learner.notebooks, own, strict=True):
                    _add_events(learner, path, events)
                waiting.remove(learner)
                if progress is not None:
                    progress(learner)
        except KeyboardInterrupt:
            for learner in waiting:
                learner.notes.append("not graded: interrupted")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            sandbox.close()
    _fill_up(learners)
    return Graded(learners, isolated, not waiting)


def _add_events(learner: Learner, path: Path, events: Future[list[SandboxEvent]]) -> None:
    try:
        _add_notebook(learner, path, events.result())
    except Exception as error:  # the class goes on
        kind = type(error).__name__
        learner.notes.append(f"{path.name}: its results can't be read ({kind})")


def _fill_up(learners: Sequence[Learner]) -> None:
    """Give every learner a result for each exercise of each notebook that anyone handed in."""
    numbers = sorted({number_of(key) for learner in learners for key in learner.results})
    keys = [key for number in numbers for key in definitions_of(number)]
    for learner in learners:
        rest = Result(NOT_ATTEMPTED, "not handed in")
        if learner.notes and not learner.results:
            rest = Result(NOT_RUN, learner.notes[0])
        learner.results = {key: learner.results.get(key, rest) for key in keys}


def _add_notebook(learner: Learner, path: Path, events: list[SandboxEvent]) -> None:
    """Grade one notebook's answers and add them to the learner's results."""
    results: Results = {}
    cell, keys, end = "", set[str](), ""
    for event in events:
        if event.kind == "keys":
            keys = set(event.keys)
        elif event.kind == "cell":
            cell = f", in the cell {event.text!r}"
        elif event.kind == "answer":
            _keep_better(results, event.keys[0], _grade_event(event))
        elif event.kind == "failed":
            for key in event.keys:
                _keep_better(results, key, Result(NOT_RUN, f"its cell fails: {event.text}"))
        elif event.kind == "unreadable":
            end = f"no notebook: {event.text}"
        elif event.kind == "stopped":
            end = f"{event.text}{cell}"
    numbers = {number_of(key) for key in keys} & set(definition_files())
    if end or not numbers:
        learner.notes.append(f"{path.name}: {end or 'no exercise of the course in it'}")
    missing = f"the notebook came to no end: {end}" if end else "its cell fails"
    for key in (key for number in sorted(numbers) for key in definitions_of(number)):
        rest = Result(NOT_RUN, missing)
        rest = rest if key in keys else Result(NOT_ATTEMPTED, "its cell isn't there")
        _keep_better(learner.results, key, results.get(key, rest))


def _keep_better(results: Results, key: str, result: Result) -> None:
    former = results.get(key, result)
    if _RANKED.index(result.status) >= _RANKED.index(former.status):
        results[key] = result


def _grade_event(event: SandboxEvent) -> Result:
    try:
        status, message = grade_answer(event.keys[0], decode(event.value))
    except Exception as error:  # what a learner's process writes may be anything
        return Result(NOT_RUN, f"its answer can't be read ({type(error).__name__})")
    if status == NOT_YET and event.untouched:
        return Result(NOT_ATTEMPTED, "as it was handed out")
    return Result(status, message if status == NOT_YET else "")
