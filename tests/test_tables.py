from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_lib.cases import encode_records, load_case
from lepton_lib.data import (
    clean,
    encode,
    find_problems,
    read_records,
    read_table,
    split,
)
from lepton_lib.errors import DataError
from tests.conftest import small_table

SHIPPED = ["credit", "credit_tiers", "heart", "process_faults", "retail", "traffic"]
DROPPED = {  # counted by hand, see each card
    "credit": {"exact duplicate": 2},
    "credit_tiers": {},
    "heart": {},
    "process_faults": {"test run before its fault sets in": 1280},
    "retail": {"its sixty days reach into the test part": 594},
    "traffic": {"exact duplicate": 17, "repeats date_time": 7612},
}
MADE_MISSING = {"traffic": {"temp": 10, "rain_1h": 1}}


@pytest.fixture(scope="module")
def cleaned():
    """Case name to case, clean frame and report; each read once."""
    memory: dict[str, tuple] = {}

    def get(name):
        if name not in memory:
            case = load_case(name)
            memory[name] = (case, *clean(read_table(case), case))
        return memory[name]

    return get


def records_of(frame, case):
    """Clean rows as a client would post them."""
    records = []
    for row in frame[[column.name for column in case.inputs]].to_dict("records"):
        missing = {name: None for name, value in row.items() if pd.isna(value)}
        moments = {
            name: value.isoformat()
            for name, value in row.items()
            if isinstance(value, pd.Timestamp)
        }
        records.append(row | moments | missing)
    return records


# Shipped cases


@pytest.mark.parametrize("name", SHIPPED)
def test_every_row_is_kept_or_counted(cleaned, name):
    """The report's counts are those of the card, and they add up."""
    _, frame, report = cleaned(name)
    assert report.dropped == DROPPED[name]
    assert report.mended == MADE_MISSING.get(name, {})
    assert report.rows_kept == len(frame) == report.rows_read - sum(DROPPED[name].values())
    assert report.missing == {column: n for column, n in frame.isna().sum().items() if n}
    assert report.to_frame()["count"].iloc[0] == report.rows_read


@pytest.mark.parametrize("name", SHIPPED)
def test_encode_agrees_with_encode_records(cleaned, name):
    """A row of the table and the same row as a record become the same float32 values."""
    case, frame, _ = cleaned(name)
    if name != "credit":
        frame = frame.sample(300, random_state=0)
    inputs, labels = encode(frame, case)
    assert inputs.dtype == np.float32
    assert inputs.shape == (len(frame), len(case.fields))
    assert labels.dtype == (np.int64 if case.classes else np.float32)
    np.testing.assert_array_equal(inputs, encode_records(case, records_of(frame, case)))


@pytest.mark.parametrize("name", SHIPPED)
def test_no_row_is_in_two_parts_and_none_is_lost(cleaned, name):
    """The three parts are apart, and together they are the clean frame."""
    case, frame, _ = cleaned(name)
    parts = split(frame, case, seed=0)
    assert list(parts) == ["train", "validation", "test"]
    together = pd.concat(parts.values())
    assert together.index.is_unique
    assert set(together.index) == set(frame.index)


def test_a_stratified_split_keeps_the_shares_and_follows_the_seed(cleaned):
    """Each part holds the classes in the table's shares; a seed draws its own rows."""
    case, frame, _ = cleaned("credit_tiers")
    share = frame["target"].value_counts(normalize=True)
    parts = split(frame, case, seed=1)
    for part in parts.values():
        assert (part["target"].value_counts(normalize=True) - share).abs().max() < 0.001
    assert parts["test"].index.equals(split(frame, case, seed=1)["test"].index)
    assert not parts["test"].index.equals(split(frame, case, seed=2)["test"].index)


def test_a_time_split_never_shuffles(cleaned):
    """In any order of rows and seed, training ends before validation, and that before the test."""
    case, frame, _ = cleaned("traffic")
    parts = split(frame.sample(frac=1, random_state=3), case, seed=3)
    times = [parts[name]["date_time"] for name in ("train", "validation", "test")]
    assert all(moments.is_monotonic_increasing for moments in times)
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()


