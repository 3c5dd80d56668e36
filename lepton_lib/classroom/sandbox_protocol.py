"""What a sandboxed process is asked, and what it writes down: plain data that is never executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lepton_lib.exercises.comparison import (
    Changed,
    Drawing,
    Raised,
    call_on_inputs,
    figure_data,
)
from lepton_lib.exercises.definitions import Exercise, find_definition
from lepton_lib.exercises.grading import Outcomes


class SandboxJob(msgspec.Struct):
    """A notebook to run."""

    notebook: str  # its path
    results: str  # the file that the events go to, one `SandboxEvent` a line
    cell_timeout: int  # seconds that one cell may take
    whole: bool  # whether all cells are run, not only the exercises and what they depend on
    writable: list[str]  # the folders that may be written to
    isolated: bool  # whether it is cut off by `isolate`


class SandboxEvent(msgspec.Struct):
    """What became known of a notebook: the exercises in it, a cell's start, an answer, its end.

    ``stopped`` says that its process ended too early.
    """

    kind: Literal["keys", "cell", "answer", "failed", "end", "unreadable", "stopped"]
    keys: list[str] = []  # of the exercises that it is about
    text: str = ""  # the cell's id, or the reason
    value: Any = None  # the answer, encoded
    untouched: bool = False  # whether the answer's cell is as it was handed out
    partial: bool = False  # whether some cells are left out


def encode_answer(key: str, value: Any) -> Any:
    """What a learner passed to ``check``, as JSON can hold it; a function is called first."""
    try:
        if callable(value) and not isinstance(value, type):
            exercise = find_definition(key)
            if isinstance(exercise, Exercise) and exercise.inputs is not None:
                return {"outcomes": encode(call_on_inputs(value, exercise.arguments()))}
        return encode(value)
    except Exception as error:  # a value may do anything when it is looked at
        return {"other": type(error).__name__}


def encode(value: Any) -> Any:
    """A value as JSON's types; what has no such form by the name of its type alone."""
    if value is None or isinstance(value, bool | str):
        return value
    if value is ...:
        return {"dots": True}
    if isinstance(value, Raised):
        return {"raised": list(value)}
    if isinstance(value, Changed):
        return {"changed": [encode(value.value), value.place]}
    if isinstance(value, Mapping):
        return {"dict": [[encode(key), encode(entry)] for key, entry in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": [encode(entry) for entry in value]}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    if (drawn := figure_data(value)) is not None:
        return {"drawing": drawn}
    if type(value).__module__.startswith("pandas") and hasattr(value, "iloc"):
        columns = list(value.columns) if hasattr(value, "columns") else None
        return {"table": encode([value.to_numpy().tolist(), list(value.index), columns])}
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        plain = encode(value.tolist())
        return {"array": [plain, list(value.shape)]} if tuple(value.shape) else plain
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and abs(value) < 1 << 1000:
        return int(value)
    return {"other": "function" if callable(value) else type(value).__name__}


def decode(entry: Any) -> Any:
    """The value that `encode` was given, or one that is as unlike every right answer."""
    if isinstance(entry, list):
        return [decode(part) for part in entry]
    if not isinstance(entry, dict):
        return entry
    ((kind, content),) = entry.items()
    if kind == "dots":
        return ...
    if kind == "raised":
        return Raised(*map(str, content))
    if kind == "changed":
        return Changed(decode(content[0]), content[1])
    if kind == "outcomes":
        return Outcomes(decode(content))
    if kind == "dict":
        return {decode(key): decode(part) for key, part in content}
    if kind == "set":
        return set(decode(content))
    if kind == "drawing":
        return Drawing([str(line) for line in content])
    if kind == "table":
        import pandas as pd

        rows, index, columns = decode(content)
        if columns is None:
            return pd.Series(rows, index)
        return pd.DataFrame(rows, index, columns)
    if kind == "array":
        import numpy as np

        return np.array(decode(content[0])).reshape(content[1])
    name = str(content)
    if name == "function":
        return lambda: None
    return type(name if name.isidentifier() else "object", (), {})()
