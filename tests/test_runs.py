"""Parameters are checked, notebooks are run, loops resume, and pages stand alone."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lepton_lib import artefacts, runs
from lepton_lib.artefacts import OUTPUTS, STEPS, Run
from lepton_lib.cases import load_case
from lepton_lib.errors import CaseError, LeptonError, NotebookError, ParameterError, RunError
from lepton_lib.runs import pipeline
from lepton_lib.runs.notebook_html import markdown_to_html
from lepton_lib.runs.notebooks import loop_notebooks
from lepton_lib.runs.summary import number
from tests.conftest import light
from tests.tiny import PARAMETERS, TRAINING, work, write_loop, write_notebook


def alive(pid):
    """Whether a process runs; one that has ended and waits to be collected doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def snapshot(folder):
    """Every file below a folder, but for the lock."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def outputs(path):
    """All text that the cells of a stored notebook have put out."""
    nb = nbformat.read(path, as_version=4)
    return "".join(
        str(output) for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs
    )


@pytest.fixture
def training(tmp_path):
    cells = [
        ("parameters", PARAMETERS + TRAINING, "parameters"),
        ("show", "print(seed, lr, epochs, model, shuffle)"),
    ]
    return write_notebook(tmp_path / "notebooks" / "02_training.ipynb", *cells)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole loop that has run, to be copied before it is changed."""
    folder = tmp_path_factory.mktemp("finished")
    paths = write_loop(folder)
    events = []
    runs.run_loop(run_dir=folder / "run", notebooks=paths, progress=events.append)
    return folder, events


@pytest.fixture
def loop(finished, tmp_path):
    """A copy of the finished loop: its notebooks and its run folder."""
    shutil.copytree(finished[0], tmp_path / "loop")
    return [
        tmp_path / "loop" / "notebooks" / f"{step}.ipynb" for step in STEPS
    ], tmp_path / "loop" / "run"


def ran(paths, run_dir, **options):
    """The steps that a run of the loop has run, not those that were done already."""
    events = []
    runs.run_loop(run_dir=run_dir, notebooks=paths, progress=events.append, **options)
    return [event.notebook for event in events if event.state == "finished"]


