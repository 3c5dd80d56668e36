"""An answer as plain data that can leave an untrusted process, and back. What comes in is never executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_lib.exercises import Tried, try_out
from lepton_lib.exercises.definitions import Exercise, find_definition
from lepton_lib.exercises.judging import Drawing, Raised, figure_data


def answer_of(key: str, value: Any) -> Any:
    """What a learner passed to ``check``, as JSON can hold it; a function is tried first."""
    try:
        if callable(value) and not isinstance(value, type):
            definition = find_definition(key)
            if isinstance(definition, Exercise) and definition.inputs is not None:
                given = try_out(definition, value).outcomes
                return {"tried": None if given is None else [encode(outcome) for outcome in given]}
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
        return {"raised": [value.kind, value.message]}
    if isinstance(value, Mapping):
        return {"dict": [[encode(key), encode(entry)] for key, entry in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": [encode(entry) for entry in value]}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    if (drawn := figure_data(value)) is not None:
        return {"drawing": drawn}
    if type(value).__module__.startswith("pandas") and hasattr(value, "iloc"):
        rows, index = value.to_numpy().tolist(), encode(list(value.index))
        columns = encode(list(value.columns)) if hasattr(value, "columns") else None
        return {"table": [encode(rows), index, columns]}
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        plain = encode(value.tolist())
        return plain if tuple(value.shape) == () else {"array": plain, "shape": list(value.shape)}
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 1000):
        return float(value) if isinstance(value, float) else int(value)
    return {"other": "function" if callable(value) else type(value).__name__}


def decode(entry: Any) -> Any:
    """The value that `encode` was given, or one that is as unlike every right answer."""
    if isinstance(entry, list):
        return [decode(part) for part in entry]
    if not isinstance(entry, dict):
        return entry
    ((kind, content), *_) = entry.items()
    if kind == "dots":
        return ...
    if kind == "raised":
        return Raised(str(content[0]), str(content[1]))
    if kind == "tried":
        return Tried(None if content is None else [decode(part) for part in content])
    if kind == "dict":
        return {decode(key): decode(part) for key, part in content}
    if kind == "set":
        return {decode(part) for part in content}
    if kind == "drawing":
        return Drawing([str(line) for line in content])
    if kind == "table":
        import pandas as pd

        rows, index, columns = map(decode, content)
        return (
            pd.Series(rows, index=index)
            if columns is None
            else pd.DataFrame(rows, index=index, columns=columns)
        )
    if kind == "array":
        import numpy as np

        return np.array(decode(content)).reshape(entry["shape"])
    name = str(content)
    return (
        (lambda: None)
        if name == "function"
        else type(name if name.isidentifier() else "object", (), {})()
    )
