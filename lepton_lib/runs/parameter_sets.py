"""The parameter sets of a sweep: a grid, pairs, a sample or a table, each with a folder's name."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from lepton_lib.errors import ParameterError, wrap_os_errors

ParameterSet = dict[str, str]  # texts, as on the command line
How = Literal["grid", "zip"]
NAME_LENGTH = 48  # characters of a folder's name before its hash
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def parse_values(text: str) -> list[str]:
    """``"1e-4,1e-3"`` and ``"0..9"`` as a list of values, both ends included."""
    values = []
    for part in text.split(","):
        if found := _RANGE.fullmatch(part.strip()):
            values += [str(number) for number in range(int(found[1]), int(found[2]) + 1)]
        else:
            values.append(part.strip())
    return values


def combine(
    values: Mapping[str, Sequence[str]],
    *,
    how: How = "grid",
    sample: int | None = None,
    rows: Sequence[ParameterSet] = ({},),
) -> list[ParameterSet]:
    """Every set once, in a stable order.

    Args:
        values: The values of each parameter.
        how: ``grid``: each value with each other; ``zip``: the first with the first, and so on.
            A single value goes with all.
        sample: So many sets of the grid, drawn without replacement; the same ones every time.
        rows: More parameters, from a table: each row is combined with each set.

    Raises:
        ParameterError: Lists to be zipped differ in length, or a table has a parameter, too.
    """
    names, lists = list(values), [list(dict.fromkeys(entries)) for entries in values.values()]
    if how == "zip":
        lists = [list(entries) for entries in values.values()]
        longest = max(map(len, lists), default=1)
        if wrong := [name for name in names if len(values[name]) not in (1, longest)]:
            got, expected = f"{len(values[wrong[0]])} values", f"1 or {longest} with --zip"
            where = f"parameter {wrong[0]!r}"
            raise ParameterError(where, got, expected, "Give each parameter as many values.")
        lists = [entries * (longest if len(entries) == 1 else 1) for entries in lists]
        chosen = list(zip(*lists, strict=True)) if lists else [()]
    else:
        total = math.prod(map(len, lists))
        picks = range(total) if sample is None else _draw(total, sample)
        chosen = [_entry(lists, index) for index in picks]
    sets: dict[str, ParameterSet] = {}
    for row, combination in itertools.product(rows, chosen):
        if twice := sorted(set(row) & set(names)):
            where, got = f"parameter {twice[0]!r}", "values in the table and in -p"
            raise ParameterError(where, got, "one place for them", "Remove one of them.")
        one = {**row, **dict(zip(names, combination, strict=True))}
        sets.setdefault(json.dumps(one, sort_keys=True), one)
    return list(sets.values())


def _draw(total: int, sample: int) -> list[int]:
    return sorted(random.Random(0).sample(range(total), min(sample, total)))


def _entry(lists: Sequence[Sequence[str]], index: int) -> tuple[str, ...]:
    """The combination of that index; the last list's values change fastest."""
    entry = []
    for values in reversed(lists):
        index, place = divmod(index, len(values))
        entry.append(values[place])
    return tuple(reversed(entry))


def read_table(path: Path) -> list[ParameterSet]:
    """A CSV whose columns are parameters and whose rows are sets.

    Raises:
        ParameterError: It has no rows, or a row of another length.
        RunError: It can't be read.
    """
    with wrap_os_errors(path, got="a table that can't be read", remedy="Check its path."):
        text = path.read_text("utf-8-sig")
    rows = list(csv.DictReader(text.splitlines()))
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            where = f"{path}, line {number}"
            raise ParameterError(where, "another number of values", f"{list(rows[0])}", "Fix it.")
    if not rows:
        raise ParameterError(str(path), "no rows", "a row for each set", "Write some.")
    return rows


def folder_name(values: Mapping[str, object]) -> str:
    """A name for a set's folder: short, the same every time, and safe on every file system.

    ``{"lr": "1e-3", "seed": "7"}`` gives ``lr-1e-3_seed-7_`` and eight hexadecimal digits.
    """
    content = json.dumps(dict(values), sort_keys=True)
    shown = "_".join(f"{name}-{value}" for name, value in sorted(values.items()))
    safe = re.sub(r"[^a-z0-9._-]+", "-", shown.lower())[:NAME_LENGTH].strip("-._") or "run"
    return f"{safe}_{hashlib.sha256(content.encode()).hexdigest()[:8]}"
