"""Files as their case describes them, read as text: nothing is converted and nothing left out.

A *raw* frame holds text only, as it stands in the file, its index the line number.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from lepton_lib.cases import TARGET, Case
from lepton_lib.cases.sections import Data
from lepton_lib.errors import DataError

CHUNK_ROWS = 50_000
_COMPLETE = "Check that the export was complete."
_LAYOUT = {"delimiter", "encoding", "header_line", "skip_rows"}


def read_table(case: Case) -> pd.DataFrame:
    """Read the case's table as text.

    Returns:
        A raw frame ``(n, columns + target)``: columns by their names in case.toml, index = line
        number in the file.

    Raises:
        DataError: Not a table in the stated encoding and delimiter; columns missing or too many; no
            rows.
    """
    path = case.path(case.data.file)
    names = {column.header: column.name for column in case.columns} | {case.target.column: TARGET}
    frame = read_raw(path, case.data)
    _check_headers(f"{path.name}, line {case.data.header_line}", case.data, [*frame], [*names])
    return frame[[*names]].rename(columns=names)


def read_raw(path: Path, data: Data) -> pd.DataFrame:
    """Read a table as text, its columns by their headers, its index the line numbers.

    Columns without a header and without a value are no columns. The rows are put into columns
    `CHUNK_ROWS` at a time, so that memory holds one copy of the text.

    Raises:
        DataError: As `read_cells`; two columns of one name; no rows.
    """
    cells = read_cells(path, **data.model_dump(include=_LAYOUT))
    _, headers = next(cells)
    chunks = []
    while chunk := list(itertools.islice(cells, CHUNK_ROWS)):
        lines = pd.Index([line for line, _ in chunk], name="line", dtype="int64")
        rows = [row for _, row in chunk]
        chunks.append(pd.DataFrame(rows, columns=range(len(headers)), index=lines, dtype="str"))
    if not chunks:
        raise DataError(path.name, "a header and no rows", "rows", _COMPLETE)
    frame = pd.concat(chunks)
    used = [i for i, header in enumerate(headers) if header or (frame[i].str.strip() != "").any()]
    frame = frame[used].set_axis([headers[i] for i in used], axis="columns")
    if len(twice := frame.columns[frame.columns.duplicated()]):
        where, got = f"{path.name}, line {data.header_line}", f"a second column {twice[0]!r}"
        raise DataError(where, got, "every name once", "Rename one of them.")
    frame.attrs["file"] = path.name  # so that an error in cleaning names the file that was read
    return frame


def read_cells(
    path: Path, *, delimiter: str, encoding: str, header_line: int = 1, skip_rows: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """The lines of a table as their numbers and cells, the header first.

    Rows of empty cells are no rows, and empty cells behind the last column are none either: a
    spreadsheet writes both.

    Args:
        path: The file; packed if its name ends in ``.gz``.
        delimiter: What stands between two cells.
        encoding: The text's; a byte-order mark before UTF-8 is not part of the first header.
        header_line: Where the header stands, from 1.
        skip_rows: Lines between the header and the first row.

    Raises:
        DataError: The file is empty or not text in that encoding, or a line has more or fewer cells
            than the header.
    """
    with _reading(path, encoding) as file:
        titles = sum(1 for _ in itertools.islice(file, header_line - 1))
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        headers = [header.strip() for header in next(reader, [])]
        if not any(headers):
            got = "an empty first line" if headers or reader.line_num else "an empty file"
            raise DataError(path.name, got, "a header and rows", _COMPLETE)
        yield header_line, headers
        for _ in range(skip_rows):
            next(reader, None)
        width, line = len(headers), titles + reader.line_num + 1
        for row in reader:
            filled = any(map(str.strip, row))
            cells = row if any(map(str.strip, row[width:])) else row[:width]
            if filled and len(cells) != width:
                where, got = f"{path.name}, line {line}", f"{len(cells)} cell"
                remedy = f"Correct that line; put a cell that holds {delimiter!r} in quotes."
                got += "s" * (len(cells) != 1)
                raise DataError(where, got, f"{width}, one for each column", remedy)
            if filled:
                yield line, cells
            line = titles + reader.line_num + 1


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
        got = f"bytes that are not {encoding} ({getattr(error, 'reason', error)})"
        remedy = "Save it as UTF-8, or set data.encoding in case.toml."
        raise DataError(path.name, got, f"text in {encoding}", remedy) from error
    except (csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        got = f"a file that breaks off or apart ({error})"
        remedy = "Fetch it again, or fix its quotes."
        raise DataError(path.name, got, "a whole table", remedy) from error


def _check_headers(where: str, data: Data, headers: list[Any], expected: list[str]) -> None:
    only = f"the columns {expected}"
    if len(headers) == 1 and len(expected) > 1:
        only = f"{len(expected)} columns divided by {data.delimiter!r}"
        remedy = "Set data.delimiter in case.toml to the character between the names."
        raise DataError(where, f"one column, {headers[0][:60]!r}", only, remedy)
    if missing := [header for header in expected if header not in headers]:
        remedy = "Add the column, or take it out of case.toml."
        raise DataError(where, f"no column {missing[0]!r}", only, remedy)
    if surplus := [header for header in headers if header not in expected]:
        remedy = 'Describe it in case.toml; role = "ignored" hides it from the model.'
        raise DataError(where, f"a column {surplus[0]!r}", f"only {only}", remedy)


def read_records(case: Case) -> pd.DataFrame:
    """Read the case's nested JSON lines into the same raw frame as `read_table`.

    Raises:
        DataError: The case has no such file, a line isn't JSON, or a path leads nowhere: file,
            line, got, expected.
    """
    if case.records is None:
        remedy = "Read the table instead, or describe the records in case.toml."
        expected = "a file of JSON lines and its paths"
        raise DataError(f"case {case.name!r}", "no [records] section", expected, remedy)
    path = case.path(case.records.file)
    rows: dict[int, dict[str, str]] = {}
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            where, expected = f"{path.name}, line {number}", "one JSON object a line"
            remedy = "Correct or remove that line."
            raise DataError(where, f"no JSON ({error})", expected, remedy) from error
        rows[number] = {
            name: ""
            if (value := _follow(record, name, where, path, number)) is None
            else str(value)
            for name, where in case.records.paths.items()
        }
    if not rows:
        raise DataError(path.name, "no rows", "one row for each example", _COMPLETE)
    names = [*(column.name for column in case.columns), TARGET]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=names, dtype=str)
    frame.index.name = "line"
    frame.attrs["file"] = path.name
    return frame


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _reading(path, "utf-8") as file:
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def _follow(record: Any, name: str, where: str, path: Path, number: int) -> Any:
    value = record
    for key in where.split("."):
        if not isinstance(value, dict) or key not in value:
            expected = f"the value of {name!r} there, or null"
            remedy = "Correct the record, or the path in [records.paths] of case.toml."
            raise DataError(f"{path.name}, line {number}", f"no {where!r}", expected, remedy)
        value = value[key]
    return value