# Parameters


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"epoch": "3"},
            r"'epoch'.*unknown name.*one of: case, epochs, lr.*Did you mean 'epochs'\?",
        ),
        ({"zzz": "3"}, r"'zzz'.*unknown name.*Check its spelling"),
        ({"epochs": "many"}, "'epochs' of 02_training: got 'many', expected an integer"),
        ({"epochs": "3.0"}, "got '3.0', expected an integer"),
        ({"epochs": "1e3"}, "got '1e3', expected an integer"),
        ({"epochs": 3.0}, "got 3.0, expected an integer"),
        ({"epochs": True}, "got True, expected an integer"),
        ({"epochs": "true"}, "got 'true', expected an integer"),
        ({"epochs": ""}, "got '', expected an integer"),
        ({"epochs": "0"}, r"got 0, expected a value in \[1, 1000\]"),
        ({"epochs": "1001"}, r"got 1001, expected a value in \[1, 1000\]"),
        ({"lr": "0"}, r"got 0.0, expected a value in \(0, 1\]"),
        ({"lr": "fast"}, "got 'fast', expected a number"),
        ({"lr": "nan"}, "got 'nan', expected a number"),
        ({"lr": "inf"}, "got 'inf', expected a number"),
        ({"lr": True}, "got True, expected a number"),
        ({"model": "ensembel"}, "expected one of: linear, mlp, ensemble. Did you mean 'ensemble'"),
        ({"model": 3}, "got 3, expected a text"),
        ({"shuffle": "perhaps"}, "got 'perhaps', expected true or false"),
        ({"shuffle": 1}, "got 1, expected true or false"),
        ({"case": "credits"}, "case 'credits': got no such case"),
    ],
)
def test_bad_parameter(training, tmp_path, given, said):
    """A wrong name or value is refused before anything is run or written."""
    with pytest.raises(LeptonError, match=said) as caught:
        runs.run_notebook(training, parameters=given, run_dir=tmp_path / "run")
    assert isinstance(caught.value, CaseError if "case" in given else ParameterError)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "1e-3", 0.001),
        ("lr", "1", 1.0),
        ("lr", 1, 1.0),
        ("epochs", " 12 ", 12),
        ("epochs", "1000", 1000),
        ("shuffle", "False", False),
        ("shuffle", "true", True),
        ("model", "linear", "linear"),
        ("run_dir", "a b/é", "a b/é"),
    ],
)
def test_good_parameter(training, name, text, value):
    """Values are taken as people write them and get the parameter's own type."""
    got = runs.check_parameters([training], {name: text})["02_training"][name]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([("a", "epochs = 3")], "got no cell tagged 'parameters'"),
        (
            [("a", "x = 1", "parameters"), ("b", "y = 1", "parameters")],
            "got 2 cells tagged 'parameters'",
        ),
        (
            [("a", "x = 1\ny = x + 1", "parameters")],
            "line 2: got y = x \\+ 1, expected name = a plain number",
        ),
        ([("a", "x = [1, 2]", "parameters")], r"line 1: got x = \[1, 2\]"),
        ([("a", "x = None", "parameters")], "line 1: got x = None"),
        ([("a", "import os", "parameters")], "line 1: got import os"),
        ([("a", "x = y = 1", "parameters")], "line 1: got x = y = 1"),
        ([("a", "x = 1\nx = 2", "parameters")], "line 2: got x = 2"),
        ([("a", "x = = 1", "parameters")], "expected Python"),
        ([("a", "x = 0  # [1, 2]", "parameters")], "default of 'x': got 0"),
    ],
)
def test_bad_parameters_cell(tmp_path, cells, said):
    """A notebook whose parameters can't be known beforehand is refused before anything runs."""
    with pytest.raises(ParameterError, match=said):
        runs.run_notebook(write_notebook(tmp_path / "n.ipynb", *cells), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "\x00"])
def test_no_notebook(tmp_path, content):
    """A file that is no notebook is refused by name."""
    (tmp_path / "n.ipynb").write_text(content)
    with pytest.raises(ParameterError, match=r"n\.ipynb: got a file that can't be read"):
        runs.read_parameters(tmp_path / "n.ipynb")


def test_parameters_reach_those_that_have_them(tmp_path):
    """In a loop a name is valid if any notebook has it, and it goes to those only."""
    values = runs.check_parameters(write_loop(tmp_path), {"epochs": "7", "seed": "5"})
    assert values["02_training"]["epochs"] == 7
    assert "epochs" not in values["01_data"]
    assert {entry["seed"] for entry in values.values()} == {5}


def test_read_parameters(training):
    """Names, defaults, types and comments come from the cell itself."""
    lr = runs.read_parameters(training)["lr"]
    assert lr == ("lr", 1e-3, float, "peak learning rate (0, 1]")


def test_find_notebook(tmp_path, monkeypatch):
    """A notebook is found by stem, unique prefix or path, from any folder of the course."""
    paths = write_loop(tmp_path)
    write_notebook(tmp_path / "notebooks" / ".ipynb_checkpoints" / "02_training-checkpoint.ipynb")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    for name in ("02_training", "02", "02_tr", "../../notebooks/02_training.ipynb"):
        assert runs.find_notebook(name).resolve() == paths[2].resolve()
    assert loop_notebooks() == paths
    for name, said in {
        "0": "got a prefix of 00_env.*Write more",
        "": "no such notebook",
        "02_trianing": "Did you mean '02_training'",
        "no.ipynb": "no such notebook",
    }.items():
        with pytest.raises(ParameterError, match=said):
            runs.find_notebook(name)


# One notebook


