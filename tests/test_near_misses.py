"""What readers get nearly right: a slip is named, and a right answer in another form counts."""

import functools

import numpy as np
import pytest

from lepton_lib.exercises import check
from lepton_lib.exercises.comparison import Changed, call_on_inputs, parts_of
from lepton_lib.exercises.definitions import find_definition
from tests.test_exercises import VALUES

FUNCTIONS = [exercise for exercise in VALUES if exercise.inputs]
PLAIN = [exercise for exercise in VALUES if not exercise.inputs]
NUMBERS = [one for one in PLAIN if isinstance(one.value_of(one.answer), float)]
SEVERAL = [one for one in PLAIN if len(parts_of(one.value_of(one.answer))) > 1]
each_function = pytest.mark.parametrize("exercise", FUNCTIONS, ids=lambda one: one.key)


@each_function
def test_a_forgotten_return_is_named(exercise):
    """A function that computes the right thing and keeps it is said to return None."""
    right = exercise.value_of(exercise.answer)
    feedback = check(exercise.key, lambda *given: print(right(*given)))
    assert repr(feedback).startswith(f"{exercise.key} not yet: your function returns None")
    assert f"\n{exercise.name}(" in repr(feedback)
    assert "returns None; expected " in repr(feedback)


@each_function
def test_an_argument_is_left_alone(exercise):
    """A function that changes its argument gets a message, unless the right one does so, too."""
    right = exercise.value_of(exercise.answer)

    def spoils(*given):
        result = right(*given)
        for one in given:
            if isinstance(one, np.ndarray):
                one.fill(7)
            elif isinstance(one, list | dict):
                one.clear()
        return result

    outcomes = call_on_inputs(spoils, exercise.arguments())
    may = any(isinstance(one, Changed) for one in call_on_inputs(right, exercise.arguments()))
    if may or not any(isinstance(one, Changed) for one in outcomes):
        assert check(exercise.key, spoils).status == "correct"
    else:
        assert "your function changes what it is given; work on a copy" in repr(
            check(exercise.key, spoils)
        )


@each_function
def test_the_input_that_fails_is_shown(exercise):
    """A function that is wrong for its last input alone is shown that call and both results."""
    right, n_inputs = exercise.value_of(exercise.answer), len(exercise.arguments())
    numbers = iter(range(1, n_inputs + 1))

    def nearly(*given):
        result = right(*given)
        return "?" if next(numbers) == n_inputs else result

    text = repr(check(exercise.key, nearly))
    assert text.count("\n") == 1
    assert text.startswith(f"{exercise.key} not yet: ")
    assert "returns '?'; expected " in text


@each_function
def test_the_value_instead_of_the_function(exercise):
    """The result of a call is no function, which is said; a partial function is one."""
    right = exercise.value_of(exercise.answer)
    result = right(*exercise.arguments()[0])
    assert "pass it without calling it" in repr(check(exercise.key, result))
    assert check(exercise.key, functools.partial(right)).status == "correct"


@pytest.mark.parametrize("exercise", NUMBERS, ids=lambda one: one.key)
def test_a_number_in_another_form(exercise):
    """Within the tolerance a number counts; as a text, in per cent or in a list it is named."""
    right, key = exercise.value_of(exercise.answer), exercise.key
    assert check(key, np.float32(right * (1 + exercise.tolerance / 2))).status == "correct"
    assert repr(check(key, str(right))).endswith("expected a number")
    assert repr(check(key, [right])).endswith("expected a number")
    assert check(key, 100 * right).status == "not yet"
    assert check(key, right * (1 + 3 * exercise.tolerance)).status == "not yet"


@pytest.mark.parametrize("exercise", SEVERAL, ids=lambda one: one.key)
def test_a_part_that_is_open_or_wrong_is_named(exercise):
    """Of an answer of several parts each one is named while it is open, and where it is wrong."""
    right, key = exercise.value_of(exercise.answer), exercise.key
    parts = parts_of(right)
    known = [wrong.message for wrong in exercise.wrong]
    for place in parts:
        for filler, said in ((..., "still open"), ("?", "not right")):
            changed = parts | {place: filler}
            answer = changed if isinstance(right, dict) else list(changed.values())
            text = repr(check(key, answer)).removeprefix(f"{key} not yet: ")
            assert text == f'{said}: part {place!r}. hint("{key}") helps.' or text in known
    nothing = dict.fromkeys(parts, ...)
    answer = nothing if isinstance(right, dict) else tuple(nothing.values())
    assert check(key, answer).status == "not attempted"
    if not isinstance(right, dict):
        assert check(key, list(right)).status == check(key, tuple(right)).status == "correct"
        assert f"expected a list of {len(parts)}" in repr(check(key, [*right, "?"]))


CORRECT, CHANGES = "correct", "not yet: your function changes what it is given; work on a copy"
NOT_RIGHT = "not yet: your function is not right yet"
MISSES = [
    (
        "00.3",
        """def failing(measured, criteria):
    return sorted(
        name
        for name, (side, bound) in criteria.items()
        if not (measured.get(name, np.nan) >= bound if side == "at least"
                else measured.get(name, np.nan) <= bound)
    )""",
        NOT_RIGHT,
    ),
    (
        "01.3",
        """def fill(training, new):
    flags = np.isnan(new)
    new[flags] = np.nanmedian(training)
    return new, flags""",
        CHANGES,
    ),
    (
        "01.2",
        "def on_both_sides(o, a, b):\n    return {o[i] for i in a} & {o[i] for i in b}",
        NOT_RIGHT,
    ),
    (
        "03.3",
        """def cheapest(probabilities, costs):
    decisions = []
    for row in probabilities:
        means = [sum(p * costs[k][d] for k, p in enumerate(row)) for d in range(len(costs[0]))]
        decisions.append(means.index(min(means)))
    return decisions""",
        CORRECT,
    ),
    ("03.4", "def search_result(v, t):\n    return v.argmin(), t[v.argmin()]", CORRECT),
    (
        "04.3",
        """def accepts(value, low, high):
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return math.isfinite(value) and low <= value <= high""",
        CORRECT,
    ),
    (
        "04.3",
        "def accepts(value, a, b):\n    return type(value) in (int, float) and a <= value <= b",
        CORRECT,
    ),
    ("05.1", "def join_labels(p, y):\n    return p.join(y.rename('target'))", CORRECT),
    ("05.1", "def join_labels(p, y):\n    p['target'] = y\n    return p", CHANGES),
]


@pytest.mark.parametrize(("key", "code", "said"), MISSES, ids=lambda text: text[:12])
def test_a_near_miss(key, code, said):
    """An answer as readers write it: the usual ways to be right count, a slip gets its sentence."""
    code = f"import math\nimport numpy as np\n{code}"
    answer = find_definition(key).value_of(code)
    assert repr(check(key, answer)).startswith(f"{key} {said}")
