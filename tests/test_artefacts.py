"""The run folder: whole results or none, each with its step, stale when an earlier one changes."""

import json
import os
import re
import subprocess
from importlib import metadata

import pytest

from lepton_lib import artefacts
from lepton_lib.artefacts import OUTPUTS, STEPS, Run
from lepton_lib.errors import RunError

FIRST, SECOND = STEPS[0], STEPS[1]


def work(run, step, value=1, read=()):
    """Do a step's work: write each of its files."""
    at_work = run.start(step, case="credit", parameters={"seed": value})
    seen = [at_work.read_json(name) for name in read]
    for name in OUTPUTS[step]:
        at_work.write_json(name, {"value": value, "name": name})
    at_work.finish(value=value)
    return seen


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_a_finished_step_lies_in_the_folder_and_in_the_manifest(run):
    """A step's files, parameters, packages, hashes, metrics and time are recorded."""
    work(run, FIRST, 7)
    entry = run.manifest["steps"][FIRST]
    assert run.manifest["case"] == "credit"
    assert entry["parameters"] == {"seed": 7}
    assert entry["metrics"] == {"value": 7}
    assert set(entry["files"]) == set(OUTPUTS[FIRST])
    assert entry["packages"]["torch"].startswith("2.")
    assert entry["packages"]["lepton-course"] == metadata.version("lepton-course")
    assert entry["commit"] == artefacts.commit()
    assert entry["python"].startswith("3.")
    assert 0 <= entry["seconds"] < 60
    for name in OUTPUTS[FIRST]:
        assert run.read_json(name) == {"value": 7, "name": name}
    assert not list(run.folder.glob(".*"))


def test_the_commit_is_the_clones(tmp_path, monkeypatch):
    """The commit is that of the clone, marked where it was changed, and empty without a clone."""
    monkeypatch.setattr(artefacts, "_LIBRARY", tmp_path / "lepton_lib")
    assert artefacts.commit() == ""
    (tmp_path / "a.txt").write_text("a")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True, capture_output=True)
    commit = artefacts.commit()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "a.txt").write_text("b")
    assert artefacts.commit() == f"{commit}-dirty"


def test_a_step_reads_what_an_earlier_one_left_and_grows_stale_with_it(run):
    """A step is done with its own parameters as long as its files and inputs are unchanged."""
    name = OUTPUTS[FIRST][0]
    work(run, FIRST)
    assert work(run, SECOND, read=[name]) == [{"value": 1, "name": name}]
    assert run.manifest["steps"][SECOND]["read"] == {
        name: run.manifest["steps"][FIRST]["files"][name]
    }
    assert run.done(SECOND, {"seed": 1})
    assert not run.done(SECOND, {"seed": 2})
    assert not run.done(STEPS[2], {"seed": 1})
    work(run, FIRST, 2)
    assert run.done(FIRST, {"seed": 2})
    assert not run.done(SECOND, {"seed": 1})


def test_a_missing_or_changed_result_names_the_notebook_that_makes_it(run):
    """What wasn't made, was deleted, or was changed since is refused with the remedy."""
    name = OUTPUTS[FIRST][0]
    with pytest.raises(RunError, match=f"no such result.*Run notebook {FIRST} first"):
        run.path(name)
    work(run, FIRST)
    (run.folder / name).write_text("{}")
    with pytest.raises(RunError, match=f"changed after its step.*Run notebook {FIRST} again"):
        run.start(SECOND, case="credit", parameters={}).input(name)
    (run.folder / name).unlink()
    with pytest.raises(RunError, match="no such result"):
        run.path(name)


def test_a_step_without_all_its_files_moves_none(run):
    """A step that lacks a file is refused at its end, and the earlier results lie as before."""
    work(run, FIRST)
    before = run.manifest
    step = run.start(FIRST, case="credit", parameters={"seed": 2})
    assert repr(step) == f"Step({FIRST!r})"
    with pytest.raises(RunError, match=f"step {FIRST}: got no {OUTPUTS[FIRST][0]}"):
        step.finish()
    assert run.manifest == before
    assert run.done(FIRST, {"seed": 1})


def test_what_a_killed_step_left_aside_is_swept_away(run):
    """A step that starts again doesn't take over the half of a run that was killed."""
    run.start(FIRST, case="credit", parameters={}).write_json(OUTPUTS[FIRST][0], 1)
    with pytest.raises(RunError, match="expected every file"):
        run.start(FIRST, case="credit", parameters={}).finish()


def test_a_folder_that_cannot_be_used_is_refused(run, tmp_path):
    """A file in the folder's place, and another case's folder, are refused with a remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"can't be written to .*Choose another run_dir"):
        Run(tmp_path / "file" / "run").start(FIRST, case="credit", parameters={})
    work(run, FIRST)
    with pytest.raises(RunError, match=r"a run of the case 'credit'.*such as runs/heart"):
        run.start(FIRST, case="heart", parameters={})


def test_a_folder_of_other_files_is_no_run_folder(tmp_path):
    """A run writes into a new or empty folder or a run's, and never over a course."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="got a folder of other files"):
        Run(tmp_path).start("00_environment", case="credit", parameters={})
    assert os.listdir(tmp_path) == ["mine.txt"]
    (tmp_path / "notebooks" / "exercises").mkdir(parents=True)
    (tmp_path / "manifest.json").write_text('{"case": null, "steps": {}}')
    with pytest.raises(RunError, match="got the course's folder"):
        Run(tmp_path).start("00_environment", case="credit", parameters={})
    for _ in range(2):  # the second time over what a killed step has left
        Run(tmp_path / "new").start("00_environment", case="credit", parameters={})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"case": 1, "steps": 2}', "\ufeff{"])
def test_a_manifest_that_is_none_is_refused(run, text):
    """A manifest that isn't readable, or isn't a run's, is refused."""
    run.folder.mkdir()
    (run.folder / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match="a file that is no run's manifest"):
        _ = run.manifest


def test_a_new_folder_has_an_empty_manifest(run):
    """Before the first step nothing is written, and nothing is known."""
    assert run.manifest == {"case": None, "steps": {}}
    work(run, FIRST)
    assert json.loads((run.folder / "manifest.json").read_text())["steps"].keys() == {FIRST}
