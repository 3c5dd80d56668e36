"""Served rows become training rows; the commands `monitor` and `label` work on a run."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from lepton_lib import operations
from lepton_lib.cases import load_case
from lepton_lib.cli import app
from lepton_lib.data import clean, read_table, split
from lepton_lib.operations.retraining import enlarge_case
from lepton_lib.serving import PredictionLog, Scorer, signing
from tests.conftest import write_case
from tests.service import BANDS, COLUMNS, COSTS, GOOD, write_release


@pytest.mark.parametrize("name", ["heart", "process_faults", "retail", "traffic"])
def test_served_rows_join_every_kind_of_case(tmp_path, name):
    """The enlarged case reads and cleans as the case itself does, with the served rows in it."""
    case = load_case(name)
    before = clean(read_table(case), case)[0]
    served = before.tail(40).copy()
    if "date_time" in served:
        served["date_time"] += pd.Timedelta(days=400)
    number = next(column.name for column in case.inputs if column.kind == "number")
    served[number] = served[number].fillna(1.0) + 0.015625  # so that none repeats a row
    served["log.time"] = pd.Timestamp("2030-01-01T23:30:00Z")
    assert enlarge_case(case, served, tmp_path)[0] == len(read_table(case))
    enlarged = load_case(tmp_path / name)
    after, _ = clean(read_table(enlarged), enlarged)
    assert len(after) == len(before) + 40
    inputs = [column.name for column in case.inputs]
    pd.testing.assert_frame_equal(
        after[[*inputs, "target"]].tail(40).reset_index(drop=True),
        served[[*inputs, "target"]].reset_index(drop=True),
    )
    if case.split.method == "time":
        assert set(after.index[-40:]) <= set(split(after, enlarged, seed=0)["test"].index)


def test_the_monitor_and_label_commands(tmp_path, monkeypatch):
    """`lepton label` counts labels and fails where a line doesn't fit; monitor goes on."""
    write_case(tmp_path / "desk", columns=COLUMNS, costs=COSTS, bands=BANDS)
    monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path))
    case = load_case(tmp_path / "desk")
    write_release(tmp_path / "run", case)
    scorer = Scorer(tmp_path / "run" / "service", case=case)
    log = PredictionLog(tmp_path / "run" / "service" / "predictions.sqlite")
    (known,) = log.append("r", scorer.version, [GOOD], scorer.score([GOOD]))
    log.close()
    table = tmp_path / "labels.csv"
    runner = CliRunner()
    for lines, code, words in (
        (f"{known},yes", 0, "1 labels attached"),
        (f"{known},yes\nnobody,no", 1, "the first is 'nobody'"),
    ):
        table.write_text(f"id,label\n{lines}\n")
        done = runner.invoke(app, ["label", str(tmp_path / "run"), str(table)])
        assert (done.exit_code, words in done.stdout) == (code, True), done.stdout
    done = runner.invoke(app, ["monitor", str(tmp_path / "run")])
    assert done.exit_code == 0
    assert "1 of 100 new rows: waiting for more" in done.stdout
    assert "report.html" in done.stdout


def test_what_another_person_has_signed_is_watched_once_their_key_is_trusted(tmp_path, monkeypatch):
    """Each command on a run's service refuses a stranger's release, and accepts it with --trust."""
    write_case(tmp_path / "desk", columns=COLUMNS, costs=COSTS, bands=BANDS)
    monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path))
    case, run, stranger = load_case(tmp_path / "desk"), tmp_path / "run", signing.public_key()
    write_release(run, case)
    scorer = Scorer(run / "service", case=case)
    rows = [GOOD] * 100
    log = PredictionLog(run / "service" / "predictions.sqlite")
    known = log.append("r", scorer.version, rows, scorer.score(rows))[0]
    log.close()
    (tmp_path / "labels.csv").write_text(f"id,label\n{known},yes\n")
    monkeypatch.setenv("LEPTON_CONFIG", str(tmp_path / "ours"))
    signing.public_key()
    for words in (
        ["log", run, "--find", known],
        ["log", run, "--parquet", tmp_path / "log.parquet"],
        ["label", run, tmp_path / "labels.csv"],
        ["container", run, tmp_path / "image"],
    ):
        refused = CliRunner().invoke(app, list(map(str, words)))
        assert f"If you trust its owner: --trust {stranger}" in str(refused.exception)
        done = CliRunner().invoke(app, [*map(str, words), "--trust", stranger])
        assert done.exit_code == 0, done.output
    assert f'"--trust", "{stranger}"' in (tmp_path / "image" / "Containerfile").read_text()


def test_monitor_again_and_again(monkeypatch):
    """With --every the look is repeated after that many minutes."""
    calls, pauses = [], []

    def monitor(run_dir, *, act, trust, notify):
        calls.append((str(run_dir), act, trust))
        notify("a stage")

    def sleep(seconds):
        if seconds < 300:  # another thread's
            return
        pauses.append(seconds)
        if len(pauses) >= 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(operations, "monitor", monitor)
    monkeypatch.setattr("time.sleep", sleep)
    command = ["monitor", "runs/none", "--every", "5", "--act", "--trust", "key"]
    done = CliRunner().invoke(app, command)
    assert (calls, pauses) == ([("runs/none", True, ["key"])] * 3, [300.0] * 3)
    assert done.stdout == "a stage\n" * 3
    assert done.exit_code != 0
