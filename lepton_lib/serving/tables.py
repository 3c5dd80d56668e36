"""A table scored part by part, through the checks of the service. Imports pandas and pyarrow."""

from __future__ import annotations

import math
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from pyarrow.csv import CSVWriter

from lepton_lib.cases import Case, encode_records
from lepton_lib.cases.columns import InputColumn
from lepton_lib.data.reading import read_cells
from lepton_lib.data.tables import parse_cells
from lepton_lib.errors import DataError, RecordError, wrap_os_errors
from lepton_lib.serving import releases
from lepton_lib.serving.codec import RECORD_LIMIT
from lepton_lib.serving.log import PredictionLog
from lepton_lib.serving.scoring import Scorer

SHOWN = 10  # refusals that are shown at the end; the file has all of them
Part = list[dict[str, Any]]  # records, as a client posts them


class Scored(NamedTuple):
    """What became of a table's rows."""

    rows: int
    refused: int
    first: Sequence[str]  # the first `SHOWN` refusals

    def __str__(self) -> str:
        return "\n".join([f"{self.rows:,} rows scored, {self.refused:,} refused.", *self.first])


def predict_table(
    run_dir: str | Path,
    table: Path,
    out: Path,
    *,
    trust: Sequence[str] | None = None,
    log: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Scored:
    """Score a CSV or Parquet file with the release that answers, `RECORD_LIMIT` rows at a time.

    Args:
        run_dir: The run folder.
        table: Its columns are named as in case.toml, or as in the case's own file; others aren't
            used. A CSV is written as the case's own.
        out: A ``.csv`` or ``.parquet`` with a line for each row: ``row`` (from 1), ``id`` (with
            ``log``), the answer, and in ``refused`` why there is none. Written whole or not at all.
        trust: Public keys whose signature counts; without it, the user's own alone.
        log: Store each answer in the run's prediction log.
        progress: Called with the number of rows after each part.

    Raises:
        DataError: The table can't be read, or a column is missing.
        RunError: The release can't be verified, or a file can't be written.
    """
    scorer = Scorer(releases.folder_of(run_dir), trust=trust)
    rows, refused, first = 0, 0, list[str]()
    fields = _schema(scorer.case, log=log)
    with ExitStack() as stack, wrap_os_errors(out, remedy="Choose a folder that you may write to."):
        store = None
        if log:
            store = PredictionLog(Path(run_dir) / "service" / "predictions.sqlite", timeout=5)
            stack.enter_context(closing(store))
        descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        os.close(descriptor)
        stack.callback(Path(name).unlink, missing_ok=True)
        kind: Any = parquet.ParquetWriter if out.suffix == ".parquet" else CSVWriter
        with kind(name, fields) as writer:
            for part in _read(table, scorer.case):
                lines = _score(scorer, part, store)
                for line in lines:
                    line["row"] = rows = rows + 1
                    if "refused" in line:
                        refused += 1
                        first += [f"row {rows:,}: {line['refused']}"] * (refused <= SHOWN)
                writer.write_table(pa.Table.from_pylist(lines, schema=fields))
                progress(len(lines))
        os.replace(name, out)
    return Scored(rows, refused, first)


def _schema(case: Case, *, log: bool) -> pa.Schema:
    numbers = [f"p_{name}" for name in case.classes] or ["prediction"]
    texts = ["class", "action", "band"] if case.classes else ["unit"]
    names = [*(["id"] if log else []), *texts, "refused"]
    fields = [("row", pa.int64()), *((name, pa.float64()) for name in numbers)]
    return pa.schema([*fields, *((name, pa.string()) for name in names)])


def _score(scorer: Scorer, records: Part, log: PredictionLog | None) -> Part:
    """A line for each record: its answer, or why it is refused."""
    lines: Part = [{} for _ in records]
    try:
        inputs = encode_records(scorer.case, records)
    except RecordError:
        for line, record in zip(lines, records, strict=True):
            try:
                encode_records(scorer.case, [record])
            except RecordError as error:
                line["refused"] = f"{error.field}: got {error.got}, expected {error.expected}"
        records = [each for each, line in zip(records, lines, strict=True) if not line]
        inputs = encode_records(scorer.case, records)
    if not records:
        return lines
    answers = scorer.codec.answers.plain(scorer.answer(inputs))
    answered = [line for line in lines if not line]
    for line, answer in zip(answered, answers, strict=True):
        shares = answer.get("probabilities", {})
        line.update(answer, **{f"p_{name}": share for name, share in shares.items()})
    if log is not None:
        ids = log.append(secrets.token_hex(8), scorer.version, records, answers)
        for line, id_ in zip(answered, ids, strict=True):
            line["id"] = id_
    return lines


def _read(table: Path, case: Case) -> Iterator[Part]:
    remedy = "Name an existing .csv or .parquet file."
    with wrap_os_errors(table, expected="a table that can be read", remedy=remedy):
        yield from (_read_parquet if table.suffix == ".parquet" else _read_csv)(table, case)


def _read_csv(table: Path, case: Case) -> Iterator[Part]:
    cells = read_cells(table, delimiter=case.data.delimiter, encoding=case.data.encoding)
    _, headers = next(cells)
    places = _places(table, case, headers)
    while part := list(islice(cells, RECORD_LIMIT)):
        columns = {
            column.name: _values(column, pd.Series([row[place] for _, row in part], dtype="str"))
            for column, place in places
        }
        yield [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: InputColumn, text: pd.Series) -> list[Any]:
    """Cells as JSON has them; what the column's format can't read stays text, and is refused."""
    values, invalid = parse_cells(text, column)
    cells = zip(column.to_json(values), text, invalid, strict=True)
    return [written if wrong else value for value, written, wrong in cells]


def _read_parquet(table: Path, case: Case) -> Iterator[Part]:
    try:
        with parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
            places = _places(table, case, names)
            chosen = {names[place]: column.name for column, place in places}
            for batch in file.iter_batches(RECORD_LIMIT, columns=[*chosen]):
                rows = batch.to_pylist()
                yield [{chosen[name]: _plain(row[name]) for name in chosen} for row in rows]
    except pa.ArrowInvalid as error:
        got, expected = f"no Parquet file ({error})", "a whole table"
        raise DataError(table.name, got, expected, "Write it again.") from error


def _plain(value: Any) -> Any:
    """A value as JSON has it; no number is missing, and a moment is a text."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return None if isinstance(value, float) and math.isnan(value) else value


def _places(table: Path, case: Case, headers: Sequence[str]) -> list[tuple[InputColumn, int]]:
    """Where each of the case's inputs stands; one that may be missing may have no column."""
    places = []
    for column in case.inputs:
        names = [name for name in (column.name, column.header) if name in headers]
        if names:
            places.append((column, headers.index(names[0])))
        elif not column.nullable:
            expected = ", ".join(each.name for each in case.inputs)
            remedy = f"Add it; a CSV is divided by {case.data.delimiter!r}."
            raise DataError(table.name, f"no column {column.name!r}", expected, remedy)
    return places
