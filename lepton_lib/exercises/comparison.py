"""Whether two answers are the same, whatever they are; functions are called with a timeout.

Knows no exercise. Nothing that an answer does while it is looked at may reach the caller: it may
raise, print, change its arguments, end the program or never end.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import dis
import inspect
import io
import math
import numbers
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lepton_lib.utils import first_line

TIMEOUT = 3.0  # seconds that a function may take for all its inputs
MAX_SHOWN = 120  # characters of a value
_EMPTY = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}  # of a function's body


class Raised(NamedTuple):
    """The exception that a function raised instead of returning a value."""

    kind: str
    message: str


class Changed(NamedTuple):
    """What a function returned that changed one of its arguments."""

    value: Any
    place: int  # the argument's, from 1


class Drawing(NamedTuple):
    """A figure that was drawn in another process, by its data."""

    data: list[str]


def same(value: Any, expected: Any, tolerance: float) -> bool:
    """Whether an answer is the expected one: in kind, shape and names, numbers within a tolerance.

    A list, a tuple, an array and a tensor of the same values are the same; so are a figure, its
    axes and its picture. The tolerance is relative; near zero it is absolute. A function may
    change an argument only where the expected one does.
    """
    if isinstance(expected, Changed):
        value, expected = getattr(value, "value", value), expected.value
    if isinstance(expected, Raised):
        return isinstance(value, Raised) and value.kind == expected.kind
    if _is_figure(expected):
        return _is_figure(value) and figure_data(value) == figure_data(expected)
    if isinstance(expected, str):
        return isinstance(value, str) and value.strip().casefold() == expected.strip().casefold()
    if isinstance(expected, Mapping):
        if not isinstance(value, Mapping) or len(value) != len(expected):
            return False
        return all(k in value and same(value[k], entry, tolerance) for k, entry in expected.items())
    if isinstance(expected, set | frozenset):
        return isinstance(value, set | frozenset) and value == expected
    if type(expected).__module__.startswith("pandas"):
        return _same_table(value, expected, tolerance)
    if _is_number(expected):
        return _is_number(value) and _close(value, expected, tolerance)
    a, b = _items(value), _items(expected)
    if b is None:
        return type(value) is type(expected) and bool(value == expected)
    if a is None or len(a) != len(b):
        return False
    return all(same(*pair, tolerance) for pair in zip(a, b, strict=True))


def _same_table(value: Any, expected: Any, tolerance: float) -> bool:
    if type(value) is not type(expected) or value.shape != expected.shape:
        return False
    if [list(labels) for labels in value.axes] != [list(labels) for labels in expected.axes]:
        return False
    return same(value.to_numpy().tolist(), expected.to_numpy().tolist(), tolerance)


def _is_number(value: Any) -> bool:
    if isinstance(value, numbers.Real):  # NumPy's scalars, too; bool is one
        return True
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _close(value: Any, expected: Any, tolerance: float) -> bool:
    a, b = (x.item() if hasattr(x, "item") else x for x in (value, expected))
    if isinstance(a, bool) or isinstance(b, bool):
        return type(a) is type(b) and a == b
    if math.isnan(b):
        return math.isnan(a)
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance * min(1.0, abs(b) or 1.0))


def _items(value: Any) -> list[Any] | None:
    if isinstance(value, list | tuple):
        return list(value)
    if hasattr(value, "tolist") and hasattr(value, "shape"):  # an array or a tensor
        items = value.tolist()
        return items if isinstance(items, list) else None
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
    module, name = type(value).__module__, type(value).__name__
    is_picture = (module, name) == ("lepton_lib.plots", "Picture")
    return isinstance(value, Drawing) or module.startswith("matplotlib.") or is_picture


def parts_of(value: Any) -> dict[Any, Any]:
    """The entries of a dictionary by their keys, of a list by their places; else nothing."""
    if isinstance(value, Mapping):
        return dict(value)
    return dict(enumerate(_items(value) or [], start=1))


def is_open(value: Any) -> bool:
    """Whether dots still stand for a value, or for a part of it."""
    return value is ... or any(map(is_open, parts_of(value).values()))


def describe(value: Any) -> str:
    """A value as Python writes it, if it is plain and short; else what it is."""
    try:
        text = repr(_literal(value))
    except TypeError:
        return describe_kind(value)
    return text if len(text) <= MAX_SHOWN else describe_kind(value)


def _literal(value: Any) -> Any:
    """The value in Python's own types, numbers with six digits; TypeError where it has none."""
    if isinstance(value, Mapping):
        return {_literal(key): _literal(entry) for key, entry in value.items()}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(map(_literal, value))
    if type(value).__module__.startswith("pandas"):
        return _literal(value.to_dict())
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if value is None or value is ... or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        return _literal(value.tolist())
    raise TypeError


def describe_kind(value: Any) -> str:
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
    return "a function" if inspect.isroutine(value) else f"an object of type {type(value).__name__}"


def is_empty(function: Callable[..., Any]) -> bool:
    """Whether a function has no statement beside its docstring, dots and ``pass``."""
    code = getattr(function, "__code__", None)
    return code is not None and {one.opname for one in dis.get_instructions(code)} <= _EMPTY


def call_on_inputs(
    function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]], timeout: float | None = None
) -> list[Any] | None:
    """What a function returns for a copy of each input, as `Changed` or `Raised` where it is so.

    None if all calls together take longer than ``timeout`` seconds, by default `TIMEOUT`. Their
    thread is asked to stop; a call into C code stops only when it returns.
    """
    results: list[Any] = []
    timed_out = threading.Event()

    def call_all() -> None:
        for arguments in inputs:
            given = copy.deepcopy(arguments)
            try:
                result = function(*given)
                for place, pair in enumerate(zip(given, arguments, strict=True), start=1):
                    if not same(*pair, 0.0):
                        result = Changed(result, place)
                        break
            except BaseException as error:  # sys.exit(), too, is the function's outcome
                result = Raised(type(error).__name__, first_line(error))
            if timed_out.is_set():
                return
            results.append(result)

    thread = threading.Thread(target=call_all, daemon=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        thread.start()
        thread.join(TIMEOUT if timeout is None else timeout)
        if thread.is_alive():
            timed_out.set()
            assert thread.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
            )
            return None
    return results
