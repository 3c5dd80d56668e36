from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lepton_lib.cases import Case, Expression, encode_records, example_record, list_cases, load_case
from lepton_lib.cases.records import describe
from lepton_lib.data import clean, read_table
from lepton_lib.errors import CaseError, DataError

SHIPPED = ["credit", "credit_tiers", "heart", "process_faults", "retail", "traffic"]


def test_every_shipped_case_is_listed():
    """The cases that come with the course are found by name."""
    assert set(SHIPPED) <= set(list_cases())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_case_loads_and_says_what_it_promises(name):
    """A shipped case loads and has a card, a charter with reasons, and costs for classes."""
    case = load_case(name)
    card = (case.folder / "README.md").read_text(encoding="utf-8")
    assert len(card.splitlines()) < 70
    assert {"latency_ms", "drift_psi"} <= set(case.charter.criteria)
    assert all(criterion.why for criterion in case.charter.criteria.values())
    assert case.charter.stop
    assert case.charter.risks
    assert (case.costs is not None) == bool(case.classes)
    assert ("group_gap" in case.charter.criteria) == bool(case.sensitive)
    assert all(column.meaning for column in case.columns)


@pytest.mark.parametrize("name", SHIPPED)
def test_example_record_is_accepted(name):
    """The example that a case makes up is one that it accepts."""
    case = load_case(name)
    assert encode_records(case, [example_record(case)]).shape == (1, len(case.fields))


def test_tiers_are_three_and_nothing_gives_them_away():
    """The rate, the state and the outcome are no inputs of the three tiers."""
    case = load_case("credit_tiers")
    assert case.classes == ("low", "medium", "high")
    assert not {"int_rate", "addr_state", "outcome"} & {column.name for column in case.inputs}


def test_process_faults_has_nine_classes_and_all_instruments():
    """The plant has nine situations and 52 instruments; place and time are no inputs."""
    case = load_case("process_faults")
    assert len(case.classes) == 9
    assert len(case.inputs) == 52
    assert case.n_outputs == 9


def test_a_case_is_found_by_folder_and_by_search_path(make_case, monkeypatch):
    """One's own case is loaded by its path, or by name below a folder in LEPTON_DATASETS."""
    folder = make_case()
    assert load_case(folder).name == load_case(str(folder)).name == "small"
    monkeypatch.setenv("LEPTON_DATASETS", str(folder.parent))
    assert "small" in list_cases()
    assert load_case("small").folder == folder


def test_a_byte_order_mark_before_the_toml_is_accepted(make_case):
    """An editor that puts a byte-order mark before case.toml does no harm."""
    file = make_case() / "case.toml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_case(file.parent).name == "small"


