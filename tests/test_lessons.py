"""Lessons beside the loop, in folders of notebooks/: found, run, handed out and answered."""

import json

import nbformat
import pytest

from lepton_lib.artefacts import Run
from lepton_lib.cases import load_case
from lepton_lib.classroom.editions import hand_out
from lepton_lib.classroom.pacing import sections
from lepton_lib.data import clean, read_table, split
from lepton_lib.exercises import check
from lepton_lib.exercises.definitions import definition_files, notebook_number
from lepton_lib.runs import find_notebook, find_notebooks, refresh_notebooks
from lepton_lib.runs.notebook_html import markdown_to_html
from tests.course import METADATA
from tests.test_exercises import SMALL
from tests.tiny import write_notebook

PARAMETERS = """case = "credit"  # a case
run_dir = ""  # where results go
seed = 0  # [0, 100]"""
STEP = """from lepton_lib.artefacts import Run
from lepton_lib.data import clean, read_table, split
from lepton_lib.exercises import check

total = 8
step = Run(run_dir, case).start("01_shop", case=case, parameters={"case": case, "seed": seed})
step.write_json("shop/report.json", seed)"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A course whose one notebook is a lesson, with a picture beside its folder; its path."""
    folder = tmp_path / "notebooks"
    (folder / "exercises" / "industry").mkdir(parents=True)
    (folder / "exercises" / "industry" / "01_shop.toml").write_text(SMALL, encoding="utf-8")
    (folder / "diagrams").mkdir()
    (folder / "diagrams" / "shop.svg").write_text("<svg/>", encoding="utf-8")
    path = write_notebook(
        folder / "industry" / "01_shop.ipynb",
        "# Shop\n\n## Sell",
        ("parameters", PARAMETERS, "parameters"),
        ("step", STEP),
        ("share", 'share = ...\ncheck("i1.2", share)', "exercise"),
        ("end", "_ = step.finish(sold=seed)"),
    )
    notebook = nbformat.read(path, 4)
    notebook.metadata = METADATA
    nbformat.write(notebook, path)
    monkeypatch.chdir(tmp_path)
    return path


def test_a_lesson_is_found_by_its_folder_and_number(shop):
    """Its name has the folder, and its exercises' keys begin with the folder's letter."""
    assert list(find_notebooks()) == ["industry/01_shop"]
    assert find_notebook("industry/01") == find_notebook("industry/01_shop") == shop
    assert list(definition_files()) == ["i1"]
    assert notebook_number(shop) == "i1"
    assert check("i1.2", 0.25).status == "correct"
    assert [(one.notebook, one.exercises) for one in sections(shop)][-1] == ("i1", ("i1.2",))


def test_a_folder_of_lessons_runs_each_into_its_own_run_folder(shop, lepton):
    """`lepton run industry` checks names first, runs what isn't done, and notes metrics."""
    assert "Did you mean 'seed'" in lepton("run", "industry", "-p", "sed=3")[2]
    assert "each lesson has its own" in lepton("run", "industry", "--case", "heart")[2]
    assert not (shop.parents[2] / "runs").exists()
    code, out, err = lepton("run", "industry", "-p", "seed=3", "--out", "here")
    assert (code, err.count("finished")) == (0, 1)
    run = Run("here/credit")
    assert json.loads((run.folder / "shop" / "report.json").read_text()) == 3
    assert run.manifest["steps"]["01_shop"]["metrics"] == {"sold": 3}
    page = (run.folder / "index.html").read_text()
    assert "shop/report.json" in page
    assert "02_training" not in page
    assert "To read: here/credit/notebooks/01_shop.html" in out
    assert "already done" in lepton("run", "industry", "-p", "seed=3", "--out", "here")[2]
    assert lepton("run", "industry/01", "--out", "there")[0] == 0
    assert Run("there").manifest["steps"]["01_shop"]["metrics"] == {"sold": 0}


def test_a_lesson_is_handed_out_in_its_folder(shop, tmp_path):
    """The editions keep the folder, so that a lesson's links to pictures hold."""
    refresh_notebooks([shop])
    hand_out(tmp_path / "editions")
    for edition in ("learners", "instructor"):
        assert (tmp_path / "editions" / edition / "industry" / "01_shop.ipynb").is_file()
        assert (tmp_path / "editions" / edition / "diagrams" / "shop.svg").is_file()
    assert (tmp_path / "editions" / "slides" / "industry" / "01_shop.html").is_file()
    answered = nbformat.read(tmp_path / "editions/instructor/industry/01_shop.ipynb", 4)
    assert "i1.2 correct" in str(answered.cells)


def test_a_lessons_page_holds_its_diagrams(shop):
    """A diagram beside the lesson's folder is put into its page, a file elsewhere isn't."""
    page = markdown_to_html("![A shop](../diagrams/shop.svg) ![A key](../../key.svg)", shop.parent)
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in page
    assert 'src="../../key.svg"' in page


def test_no_two_notebooks_share_a_name():
    """A run folder tells notebooks apart by their file's name alone."""
    names = [path.stem for path in find_notebooks().values()]
    assert len(names) == len(set(names))


def test_no_two_ways_to_say_the_same_thing_stand_on_both_sides():
    """The intents' sentences are all different, and a situation lies in one part as a whole."""
    case = load_case("customer_service")
    frame, _ = clean(read_table(case), case)
    assert frame["text"].str.lower().is_unique
    assert frame.groupby("target").size().eq(40).all()
    parts = [set(part["situation"]) for part in split(frame, case, seed=0).values()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 100
