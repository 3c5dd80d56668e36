"""What an exercise is: its answer as code, the wrong answers that are known, hints. Knows the files, not the reader.

A definition lies in ``notebooks/exercises/<notebook>.toml``. It is the course's own code and is run
as such; nothing that a reader writes comes here.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lepton_lib.errors import ExerciseError
from lepton_lib.utils import course_folders

Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wrong(_Part):
    """A wrong answer that readers give.

    Attributes:
        code: Makes it, as the answer's code makes the right one.
        message: The misconception behind it: what *not yet* says.
    """

    code: Text
    message: Text


class Exercise(_Part):
    """An exercise whose answer is a value or a function.

    Attributes:
        key: ``02.3``: the notebook's number and the exercise's.
        title: A few words.
        kind: What is asked: to predict a result, to mend code, to write some, or to decide with a
            reason.
        objective: What the reader can do afterwards: "After this you can ...".
        minutes: That it takes.
        given: Code that runs before the answer's and the wrong answers' code: what the cell or
            cells before it define.
        answer: Code whose last statement defines the right answer: an assignment or a function.
        inputs: For a function, an expression: the list of argument tuples that it is tried on.
        tolerance: Relative, for numbers; near zero absolute.
        why: One sentence with *correct*: why it matters.
        hints: A ladder, the last one nearly the answer.
        wrong: At least two.
    """

    key: str
    title: Text
    kind: Literal["predict", "mend", "write", "decide"]
    objective: Text
    minutes: Annotated[float, Field(gt=0, le=60)]
    given: str = ""
    answer: Text
    inputs: str | None = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    why: Text
    hints: Annotated[tuple[Text, ...], Field(min_length=2, max_length=3)]
    wrong: Annotated[tuple[Wrong, ...], Field(min_length=2)]

    @property
    def name(self) -> str:
        """The name that the answer's code defines, and that the notebook passes to ``check``."""
        last = ast.parse(self.answer).body[-1]
        if isinstance(last, ast.FunctionDef):
            return last.name
        if isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
            return last.targets[0].id
        raise ExerciseError(
            f"exercise {self.key}",
            f"an answer that ends with {ast.unparse(last)[:40]!r}",
            "an assignment to a name, or a function",
            "Let the last statement define what is passed to check().",
        )

    def value_of(self, code: str) -> Any:
        """What ``code`` defines under the answer's name, in a namespace of its own."""
        return self._scope(code)[self.name]

    def arguments(self) -> list[tuple[Any, ...]]:
        """What a function is tried on."""
        found: list[tuple[Any, ...]] = eval(self.inputs or "[]", self._scope())
        return found

    def _scope(self, code: str = "") -> dict[str, Any]:
        scope: dict[str, Any] = {}
        exec(self.given, scope)
        exec(code, scope)
        return scope


class Question(_Part):
    """A question whose options stand in the notebook; the right one is known by its salted hash alone.

    Attributes:
        key: ``02.q1``.
        title: A few words.
        objective: What the reader knows afterwards.
        minutes: That it takes.
        options: The letters, as ``abc``.
        salt: Any text; `letter_hash` makes the hashes.
        right: The hash of the right letter.
        wrong: The hash of each other letter, with the misconception behind it.
        why: One sentence with *correct*.
        hints: A ladder.
    """

    key: str
    title: Text
    objective: Text
    minutes: Annotated[float, Field(gt=0, le=60)] = 1
    options: Annotated[str, Field(pattern=r"^[a-f]{2,6}$")]
    salt: Annotated[str, Field(min_length=6)]
    right: str
    wrong: dict[str, Text]
    why: Text
    hints: Annotated[tuple[Text, ...], Field(min_length=1, max_length=3)]

    @property
    def answer(self) -> str:
        """The right letter."""
        return next(
            letter for letter in self.options if letter_hash(self.salt, letter) == self.right
        )

    @model_validator(mode="after")
    def _each_letter_has_its_message(self) -> Self:
        letters = {letter_hash(self.salt, letter) for letter in self.options}
        if self.right not in letters or set(self.wrong) != letters - {self.right}:
            raise ValueError("the hashes under right and wrong are not those of the options")
        return self


def letter_hash(salt: str, letter: str) -> str:
    """How a question's definition names a letter, so that nobody reads the answer by accident."""
    return hashlib.sha256(f"{salt}:{letter}".encode()).hexdigest()[:12]


def definition_files() -> dict[str, Path]:
    """The files of definitions by the notebook's number (``02``), from the nearest ``notebooks/exercises/``."""
    for folder in course_folders("notebooks"):
        if found := sorted((folder / "exercises").glob("*.toml")):
            return {path.stem.partition("_")[0]: path for path in found}
    return {}


@functools.cache
def read_definitions(path: Path) -> dict[str, Exercise | Question]:
    """The exercises and questions of one notebook by key, in the order of the file.

    Raises:
        ExerciseError: The file can't be used: where and why.
    """
    number = path.stem.partition("_")[0]
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Exercise | Question] = {}
        for name, table in tables.items():
            key = f"{number}.{name}"
            found[key] = (Question if name.startswith("q") else Exercise).model_validate(
                {"key": key, **table}
            )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _unusable(f"{path.name}, [{name}] {place}".rstrip(), first["msg"]) from error
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path.name, str(error)) from error
    return found


def _unusable(where: str, got: str) -> ExerciseError:
    expected = "a definition as lepton_lib.exercises.definitions describes it"
    return ExerciseError(where, got, expected, "Correct the file.")


def find_definition(key: str) -> Exercise | Question:
    """The exercise or question of that key.

    Raises:
        ExerciseError: There is none.
    """
    files = definition_files()
    number = str(key).partition(".")[0]
    known = read_definitions(files[number]) if number in files else {}
    if key in known:
        return known[key]
    raise ExerciseError(
        f"exercise {key!r}",
        "a key that no definition has",
        f"one of {', '.join(known)}"
        if known
        else f"a notebook's number first: {', '.join(files) or 'none'}",
        "Copy the key from the exercise's heading.",
    )
