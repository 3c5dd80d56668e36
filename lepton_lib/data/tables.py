"""Tables as their case describes them: read, checked, cleaned, split, encoded.

A *raw* frame holds text only, as it stands in the file, its index the line number; a *clean* frame holds numbers,
categories and timestamps, and the label in the column ``target``.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.cases import Case, Column
from lepton_lib.cases.records import describe
from lepton_lib.cases.schema import TARGET
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


def read_table(case: Case) -> pd.DataFrame:
    """Read the case's table as text.

    Returns:
        A raw frame ``(n, columns + target)``: columns by their names in case.toml, index = line number in the file.

    Raises:
        DataError: Not a table in the stated encoding and delimiter; columns missing or too many; no rows.
    """
    path, wanted = case.path(case.data.file), _headers(case)
    remedy = f"Mend the file, or set data.delimiter and data.encoding in {case.name}/case.toml."
    try:
        frame = pd.read_csv(
            path,
            sep=case.data.delimiter,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig" if case.data.encoding == "utf-8" else case.data.encoding,
            skiprows=range(1, 1 + case.data.skip_rows),
        )
    except UnicodeError as error:
        raise DataError(
            path.name,
            got=f"bytes that are not {case.data.encoding} ({getattr(error, 'reason', error)})",
            expected=f"text in {case.data.encoding}",
            remedy=remedy,
        ) from error
    except pd.errors.EmptyDataError as error:
        raise DataError(path.name, got="an empty file", expected="a header and rows", remedy=remedy) from error
    except (pd.errors.ParserError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(
            path.name,
            got=str(error).strip().removeprefix("Error tokenizing data. C error: "),
            expected=f"{len(wanted)} cells in every line",
            remedy=remedy,
        ) from error
    frame.columns = [str(header).strip() for header in frame.columns]
    _check_headers(case, path, frame.columns)
    frame = frame[list(wanted)].rename(columns=wanted)
    frame.index = pd.RangeIndex(2 + case.data.skip_rows, 2 + case.data.skip_rows + len(frame), name="line")
    return _nonempty(frame, path)


def _headers(case: Case) -> dict[str, str]:
    """Header in the file to name; the target comes last."""
    return {column.header: column.name for column in case.columns} | {case.target.column: TARGET}


def _check_headers(case: Case, path: Path, headers: Iterable[str]) -> None:
    headers = list(headers)
    wanted = list(_headers(case))
    if len(headers) == 1 and len(wanted) > 1:
        got = f"one column, {headers[0][:60]!r}"
        raise DataError(
            f"{path.name}, line 1",
            got=got,
            expected=f"{len(wanted)} columns divided by {case.data.delimiter!r}",
            remedy="Set data.delimiter in case.toml to the character between the names.",
        )
    for header in wanted:
        if header not in headers:
            raise DataError(
                f"{path.name}, line 1",
                got=f"no column {header!r}",
                expected=f"the columns {wanted}",
                remedy="Add the column, or take it out of case.toml.",
            )
    for header in headers:
        if header not in wanted:
            raise DataError(
                f"{path.name}, line 1",
                got=f"a column {header!r}",
                expected=f"only the columns {wanted}",
                remedy='Describe it in case.toml; role = "ignored" if nobody should use it.',
            )


def _nonempty(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if frame.empty:
        raise DataError(
            path.name,
            got="a header and no rows",
            expected="one row for each example",
            remedy="Check that the export was complete.",
        )
    return frame


def read_records(case: Case) -> pd.DataFrame:
    """Read the case's nested JSON lines into the same raw frame as `read_table`.

    Raises:
        DataError: The case has no such file, a line isn't JSON, or a path leads nowhere: file, line, got, expected.
    """
    if case.records is None:
        raise DataError(
            f"case {case.name!r}",
            got="no [records] section",
            expected="a file of JSON lines and its paths",
            remedy="Read the table instead, or describe the records in case.toml.",
        )
    path = case.path(case.records.file)
    rows: dict[int, dict[str, str]] = {}
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path.name}, line {number}",
                got=f"no JSON ({error})",
                expected="one JSON object a line",
                remedy="Mend or remove that line.",
            ) from error
        rows[number] = {
            name: _text(_follow(record, name, where, path, number)) for name, where in case.records.paths.items()
        }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*(c.name for c in case.columns), TARGET], dtype=str)
    frame.index.name = "line"
    return _nonempty(frame, path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from enumerate(file, start=1)


def _follow(record: Any, name: str, where: str, path: Path, number: int) -> Any:
    value = record
    for key in where.split("."):
        if not isinstance(value, dict) or key not in value:
            raise DataError(
                f"{path.name}, line {number}",
                got=f"no {where!r}",
                expected=f"the value of {name!r} there, or null",
                remedy="Mend the record, or the path in [records.paths] of case.toml.",
            )
        value = value[key]
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def nest_records(raw: pd.DataFrame, case: Case) -> Iterator[str]:
    """Write rows as nested JSON lines, as an application system would post them: the inverse of `read_records`."""
    assert case.records is not None
    numbers = {column.name for column in case.columns if column.kind == "number"}
    marks = {column.name: {"", *column.missing} for column in case.columns}
    for row in raw.to_dict("records"):
        nested: dict[str, Any] = {}
        for name, where in case.records.paths.items():
            *parents, leaf = where.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            text = row[name]
            missing = text in marks.get(name, {""})
            place[leaf] = None if missing else json.loads(text) if name in numbers else text
        yield json.dumps(nested, ensure_ascii=False)


def find_problems(raw: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Every value that breaks its column's rule: not a number, not finite, out of range, not among the categories.

    Returns:
        One line a value: ``line``, ``column``, ``got``, ``expected``, ``becomes`` (``"error"`` or ``"missing"``).
    """
    problems: list[tuple[Any, str, str, str, str]] = []
    for column in case.columns:
        _, invalid = _parse(raw[column.name], column)
        for line, got in raw.loc[invalid, column.name].items():
            problems.append((line, column.name, got, describe(column), column.on_invalid))
    known = _target_values(case)
    bounds = Column(name="label", kind="number", meaning="", min=case.target.min, max=case.target.max)
    wrong = ~raw[TARGET].isin([*known, ""]) if known else _parse(raw[TARGET], bounds)[1]
    expected = f"one of {list(known)}" if known else describe(bounds)
    problems += [(line, TARGET, got, expected, "error") for line, got in raw.loc[wrong, TARGET].items()]
    return pd.DataFrame(problems, columns=["line", "column", "got", "expected", "becomes"])


