"""Records read a column at a time are accepted and refused as if read one by one."""

import json
import random

import numpy as np
import pytest

from lepton_lib.cases import encode_records, load_case, records
from lepton_lib.errors import DataError
from lepton_lib.serving import log_maintenance
from tests.conftest import write_case
from tests.service import COLUMNS, GOOD, call, kept

EXACT = {
    "name": "exact",
    "kind": "number",
    "min": 0,
    "max": 2**53,
    "nullable": True,
    "meaning": "a great number",
}
LONG = {
    "name": "long",
    "kind": "timestamp",
    "parts": ["weekday", "month"],
    "meaning": "a moment that is needed",
}
SOUND = [
    {"age": 18},
    {"age": 99.0},
    {"age": 0.1 + 40},
    {"income": None},
    {"income": -1e30},
    {"income": 3.4e38},
    {"income": 10**30},
    {"income": -0.0},
    {"income": 1e-320},
    {"colour": COLUMNS[2]["categories"][1]},
    {"when": None},
    {"when": "2018-12-31 23:59"},
    {"long": "2020-02-29"},
    {"exact": 2**53},
    {"exact": 2**53 - 1},
    {"exact": None},
]
FAULTS = [
    {"age": True},
    {"age": None},
    {"age": "42"},
    {"age": 17.999},
    {"age": 100},
    {"age": float("nan")},
    {"income": float("inf")},
    {"income": 1e39},
    {"income": 10**400},
    {"income": -(10**60)},
    {"income": []},
    {"colour": None},
    {"colour": "Red"},
    {"colour": ""},
    {"colour": 0},
    {"colour": {}},
    {"when": "noon"},
    {"when": "2018-03-01T08:00:00Z"},
    {"when": 8},
    {"long": None},
    {"long": "2018-02-30"},
    {"exact": 2**53 + 1},
    {"exact": -1},
    {"exact": False},
    {"shoe": 41},
    {"": None},
]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Numbers, a category and moments, some of which may be missing."""
    return load_case(
        write_case(tmp_path_factory.mktemp("cases") / "odd", columns=[*COLUMNS, EXACT, LONG])
    )


def drawn(generator, faults):
    """Records of sound values, of which ``faults`` are spoilt and some lack a key."""
    rows = []
    for _ in range(generator.randint(1, 6)):
        row = GOOD | {"exact": 1, "long": "2019-07-01T00:00:00"}
        for change in generator.sample(SOUND, 4):
            row |= change
        if generator.random() < 0.3:
            row.pop(generator.choice(["income", "when", "exact"]))
        rows.append(row)
    for _ in range(faults):
        row = generator.choice(rows)
        if generator.random() < 0.2:
            row.pop(generator.choice(["age", "colour", "long"]), None)
        else:
            row |= generator.choice(FAULTS)
    return rows


def matrix_or_error(read, case, rows):
    """Read the rows; return the matrix, or the error's text."""
    try:
        return read(case, rows)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("faults", [0, 1, 2])
def test_by_column_and_by_record_agree(case, faults):
    """On hundreds of drawn requests both ways give the same bits or the same error."""
    generator, refused = random.Random(faults), 0
    for _ in range(300):
        rows = drawn(generator, faults)
        expected = matrix_or_error(records._encode_singly, case, rows)
        got = matrix_or_error(encode_records, case, rows)
        assert type(expected) is type(got)
        if isinstance(expected, str):
            assert got == expected
            refused += 1
        else:
            assert got.dtype == expected.dtype
            assert np.array_equal(got.view(np.uint32), expected.view(np.uint32)), rows
    assert refused > 250 if faults else not refused


def test_every_fault_is_noticed_alone(case):
    """A spoilt value in the last of several records gets the error that it gets on its own."""
    good = GOOD | {"exact": 1, "long": "2019-07-01T00:00:00"}
    for fault in FAULTS:
        rows = [good, good, good | fault]
        with pytest.raises(DataError) as error:
            encode_records(case, rows)
        assert str(error.value) == matrix_or_error(records._encode_singly, case, rows)


def test_sound_records_are_not_read_twice(case, monkeypatch):
    """What nothing is wrong with never takes the slow way."""
    monkeypatch.delattr(records, "_encode_singly")
    assert len(encode_records(case, [GOOD | {"exact": 7, "long": "2019-07-01"}] * 300)) == 300


def test_json_records_are_answered_and_logged_unchanged(app):
    """A batch is answered as the scorer does, and the log gives records and answers back."""
    generator = random.Random(7)
    rows = [row for _ in range(20) for row in drawn(generator, 0)]
    rows = [
        {name: value for name, value in row.items() if name not in ("exact", "long")}
        for row in rows
    ]
    for sent in (rows, rows[:1]):
        content = json.dumps({"records": sent})
        reply = call(
            app,
            "POST",
            "/v1/predict",
            content=content,
            headers={"content-type": "application/json"},
        )
        answers = reply.json()["predictions"]
        ids = [answer.pop("id") for answer in answers]
        assert answers == app.scorer.score(sent)
        frame = kept(app).loc[ids]
        assert list(frame["answer.p_yes"]) == [answer["probabilities"]["yes"] for answer in answers]
        for id_, record in zip(ids, sent, strict=True):
            inputs = log_maintenance.find(app.log.path, id_)[0].inputs
            assert {name: inputs.get(name) for name in GOOD} == {
                name: record.get(name) for name in GOOD
            }
