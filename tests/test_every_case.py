"""The same six notebooks run on the other shipped cases; other tests cover credit and heart."""

import json

import pytest

from lepton_lib.artefacts import STEPS
from lepton_lib.cases import load_case
from lepton_lib.data import read_table
from tests import offline
from tests.test_parameters import SETS, pairs

SMALL = {name: value for name, value in SETS["first"].items() if name not in ("model", "encoding")}


@pytest.mark.parametrize("case", ["credit_tiers", "process_faults", "retail", "traffic"])
def test_the_loop_runs_on_every_case_and_respects_its_parameters(tmp_path, case):
    """The notebooks run for two, three or nine classes or a number, with their parameters."""
    folder = offline.loop(tmp_path / case, case, *pairs(SMALL))
    assert list(offline.steps(folder)) == list(STEPS)

    def read(name):
        return json.loads((folder / name).read_text())

    assert len(read("model/history.json")) == SMALL["epochs"]
    assert read("evaluation/metrics.json")["draws"] == SMALL["draws"]
    assert read("service/latency.json")["batch"]["records"] == SMALL["records_per_request"]
    assert read("service/latency.json")["one"]["requests"] == SMALL["requests"]


@pytest.mark.parametrize("kind", ["trees", "best"])
def test_a_model_that_plans_by_itself_is_judged_served_and_watched(tmp_path, kind):
    """The loop's other models go the whole way; the challenger is fitted by the same recipe."""
    plain = {name: SMALL[name] for name in ("draws", "records_per_request", "requests")}
    folder = offline.loop(tmp_path / kind, "heart", *pairs(plain | {"model": kind}))
    assert list(offline.steps(folder)) == list(STEPS)
    for name in ("service/config.json", "monitoring/challenger.json"):
        assert json.loads((folder / name).read_text())["recipe"]["epochs"] is None


def test_a_case_of_categories_only_goes_the_whole_way(tmp_path):
    """Without a column of numbers the stream shifts along a category, up to the decision."""
    table = read_table(load_case("credit"))[["home", "marital", "records", "job", "target"]]
    table.iloc[:900].to_csv(tmp_path / "words.csv", index=False)
    folder = str(tmp_path / "words")
    drafted = offline.lepton(
        "new-case", str(tmp_path / "words.csv"), "--target", "target", "--out", folder
    )
    assert drafted.returncode == 0, drafted.stderr
    run = offline.loop(tmp_path / "run", folder, *pairs(SMALL))
    drift = json.loads((run / "monitoring/drift.json").read_text())
    assert "home" in drift["drifted"]
