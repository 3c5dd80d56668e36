"""Exercises that answer at once: `check`, `hint`, `solution`, `checkpoint`, and a card of what is done.

The value is passed in; no name of the notebook is read. An answer never raises and has the same
text on every run.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from lepton_lib.errors import ExerciseError
from lepton_lib.exercises.definitions import (
    Exercise,
    Question,
    definition_files,
    find_definition,
    letter_hash,
    read_definitions,
)
from lepton_lib.exercises.judging import Raised, kind_of, outcomes, same
from lepton_lib.exercises.progress import (
    CORRECT,
    HINT,
    NOT_ATTEMPTED,
    NOT_YET,
    SOLUTION,
    Standing,
    keep,
    read_events,
    standings,
    work_folder,
)
from lepton_lib.utils import first_line

# this session's events, for the ladder of hints and for readers without a folder
_session: list[tuple[str, str]] = []


class Feedback:
    """What the reader sees: plain text.

    Attributes:
        status: ``correct``, ``not yet``, ``not attempted``, ``hint`` or ``solution``.
        text: All of it.
    """

    def __init__(self, status: str, text: str) -> None:
        self.status = status
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Tried(NamedTuple):
    """What a function gave on the exercise's inputs, tried elsewhere: one outcome each; None if it didn't end."""

    outcomes: list[Any] | None


def check(key: str, answer: Any) -> Feedback:
    """Say how an answer stands: *not attempted*, *not yet* with the misconception behind it, or *correct*.

    Args:
        key: The exercise's, as ``"02.3"``, or a question's, as ``"02.q1"``.
        answer: The value or the function; for a question the letter. An Ellipsis is no attempt.
    """
    try:
        status, message = judge(key, answer)
    except ExerciseError as error:
        return Feedback(NOT_YET, str(error))
    if status == NOT_ATTEMPTED:
        return Feedback(status, f'{key} not attempted: {message} Stuck? hint("{key}")')
    return _told(key, status, f"{key} {status}: {message}")


def judge(key: str, answer: Any) -> tuple[str, str]:
    """What `check` judges, as status and message, and no word of it is kept.

    Args:
        key: As for `check`.
        answer: As for `check`, or `Tried`.

    Raises:
        ExerciseError: There is no such exercise.
    """
    definition = find_definition(key)
    try:
        if isinstance(definition, Question):
            return _judge_letter(definition, answer)
        return _judge_value(definition, answer)
    except Exception as error:  # an answer may do anything when it is looked at
        return NOT_YET, f"your answer can't be looked at ({first_line(error)})"


def checkpoint(key: str, answer: Any) -> Any:
    """Check an answer, and go on with the right one: for exercises whose value later cells need.

    Returns:
        The answer if it is correct, else the right one.
    """
    from IPython.display import display

    feedback = check(key, answer)
    right = feedback.status == CORRECT
    if not right:
        feedback = Feedback(
            feedback.status, f"{feedback.text}\nThe notebook goes on with the right answer."
        )
    display(feedback)  # type: ignore[no-untyped-call]  # IPython has no types
    if right:
        return answer
    definition = find_definition(key)
    return (
        definition.answer
        if isinstance(definition, Question)
        else definition.value_of(definition.answer)
    )


def hint(key: str) -> Feedback:
    """The next hint of the exercise's ladder; after the last one, the last one again."""
    try:
        hints = find_definition(key).hints
    except ExerciseError as error:
        return Feedback(NOT_YET, str(error))
    taken = sum(event == (key, HINT) for event in _session)
    step = min(taken, len(hints) - 1)
    more = "" if step < len(hints) - 1 else f' The last one; solution("{key}") shows the answer.'
    return _told(key, HINT, f"{key} hint {step + 1} of {len(hints)}: {hints[step]}{more}")


def solution(key: str) -> Feedback:
    """The answer, and why it matters."""
    try:
        definition = find_definition(key)
    except ExerciseError as error:
        return Feedback(NOT_YET, str(error))
    return _told(
        key, SOLUTION, f"{key} solution:\n\n{definition.answer.strip()}\n\n{definition.why}"
    )


class ProgressCard:
    """What is done of one notebook's exercises, as text. Made by `progress_card`."""

    def __init__(self, number: str, lines: dict[str, tuple[str, Standing]]) -> None:
        self.number = number
        self.lines = lines

    def __repr__(self) -> str:
        done = sum(standing.status == CORRECT for _, standing in self.lines.values())
        rows = [f"Notebook {self.number}: {done} of {len(self.lines)} done"]
        for key, (title, standing) in self.lines.items():
            mark = {CORRECT: "[x]", NOT_YET: "[~]"}.get(standing.status, "[ ]")
            rows.append(
                f"  {mark} {key:<6} {title}{' (with the solution)' if standing.seen else ''}"
            )
        return "\n".join(rows)