def test_run_notebook(training, tmp_path):
    """The executed notebook and its page land in the run folder, and the source stays as it was."""
    before = training.read_bytes()
    executed = runs.run_notebook(
        training, parameters={"lr": "1e-2", "seed": 9}, run_dir=tmp_path / "run"
    )
    assert training.read_bytes() == before
    assert "9 0.01 3 mlp True" in outputs(executed)
    assert "notebooks/02_training.html" in (tmp_path / "run" / "index.html").read_text()
    assert sorted(os.listdir(tmp_path / "run" / "notebooks")) == [
        "02_training.html",
        "02_training.ipynb",
    ]
    assert "pm" not in nbformat.read(executed, as_version=4).metadata
    assert [cell.metadata.get("tags") for cell in nbformat.read(executed, as_version=4).cells][
        2
    ] is None


def test_exercises_and_lessons(tmp_path):
    """A pipeline run leaves exercises, their texts and lessons out, a whole run has them."""
    cells = [
        "## Ways\n\nA way.\n\n### Exercise 07.1: Which?\n\nTry it.\n\n## Ends",
        ("p", "seed = 0", "parameters"),
        ("e", "print('EX')", "exercise"),
        ("l", "print('LE')", "lesson"),
    ]
    path = write_notebook(tmp_path / "n.ipynb", *cells, ("s", "print('STEP')"))
    executed = runs.run_notebook(path, run_dir=tmp_path / "a")
    assert re.findall("EX|LE|STEP", outputs(executed)) == ["STEP"]
    assert nbformat.read(executed, 4).cells[0].source == "## Ways\n\nA way.\n\n## Ends"
    whole = runs.run_notebook(path, run_dir=tmp_path / "b", whole=True)
    assert re.findall("EX|LE|STEP", outputs(whole)) == ["EX", "LE", "STEP"]


