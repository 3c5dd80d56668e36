"""Whether two answers are the same, whatever they are; functions are tried, in a time limit. Knows no exercise.

Nothing that an answer does while it is looked at may reach the caller: it may raise, print, change
its arguments, end the program or never end.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import io
import math
import numbers
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lepton_lib.utils import first_line

SECONDS = 3.0  # that a function may take for all its inputs


class Raised(NamedTuple):
    """What a function gave when it gave nothing: the exception."""

    kind: str
    message: str


class Drawing(NamedTuple):
    """A figure that was drawn elsewhere, by its data."""

    data: list[str]


def same(value: Any, expected: Any, tolerance: float) -> bool:
    """Whether ``value`` is ``expected``: the same kind, shape and names, numbers within the relative tolerance.

    A list, a tuple, an array and a tensor of the same values are the same; so are a figure, its
    axes and its picture.
    """
    if isinstance(expected, Raised):
        return isinstance(value, Raised) and value.kind == expected.kind
    if _is_figure(expected):
        return _is_figure(value) and figure_data(value) == figure_data(expected)
    if isinstance(expected, str):
        return isinstance(value, str) and value.strip().casefold() == expected.strip().casefold()
    if isinstance(expected, Mapping):
        return (
            isinstance(value, Mapping)
            and len(value) == len(expected)
            and all(
                key in value and same(value[key], entry, tolerance)
                for key, entry in expected.items()
            )
        )
    if isinstance(expected, set | frozenset):
        return isinstance(value, set | frozenset) and value == expected
    if type(expected).__module__.startswith("pandas"):
        return _same_table(value, expected, tolerance)
    if _is_number(expected):
        return _is_number(value) and _close(value, expected, tolerance)
    entries, wanted = _entries(value), _entries(expected)
    if wanted is not None:
        return (
            entries is not None
            and len(entries) == len(wanted)
            and all(
                same(entry, other, tolerance) for entry, other in zip(entries, wanted, strict=True)
            )
        )
    return type(value) is type(expected) and bool(value == expected)


def _same_table(value: Any, expected: Any, tolerance: float) -> bool:
    if type(value) is not type(expected) or value.shape != expected.shape:
        return False
    if hasattr(expected, "columns") and list(value.columns) != list(expected.columns):
        return False
    return list(value.index) == list(expected.index) and same(
        value.to_numpy().tolist(), expected.to_numpy().tolist(), tolerance
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, numbers.Real):  # NumPy's scalars, too; bool is one
        return True
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _close(value: Any, expected: Any, tolerance: float) -> bool:
    got, wanted = (x.item() if hasattr(x, "item") else x for x in (value, expected))
    if isinstance(got, bool) or isinstance(wanted, bool):
        return type(got) is type(wanted) and got == wanted
    if math.isnan(wanted):
        return math.isnan(got)
    return math.isclose(
        got, wanted, rel_tol=tolerance, abs_tol=tolerance * min(1.0, abs(wanted) or 1.0)
    )


def _entries(value: Any) -> list[Any] | None:
    if isinstance(value, list | tuple):
        return list(value)
    if hasattr(value, "tolist") and hasattr(value, "shape"):  # an array or a tensor
        found = value.tolist()
        return found if isinstance(found, list) else None
    return None


def figure_data(value: Any) -> list[str] | None:
    """What a figure shows, as text; None for anything else."""
    if isinstance(value, Drawing):
        return value.data
    if not _is_figure(value):
        return None
    from lepton_lib.plots import drawn_data

    return drawn_data(value)


def _is_figure(value: Any) -> bool:
    module = type(value).__module__
    return (
        isinstance(value, Drawing)
        or module.startswith("matplotlib.")
        or (module == "lepton_lib.plots" and type(value).__name__ == "Picture")
    )


def kind_of(value: Any) -> str:
    """What a value is, in words that a reader knows, without its content."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, bool):
        return "a truth value"
    if _is_number(value):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping):
        return f"a dictionary of {len(value)}"
    if isinstance(value, set | frozenset):
        return f"a set of {len(value)}"
    if type(value).__module__.startswith("pandas"):
        return f"a {type(value).__name__} of shape {tuple(getattr(value, 'shape', ()))}"
    if hasattr(value, "shape"):
        return f"an array of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if _is_figure(value):
        return "a figure"
    if isinstance(value, type):
        return "a class"
    return "a function" if callable(value) else f"an object of type {type(value).__name__}"


def outcomes(
    function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]], seconds: float = SECONDS
) -> list[Any]:
    """What a function gives for each input, an exception as `Raised`; each call gets its own copy of the arguments.

    Raises:
        TimeoutError: It took longer; its thread is told to end, which a call into C code does only
            when it returns.
    """
    found: list[Any] = []
    late = threading.Event()

    def work() -> None:
        for arguments in inputs:
            try:
                result = function(*copy.deepcopy(arguments))
            except (
                BaseException
            ) as error:  # sys.exit(), too: whatever it is, it is the function's answer
                result = Raised(type(error).__name__, first_line(error))
            if late.is_set():
                return
            found.append(result)

    thread = threading.Thread(target=work, daemon=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            late.set()
            assert thread.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
            )
            raise TimeoutError
    return found
