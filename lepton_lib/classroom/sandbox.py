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
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from lepton_lib.artefacts import STEPS
from lepton_lib.classroom.notebooks import source_folder
from lepton_lib.classroom.sandbox_protocol import SandboxEvent, SandboxJob
from lepton_lib.runs import find_notebook, run_loop
from lepton_lib.utils import NO_TELEMETRY, course_folders

MAX_BYTES = 100 << 20  # of a notebook, and of all its results
MAX_LINE = 16 << 20  # bytes of one result
_NUMBERS = re.compile(rb"check(?:point)?\(\s*\\?[\"'](\d\d)\.")


class Limits(NamedTuple):
    """What one notebook may take."""

    timeout: int = 120  # seconds for all of it
    cell_timeout: int = 20  # seconds for one cell; then the next cell is run
    jobs: int = 2  # notebooks at the same time


class SandboxRunner:
    """Runs notebooks in sandboxes: in an empty folder, with what they may read beside them."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.course = source_folder()
        self.artefacts: Path | None = None
        self.writable = [folder / "matplotlib", Path("/dev/shm")]  # beside a notebook's own folder
        self.writable[0].mkdir()

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
        if self.artefacts is not None:
            shutil.copytree(self.artefacts, place / "runs")
        results = place.with_suffix(".results")  # beside what the notebook may change
        timeout, cell_timeout, _ = self.limits
        writable = [str(folder) for folder in (place, *self.writable)]
        job = SandboxJob("notebook.ipynb", str(results), cell_timeout, timeout, whole, writable)
        stopped = self._run_process(job, place, timeout)
        events = _read_events(results)
        if not events or events[-1].kind not in ("end", "unreadable", "stopped"):
            events.append(SandboxEvent("stopped", text=stopped))
        return events

    def _run_process(self, job: SandboxJob, place: Path, timeout: int) -> str:
        """Run a job to its end or to the timeout; returns how the process ended."""
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
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"stopped after {timeout} s"
        finally:
            self._kill(process)
        # in a namespace of its own it reports a signal as shells do
        number = code - 128 if code > 128 else -code
        names = [one.name for one in signal.Signals if one == number]
        return f"its process was ended by {names[0]}" if names else "its process ended"

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
            "MPLCONFIGDIR": str(self.writable[0]),
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
        """Kill what is still running, after Ctrl-C."""
        for process in list(self.processes):
            self._kill(process)


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