def test_allowed_exception(tmp_path):
    """A cell tagged raises-exception may raise, and the notebook continues."""
    cells = [
        ("p", "seed = 0", "parameters"),
        ("raise", "1 / 0", "raises-exception"),
        ("s", "print('went on')"),
    ]
    executed = runs.run_notebook(
        write_notebook(tmp_path / "n.ipynb", *cells), run_dir=tmp_path / "run"
    )
    assert "went on" in outputs(executed)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('too bad')", "ValueError: too bad"),
        ("def f(:", "SyntaxError"),
        ("import os; os._exit(0)", "DeadKernelError: the kernel died"),
        ("import os; os.kill(os.getpid(), 9)", "DeadKernelError: the kernel died"),
        ("import time; time.sleep(60)", "TimeoutError: no end within 1 s"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("exit()", "SystemExit: the cell asked to exit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_failed_cell(tmp_path, source, said):
    """However a cell fails, the error names it, the failed notebook is kept, the rest unchanged."""
    note = (
        "import os, pathlib, subprocess, time\nchild = subprocess.Popen(['sleep', '300'])\n"
        "pathlib.Path('pids').write_text(f'{os.getpid()} {child.pid}')\nprint('so far')"
    )
    cells = [
        ("p", "seed = 0", "parameters"),
        ("note", note),
        ("bad-cell", f"\n{source}"),
        ("after", "print('AFTER')"),
    ]
    path = write_notebook(tmp_path / "n.ipynb", *cells)
    notebooks = tmp_path / "run" / "notebooks"
    notebooks.mkdir(parents=True)
    (notebooks / "n.ipynb").write_text("earlier")
    (notebooks / "n.html").write_text("earlier")
    (tmp_path / "run" / ".lock").touch()
    before = path.read_bytes()
    with pytest.raises(
        NotebookError, match=rf"(?s)notebook n, cell 'bad-cell' \(`.*`\): got {said}"
    ) as caught:
        runs.run_notebook(path, run_dir=tmp_path / "run", timeout=1)
    assert str(notebooks / "n.failed.ipynb") in caught.value.remedy
    failed = nbformat.read(notebooks / "n.failed.ipynb", as_version=4)
    assert any(
        output.output_type == "error" for cell in failed.cells[-2:-1] for output in cell.outputs
    )
    assert "so far" in outputs(notebooks / "n.failed.ipynb")
    assert failed.cells[-1].execution_count is None
    assert snapshot(tmp_path / "run").keys() == {
        "notebooks/n.ipynb",
        "notebooks/n.html",
        "notebooks/n.failed.ipynb",
    }
    assert (notebooks / "n.ipynb").read_text() == (notebooks / "n.html").read_text() == "earlier"
    assert path.read_bytes() == before
    wait_until(lambda: not any(map(alive, (tmp_path / "pids").read_text().split())), 2)


def test_dead_kernel_is_seen_at_once(tmp_path):
    """A dead kernel is reported within two seconds, not at the time-out."""
    cells = [
        ("p", "seed = 0", "parameters"),
        ("die", "import os, time; print(time.time(), flush=True)"),
    ]
    path = write_notebook(
        tmp_path / "n.ipynb", *cells, ("dead", "open('died', 'w').close(); os._exit(1)")
    )
    with pytest.raises(NotebookError, match="DeadKernelError"):
        runs.run_notebook(path, run_dir=tmp_path / "run", timeout=300)
    assert time.time() - (tmp_path / "died").stat().st_mtime < 2.5


def test_failed_notebook_goes_when_fixed(tmp_path):
    """The failed notebook is taken away once the notebook has run to its end."""
    cells = [("p", "n = 0", "parameters"), ("divide", "1 / n")]
    path = write_notebook(tmp_path / "n.ipynb", *cells)
    with pytest.raises(NotebookError):
        runs.run_notebook(path, run_dir=tmp_path / "run")
    runs.run_notebook(path, run_dir=tmp_path / "run", parameters={"n": 1})
    assert sorted(os.listdir(tmp_path / "run" / "notebooks")) == ["n.html", "n.ipynb"]


def test_kernel_ends_with_a_finished_run(tmp_path):
    """After a run that went well no process of it is left."""
    note = "import os, pathlib; pathlib.Path('pids').write_text(str(os.getpid()))"
    cells = [("p", "n = 0", "parameters"), ("note", note)]
    runs.run_notebook(write_notebook(tmp_path / "n.ipynb", *cells), run_dir=tmp_path / "run")
    assert not alive((tmp_path / "pids").read_text())


def test_run_from_a_notebook(training, tmp_path):
    """A notebook can be run from within another one, where an event loop runs already."""

    async def cell():
        return runs.run_notebook(training, run_dir=tmp_path / "run")

    assert "0 0.001 3 mlp True" in outputs(asyncio.run(cell()))


def test_page_that_cant_be_made(training, tmp_path, monkeypatch):
    """If the page can't be made, the executed notebook of the earlier run stays as it was, too."""
    runs.run_notebook(training, run_dir=tmp_path / "run")
    before = snapshot(tmp_path / "run")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(pipeline, "notebook_page", fail)
    with pytest.raises(OSError, match="disk full"):
        runs.run_notebook(training, run_dir=tmp_path / "run", parameters={"seed": 1})
    assert snapshot(tmp_path / "run") == before


# The run folder


def manifest(case="credit", **steps):
    return json.dumps({"case": case, "steps": steps})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (manifest("heart"), "got a run of the case 'heart', expected one of 'credit'"),
        (manifest()[:-9], "got a file that is no run's manifest"),
        ("", "got a file that is no run's manifest"),
        ("[]", "got a file that is no run's manifest"),
        (manifest(**{"01_data": {"parameters": {}}}), "got a wrong entry"),
        (manifest(**{"01_data": 3}), "got a wrong entry"),
    ],
)
def test_bad_run_folder(tmp_path, content, said):
    """A folder of another case or with a broken manifest is refused and stays as it was."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=said):
        runs.run_loop(run_dir=tmp_path / "run", notebooks=write_loop(tmp_path))
    assert snapshot(tmp_path / "run") == {"manifest.json": content.encode()}
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/lepton"])
def test_run_folder_not_writable(training, tmp_path, place):
    """A place where no folder can be made is refused before anything runs."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"can't be written to.*Choose another"):
        runs.run_notebook(training, run_dir=tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_one_run_at_a_time(training, tmp_path, monkeypatch):
    """A second run in the same folder is refused while the first one is at work."""
    monkeypatch.setattr(pipeline, "LOCK_TIMEOUT", 0.2)
    with (
        pipeline._locked(tmp_path / "run", {}),
        pytest.raises(RunError, match="another is at work"),
    ):
        runs.run_notebook(training, run_dir=tmp_path / "run")
    runs.run_notebook(training, run_dir=tmp_path / "run")


# The loop


def test_loop(finished):
    """A fresh loop runs its six notebooks in order and reports each cell."""
    folder, events = finished
    assert [event.notebook for event in events if event.state == "finished"] == list(STEPS)
    assert [(e.done, e.total) for e in events if e.notebook == "00_environment"] == [
        (0, 3),
        (1, 3),
        (2, 3),
        (3, 3),
        (3, 3),
    ]
    assert Run(folder / "run").done("05_monitoring", {"case": "credit", "seed": 0})
    assert not list((folder / "run").glob(".*.partial"))


def test_done_steps_are_skipped(loop):
    """A loop that is done runs nothing again and changes nothing, unless fresh."""
    paths, run_dir = loop
    before = snapshot(run_dir)
    assert ran(paths, run_dir) == []
    assert snapshot(run_dir) == before
    assert ran(paths[:2], run_dir, fresh=True) == ["00_environment", "01_data"]


@pytest.mark.parametrize("content", ["", "[]", '{"metadata": {}}'])
def test_executed_notebook_that_cant_be_read_runs_its_step(loop, content):
    """A step whose executed notebook was damaged runs again."""
    paths, run_dir = loop
    (run_dir / "notebooks" / "05_monitoring.ipynb").write_text(content)
    assert ran(paths, run_dir) == ["05_monitoring"]


def test_changed_parameter_runs_its_steps(loop):
    """A changed parameter runs the steps that have it and those that read their files."""
    paths, run_dir = loop
    assert ran(paths, run_dir, parameters={"epochs": "4"}) == ["02_training", "03_evaluation"]


@pytest.mark.parametrize(
    "missing", ["notebooks/04_deployment.ipynb", "notebooks/04_deployment.html", "service/card.md"]
)
def test_missing_file_runs_its_step(loop, missing):
    """A step whose files or executed notebook are gone runs again, alone."""
    paths, run_dir = loop
    (run_dir / missing).unlink()
    assert ran(paths, run_dir) == ["04_deployment"]
    assert (run_dir / missing).exists()


def test_changed_notebook_runs_again(loop):
    """A step whose notebook has changed isn't done; a changed lesson counts in a whole run."""
    paths, run_dir = loop
    nb = nbformat.read(paths[5], as_version=4)
    nb.cells.append(
        nbformat.v4.new_code_cell("print('new')", id="new", metadata={"tags": ["lesson"]})
    )
    nbformat.write(nb, paths[5])
    assert ran(paths, run_dir) == []
    assert ran(paths[4:], run_dir, whole=True) == ["05_monitoring"]
    assert ran(paths[4:], run_dir, whole=True) == []


def test_changed_code_runs_again(loop, tmp_path, monkeypatch):
    """What other code has made is stale, even if the new code can't be imported; pages' isn't."""
    paths, run_dir = loop
    copy = shutil.copytree(artefacts._LIBRARY, tmp_path / "library")
    monkeypatch.setattr(artefacts, "_LIBRARY", copy)
    (copy / "runs" / "pages.py").write_text("# other pages")
    assert ran(paths, run_dir) == []
    (copy / "trainer.py").write_text("def broken(:")
    assert ran(paths, run_dir) == list(STEPS)
    assert ran(paths, run_dir) == []


def test_failure_after_the_steps_end(loop):
    """A notebook that failed after its step had finished isn't done, and the loop runs it again."""
    paths, run_dir = loop
    source = paths[5].read_bytes()
    nb = nbformat.read(paths[5], as_version=4)
    nb.cells.append(nbformat.v4.new_code_cell("1 / 0", id="late"))
    nbformat.write(nb, paths[5])
    with pytest.raises(NotebookError, match="cell 'late'"):
        ran(paths, run_dir)
    paths[5].write_bytes(source)
    assert ran(paths, run_dir) == ["05_monitoring"]


def test_failed_loop_resumes(tmp_path):
    """A loop that failed resumes at the failed step once it is fixed."""
    paths = write_loop(tmp_path, n02="assert epochs > 5")
    with pytest.raises(NotebookError, match="02_training, cell 'before'"):
        ran(paths[:3], tmp_path / "run")
    assert "02_training" not in Run(tmp_path / "run").manifest["steps"]
    assert ran(paths[:3], tmp_path / "run", parameters={"epochs": 6}) == ["02_training"]


LEPTON = [sys.executable, "-m", "lepton_lib.cli"]


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_killed_loop_resumes(tmp_path, sign, code):
    """A killed loop leaves no kernel and nothing half-written, and the same command resumes it."""
    pause = (
        "import os, pathlib, time\nif not pathlib.Path('go').exists():\n"
        "    pathlib.Path('pid.new').write_text(str(os.getpid()))\n"
        "    os.rename('pid.new', 'pid')\n    time.sleep(300)\n"
    )
    write_loop(tmp_path)
    written_not_finished = work("01_data", ["case", "seed"]).replace(
        "step.finish", f"{pause}step.finish"
    )
    cells = [("parameters", PARAMETERS, "parameters"), ("work", written_not_finished)]
    write_notebook(tmp_path / "notebooks" / "01_data.ipynb", *cells)
    # a background shell lets its children ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*LEPTON, "run", "--out", "run"],
        cwd=tmp_path,
        env=light(),
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    pid = tmp_path / "notebooks" / "pid"
    wait_until(pid.exists, 60)
    process.send_signal(sign)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in said
    wait_until(lambda: not alive(pid.read_text()), 5)
    assert not (tmp_path / "run" / "data").exists()
    (tmp_path / "notebooks" / "go").touch()
    paths = [tmp_path / "notebooks" / f"{step}.ipynb" for step in STEPS[:3]]
    assert ran(paths, tmp_path / "run") == ["01_data", "02_training"]
    assert not list((tmp_path / "run").glob(".*.partial"))


# Summary and pages


REMOTE = re.compile(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", re.I)


def test_summary(finished, tmp_path):
    """The summary shows what the steps have measured, and leaves missing steps out."""
    text = runs.RunSummary.of(Run(finished[0] / "run")).to_text()
    for part in (
        "0.840  (95 % interval 0.810 to 0.870)",
        "gate",
        "passed",
        "0.200 ms",
        "none",
        "keep",
        "ensemble",
    ):
        assert part in text
    assert runs.RunSummary.of(Run(tmp_path)).to_text() == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (False, "no"),
        (12345, "12,345"),
        (0.84512, "0.845"),
        (0.0099, "0.0099"),
        (0.01, "0.010"),
        (10.0, "10"),
        (12345.6, "12,346"),
        (-0.5, "-0.500"),
        ("mlp", "mlp"),
    ],
)
def test_number(value, shown):
    """A value is shown as a reader wants it: words for truths, thousands parted, few digits."""
    assert number(value) == shown


