"""Many runs: sets, shared steps, a journal that loses nothing, a table, a page, an honest best."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_lib import runs
from lepton_lib.errors import LeptonError, NotebookError, ParameterError, RunError
from lepton_lib.runs import Limits, RunRecord, results
from lepton_lib.runs.parameter_sets import combine, folder_name, parse_values, read_table
from lepton_lib.runs.records import JOURNAL, append_record, read_records
from tests.test_runs import alive, wait_until
from tests.tiny import METRICS, write_loop, write_notebook

# Sets


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0..3", ["0", "1", "2", "3"]),
        ("1e-4,1e-3", ["1e-4", "1e-3"]),
        ("-1..0, 7", ["-1", "0", "7"]),
        ("mlp", ["mlp"]),
    ],
)
def test_values(text, values):
    """Lists and ranges, both ends included."""
    assert parse_values(text) == values


def test_combinations(tmp_path):
    """A grid, pairs, a sample that is the same every time, and the rows of a table."""
    values = {"lr": ["1", "2"], "seed": ["0", "1", "2"]}
    grid = combine(values)
    assert len(grid) == 6
    assert grid[:2] == [{"lr": "1", "seed": "0"}, {"lr": "1", "seed": "1"}]
    assert combine({"lr": ["1", "2"], "seed": ["0", "1"], "x": ["a"]}, how="zip") == [
        {"lr": "1", "seed": "0", "x": "a"},
        {"lr": "2", "seed": "1", "x": "a"},
    ]
    sample = combine(values, sample=3)
    assert sample == combine(values, sample=3)
    assert len(sample) == 3
    assert all(one in grid for one in sample)
    (tmp_path / "t.csv").write_text("lr,model\n0.1,mlp\n0.2,linear\n")
    rows = read_table(tmp_path / "t.csv")
    assert combine({"seed": ["0", "1"]}, rows=rows)[-1] == {
        "lr": "0.2",
        "model": "linear",
        "seed": "1",
    }
    with pytest.raises(ParameterError, match="'lr': got 2 values, expected 1 or 3"):
        combine(values, how="zip")
    with pytest.raises(ParameterError, match="'lr': got values in the table and in -p"):
        combine(values, rows=rows)


def test_folder_names():
    """Short, safe, the same whatever the order, and different where the values differ."""
    name = folder_name({"seed": "7", "lr": "1e-3"})
    assert name == folder_name({"lr": "1e-3", "seed": "7"})
    assert re.fullmatch(r"lr-1e-3_seed-7_[0-9a-f]{8}", name)
    odd = [folder_name({"x": text}) for text in ("a/b", "a:b", "A/b", "é" * 300, "", "con. ")]
    assert len(set(map(str.lower, odd))) == len(odd)
    assert all(re.fullmatch(r"[a-z0-9._-]{1,60}", one) for one in odd)


# Sweeps


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """A tiny loop as the course that is found; 02's loss depends on its parameters."""
    paths = write_loop(tmp_path)
    source = paths[2].read_text()
    fixed = json.dumps(f"step.finish(**{METRICS['02_training']!r})")[1:-1]
    assert fixed in source
    own = "step.finish(model=model, validation_loss=1 / epochs + seed * 1e-3)"
    paths[2].write_text(source.replace(fixed, own))
    monkeypatch.chdir(tmp_path)
    return paths


def counted(path, log):
    """Have a notebook write a line each time that it runs."""
    nb = json.loads(path.read_text())
    nb["cells"][-1]["source"] = (
        f"with open({str(log)!r}, 'a') as file:\n    file.write('{path.stem}\\n')\n"
        + "".join(nb["cells"][-1]["source"])
    )
    path.write_text(json.dumps(nb))


