"""The same six notebooks on the other cases that are shipped; credit and heart have tests of their own."""

import pytest

from lepton_lib.artefacts import STEPS
from tests import offline
from tests.test_parameters import SETS, pairs

SMALL = {name: value for name, value in SETS["first"].items() if name not in ("model", "encoding")}


@pytest.mark.parametrize("case", ["credit_tiers", "process_faults", "retail", "traffic"])
def test_the_loop_runs_on_every_case_and_heeds_its_parameters(tmp_path, case):
    """Two, three or nine classes or a number: the same notebooks end, and other epochs give another model."""
    folder = offline.loop(tmp_path / case, case, *pairs(SMALL))
    assert list(offline.steps(folder)) == list(STEPS)
    before = offline.steps(folder)["02_training"]["metrics"]["validation_loss"]
    done = offline.lepton("run", "02_training", "--case", case, "--out", str(folder), "-p", "epochs=1", "-p", "seed=1")
    assert done.returncode == 0, done.stderr
    assert offline.steps(folder)["02_training"]["metrics"]["validation_loss"] != before