@pytest.mark.parametrize("passed", [True, False])
def test_index(loop, passed):
    """The index shows the question, each criterion's verdict, the figures, and working links."""
    _, run_dir = loop
    criteria = [
        {"name": "auc", "value": 0.84, "bound": "at_least 0.8", "passed": passed, "why": "<agreed>"}
    ]
    (run_dir / "evaluation" / "gate.json").write_text(
        json.dumps({"passed": passed, "criteria": criteria})
    )
    page = runs.write_index(Run(run_dir)).read_text()
    assert "how likely is it that the loan goes bad?" in page
    assert "&lt;agreed&gt;" in page
    assert "<agreed>" not in page
    assert (
        f'class="verdict {"pass" if passed else "fail"}">{"passed" if passed else "not passed"}<'
        in page
    )
    assert not REMOTE.search(page)
    assert "<script" not in page
    links = re.findall('<a href="([^"]+)"', page)
    assert {"notebooks/03_evaluation.html", "model/model.safetensors"} <= set(links)
    assert all((run_dir / link).is_file() for link in links)
    assert page.count("<caption>") == page.count("<table>") == 5
    assert "0.200 ms" in re.sub("<[^>]+>", " ", page)
    assert "<dt>gate</dt>" not in page
    assert re.findall('<th scope="col">([^<]+)</th>', page)[-2:] == ["Package", "Version"]
    assert "at\N{NO-BREAK SPACE}least\N{NO-BREAK SPACE}0.8<" in page