def test_a_given_split_is_respected(cleaned):
    """The test part is the source's, and validation is the end of each training run."""
    case, frame, _ = cleaned("process_faults")
    parts = split(frame, case, seed=0)
    assert set(parts["test"]["split"]) == {"test"}
    assert set(parts["train"]["split"]) | set(parts["validation"]["split"]) == {"train"}
    last = parts["train"].groupby("target")["step"].max()
    assert (parts["validation"].groupby("target")["step"].min() > last).all()


def test_the_rule_of_process_faults_drops_what_is_still_normal(cleaned):
    """No test row of a faulty run before its fault is left; the normal run is whole."""
    _, frame, _ = cleaned("process_faults")
    test = frame[frame["split"] == "test"]
    assert test[test["target"] != 0]["step"].min() == 160
    assert len(test[test["target"] == 0]) == 960


def test_traffic_keeps_each_hour_once(cleaned):
    """Hours that stand several times are kept once, and no temperature is at absolute zero."""
    _, frame, _ = cleaned("traffic")
    assert frame["date_time"].is_unique
    assert frame["temp"].min() > 240
    assert frame["rain_1h"].max() < 60


# Records


def test_the_applications_are_the_table_nested():
    """The shipped JSON lines are what the documented step makes of the table, byte for byte."""
    case = load_case("credit")
    make = runpy.run_path(str(case.folder / "make_applications.py"))
    assert make["applications"](case) == gzip.decompress(
        (case.folder / "applications.jsonl.gz").read_bytes()
    )


def test_records_and_table_clean_to_the_same_rows():
    """Both sources of credit give the same clean frame and the same counts."""
    case = load_case("credit")
    from_table, counts = clean(read_table(case), case)
    from_records, other_counts = clean(read_records(case), case)
    pd.testing.assert_frame_equal(
        from_table.reset_index(drop=True), from_records.reset_index(drop=True)
    )
    assert counts == other_counts


PATHS = {"x": "in.x", "colour": "in.colour", "target": "out"}


def with_records(make_case, content: bytes, name: str = "records.jsonl"):
    folder = make_case(
        records={"file": name, "sha256": hashlib.sha256(content).hexdigest(), "paths": PATHS}
    )
    (folder / name).write_bytes(content)
    return load_case(folder)


GOOD = json.dumps({"in": {"x": 1, "colour": "red"}, "out": "yes"}).encode()


@pytest.mark.parametrize(
    ("content", "where", "got"),
    [
        (GOOD + b"\n{'x': 1}\n", "records.jsonl, line 2", "no JSON"),
        (GOOD + b'\n{"in": {"x": 1}, "out": "yes"}\n', "records.jsonl, line 2", "no 'in.colour'"),
        (GOOD + b"\n[1]\n", "records.jsonl, line 2", "no 'in.x'"),
        (b'{"in": 3, "out": "yes"}', "records.jsonl, line 1", "no 'in.x'"),
        (b"", "records.jsonl", "no rows"),
        ("é".encode("latin-1"), "records.jsonl", "not utf-8"),
    ],
)
def test_a_wrong_record_file_is_refused_by_line(make_case, content, where, got):
    """What is not JSON, or lacks a path, is named by file and line."""
    case = with_records(make_case, content)
    with pytest.raises(DataError) as caught:
        read_records(case)
    assert caught.value.where == where
    assert got in str(caught.value.got)


def test_empty_lines_between_records_are_no_records(make_case):
    """An empty line is passed over, and the lines after it keep their numbers."""
    case = with_records(make_case, GOOD + b"\n\n" + GOOD + b"\n\n")
    assert read_records(case).index.tolist() == [1, 3]


