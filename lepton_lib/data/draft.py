"""Drafts a case.toml for a table without one. It guesses: correct it."""

from __future__ import annotations

import csv as csv_format
import difflib
import gzip
import io
import keyword
import re
import shutil
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.cases import TARGET, load_case
from lepton_lib.cases.columns import LARGEST
from lepton_lib.cases.moments import parse_moment
from lepton_lib.data.reading import read_cells, read_table
from lepton_lib.data.tables import MIN_ROWS_PER_CLASS, clean, encode, split
from lepton_lib.errors import CaseError, DataError
from lepton_lib.utils import sha256_of, to_toml

MAX_CATEGORIES = 30  # more distinct words than that are text, not categories
MAX_CLASSES = 20  # more distinct whole numbers than that are a quantity, not classes
MOST_NUMBERS = 0.9  # a column with such a share of numbers is a number column with mistakes in it
_MARKS = ("NA", "N/A", "NaN", "nan", "NULL", "null", "?")  # mean "missing" in any column
# mean "missing" among numbers, but may be a category's name
_NUMBER_MARKS = ("None", "none", "-", "--", ".")
_ID_HEADER = re.compile(
    r"(^|[\s_.-])(?i:id|uid|uuid|guid|index|key|no|row|rownames)$|[a-z]I[Dd]$|^(?i:unnamed.*)?$"
)
_AGREE = "a placeholder: to be agreed before any work"


def draft_case(csv: Path, *, target: str, folder: Path | None = None) -> Path:
    """Make a case from any table: a copy of it and a case.toml that runs, to be corrected by hand.

    Encoding, delimiter, task, kinds, ranges, categories and marks for missing values are read off
    the table. Columns that a model can learn nothing from (identifiers, long texts, constants) are
    ignored.

    Args:
        csv: The table, a text file with one header line; packed if its name ends in ``.gz``.
        target: The header of the column to predict.
        folder: The folder to make, whole or not at all; its name becomes the case's name. Without
            one it is named after the file, in ``datasets/``.

    Returns:
        The case.toml.

    Raises:
        CaseError: The folder exists already, or its name can't name a case.
        DataError: The file is no such table, has no such column, or its rows are too few or of one
            class only.
    """
    folder = folder or Path("datasets", _identifier(csv.name.split(".")[0], "my_case", set()))
    _check_folder(folder)
    if not csv.is_file():
        raise DataError(str(csv), "no such file", "a table", "Check the path.")
    encoding, text = _sniff_encoding(csv)
    delimiter = _sniff_delimiter(text)
    cells = read_cells(csv, delimiter=delimiter, encoding=encoding)
    _, headers = next(cells)
    _check_headers(csv, headers, target)
    frame = pd.DataFrame([row for _, row in cells], columns=headers, dtype="str").apply(
        lambda values: values.str.strip()
    )
    if frame.empty:
        raise DataError(
            csv.name, "a header and no rows", "rows", "Check that the export was complete."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        work = Path(beside) / folder.name
        work.mkdir()
        shutil.copyfile(csv, work / csv.name)
        sections = _describe(
            frame, target, folder.name, work / csv.name, delimiter=delimiter, encoding=encoding
        )
        (work / "case.toml").write_text(_to_toml(sections), encoding="utf-8")
        case = load_case(work)
        for part in split(clean(read_table(case), case)[0], case, seed=0).values():
            encode(part, case)
        work.rename(folder)
    return folder / "case.toml"


def _check_folder(folder: Path) -> None:
    if folder.exists():
        raise CaseError(
            str(folder),
            "a folder that exists",
            "a new one",
            "Choose another name, or move the old one away.",
        )
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", folder.name):
        raise CaseError(
            str(folder),
            f"the name {folder.name!r}",
            "small letters a-z, digits and underscores",
            f"Try {_identifier(folder.name, 'my_case', set())!r}.",
        )


def _check_headers(csv: Path, headers: list[str], target: str) -> None:
    where = f"{csv.name}, line 1"
    for position, header in enumerate(headers):
        if header in headers[:position]:
            raise DataError(
                where, f"two columns {header!r}", "every name once", "Rename one of them."
            )
    if target not in headers:
        near = difflib.get_close_matches(target, headers, n=1, cutoff=0.5)
        raise DataError(
            where,
            f"no column {target!r}",
            f"one of {headers[:20]}{' …' * (len(headers) > 20)}",
            f"Did you mean {near[0]!r}?" if near else "Name the column to predict.",
        )
    if len(headers) == 1:
        raise DataError(
            where,
            "one column",
            "columns to learn from beside the target",
            "Check the delimiter: a comma, a semicolon, a tabulator or a bar is recognised.",
        )


def _sniff_encoding(csv: Path) -> tuple[str, str]:
    """The file's encoding and its text."""
    try:
        data = gzip.decompress(csv.read_bytes()) if csv.suffix == ".gz" else csv.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            csv.name, f"a broken file ({error})", "a table", "Fetch it again."
        ) from error
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    # Of GBK only the part with both bytes above 0xA0 is recognised: French or German in Latin-1
    # hardly ever looks so.
    for encoding, strict in (
        [("utf-16", "utf-16")] if utf16 else [("utf-8", "utf-8-sig"), ("gb18030", "gb2312")]
    ):
        try:
            text = data.decode(strict)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return encoding, text
    raise DataError(
        csv.name,
        "bytes that are neither UTF-8, UTF-16 with its mark, nor GB 2312",
        "a text file",
        "Save it as CSV in UTF-8 (in a spreadsheet: 'CSV UTF-8').",
    )