def test_a_title_is_text(tmp_path, monkeypatch):
    """Markup in a case's title is shown as text, on the index and among a notebook's outputs."""
    title = "<script>alert(1)</script>"
    shutil.copytree(load_case("credit").folder, tmp_path / "credit")
    toml = tmp_path / "credit" / "case.toml"
    toml.write_text(re.sub('^title = ".*"', f'title = "{title}"', toml.read_text(), flags=re.M))
    monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path))
    show = "import pandas as pd\nprint(title)\nprint(title, file=__import__('sys').stderr)\ntitle"
    cells = [
        ("p", f'case = "credit"\nrun_dir = "."\ntitle = "{title}"', "parameters"),
        ("work", work("00_environment", ["case", "title"])),
        ("show", show),
        ("table", "pd.DataFrame({title: [title]})"),
        ("error", "raise ValueError(title)", "raises-exception"),
    ]
    path = write_notebook(tmp_path / "00_environment.ipynb", *cells)
    executed = runs.run_notebook(path, run_dir=tmp_path / "run")
    for page in (
        executed.with_suffix(".html").read_text(),
        runs.write_index(Run(tmp_path / "run")).read_text(),
    ):
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
        assert "<script" not in page
        assert "default-src 'none'" in page


def test_index_of_an_empty_run(tmp_path):
    """A run folder without any step still gets an index."""
    page = runs.write_index(Run(tmp_path)).read_text()
    assert "Gate not reached yet" in page
    assert page.count("not run") == len(STEPS)