COLUMNS = [{"name": "x", "kind": "number", "meaning": "a number"}]
WRONG = {
    "unknown key": ({"colour": "red"}, "key 'colour'", "no key of that name"),
    "unknown key in a section": (
        {"data": {"shape": "x"}},
        "key 'data.shape'",
        "no key of that name",
    ),
    "wrong type": ({"title": 3}, "key 'title'", "valid string"),
    "wrong type in a section": ({"split": {"test": "0.2"}}, "key 'split.test'", "valid number"),
    "missing key": ({"question": None}, "key 'question'", "a value"),
    "unknown task": ({"task": "ranking"}, "key 'task'", "'binary', 'multiclass' or 'regression'"),
    "missing file": (
        {"data": {"file": "no.csv"}},
        "key 'data.file'",
        "a file in the case's folder",
    ),
    "wrong hash": ({"data": {"sha256": "0" * 64}}, "key 'data.sha256'", "the hash of 'table.csv'"),
    "hash of a wrong form": ({"data": {"sha256": "abc"}}, "key 'data.sha256'", "pattern"),
    "path above": (
        {"data": {"file": "../table.csv"}},
        "key 'data.file'",
        "inside the case's own folder",
    ),
    "absolute path": (
        {"data": {"file": "/etc/passwd"}},
        "key 'data.file'",
        "inside the case's own folder",
    ),
    "backslashes": (
        {"data": {"file": "..\\table.csv"}},
        "key 'data.file'",
        "inside the case's own folder",
    ),
    "name of another folder": ({"name": "large"}, "key 'name'", "'small'"),
    "long delimiter": (
        {"data": {"delimiter": "::"}},
        "key 'data.delimiter'",
        "at most 1 character",
    ),
    "unknown encoding": ({"data": {"encoding": "utf-9"}}, "key 'data.encoding'", "an encoding"),
    "class names in costs": (
        {
            "costs": {
                "unit": "x",
                "matrix": {"no": {"no": 0.0, "yes": 1.0}, "yes": {"no": 1.0, "maybe": 0.0}},
            }
        },
        "case.toml",
        "costs.matrix to name the classes ['no', 'yes']",
    ),
    "class names in decisions": (
        {
            "costs": {
                "unit": "x",
                "matrix": {a: {"no": 0, "yes": 1} for a in ("no", "yes")},
                "decisions": {"ja": "x"},
            }
        },
        "case.toml",
        "costs.decisions to name the classes",
    ),
    "one value in two classes": (
        {
            "target": {
                "classes": [{"name": "a", "values": ["yes"]}, {"name": "b", "values": ["yes"]}]
            }
        },
        "case.toml",
        "one class only",
    ),
    "too few classes": ({"task": "multiclass"}, "case.toml", "three or more"),
    "classes of a quantity": ({"task": "regression"}, "case.toml", "no classes"),
    "two classes of one name": (
        {
            "target": {
                "classes": [{"name": "a", "values": ["no"]}, {"name": "a", "values": ["yes"]}]
            }
        },
        "case.toml",
        "every class named once",
    ),
    "columns twice": ({"columns": COLUMNS * 2}, "case.toml", "every column named once"),
    "target among the columns": (
        {
            "columns": [
                *COLUMNS,
                {"name": "label", "kind": "text", "meaning": "", "role": "ignored"},
            ]
        },
        "case.toml",
        "'label'",
    ),
    "no inputs": (
        {"columns": [COLUMNS[0] | {"role": "ignored"}]},
        "case.toml",
        "at least one column",
    ),
    "text as an input": (
        {"columns": [COLUMNS[0] | {"kind": "text"}]},
        "key 'columns[x]'",
        "role 'ignored'",
    ),
    "the cleaned label's name": (
        {"columns": [COLUMNS[0] | {"name": "target", "source": "x"}]},
        "key 'columns[target]'",
        "a name other than 'target'",
    ),
    "sensitive moment": (
        {"columns": [COLUMNS[0] | {"kind": "timestamp", "parts": ["hour"], "sensitive": True}]},
        "key 'columns[x]'",
        "sensitive on a timestamp",
    ),
    "number with categories": (
        {"columns": [COLUMNS[0] | {"categories": ["a"]}]},
        "key 'columns[x].categories'",
        "no key of that name",
    ),
    "cuts that fall": (
        {"columns": [COLUMNS[0] | {"cuts": [2, 1]}]},
        "key 'columns[x]'",
        "cuts in rising order",
    ),
    "cuts twice": (
        {"columns": [COLUMNS[0] | {"cuts": [1, 1]}]},
        "key 'columns[x]'",
        "cuts in rising order",
    ),
    "bands that fall": (
        {"bands": {"names": ["a", "b", "c"], "limits": [0.5, 0.2]}},
        "key 'bands'",
        "rising limits, and one more name",
    ),
    "as many bands as limits": (
        {"bands": {"names": ["a"], "limits": [0.5]}},
        "key 'bands'",
        "one more name",
    ),
    "bands of a quantity": (
        {
            "task": "regression",
            "target": {"classes": []},
            "bands": {"names": ["a", "b"], "limits": [0.5]},
            "charter": {"criteria": {"mean_absolute_error": {"at_most": 1, "why": ""}}},
        },
        "case.toml",
        "bands on a binary task only",
    ),
    "feature named as a column": (
        {"features": [{"name": "x", "expression": "x * 2", "meaning": ""}]},
        "case.toml",
        "a feature name that nothing else has; got 'x'",
    ),
    "two features of one name": (
        {"features": [{"name": "f", "expression": f"x * {k}", "meaning": ""} for k in (2, 3)]},
        "case.toml",
        "a feature name that nothing else has; got 'f'",
    ),
    "category without categories": (
        {"columns": [COLUMNS[0] | {"kind": "category"}]},
        "key 'columns[x]'",
        "categories",
    ),
    "capital in a name": (
        {"columns": [COLUMNS[0] | {"name": "X"}]},
        "key 'columns[X].name'",
        "small letters",
    ),
    "range upside down": (
        {"columns": [COLUMNS[0] | {"min": 2, "max": 1}]},
        "key 'columns[x]'",
        "no greater than max",
    ),
    "sensitive without cuts": (
        {"columns": [COLUMNS[0] | {"sensitive": True}]},
        "key 'columns[x]'",
        "cuts",
    ),
    "moment without parts": (
        {"columns": [COLUMNS[0] | {"kind": "timestamp"}]},
        "key 'columns[x]'",
        "parts",
    ),
    "feature that calls": (
        {"features": [{"name": "f", "expression": "abs(x)", "meaning": ""}]},
        "key 'features[f].expression'",
        "'abs(x)' is not allowed",
    ),
    "feature of an unknown column": (
        {"features": [{"name": "f", "expression": "x / y", "meaning": ""}]},
        "case.toml",
        "['y']",
    ),
    "feature of a category": (
        {"features": [{"name": "f", "expression": "colour * 2", "meaning": ""}]},
        "case.toml",
        "number inputs",
    ),
    "rule that divides by zero": (
        {"rules": [{"drop": "x > 1 / 0", "why": ""}]},
        "key 'rules[0].drop'",
        "by zero",
    ),
    "rule that is no condition": (
        {"rules": [{"drop": "x + 1", "why": ""}]},
        "key 'rules[0].drop'",
        "not a condition",
    ),
    "rule over an unknown column": (
        {"rules": [{"drop": "z > 1", "why": ""}]},
        "case.toml",
        "['z']",
    ),
    "unique over an unknown column": ({"data": {"unique": ["z"]}}, "case.toml", "['z']"),
    "split leaves nothing": (
        {"split": {"test": 0.5, "validation": 0.5}},
        "key 'split'",
        "rows are left",
    ),
    "split by no column": ({"split": {"method": "time"}}, "key 'split'", "the column"),
    "time split by a word": (
        {"split": {"method": "time", "column": "colour"}},
        "case.toml",
        "timestamp or number",
    ),
    "given split by other words": (
        {"split": {"method": "given", "column": "colour"}},
        "case.toml",
        "'train' and 'test'",
    ),
    "infinite bound": ({"target": {"max": float("inf")}}, "key 'target.max'", "finite"),
    "criterion of another task": (
        {"charter": {"criteria": {"mean_absolute_error": {"at_most": 1, "why": ""}}}},
        "case.toml",
        "'mean_absolute_error'",
    ),
    "gap without groups": (
        {"charter": {"criteria": {"group_gap": {"at_most": 1, "why": ""}}}},
        "case.toml",
        "'group_gap'",
    ),
    "criterion upside down": (
        {"charter": {"criteria": {"auc": {"at_most": 1, "why": ""}}}},
        "key 'charter'",
        "at_least",
    ),
    "criterion beyond its metric": (
        {"charter": {"criteria": {"auc": {"at_least": 1.5, "why": ""}}}},
        "key 'charter'",
        "at_least of auc from 0 to 1; got 1.5",
    ),
    "a negative bound": (
        {"charter": {"criteria": {"log_loss": {"at_most": -1, "why": ""}}}},
        "key 'charter'",
        "at_most of log_loss of at least 0",
    ),
    "a cost that is a gain": (
        {"costs": {"unit": "x", "matrix": {a: {"no": 0, "yes": -1} for a in ("no", "yes")}}},
        "key 'costs.matrix.no.yes'",
        "greater than or equal to 0",
    ),
    "two decimal marks": (
        {"columns": [COLUMNS[0] | {"decimal": ",", "thousands": ","}]},
        "key 'columns[x]'",
        "two characters",
    ),
    "a format without a day": (
        {"columns": [{**COLUMNS[0], "kind": "timestamp", "parts": ["hour"], "formats": ["%H"]}]},
        "key 'columns[x]'",
        "formats with a day",
    ),
    "another word for what is no category": (
        {"columns": [COLUMNS[0] | {"kind": "category", "categories": ["a"], "other": "b"}]},
        "key 'columns[x]'",
        "other to be one of the categories",
    ),
    "criterion with two bounds": (
        {"charter": {"criteria": {"auc": {"at_most": 1, "at_least": 0, "why": ""}}}},
        "key 'charter.criteria.auc'",
        "either",
    ),
    "records that leave a column out": (
        {"records": {"file": "table.csv", "sha256": "0" * 64, "paths": {"x": "x"}}},
        "case.toml",
        "['colour', 'target']",
    ),
    "records through one another": (
        {
            "records": {
                "file": "r",
                "sha256": "0" * 64,
                "paths": {"x": "a", "colour": "a.b", "target": "t"},
            }
        },
        "key 'records'",
        "leads through",
    ),
}


