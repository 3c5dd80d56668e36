"""Exercises that answer at once: `check`, `hint`, `solution`, `checkpoint`, and a progress card.

The value is passed in; no name of the notebook is read. An answer never raises and has the same
text on every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lepton_lib.errors import ExerciseError
from lepton_lib.exercises.definitions import Exercise, definitions_of, find_definition
from lepton_lib.exercises.grading import grade_answer
from lepton_lib.exercises.progress import (
    CORRECT,
    HINT,
    NOT_ATTEMPTED,
    NOT_YET,
    SOLUTION,
    ExerciseEvent,
    Standing,
    append_event,
    read_events,
    standings,
    work_folder,
)

# this session's events, for the ladder of hints and for readers without a work folder
_session: list[ExerciseEvent] = []


@dataclass(frozen=True, repr=False)
class Feedback:
    """What the reader sees: plain text."""

    status: str  # correct, not yet, not attempted, hint or solution
    text: str

    def __repr__(self) -> str:
        return self.text


def check(key: str, answer: Any) -> Feedback:
    """Grade an answer: *not attempted*, *not yet* with the misconception behind it, or *correct*.

    Args:
        key: The exercise's, as ``"02.3"``, or a question's, as ``"02.q1"``.
        answer: The value or the function; for a question the letter. An Ellipsis is no attempt.
    """
    try:
        status, message = grade_answer(key, answer)
    except ExerciseError as error:
        return Feedback(NOT_YET, str(error))
    if status == NOT_ATTEMPTED:
        return Feedback(status, f'{key} not attempted: {message} Stuck? hint("{key}")')
    return _record(key, status, f"{key} {status}: {message}")


def checkpoint(key: str, answer: Any) -> Any:
    """Check an answer that later cells need; returns it if it's correct, else the course's own."""
    from IPython.display import display

    feedback = check(key, answer)
    if feedback.status == CORRECT:
        display(feedback)
        return answer
    display(Feedback(NOT_YET, f"{feedback.text}\nThe notebook goes on with the right answer."))
    exercise = find_definition(key)
    right = exercise.answer
    return exercise.value_of(right) if isinstance(exercise, Exercise) else right


def hint(key: str) -> Feedback:
    """The next hint of the exercise's ladder; after the last one, the last one again."""
    try:
        hints = find_definition(key).hints
    except ExerciseError as error:
        return Feedback(NOT_YET, str(error))
    step = min(_session.count(ExerciseEvent(key, HINT)), len(hints) - 1)
    more = "" if step < len(hints) - 1 else f' The last one; solution("{key}") shows the answer.'
    return _record(key, HINT, f"{key} hint {step + 1} of {len(hints)}: {hints[step]}{more}")


def solution(key: str) -> Feedback:
    """The answer, and why it matters."""
    try:
        exercise = find_definition(key)
    except ExerciseError as error:
        return Feedback(NOT_YET, str(error))
    text = f"{key} solution:\n\n{exercise.answer.strip()}\n\n{exercise.why}"
    return _record(key, SOLUTION, text)


@dataclass(frozen=True, repr=False)
class ProgressCard:
    """What is done of one notebook's exercises, shown as text."""

    number: str  # the notebook's, as "02"
    lines: dict[str, tuple[str, Standing]]  # each exercise's title and standing, by key

    @classmethod
    def of(cls, number: str, events: list[ExerciseEvent]) -> ProgressCard:
        """The card of a notebook after these events."""
        known, exercises = standings(events), definitions_of(number).items()
        return cls(number, {key: (one.title, known.get(key, Standing())) for key, one in exercises})

    @property
    def n_done(self) -> int:
        """How many exercises are correct."""
        return sum(standing.status == CORRECT for _, standing in self.lines.values())

    def __repr__(self) -> str:
        rows = [f"Notebook {self.number}: {self.n_done} of {len(self.lines)} done"]
        for key, (title, standing) in self.lines.items():
            mark = {CORRECT: "[x]", NOT_YET: "[~]"}.get(standing.status, "[ ]")
            remark = " (with the solution)" if standing.seen else ""
            rows.append(f"  {mark} {key:<6} {title}{remark}")
        return "\n".join(rows)


def progress_card(number: str) -> ProgressCard:
    """The progress in a notebook, from its work folder; outside one, from this session.

    Args:
        number: The notebook's, as ``"02"``.

    Raises:
        ExerciseError: The notebook has no exercises, or they can't be read.
    """
    folder = work_folder()
    return ProgressCard.of(number, read_events(folder) if folder else _session)


def _record(key: str, status: str, text: str) -> Feedback:
    event = ExerciseEvent(key, status)
    _session.append(event)
    try:
        append_event(event)
    except OSError as error:
        text += f"\n(Your progress could not be kept: {error.strerror}.)"
    return Feedback(status, text)


__all__ = ["Feedback", "ProgressCard", "check", "checkpoint", "hint", "progress_card", "solution"]
