"""Tables as their case describes them: checked, cleaned, split, encoded.

A *raw* frame holds text only, as `reading` leaves it; a *clean* frame holds numbers, categories and
timestamps, and the label in the column ``target``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.cases import TARGET, Case, Column, NumberColumn
from lepton_lib.data.reading import read_table
from lepton_lib.errors import DataError

MIN_ROWS_PER_CLASS = 10  # fewer can't be divided into three parts that say anything


@dataclass
class Cleaning:
    """What cleaning did, counted.

    Attributes:
        rows_read: Rows before.
        mended: Values that became missing because they broke their column's rule, by column.
        dropped: Rows left out, by reason.
        missing: Values missing in the rows that were kept, by column.
    """

    rows_read: int
    mended: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def rows_kept(self) -> int:
        """Rows after; every row is either kept or counted in ``dropped``."""
        return self.rows_read - sum(self.dropped.values())

    def to_frame(self) -> pd.DataFrame:
        """One line a count."""
        lines: list[tuple[str, str, int]] = [("rows read", "", self.rows_read)]
        lines += [("value made missing", column, count) for column, count in self.mended.items()]
        lines += [("row dropped", reason, count) for reason, count in self.dropped.items()]
        lines.append(("rows kept", "", self.rows_kept))
        lines += [("missing in kept rows", column, count) for column, count in self.missing.items()]
        return pd.DataFrame(lines, columns=["what", "where or why", "count"])

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))


def find_problems(raw: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Every value that breaks its column's rule: no number, out of range, not among the categories.

    Returns:
        One line a value: ``line``, ``column``, ``got``, ``expected``, ``becomes`` (``"error"`` or
        ``"missing"``).
    """
    return _parse_all(raw, case)[1]


def _parse_all(raw: pd.DataFrame, case: Case) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All cells as values, missing where there is none, and the problems of `find_problems`."""
    values: dict[str, pd.Series] = {}
    problems: list[tuple[Any, str, str, str, str]] = []
    parsed: list[Any] = [
        (c.name, *parse_cells(raw[c.name], c), c.describe(), c.on_invalid) for c in case.columns
    ]
    for name, *result, expected, becomes in [*parsed, (TARGET, *_parse_target(raw, case), "error")]:
        values[name], invalid = result
        where = case.target.column if name == TARGET else name
        found = raw.loc[invalid, name].items()
        problems += [(line, where, got, expected, becomes) for line, got in found]
    header = ["line", "column", "got", "expected", "becomes"]
    return pd.DataFrame(values), pd.DataFrame(problems, columns=header)


def parse_cells(text: pd.Series, column: Column) -> tuple[pd.Series, pd.Series]:
    """Values of the column's kind (missing where invalid), and which cells were invalid."""
    text = text.str.strip()
    missing = text.isin(["", *column.missing])
    values = column.parse(text.mask(missing))
    return values, values.isna() & ~missing


def _parse_target(raw: pd.DataFrame, case: Case) -> tuple[pd.Series, pd.Series, str]:
    """Labels (missing where there is none), which cells are invalid, and what is expected."""
    target = case.target
    if not target.classes:
        rule = target.model_dump(exclude={"column", "classes"})
        column = NumberColumn(name="label", **rule)
        return *parse_cells(raw[TARGET], column), column.describe()
    index_of = {value: k for k, entry in enumerate(target.classes) for value in entry.values}
    text = raw[TARGET].str.strip()
    labels = text.map(index_of)
    return labels, labels.isna() & ~text.isin(["", *target.missing]), f"one of {list(index_of)}"


def clean(raw: pd.DataFrame, case: Case) -> tuple[pd.DataFrame, Cleaning]:
    """Turn text into values and leave out what must not be learnt from, counting everything.

    In this order: exact duplicates, values that break a rule, rows without a label, rows with a
    missing value where none is allowed, the case's rules, repeated keys.

    Returns:
        The clean frame (float64, categories, datetimes; ``target`` int64 class index or float64)
        and the counts.

    Raises:
        DataError: A value breaks the rule of a column that allows no such value, or duplicates
            where none may be.
    """
    report, file = Cleaning(rows_read=len(raw)), raw.attrs.get("file", case.data.file)
    repeated = raw.duplicated() & (case.data.duplicates != "keep")
    if repeated.any() and case.data.duplicates == "error":
        where, got = f"{file}, line {raw.index[repeated][0]}", f"{repeated.sum()} rows that repeat"
        remedy = 'Remove them, or set data.duplicates to "drop" or "keep" in case.toml.'
        raise DataError(where, f"{got} an earlier one", "no duplicate rows", remedy)
    raw = _drop(raw, repeated, "exact duplicate", report)
    frame, problems = _parse_all(raw, case)
    if (fatal := problems[problems["becomes"] == "error"]).size:
        line, column, got, expected, _ = fatal.iloc[0]
        remedy = f"Correct the value, or the column in case.toml ({len(fatal)} such values in all)."
        raise DataError(f"{file}, line {line}, column {column!r}", repr(got), expected, remedy)
    mended = problems["column"].value_counts(sort=False)
    report.mended = {str(name): int(count) for name, count in mended.items()}
    for name in [TARGET, *(column.name for column in case.columns if not column.nullable)]:
        frame = _drop(frame, frame[name].isna(), f"no {name}", report)
    frame = frame.astype({TARGET: "int64" if case.classes else "float64"})
    names: Any = dict(frame.items())
    for rule in case.rules:
        if case.classes:
            names[TARGET] = frame[TARGET].map(dict(enumerate(case.classes)))
        try:
            hit = rule.formula({name: values.loc[frame.index] for name, values in names.items()})
        except TypeError as error:
            where, got = f"case {case.name!r}, rule {rule.drop!r}", f"no comparison ({error})"
            expected = "numbers beside number columns, quoted words beside the others"
            raise DataError(where, got, expected, "Correct the rule in case.toml.") from error
        frame = _drop(frame, hit, rule.why, report)
    if key := list(case.data.unique):
        frame = _drop(frame, frame.duplicated(key), f"repeats {', '.join(key)}", report)
    report.missing = {str(name): int(n) for name, n in frame.isna().sum().items() if n}
    return frame, report