@pytest.mark.parametrize(("changes", "where", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_case_toml_is_named_in_one_error(make_case, changes, where, expected):
    """Each mistake in case.toml is one error: file and key, got, expected, remedy."""
    folder = make_case(**changes)
    with pytest.raises(CaseError) as caught:
        load_case(folder)
    error = caught.value
    assert str(folder / "case.toml") in error.where
    assert where in error.where
    assert expected in f"{error.expected}; got {error.got}"
    assert "got" not in f"{error.got} {error.expected}".split()
    assert error.got not in ("", None)
    assert error.remedy.endswith((".", ")"))


def test_names_are_of_any_alphabet(make_case):
    """Columns, features and rules may be named in any script, and formulas find them."""
    columns = [{"name": "收入", "source": "x", "kind": "number", "meaning": ""}]
    columns.append({"name": "colour", "kind": "text", "role": "ignored", "meaning": ""})
    features = [{"name": "größe", "expression": "收入 / 2", "meaning": ""}]
    rules = [{"drop": "收入 > 5", "why": "too much"}]
    case = load_case(make_case(columns=columns, features=features, rules=rules))
    assert clean(read_table(case), case)[0]["收入"].max() == 5
    assert encode_records(case, [{"收入": 3}]).tolist() == [[3]]
    assert case.features[0].formula({"收入": 3}) == 1.5


def test_text_that_is_not_toml_names_the_line(make_case):
    """A case.toml that can't be parsed says where."""
    folder = make_case()
    (folder / "case.toml").write_text('name = "small"\ntitle = unquoted\n')
    with pytest.raises(CaseError, match="line 2"):
        load_case(folder)


def test_a_link_out_of_the_folder_is_refused(make_case, tmp_path):
    """A data file that is a link to a file elsewhere is not read."""
    folder = make_case()
    (folder / "table.csv").rename(tmp_path / "elsewhere.csv")
    os.symlink(tmp_path / "elsewhere.csv", folder / "table.csv")
    with pytest.raises(CaseError, match="a link that leaves the folder"):
        load_case(folder)


def test_an_unknown_case_lists_the_known_ones():
    """A name that no folder has is answered with the names that there are."""
    with pytest.raises(CaseError, match="'credit'"):
        load_case("credits")


# Formulas


@pytest.mark.parametrize(
    "text",
    [
        "abs(x)",
        "x.real",
        "x[0]",
        "x ** 2",
        "x // 2",
        "x % 2",
        "lambda: x",
        "[x]",
        "(x, y)",
        "x if y else x",
        "x := 1",
        "f'{x}'",
        "x @ y",
        "__import__('os')",
        "x +",
        "",
        "True",
        "1 + 2",
        "x < 1",
        "'x'",
        "+x",
        "x; y",
    ],
)
def test_a_numeric_formula_is_arithmetic_over_columns_and_nothing_else(text):
    """Calls, attributes, subscripts and whatever else is not plain arithmetic are refused."""
    with pytest.raises(ValueError, match=r"not allowed|not a formula|names no column"):
        Expression(text, arithmetic=True)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "x + 1",
        "0 < x < 1",
        "x in y",
        "x is y",
        "not x",
        "x and y",
        "1 < 2",
        "x < 1 and 1 < 2",
        "f(x) < 1",
    ],
)
def test_a_condition_compares_columns(text):
    """What is not a comparison that involves a column is no condition."""
    with pytest.raises(ValueError, match=r"not allowed|not a condition|names no column"):
        Expression(text)


