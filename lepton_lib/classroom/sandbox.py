"""Runs learners' notebooks, each in a folder and an isolated process of its own. Grades nothing."""

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
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from lepton_lib.artefacts import STEPS
from lepton_lib.classroom.notebooks import source_folder
from lepton_lib.classroom.sandbox_process import MAX_MEMORY
from lepton_lib.classroom.sandbox_protocol import SandboxEvent, SandboxJob
from lepton_lib.runs import find_notebook, run_loop
from lepton_lib.utils import NO_TELEMETRY, course_folders

MAX_BYTES = 100 << 20  # of a notebook, and of all its results
MAX_LINE = 16 << 20  # bytes of one result
MAX_PROCESSES, MAX_DISK = 64, 512 << 20  # of one notebook at one time; bytes
LOOK_EVERY = 0.25  # seconds between two looks at what a notebook takes
_NUMBERS = re.compile(rb"check(?:point)?\(\s*\\?[\"'](\d\d)\.")


class Limits(NamedTuple):
    """What one notebook may take."""

    timeout: int = 120  # seconds for all of it
    cell_timeout: int = 20  # seconds for one cell; then the next cell is run
    jobs: int = 2  # notebooks at the same time


def can_isolate() -> bool:
    """Whether this machine lets a notebook be cut off from its files, processes and network."""
    words = [sys.executable, "-m", "lepton_lib.classroom.sandbox_process"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


class SandboxRunner:
    """Runs notebooks in sandboxes: in an empty folder, with what they may read beside them."""

    def __init__(self, folder: Path, limits: Limits, *, isolated: bool = True) -> None:
        self.folder, self.limits, self.isolated = folder, limits, isolated
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.course = source_folder()
        self.artefacts: Path | None = None
        self.writable: list[Path] = []  # beside a notebook's own folder
        self.closed = False
        from lepton_lib.plots import font_lists  # Matplotlib takes a second

        self.fonts = font_lists()

    def prepare(self, paths: Iterable[Path]) -> None:
        """Run the pipeline steps whose results the notebooks read."""
        numbers = {""}
        for path in paths:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                numbers |= {found.decode() for found in _NUMBERS.findall(file.read(MAX_BYTES))}
        before = [step for step in STEPS if step[:2] < max(numbers) <= STEPS[-1][:2]]
        if before:
            self.artefacts = self.folder / "runs"
            notebooks = [find_notebook(step) for step in before]
            run_loop(run_dir=self.artefacts / "credit", notebooks=notebooks)

    def run(self, path: Path) -> list[SandboxEvent]:
        """Run the exercises of one notebook; all of it if a cell lacked what was left out."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            events = self._run(path, Path(place, "part"), whole=False)
            lacks = any(event.kind == "failed" and not event.keys for event in events)
            if lacks and any(event.partial for event in events):
                again = self._run(path, Path(place, "whole"), whole=True)
                events = max(events, again, key=lambda run: sum(e.kind == "answer" for e in run))
        return events

    def _run(self, path: Path, place: Path, *, whole: bool) -> list[SandboxEvent]:
        (place / "work").mkdir(parents=True)
        try:
            if path.stat().st_size > MAX_BYTES:
                return [SandboxEvent("unreadable", text=f"larger than {MAX_BYTES >> 20} MB")]
            shutil.copyfile(path, place / "work" / "notebook.ipynb")
        except OSError as error:
            return [SandboxEvent("unreadable", text=str(error.strerror))]
        (place / "notebooks").symlink_to(self.course)
        (place / "datasets").symlink_to(self.course.parent / "datasets")
        (place / "matplotlib").mkdir()
        for fonts in self.fonts:
            shutil.copy(fonts, place / "matplotlib")
        if self.artefacts is not None:
            shutil.copytree(self.artefacts, place / "runs")
        results = place.with_suffix(".results")  # beside what the notebook may change
        writable = [str(folder) for folder in (place, *self.writable)]
        job = SandboxJob(
            notebook="notebook.ipynb",
            results=str(results),
            cell_timeout=self.limits.cell_timeout,
            whole=whole,
            writable=writable,
            isolated=self.isolated,
        )
        stopped = self._run_process(job, place)
        events = _read_events(results)
        if not events or events[-1].kind not in ("end", "unreadable", "stopped"):
            events.append(SandboxEvent("stopped", text=stopped))
        return events

    def _run_process(self, job: SandboxJob, place: Path) -> str:
        """Run a job to its end or to a limit; returns how the process ended."""
        if self.closed:
            return "stopped"
        module = "lepton_lib.classroom.sandbox_process"
        process = subprocess.Popen(
            [sys.executable, "-m", module, msgspec.json.encode(job).decode()],
            cwd=place / "work",
            env=self._environment(place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it may print any amount
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.processes.add(process)
        try:
            if stopped := self._watch(process, place):
                return stopped
        finally:
            self._kill(process)
        code = process.returncode
        # in a namespace of its own it reports a signal as shells do
        number = code - 128 if code > 128 else -code
        names = [one.name for one in signal.Signals if one == number]
        return f"its process was ended by {names[0]}" if names else "its process ended"

    def _watch(self, process: subprocess.Popen[bytes], place: Path) -> str:
        """Wait for a process; the limit that it has reached, or nothing when it has ended."""
        until = time.monotonic() + self.limits.timeout
        while time.monotonic() < until:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_EVERY)
                return ""
            if reached := _limit_reached(process.pid, place):
                return f"stopped: more than {reached}"
        return f"stopped after {self.limits.timeout} s"

    def _environment(self, place: Path) -> dict[str, str]:
        library = str(Path(__file__).resolve().parents[2])
        datasets = [os.environ.get("LEPTON_DATASETS"), *map(str, course_folders("datasets"))]
        paths = [library, os.environ.get("PYTHONPATH")]
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "HOME": str(place),
            "IPYTHONDIR": str(place / "ipython"),
            "MPLBACKEND": "agg",
            "MPLCONFIGDIR": str(place / "matplotlib"),
            "TMPDIR": str(place),
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
            **NO_TELEMETRY,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "LEPTON_DATASETS": os.pathsep.join(filter(None, datasets)),
        }

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):  # with all that it has started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.processes.discard(process)

    def close(self) -> None:
        """Kill what is still running, after Ctrl-C, and start nothing more."""
        self.closed = True
        for process in list(self.processes):
            self._kill(process)


def _family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started, as far as they live."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _limit_reached(pid: int, place: Path) -> str:
    """The limit that a notebook's processes have passed together, in words, or nothing."""
    family = _family(pid)
    if len(family) > MAX_PROCESSES:
        return f"{MAX_PROCESSES} processes"
    memory = 0
    for one in family:
        with contextlib.suppress(psutil.Error):
            info = one.memory_full_info()
            memory += getattr(info, "pss", info.uss)  # pages that are shared count once
    if memory > MAX_MEMORY:
        return f"{MAX_MEMORY >> 20} MB of memory"
    written = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):  # it may be gone by now
            written += 512 * path.lstat().st_blocks
    return f"{MAX_DISK >> 20} MB on disk" if written > MAX_DISK else ""


def _read_events(results: Path) -> list[SandboxEvent]:
    """The events that were written, up to the first that is broken: a notebook may write there."""
    events: list[SandboxEvent] = []
    try:
        with open(results, "rb") as file:
            while (line := file.readline(MAX_LINE)).endswith(b"\n") and file.tell() < MAX_BYTES:
                events.append(msgspec.convert(json.loads(line), SandboxEvent))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        reason = f"its results can't be read ({type(error).__name__})"
        events.append(SandboxEvent("stopped", text=reason))
    return events
