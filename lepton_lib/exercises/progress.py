"""A reader's progress in a file of their work folder: keys and outcomes, never an answer.

One JSON line an event, appended in one write, so that two kernels don't disturb each other and a
crash costs at most the line that it cut short. Outside a work folder nothing is written; then only
the session's own events are known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

WORK_FILE = ".lepton-work.json"  # what makes a folder a work folder
PROGRESS_FILE = "progress.jsonl"
CORRECT, NOT_YET, NOT_ATTEMPTED = "correct", "not yet", "not attempted"
HINT, SOLUTION = "hint", "solution"


class ExerciseEvent(msgspec.Struct, frozen=True):
    """Something a reader did with one exercise: a graded answer, a hint or the solution."""

    exercise: str  # its key
    event: str


class Standing(NamedTuple):
    """An exercise's best status, and whether its solution was shown before it was correct."""

    status: str = NOT_ATTEMPTED
    seen: bool = False


def work_folder(start: Path | None = None) -> Path | None:
    """The work folder around ``start`` (the working directory by default), if there is one."""
    here = (start or Path.cwd()).resolve()
    return next((place for place in (here, *here.parents) if (place / WORK_FILE).is_file()), None)


def append_event(event: ExerciseEvent) -> None:
    """Append an event to the progress in the work folder around here, if there is one.

    Raises:
        OSError: The file can't be written to.
    """
    if (folder := work_folder()) is None:
        return
    line = msgspec.json.encode(event) + b"\n"
    descriptor = os.open(folder / PROGRESS_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        # a crash left half a line: begin a new one
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" * torn + line)
    finally:
        os.close(descriptor)


def read_events(folder: Path) -> list[ExerciseEvent]:
    """The events in a work folder, oldest first; lines that a crash cut short are skipped."""
    path, events = folder / PROGRESS_FILE, []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            events.append(msgspec.json.decode(line, type=ExerciseEvent))
    return events


def standings(events: Iterable[ExerciseEvent]) -> dict[str, Standing]:
    """How far a reader is with each exercise that has an event."""
    known: dict[str, Standing] = {}
    for one in events:
        status, seen = known.get(one.exercise, Standing())
        if one.event == SOLUTION:
            seen = seen or status != CORRECT
        elif one.event == CORRECT or (one.event == NOT_YET and status != CORRECT):
            status = one.event
        known[one.exercise] = Standing(status, seen)
    return known