def test_formulas_agree_on_numpy_pandas_and_torch():
    """Random formulas give on arrays, series and tensors what Python gives row by row."""
    draw = np.random.default_rng(0)
    columns = {name: draw.normal(size=50) + 3 for name in "abc"}
    for _ in range(60):
        text = str(draw.choice(list("abc")))
        for _ in range(draw.integers(1, 5)):
            part = str(draw.choice(["a", "b", "c", "2", "0.5", "-a", "(b - c)"]))
            text = f"({text} {draw.choice(list('+-*/'))} {part})"
        for formula, arithmetic in ((text, True), (f"{text} > 1 and not a <= b or c != 3", False)):
            expression = Expression(formula, arithmetic=arithmetic)
            expected = [
                eval(formula, {}, dict(zip("abc", row, strict=True)))
                for row in zip(*columns.values(), strict=True)
            ]
            on_numpy = expression(columns)
            on_pandas = expression({name: pd.Series(values) for name, values in columns.items()})
            on_torch = expression(
                {name: torch.from_numpy(values) for name, values in columns.items()}
            )
            np.testing.assert_allclose(on_numpy, expected, rtol=1e-12)
            np.testing.assert_array_equal(on_pandas.to_numpy(), on_numpy)
            np.testing.assert_allclose(on_torch.numpy(), on_numpy, rtol=1e-15)


