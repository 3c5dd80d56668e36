"""A run folder over time: windows, retraining, promotion, rollback, and kill -9 in between."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lepton_lib import operations, serving
from lepton_lib.artefacts import Run, exclusive_lock
from lepton_lib.cases import load_case
from lepton_lib.data import to_records
from lepton_lib.errors import DataError, NotebookError, RunError
from lepton_lib.operations import report, retraining, watched
from lepton_lib.operations import windows as windows_module
from lepton_lib.operations.journal import Journal
from lepton_lib.operations.labels import _read_labels
from lepton_lib.operations.report import plain, ticks, write_report
from lepton_lib.operations.watched import WatchedRun
from lepton_lib.runs import run_loop
from lepton_lib.runs.notebooks import loop_notebooks
from lepton_lib.serving import (
    PredictionLog,
    Scorer,
    attach_labels,
    log_maintenance,
    log_reading,
    read_log,
    releases,
    signing,
)
from lepton_lib.utils import sha256_of
from tests.conftest import write_case
from tests.service import ask, call

COLUMNS = [
    {"name": "x", "kind": "number", "min": 0, "max": 100, "meaning": "a number"},
    {
        "name": "colour",
        "kind": "category",
        "categories": ["red", "blue"],
        "meaning": "a word",
        "sensitive": True,
    },
]
COSTS = {"unit": "losses", "matrix": {"no": {"no": 0, "yes": 1}, "yes": {"no": 2, "yes": 0}}}
CRITERIA = {
    "auc": {"at_least": 0.6, "why": "chance is 0.5"},
    "drift_psi": {"at_most": 0.2, "why": "agreed"},
}
POLICY = {"min_rows": 80, "min_labels": 60, "patience": 2, "cool_down_hours": 24}
DAY = 86_400.0
NOW = 1_700_000_000.0


def things(n, *, seed, moved=False):
    """Things of which the large are *yes*; those that ``moved`` far are *no* again."""
    generator = np.random.default_rng(seed)
    x = generator.normal(20 if moved else 8, 2, size=n).clip(0, 100).round(9)
    p = 1 / (1 + np.exp(-(x - 8))) if not moved else np.full(n, 0.1)
    colour = pd.Categorical(generator.choice(["red", "blue"], n), categories=["red", "blue"])
    return pd.DataFrame({"x": x, "colour": colour, "target": (generator.random(n) < p).astype(int)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small case and a run of it, by the course's own notebooks up to the service."""
    folder = tmp_path_factory.mktemp("watched")
    rows = things(1000, seed=0)
    table = (
        rows.assign(label=rows["target"].map({0: "no", 1: "yes"}))
        .drop(columns="target")
        .to_csv(index=False)
    )
    case = write_case(
        folder / "things",
        table,
        columns=COLUMNS,
        costs=COSTS,
        policy=POLICY,
        charter={"criteria": CRITERIA},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEPTON_DATASETS", str(folder))
        given = {"case": "things", "epochs": 40, "model": "linear", "draws": 100, "requests": 20}
        run_loop(run_dir=folder / "run", parameters=given, notebooks=loop_notebooks()[1:5])
    # what 04 asked itself
    (folder / "run" / "service" / "predictions.sqlite").unlink(missing_ok=True)
    assert case.exists()
    return folder


def at(place):
    """The case and run folder that lie there."""
    return place / "run", load_case(place / "things")


def serve(place, rows, *, labels=True, trust=None):
    """Answer rows as the service does, by the model at work, and let their labels come at once."""
    run, case = at(place)
    scorer = Scorer(releases.folder_of(run), case=case, trust=trust)
    log = PredictionLog(run / "service" / "predictions.sqlite")
    records = to_records(rows, case)
    ids = []
    for start in range(0, len(records), 50):
        part = records[start : start + 50]
        ids += log.append("r", scorer.version, part, scorer.score(part))
    log.close()
    if labels:
        labels = {
            id_: case.classes[int(label)] for id_, label in zip(ids, rows["target"], strict=True)
        }
        attach_labels(run / "service" / "predictions.sqlite", labels, case)
    return ids


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Copies a state of the folder for one test, so that its case is found there."""

    def make(source, name="copy"):
        shutil.copytree(source, tmp_path / name)
        monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path / name))
        return tmp_path / name

    return make


@contextlib.contextmanager
def later(source, folder):
    """A copy of a state in ``folder`` that may be changed; its case is found there meanwhile."""
    place = folder / "state"
    shutil.copytree(source, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEPTON_DATASETS", str(place))
        yield place


@pytest.fixture(scope="module")
def alarmed(trained, tmp_path_factory):
    """A calm window and an odd one were judged; the rows of a third, odd again, have come."""
    with later(trained, tmp_path_factory.mktemp("alarmed")) as place:
        sentences = []
        for day, moved in enumerate((False, True)):
            serve(place, things(100, seed=day + 1, moved=moved))
            operations.monitor(place / "run", now=NOW + day * DAY, notify=sentences.append)
        serve(place, things(260, seed=3, moved=True))
    assert [line.rpartition(" ")[2] for line in sentences] == ["nothing", "watch"]
    return place


@pytest.fixture(scope="module")
def shadowed(alarmed, tmp_path_factory):
    """The third window led to a retraining, whose challenger answers in the shadow."""
    with later(alarmed, tmp_path_factory.mktemp("shadowed")) as place:
        operations.monitor(place / "run", act=True, now=NOW + 3 * DAY)
    return place


def look(place, **options):
    """One look, and the journal after it: windows and acts."""
    sentences = []
    operations.monitor(place / "run", notify=sentences.append, **options)
    journal = Journal(place / "run")
    windows, acts = [*journal.windows()][::-1], journal.acts()
    journal.close()
    return windows, acts, sentences


def test_retraining_runs_the_notebooks_on_the_enlarged_case(shadowed, alarmed):
    """Two alarms and labels lead to an enlarged case, the loop run on it, and a comparison."""
    journal = Journal(shadowed / "run")
    (act,) = journal.acts()
    folder = shadowed / "run" / "monitoring" / "retrain-003"
    steps = json.loads((folder / "run" / "manifest.json").read_text())["steps"]
    assert list(steps) == ["01_data", "02_training", "03_evaluation", "04_deployment"]
    assert (act.stage, act.content.rows, act.content.served) == ("shadow", 1000, 460)
    assert steps["02_training"]["parameters"]["epochs"] == 40
    assert len((folder / "things" / "table.csv").read_text().splitlines()) == 1 + 1000 + 460
    assert act.content.differences["served rows"][1] > 0
    assert (
        releases.current_version(shadowed / "run") == act.content.champion != act.content.challenger
    )
    assert (
        "under way"
        in json.loads((shadowed / "run" / "monitoring" / "report.json").read_text())["next"]
    )
    assert not (alarmed / "run" / "monitoring" / "retrain-003").exists()


def test_what_is_erased_goes_from_retrainings_too(copy, shadowed, lepton):
    """An erased prediction leaves every table of a retraining, which goes on with the rest."""
    place = copy(shadowed)
    run, case = at(place)
    folder = run / "monitoring" / "retrain-003"
    log = read_log(run / "service" / "predictions.sqlite", case)
    test = pd.read_parquet(folder / "run" / "data" / "test.parquet")
    gone = log.index[log["x"].isin(test["x"]) & (log["x"] > 15)][0]
    x = repr(float(log.loc[gone, "x"]))
    tables = [folder / "things" / "table.csv", *folder.glob("run/data/*.parquet")]
    before = [len(read_any(table)) for table in tables]
    assert {path.stat().st_mode & 0o077 for path in (folder, tables[0])} == {0}
    code, out, _ = lepton("log", run, "--erase", gone)
    assert (code, out) == (0, "1 predictions erased.\n2 rows erased from tables of retrainings.\n")
    after = [read_any(table) for table in tables]
    assert sum(before) - sum(map(len, after)) == 2
    assert not any((table["x"].astype(float) == float(x)).any() for table in after)
    assert x.encode() not in tables[0].read_bytes()
    serve(place, things(100, seed=9, moved=True))
    _, acts, _ = look(place, act=True, now=NOW + 4 * DAY)
    assert acts[0].stage in ("promoted", "kept")


def read_any(table):
    """A CSV or Parquet file."""
    return pd.read_csv(table) if table.suffix == ".csv" else pd.read_parquet(table)


def test_a_better_challenger_is_promoted_and_a_worse_one_rolled_back(copy, shadowed):
    """After its trial the challenger answers; when the old truth returns, it is rolled back."""
    place = copy(shadowed)
    champion = releases.current_version(place / "run")
    serve(place, things(100, seed=5, moved=True))
    _, (act,), _ = look(place, act=True, now=NOW + 4 * DAY)
    assert act.stage == "promoted", act
    assert releases.current_version(place / "run") == act.content.challenger != champion
    shadow = pd.read_parquet(place / "run" / "monitoring" / "retrain-003" / "shadow.parquet")
    assert shadow.shape == (100, 5)
    again = things(200, seed=6, moved=True)
    serve(place, again.assign(target=1))
    windows, acts, _ = look(place, act=True, now=NOW + 5 * DAY)
    assert windows[-1].decision.action == "roll back"
    assert windows[-1].model_version == act.content.challenger
    assert (acts[-1].stage, acts[-1].content.to) == ("rolled back", champion)
    lights = json.loads((place / "run" / "monitoring" / "report.json").read_text())["lights"]
    (predecessor,) = [entry for entry in lights if entry["signal"] == "Predecessor"]
    assert (predecessor["light"], "is certainly worse" in predecessor["text"]) == ("act", True)
    assert releases.current_version(place / "run") == champion
    serve(place, things(100, seed=7))
    windows, acts, _ = look(place, act=True, now=NOW + 6 * DAY)
    assert (len(acts), windows[-1].model_version) == (2, champion)


def test_a_strangers_model_is_watched_and_followed_by_ones_own(
    copy, alarmed, shadowed, monkeypatch, tmp_path
):
    """A trusted stranger's key counts beside one's own: when judging, comparing and promoting."""
    replayed(monkeypatch, shadowed)
    place, stranger = copy(alarmed), signing.public_key()
    monkeypatch.setenv("LEPTON_CONFIG", str(tmp_path / "ours"))
    with pytest.raises(RunError, match="the key"):
        look(place, act=True, now=NOW + 3 * DAY, trust=[signing.public_key()])
    _, (act,), _ = look(place, act=True, now=NOW + 3 * DAY, trust=[stranger])
    assert act.stage == "shadow"
    serve(place, things(100, seed=5, moved=True), trust=[stranger])
    _, (act,), _ = look(place, act=True, now=NOW + 4 * DAY, trust=[stranger])
    assert act.stage == "promoted"


def draw_in_blocks(run, block):
    """Let a run's 03 have drawn so many neighbouring rows together."""
    path, manifest = run / "evaluation" / "metrics.json", run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"block": block}))
    noted = json.loads(manifest.read_text())
    noted["steps"]["03_evaluation"]["files"]["evaluation/metrics.json"] = sha256_of(path)
    manifest.write_text(json.dumps(noted))


