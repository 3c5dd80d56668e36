"""What an exercise is: its answer as code, the wrong answers that are known, its hints.

A definition lies in ``notebooks/exercises/``, at the same relative path as its notebook. It is the
course's own code and is run as such; nothing that a reader writes comes here.
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
Minutes = Annotated[float, Field(gt=0, le=60)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WrongAnswer(_Model):
    """A wrong answer that readers give."""

    code: Text  # gives it, as the answer's code gives the right one
    message: Text  # the misconception behind it: what *not yet* says


class _Definition(_Model):
    key: str  # 02.3 or 02.q1: the notebook's number and the exercise's
    title: Text
    objective: Text  # "After this you can ..."
    why: Text  # one sentence with *correct*: why it matters


class Exercise(_Definition):
    """An exercise whose answer is a value or a function."""

    kind: Literal["predict", "mend", "write", "decide"]  # a result, code, code, with a reason
    minutes: Minutes
    given: str = ""  # code that runs before the answers' code: what earlier cells define
    answer: Text  # code whose last statement defines the right answer
    inputs: str | None = None  # for a function, an expression: a list of argument tuples
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-6  # relative; near zero absolute
    # a ladder, the last one nearly the answer
    hints: Annotated[tuple[Text, ...], Field(min_length=2, max_length=3)]
    wrong: Annotated[tuple[WrongAnswer, ...], Field(min_length=2)]

    @property
    def name(self) -> str:
        """The name that the answer's code defines, and that the notebook passes to ``check``."""
        last = ast.parse(self.answer).body[-1]
        if isinstance(last, ast.FunctionDef):
            return last.name
        if isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
            return last.targets[0].id
        got, expected = ast.unparse(last)[:40], "an assignment to a name, or a function"
        remedy = "Let the answer end with what is passed to check()."
        raise ExerciseError(f"exercise {self.key}", got, expected, remedy)

    def value_of(self, code: str) -> Any:
        """What ``code`` defines under the answer's name, in a namespace of its own."""
        return self._namespace(code)[self.name]

    def arguments(self) -> list[tuple[Any, ...]]:
        """The argument tuples that a function is called with."""
        return list(eval(self.inputs or "[]", self._namespace()))

    def _namespace(self, code: str = "") -> dict[str, Any]:
        namespace: dict[str, Any] = {}
        exec(self.given, namespace)
        exec(code, namespace)
        return namespace


class Question(_Definition):
    """A question with options in the notebook; its right letter is known by a salted hash alone."""

    minutes: Minutes = 1
    options: Annotated[str, Field(pattern=r"^[a-f]{2,6}$")]
    salt: Annotated[str, Field(min_length=6)]  # see `letter_hash`
    right: str  # the hash of the right letter
    wrong: dict[str, Text]  # the misconception behind each other letter, by the letter's hash
    hints: Annotated[tuple[Text, ...], Field(min_length=1, max_length=3)]

    @property
    def answer(self) -> str:
        """The right letter."""
        return next(one for one in self.options if letter_hash(self.salt, one) == self.right)

    def message(self, letter: str) -> str:
        """The reason why the right letter matters, or the misconception behind a wrong one."""
        return self.why if letter == self.answer else self.wrong[letter_hash(self.salt, letter)]

    @model_validator(mode="after")
    def _check_hashes(self) -> Self:
        hashes = {letter_hash(self.salt, letter) for letter in self.options}
        if self.right not in hashes or set(self.wrong) != hashes - {self.right}:
            raise ValueError("the hashes under right and wrong are not those of the options")
        return self


def letter_hash(salt: str, letter: str) -> str:
    """The hash that names a letter in a definition, so that the answer isn't read by accident."""
    return hashlib.sha256(f"{salt}:{letter}".encode()).hexdigest()[:12]


def notebook_number(path: Path) -> str:
    """The number that a notebook's keys begin with: ``02``, or ``i2`` for ``industry/02_x``."""
    number = path.stem.partition("_")[0]
    loop = path.parent.name in ("notebooks", "exercises")
    return number if loop else path.parent.name[:1] + number.lstrip("0")


def number_of(key: str) -> str:
    """The number of the notebook that a key belongs to: ``02`` of ``02.3``."""
    return key.partition(".")[0]


def definition_files() -> dict[str, Path]:
    """The nearest files of definitions by the notebook's number, those of the loop first."""
    for folder in course_folders("notebooks"):
        if paths := list((folder / "exercises").rglob("*.toml")):
            files = {notebook_number(path): path for path in paths}
            return dict(sorted(files.items()))
    return {}


@functools.cache
def read_definitions(path: Path) -> dict[str, Exercise | Question]:
    """The exercises and questions of one notebook by key, in the order of the file.

    Raises:
        ExerciseError: The file can't be used: where and why.
    """
    number, where = notebook_number(path), path.name
    definitions: dict[str, Exercise | Question] = {}
    try:
        for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
            where = f"{path.name}, [{name}]"
            model = Question if name.startswith("q") else Exercise
            key = f"{number}.{name}"
            definitions[key] = model.model_validate({"key": key, **table})
    except (OSError, ValueError, TypeError) as error:
        got = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where = f"{where} {'.'.join(map(str, first['loc']))}".rstrip()
            got = first["msg"]
        expected = "a definition as lepton_lib.exercises.definitions describes it"
        raise ExerciseError(where, got, expected, "Correct the file.") from error
    return definitions


def definitions_of(number: str) -> dict[str, Exercise | Question]:
    """The exercises and questions of the notebook with this number, as ``"02"``, by key.

    Raises:
        ExerciseError: The notebook has none, or they can't be read.
    """
    if number not in (files := definition_files()):
        remedy = "Write the notebook's number as its keys do."
        raise ExerciseError(f"notebook {number!r}", "no exercises", f"one of {list(files)}", remedy)
    return read_definitions(files[number])


def find_definition(key: str) -> Exercise | Question:
    """The exercise or question of that key.

    Raises:
        ExerciseError: There is none.
    """
    files, number = definition_files(), number_of(str(key))
    known = definitions_of(number) if number in files else {}
    if key in known:
        return known[key]
    expected = f"a notebook's number first: {', '.join(files) or 'none'}"
    expected = f"one of {', '.join(known)}" if known else expected
    remedy = "Copy the key from the exercise's heading."
    raise ExerciseError(f"exercise {key!r}", "a key that no definition has", expected, remedy)
