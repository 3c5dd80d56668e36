"""Drafts a case.toml for a table without one, and says what it took each column for: correct it."""

from __future__ import annotations

import difflib
import keyword
import math
import re
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.cases import TARGET, load_case
from lepton_lib.cases.sections import Data
from lepton_lib.data.reading import read_raw
from lepton_lib.data.tables import dry_run
from lepton_lib.drafting import findings, profiling
from lepton_lib.drafting.sources import copy_table, sniff
from lepton_lib.errors import CaseError, DataError
from lepton_lib.utils import render, sha256_of, to_toml

_BIRTH = re.compile("birth|dob|geb|naiss|nac|生|출생")  # moments that don't order the rows


@dataclass(frozen=True)
class Draft:
    """A drafted case.

    Attributes:
        path: The case.toml.
        columns: One line a column: ``column``, ``taken for``, ``samples``, ``remark``; a column
            that no model sees says why.
        notes: What to look at before the case is used, a sentence each.
    """

    path: Path
    columns: pd.DataFrame
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """The table and the notes, for a terminal."""
        table = pd.concat([self.columns.columns.to_frame().T, self.columns], ignore_index=True)
        widths = [min(int(table[name].str.len().max()), 48) for name in table]
        rows = (zip(row, widths, strict=True) for row in table.itertuples(index=False))
        lines = ["  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])


def draft_case(
    file: Path,
    *,
    target: str,
    folder: Path | None = None,
    encoding: str | None = None,
    task: str | None = None,
) -> Draft:
    """Make a case from any table: a copy of it and a case.toml that runs, to be corrected by hand.

    Encoding, delimiter, task, kinds, formats, ranges, categories and marks for missing values are
    read off the table. Columns that a model can learn nothing from (identifiers, long texts,
    constants) are ignored, and so is a copy of the target.

    Args:
        file: The table, as `copy_table` takes it.
        target: The header of the column to predict.
        folder: The folder to make, whole or not at all; its name becomes the case's name. Without
            one it is named after the file, in ``datasets/``.
        encoding: Of a text file, where the guess is wrong.
        task: ``"binary"``, ``"multiclass"`` or ``"regression"``, where the guess is wrong.

    Raises:
        CaseError: The folder exists already, or its name can't name a case.
        DataError: The file is no such table, has no such column, or its rows are too few or of one
            class only.
    """
    folder = folder or Path("datasets", _case_name(file.name.split(".")[0]))
    if folder.exists():
        remedy = "Choose another name, or move the old one away."
        raise CaseError(str(folder), "a folder that exists", "a new one", remedy)
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", folder.name):
        expected, remedy = "small letters a-z, digits and underscores", _case_name(folder.name)
        raise CaseError(str(folder), f"the name {folder.name!r}", expected, f"Try {remedy!r}.")
    parent = next(place for place in folder.absolute().parents if place.is_dir())
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{folder.name}.") as beside:
        work = Path(beside) / folder.name
        work.mkdir()
        table = copy_table(file, work)
        layout, notes = sniff(table, encoding)
        data = Data(file=table.name, sha256=sha256_of(table), row="to be described", **layout)
        sections, columns = _describe(read_raw(table, data), data, target, task, notes)
        _settle(work, sections, notes)
        folder.parent.mkdir(parents=True, exist_ok=True)
        work.rename(folder)
    return Draft(folder / "case.toml", columns, tuple(notes))


def _case_name(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_") or "my_case"
    return f"_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def _column_name(header: str, taken: set[str]) -> str:
    """The header as formulas can hold it: its own letters, small; no other column's name."""
    small = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", header).lower())
    fits = "".join(letter if f"a{letter}".isidentifier() else " " for letter in small)
    name = "_".join(fits.split()).strip("_") or f"column_{len(taken)}"
    if not name.isidentifier() or keyword.iskeyword(name):
        name = f"_{name}"
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free)
    return free


def _describe(
    frame: pd.DataFrame, data: Data, target: str, task: str | None, notes: list[str]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The sections of the draft by name, and the table of columns; adds to ``notes``."""
    _check_target(f"{data.file}, line {data.header_line}", [*frame], target)
    comma = profiling.prefers_comma(frame, data.delimiter)
    where = f"{data.file}, column {target!r}"
    truth = findings.describe_target(frame[target].str.strip(), where, task, comma=comma)
    notes += truth.notes
    taken, columns, lines = {TARGET}, [], []
    for header in map(str, frame):
        cells = frame[header].str.strip()
        samples = " · ".join(cell[:24] for cell in cells[cells != ""].drop_duplicates()[:3])
        if header == target:
            lines.append((target, f"target, {truth.task}", samples, ""))
            continue
        base = {"name": _column_name(header, taken), "meaning": "to be described"}
        base |= {"source": header} if header != base["name"] else {}
        column, kind, remark = profiling.profile_column(cells, base, comma=comma)
        remarks = [remark]
        if leak := findings.find_leak(cells, column, truth):
            remarks.append(leak)
            if leak == findings.COPY:
                column = column.model_copy(update={"role": "ignored", "sensitive": False})
            else:
                notes.append(f"column {header!r} {leak}: is it known before the outcome?")
        if column.sensitive:
            remarks.append("sensitive by its name: groups are compared")
        columns.append(column)
        kind = f"left out: {kind}" if column.role == "ignored" else kind
        lines.append((header, kind, samples, "; ".join(filter(None, remarks))))
    if all(column.role == "ignored" for column in columns):
        got = "only identifiers, long texts, constants and copies beside the target"
        remedy = "Add columns that say something about the row."
        raise DataError(data.file, got, "at least one column to learn from", remedy)
    if repeated := int(frame.duplicated().sum()):
        alike = [(frame[header].value_counts(normalize=True) ** 2).sum() for header in frame]
        keep = repeated <= math.prod(alike) * len(frame) ** 2  # twice what chance would make
        data = data.model_copy(update={"duplicates": "keep" if keep else "drop"})
        fate = "as chance has it; they are kept" if keep else "and are dropped"
        notes.append(f"{repeated} rows repeat an earlier one, {fate}")
    if len(columns) > len(frame) / 5:
        notes.append(f"{len(columns)} columns and {len(frame)} rows: chance alone finds patterns")
    criteria, costs, rule = findings.draft_charter(truth, notes)
    sections = {
        "task": truth.task,
        "data": findings.keys(data),
        "target": truth.section,
        "split": _split(frame, columns),
        "columns": [{"name": c.name, "kind": c.kind} | findings.keys(c) for c in columns],
        "criteria": criteria,
        "costs": costs,
        "rule": rule,
    }
    return sections, pd.DataFrame(lines, columns=["column", "taken for", "samples", "remark"])


def _check_target(where: str, headers: list[Any], target: str) -> None:
    if target not in headers:
        near = difflib.get_close_matches(target, headers, n=1, cutoff=0.5)
        expected = f"one of {headers[:20]}{' …' * (len(headers) > 20)}"
        remedy = f"Did you mean {near[0]!r}?" if near else "Name the column to predict."
        raise DataError(where, f"no column {target!r}", expected, remedy)
    if len(headers) == 1:
        expected = "columns to learn from beside the target"
        remedy = "Check the delimiter: a comma, a semicolon, a tabulator or a bar is recognised."
        raise DataError(where, "one column", expected, remedy)


def _split(frame: pd.DataFrame, columns: list[Any]) -> dict[str, Any]:
    """By the moment that the file's rows follow best, up or down; drawn where there is none."""
    order: dict[str, float] = {}
    for column in columns:
        birth = _BIRTH.search(column.header.lower())
        if column.kind == "timestamp" and not column.nullable and not birth:
            moments = column.parse(frame[column.header].str.strip())
            order[column.name] = abs(np.sign(moments.diff().dt.total_seconds()).mean())
    if not order:
        return {"method": "stratified"}
    return {"method": "time", "column": max(order, key=order.__getitem__)}


def _settle(work: Path, sections: dict[str, Any], notes: list[str]) -> None:
    """Write a case.toml whose table can be read, cleaned, divided and encoded."""
    split = sections["split"]
    ordered = f"the rows are split by time, {split.get('column')!r}: the test part comes last"
    remarks = [*notes, *([ordered] if split["method"] == "time" else [])]
    values = sections | {"notes": remarks, "name": work.name, "key": _key, "toml": to_toml}
    text = render("drafting/templates/case.toml", **values)
    (work / "case.toml").write_text(text, encoding="utf-8")
    try:
        case = load_case(work)
        dry_run(case)
    except DataError as error:
        if split["method"] == "time":
            notes.append("a split by time would leave a part without some class: rows are drawn")
            return _settle(work, sections | {"split": {"method": "stratified"}}, notes)
        remedy = "Collect more rows, or correct the table."
        raise DataError(case.data.file, error.got, error.expected, remedy) from error
    notes[:] = remarks
    return None


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else to_toml(name)