def test_rows_that_err_together_are_less_evidence(copy, shadowed):
    """Where 03 drew neighbours together, so does the comparison with the predecessor."""
    actions, promoted = {}, copy(shadowed, "promoted")
    serve(promoted, things(100, seed=5, moved=True))
    look(promoted, act=True, now=NOW + 4 * DAY)
    for block in (1, 40):
        place = copy(promoted, f"block-{block}")
        draw_in_blocks(place / "run" / "monitoring" / "retrain-003" / "run", block)
        odd = np.arange(400) < 300  # in which the predecessor is right
        serve(place, things(400, seed=6, moved=True).assign(target=odd.astype(int)))
        windows, _, _ = look(place, now=NOW + 5 * DAY)
        actions[block] = windows[-1].decision.action
        value, low, _ = windows[-1].signals.versus_previous
        assert value > 0
        assert (low > 0) == (block == 1)
    assert (actions[1], actions[40] == "roll back") == ("roll back", False)


def test_a_challenger_that_proves_worse_is_not_promoted(copy, shadowed):
    """When the trial's labels side with the champion, it stays, and the reasons are noted."""
    place = copy(shadowed)
    champion = releases.current_version(place / "run")
    serve(place, things(200, seed=5, moved=True).assign(target=1))
    _, (act,), _ = look(place, act=True, now=NOW + 4 * DAY)
    assert (act.stage, releases.current_version(place / "run")) == ("kept", champion)
    assert "certainly worse on served rows" in " ".join(act.content.reasons)
    page = (place / "run" / "monitoring" / "report.html").read_text()
    assert "the champion stays" in page


