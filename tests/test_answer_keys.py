"""Every right answer is derived a second time, and no notebook gives one away."""

import ast

import nbformat
import pytest
import torch

from lepton_lib.classroom.notebooks import keys_in
from lepton_lib.exercises.comparison import call_on_inputs, same
from lepton_lib.exercises.definitions import Exercise, letter_hash
from lepton_lib.runs.notebooks import find_notebooks
from tests.answers import DERIVED, OPTION, Task
from tests.test_exercises import DEFINED

each = pytest.mark.parametrize("definition", DEFINED, ids=lambda one: one.key)


def cells_up_to(key):
    """The cells of the notebook with this exercise, up to its own."""
    for path in find_notebooks().values():
        cells = nbformat.read(path, 4).cells
        for place, cell in enumerate(cells):
            if cell.cell_type == "code" and key in keys_in(cell.source):
                return cells[: place + 1]
    raise KeyError(key)


def task_of(key):
    """The exercise as the notebook has it."""
    *before, cell = cells_up_to(key)
    text = next(one.source for one in reversed(before) if f" {key}: " in one.source)
    lines = [line for line in cell.source.splitlines() if "lepton_lib" not in line]
    names = {
        "check": lambda *_: None,
        "checkpoint": lambda *_: None,
        "trials": None,
        "torch": torch,
    }
    exec("\n".join(lines), names)
    return Task(text, names)


@each
def test_the_right_answer_is_derived_again(definition):
    """Another computation gives the course's own answer; the right option has its words."""
    derived = DERIVED[definition.key]
    if not isinstance(definition, Exercise):
        assert letter_hash(definition.salt, derived(task_of(definition.key))) == definition.right
    elif definition.inputs:
        arguments = definition.arguments()
        right = call_on_inputs(definition.value_of(definition.answer), arguments, 60)
        again = call_on_inputs(derived, arguments, 60)
        assert same(again, right, max(definition.tolerance, 1e-6)), (again, right)
    else:
        right, again = definition.value_of(definition.answer), derived(task_of(definition.key))
        assert same(again, right, definition.tolerance), (again, right)


def test_no_derivation_is_left_over():
    """Every derivation belongs to an exercise."""
    assert DERIVED.keys() == {definition.key for definition in DEFINED}


def packed(text):
    """A text without spaces, and quotes of one kind."""
    return "".join(text.split()).replace("'", '"')


def secrets(definition, handed_out):
    """What only somebody who knows the answer writes: its reason, its letter, its code."""
    yield definition.why
    if not isinstance(definition, Exercise):
        yield f'("{definition.key}", "{definition.answer}")'
        return
    answer = ast.parse(definition.answer).body[-1]
    if definition.inputs:
        lines = set(map(packed, ast.unparse(answer).splitlines()))
        given = ast.unparse(ast.parse(handed_out)).splitlines()  # without comments
        yield max(lines - set(map(packed, given)), key=len)
    else:
        yield ast.unparse(answer.value)
        if isinstance(value := definition.value_of(definition.answer), float):
            yield from (f"{100 * value:.0f} %", f"{value:.3f}", f"{value:.4f}")


@each
def test_nothing_gives_an_answer_away(definition):
    """Up to its check, no cell and no sentence holds an answer's reason, letter, code or number."""
    cells = cells_up_to(definition.key)
    text = packed("\n".join(cell.source for cell in cells))
    assert [one for one in secrets(definition, cells[-1].source) if packed(one) in text] == []
    if not isinstance(definition, Exercise):
        options = dict(OPTION.findall(task_of(definition.key).text))
        assert text.count(packed(options[definition.answer])) == 1


@each
def test_a_question_has_the_options_of_its_definition(definition):
    """The letters that a question takes are those that stand in the notebook."""
    if not isinstance(definition, Exercise):
        letters = [letter for letter, _ in OPTION.findall(task_of(definition.key).text)]
        assert "".join(letters) == definition.options
