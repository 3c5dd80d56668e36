"""Requests' bodies read and answers written, column by column: JSON, and as strictly float32 rows and Arrow streams.

Knows cases, arrays and bytes; nothing of models or HTTP. pyarrow is imported only for Arrow.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np

from lepton_lib.cases import Case, Column
from lepton_lib.cases.records import describe, limits
from lepton_lib.errors import DataError, RecordError

# in seconds since 1970: Python has the moments between them
YEAR_1, YEAR_10000 = -62_135_596_800, 253_402_300_800
RECORD_LIMIT = 4096  # in one request, so that no request keeps the others waiting for long


class Rules:
    """What a case demands of each column of its raw input matrix, as arrays ``(n_fields,)``."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.columns = [column for column in case.inputs for _ in column.fields]
        bounds = [
            limits(column) if field.kind == "number" else (0, field.n_categories - 1)
            for column, field in zip(self.columns, case.fields, strict=True)
        ]
        self._low, self._high = np.array(bounds, dtype=np.float32).T
        self._codes = np.array([field.kind == "category" for field in case.fields])
        self._nullable = np.array([column.nullable for column in self.columns])
        costs, bands = case.costs, case.bands
        self.legend: dict[str, Any] = {  # what a kept batch needs to be read again
            "fields": [
                [column.name, list(getattr(column, "categories", ())) or None]
                for column in case.inputs
            ],
            "classes": list(case.classes),
            "actions": [costs.decisions.get(name) if costs else None for name in case.classes],
            "bands": [list(bands.names), list(bands.limits)] if bands else None,
            "unit": case.target.unit,
        }
        self.answers = Answers(self.legend)
        kind: Any = case.reader.records
        counted = Annotated[kind, msgspec.Meta(min_length=1, max_length=RECORD_LIMIT)]
        body: Any = msgspec.defstruct("Body", [("records", counted)], forbid_unknown_fields=True)
        self._decode = msgspec.json.Decoder(body).decode

    def check(self, inputs: np.ndarray) -> None:
        """Refuse raw inputs ``(n, n_fields)`` of which one is out of its range, no code, or missing and needed.

        Raises:
            RecordError: Which, got, expected.
        """
        bad = ~((inputs >= self._low) & (inputs <= self._high))
        bad &= ~(np.isnan(inputs) & self._nullable)
        bad |= self._codes & (inputs != np.floor(inputs)) & ~np.isnan(inputs)
        if bad.any():
            row, place = (int(index) for index in np.argwhere(bad)[0])
            raise _refusal(self.columns[place], row, f"{inputs[row, place]:g}")

    def read_json(self, body: bytes) -> Sequence[msgspec.Struct]:
        """The records of ``{"records": [{...}, ...]}``, as the case's reader takes them.

        Raises:
            MsgspecError, ValueError, RecursionError: Something is wrong; who wants to know what
                looks again, slowly.
        """
        records: Sequence[msgspec.Struct] = self._decode(body).records
        return records

    def read_float32(self, body: bytes, contract: str, wanted: str) -> np.ndarray:
        """Rows of little-endian float32, one after the other, each laid out as ``case.fields``; NaN means missing.

        Raises:
            DataError: Another contract than the model's, half a row, or too many rows.
            RecordError: As for `check`.
        """
        width = 4 * len(self.columns)
        if any(column.kind == "timestamp" for column in self.columns):
            raise DataError("body", "float32", "JSON or Arrow", "A moment has no float32 form.")
        if contract != wanted:
            raise DataError(
                "x-lepton-contract",
                repr(contract[:80]) if contract else "nothing",
                wanted,
                "Lay the columns out as /v1/models says, and send the contract that stands there.",
            )
        if not body or len(body) % width:
            raise DataError(
                "body",
                f"{len(body)} bytes",
                f"whole rows of {width} bytes",
                f"Send {len(self.columns)} little-endian float32 values a row.",
            )
        _check_count(len(body) // width)
        inputs = np.frombuffer(body, dtype="<f4").reshape(-1, len(self.columns))
        self.check(inputs)
        return inputs

    def read_arrow(self, body: bytes) -> np.ndarray:
        """A table with the case's columns as an Arrow IPC stream, uncompressed; null means missing, NaN is refused.

        Raises:
            DataError: No such stream, or too many rows.
            RecordError: An unknown or wrongly typed column, or as for `check`.
        """
        import pyarrow as pa

        try:
            for message in pa.ipc.MessageReader.open_stream(body):
                if _compressed(message):
                    # a small body could become a large table
                    raise ValueError("compressed buffers")
            table = pa.ipc.open_stream(body).read_all()
            _check_count(table.num_rows)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise DataError(
                "body",
                f"no such stream ({str(error)[:80]})",
                "an uncompressed Arrow IPC stream",
                "Write it with pyarrow.ipc.new_stream.",
            ) from error
        known = [column.name for column in self.case.inputs]
        if unknown := [name for name in table.column_names if name not in known]:
            raise RecordError(
                0,
                unknown[0][:80],
                "a field that the case doesn't know",
                f"only {known}",
                "Take it out, or check its spelling.",
            )
        if len(set(table.column_names)) < table.num_columns:
            raise DataError("body", "a column twice", "each once", "Take one out.")
        parts = [_column_codes(column, table) for column in self.case.inputs]
        with np.errstate(over="ignore"):  # what becomes infinite is out of range
            inputs = np.column_stack([values for columns in parts for values in columns]).astype(
                np.float32
            )
        self.check(inputs)
        return inputs


def _check_count(rows: int) -> None:
    if not 1 <= rows <= RECORD_LIMIT:
        raise DataError("body", f"{rows} rows", f"1 to {RECORD_LIMIT}", "Send several requests.")


def _compressed(message: Any) -> bool:
    """Whether a message of an Arrow stream holds compressed buffers, as the flatbuffer before it says."""
    import flatbuffers.number_types as types
    from flatbuffers import encode
    from flatbuffers.table import Table

    raw = message.metadata.to_pybytes()
    root = Table(raw, encode.Get(types.UOffsetTFlags.packer_type, raw, 0))
    kind, header = root.Offset(6), root.Offset(8)  # Message: version, header_type, header
    if not kind or not header or message.type == "schema":
        return False
    part = Table(raw, root.Indirect(root.Pos + header))
    if message.type == "dictionary":  # DictionaryBatch: id, data
        part = Table(raw, part.Indirect(part.Pos + part.Offset(6)))
    return bool(part.Offset(10))  # RecordBatch: length, nodes, buffers, compression


def _column_codes(column: Column, table: Any) -> list[np.ndarray]:
    import pyarrow as pa
    from pyarrow import compute

    if column.name not in table.column_names:
        return [np.full(table.num_rows, np.nan)] * len(column.fields)
    values = table[column.name].combine_chunks()
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    fits = {
        "number": pa.types.is_integer(kind) or pa.types.is_floating(kind),
        "category": pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "timestamp": pa.types.is_timestamp(kind) and kind.tz is None,
    }[column.kind]
    if not fits and not pa.types.is_null(kind):
        raise _refusal(column, 0, f"a column of {values.type}")
    values = values.cast(kind if fits else pa.float64())
    if column.kind == "timestamp" and fits:
        # nanoseconds end long before; a kept moment that Python hasn't makes the log unreadable
        if kind.unit != "ns":
            counts, scale = values.cast(pa.int64()), {"s": 1, "ms": 10**3, "us": 10**6}[kind.unit]
            early, late = (
                compute.less(counts, YEAR_1 * scale),
                compute.greater_equal(counts, YEAR_10000 * scale),
            )
            if (row := compute.index(compute.or_(early, late), True).as_py()) >= 0:
                raise _refusal(column, row, "a moment outside the years 1 to 9999")
        reads = {"hour": compute.hour, "weekday": compute.day_of_week, "month": compute.month}
        return [_floats(reads[part](values)) - (part == "month") for part in column.parts]
    if column.kind == "category" and fits:
        codes = compute.index_in(values, value_set=pa.array(column.categories, kind))
        wrong = compute.and_(compute.is_valid(values), compute.is_null(codes))
    else:
        codes = values.cast(pa.float64(), safe=False)  # rounded, as a large whole number in JSON is
        wrong = compute.and_(compute.is_valid(values), compute.is_nan(codes))
    if (row := compute.index(wrong, True).as_py()) >= 0:
        raise _refusal(column, row, repr(values[row].as_py())[:80])
    return [_floats(codes)] * len(column.fields)


def _floats(values: Any) -> np.ndarray:
    import pyarrow as pa

    result: np.ndarray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return result


def _refusal(column: Column, row: int, got: str) -> RecordError:
    expected = describe(column)
    if column.kind == "category":
        expected += f" (in float32 by its place, from 0 to {len(column.categories) - 1})"
    return RecordError(row, column.name, got, expected, "Send such a value.")


class Answer(msgspec.Struct, omit_defaults=True, rename={"class_": "class"}):
    """What is told of one record; what its case doesn't have is left out."""

    id: str | None = None
    class_: str | None = None
    probabilities: Any = None
    action: str | None = None
    band: str | None = None
    prediction: float | None = None
    unit: str | None = None
    reasons: Any = None


class Answers:
    """Answers as JSON has them, made of rows of numbers.

    Args:
        legend: Classes, actions, bands and unit, as `Rules` has them and as a kept batch brings
            them.
    """

    def __init__(self, legend: Mapping[str, Any]) -> None:
        self._unit, self._classes = legend["unit"], legend["classes"]
        self._actions, self._bands = legend["actions"], legend["bands"]
        # a class may have any name
        names = {f"f{place}": name for place, name in enumerate(self._classes)}
        shares: list[Any] = [(field, float) for field in names]
        try:
            self._shares: Any = msgspec.defstruct("Shares", shares, rename=names, gc=False)
        except (
            ValueError
        ):  # msgspec writes a struct's names unescaped, and refuses a quote or a backslash in them
            self._shares = lambda *given: dict(zip(self._classes, given, strict=True))
        self.width = len(self._classes) + 1 if self._classes else 1

    def of(self, told: np.ndarray, ids: Sequence[str] | None = None) -> list[Answer]:
        """An answer a row, with its id where ids are given.

        Args:
            told: ``(n, width)``: probabilities by class and the decision's index, or the
                prediction.
            ids: The predictions'.
        """
        columns = told.astype(np.float64).T.tolist()
        names = ids if ids is not None else [None] * len(told)
        if not self._classes:
            given = zip(names, columns[0], strict=True)
            return [Answer(id_, prediction=value, unit=self._unit) for id_, value in given]
        decisions = told[:, -1].astype(int).tolist()
        bands: list[str | None] = [None] * len(told)
        if self._bands:
            labels, bounds = self._bands
            bands = [
                labels[place]
                for place in np.searchsorted(bounds, columns[1], side="right").tolist()
            ]
        classes, actions = self._classes, self._actions
        parts = zip(names, decisions, map(self._shares, *columns[:-1]), bands, strict=True)
        return [
            Answer(id_, classes[index], share, actions[index], band)
            for id_, index, share, band in parts
        ]

    def plain(self, told: np.ndarray) -> list[dict[str, Any]]:
        """The same as dictionaries, without ids."""
        return [msgspec.to_builtins(answer) for answer in self.of(told)]


@lru_cache(16)
def _reading(form: str) -> tuple[dict[str, Any], Answers]:
    legend = json.loads(form)
    return legend, Answers(legend)


def write_arrow(answers: Answers, told: np.ndarray, ids: list[str]) -> bytes:
    """Answers as an Arrow IPC stream: ``id``, then what JSON has, probabilities as ``p_<class>``."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = [msgspec.to_builtins(answer) for answer in answers.of(told, ids)]
    for row in rows:
        row |= {f"p_{name}": share for name, share in row.pop("probabilities", {}).items()}
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def expand(
    form: str, inputs: bytes | str, answers: bytes | str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A kept batch's records and answers, one by one: ``form`` is ``json``, or a JSON object with the legend."""
    if form == "json":
        return json.loads(inputs), json.loads(answers)
    legend, told = _reading(form)
    given = told.plain(np.frombuffer(answers, dtype="<f4").reshape(-1, told.width))  # type: ignore[arg-type]  # bytes by form
    if legend["kind"] == "json":
        return json.loads(inputs)["records"], given
    if legend["kind"] == "arrow":
        import pyarrow as pa

        records = pa.ipc.open_stream(inputs).read_all().to_pylist()
        moments = [
            {
                name: value.isoformat()
                for name, value in record.items()
                if hasattr(value, "isoformat")
            }
            for record in records
        ]
        return [record | moment for record, moment in zip(records, moments, strict=True)], given
    names = [(name, categories) for name, categories in legend["fields"]]
    rows = np.frombuffer(inputs, dtype="<f4").reshape(-1, len(names)).tolist()  # type: ignore[arg-type]  # bytes by form
    return [
        {
            name: None if value != value else categories[int(value)] if categories else value  # noqa: PLR0124  # NaN
            for value, (name, categories) in zip(row, names, strict=True)
        }
        for row in rows
    ], given