def test_rows_that_were_learnt_from_prove_nothing(copy, shadowed, monkeypatch):
    """Rows that were learnt from or compared already don't count in the trial."""
    place, compared = copy(shadowed), []
    real = retraining.paired_difference

    def note(metric, labels, *answers, **options):
        compared.append(len(labels))
        return real(metric, labels, *answers, **options)

    monkeypatch.setattr(retraining, "paired_difference", note)
    serve(place, things(260, seed=3, moved=True))  # the third window's rows once more
    _, (act,), _ = look(place, act=True, now=NOW + 4 * DAY)
    test = pd.read_parquet(place / "run/monitoring/retrain-003/run/data/test.parquet")
    assert act.content.shadowed == 260
    assert compared[0] == (test.index > 1001).sum()


def replayed(monkeypatch, shadowed):
    """Let retraining leave what the real notebooks left, without running them again."""

    def run_again(*, run_dir, **_):
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(shadowed / "run" / "monitoring" / "retrain-003" / "run", run_dir)

    monkeypatch.setattr(retraining, "run_loop", run_again)


POINTS = [
    (Journal, "record"),
    (Journal, "advance"),
    (retraining, "run_loop"),
    (releases, "install"),
    (releases, "promote"),
    (os, "replace"),
    (Path, "rename"),
    (windows_module, "write_report"),
    (pd.DataFrame, "to_parquet"),
    (retraining, "_case_toml"),
    (releases, "roll_back"),
]