def test_sweep(loop, tmp_path):
    """Each set has a run with its metrics; what they share runs once, and is linked."""
    log = tmp_path / "log"
    for path in loop[:3]:
        counted(path, log)
    sets = combine({"epochs": ["2", "4"], "seed": ["0", "1"]})
    seen = []
    found = runs.sweep("02", sets, out="s", jobs=2, report=lambda *event: seen.append(event[1:]))
    assert [(r.parameters, r.status) for r in found] == [
        ({"epochs": epochs, "seed": seed}, "done") for epochs in (2, 4) for seed in (0, 1)
    ]
    assert [round(r.metrics["validation_loss"], 4) for r in found] == [0.5, 0.501, 0.25, 0.251]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    ran = log.read_text().split()
    assert (ran.count("01_data"), ran.count("02_training")) == (2, 4)
    file = tmp_path / "s" / found[0].name / "data" / "train.parquet"
    assert file.stat().st_nlink == 3
    assert found[0].data["data/train.parquet"]
    assert found[0].packages["torch"]


@pytest.mark.usefixtures("loop")
def test_a_sweep_is_checked_before_it_starts(tmp_path):
    """One wrong value of one set stops all; a folder with a sweep isn't written over."""
    for wrong in ({"epochs": ["3", "0"]}, {"epoch": ["3"]}, {"case": ["credit", "credits"]}):
        with pytest.raises(LeptonError):
            runs.sweep("02", combine(wrong), out=tmp_path / "s")
    assert not (tmp_path / "s").exists()
    runs.sweep("00_environment", [{}], out=tmp_path / "s")
    with pytest.raises(RunError, match="--resume"):
        runs.sweep("00_environment", [{}], out=tmp_path / "s")


def test_resume(loop, tmp_path):
    """Only what failed, is missing or out of date is made again."""
    log = tmp_path / "log"
    counted(loop[0], log)
    pause = tmp_path / "broken"
    nb = json.loads(loop[0].read_text())
    nb["cells"][-1]["source"] += (
        f"\nimport os\nassert seed != 1 or not os.path.exists({str(pause)!r})"
    )
    loop[0].write_text(json.dumps(nb))
    pause.touch()
    sets = combine({"seed": ["0", "1", "2"]})
    first = runs.sweep("00_environment", sets, out="s", jobs=1)
    assert [r.status for r in first] == ["done", "failed", "done"]
    assert "AssertionError" in first[1].reason
    pause.unlink()
    more = combine({"seed": ["0", "1", "2", "3"]})
    again = runs.sweep("00_environment", more, out="s", jobs=1, resume=True)
    assert [r.status for r in again] == ["done"] * 4
    assert log.read_text().split() == ["00_environment"] * 5
    loop[0].write_text(loop[0].read_text().replace("seed != 1", "seed != 9"))
    runs.sweep("00_environment", sets, out="s", jobs=1, resume=True)
    assert len(log.read_text().split()) == 8


def test_fail_fast_retries_and_limits(tmp_path):
    """A failure can end a sweep; a run can be tried again; one that takes too long fails."""
    path = write_notebook(
        tmp_path / "n.ipynb",
        ("p", "seed = 0\nwait = 0.0", "parameters"),
        (
            "work",
            "import os, time\ntime.sleep(wait)\nn = len(os.listdir('tries'))\n"
            "open(f'tries/{n}', 'w').close()\nassert n > 0 and seed < 5",
        ),
    )
    (tmp_path / "tries").mkdir()
    (record,) = runs.sweep(path, [{}], out=tmp_path / "a", retries=1)
    assert (record.status, record.attempts) == ("done", 2)
    assert "AssertionError" in record.reason
    sets = combine({"seed": parse_values("5..99")})
    found = runs.sweep(path, sets, out=tmp_path / "b", jobs=1, fail_fast=True)
    assert {r.status for r in found} == {"failed"}
    assert len(found) < 5
    (slow,) = runs.sweep(path, [{"wait": 60}], out=tmp_path / "c", limits=Limits(seconds=1))
    assert "TimeoutError" in slow.reason
    assert slow.seconds < 20


@pytest.mark.usefixtures("loop")
def test_run(tmp_path):
    """One run from Python, typed; a failure is an exception."""
    record = runs.run("02", run_dir=tmp_path / "r", parameters={"epochs": 5})
    assert isinstance(record, RunRecord)
    assert record.metrics["validation_loss"] == 0.2
    bad = write_notebook(tmp_path / "bad.ipynb", ("p", "n = 0", "parameters"), ("c", "1 / n"))
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        runs.run(bad, run_dir=tmp_path / "b")


