"""The tests notice faults planted in the library; the commit draws a few (see `make mutants`)."""

import sys
import tomllib

import pytest

from tests import offline
from tests.mutants import trial
from tests.mutants.__main__ import EQUIVALENT, LIBRARY, known_rounds
from tests.mutants.plant import Mutant, choose, mutants
from tests.mutants.trial import Verdict

pytestmark = pytest.mark.no_cover
SAMPLE = 3


def test_a_few_faults_planted_in_the_library_are_noticed():
    """A handful of the table's mutants, others with each commit, each turns a test red."""
    done = offline.run(
        sys.executable, "-m", "tests.mutants", "--sample", str(SAMPLE), "--jobs", "1", timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SAMPLE} of {SAMPLE} caught" in done.stdout


def test_a_fault_that_changes_nothing_survives(tmp_path):
    """A mutant that changes nothing survives, as a control, and a real one beside it is caught."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.test_mutants import control, real\nfrom tests.mutants.trial import try_all\n"
        "test = 'tests/test_optimizers.py::test_groups_keep_their_own_peak'\n"
        "rounds = lambda mutant: [('tests', {test: 10.0})]\n"
        "tried = try_all([control(), real()], rounds, jobs=1, place=Path(sys.argv[1]))\n"
        "for mutant, verdict in tried:\n"
        "    print(mutant.kind, verdict.round or 'survived', verdict.test)\n"
    )
    done = offline.run(sys.executable, "-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    verdicts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert verdicts["control"].split() == ["survived"]
    assert verdicts["real"].startswith("tests tests/test_optimizers.py::")


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([None, ""], Verdict(trial.LIMIT, "tests/test_x.py::test_y")),
        ([None, None], Verdict(trial.UNCLEAR, "tests/test_x.py::test_y")),
        ([None, "red"], Verdict(trial.UNCLEAR, "tests/test_x.py::test_y")),
        (["", None, ""], Verdict(trial.LIMIT, "tests/test_x.py::test_y")),
        (["", "red"], Verdict("second", "red")),
        (["", ""], Verdict()),
    ],
)
def test_a_time_limit_tells_of_a_fault_only_where_the_control_ends(
    tmp_path, monkeypatch, runs, expected
):
    """Tests that time out are run again without the fault: a busy machine doesn't count."""
    path, left, texts = tmp_path / "lepton_lib" / "optimizers.py", list(runs), []
    path.parent.mkdir()
    path.write_bytes((LIBRARY / "optimizers.py").read_bytes())
    whole = path.read_bytes()

    def run(folder, _, seconds):
        (folder / "begun").write_text("tests/test_x.py::test_y")
        texts.append((path.read_bytes(), seconds))
        yield
        return left.pop(0)

    monkeypatch.setattr(trial, "_run", run)
    attempt = trial._attempt(
        real(), tmp_path, [("first", {"a": 1.0}), ("none", {}), ("second", {"b": 1.0})]
    )
    verdict = []

    def follow():
        verdict.append((yield from attempt))

    for _ in follow():
        pass
    assert (verdict, left) == ([expected], [])
    assert path.read_bytes() == whole
    planted, limit = real().plant(whole), trial.SECONDS + 10
    for k, got in enumerate(texts):
        assert got == ((whole, limit / 2) if k and runs[k - 1] is None else (planted, limit))


def control():
    """A mutant that isn't one: a number in brackets."""
    found = next(
        m for m in mutants(LIBRARY, "optimizers.py") if m.kind == "constant" and m.was.isdigit()
    )
    return Mutant(**{**vars(found), "kind": "control", "now": found.was, "text": f"({found.was})"})


def real():
    """A mutant that turns the schedule upside down."""
    found = next(
        m for m in mutants(LIBRARY, "optimizers.py") if m.kind == "operator" and "rise + 1" in m.was
    )
    return Mutant(**{**vars(found), "kind": "real"})


def test_the_faults_are_many_and_of_every_kind():
    """The table has over 150 mutants, of each kind and in the modules that do the work."""
    chosen = choose(LIBRARY, 200)
    assert len(chosen) > 150
    assert len({mutant.kind for mutant in chosen}) == 9
    assert len({str(mutant) for mutant in chosen}) == len(chosen)
    assert {mutant.module.split("/")[0].removesuffix(".py") for mutant in chosen} >= {
        "metrics",
        "data",
        "runs",
        "trainer",
    }