@pytest.mark.parametrize("gate", ["", "[]", '{"criteria": [{"name": "auc"}]}', '{"criteria": 3}'])
def test_index_with_an_odd_gate(loop, gate):
    """A gate file that can't be used counts as none."""
    _, run_dir = loop
    (run_dir / "evaluation" / "gate.json").write_text(gate)
    assert "No gate yet" in runs.write_index(Run(run_dir)).read_text()


def test_page_stands_alone(tmp_path):
    """A notebook's page loads no script, style or font, whatever its outputs hold."""
    script = '<script src="https://x.org/a.js"></script>'
    html = f"from IPython.display import HTML\nHTML('{script}<b>kept</b>')"
    link = "HTML('<link rel=stylesheet href=//x.org/a.css>')"
    cells = [
        "Loss $x^2 < 3$ and\n\n$$\\sum_i x_i$$",
        ("p", "n = 0", "parameters"),
        ("html", html),
        ("link", link),
    ]
    executed = runs.run_notebook(
        write_notebook(tmp_path / "n.ipynb", *cells), run_dir=tmp_path / "run"
    )
    page = executed.with_suffix(".html").read_text()
    output = page.split("</style>")[1]
    assert not REMOTE.search(re.sub(r'<div class="highlight.*?</pre>', "", output, flags=re.S))
    assert "<b>kept</b>" in page
    assert page.count("<math ") == 2
    assert "$" not in output
    assert "mathjax" not in page.lower()
    assert "cdnjs" not in page


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("$5, then $6", "<p>$5, then $6</p>"),
        ("$5-$10", "<p>$5-$10</p>"),
        ("`$a$` and ``$$b$$``", "<p><code>$a$</code> and <code>$$b$$</code></p>"),
        (r"\$x\$", "<p>$x$</p>"),
        ("```\n$$y$$\n```", "<pre><code>$$y$$\n</code></pre>"),
        ("$$a_b_c$$", "<p><code>a_b_c</code></p>"),
    ],
)
def test_what_is_no_formula_stays(source, shown):
    """Code, amounts of dollars, and TeX that can't be drawn are shown as they were written."""
    assert markdown_to_html(source).strip() == shown


