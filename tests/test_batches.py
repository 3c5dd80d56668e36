"""Batches as float32 rows and Arrow streams: the same answers, the same strictness, kept as well."""

import io
import json
import shutil
from datetime import datetime

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from lepton_lib import serving
from lepton_lib.cases import encode_records, load_case
from lepton_lib.serving import upkeep
from lepton_lib.serving.batches import Rules
from lepton_lib.serving.http import ARROW, FLOAT32
from tests.conftest import write_case
from tests.service import COLUMNS, ask, call, kept, write_desk, write_release

COLOURS = COLUMNS[2]["categories"]


@pytest.fixture(scope="module")
def plain_release(tmp_path_factory):
    """The case without its moment, which float32 can't hold."""
    return write_desk(tmp_path_factory.mktemp("plain"), columns=COLUMNS[:3])


@pytest.fixture
def plain(plain_release, tmp_path, monkeypatch):
    """The service of that case."""
    shutil.copytree(plain_release, tmp_path / "plain")
    monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path / "plain"))
    service = serving.create_app(tmp_path / "plain" / "run")
    yield service
    service.log.close()


def people(count):
    return [
        {"age": 18.0 + i, "income": None if i % 3 == 0 else i * 1e3, "colour": COLOURS[i % 2]}
        for i in range(count)
    ]


def send_rows(app, rows, contract=None, **headers):
    contract = app.scorer.manifest["contract"] if contract is None else contract
    content = rows if isinstance(rows, bytes) else np.asarray(rows, dtype="<f4").tobytes()
    headers = {"content-type": FLOAT32, "x-lepton-contract": contract} | headers
    return call(app, "POST", "/v1/predict", content=content, headers=headers)


def stream(table, **options):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def send_table(app, table, **options):
    content = table if isinstance(table, bytes) else stream(table, **options)
    return call(app, "POST", "/v1/predict", content=content, headers={"content-type": ARROW})


@pytest.mark.no_cover
def test_float32_rows_get_the_answers_that_json_gets(plain):
    """Probabilities and decisions of float32 rows are those of the same records as JSON and are kept alike."""
    records = people(40)
    wanted = ask(plain, *records).json()["predictions"]
    reply = send_rows(plain, encode_records(plain.scorer.case, records))
    assert (reply.status_code, reply.headers["content-type"]) == (200, FLOAT32)
    assert reply.headers["x-lepton-model"] == plain.scorer.version
    told = np.frombuffer(reply.content, "<f4").reshape(40, 3)
    assert told[:, 1] == pytest.approx(
        [answer["probabilities"]["yes"] for answer in wanted], abs=1e-6
    )
    assert [("no", "yes")[int(index)] for index in told[:, 2]] == [
        answer["class"] for answer in wanted
    ]
    frame = kept(plain)
    assert len(frame) == 80
    by_json, by_rows = frame.iloc[:40], frame.iloc[40:]
    assert list(by_rows.index) == [f"{reply.headers['x-lepton-batch']}-{i}" for i in range(40)]
    names = ["age", "income", "colour", "answer.class", "answer.action", "answer.band"]
    assert by_rows[names].reset_index(drop=True).equals(by_json[names].reset_index(drop=True))
    assert upkeep.find(plain.log.path, by_rows.index[5])[0].inputs == records[5]


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        (0, 17.9, "age"),
        (0, np.nan, "age"),
        (0, np.inf, "age"),
        (1, -np.inf, "income"),
        (2, 0.5, "colour"),
        (2, 2, "colour"),
        (2, -1, "colour"),
        (2, np.nan, "colour"),
    ],
)
def test_a_wrong_float_is_refused_with_its_record_and_field(plain, column, value, field):
    """A value out of range, no code, or missing where it is needed gets 422 with record and field."""
    rows = encode_records(plain.scorer.case, people(5))
    rows[3, column] = value
    reply = send_rows(plain, rows)
    assert (reply.status_code, reply.json()["record"], reply.json()["field"]) == (422, 3, field)
    assert kept(plain).empty


def test_rows_of_another_layout_are_refused(plain):
    """Without the contract's hash, with another's, or with half a row, nothing is answered."""
    rows = encode_records(plain.scorer.case, people(2))
    for reply in (
        send_rows(plain, rows, contract=""),
        send_rows(plain, rows, contract="0" * 64),
        send_rows(plain, rows.tobytes()[:-1]),
        send_rows(plain, b""),
        send_rows(plain, np.zeros((5000, 3))),
    ):
        assert reply.status_code == 422
        assert reply.json()["field"] in ("body", "x-lepton-contract")
    query = f"/v1/predict?contract={plain.scorer.manifest['contract']}"
    assert (
        call(
            plain, "POST", query, content=rows.tobytes(), headers={"content-type": FLOAT32}
        ).status_code
        == 200
    )