def test_a_broken_archive_is_refused(make_case):
    """A packed file that breaks off is an error that names it."""
    case = with_records(make_case, gzip.compress(GOOD * 100)[:-20], "records.jsonl.gz")
    with pytest.raises(DataError, match=r"records\.jsonl\.gz: got a file that breaks off"):
        read_records(case)


def test_a_wrong_value_in_a_record_names_the_record_file(make_case):
    """Cleaning says which of the two files a wrong value stands in."""
    case = with_records(make_case, GOOD + b"\n" + GOOD.replace(b"red", b"pink"))
    with pytest.raises(DataError, match=r"records\.jsonl, line 2, column 'colour': got 'pink'"):
        clean(read_records(case), case)


def test_nesting_and_reading_are_inverse_on_odd_values(make_case):
    """Quotes, alphabets, missing marks and numbers that JSON can't write keep their meaning."""
    table = 'x,colour,label\n007,red,yes\n+1.50,"blue",no\n.5,?,yes\n'
    table += '1e1,green,no\n,"red",no\n 3 ,red,yes\n'
    columns = [
        {"name": "x", "kind": "number", "nullable": True, "meaning": ""},
        {
            "name": "colour",
            "kind": "category",
            "categories": ["red", "blue", "green"],
            "missing": ["?"],
            "nullable": True,
            "meaning": "",
        },
    ]
    folder = make_case(table, columns=columns)
    (folder / "r.jsonl").write_text("")
    records = {"file": "r.jsonl", "sha256": "0" * 64, "paths": PATHS}
    case = load_case(make_case(table, columns=columns, records=records), verify=False)
    raw = read_table(case)
    make = runpy.run_path(str(load_case("credit").path("make_applications.py")))
    (folder / "r.jsonl").write_text("\n".join(make["nest_records"](raw, case)))
    expected, _ = clean(raw, case)
    found, _ = clean(read_records(case), case)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))
    assert expected["x"].tolist()[:4] == [7, 1.5, 0.5, 10]


def test_a_case_without_records_says_so(make_case):
    """Reading records where none are described is an error."""
    with pytest.raises(DataError, match="no \\[records\\] section"):
        read_records(load_case(make_case()))


# Bad tables

TABLE = small_table()
WIDE = "\n".join(line + ",1" for line in TABLE.splitlines())


