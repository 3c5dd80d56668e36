"""The right answers, derived once more: another way than the course's own, or by simulation.

A module a part of the course. What a question or a decision asks for is bound by words that its
right option alone has, so that exchanged letters, options or verdicts are noticed.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

OPTION = re.compile(r"^- (\w+): (.+)$", re.MULTILINE)


class Task(NamedTuple):
    """An exercise as the reader sees it."""

    text: str  # of the Markdown cell with its heading
    names: dict[str, Any]  # what its cell defines before the check

    def letter(self, words: str) -> str:
        """The letter of the one option that has these words."""
        (letter,) = (letter for letter, option in OPTION.findall(self.text) if words in option)
        return letter


# By key: of a function another one, of a value and a question a function of the task.
DERIVED: dict[str, Callable[..., Any]] = {}


def derives(key: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a derivation."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        DERIVED[key] = function
        return function

    return register


def right_options(**words: str) -> None:
    """Register questions: ``q00_q1="the splits"`` are words of the right option of 00.q1 alone."""
    for name, text in words.items():
        DERIVED[name[1:].replace("_", ".")] = lambda task, text=text: task.letter(text)


from tests.answers import industry as industry  # noqa: E402
from tests.answers import loop as loop  # noqa: E402
from tests.answers import research as research  # noqa: E402
