"""Files as their case describes them, read as text: nothing is converted and nothing left out.

A *raw* frame holds text only, as it stands in the file, its index the line number.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from lepton_lib.cases import TARGET, Case, NumberColumn
from lepton_lib.errors import DataError

_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def read_table(case: Case) -> pd.DataFrame:
    """Read the case's table as text.

    Returns:
        A raw frame ``(n, columns + target)``: columns by their names in case.toml, index = line
        number in the file.

    Raises:
        DataError: Not a table in the stated encoding and delimiter; columns missing or too many; no
            rows.
    """
    path, wanted = case.path(case.data.file), _headers(case)
    cells = read_cells(
        path,
        delimiter=case.data.delimiter,
        encoding=case.data.encoding,
        skip_rows=case.data.skip_rows,
    )
    _, headers = next(cells)
    _check_headers(case, path, headers)
    numbered = list(cells)
    lines = pd.Index([line for line, _ in numbered], name="line", dtype="int64")
    frame = pd.DataFrame([row for _, row in numbered], columns=headers, index=lines, dtype="str")
    return _named(frame[list(wanted)].rename(columns=wanted), path)


def read_cells(
    path: Path, *, delimiter: str, encoding: str, skip_rows: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """The lines of a table as their numbers and cells, the header first; empty lines are no rows.

    Args:
        path: The file; packed if its name ends in ``.gz``.
        delimiter: What stands between two cells.
        encoding: The text's encoding; a byte-order mark before UTF-8 is not part of the first
            header.
        skip_rows: Lines between the header and the first row.

    Raises:
        DataError: The file is empty or not text in that encoding, or a line has more or fewer cells
            than the header.
    """
    with _reading(path, encoding) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        headers = [header.strip() for header in next(reader, [])]
        if not any(headers):
            raise DataError(
                path.name,
                "an empty first line" if headers or reader.line_num else "an empty file",
                "a header and rows",
                "Check that the export was complete.",
            )
        yield 1, headers
        for _ in range(skip_rows):
            next(reader, None)
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(headers):
                raise DataError(
                    f"{path.name}, line {line}",
                    f"{len(cells)} cell{'s' * (len(cells) != 1)}",
                    f"{len(headers)}, one for each column",
                    f"Mend that line; a cell that holds {delimiter!r} has to stand in quotes.",
                )
            if cells:
                yield line, cells
            line = reader.line_num + 1


@contextlib.contextmanager
def _reading(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a text file, packed or not; a failure to read it becomes a `DataError` that names it."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        # however it is spelt
        codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        with opener(path, "rt", encoding=codec, newline="") as file:
            yield file
    except UnicodeError as error:
        raise DataError(
            path.name,
            f"bytes that are not {encoding} ({getattr(error, 'reason', error)})",
            f"text in {encoding}",
            "Save it as UTF-8, or set data.encoding in case.toml.",
        ) from error
    except (csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(
            path.name,
            f"a file that breaks off or apart ({error})",
            "a whole table",
            "Fetch it again, or fix its quotes.",
        ) from error


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
            got,
            f"{len(wanted)} columns divided by {case.data.delimiter!r}",
            "Set data.delimiter in case.toml to the character between the names.",
        )
    for header in wanted:
        if header not in headers:
            raise DataError(
                f"{path.name}, line 1",
                f"no column {header!r}",
                f"the columns {wanted}",
                "Add the column, or take it out of case.toml.",
            )
    for position, header in enumerate(headers):
        if header not in wanted or header in headers[:position]:
            raise DataError(
                f"{path.name}, line 1",
                f"a {'second ' * (header in wanted)}column {header!r}",
                f"only the columns {wanted}",
                'Describe it in case.toml; role = "ignored" if nobody should use it.',
            )


def _named(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if frame.empty:
        raise DataError(
            path.name,
            "a header and no rows",
            "one row for each example",
            "Check that the export was complete.",
        )
    frame.attrs["file"] = path.name  # so that an error in cleaning names the file that was read
    return frame


def read_records(case: Case) -> pd.DataFrame:
    """Read the case's nested JSON lines into the same raw frame as `read_table`.

    Raises:
        DataError: The case has no such file, a line isn't JSON, or a path leads nowhere: file,
            line, got, expected.
    """
    if case.records is None:
        raise DataError(
            f"case {case.name!r}",
            "no [records] section",
            "a file of JSON lines and its paths",
            "Read the table instead, or describe the records in case.toml.",
        )
    path = case.path(case.records.file)
    rows: dict[int, dict[str, str]] = {}
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path.name}, line {number}",
                f"no JSON ({error})",
                "one JSON object a line",
                "Mend or remove that line.",
            ) from error
        rows[number] = {
            name: _text(_follow(record, name, where, path, number))
            for name, where in case.records.paths.items()
        }
    frame = pd.DataFrame.from_dict(
        rows, orient="index", columns=[*(c.name for c in case.columns), TARGET], dtype=str
    )
    frame.index.name = "line"
    return _named(frame, path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _reading(path, "utf-8") as file:
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def _follow(record: Any, name: str, where: str, path: Path, number: int) -> Any:
    value = record
    for key in where.split("."):
        if not isinstance(value, dict) or key not in value:
            raise DataError(
                f"{path.name}, line {number}",
                f"no {where!r}",
                f"the value of {name!r} there, or null",
                "Mend the record, or the path in [records.paths] of case.toml.",
            )
        value = value[key]
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def nest_records(raw: pd.DataFrame, case: Case) -> Iterator[str]:
    """Write rows as nested JSON lines, as an application would post them: undoes `read_records`.

    Args:
        raw: A raw frame.
        case: The case; its ``[records.paths]`` say where each column goes.

    Yields:
        One JSON object a row. Missing values become null, numbers numbers; what is neither stays
        the text it was.
    """
    assert case.records is not None
    numbers = {column.name for column in case.columns if isinstance(column, NumberColumn)}
    marks = {column.name: {"", *column.missing} for column in case.columns}
    for row in raw.to_dict("records"):
        nested: dict[str, Any] = {}
        for name, where in case.records.paths.items():
            *parents, leaf = where.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            text = row[name].strip()
            is_number = name in numbers and _JSON_NUMBER.fullmatch(text)
            missing = text in marks.get(name, {""})
            place[leaf] = None if missing else json.loads(text) if is_number else text
        yield json.dumps(nested, ensure_ascii=False)