@pytest.mark.parametrize(
    ("table", "where", "got"),
    [
        (b"", "table.csv", "an empty file"),
        (b"\n", "table.csv", "an empty first line"),
        ("x,colour,label\n", "table.csv", "a header and no rows"),
        (TABLE.replace("colour", "color"), "table.csv, line 1", "no column 'colour'"),
        (WIDE.replace("label,1", "label,z"), "table.csv, line 1", "a column 'z'"),
        (WIDE.replace("label,1", "label,x"), "table.csv, line 1", "a second column 'x'"),
        (TABLE.replace(",", ";"), "table.csv, line 1", "one column, 'x;colour;label'"),
        (TABLE.replace("0.5,green,no", "0.5,green"), "table.csv, line 4", "2 cells"),
        (TABLE.replace("0.5,green,no", "0,5,green,no"), "table.csv, line 4", "4 cells"),
        (TABLE.replace("0.5,green", '0.5,"green'), "table.csv", "breaks off"),
        (TABLE.replace("red", "紅色").encode("gbk"), "table.csv", "bytes that are not utf-8"),
        (TABLE.encode("utf-16"), "table.csv", "bytes that are not utf-8"),
        (TABLE.encode("utf-16-le"), "table.csv, line 42", "1 cell"),
    ],
)
def test_a_wrong_table_is_refused_when_read(make_case, table, where, got):
    """A file that isn't the described table is one error: file and line, got, expected, remedy."""
    case = load_case(make_case(table))
    with pytest.raises(DataError) as caught:
        read_table(case)
    assert caught.value.where == where
    assert got in str(caught.value.got)
    assert caught.value.expected
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize(
    ("change", "where", "got", "expected"),
    [
        (
            ("0.5,green", "half,green"),
            "table.csv, line 4, column 'x'",
            "'half'",
            "a number from 0 to 100",
        ),
        (
            ("0.5,green", "inf,green"),
            "table.csv, line 4, column 'x'",
            "'inf'",
            "a number from 0 to 100",
        ),
        (
            ("0.5,green", "-inf,green"),
            "table.csv, line 4, column 'x'",
            "'-inf'",
            "a number from 0 to 100",
        ),
        (
            ("0.5,green", "NaN,green"),
            "table.csv, line 4, column 'x'",
            "'NaN'",
            "a number from 0 to 100",
        ),
        (
            ("0.5,green", "1e999,green"),
            "table.csv, line 4, column 'x'",
            "'1e999'",
            "a number from 0 to 100",
        ),
        (
            ("0.5,green", "100.5,green"),
            "table.csv, line 4, column 'x'",
            "'100.5'",
            "a number from 0 to 100",
        ),
        (
            ("0.5,green", "0.5,pink"),
            "table.csv, line 4, column 'colour'",
            "'pink'",
            "one of 'red', 'blue', 'green'",
        ),
        (
            ("0.5,green,no", "0.5,green,maybe"),
            "table.csv, line 4, column 'label'",
            "'maybe'",
            "one of ['no', 'yes']",
        ),
        (
            ("0.5,green,no", "0.25,blue,yes"),
            "table.csv, line 4",
            "1 rows that repeat",
            "no duplicate rows",
        ),
    ],
)
def test_a_wrong_value_is_refused_when_cleaned(make_case, change, where, got, expected):
    """A value that breaks its column's rule is one error that names file, line and column."""
    case = load_case(make_case(TABLE.replace(*change, 1)))
    with pytest.raises(DataError) as caught:
        clean(read_table(case), case)
    assert caught.value.where == where
    assert got in str(caught.value.got)
    assert expected in str(caught.value.expected)
    assert "case.toml" in caught.value.remedy


def test_a_line_number_counts_lines_not_rows(make_case):
    """After an empty line and a cell of two lines the error still names the line in the file."""
    table = TABLE.replace("0.5,green", '0.5,"green\n"', 1).replace("1.0,blue", "\n1.0,pink", 1)
    case = load_case(make_case(table))
    assert table.splitlines()[7].startswith("1.0,pink")
    with pytest.raises(DataError, match="line 8, column 'colour'"):
        clean(read_table(case), case)


def test_one_class_only_is_refused(make_case):
    """A table without rows of one class can't be divided."""
    case = load_case(make_case(TABLE.replace("yes", "no")))
    frame, _ = clean(read_table(case), case)
    with pytest.raises(DataError, match="class 'yes': got 0 rows, expected at least 10"):
        split(frame, case, seed=0)


def test_three_rows_are_refused(make_case):
    """Three rows can't be divided."""
    case = load_case(make_case(small_table(3)))
    frame, _ = clean(read_table(case), case)
    with pytest.raises(DataError, match="got 2 rows, expected at least 10"):
        split(frame, case, seed=0)


def test_lines_after_the_header_are_skipped_and_counted(make_case):
    """With skip_rows the rows begin later, and an error still names the line in the file."""
    table = TABLE.replace("label\n", "label\nc,d,d\n,,class\n", 1).replace(
        "0.5,green", "0.5,pink", 1
    )
    case = load_case(make_case(table, data={"skip_rows": 2}))
    assert read_table(case).index[0] == 4
    with pytest.raises(DataError, match="line 6, column 'colour'"):
        clean(read_table(case), case)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "UTF-8", "utf-16", "gb18030"])
def test_other_encodings_read_the_same(make_case, encoding):
    """A byte-order mark is accepted; UTF-16 and GBK are read where case.toml names them."""
    plain = read_table(load_case(make_case(TABLE)))
    data = {} if encoding == "utf-8-sig" else {"encoding": encoding}
    table = f"\ufeff{TABLE}" if encoding == "UTF-8" else TABLE
    pd.testing.assert_frame_equal(
        read_table(load_case(make_case(table.encode(encoding), data=data))), plain
    )