def _sniff_delimiter(text: str) -> str:
    """The character that divides the first lines into equally many cells, as many as possible."""
    best, most = ",", 1
    for delimiter in ",;\t|":
        rows = csv_format.reader(io.StringIO(text[:200_000], newline=""), delimiter=delimiter)
        try:
            header = len(next(rows, []))
            alike = all(len(row) == header for row, _ in zip(rows, range(100), strict=False) if row)
        except csv_format.Error:  # a quote that nothing closes: reading names the line
            continue
        if alike and header > most:
            best, most = delimiter, header
    if most == 1:  # ragged with each: the commonest in the header; reading names the line at fault
        best = max(",;\t|", key=text.partition("\n")[0].count)
    return best


def _describe(
    frame: pd.DataFrame, target: str, name: str, file: Path, *, delimiter: str, encoding: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sections of the draft, in their order: heading and entries."""
    task, target_section, labelled = _describe_target(frame[target], target, file.name)
    taken = {TARGET}
    columns = [
        _describe_column(frame[header], taken) for header in frame.columns if header != target
    ]
    if all(column.get("role") == "ignored" for column in columns):
        raise DataError(
            file.name,
            "only identifiers, long texts and constants beside the target",
            "at least one column to learn from",
            "Add columns that say something about the row.",
        )
    times = [c["name"] for c in columns if c["kind"] == "timestamp" and not c.get("nullable")]
    by = frame[[c.get("source", c["name"]) for c in columns if c["name"] in times[:1]]]
    ordered = task == "regression" and not by.empty and by.iloc[:, 0].is_monotonic_increasing
    yield (
        "",
        {
            "name": name,
            "title": f"{name}: to be named",
            "question": f"Given the other columns, what is {target}? (to be reworded)",
            "task": task,
        },
    )
    yield (
        "[source]",
        {
            "origin": f"{file.name}: to be stated",
            "licence": "to be stated",
            "citation": "to be stated",
        },
    )
    data: dict[str, Any] = {"file": file.name, "sha256": sha256_of(file), "row": "to be described"}
    if delimiter != ",":
        data["delimiter"] = delimiter
    if encoding != "utf-8":
        data["encoding"] = encoding
    if frame.duplicated().any():
        data["duplicates"] = "drop"
    yield "[data]", data
    yield "[target]", target_section
    for entry in labelled:
        yield "[[target.classes]]", {"name": entry, "values": [entry]}
    yield (
        "[split]",
        {
            "method": "time" if ordered else "stratified",
            **({"column": times[0]} if ordered else {}),
            "validation": 0.2,
            "test": 0.2,
        },
    )
    for column in columns:
        yield "[[columns]]", column
    if labelled and len(labelled) <= MAX_CLASSES:
        yield "[costs]", {"unit": "wrong decisions; a placeholder: not all of them cost the same"}
        for truth in labelled:
            yield (
                f"[costs.matrix.{_quote(truth)}]",
                {entry: float(entry != truth) for entry in labelled},
            )
    yield (
        "[charter]",
        {"stop": ["to be agreed before any work"], "risks": ["to be listed before any work"]},
    )
    if labelled:
        yield "[charter.criteria.auc]", {"at_least": 0.6, "why": _AGREE}
        yield "[charter.criteria.calibration_error]", {"at_most": 0.2, "why": _AGREE}
    else:
        values = pd.to_numeric(frame[target], errors="coerce")
        error = float((values - values.median()).abs().mean())
        why = f"{_AGREE}; the median alone has this error"
        yield (
            "[charter.criteria.mean_absolute_error]",
            {"at_most": float(f"{error:.4g}"), "why": why},
        )
    yield "[charter.criteria.latency_ms]", {"at_most": 100.0, "why": _AGREE}
    yield "[charter.criteria.drift_psi]", {"at_most": 0.3, "why": _AGREE}


def _describe_target(
    values: pd.Series, target: str, file: str
) -> tuple[str, dict[str, Any], list[str]]:
    """Task, [target], classes: numbers rising, words by falling frequency."""
    counts = values[~values.isin(["", *_MARKS])].value_counts()
    numbers = pd.to_numeric(pd.Series(counts.index, dtype="str"), errors="coerce")
    numeric = bool(len(counts)) and bool(np.isfinite(numbers).all())
    whole = numeric and bool((numbers % 1 == 0).all())
    section: dict[str, Any] = {"column": target, "meaning": "to be described"}
    where = f"{file}, column {target!r}"
    if len(counts) < 2:
        raise DataError(
            where,
            f"one class only, {counts.index[0]!r}" if len(counts) else "no values",
            "at least two",
            "Predict another column, or collect rows of other classes.",
        )
    few = len(counts) == 2 or (
        whole and len(counts) <= MAX_CLASSES and counts.min() >= MIN_ROWS_PER_CLASS
    )
    if numeric and not few:
        return "regression", section, []  # reading reports a mark among quantities with its line
    if marks := [mark for mark in _MARKS if (values == mark).any()]:
        section["missing"] = marks
    if len(counts) > MAX_CLASSES:
        raise DataError(
            where,
            f"{len(counts)} different words",
            f"numbers, or at most {MAX_CLASSES} classes",
            "Predict another column, or merge its values into classes first.",
        )
    names = [str(name) for name in counts.index]
    classes = (
        sorted(names, key=float)
        if numeric
        else sorted(names, key=lambda name: (-counts[name], name))
    )
    return "binary" if len(classes) == 2 else "multiclass", section, classes


def _describe_column(values: pd.Series, taken: set[str]) -> dict[str, Any]:
    header = str(values.name)
    name = _identifier(header, f"column_{len(taken)}", taken)
    column: dict[str, Any] = {"name": name}
    if header != name:
        column["source"] = header
    column["kind"] = "text"
    body: dict[str, Any] = {}
    there = values[~values.isin(["", *_MARKS])]
    numbers = pd.to_numeric(there[~there.isin(_NUMBER_MARKS)], errors="coerce")
    numbers = numbers[numbers.between(-LARGEST, LARGEST)].astype("float64")
    marks: tuple[str, ...] = _MARKS
    distinct, useless = there.nunique(), there.nunique() < 2
    if len(numbers) and len(numbers) >= MOST_NUMBERS * (~there.isin(_NUMBER_MARKS)).sum():
        marks = (*_MARKS, *_NUMBER_MARKS)
        there = there[~there.isin(_NUMBER_MARKS)]
        column["kind"] = "number"
        body = {"min": _plain(numbers.min()), "max": _plain(numbers.max())}
        if len(numbers) < len(there):
            body["on_invalid"] = "missing"
        counted = bool((numbers.diff().iloc[1:] == 1).all())
        useless = numbers.nunique() < 2 or (
            numbers.is_unique
            and len(numbers) > 2
            and bool((numbers % 1 == 0).all())
            and (counted or bool(_ID_HEADER.search(header)))
        )
    elif distinct and (moments := there.map(parse_moment)).notna().all():
        column["kind"] = "timestamp"
        useless = False
        body = {"parts": [*["hour"] * any(m.hour or m.minute for m in moments), "weekday", "month"]}
    elif 2 <= distinct <= min(MAX_CATEGORIES, len(there) / 2):
        column["kind"], body = "category", {"categories": sorted(there.unique())}
    else:
        useless = True
    present = [mark for mark in marks if (values == mark).any()]
    if present:
        body["missing"] = present
    if len(there) < len(values) or "on_invalid" in body:
        body["nullable"] = True
    if useless:
        body["role"] = "ignored"
    return column | body | {"meaning": "to be described"}


def _identifier(header: str, fallback: str, taken: set[str]) -> str:
    """A name for formulas and records: small letters, digits and underscores; no other column's."""
    ascii_only = unicodedata.normalize("NFKD", header.casefold()).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "_", ascii_only).strip("_") or fallback
    if name[0].isdigit() or keyword.iskeyword(name):
        name = f"_{name}"
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free)
    return free


def _plain(number: float) -> int | float:
    return int(number) if number % 1 == 0 and abs(number) < 2**53 else float(number)


def _to_toml(sections: Iterator[tuple[str, Mapping[str, Any]]]) -> str:
    lines = [
        "# Drafted from the table: ranges and categories are those seen in it.",
        "# Correct it, then agree on the charter.",
    ]
    for heading, entries in sections:
        lines += ["", heading] if heading else [""]
        lines += [f"{_quote(key)} = {to_toml(value)}" for key, value in entries.items()]
    return "\n".join(lines) + "\n"


def _quote(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else to_toml(key)
