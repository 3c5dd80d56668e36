"""Each notebook uses its parameters: with a second small set its results differ."""

import json
import tomllib

import pytest

from lepton_lib.artefacts import OUTPUTS, STEPS
from lepton_lib.runs import find_notebook, read_parameters
from tests import offline

SETS = tomllib.loads((offline.ROOT / "tests" / "parameters.toml").read_text(encoding="utf-8"))
MOVES = {
    "00_environment": {"charter.json"},
    "01_data": {"data/train.parquet", "data/test.parquet"},
    "02_training": {"model/model.safetensors", "validation_loss", "model"},
    "03_evaluation": {"evaluation/metrics.json"},
    "04_deployment": {"service/latency.json"},
    "05_monitoring": {
        "monitoring/drift.json",
        "monitoring/decision.json",
        "monitoring/challenger.safetensors",
    },
}


def pairs(values):
    return [f"{name}={value}" for name, value in values.items()]


def results(folder, step):
    """A step's metrics and its files' content, without how many milliseconds something took."""
    files = {
        name: (folder / name).read_bytes()
        for name in OUTPUTS[step]
        if name != "service/latency.json"
    }
    if step == "04_deployment":
        timed = json.loads((folder / "service/latency.json").read_text())
        files["service/latency.json"] = [
            (entry["records"], entry["requests"]) for entry in timed.values()
        ]
    metrics = offline.steps(folder)[step]["metrics"].items()
    return files | {name: value for name, value in metrics if not name.startswith("latency")}


@pytest.fixture(scope="module")
def heart(tmp_path_factory):
    """The loop on heart, with the first set."""
    return offline.loop(tmp_path_factory.mktemp("runs") / "heart", "heart", *pairs(SETS["first"]))


@pytest.mark.parametrize("step", STEPS)
def test_the_second_set_has_every_parameter(step):
    """None is left out, but where results go and which case; 00 draws only in its lessons."""
    left_out = set(read_parameters(find_notebook(step))) - set(SETS["second"][step])
    assert left_out - {"case", "run_dir"} == ({"seed"} if step == "00_environment" else set())


@pytest.mark.parametrize("step", STEPS[::-1])
def test_another_set_gives_other_results(heart, tmp_path, step):
    """With its second set, each notebook from the last to the first leaves other results."""
    before = results(heart, step)
    values = {"case": "heart"} | SETS["second"][step]
    folder = heart if values["case"] == "heart" else tmp_path / "run"
    words = [word for pair in pairs(values) for word in ("-p", pair)]
    done = offline.lepton("run", step, "--out", str(folder), *words)
    assert done.returncode == 0, done.stderr
    after = results(folder, step)
    assert MOVES[step] <= {name for name in before if before[name] != after[name]}
    if folder == heart:
        noted = offline.steps(heart)[step]["parameters"]
        assert {name: noted[name] for name in values} == values