def killed_at(point, place, now):
    """Run one look in a process that dies before its ``point``-th step; whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:  # never returns into pytest
        steps = 0
        for owner, name in POINTS:
            real = getattr(owner, name)

            def step(*values, _real=real, **options):
                nonlocal steps
                steps += 1
                if steps == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return _real(*values, **options)

            setattr(owner, name, step)
        try:
            operations.monitor(place / "run", act=True, now=now)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"the look itself failed, at step {point}"
    return status == signal.SIGKILL


@pytest.mark.parametrize("phase", ["retrain", "promote", "roll back"])
def test_killed_before_any_step_nothing_is_lost_or_done_twice(
    copy, alarmed, shadowed, monkeypatch, phase
):
    """Whichever step a kill -9 precedes, the next look ends as an undisturbed one does."""
    replayed(monkeypatch, shadowed)
    source = copy({"retrain": alarmed}.get(phase, shadowed), "source")
    if phase != "retrain":
        serve(source, things(100, seed=5, moved=True))
    if phase == "roll back":
        operations.monitor(source / "run", act=True, now=NOW + 4 * DAY)
        serve(source, things(200, seed=6, moved=True).assign(target=1))
    expected, point = None, 0
    while True:
        place = copy(source, f"{phase}-{point}")
        died = point > 0 and killed_at(point, place, NOW + 5 * DAY)
        windows, acts, _ = look(place, act=True, now=NOW + 5 * DAY)
        journal = Journal(place / "run")
        judged = journal.judged()
        journal.close()
        log = read_log(place / "run" / "service" / "predictions.sqlite", at(place)[1])
        assert set(judged) == set(log.index)
        past = [entry["action"] for entry in releases.history(place / "run")]
        found = [
            [w.decision for w in windows],
            [(a.window, a.action, a.stage) for a in acts],
            past,
        ]
        expected = expected or found
        assert found == expected, f"after a kill before step {point}"
        if point and not died:
            break
        point += 1
        shutil.rmtree(place)
    ends = {"retrain": "shadow", "promote": "promoted", "roll back": "rolled back"}
    assert expected[1][-1][2] == ends[phase]
    assert point > 4


def test_too_few_rows_wait(copy, trained):
    """Rows that make no window yet are left for the next look, and none is judged twice."""
    place = copy(trained)
    serve(place, things(50, seed=1))
    windows, _, sentences = look(place, now=NOW)
    assert (windows, sentences) == ([], ["50 of 80 new rows: waiting for more"])
    assert "50 of 80 rows" in (place / "run" / "monitoring" / "report.html").read_text()
    serve(place, things(40, seed=2))
    windows, _, _ = look(place, now=NOW)
    assert [window.rows for window in windows] == [90]
    assert len(look(place, now=NOW)[0]) == 1


def test_a_look_reads_only_what_is_new(copy, trained, monkeypatch):
    """However old the log, a look reads the rows since the last one, also after an erasure."""
    place, counts, first = copy(trained), [], ""
    run, case = at(place)
    log = run / "service" / "predictions.sqlite"
    real = log_reading.read_rows

    def counted(*values, **options):
        rows = real(*values, **options)
        counts.append(len(rows))
        return rows

    monkeypatch.setattr(log_reading, "read_rows", counted)
    for day in range(5):
        counts.clear()
        ids = serve(place, things(100, seed=day))
        if day == 2:
            # of a batch that was judged: the rest of it moves behind the new rows
            log_maintenance.erase(log, first)
            log_maintenance.keep_days(log, 1)
            counts.clear()
        windows = look(place, now=NOW + day * DAY)[0]
        assert (windows[-1].rows, sum(counts)) == (100, 200), (
            "the new rows once, the newly labelled once"
        )
        assert look(place, now=NOW + day * DAY)[2] == ["0 of 80 new rows: waiting for more"]
        first = ids[0]
    counts.clear()
    attach_labels(log, {first: "no"}, case)
    assert not counts
    assert (
        len(read_log(log, case, [first, ids[70], "nobody", f"{first}0", f"{first[:-1]}099"])) == 2
    )


def test_a_window_of_rows_that_cannot_be_read_is_left_out(copy, trained):
    """Where no row of the log can be read there is no window, and the next look goes on."""
    place = copy(trained)
    serve(place, things(100, seed=1))
    with sqlite3.connect(place / "run" / "service" / "predictions.sqlite") as log:
        log.execute("UPDATE batches SET inputs = '['")
    windows, _, sentences = look(place, now=NOW)
    assert (windows, sentences) == ([], ["100 rows that can't be read: in no window"])
    serve(place, things(90, seed=2))
    assert [window.rows for window in look(place, now=NOW)[0]] == [90]


def test_a_long_window_is_sampled_and_the_report_keeps_the_last(copy, trained, monkeypatch):
    """Of many rows evenly spaced ones are judged, all count as seen, and old windows make way."""
    place = copy(trained)
    monkeypatch.setattr(watched, "MOST_ROWS", 40)
    monkeypatch.setattr(report, "KEPT", 2)
    for day in range(3):
        serve(place, things(100, seed=day))
        windows, _, _ = look(place, now=NOW + day * DAY)
        assert (windows[-1].rows, windows[-1].of_rows) == (34, 100)
    assert look(place, now=NOW)[2] == ["0 of 80 new rows: waiting for more"]
    content = json.loads((place / "run" / "monitoring" / "report.json").read_text())
    assert [window["window"] for window in content["windows"]] == [2, 3]
    page = (place / "run" / "monitoring" / "report.html").read_text()
    assert "evenly spaced ones of 100" in page


def test_labels_are_judged_when_they_come(copy, trained):
    """Late labels count in the window in which they come, each once, if they are enough."""
    place = copy(trained)
    run, case = at(place)
    rows = things(100, seed=1)
    ids = serve(place, rows, labels=False)
    assert look(place, now=NOW)[0][-1].labels == 0
    table = place / "labels.csv"
    labels = [case.classes[label] for label in rows["target"]]
    pd.DataFrame({"id": ids, "label": labels})[:30].to_csv(table, index=False)
    assert str(operations.attach_file(run / "service/predictions.sqlite", table, case)).startswith(
        "30 labels attached"
    )
    serve(place, things(100, seed=2), labels=False)
    assert look(place, now=NOW)[0][-1].labels == 0, "30 are too few"
    pd.DataFrame({"id": ids, "label": labels}).to_csv(table, index=False)
    count = operations.attach_file(run / "service/predictions.sqlite", table, case)
    assert (count.attached, count.repeated, count.corrected, count.clean) == (70, 30, 0, True)
    serve(place, things(100, seed=3), labels=False)
    window = look(place, now=NOW)[0][-1]
    assert window.labels == 100
    assert {"auc", "cost", "calibration_error"} <= set(window.performance)
    serve(place, things(100, seed=4), labels=False)
    assert look(place, now=NOW)[0][-1].labels == 0, "each is judged once"


def test_labels_that_do_not_fit_are_counted_and_named(copy, trained):
    """Corrected, contradictory and unknown labels are counted apart; what fits is attached."""
    place = copy(trained)
    run, case = at(place)
    log = run / "service" / "predictions.sqlite"
    ids = serve(place, things(50, seed=1).assign(target=0))
    table = place / "labels.csv"
    lines = [
        f"{ids[0]},yes",
        f"{ids[1]},no",
        f"{ids[2]},yes",
        f"{ids[2]},no",
        "nobody,yes",
        "other,no",
    ]
    table.write_text("\n".join(["id,label", *lines, ""]))
    count = operations.attach_file(log, table, case)
    assert count == (0, 1, 1, [ids[2]], ["nobody", "other"], [])
    assert "2 ids that no prediction has; the first is 'nobody'" in str(count)
    assert not count.clean
    assert read_log(log, case)["target"].iloc[:3].tolist() == [1, 0, 0]
    table.write_text(f"\ufeffLabel;ID;note\nYES;{ids[3]};as Excel writes it\nmaybe;{ids[4]};\n")
    count = operations.attach_file(log, table, case)
    assert count == (0, 0, 1, [], [], [ids[4]])
    assert "1 ids with a label that the case doesn't know" in str(count)
    assert not count.clean
    assert read_log(log, case)["target"].iloc[:5].tolist() == [1, 0, 0, 1, 0]
    for text, problem in (
        ("who,label\n", "columns 'id' and 'label'"),
        ("", "empty"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=problem):
            operations.attach_file(log, table, case)
    with pytest.raises(DataError, match="no such file"):
        operations.attach_file(log, place / "none.csv", case)


@pytest.mark.parametrize(
    ("classes", "text", "label"),
    [
        (("0", "1"), "1.0", "1"),
        (("no", "No"), "No", "No"),
        (("no", "yes"), " YES ", "yes"),
        (("no", "yes"), "nan", None),
        ((), "1,5", 1.5),
        ((), "inf", None),
    ],
)
def test_labels_as_spreadsheets_write_them(tmp_path, classes, text, label):
    """A class's name may be written as a number with a point, and a number with a comma."""
    (tmp_path / "labels.csv").write_text(f"id;label\na;{text}\n")
    case = SimpleNamespace(classes=classes)
    assert _read_labels(tmp_path / "labels.csv", case) == {"a": {label}}