@pytest.mark.usefixtures("loop")
def test_two_sweeps_in_one_folder(tmp_path):
    """The second is refused while the first is at work."""
    from lepton_lib.artefacts import exclusive_lock

    with exclusive_lock(tmp_path / "s"), pytest.raises(RunError, match="another is at work"):
        runs.sweep("00_environment", [{}], out=tmp_path / "s")


def four_seeds(path):
    """The command of a sweep over four seeds, two at a time, into the folder ``s``."""
    command = [sys.executable, "-m", "lepton_lib.cli", "sweep", str(path)]
    return [*command, "-p", "seed=0..3", "--jobs", "2", "--out", "s"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_sweep_loses_nothing(tmp_path, sign):
    """What was done stays and isn't made again; the rest is; no process is left."""
    path = write_notebook(
        tmp_path / "n.ipynb",
        ("p", "seed = 0", "parameters"),
        (
            "work",
            "import os, time\nopen(f'at_{seed}_{os.getpid()}', 'w').close()\n"
            "time.sleep(0 if seed < 2 or os.path.exists('go') else 300)",
        ),
    )
    words = four_seeds(path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: len(list(tmp_path.glob("at_*"))) == 4, 90)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if sign == signal.SIGINT else -9)
    assert "Traceback" not in said
    wait_until(lambda: not any(alive(p.name.split("_")[2]) for p in tmp_path.glob("at_*")), 5)
    assert {r.parameters["seed"] for r in read_records(tmp_path / "s").values()} == {0, 1}
    if sign == signal.SIGINT:
        assert len(pd.read_parquet(tmp_path / "s" / "runs.parquet")) == 2
    (tmp_path / "go").touch()
    done = subprocess.run([*words, "--resume"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert [len(list(tmp_path.glob(f"at_{seed}_*"))) for seed in range(4)] == [1, 1, 2, 2]


def test_a_line_that_was_cut_off(tmp_path):
    """The journal's half line is left out, and the next record stands on a line of its own."""
    record = RunRecord("a", {"seed": 0}, "done", 1.0, {"auc": 0.8})
    append_record(tmp_path, record)
    with open(tmp_path / JOURNAL, "ab") as file:
        file.write(b'{"name": "b", "para')
    append_record(tmp_path, RunRecord("c", {"seed": 1}, "failed", 1.0, {}, reason="why"))
    assert list(read_records(tmp_path)) == ["a", "c"]


def test_a_killed_dask_worker_repeats_only_its_run(tmp_path):
    """`--on dask` makes the same runs; a run whose worker was killed starts again elsewhere."""
    pytest.importorskip("distributed")
    kill = (
        "import os, signal\ndef parent(pid):\n"
        "    return int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1])\n"
        "open(f'at_{seed}_{os.getpid()}', 'w').close()\n"
        "if seed == 1 and not os.path.exists('killed'):\n"
        "    open('killed', 'w').close()\n"
        "    os.kill(parent(os.getppid()), signal.SIGKILL)  # the server's parent\n"
        "    import time; time.sleep(300)"
    )
    path = write_notebook(tmp_path / "n.ipynb", ("p", "seed = 0", "parameters"), ("work", kill))
    words = four_seeds(path)
    done = subprocess.run([*words, "--on", "dask"], cwd=tmp_path, check=False, timeout=300)
    assert done.returncode == 0
    assert sorted(r.parameters["seed"] for r in read_records(tmp_path / "s").values()) == [
        0,
        1,
        2,
        3,
    ]
    assert len(list(tmp_path.glob("at_1_*"))) == 2


# Results


def made(n_sets, n_seeds, lead=0.0, noise=0.01):
    """Records whose sets differ by chance, and the last one's lead."""
    draw = np.random.default_rng(0).normal
    return [
        RunRecord(
            f"r{k}_{seed}",
            {"lr": k / 100, "seed": seed},
            "done",
            1.0,
            {"auc": 0.8 + (lead if k == n_sets - 1 else 0) + float(draw()) * noise, "model": "mlp"},
        )
        for k in range(n_sets)
        for seed in range(n_seeds)
    ]


def test_best_is_corrected():
    """Of equal sets the best's lead is called luck and taken back; a real lead mostly stays."""
    equal = results.best(made(20, 5), "auc")
    assert equal.value > 0.805
    assert abs(equal.luck - 1.867 * equal.noise) < 1e-3
    assert abs(equal.corrected - 0.8) < 0.5 * abs(equal.value - 0.8)
    real = results.best(made(20, 5, lead=0.1), "auc")
    assert real.parameters == {"lr": 0.19}
    assert real.corrected > 0.89
    assert "Shrunk towards the mean" in real.to_text()
    once = results.best(made(5, 1), "auc")
    assert once.luck is None
    assert "Repeat seeds" in once.to_text()
    with pytest.raises(RunError, match="one of: auc, model"):
        results.best(made(2, 1), "loss")


def test_smaller_is_better():
    """A loss is best at its lowest, unless one says otherwise."""
    records = [RunRecord(f"r{k}", {"k": k}, "done", 1.0, {"log_loss": float(k)}) for k in range(3)]
    assert results.best(records, "log_loss").value == 0
    assert results.best(records, "log_loss", lowest=False).value == 2


def test_compare(tmp_path):
    """Two runs' differences; a metric's over the seeds that both have, with its interval."""
    for record in made(2, 5, lead=0.1):
        append_record(tmp_path, record)
    rows = results.compare(tmp_path / "r0_0", tmp_path / "r1_0").set_index("name")
    assert list(rows.index) == ["lr", "auc"]
    shown = re.fullmatch(r"(\+\S+) \((\+\S+) to (\+\S+), 5 seeds\)", rows.loc["auc", "difference"])
    mean, low, high = map(float, shown.groups())
    assert low < 0.1 < high
    assert low < mean < high


def test_page_and_table(tmp_path):
    """The page stands alone, with a row for each run and plots; the table reads back typed."""
    records = [
        *made(3, 2),
        RunRecord("bad", {"lr": 9.0, "seed": 0}, "failed", 2.0, {}, reason="<b>"),
    ]
    page = results.write_results(tmp_path, records, title="Sweep of 02").read_text()
    assert page.count('<th scope="row">') == 7
    assert "7 runs, 1 failed" in page
    assert "&lt;b&gt;" in page
    assert page.count("<svg") == 3
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", page)
    table = pd.read_parquet(tmp_path / "runs.parquet")
    assert table["auc"].notna().sum() == 6
    assert table["lr"].dtype == float


def test_ten_thousand_runs(tmp_path):
    """Listed in less than two seconds."""
    import msgspec

    lines = [
        msgspec.json.encode(
            RunRecord(f"r{k}", {"lr": k / 1e4, "seed": k}, "done", 1.0, {"auc": 0.5})
        )
        for k in range(10_000)
    ]
    (tmp_path / JOURNAL).write_bytes(b"\n".join(lines))
    started = time.process_time()
    table = results.to_table(list(read_records(tmp_path).values()))
    assert len(table) == 10_000
    assert time.process_time() - started < 2


@pytest.mark.usefixtures("loop")
def test_commands(lepton):
    """`sweep`, `best` and `compare` print what was found; a wrong value is a usage error."""
    words = ["sweep", "02", "-p", "epochs=2,4", "-p", "seed=0,1", "--out", "s", "--junit", "j.xml"]
    code, out, err = lepton(*words)
    assert code == 0, err
    assert "4 runs, " in err
    assert 'tests="4" failures="0"' in Path("j.xml").read_text()
    code, out, _ = lepton("best", "s", "--by", "validation_loss")
    assert "epochs = 4: validation loss 0.2" in out
    names = sorted(read_records(Path("s")))
    code, out, _ = lepton("compare", f"s/{names[0]}", f"s/{names[2]}")
    assert (code, "epochs" in out, "2 seeds" in out) == (0, True, True)
    assert lepton(*words)[0] == 2
    assert lepton("sweep", "02", "-p", "epochs=0", "--out", "t")[0] == 2
