"""Grades an answer: its status, and what to say to the reader. Records and shows nothing."""

from __future__ import annotations

import functools
import textwrap
from typing import Any, NamedTuple

from lepton_lib.exercises.comparison import (
    Changed,
    Raised,
    call_on_inputs,
    describe,
    describe_kind,
    is_empty,
    is_open,
    parts_of,
    same,
)
from lepton_lib.exercises.definitions import Exercise, Question, find_definition
from lepton_lib.exercises.progress import CORRECT, NOT_ATTEMPTED, NOT_YET
from lepton_lib.utils import first_line

Parts = dict[Any, Any]  # of an answer, by key or place


class Outcomes(NamedTuple):
    """What a function returned for each input of its exercise; None after a timeout."""

    values: list[Any] | None


def grade_answer(key: str, answer: Any) -> tuple[str, str]:
    """The status and message that `check` shows; nothing is recorded.

    The answer may also be the `Outcomes` of a function that was called in another process.

    Raises:
        ExerciseError: There is no such exercise.
    """
    definition = find_definition(key)
    try:
        if isinstance(definition, Question):
            return _grade_letter(definition, answer)
        return _grade_value(definition, answer)
    except Exception as error:  # an answer may do anything when it is looked at
        return NOT_YET, f"your answer can't be looked at ({first_line(error)})"


def _grade_letter(question: Question, answer: Any) -> tuple[str, str]:
    if answer is ...:
        return NOT_ATTEMPTED, "put a letter in quotes in place of the dots."
    letter = answer.strip().strip("()").casefold() if isinstance(answer, str) else ""
    if letter not in tuple(question.options):
        letters = ", ".join(question.options)
        return NOT_YET, f"got {describe_kind(answer)}, expected one letter of {letters}, in quotes"
    status = CORRECT if letter == question.answer else NOT_YET
    return status, question.message(letter)


def _grade_value(exercise: Exercise, answer: Any) -> tuple[str, str]:
    if answer is ...:
        return NOT_ATTEMPTED, "put your answer in place of the dots and run the cell again."
    if exercise.inputs is None:
        return _grade_plain(exercise, answer)
    if isinstance(answer, Outcomes):
        values = answer.values
    elif callable(answer) and not isinstance(answer, type):
        values = call_on_inputs(answer, exercise.arguments())
        if is_empty(answer) and all(value is None or value is ... for value in values or [0]):
            return NOT_ATTEMPTED, "the function returns nothing yet."
    else:
        return NOT_YET, f"got {describe(answer)}, expected a function: pass it without calling it"
    if values is None:
        reason = "is there a loop that never stops?"
        return NOT_YET, f"your function doesn't end on a small input: {reason}"
    return _grade_outcomes(exercise, values)


def _grade_plain(exercise: Exercise, answer: Any) -> tuple[str, str]:
    """Grade a value that isn't a function."""
    expected = _outcome(exercise, exercise.answer)
    if same(answer, expected, exercise.tolerance):
        return CORRECT, exercise.why
    if message := _known_mistake(exercise, answer):
        return NOT_YET, message
    got, wanted = parts_of(answer), parts_of(expected)
    names_fit = (
        got.keys() <= wanted.keys() if isinstance(expected, dict) else len(got) == len(wanted)
    )
    if len(wanted) > 1 and names_fit and isinstance(answer, dict) == isinstance(expected, dict):
        return _grade_parts(exercise, got, wanted)
    text, kind = f"your answer is {describe(answer)}", describe_kind(expected)
    if describe_kind(answer) != kind:
        return NOT_YET, f"{text}, expected {kind}"
    return NOT_YET, _with_hint(exercise, f"{text}, which is not right")


def _grade_parts(exercise: Exercise, got: Parts, wanted: Parts) -> tuple[str, str]:
    """Name the parts that are still open, and those that are not right."""
    still_open = [key for key in wanted if is_open(got.get(key, ...))]
    if len(still_open) == len(wanted):
        return NOT_ATTEMPTED, "put your answers in place of the dots and run the cell again."
    filled = [key for key in wanted if key not in still_open]
    wrong = [key for key in filled if not same(got[key], wanted[key], exercise.tolerance)]
    lists = (("not right", wrong), ("still open", still_open))
    texts = [f"{name}: part {', '.join(map(repr, keys))}" for name, keys in lists if keys]
    return NOT_YET, _with_hint(exercise, "; ".join(texts))


def _grade_outcomes(exercise: Exercise, values: list[Any]) -> tuple[str, str]:
    """Grade what a function returned; of a wrong one, show the first input that it fails on."""
    expected = _outcome(exercise, exercise.answer)
    if same(values, expected, exercise.tolerance):
        return CORRECT, exercise.why
    cases = zip(exercise.arguments(), values, expected, strict=True)
    arguments, got, wanted = next(c for c in cases if not same(c[1], c[2], exercise.tolerance))
    if isinstance(wanted, Changed):  # the right one changes its arguments, too
        got, wanted = getattr(got, "value", got), wanted.value
    message = _known_mistake(exercise, values) or _with_hint(exercise, _explain(got, wanted))
    call = f"{exercise.name}({', '.join(map(describe, arguments))})"
    part, got, wanted = _first_difference(got, wanted, exercise.tolerance)
    right = wanted.kind if isinstance(wanted, Raised) else describe(wanted)
    return NOT_YET, f"{message}\n{call} {_did(got)}{part}; expected {right}."


def _first_difference(got: Any, wanted: Any, tolerance: float) -> tuple[str, Any, Any]:
    """The first part that differs, where two results would be described in the same words."""
    place = ""
    while describe(got) == describe(wanted):
        parts, here = parts_of(wanted), parts_of(got)
        keys = [key for key in parts if not same(here.get(key), parts[key], tolerance)]
        if not keys:
            break
        got, wanted = here.get(keys[0]), parts[keys[0]]
        place = f" part {keys[0]!r} of{place}" if place else f" part {keys[0]!r}"
    return f" in{place}" if place else "", got, wanted


def _known_mistake(exercise: Exercise, answer: Any) -> str:
    """The message of the known wrong answer that this is, if it is one."""
    known = (
        wrong.message
        for wrong in exercise.wrong
        if same(answer, _outcome(exercise, wrong.code), exercise.tolerance)
    )
    return next(known, "")


def _explain(got: Any, wanted: Any) -> str:
    """What is wrong with a function that returned this instead of that."""
    if isinstance(got, Raised) and not isinstance(wanted, Raised):
        return "your function fails on an input that it should take"
    if isinstance(wanted, Raised):
        return "your function accepts an input that it should refuse"
    if isinstance(got, Changed):
        return "your function changes what it is given; work on a copy"
    if got is None or got is ...:
        return "your function returns None: a `return` is missing"
    return "your function is not right yet"


def _did(outcome: Any) -> str:
    """What a function did, in words."""
    if isinstance(outcome, Raised):
        return f"raises {textwrap.shorten(outcome.message, 90, placeholder=' ...')}"
    if isinstance(outcome, Changed):
        return f"returns {describe(outcome.value)} and changes argument {outcome.place}"
    return f"returns {describe(outcome)}"


def _with_hint(exercise: Exercise, text: str) -> str:
    return f'{text}. hint("{exercise.key}") helps.'


@functools.cache
def _outcome(exercise: Exercise, code: str) -> Any:
    """What the course's own code gives: the value, or the function's outcomes."""
    value = exercise.value_of(code)
    return value if exercise.inputs is None else call_on_inputs(value, exercise.arguments(), 60.0)