def test_the_report_stands_alone(shadowed):
    """The page loads nothing and names each light in words; the JSON keeps its form."""
    folder = shadowed / "run" / "monitoring"
    page = (folder / "report.html").read_text()
    assert len(page) < 300_000
    assert not re.findall(
        r"<script|<link(?! rel=.icon. href=.data:)|<img|@import|url\(|https?://", page
    )
    for word in (
        "all well",
        "watch",
        "Inputs",
        "Performance",
        "Groups",
        "Drift in x",
        ">agreed 0.2<",
        ">red</text>",
        ">blue</text>",
    ):
        assert word in page
    content = json.loads((folder / "report.json").read_text())
    assert list(content) == [
        "form",
        "case",
        "next",
        "waiting",
        "lights",
        "latest",
        "windows",
        "acts",
    ]
    assert content["form"] == 2
    assert set(content["latest"]) == {
        *(
            "form",
            "window",
            "time",
            "first",
            "last",
            "rows",
            "of_rows",
            "labels",
            "model_version",
            "decision",
            "state",
            "signals",
            "gap_to_previous",
        ),
        *("drift", "problems", "performance", "estimate", "groups", "distributions"),
    }
    by_name = {entry["column"]: entry for entry in content["latest"]["distributions"]}
    assert set(by_name) == {"x", "colour", "p_yes"}
    for entry in by_name.values():
        for part in ("reference", "current"):
            assert sum(entry[part]) == pytest.approx(1, abs=0.01)


