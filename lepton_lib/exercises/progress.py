"""What a reader has done, in a file of their work folder: which exercise and how it went, never the answer.

One JSON line an event, appended in one write, so that two kernels don't disturb each other and a
crash costs at most the line that it cut short. Outside a work folder nothing is written; then a
session's own events are all that is known.
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
CORRECT, NOT_YET, NOT_ATTEMPTED, HINT, SOLUTION = (
    "correct",
    "not yet",
    "not attempted",
    "hint",
    "solution",
)


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


def work_folder(start: Path | None = None) -> Path | None:
    """The work folder that ``start`` (the working directory by default) lies in; None outside one."""
    here = (start or Path.cwd()).resolve()
    return next((place for place in (here, *here.parents) if (place / WORK_FILE).is_file()), None)


def keep(key: str, event: str, folder: Path | None) -> None:
    """Append an event to a work folder's progress; without a folder do nothing.

    Raises:
        OSError: The file can't be written to.
    """
    if folder is None:
        return
    line = json.dumps({"exercise": key, "event": event}) + "\n"
    descriptor = os.open(folder / PROGRESS_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        # a crash left half a line: begin a new one
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, ("\n" * torn + line).encode())
    finally:
        os.close(descriptor)


def read_events(folder: Path) -> list[tuple[str, str]]:
    """The events in a work folder, oldest first; a line that a crash cut short is passed over."""
    events = []
    with contextlib.suppress(FileNotFoundError):
        for line in (
            (folder / PROGRESS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                events.append((str(entry["exercise"]), str(entry["event"])))
    return events


def standings(events: Iterable[tuple[str, str]]) -> dict[str, Standing]:
    """How far a reader is with each exercise that has an event."""
    found: dict[str, Standing] = {}
    for key, event in events:
        now = found.get(key, Standing())
        if event == HINT:
            now = now._replace(hints=now.hints + 1)
        elif event == SOLUTION:
            now = now._replace(seen=now.seen or now.status != CORRECT)
        elif event in (CORRECT, NOT_YET):
            status = CORRECT if CORRECT in (event, now.status) else NOT_YET
            now = now._replace(status=status, tries=now.tries + 1)
        found[key] = now
    return found