def progress_card(number: str) -> ProgressCard:
    """The card of a notebook: from the work folder if the notebook lies in one, else from this session.

    Args:
        number: The notebook's, as ``"02"``.

    Raises:
        ExerciseError: The notebook has no exercises, or they can't be read.
    """
    files = definition_files()
    if number not in files:
        remedy = "Write the notebook's number with two digits."
        raise ExerciseError(f"notebook {number!r}", "no exercises", f"one of {list(files)}", remedy)
    folder = work_folder()
    known = standings(read_events(folder) if folder else _session)
    definitions = read_definitions(files[number])
    return ProgressCard(
        number, {key: (d.title, known.get(key, Standing())) for key, d in definitions.items()}
    )


def _told(key: str, event: str, text: str) -> Feedback:
    _session.append((key, event))
    try:
        keep(key, event, work_folder())
    except OSError as error:
        text += f"\n(Your progress could not be kept: {error.strerror}.)"
    return Feedback(event, text)


def _judge_letter(question: Question, answer: Any) -> tuple[str, str]:
    if answer is ...:
        return NOT_ATTEMPTED, "put a letter in quotes in place of the dots."
    letter = answer.strip().strip("()").casefold() if isinstance(answer, str) else ""
    if letter not in tuple(question.options):
        return (
            NOT_YET,
            f"got {kind_of(answer)}, expected one letter of {', '.join(question.options)}, in quotes",
        )
    hashed = letter_hash(question.salt, letter)
    return (
        (CORRECT, question.why) if hashed == question.right else (NOT_YET, question.wrong[hashed])
    )


def _judge_value(exercise: Exercise, answer: Any) -> tuple[str, str]:
    if answer is ...:
        return NOT_ATTEMPTED, "put your answer in place of the dots and run the cell again."
    if exercise.inputs is None:
        return _compare(exercise, answer)
    if not isinstance(answer, Tried):
        if not callable(answer) or isinstance(answer, type):
            return (
                NOT_YET,
                f"got {kind_of(answer)}, expected a function: pass it without calling it",
            )
        answer = try_out(exercise, answer)
    given = answer.outcomes
    if given is None:
        return (
            NOT_YET,
            "your function doesn't end on a small input: is there a loop that never stops?",
        )
    expected = _made(exercise, exercise.answer)
    if all(value is None or value is ... for value in given) and not all(
        value is None for value in expected
    ):
        return NOT_ATTEMPTED, "the function returns nothing yet."
    return _compare(exercise, given)


def try_out(exercise: Exercise, function: Any) -> Tried:
    """Try a function on the exercise's inputs, in a time limit."""
    try:
        return Tried(outcomes(function, exercise.arguments()))
    except TimeoutError:
        return Tried(None)


def _compare(exercise: Exercise, given: Any) -> tuple[str, str]:
    expected = _made(exercise, exercise.answer)
    if same(given, expected, exercise.tolerance):
        return CORRECT, exercise.why
    for wrong in exercise.wrong:
        if same(given, _made(exercise, wrong.code), exercise.tolerance):
            return NOT_YET, wrong.message
    if exercise.inputs is not None:
        pairs = list(zip(given, expected, strict=True))
        given, expected = next(pair for pair in pairs if not same(*pair, exercise.tolerance))
        if isinstance(given, Raised):
            return NOT_YET, f"your function fails on an input that it should take ({given.message})"
        if isinstance(expected, Raised):
            return (
                NOT_YET,
                f"your function accepts an input that it should refuse with {expected.kind}",
            )
    got, wanted = kind_of(given), kind_of(expected)
    what = "what your function returns" if exercise.inputs is not None else "your answer"
    if got != wanted:
        return NOT_YET, f"{what} is {got}, expected {wanted}"
    return (
        NOT_YET,
        f'{what} is {got}, as expected, but not the right one. hint("{exercise.key}") helps',
    )


@functools.cache
def _made(exercise: Exercise, code: str) -> Any:
    """What the course's own code makes: the value, or the function's outcomes."""
    value = exercise.value_of(code)
    return value if exercise.inputs is None else outcomes(value, exercise.arguments(), seconds=60.0)


__all__ = [
    "Feedback",
    "ProgressCard",
    "check",
    "checkpoint",
    "hint",
    "judge",
    "progress_card",
    "solution",
]