def test_a_decision_is_under_way_only_once_it_has_begun(copy, alarmed):
    """Without --act the report says what was decided and how to begin, not that it is under way."""
    place = copy(alarmed)
    look(place, now=NOW + 3 * DAY)
    page = (place / "run" / "monitoring" / "report.html").read_text()
    assert "Retrain was decided in window 3 and hasn&#39;t begun" in page
    assert "is under way" not in page


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0.39, 0.89, ["0.2", "0.4", "0.6", "0.8", "1"]),
        (1200, 75_000, ["0", "50,000", "100,000"]),
        (5, 5, ["4", "6"]),
        (0, 0, ["0", "0.5"]),
    ],
)
def test_an_axis_has_round_numbers(low, high, marks):
    """The marks of an axis hold its values, are round, and are written without an exponent."""
    assert [plain(mark) for mark in ticks(low, high)] == marks


def test_what_a_case_says_is_data_on_the_page(copy, alarmed):
    """Markup in a case's title and in a category is shown as text."""
    place = copy(alarmed)
    toml = place / "things" / "case.toml"
    title = load_case(place / "things").title
    toml.write_text(toml.read_text().replace(title, "<b>A & B</b>"))
    run, case = at(place)
    with sqlite3.connect(run / "monitoring" / "journal.sqlite") as connection:
        connection.execute("UPDATE windows SET content = replace(content, 'blue', '<i>blue')")
    connection.close()
    journal = Journal(run)
    write_report(Run(run), case, journal, waiting=0)
    journal.close()
    page = (run / "monitoring" / "report.html").read_text()
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in page
    assert "colour: &lt;i&gt;blue" in page
    assert not re.findall("<b>|<i>", page)


