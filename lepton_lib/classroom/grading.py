"""Reads a folder of learners' notebooks, runs each in a process of its own, and judges what they gave.

It never stops: whatever a notebook is or does, its learner has a row with what could be learnt. It
is no supervision of an exam: a notebook says nothing of who wrote it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.artefacts import STEPS
from lepton_lib.classroom.cells import source_folder
from lepton_lib.classroom.values import decode
from lepton_lib.errors import wrap_os_errors
from lepton_lib.exercises import judge
from lepton_lib.exercises.definitions import definition_files, read_definitions
from lepton_lib.exercises.progress import CORRECT, NOT_ATTEMPTED, NOT_YET
from lepton_lib.runs import find_notebook, run_loop
from lepton_lib.utils import course_folders

NOT_RUN = "could not be run"
LARGEST = 100 << 20  # bytes of a notebook, and of all its results
LINE = 16 << 20  # bytes of one result
_BETTER = (NOT_RUN, NOT_ATTEMPTED, NOT_YET, CORRECT)
_NUMBERS = re.compile(rb"check(?:point)?\(\s*\\?[\"'](\d\d)\.")


class Limits(NamedTuple):
    """What one notebook may take.

    Attributes:
        seconds: For all of it.
        cell_seconds: For one cell; then the next cell has its turn.
        jobs: Notebooks at the same time.
    """

    seconds: int = 120
    cell_seconds: int = 20
    jobs: int = 2


class Result(NamedTuple):
    """How one exercise stands: ``correct``, ``not yet``, ``not attempted`` or ``could not be run``, and why."""

    status: str
    message: str = ""


@dataclass
class Learner:
    """A row of the report.

    Attributes:
        name: The file's or the folder's.
        notebooks: The learner's files.
        results: By the exercise's key.
        notes: What else is to be said.
    """

    name: str
    notebooks: list[Path] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def n_correct(self) -> int:
        """How many are correct."""
        return sum(result.status == CORRECT for result in self.results.values())


def find_learners(folder: Path) -> list[Learner]:
    """The learners of a folder: each notebook in it is one's, and each folder in it with its notebooks.

    Folders are searched to the bottom. Hidden files, other files and copies that `lepton work`
    keeps are passed over.

    Raises:
        RunError: The folder can't be read.
    """
    found = []
    with wrap_os_errors(
        folder,
        got="a folder that can't be read",
        expected="the folder with the learners' notebooks",
        remedy="Check its name.",
    ):
        paths = [path for path in sorted(folder.iterdir()) if path.name[0] != "."]
        for path in paths:
            folders = [other for other in paths if other.name == path.stem and other.is_dir()]
            name = path.name if path.is_symlink() or path.is_dir() or folders else path.stem
            one = Learner(name.encode("utf-8", "replace").decode())
            if path.is_symlink():
                one.notes = (
                    ["a link, which isn't followed"] if _is_notebook(path) or path.is_dir() else []
                )
            elif path.is_dir():
                for place, inside, files in os.walk(path):
                    inside[:] = sorted(name for name in inside if name[0] != ".")
                    own = [
                        Path(place, name) for name in sorted(files) if ".before-update" not in name
                    ]
                    one.notebooks += [
                        path for path in own if _is_notebook(path) and _is_plain(path)
                    ]
                one.notes = [] if one.notebooks else ["a folder without a notebook in it"]
            elif _is_notebook(path):
                one.notebooks = [path] if _is_plain(path) else []
                one.notes = [] if one.notebooks else ["no file that can be read"]
            found += [one] if one.notebooks or one.notes else []
    return found


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()  # a pipe would never end


def _is_notebook(path: Path) -> bool:
    # .IPYNB, too, as some USB sticks have it
    return path.name[0] != "." and path.suffix.lower() == ".ipynb"


def grade(
    folder: Path, *, limits: Limits | None = None, progress: Callable[[Learner], None] | None = None
) -> list[Learner]:
    """Run and judge all notebooks of a folder.

    Args:
        folder: See `find_learners`.
        limits: What a notebook may take.
        progress: Called with each learner when all of that learner's notebooks are judged.

    Returns:
        The learners, each with a result for every exercise of every notebook that anyone handed in.

    Raises:
        RunError: The folder can't be read.
        NotebookError: The course's own notebooks, which leave what a later notebook reads, don't
            run here.
    """
    limits = limits or Limits()
    learners = find_learners(folder)
    with (
        tempfile.TemporaryDirectory(prefix="lepton-class-") as place,
        ThreadPoolExecutor(limits.jobs) as pool,
    ):
        desk = _Desk(Path(place), limits)
        desk.prepare(path for learner in learners for path in learner.notebooks)
        try:
            runs = [
                [(path, pool.submit(desk.run, path)) for path in learner.notebooks]
                for learner in learners
            ]
            for learner, own in zip(learners, runs, strict=True):
                for path, events in own:
                    try:
                        _take(learner, path, events.result())
                    except Exception as error:  # what a learner's process writes may be anything
                        learner.notes.append(
                            f"{path.name}: its results can't be read ({type(error).__name__})"
                        )
                if progress is not None:
                    progress(learner)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            desk.close()
    keys = [
        key
        for number in sorted({key[:2] for one in learners for key in one.results})
        for key in _keys(number)
    ]
    for learner in learners:
        why = learner.notes[0] if learner.notes and not learner.results else ""
        rest = Result(NOT_RUN, why) if why else Result(NOT_ATTEMPTED, "not handed in")
        learner.results = {key: learner.results.get(key, rest) for key in keys}
    return learners


def _keys(number: str) -> list[str]:
    return list(read_definitions(definition_files()[number]))


def _take(learner: Learner, path: Path, events: list[dict[str, Any]]) -> None:
    """Judge what one notebook gave, and add it to what is known of its learner; the better result counts."""
    known: dict[str, Result] = {}
    here, keys, end = {}, [], ""
    for event in events:
        if "key" in event:
            _add(known, str(event["key"]), _judged(event))
        elif "failed" in event:
            for key in event["keys"]:
                _add(known, str(key), Result(NOT_RUN, f"its cell fails: {event['error']}"))
        elif "cell" in event:
            here = event
        elif "unreadable" in event:
            end = f"no notebook: {event['unreadable']}"
        elif "stopped" in event:
            where = f", in the cell {here['cell']!r}" if here else ""
            end = f"{event['stopped']}{where}"
        elif "keys" in event:
            keys = [str(key) for key in event["keys"]]
    numbers = {key[:2] for key in keys} & set(definition_files())
    if end or not numbers:
        learner.notes.append(f"{path.name}: {end or 'no exercise of the course in it'}")
    for number in sorted(numbers):
        for key in _keys(number):
            rest = (
                Result(NOT_RUN, f"the notebook came to no end: {end}")
                if end
                else Result(NOT_RUN, "its cell fails")
            )
            rest = rest if key in keys else Result(NOT_ATTEMPTED, "its cell isn't there")
            _add(learner.results, key, known.get(key, rest))


def _add(results: dict[str, Result], key: str, result: Result) -> None:
    if key not in results or _BETTER.index(result.status) >= _BETTER.index(results[key].status):
        results[key] = result


def _judged(event: dict[str, Any]) -> Result:
    try:
        status, message = judge(str(event["key"]), decode(event["value"]))
    except Exception as error:  # what a learner's process writes may be anything
        return Result(NOT_RUN, f"its answer can't be read ({type(error).__name__})")
    if status == NOT_YET and event.get("untouched"):
        return Result(NOT_ATTEMPTED, "as it was handed out")
    return Result(status, message if status == NOT_YET else "")


class _Desk:
    """Where notebooks are run: a folder for each, with what it may read, and the processes at work."""

    def __init__(self, place: Path, limits: Limits) -> None:
        self.place, self.limits = place, limits
        self.running: set[subprocess.Popen[bytes]] = set()
        self.course = source_folder()
        self.artefacts: Path | None = None
        self.writable = [place / "matplotlib", Path("/dev/shm")]  # beside a notebook's own folder
        self.writable[0].mkdir()

    def prepare(self, paths: Iterable[Path]) -> None:
        """Run the steps whose results the notebooks read."""
        numbers = {""}
        for path in paths:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                numbers |= {found.decode() for found in _NUMBERS.findall(file.read(LARGEST))}
        before = [step for step in STEPS if step[:2] < max(numbers) <= STEPS[-1][:2]]
        if before:
            self.artefacts = self.place / "runs"
            run_loop(
                run_dir=self.artefacts / "credit",
                notebooks=[find_notebook(step) for step in before],
            )

    def run(self, path: Path) -> list[dict[str, Any]]:
        """Run one notebook, and again as a whole if a cell lacked something that the first run left out."""
        with tempfile.TemporaryDirectory(dir=self.place) as place:
            events = self._run(path, Path(place, "part"), "part")
            lacks = any("failed" in event and not event["keys"] for event in events)
            if lacks and any(event.get("sliced") for event in events):
                again = self._run(path, Path(place, "whole"), "whole")
                events = max(
                    events, again, key=lambda events: sum("key" in event for event in events)
                )
        return events

    def _run(self, path: Path, place: Path, extent: str) -> list[dict[str, Any]]:
        (place / "work").mkdir(parents=True)
        try:
            if path.stat().st_size > LARGEST:
                return [{"unreadable": f"larger than {LARGEST >> 20} MB"}]
            shutil.copyfile(path, place / "work" / "notebook.ipynb")
        except OSError as error:
            return [{"unreadable": error.strerror}]
        for name, target in (
            ("notebooks", self.course),
            ("datasets", self.course.parent / "datasets"),
        ):
            (place / name).symlink_to(target)
        if self.artefacts is not None:
            shutil.copytree(self.artefacts, place / "runs")
        results = place.with_suffix(".results")  # beside what the notebook may change
        limits = [str(self.limits.cell_seconds), str(self.limits.seconds), extent]
        words = [
            sys.executable,
            "-m",
            "lepton_lib.classroom.learner",
            "notebook.ipynb",
            str(results),
            *limits,
        ]
        words += [str(folder) for folder in (place, *self.writable)]
        process = subprocess.Popen(
            words,
            cwd=place / "work",
            env=self._environment(place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what it prints: any amount of it
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.running.add(process)
        try:
            code = process.wait(self.limits.seconds)
            # as shells tell it, where it has a namespace of its own
            number = code - 128 if code > 128 else -code
            killed = [f" was ended by {one.name}" for one in signal.Signals if one == number]
            stopped = f"its process{killed[0] if killed else ' ended'}"
        except subprocess.TimeoutExpired:
            stopped = f"stopped after {self.limits.seconds} s"
        finally:
            self._end(process)
        events = _read_events(results)
        return (
            events
            if events and events[-1].keys() & {"end", "unreadable"}
            else [*events, {"stopped": stopped}]
        )

    def _environment(self, place: Path) -> dict[str, str]:
        library = str(Path(__file__).resolve().parents[2])
        paths = [library, os.environ.get("PYTHONPATH", "")]
        cases = [str(path) for path in course_folders("datasets")]
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "HOME": str(place),
            "IPYTHONDIR": str(place / "ipython"),
            "MPLBACKEND": "agg",
            "MPLCONFIGDIR": str(self.writable[0]),
            "TMPDIR": str(place),
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "LEPTON_DATASETS": os.pathsep.join(
                filter(None, [os.environ.get("LEPTON_DATASETS", ""), *cases])
            ),
        }

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):  # with all that it has started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.running.discard(process)

    def close(self) -> None:
        """End what is still running, after Ctrl-C."""
        for process in list(self.running):
            self._end(process)


def _read_events(results: Path) -> list[dict[str, Any]]:
    """The events that were written, up to the first that is broken."""
    events: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError), open(results, "rb") as file:
        while (line := file.readline(LINE)).endswith(b"\n") and file.tell() < LARGEST:
            event = json.loads(line)
            if not isinstance(event, dict):
                break
            events.append(event)
    return events