def _target_values(case: Case) -> dict[str, int]:
    return {value: index for index, entry in enumerate(case.target.classes) for value in entry.values}


def _parse(text: pd.Series, column: Column) -> tuple[pd.Series, pd.Series]:
    """Values of the column's kind (missing where invalid), and which cells were invalid."""
    text = text.str.strip()
    missing = text.isin(["", *column.missing])
    values: pd.Series
    if column.kind == "number":
        values = pd.to_numeric(text.mask(missing), errors="coerce").astype("float64")
        low = -np.inf if column.min is None else column.min
        high = np.inf if column.max is None else column.max
        values = values.where(np.isfinite(values) & values.between(low, high))
    elif column.kind == "category":
        values = pd.Series(pd.Categorical(text.mask(missing), categories=list(column.categories)), index=text.index)
    elif column.kind == "text":
        values = text.mask(missing)
    else:
        values = pd.to_datetime(text.mask(missing), errors="coerce", format="ISO8601")
    return values, values.isna() & ~missing


def clean(raw: pd.DataFrame, case: Case) -> tuple[pd.DataFrame, Cleaning]:
    """Turn text into values and leave out what must not be learnt from, counting everything.

    In this order: exact duplicates, values that break a rule, rows without a label, rows with a missing value where
    none is allowed, the case's rules, repeated keys.

    Returns:
        The clean frame (float64, categories, datetimes; ``target`` int64 class index or float64) and the counts.

    Raises:
        DataError: A value breaks the rule of a column that allows no such value, or duplicates where none may be.
    """
    report = Cleaning(rows_read=len(raw))
    repeated = raw.duplicated()
    if repeated.any() and case.data.duplicates == "error":
        raise DataError(
            f"{case.data.file}, line {raw.index[repeated][0]}",
            got=f"{repeated.sum()} rows that repeat an earlier one",
            expected="no duplicate rows",
            remedy='Remove them, or set data.duplicates = "drop" in case.toml.',
        )
    _count(report.dropped, "exact duplicate", repeated)
    raw = raw[~repeated]
    problems = find_problems(raw, case)
    if (fatal := problems[problems["becomes"] == "error"]).size:
        first = fatal.iloc[0]
        raise DataError(
            f"{case.data.file}, line {first['line']}, column {first['column']!r}",
            got=repr(first["got"]),
            expected=first["expected"],
            remedy=f"Mend the value, or correct the column in case.toml ({len(fatal)} such values in all).",
        )
    report.mended = {str(name): int(count) for name, count in problems["column"].value_counts(sort=False).items()}

    frame = pd.DataFrame({column.name: _parse(raw[column.name], column)[0] for column in case.columns})
    known = _target_values(case)
    frame[TARGET] = raw[TARGET].map(known) if known else pd.to_numeric(raw[TARGET], errors="coerce")
    for name in [TARGET, *(column.name for column in case.columns if not column.nullable)]:
        frame = _drop(frame, frame[name].isna(), f"no {name}", report)
    frame = frame.astype({TARGET: "int64" if known else "float64"})
    names: Any = dict(frame.items())
    for rule in case.rules:
        if known:
            names[TARGET] = frame[TARGET].map(dict(enumerate(case.classes)))
        hit = rule.formula({str(name): values.loc[frame.index] for name, values in names.items()})
        frame = _drop(frame, hit, rule.why, report)
    if case.data.unique:
        frame = _drop(frame, frame.duplicated(list(case.data.unique)), f"repeats {', '.join(case.data.unique)}", report)
    report.missing = {str(name): int(n) for name, n in frame.isna().sum().items() if n}
    return frame, report


