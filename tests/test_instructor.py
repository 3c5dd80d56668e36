"""Every answer in its own notebook: the exercises of the whole course, and an instructor's edition run in full."""

import json
import re

import nbformat
import pytest

from lepton_lib.classroom.cells import fill_in
from lepton_lib.classroom.editions import hand_out
from lepton_lib.classroom.grading import grade
from lepton_lib.exercises.definitions import definition_files, read_definitions
from lepton_lib.runs import find_notebooks
from lepton_lib.runs.parameters import read_notebook

every_notebook = pytest.mark.parametrize("path", find_notebooks().values(), ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Results of each notebook with all answers filled in, its exercises and what they read from run in order."""
    folder = tmp_path_factory.mktemp("class")
    for stem, path in find_notebooks().items():
        (folder / f"{stem}.ipynb").write_text(json.dumps(fill_in(read_notebook(path))), encoding="utf-8")
    return {learner.name: learner for learner in grade(folder)}


@every_notebook
def test_every_answer_is_correct_in_its_notebook(graded, path):
    """Where its cell stands, after the cells before it, every answer of a notebook is correct, and nothing fails."""
    learner = graded[path.stem]
    known = read_definitions(definition_files()[path.stem[:2]])
    found = {key: result for key, result in learner.results.items() if key in known}
    assert {key: result.status for key, result in found.items()} == dict.fromkeys(known, "correct"), found
    assert learner.notes == []


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """All editions of the first notebook."""
    folder = tmp_path_factory.mktemp("editions")
    hand_out(folder, notebooks=[find_notebooks()["00_environment"]])
    return folder


def test_the_instructors_edition_is_run_and_correct(editions):
    """Run from top to bottom with its answers, each check says *correct*, nothing fails, and notes follow."""
    nb = nbformat.read(editions / "instructor" / "00_environment.ipynb", 4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error"] == []
    told = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    known = list(read_definitions(definition_files()["00"]))
    assert re.findall(r"^(\d\d\.\w+) correct: ", told, re.MULTILINE) == known
    assert not re.findall(r"^(\d\d\.\w+) not ", told, re.MULTILINE)
    notes = [cell.id for cell in nb.cells if cell.id.startswith("note-")]
    assert notes == [f"note-{key.replace('.', '-')}" for key in known]


def test_learners_and_slides_come_from_the_same_source(editions):
    """The learners' cells are the course's, without outputs; every exercise has its slide."""
    source = nbformat.read(find_notebooks()["00_environment"], 4)
    learners = nbformat.read(editions / "learners" / "00_environment.ipynb", 4)
    assert [cell.source for cell in learners.cells] == [cell.source for cell in source.cells]
    assert not any(cell.get("outputs") for cell in learners.cells)
    slides = (editions / "slides" / "00_environment.html").read_text(encoding="utf-8")
    for key in read_definitions(definition_files()["00"]):
        assert f"{key}: " in slides