def _drop(frame: pd.DataFrame, hit: pd.Series, reason: str, report: Cleaning) -> pd.DataFrame:
    if hit.any():
        report.dropped[reason] = int(hit.sum())
    return frame[~hit]


def split(frame: pd.DataFrame, case: Case, *, seed: int) -> dict[str, pd.DataFrame]:
    """Divide a clean frame into ``train``, ``validation`` and ``test`` as ``[split]`` says.

    Args:
        frame: A clean frame.
        case: The case.
        seed: Seeds the draw of a stratified split; the other methods draw nothing.

    Raises:
        DataError: Too few rows, a class without rows, or a part that would be empty.
    """
    counts = frame[TARGET].value_counts() if case.classes else pd.Series({0: len(frame)})
    for index, name in enumerate(case.classes or ("rows",)):
        if (count := int(counts.get(index, 0))) < MIN_ROWS_PER_CLASS:
            where = f"{case.data.file}, class {name!r}" if case.classes else case.data.file
            remedy = "Collect more, or merge classes in case.toml."
            raise DataError(where, f"{count} rows", f"at least {MIN_ROWS_PER_CLASS}", remedy)
    plan = case.split
    if plan.method == "time":
        ordered = frame.sort_values(plan.column, kind="stable")
        first = round(len(frame) * (1 - plan.validation - plan.test))
        second = round(len(frame) * (1 - plan.test))
        train, validation, test = ordered[:first], ordered[first:second], ordered[second:]
    elif plan.method == "given":
        train, test = frame[frame[plan.column] == "train"], frame[frame[plan.column] == "test"]
        groups = train.groupby(TARGET) if case.classes else [(0, train)]
        # The last rows of each class, in the file's order: neighbours in time stay on one side.
        held = pd.concat(
            [rows.iloc[round(len(rows) * (1 - plan.validation)) :] for _, rows in groups]
        ).index
        train, validation = train.drop(held), train.loc[held]
    elif plan.group:
        rest, test = _part(frame, plan.group, plan.test, seed)
        train, validation = _part(rest, plan.group, plan.validation / (1 - plan.test), seed)
    else:
        from sklearn.model_selection import train_test_split

        labels = frame[TARGET] if case.classes else None
        draw = partial(train_test_split, random_state=seed)
        rest, test = draw(frame, test_size=plan.test, stratify=labels)
        labels = rest[TARGET] if case.classes else None
        share = plan.validation / (1 - plan.test)
        train, validation = draw(rest, test_size=share, stratify=labels)
    parts = {"train": train, "validation": validation, "test": test}
    for name, rows in parts.items():
        if rows.empty or (case.classes and rows[TARGET].nunique() < len(case.classes)):
            where, got = f"{case.data.file}, {name} part", f"{len(rows)} rows"
            remedy = "Change [split] in case.toml, or collect more."
            raise DataError(where, got, "rows of every class", remedy)
    return parts


def _part(
    frame: pd.DataFrame, group: str, share: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows without about a ``share`` of them, and that share: groups stay whole."""
    from sklearn.model_selection import GroupShuffleSplit

    shuffle = GroupShuffleSplit(1, test_size=share, random_state=seed)
    rest, drawn = next(shuffle.split(frame, groups=frame[group].astype(str)))
    return frame.iloc[rest], frame.iloc[drawn]


def encode(frame: pd.DataFrame, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Lay a clean frame out as the model's raw input, as ``case.fields`` says.

    Returns:
        Inputs float32 ``(n, len(case.fields))``, NaN where missing; labels int64 ``(n,)``, or
        float32 for regression.
    """
    columns = [part for column in case.inputs for part in column.encode(frame[column.name])]
    labels = frame[TARGET].to_numpy(dtype=np.int64 if case.classes else np.float32)
    return np.column_stack(columns).astype(np.float32), labels


def to_records(frame: pd.DataFrame, case: Case) -> list[dict[str, Any]]:
    """A clean frame's inputs as a client posts them: numbers, texts, ISO 8601 moments, ``None``.

    ``cases.encode_records(case, to_records(frame, case))`` equals the inputs of `encode`.
    """
    names = [column.name for column in case.inputs]
    columns = [column.to_json(frame[column.name]) for column in case.inputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def dry_run(case: Case, *, seed: int = 0) -> Cleaning:
    """Take a case's table through reading, cleaning, splitting and encoding, before any step runs.

    Raises:
        DataError: The first thing that would fail.
    """
    frame, report = clean(read_table(case), case)
    for part in split(frame, case, seed=seed).values():
        encode(part, case)
    return report