def test_a_journal_of_another_form(copy, alarmed):
    """Windows of an older form are read, those of a later one are refused."""
    place = copy(alarmed)
    path = place / "run" / "monitoring" / "journal.sqlite"

    def rewrite(form):
        with sqlite3.connect(path) as connection:
            text = '"form": %d, "service": ["it fails"],'
            change = "UPDATE windows SET content = replace(content, ?, ?)"
            connection.execute(change, ['"form": 2,', text % form])
        connection.close()

    rewrite(1)
    windows, _, _ = look(place, now=NOW + 3 * DAY)
    assert [window.form for window in windows] == [1, 1, 2]
    assert "Drift in x" in (place / "run" / "monitoring" / "report.html").read_text()
    rewrite(9)
    with pytest.raises(RunError, match=r"journal\.sqlite.*form 2 or older"):
        operations.monitor(place / "run", now=NOW + 4 * DAY)


def test_a_run_without_a_service_is_refused(tmp_path):
    """Where nothing was deployed, the message says which notebook to run, and no folder is made."""
    with pytest.raises(RunError, match="04_deployment"):
        operations.monitor(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_monitor_at_a_time(copy, trained):
    """A second monitor of the same run folder is refused."""
    place = copy(trained)
    serve(place, things(10, seed=1))
    with (
        exclusive_lock(place / "run" / "monitoring"),
        pytest.raises(RunError, match="another is at work"),
    ):
        operations.monitor(place / "run", now=NOW)


def test_a_version_from_elsewhere_has_no_reference(copy, shadowed):
    """A model that none of the run's trainings made can't be judged, and the message says why."""
    place = copy(shadowed)
    run, case = at(place)
    watched = WatchedRun(Run(run), case, Journal(run), None)
    with pytest.raises(RunError, match="none of its trainings made"):
        watched.home_of("0" * 12)
    watched.journal.close()


def test_a_notebook_that_fails_is_taken_up_again(copy, alarmed, shadowed, monkeypatch):
    """When retraining fails, the decision stays open, and the next look goes on from there."""
    place = copy(alarmed)

    def fail(**_):
        raise NotebookError("notebook 02", "a fault", "none", "Fix it.")

    with monkeypatch.context() as patch:
        patch.setattr(retraining, "run_loop", fail)
        with pytest.raises(NotebookError):
            operations.monitor(place / "run", act=True, now=NOW + 3 * DAY)
    replayed(monkeypatch, shadowed)
    windows, (act,), _ = look(place, act=True, now=NOW + 3 * DAY)
    assert (len(windows), act.stage) == (3, "shadow")


def test_the_service_shows_the_report_live(copy, shadowed):
    """/monitor gives the last report beside the service's own counts, its style apart from it."""
    place = copy(shadowed)
    run, case = at(place)
    service = serving.create_app(run)
    try:
        ask(service, *to_records(things(3, seed=9), case))
        ask(service, {"x": "much"})
        page = call(service, "GET", "/monitor")
        style = call(service, "GET", "/monitor.css")
        (run / "monitoring" / "report.html").unlink()
        none = call(service, "GET", "/monitor")
    finally:
        service.log.close()
    assert (page.status_code, style.status_code, none.status_code) == (200, 200, 200)
    assert "<style" not in page.text
    assert "<h2>Signals</h2>" in page.text
    assert "Drift in x" in page.text
    assert re.search(r"<dt>requests</dt><dd>2</dd>", page.text)
    assert ".lights" in style.text
    assert style.headers["content-type"].startswith("text/css")
    assert "No report yet" in none.text
