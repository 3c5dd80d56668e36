"""The instructor's edition of the course: every notebook, run from top to bottom with every answer filled in."""

import re

import nbformat
import pytest

from lepton_lib.classroom.editions import hand_out
from lepton_lib.exercises.definitions import definition_files, read_definitions
from lepton_lib.runs import find_notebooks


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """All editions of the course, made once."""
    folder = tmp_path_factory.mktemp("editions")
    hand_out(folder)
    return folder


@pytest.mark.parametrize("path", find_notebooks().values(), ids=lambda path: path.stem)
def test_every_answer_is_correct_in_its_notebook(editions, path):
    """With all answers filled in a notebook runs without an error, and each check says *correct*, once."""
    nb = nbformat.read(editions / "instructor" / path.name, 4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    meant = [cell.id for cell in nb.cells if "raises-exception" in cell.metadata.get("tags", [])]
    assert sum(output.output_type == "error" for output in outputs) == len(meant)
    told = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    known = read_definitions(definition_files()[path.stem[:2]])
    assert re.findall(r"^(\d\d\.\w+) correct: ", told, re.MULTILINE) == list(known)
    assert not re.findall(r"^(\d\d\.\w+) not ", told, re.MULTILINE)
    notes = [cell.id for cell in nb.cells if cell.id.startswith("note-")]
    assert notes == [f"note-{key.replace('.', '-')}" for key in known]


@pytest.mark.parametrize("path", find_notebooks().values(), ids=lambda path: path.stem)
def test_learners_and_slides_come_from_the_same_source(editions, path):
    """The learners' cells are the course's, without outputs; every exercise has its slide."""
    learners, source = nbformat.read(editions / "learners" / path.name, 4), nbformat.read(path, 4)
    assert [cell.source for cell in learners.cells] == [cell.source for cell in source.cells]
    assert not any(cell.get("outputs") for cell in learners.cells)
    slides = (editions / "slides" / f"{path.stem}.html").read_text(encoding="utf-8")
    for definition in read_definitions(definition_files()[path.stem[:2]]).values():
        assert f"{definition.key}: " in slides
