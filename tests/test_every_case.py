"""The same six notebooks on the other cases that are shipped; credit and heart have tests of their own."""

import json

import pytest

from lepton_lib.artefacts import STEPS
from tests import offline
from tests.test_parameters import SETS, pairs

SMALL = {name: value for name, value in SETS["first"].items() if name not in ("model", "encoding")}


@pytest.mark.parametrize("case", ["credit_tiers", "process_faults", "retail", "traffic"])
def test_the_loop_runs_on_every_case_and_heeds_its_parameters(tmp_path, case):
    """Two, three or nine classes or a number: the same notebooks end, and what they leave is as long as was asked."""
    folder = offline.loop(tmp_path / case, case, *pairs(SMALL))
    assert list(offline.steps(folder)) == list(STEPS)

    def read(name):
        return json.loads((folder / name).read_text())

    assert len(read("model/history.json")) == SMALL["epochs"]
    assert read("evaluation/metrics.json")["draws"] == SMALL["draws"]
    assert read("service/latency.json")["batch"]["records"] == SMALL["records_per_request"]
    assert read("service/latency.json")["one"]["requests"] == SMALL["requests"]
