"""Requests of several records: the answers of one record each, kept and read back."""

import json
import shutil

import msgspec
import numpy as np
import pandas as pd
import pytest

from lepton_lib import serving
from lepton_lib.cases import load_case
from lepton_lib.data import clean, to_records
from lepton_lib.errors import RunError
from lepton_lib.serving.codec import Codec, expand
from tests.conftest import write_case
from tests.service import call, kept, write_release


def test_other_media_types_than_json_are_refused(app):
    """Rows of floats and Arrow streams get 415 with the type that is expected."""
    for media_type in ("application/octet-stream", "application/vnd.apache.arrow.stream"):
        headers = {"content-type": media_type}
        reply = call(app, "POST", "/v1/predict", content=b"rows", headers=headers)
        assert (reply.status_code, reply.json()["expected"]) == (415, "application/json")
    assert kept(app).empty


def test_a_batch_of_an_older_version_is_named():
    """A batch that was stored as float32 rows or an Arrow stream says so, instead of misreading."""
    legend = {"kind": "arrow", "classes": [], "actions": [], "bands": None, "unit": "cars"}
    with pytest.raises(RunError, match="a batch of arrow rows, expected JSON"):
        expand(json.dumps(legend), b"stream", np.zeros(1, "<f4").tobytes())


def test_a_class_may_have_a_quote_in_its_name(tmp_path):
    """Quotes and backslashes in a class's name come back as they are."""
    names = ['5" pipe', "a\\b"]
    classes = [{"name": name, "values": [name]} for name in names]
    codec = Codec(load_case(write_case(tmp_path / "desk", target={"classes": classes})))
    (answer,) = codec.answers.of(np.array([[0.25, 0.75, 1]], dtype=np.float32))
    read = json.loads(msgspec.json.encode(answer))
    assert (read["class"], read["probabilities"]) == (
        names[1],
        dict(zip(names, [0.25, 0.75], strict=True)),
    )


@pytest.mark.parametrize("kind", ["regression", "multiclass"])
def test_other_tasks_answer_batches_too(tmp_path, monkeypatch, kind):
    """A regression answers a number a row, three classes their shares; both are read back."""
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
    url = "/v1/predict?explain=true"
    replies = [call(app, "POST", path, json={"records": records}) for path in (url, "/v1/predict")]
    answers = app.scorer.score(records)
    reasons = [answer.pop("reasons") for answer in replies[0].json()["predictions"]]
    assert reasons[0]["of"] in ("cars", "a", "b", "c")
    for reply in replies:
        for answer, expected in zip(reply.json()["predictions"], answers, strict=True):
            assert {key: answer[key] for key in expected} == expected
    frame, key = kept(app), "prediction" if kind == "regression" else "class"
    assert list(frame[f"answer.{key}"]) == [answer[key] for answer in answers] * 2
    assert list(frame["x"]) == [record["x"] for record in records] * 2
    app.log.close()


def test_a_table_is_scored_through_the_services_checks(pipeline, lepton, tmp_path):
    """`lepton predict` answers a table's rows as the service does, and says why it refuses one."""
    case = load_case("credit", verify=False)
    table = pd.read_csv(case.path("credit_data.csv"), dtype=str, keep_default_na=False)
    good = table.drop([2, 4099]).index
    table.loc[2, "Age"], table.loc[4099, "Home"] = "200", "palace"  # in different parts
    table.loc[7, "Income"] = ""
    table.to_csv(tmp_path / "in.csv", index=False)
    code, out, _ = lepton("predict", pipeline, tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert code == 1
    assert f"{len(table):,} rows scored, 2 refused." in out
    assert "row 3: age: got '200', expected a number from 18" in out
    assert "row 4,100: home: got 'palace', expected one of 'owner'" in out
    scored = pd.read_csv(tmp_path / "out.csv")
    assert scored["row"].tolist() == [*range(1, len(table) + 1)]
    assert scored["refused"].notna().sum() == scored["class"].isna().sum() == 2
    raw = table.rename(columns={each.header: each.name for each in case.columns})
    raw["target"] = raw["Status"]
    records = to_records(clean(raw.loc[good], case)[0], case)
    expected = serving.Scorer(pipeline / "service").score(records)
    kept = clean(raw.loc[good], case)[0].index
    given = scored.loc[kept]
    assert given["class"].tolist() == [answer["class"] for answer in expected]
    shares = [answer["probabilities"]["bad"] for answer in expected]
    np.testing.assert_allclose(given["p_bad"], shares, atol=1e-6)


def test_a_parquet_table_is_scored_and_logged(pipeline, lepton, tmp_path):
    """Numbers, gaps and words of a Parquet file give the CSV's answers, and go into the log."""
    run = shutil.copytree(pipeline, tmp_path / "run")
    case, test = load_case("credit", verify=False), pd.read_parquet(run / "data" / "test.parquet")
    frame = test[[column.name for column in case.inputs]]
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    for kind, more in (("csv", []), ("parquet", ["--log"])):
        words = ["predict", run, tmp_path / f"in.{kind}", "--out", tmp_path / f"out.{kind}", *more]
        assert lepton(*words)[0] == 0
    one, other = pd.read_csv(tmp_path / "out.csv"), pd.read_parquet(tmp_path / "out.parquet")
    np.testing.assert_array_equal(one["p_bad"], other["p_bad"])
    log = serving.read_log(run / "service" / "predictions.sqlite", case)
    np.testing.assert_array_equal(log.loc[other["id"], "answer.p_bad"], other["p_bad"])
    pd.testing.assert_frame_equal(
        log.loc[other["id"], frame.columns].reset_index(drop=True),
        frame.reset_index(drop=True),
        check_dtype=False,
    )


def test_a_table_without_a_column_writes_nothing(pipeline, lepton, tmp_path):
    """A table that lacks an input is refused by the input's name, and leaves no file."""
    (tmp_path / "in.csv").write_text("Age,Home\n30,rent\n")
    code, _, error = lepton("predict", pipeline, tmp_path / "in.csv", "--out", tmp_path / "o.csv")
    assert code == 2
    assert "in.csv: got no column 'seniority'" in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
