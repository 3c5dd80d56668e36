"""Plain pytest and papermill run the notebooks, too, from wherever they are called."""

import os
import shutil
import subprocess
import sys

import pytest

from lepton_lib.utils import SAME_BITS, course_root
from tests.offline import ROOT

NOTEBOOK = "notebooks/00_environment.ipynb"


@pytest.fixture
def clone(tmp_path):
    """The parts of a clone that these tools look at."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "clone" / "notebooks")
    (tmp_path / "clone" / "datasets").symlink_to(ROOT / "datasets")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / "clone")
    return tmp_path / "clone"


def plain(*words, cwd):
    """Run a module of this Python with a user's variables, as they are without the tests' own."""
    own = {"TQDM_DISABLE", "PYTHONPATH", "LEPTON_DATASETS", *SAME_BITS}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_plain_nbval(clone):
    """A notebook's stored outputs are those of a plain ``pytest --nbval``."""
    plain("pytest", "--nbval", NOTEBOOK, cwd=clone)
    assert (clone / "runs" / "credit" / "charter.json").is_file()


def test_plain_papermill(clone, tmp_path):
    """Results lie in the course's folder under the case's name, wherever papermill is called."""
    (clone / "a" / "b").mkdir(parents=True)
    words = ["papermill", str(clone / NOTEBOOK), str(tmp_path / "out.ipynb"), "-p", "case", "heart"]
    plain(*words, cwd=clone / "a" / "b")
    assert (clone / "runs" / "heart" / "charter.json").is_file()
    assert sorted(os.listdir(tmp_path)) == ["clone", "out.ipynb"]
    assert os.listdir(clone / "a" / "b") == []


def test_the_course_is_found_from_anywhere(clone, monkeypatch):
    """Below a clone it is that one, elsewhere the one that the library lies in."""
    monkeypatch.chdir(clone / "notebooks")
    assert course_root() == clone
    monkeypatch.chdir("/")
    assert course_root() == ROOT


def test_a_library_alone_says_so(lepton, monkeypatch):
    """Installed without the clone, the commands say what is missing."""
    for module in ("cases.loading", "runs.notebooks"):
        monkeypatch.setattr(f"lepton_lib.{module}.course_folders", lambda _: [])
    monkeypatch.setenv("LEPTON_DATASETS", "")
    for words in (["run", "02"], ["run", "loop"], ["run", NOTEBOOK, "--case", "x"]):
        code, _, err = lepton(*words)
        assert (code, "The library was installed alone" in err) == (2, True)
