"""Every exception of the library. Knows nothing of any other module."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path


class LeptonError(Exception):
    """A mistake that its user can fix.

    The message has one form everywhere: where it happened, what was got, what was expected, and
    what to do about it.

    Args:
        where: The file, key, row or parameter at fault.
        got: What was there.
        expected: What should have been there.
        remedy: What to do, as an imperative sentence.
    """

    def __init__(self, where: str, got: object, expected: object, remedy: str) -> None:
        self.where = where
        self.got = got
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"{where}: got {got}, expected {expected}. {remedy}")


class CaseError(LeptonError):
    """A ``case.toml`` that can't be used."""


class DataError(LeptonError):
    """A data file, a table or a record that doesn't agree with its case."""


class RecordError(DataError):
    """A record that its case refuses: ``position`` in the request, from 0, and ``field``."""

    def __init__(
        self, position: int, field: str, got: object, expected: object, remedy: str
    ) -> None:
        self.position = position
        self.field = field
        super().__init__(f"record {position}, field {field!r}", got, expected, remedy)


class ParameterError(LeptonError):
    """A parameter with an unknown name, a wrong type or a value out of range."""


class RunError(LeptonError):
    """A run folder that can't be read or written, or a pipeline step that didn't finish."""


class NotebookError(RunError):
    """A notebook that was started and didn't finish."""


class ExerciseError(LeptonError):
    """An exercise that isn't there, or a definition of one that can't be used."""


class TrainingError(LeptonError):
    """A training run that can't go on: the loss is not finite, or a checkpoint doesn't fit."""


class MetricError(LeptonError):
    """A metric that isn't defined on its arguments."""


class MissingExtraError(LeptonError, ModuleNotFoundError):
    """A package that isn't installed, of an extra of pyproject.toml."""


@contextlib.contextmanager
def needs_extra(extra: str, user: str, *modules: str) -> Iterator[None]:
    """Name the command that installs an extra where an import inside fails.

    Args:
        extra: ``serve``, ``ops``, ``class``, ``text`` or ``vision``.
        user: What needs it, such as ``"lepton_lib.serving"``.
        *modules: Modules of the extra that are imported later; looked for, and not imported.

    Raises:
        MissingExtraError: A module isn't installed.
    """
    try:
        for module in modules:
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(name=module)
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lepton_lib"):  # a mistake of ours, and no extra
            raise
        got = error.got if isinstance(error, MissingExtraError) else f"no package {error.name!r}"
        install = f"python -m pip install -c constraints.txt -e '.[{extra}]'"
        remedy = f"Run `{install}` in the course's folder."
        raise MissingExtraError(user, got, f"the extra {extra!r}", remedy) from error


@contextlib.contextmanager
def wrap_os_errors(
    place: Path | str,
    *,
    remedy: str,
    got: str = "a folder that can't be written to",
    expected: str = "a folder of yours",
) -> Iterator[None]:
    """Turn an `OSError` inside into a `RunError` about ``place``, with its reason."""
    try:
        yield
    except OSError as error:
        raise RunError(str(place), f"{got} ({error.strerror})", expected, remedy) from error