def test_moments_have_no_float32(app):
    """A case with a timestamp takes JSON and Arrow, and says so."""
    reply = send_rows(app, np.zeros((1, 4)))
    assert (reply.status_code, reply.json()["expected"]) == (422, "JSON or Arrow")


def some_table(count=30):
    records = [
        record | {"when": datetime(2018, 3, 1 + i % 28, i % 24)}
        for i, record in enumerate(people(count))
    ]
    return records, pa.Table.from_pylist(records)


def test_an_arrow_table_gets_the_answers_that_json_gets(app):
    """Answers to a table are a table with ids and what JSON has, and the log holds the records as they were sent."""
    records, table = some_table()
    wanted = ask(
        app, *(record | {"when": record["when"].isoformat()} for record in records)
    ).json()["predictions"]
    dictionary = table.set_column(2, "colour", table["colour"].dictionary_encode())
    for sent in (table, dictionary, table.select(["when", "colour", "age", "income"])):
        reply = send_table(app, sent)
        assert reply.status_code == 200
        told = pa.ipc.open_stream(reply.content).read_all()
        assert told["p_yes"].to_pylist() == pytest.approx(
            [a["probabilities"]["yes"] for a in wanted], abs=1e-6
        )
        assert told["band"].to_pylist() == [answer["band"] for answer in wanted]
        frame = kept(app)
        assert list(frame.index[-30:]) == told["id"].to_pylist()
        names = ["age", "income", "colour", "when", "answer.class"]
        assert (
            frame[names]
            .iloc[-30:]
            .reset_index(drop=True)
            .equals(frame[names].iloc[:30].reset_index(drop=True))
        )


def changed(name, values, kind=None):
    _, table = some_table(4)
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind))


@pytest.mark.parametrize(
    ("table", "field"),
    [
        (changed("age", [True] * 4), "age"),
        (changed("age", ["0.1"] * 4), "age"),
        (changed("age", [20.0, None, 20.0, 20.0]), "age"),
        (changed("income", [0.0, float("nan"), 0.0, 0.0]), "income"),
        (changed("income", [0.0, float("inf"), 0.0, 0.0]), "income"),
        (changed("income", [0.0, 1e39, 0.0, 0.0]), "income"),
        (changed("colour", ["red", "green", "red", "red"]), "colour"),
        (changed("colour", [0, 0, 0, 0]), "colour"),
        (changed("when", ["2018-03-01"] * 4), "when"),
        (changed("when", [datetime(2018, 3, 1)] * 4, pa.timestamp("us", "UTC")), "when"),
        (some_table(4)[1].append_column("shoe", [[1] * 4]), "shoe"),
        (some_table(4)[1].drop_columns(["colour"]), "colour"),
    ],
)
def test_a_wrong_column_is_refused_with_its_name(app, table, field):
    """A column of another type, a value that the case refuses, an unknown or missing column: 422 with the field."""
    reply = send_table(app, table)
    assert (reply.status_code, reply.json()["field"]) == (422, field)
    assert kept(app).empty


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_moment_that_python_has_not_is_refused(app, unit):
    """Moments outside the years 1 to 9999, which nobody could read from the log, are refused; not those at the ends."""
    scale = {"s": 1, "ms": 10**3, "us": 10**6}[unit]
    first, end = -62_135_596_800 * scale, 253_402_300_800 * scale
    for count in (first - 1, end, 2**62):
        reply = send_table(app, changed("when", [0, None, count, 0], pa.timestamp(unit)))
        assert (reply.status_code, reply.json()["field"]) == (422, "when")
        assert "record 2" in reply.json()["detail"]
    assert (
        send_table(app, changed("when", [first, None, end - 1, 0], pa.timestamp(unit))).status_code
        == 200
    )
    assert len(kept(app)) == 4