def test_windows_line_endings_and_spaces_read_the_same(make_case):
    """CR LF, spaces around cells and a missing last line end change nothing."""
    case = load_case(make_case(TABLE))
    plain, _ = clean(read_table(case), case)
    other = load_case(make_case(TABLE.strip().replace("\n", "\r\n").replace(",", " , ")))
    pd.testing.assert_frame_equal(clean(read_table(other), other)[0], plain)


# Cleaning


X = {"name": "x", "kind": "number", "meaning": ""}
COLOUR = {
    "name": "colour",
    "kind": "category",
    "categories": ["red", "blue", "green"],
    "meaning": "",
}


def test_missing_values_are_dropped_or_kept_as_the_column_says(make_case):
    """A missing value drops the row unless the column is nullable; a missing label always does."""
    table = "x,colour,label\n,red,yes\n1,?,yes\n2,red,\n3,red,no\n"
    strict = load_case(make_case(table, columns=[X, COLOUR | {"missing": ["?"]}]))
    frame, report = clean(read_table(strict), strict)
    assert frame["x"].tolist() == [3]
    assert report.dropped == {"no target": 1, "no x": 1, "no colour": 1}
    lax = load_case(
        make_case(
            table, columns=[X | {"nullable": True}, COLOUR | {"missing": ["?"], "nullable": True}]
        )
    )
    frame, report = clean(read_table(lax), lax)
    assert report.missing == {"x": 1, "colour": 1}
    assert report.rows_kept == 3


def test_a_value_that_breaks_its_rule_becomes_missing_where_the_column_allows_it(make_case):
    """With on_invalid = "missing" wrong values become missing, listed and counted."""
    table = "x,colour,label\nBad,red,yes\n-1,red,no\n5,pink,no\n6,red,yes\n"
    soft = {"on_invalid": "missing", "nullable": True}
    case = load_case(make_case(table, columns=[X | soft | {"min": 0}, COLOUR | soft]))
    raw = read_table(case)
    problems = find_problems(raw, case)
    assert problems[["line", "column", "got"]].to_numpy().tolist() == [
        [2, "x", "Bad"],
        [3, "x", "-1"],
        [4, "colour", "pink"],
    ]
    frame, report = clean(raw, case)
    assert report.mended == {"x": 2, "colour": 1}
    assert report.missing == {"x": 2, "colour": 1}
    assert len(frame) == 4


def test_a_mark_that_could_be_a_moment_is_still_missing(make_case):
    """A date that stands for "unknown" is read as missing."""
    when = {
        "name": "x",
        "kind": "timestamp",
        "parts": ["hour"],
        "missing": ["1900-01-01"],
        "nullable": True,
        "meaning": "",
    }
    case = load_case(
        make_case(
            "x,colour,label\n1900-01-01,red,yes\n2020-01-01T05:00,red,no\n", columns=[when, COLOUR]
        )
    )
    frame, _ = clean(read_table(case), case)
    assert frame["x"].isna().tolist() == [True, False]
    assert frame["x"].iloc[1].hour == 5


def test_a_time_zone_in_the_table_is_refused(make_case):
    """Moments with a zone are an error in the table, as they are in a record."""
    when = {"name": "x", "kind": "timestamp", "parts": ["hour"], "meaning": ""}
    case = load_case(
        make_case("x,colour,label\n2020-01-01T05:00Z,red,yes\n", columns=[when, COLOUR])
    )
    with pytest.raises(DataError, match="without a time zone"):
        clean(read_table(case), case)


def test_ignored_text_is_kept_as_it_stands(make_case):
    """A text column goes through cleaning and is no field of the model."""
    case = load_case(
        make_case(columns=[X, {"name": "colour", "kind": "text", "role": "ignored", "meaning": ""}])
    )
    frame, _ = clean(read_table(case), case)
    assert frame["colour"].tolist()[:2] == ["red", "blue"]
    assert [field.name for field in case.fields] == ["x"]