SOURCE = '''
from typing import cast

LIMIT = 3

def check(value: int, *, where: str = "there") -> bool:
    """Whether it is 1 < 2."""
    if value < LIMIT and not value == 2:
        raise ValueError(f"got {value + 1}")
    items[0] = min(value, 5)
    return call(value, 7, strict=True, key="name")[1:]
'''


def test_each_kind_of_fault_is_planted_where_it_stands(tmp_path):
    """Mutants change each kind of code, but no docstring, annotation or message."""
    (tmp_path / "m.py").write_text(SOURCE)
    found = mutants(tmp_path, "m.py")
    changes = {f"{mutant.was} -> {mutant.now}" for mutant in found}
    assert {
        "3 -> 4",
        "value < LIMIT -> value <= LIMIT",
        "value < LIMIT and (not value == 2) -> value < LIMIT or not value == 2",
        "not value == 2 -> value == 2",
        "value == 2 -> value != 2",
        "items[0] = min(value, 5) -> (nothing)",
        "min(value, 5) -> max(value, 5)",
        "min(value, 5) -> min(5, value)",
        "call(value, 7, strict=True, key='name') -> call(7, value, strict=True, key='name')",
        "call(value, 7, strict=True, key='name') -> call(value, 7, strict=True)",
        "call(value, 7, strict=True, key='name')[1:] -> call(value, 7, strict=True, key='name')[:]",
    } <= changes
    assert not {"Whether", "int", "value + 1", "True"} & {mutant.was for mutant in found}
    assert all(
        "strict=True" in mutant.now
        for mutant in found
        if mutant.was.startswith("call") and "call" in mutant.now
    )
    source = (tmp_path / "m.py").read_bytes()
    for mutant in found:
        planted = mutant.plant(source).decode()
        compile(planted, "m.py", "exec")
        assert planted.count("\n") == SOURCE.count("\n")
        assert planted != SOURCE


def test_the_same_faults_are_drawn_each_time(tmp_path):
    """The choice depends only on the library and the seed."""
    (tmp_path / "m.py").write_text(SOURCE)
    draw = choose.__wrapped__  # without its memory
    assert draw(tmp_path, 5) == draw(tmp_path, 5) != draw(tmp_path, 5, seed=1)


def test_a_fault_keeps_its_name_while_its_function_moves(tmp_path):
    """A mutant's name doesn't depend on the code above its function or on the formatting."""
    (tmp_path / "m.py").write_text(SOURCE)
    before = [str(mutant) for mutant in mutants(tmp_path, "m.py")]
    (tmp_path / "m.py").write_text(
        "# more\n" * 9 + SOURCE.replace("min(value, 5)", "min(\n        value,\n        5,\n    )")
    )
    assert [str(mutant) for mutant in mutants(tmp_path, "m.py")] == before


def test_a_reason_stands_for_a_fault_of_the_table():
    """Each mutant that is called equivalent is one of the table's, and has a reason in words."""
    names = {str(mutant) for mutant in choose(LIBRARY, 200)}
    for name, reason in tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).items():
        assert name in names
        assert len(reason) > 20


def test_a_new_fault_is_tried_by_the_tests_of_its_module():
    """A mutant that the table doesn't know goes to the test files that name its module."""
    mutant = mutants(LIBRARY, "optimizers.py")[0]
    ((_, tests),) = known_rounds({}, mutant)
    assert "tests/test_optimizers.py" in tests
    assert "tests/test_browser.py" not in tests
    first, _ = known_rounds({str(mutant): Verdict("tests", "tests/test_x.py::test_y")}, mutant)
    assert list(first[1]) == ["tests/test_x.py::test_y"]
    (_, near), (_, far) = known_rounds({}, mutants(LIBRARY, "monitoring/sequential.py")[0])
    assert "tests/test_policy.py" in near
    assert "tests/test_monitoring.py" in far
    assert not set(near) & set(far)
