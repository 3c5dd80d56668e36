"""What a notebook says of its run is held to the run."""

import nbformat
import pytest

from lepton_lib import runs
from lepton_lib.runs.readings import Binding, bindings
from tests.tiny import write_notebook

PARAMETERS = """case = "credit"  # a case
run_dir = "../runs/credit"  # where results go
seed = 3  # [0, 100]"""
READING = (
    "On the credit data the mean is 1,234.50<!-- total / 2 -->, of which 20.0 %<!-- share --> are "
    "**good**<!-- kind -->, more than half<!-- share > .5 --> with a change of −1.0<!-- -share -->."
)


@pytest.fixture
def notebook(tmp_path):
    """A notebook of two code cells with a reading behind each."""
    path = write_notebook(
        tmp_path / "07_small.ipynb",
        ("parameters", PARAMETERS, "parameters"),
        ("values", "total, share, kind = 2000 + 157 * seed, 0.1 * seed, 'good'\ntotal"),
        ("after", "late = True"),
    )
    nb = nbformat.read(path, 4)
    for index, name, source in ((2, "read", READING), (4, "read-more", "Seed 3<!-- seed -->.")):
        cell = nbformat.v4.new_markdown_cell(source, id=name, metadata={"tags": ["reading"]})
        nb.cells.insert(index, cell)
    nbformat.write(nb, path)
    return path


def readings(path):
    """The sources of a notebook's readings."""
    nb = nbformat.read(path, 4)
    return [cell.source for cell in nb.cells if "reading" in cell.metadata.get("tags", [])]


def test_stored_numbers_become_the_runs_and_false_conditions_are_listed(notebook):
    """Each number keeps its digits and its form; words that turned false are the author's."""
    untrue = runs.refresh_notebooks([notebook])
    said = readings(notebook)[0]
    assert "1,235.50<!-- total / 2 -->" in said
    assert "30.0 %<!-- share -->" in said
    assert "−0.3<!-- -share -->" in said
    assert len(untrue) == 1
    assert "share > .5: the condition is false" in untrue[0]
    assert runs.refresh_notebooks([notebook]) == untrue
    assert readings(notebook)[0] == said


def test_a_run_keeps_only_the_readings_that_it_bears_out(notebook, tmp_path):
    """With another seed a reading that no longer holds is left out of the page."""
    executed = runs.run_notebook(notebook, run_dir=tmp_path / "run")
    assert readings(executed) == ["Seed 3<!-- seed -->."]
    executed = runs.run_notebook(notebook, run_dir=tmp_path / "run", parameters={"seed": 4})
    assert readings(executed) == []


def test_a_run_of_another_case_keeps_no_reading(notebook, tmp_path):
    """A reading speaks of the default case, even where its numbers happen to be the same."""
    executed = runs.run_notebook(notebook, run_dir=tmp_path / "run", parameters={"case": "heart"})
    assert readings(executed) == []
    assert "Seed" not in executed.with_suffix(".html").read_text("utf-8")


@pytest.mark.parametrize(
    ("said", "value", "problem"),
    [
        ("an AUC of 0.854", 0.85449, ""),
        ("an AUC of 0.854", 0.8546, "the run gives 0.855"),
        ("**28.2 %**", 0.2819, ""),
        ("it fell by -0.0", -0.001, "the run gives 0.0"),
        ("12,345 rows", 12345, "but no number stands"),
        ("rows: 12,345", 12345.4, ""),
        ("the AUC", 0.8, "but no number stands before"),
        ("by 3", None, "is no number, text or condition"),
        ("the worst is `rent`", "rent", ""),
        ("the worst is `rent`", "home", "the value is 'home'"),
        ("seniority moved too", False, "the condition is false"),
    ],
)
def test_a_binding_is_judged_by_what_is_printed(said, value, problem):
    """The printed number is the value rounded to its digits; texts and conditions are exact."""
    cell = nbformat.v4.new_markdown_cell(f"{said}<!-- x -->", metadata={"tags": ["reading"]})
    (binding,) = bindings(cell)
    assert isinstance(binding, Binding)
    found = binding.judge(value)
    assert problem in found
    assert bool(problem) == bool(found)