def test_rules_drop_rows_by_columns_and_class(make_case):
    """Rules see numbers, words and the class by its name, and their reasons are counted."""
    rules = [
        {"drop": "colour == 'red' and x < 1", "why": "too red"},
        {"drop": "not target == 'no' and (x >= 9 or x * 2 == 2.5)", "why": "too late"},
    ]
    case = load_case(make_case(rules=rules))
    frame, report = clean(read_table(case), case)
    by_hand = [
        (i / 4, ("red", "blue", "green")[i % 3], ("no", "yes")[i % 2])
        for i in range(40)
        if not (i % 3 == 0 and i / 4 < 1) and not (i % 2 and (i / 4 >= 9 or i / 2 == 2.5))
    ]
    assert (
        list(
            zip(
                frame["x"],
                frame["colour"],
                (("no", "yes")[t] for t in frame["target"]),
                strict=True,
            )
        )
        == by_hand
    )
    assert report.dropped == {"too red": 2, "too late": 3}


def test_a_rule_that_compares_words_with_numbers_is_refused(make_case):
    """A comparison that makes no sense names the rule."""
    case = load_case(make_case(rules=[{"drop": "x + 1 < 'red'", "why": ""}]))
    with pytest.raises(DataError, match=r"rule \"x \+ 1 < 'red'\""):
        clean(read_table(case), case)


def test_unique_keeps_the_first_row_of_each_key(make_case):
    """Of rows with the same key the first stays."""
    case = load_case(make_case(data={"unique": ["colour"]}))
    frame, report = clean(read_table(case), case)
    assert frame["x"].tolist() == [0, 0.25, 0.5]
    assert report.dropped == {"repeats colour": 37}


def test_duplicates_are_dropped_where_the_case_says_so(make_case):
    """With duplicates = "drop" the first of equal rows stays, and the others are counted."""
    case = load_case(make_case(TABLE + TABLE.partition("\n")[2], data={"duplicates": "drop"}))
    frame, report = clean(read_table(case), case)
    assert len(frame) == 40
    assert report.dropped == {"exact duplicate": 40}


def test_cleaning_counts_add_up_on_random_dirt(make_case):
    """Whatever is wrong where, every row is either kept or counted once."""
    draw = np.random.default_rng(0)
    soft = {"on_invalid": "missing"}
    for _ in range(20):
        choices = (["1", "2", "", "x", "9"], ["red", "blue", "", "?"], ["yes", "no", ""])
        cells = [[str(draw.choice(values)) for values in choices] for _ in range(60)]
        table = "\n".join(["x,colour,label", *(",".join(row) for row in cells)])
        columns = [X | soft | {"max": 5, "nullable": bool(draw.integers(2))}, COLOUR | soft]
        rules = [{"drop": "x > 1 and target == 'yes'", "why": "rule"}]
        case = load_case(
            make_case(
                table, columns=columns, rules=rules, data={"duplicates": "drop", "unique": ["x"]}
            )
        )
        raw = read_table(case)
        frame, report = clean(raw, case)
        assert len(raw) == report.rows_read == sum(any(row) for row in cells)
        assert report.rows_kept == len(frame) == len(raw) - sum(report.dropped.values())
        assert set(frame.index) <= set(raw.index)


def test_a_regression_target_has_its_range_checked(make_case):
    """A label that is no number, or out of the target's range, is an error."""
    target = {"column": "label", "meaning": "", "min": 0, "max": 10, "classes": []}
    charter = {"criteria": {"mean_absolute_error": {"at_most": 1, "why": ""}}}
    for label in ("many", "11"):
        table = f"x,colour,label\n1,red,3\n2,red,{label}\n"
        case = load_case(make_case(table, task="regression", target=target, charter=charter))
        with pytest.raises(DataError, match=r"line 3, column 'label'.*a number from 0 to 10"):
            clean(read_table(case), case)


