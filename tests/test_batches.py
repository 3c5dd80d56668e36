"""Requests of several records: the answers of one record each, kept and read back."""

import json

import msgspec
import numpy as np
import pytest

from lepton_lib import serving
from lepton_lib.cases import load_case
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