def test_comparisons_and_logic_are_exact_on_whole_numbers():
    """Bounds belong to <= and >= and not to < and >; and binds before or."""
    columns = {"a": np.array([1, 2, 3]), "b": np.array([2, 2, 2])}
    expected = {
        "a < b": [1, 0, 0],
        "a <= b": [1, 1, 0],
        "a > b": [0, 0, 1],
        "a >= b": [0, 1, 1],
        "a == b": [0, 1, 0],
        "a != b": [1, 0, 1],
        "a == 1 or a == 2 and b == 3": [1, 0, 0],
        "not (a == 1 or a == 3)": [0, 1, 0],
    }
    for text, values in expected.items():
        assert Expression(text)(columns).tolist() == [bool(value) for value in values]


# Records


@pytest.fixture
def small(make_case) -> Case:
    columns = [
        {"name": "x", "kind": "number", "min": 0, "max": 100, "unit": "kg", "meaning": "a number"},
        {"name": "y", "kind": "number", "nullable": True, "meaning": "a number without bounds"},
        {
            "name": "colour",
            "kind": "category",
            "categories": ["red", "blue"],
            "nullable": True,
            "meaning": "a word",
        },
        {
            "name": "when",
            "kind": "timestamp",
            "parts": ["hour", "weekday", "month"],
            "meaning": "a moment",
        },
    ]
    return load_case(make_case(columns=columns))


RECORD = {"x": 1, "y": 2.5, "colour": "blue", "when": "2018-03-01T08:30:00"}


def test_a_column_says_in_words_what_it_takes(make_case):
    """Each kind of column, and each pair of bounds, has its own words."""
    bounds = {
        "free": {},
        "low": {"min": 1.5},
        "high": {"max": 2},
        "both": {"min": 0, "max": 100, "unit": "kg"},
    }
    columns = [
        {"name": name, "kind": "number", "meaning": "", **extra} for name, extra in bounds.items()
    ]
    columns.append({"name": "words", "kind": "text", "meaning": "", "role": "ignored"})
    columns.append({"name": "colour", "kind": "category", "categories": ["red"], "meaning": ""})
    columns.append({"name": "when", "kind": "timestamp", "parts": ["hour"], "meaning": ""})
    case = load_case(make_case(columns=columns))
    assert [describe(column) for column in case.columns] == [
        "a finite number",
        "a number of at least 1.5",
        "a number of at most 2",
        "a number from 0 to 100 (kg)",
        "text",
        "one of 'red'",
        "a moment in ISO 8601 without a time zone, such as '2018-03-01T08:00:00'",
    ]


