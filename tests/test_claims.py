"""Every claim of a cell quotes its notebook; the strict run checks that it is true."""

import re

import nbformat
import pytest

from lepton_lib.exercises.definitions import Question, definition_files, read_definitions
from tests import offline

ROOT = offline.ROOT
NOTEBOOKS = {
    path.stem: nbformat.read(path, 4) for path in sorted((ROOT / "notebooks").rglob("*.ipynb"))
}
CLAIMED = {
    stem: {c.id: c.metadata["claims"] for c in notebook.cells if c.metadata.get("claims")}
    for stem, notebook in NOTEBOOKS.items()
}
# Questions and figures that no cell's claim bears out: the test that does, or why none can.
ELSEWHERE = {
    "00.q2": "It asks whether a column is known at the decision: only people who were there know.",
    "00.q3": "tests/test_runs.py::test_changed_parameter_runs_its_steps",
    "04.q2": "tests/test_durability.py::test_a_service_whose_disk_is_full_lives_and_is_not_ready",
}
LETTER = re.compile(r"\d\d\.q\d [a-f]")
QUESTIONS = {
    question.key: question
    for path in definition_files().values()
    for question in read_definitions(path).values()
    if isinstance(question, Question)
}


def plain(text):
    """A text with single spaces."""
    return " ".join(text.split())


@pytest.mark.parametrize("stem", CLAIMED)
def test_each_claim_is_made_where_it_is_asked(stem):
    """A claim's cell contains its words; a question precedes the cell that answers it."""
    cells = {cell.id: (number, cell) for number, cell in enumerate(NOTEBOOKS[stem].cells)}
    for name, claims in CLAIMED[stem].items():
        number, cell = cells[name]
        for claim in claims:
            if LETTER.fullmatch(claim):
                assert any(
                    f"Question {claim[:5]}" in before.source
                    for before in NOTEBOOKS[stem].cells[:number]
                ), claim
            else:
                assert claim in plain(cell.source), claim


@pytest.mark.parametrize("key", QUESTIONS)
def test_each_right_letter_is_shown(key):
    """A run bears it out, or a test does; what is left is reasoned, and says why."""
    letters = [
        claim[-1]
        for cells in CLAIMED.values()
        for claims in cells.values()
        for claim in claims
        if LETTER.fullmatch(claim) and claim.startswith(f"{key} ")
    ]
    if key in ELSEWHERE:
        assert not letters
    else:
        assert letters == [QUESTIONS[key].answer]


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_each_figure_is_borne_out(stem):
    """What a figure's title or alternative text says is claimed of the data behind it."""
    figures = {
        c.id for c in NOTEBOOKS[stem].cells if c.cell_type == "code" and "plots.show(" in c.source
    }
    without = {
        name
        for name in figures
        if not any(not LETTER.fullmatch(c) for c in CLAIMED[stem].get(name, {}))
    }
    assert without <= set(ELSEWHERE), sorted(without - set(ELSEWHERE))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_shown_elsewhere_is_there(name):
    """A test that is named exists; else there is a reason in words."""
    where = ELSEWHERE[name]
    assert name in QUESTIONS or any(
        name == cell.id for notebook in NOTEBOOKS.values() for cell in notebook.cells
    )
    if where.startswith("tests/"):
        file, _, test = where.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
    else:
        assert len(where) > 40