@pytest.mark.parametrize("path", loop_notebooks(), ids=lambda path: path.stem)
def test_every_formula_of_the_course_is_drawn(path):
    """Each formula in the prose becomes MathML, with no command of TeX left in it."""
    prose = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    page = "\n".join(map(markdown_to_html, prose))
    without_code = re.sub(r"<(pre|code)\b.*?</\1>", "", page, flags=re.S)
    assert page.count('display="block"') == sum(source.count("$$") for source in prose) // 2 > 0
    assert "$" not in without_code
    assert not re.search(r"\\[a-zA-Z]", without_code)


# Stored notebooks


# What editors leave among a cell's metadata.
LEFT = {
    "ExecuteTime": {},
    "collapsed": True,
    "execution": {"iopub.status.idle": "now"},
    "papermill": {},
    "scrolled": "auto",
}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The loop in a working directory, with a training notebook as rich as a lesson."""
    paths = write_loop(tmp_path)
    nb = nbformat.read(paths[2], as_version=4)
    new = nbformat.v4.new_code_cell
    nb.cells[2:2] = [
        new(
            "print('lesson', seed)", id="a-lesson", metadata={"tags": ["lesson"], "collapsed": True}
        ),
        new("{}['x']", id="wrong", metadata={"tags": ["raises-exception"]}),
        new("", id="empty"),
        new("seed + 1", id="value", metadata={**LEFT, "tags": []}),
    ]
    nbformat.write(nb, paths[2])
    monkeypatch.chdir(tmp_path)
    return paths


def test_refresh(stored):
    """Refreshing stores outputs only, the same bytes each time, and no other notebook changes."""
    before, first = nbformat.read(stored[2], as_version=4), stored[0].read_bytes()
    runs.refresh_notebooks([stored[2]])
    after, content = nbformat.read(stored[2], as_version=4), stored[2].read_bytes()
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    by_id = {cell.id: cell for cell in after.cells}
    assert by_id["a-lesson"].metadata == {"tags": ["lesson"]}
    assert by_id["value"].metadata == {}
    assert by_id["value"].outputs[0].data == {"text/plain": "1"}
    assert by_id["wrong"].outputs[0].traceback == ["KeyError: 'x'"]
    counts = [
        cell.execution_count for cell in after.cells if cell.cell_type == "code" and cell.source
    ]
    assert counts == list(range(1, len(counts) + 1))
    assert after.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert stored[0].read_bytes() == first
    runs.refresh_notebooks([stored[2]])
    assert stored[2].read_bytes() == content


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings; warnings.warn('mind')", "got text on stderr.*mind"),
        ("import os; os.getcwd()", "names a place of this machine"),
        ("print(run_dir)", "names a place of this machine"),
        ("from pathlib import Path; Path.home()", "names a place of this machine"),
        (
            "from IPython.display import HTML; HTML('<b>' + run_dir + '</b>')",
            "names a place of this machine",
        ),
    ],
)
def test_refresh_refuses(tmp_path, monkeypatch, source, said):
    """An output that fails, warns or names a path of this machine isn't stored."""
    path = write_loop(tmp_path, n00=source)[0]
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    with pytest.raises(NotebookError, match=f"(?s)cell 'before'.*{said}"):
        runs.refresh_notebooks([path])
    assert path.read_bytes() == before


def test_steps_have_their_files():
    """Each step of the tiny loop stands for one of the real loop."""
    assert set(OUTPUTS) == set(STEPS)


def test_run_dir_is_absolute(tmp_path, monkeypatch):
    """A notebook gets an absolute run folder and works in its own folder, without bars."""
    show = "import os; print(run_dir, os.getcwd(), os.environ['TQDM_DISABLE'])"
    path = write_notebook(
        tmp_path / "notebooks" / "n.ipynb", ("p", 'run_dir = "x"', "parameters"), ("show", show)
    )
    monkeypatch.chdir(tmp_path)
    executed = runs.run_notebook(path, run_dir="out")
    assert f"{tmp_path / 'out'} {path.parent} 1" in outputs(executed)