def test_large_whole_numbers_are_rounded_as_in_json(app):
    """A whole number beyond 2**53 is answered like the same number in JSON."""
    reply = send_table(app, changed("income", [2**60 + 1] * 4, pa.int64()))
    assert reply.status_code == 200, reply.text
    records = [
        record | {"income": 2**60 + 1, "when": record["when"].isoformat()}
        for record in some_table(4)[0]
    ]
    wanted = [answer["probabilities"]["yes"] for answer in ask(app, *records).json()["predictions"]]
    assert pa.ipc.open_stream(reply.content).read_all()["p_yes"].to_pylist() == pytest.approx(
        wanted, abs=1e-6
    )


def test_streams_that_are_none_or_too_large_are_refused(app):
    """Garbage, cut or compressed streams, a column twice and too many rows are refused without much memory."""
    _, table = some_table(4)
    good = stream(table)
    huge = pa.table({"age": pa.array(np.zeros(4_000_000))})
    bomb = stream(huge, compression="zstd")
    assert len(bomb) < 1 << 20
    empty = pa.RecordBatch.from_arrays([pa.nulls(1 << 26)], ["income"])
    twice = pa.Table.from_arrays([table["age"], table["age"]], ["age", "age"])
    for content in (
        b"",
        b"garbage" * 50,
        good[: len(good) // 2],
        good[:200] + b"\xff" * 60 + good[260:],
        bomb,
        stream(pa.Table.from_batches([empty])),
        stream(twice),
        stream(table.slice(0, 0)),
    ):
        before = pa.total_allocated_bytes()
        reply = send_table(app, content)
        assert reply.status_code == 422, content[:40]
        assert reply.json()["expected"]
        assert pa.total_allocated_bytes() - before < 1 << 21
    encoded = table.set_column(2, "colour", table["colour"].dictionary_encode())
    assert send_table(app, encoded, compression="zstd").status_code == 422


def test_a_flipped_byte_in_a_stream_is_an_answer_or_a_refusal(app):
    """Whatever byte of a stream is changed, the answer is 200 or 422, never a failure."""
    _, table = some_table(3)
    good, random = stream(table), np.random.default_rng(0)
    for place in random.choice(len(good), 150, replace=False):
        content = bytearray(good)
        content[place] ^= int(random.integers(1, 256))
        assert send_table(app, bytes(content)).status_code in (200, 422)


def test_a_class_may_have_a_quote_in_its_name(tmp_path):
    """Quotes and backslashes in a class's name come back as they are."""
    names = ['5" pipe', "a\\b"]
    classes = [{"name": name, "values": [name]} for name in names]
    rules = Rules(load_case(write_case(tmp_path / "desk", target={"classes": classes})))
    (answer,) = rules.answers.of(np.array([[0.25, 0.75, 1]], dtype=np.float32))
    told = json.loads(msgspec.json.encode(answer))
    assert (told["class"], told["probabilities"]) == (
        names[1],
        dict(zip(names, [0.25, 0.75], strict=True)),
    )


@pytest.mark.parametrize("kind", ["regression", "multiclass"])
def test_other_tasks_answer_batches_too(tmp_path, monkeypatch, kind):
    """A regression answers one number a row, three classes three shares and the decision's place; both read back."""
    classes = [] if kind == "regression" else [{"name": n, "values": [n]} for n in ("a", "b", "c")]
    metric = "mean_absolute_error" if kind == "regression" else "accuracy"
    charter = {
        "criteria": {
            metric: {"at_most" if kind == "regression" else "at_least": 0.5, "why": "none"}
        }
    }
    write_case(
        tmp_path / "cases" / "other",
        task=kind,
        target={"classes": classes, "unit": "cars"},
        charter=charter,
    )
    monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path / "cases"))
    write_release(tmp_path / "run", load_case("other"))
    app = serving.create_app(tmp_path / "run")
    records = [{"x": 5.0 * i, "colour": "blue"} for i in range(5)]
    rows = encode_records(app.scorer.case, records)
    reply = send_rows(app, rows)
    told = np.frombuffer(reply.content, "<f4").reshape(5, -1)
    assert told.shape[1] == (1 if kind == "regression" else 4)
    assert told[:, : len(classes) or 1] == pytest.approx(app.scorer.probabilities(rows))
    frame, answers = kept(app), app.scorer.score(records)
    key = "prediction" if kind == "regression" else "class"
    assert list(frame[f"answer.{key}"]) == [answer[key] for answer in answers]
    reasons = call(app, "POST", "/v1/predict?explain=true", json={"records": records}).json()[
        "predictions"
    ][0]["reasons"]
    assert reasons["of"] in ("cars", "a", "b", "c")
    app.log.close()
