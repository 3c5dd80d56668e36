"""Every answer in its own notebook: the exercises of the whole course."""

import json
import shutil

import pytest

from lepton_lib.artefacts import STEPS
from lepton_lib.classroom import grading, sandbox
from lepton_lib.classroom.notebooks import fill_in
from lepton_lib.exercises.definitions import definition_files, notebook_number, read_definitions
from lepton_lib.runs import find_notebooks
from lepton_lib.runs.notebooks import read_notebook

every_notebook = pytest.mark.parametrize(
    "path", find_notebooks().values(), ids=lambda path: path.stem
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory, pipeline):
    """Results of each notebook with all answers filled in, run as the class report does."""
    folder = tmp_path_factory.mktemp("class")
    for path in find_notebooks().values():
        (folder / path.name).write_text(json.dumps(fill_in(read_notebook(path))), encoding="utf-8")

    def run_already(*, run_dir, notebooks):
        # the last notebook leaves nothing for another
        assert [path.stem for path in notebooks] == list(STEPS[:-1])
        shutil.copytree(pipeline, run_dir)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "run_loop", run_already)
        return {learner.name: learner for learner in grading.grade(folder).learners}


@every_notebook
def test_every_answer_is_correct_in_its_notebook(graded, path):
    """After the cells before it, every answer of a notebook is correct, and nothing fails."""
    learner = graded[path.stem]
    known = read_definitions(definition_files()[notebook_number(path)])
    found = {key: result for key, result in learner.results.items() if key in known}
    assert {key: result.status for key, result in found.items()} == dict.fromkeys(
        known, "correct"
    ), found
    assert learner.notes == []