@pytest.mark.parametrize(("missing", "kept"), [([], [-1.0, 3.5]), (["-1"], [3.5])])
def test_a_number_to_predict_is_read_as_the_inputs_are(make_case, missing, kept):
    """Spaces around a target's number don't count; a mark for a missing target drops its row."""
    target = {"column": "label", "meaning": "", "classes": []} | (
        {"missing": missing} if missing else {}
    )
    charter = {"criteria": {"mean_absolute_error": {"at_most": 1, "why": ""}}}
    table = "x,colour,label\n1,red,\u00a0-1\n2,red,3.5\u00a0\n"
    case = load_case(make_case(table, task="regression", target=target, charter=charter))
    assert clean(read_table(case), case)[0]["target"].tolist() == kept


def test_parts_are_apart_for_random_shares(make_case):
    """For any shares, the stratified parts are apart, complete and of about the asked size."""
    draw = np.random.default_rng(1)
    for seed in range(15):
        validation, test = draw.uniform(0.1, 0.4, size=2).round(2)
        case = load_case(
            make_case(
                small_table(120), split={"validation": float(validation), "test": float(test)}
            )
        )
        frame, _ = clean(read_table(case), case)
        parts = split(frame, case, seed=seed)
        assert sorted(i for part in parts.values() for i in part.index) == sorted(frame.index)
        assert abs(len(parts["test"]) - 120 * test) <= 2
        assert abs(len(parts["validation"]) - 120 * validation) <= 2
        assert all(abs(part["target"].mean() - 0.5) < 0.05 for part in parts.values())


def test_make_applications_is_reproducible(tmp_path, capsys):
    """The command writes the shipped hash from nothing but the table."""
    case = load_case("credit")
    folder = tmp_path / "credit"
    folder.mkdir()
    for name in ("case.toml", "credit_data.csv", "make_applications.py"):
        (folder / name).write_bytes((case.folder / name).read_bytes())
    runpy.run_path(str(folder / "make_applications.py"), run_name="__main__")
    made = Path(folder / "applications.jsonl.gz").read_bytes()
    assert gzip.decompress(made) == gzip.decompress(
        (case.folder / "applications.jsonl.gz").read_bytes()
    )
    assert made[4:8] == b"\0\0\0\0"  # no date in it
    assert capsys.readouterr().out.startswith('sha256 = "')


def test_a_part_without_a_class_is_refused(make_case):
    """A split that leaves a part without rows of one class says which part, and what to change."""
    rows = [f"{i},{'no' if i < 30 else 'yes'}" for i in range(40)]
    columns = [{"name": "x", "kind": "number", "meaning": ""}]
    case = load_case(
        make_case(
            "\n".join(["x,label", *rows, ""]),
            columns=columns,
            split={"method": "time", "column": "x"},
        )
    )
    frame, _ = clean(read_table(case), case)
    with pytest.raises(
        DataError, match=r"train part: got \d+ rows, expected rows of every class.*Change \[split\]"
    ):
        split(frame, case, seed=0)


def test_a_group_lies_on_one_side_only():
    """A stratified split by group keeps all rows of each on one side, of about the asked size."""
    names = [f"c{i}" for i in range(60)]
    table = pd.DataFrame(
        {"age": [str(20 + i % 40) for i in range(600)], "who": [names[i % 60] for i in range(600)]}
    )
    case = load_case("heart")
    case = case.model_copy(update={"split": case.split.model_copy(update={"group": "who"})})
    frame = table.assign(target=np.arange(600) // 60 % 2)
    parts = split(frame, case, seed=0)
    owners = [set(part["who"]) for part in parts.values()]
    assert not any(a & b for a, b in itertools.combinations(owners, 2))
    assert sum(map(len, parts.values())) == 600
    assert len(parts["test"]) == pytest.approx(600 * case.split.test, abs=20)
    assert [len(p) for p in split(frame, case, seed=1).values()] == [len(p) for p in parts.values()]
    assert set(split(frame, case, seed=1)["test"]["who"]) != owners[2]