def _drop(frame: pd.DataFrame, hit: pd.Series, reason: str, report: Cleaning) -> pd.DataFrame:
    _count(report.dropped, reason, hit)
    return frame[~hit]


def _count(counts: dict[str, int], reason: str, hit: pd.Series) -> None:
    if hit.any():
        counts[reason] = int(hit.sum())


def split(frame: pd.DataFrame, case: Case, *, seed: int) -> dict[str, pd.DataFrame]:
    """Divide a clean frame into ``train``, ``validation`` and ``test`` as the case's ``[split]`` says.

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
            raise DataError(
                f"{case.data.file}, class {name!r}" if case.classes else case.data.file,
                got=f"{count} rows",
                expected=f"at least {MIN_ROWS_PER_CLASS}",
                remedy="Collect more, or merge classes in case.toml.",
            )
    plan = case.split
    if plan.method == "time":
        ordered = frame.sort_values(plan.column, kind="stable")
        first = round(len(frame) * (1 - plan.validation - plan.test))
        second = round(len(frame) * (1 - plan.test))
        parts = {"train": ordered[:first], "validation": ordered[first:second], "test": ordered[second:]}
    elif plan.method == "given":
        train, test = frame[frame[plan.column] == "train"], frame[frame[plan.column] == "test"]
        groups = train.groupby(TARGET) if case.classes else [(0, train)]
        # The last rows of each class, in the file's order: neighbours in time stay on one side.
        held = pd.concat([rows.iloc[round(len(rows) * (1 - plan.validation)) :] for _, rows in groups]).index
        parts = {"train": train.drop(held), "validation": train.loc[held], "test": test}
    else:
        from sklearn.model_selection import train_test_split

        labels = frame[TARGET] if case.classes else None
        rest, test = train_test_split(frame, test_size=plan.test, stratify=labels, random_state=seed)
        labels = rest[TARGET] if case.classes else None
        share = plan.validation / (1 - plan.test)
        train, validation = train_test_split(rest, test_size=share, stratify=labels, random_state=seed)
        parts = {"train": train, "validation": validation, "test": test}
    for name, rows in parts.items():
        if rows.empty or (case.classes and rows[TARGET].nunique() < len(case.classes)):
            raise DataError(
                f"{case.data.file}, {name} part",
                got=f"{len(rows)} rows",
                expected="rows of every class",
                remedy="Change [split] in case.toml, or collect more.",
            )
    return parts


def encode(frame: pd.DataFrame, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Lay a clean frame out as the model's raw input, as ``case.fields`` says.

    Returns:
        Inputs float32 ``(n, len(case.fields))``, NaN where missing; labels int64 ``(n,)``, or float32 for regression.
    """
    columns: list[np.ndarray] = []
    for column in case.inputs:
        values = frame[column.name]
        if column.kind == "number":
            columns.append(values.to_numpy(dtype="float64"))
        elif column.kind == "category":
            codes = pd.Categorical(values, categories=list(column.categories)).codes
            columns.append(np.where(codes < 0, np.nan, codes))
        else:
            for part in column.parts:
                numbers = getattr(values.dt, part).to_numpy(dtype="float64")
                columns.append(numbers - 1 if part == "month" else numbers)
    inputs = np.column_stack(columns).astype(np.float32)
    return inputs, frame[TARGET].to_numpy(dtype=np.int64 if case.classes else np.float32)