def test_a_large_bound_is_shown_in_full(make_case):
    """A bound of seven digits and more is shown as it is, not rounded."""
    column = {"name": "x", "kind": "number", "min": 1234567, "max": 12345678.5, "meaning": ""}
    assert (
        describe(load_case(make_case(columns=[column])).columns[0])
        == "a number from 1234567 to 12345678.5"
    )


@pytest.mark.parametrize("rule", ["x == '5'", "'5' != x", "colour == 2", "target == 1"])
def test_a_rule_that_can_hold_for_no_row_is_refused(make_case, rule):
    """A rule that compares numbers with a word, or words with a number, is refused."""
    with pytest.raises(CaseError, match=r"to compare '(x|colour|target)' with a (number|word)"):
        load_case(make_case(rules=[{"drop": rule, "why": ""}]))


def test_a_formula_shows_itself():
    """An expression's text can be read from it."""
    assert repr(Expression("x / y", arithmetic=True)) == "Expression('x / y')"


def test_a_record_becomes_a_row_of_fields(small):
    """Numbers stand as they are, categories and parts as indices, missing values as NaN."""
    row = encode_records(
        small, [RECORD, RECORD | {"y": None}, {"x": 0, "when": "2018-12-31 00:00"}]
    )
    assert row.dtype == np.float32
    nan = float("nan")
    expected = [[1, 2.5, 1, 8, 3, 2], [1, nan, 1, 8, 3, 2], [0, nan, nan, 0, 0, 11]]
    np.testing.assert_array_equal(row, np.array(expected, dtype=np.float32))


def test_no_records_make_an_empty_matrix(small):
    """An empty list keeps the width."""
    assert encode_records(small, []).shape == (0, 6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"x": None}, "from 0 to 100 (kg)"),
        ({"x": "1"}, "from 0 to 100 (kg)"),
        ({"x": True}, "from 0 to 100 (kg)"),
        ({"x": float("nan")}, "from 0 to 100 (kg)"),
        ({"x": -0.001}, "from 0 to 100 (kg)"),
        ({"x": 101}, "from 0 to 100 (kg)"),
        ({"x": [1]}, "from 0 to 100 (kg)"),
        ({"y": float("inf")}, "a finite number"),
        ({"y": 10**400}, "a finite number"),
        ({"y": 1e39}, "a finite number"),
        ({"colour": "green"}, "one of 'red', 'blue'"),
        ({"colour": 1}, "one of 'red', 'blue'"),
        ({"colour": ""}, "one of 'red', 'blue'"),
        ({"when": None}, "ISO 8601"),
        ({"when": "tomorrow"}, "ISO 8601"),
        ({"when": 1520000000}, "ISO 8601"),
        ({"when": "2018-03-01T08:30:00+02:00"}, "without a time zone"),
        ({"label": "yes"}, "only ['colour'"),
    ],
)
def test_a_wrong_record_is_refused_by_position_and_field(small, change, expected):
    """A refused value's error names the record, the field, what it got and what it accepts."""
    with pytest.raises(DataError) as caught:
        encode_records(small, [RECORD, RECORD | change])
    assert caught.value.where == f"record 1, field {next(iter(change))!r}"
    assert expected in str(caught.value.expected)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("record", [[1, 2], "x", None, 3])
def test_what_is_no_record_is_refused(small, record):
    """A list, a word or nothing in a record's place is an error, not a crash."""
    with pytest.raises(DataError, match="record 0"):
        encode_records(small, [record])


def test_the_written_paths_of_credit_make_readable_records():
    """The applications are nested as an application system would post them."""
    case = load_case("credit")
    assert case.records is not None
    assert case.records.paths["job"] == "applicant.employment.kind"
    assert json.dumps(dict(case.records.paths))
    assert Path(case.path(case.records.file)).is_file()
