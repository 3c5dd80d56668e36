"""A reader's progress in a file of their work folder: keys and outcomes, never an answer.

One JSON line an event, appended in one write, so that two kernels don't disturb each other and a
crash costs at most the line that it cut short. Outside a work folder nothing is written; then only
the session's own events are known.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

WORK_FILE = ".lepton-work.json"  # what makes a folder a work folder
PROGRESS_FILE = "progress.jsonl"
CORRECT, NOT_YET, NOT_ATTEMPTED = "correct", "not yet", "not attempted"
HINT, SOLUTION = "hint", "solution"


class ExerciseEvent(NamedTuple):
    """Something a reader did with one exercise: a graded answer, a hint or the solution."""

    exercise: str
    event: str


class Standing(NamedTuple):
    """How far a reader is with one exercise.

    Attributes:
        status: The best so far: ``correct``, ``not yet`` or ``not attempted``.
        tries: Answers that were checked.
        hints: Hints taken.
        seen: Whether the solution was shown before it was correct.
    """

    status: str = NOT_ATTEMPTED
    tries: int = 0
    hints: int = 0
    seen: bool = False

    def after(self, event: str) -> Standing:
        """The standing when the event is taken into account, too."""
        if event == HINT:
            return self._replace(hints=self.hints + 1)
        if event == SOLUTION:
            return self._replace(seen=self.seen or self.status != CORRECT)
        if event not in (CORRECT, NOT_YET):
            return self
        status = CORRECT if CORRECT in (event, self.status) else NOT_YET
        return self._replace(status=status, tries=self.tries + 1)


def work_folder(start: Path | None = None) -> Path | None:
    """The work folder around ``start`` (the working directory by default), if there is one."""
    here = (start or Path.cwd()).resolve()
    return next((place for place in (here, *here.parents) if (place / WORK_FILE).is_file()), None)


def append_event(event: ExerciseEvent, folder: Path | None) -> None:
    """Append an event to a work folder's progress; without a folder do nothing.

    Raises:
        OSError: The file can't be written to.
    """
    if folder is None:
        return
    line = json.dumps(event._asdict()) + "\n"
    descriptor = os.open(folder / PROGRESS_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        # a crash left half a line: begin a new one
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, ("\n" * torn + line).encode())
    finally:
        os.close(descriptor)


def read_events(folder: Path) -> list[ExerciseEvent]:
    """The events in a work folder, oldest first; lines that a crash cut short are skipped."""
    path, events = folder / PROGRESS_FILE, []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            fields = json.loads(line)
            events.append(ExerciseEvent(str(fields["exercise"]), str(fields["event"])))
    return events


def standings(events: Iterable[ExerciseEvent]) -> dict[str, Standing]:
    """How far a reader is with each exercise that has an event."""
    known: dict[str, Standing] = {}
    for key, event in events:
        known[key] = known.get(key, Standing()).after(event)
    return known
