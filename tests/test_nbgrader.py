"""The editions for nbgrader: by the rules of its metadata and, on request, by nbgrader itself.

nbgrader lives in an environment of its own; making that needs the registry.
"""

import os
import re
import subprocess
import sys

import nbformat
import pytest

from lepton_lib.classroom.editions import hand_out
from tests.benchmarks.environments import ROOT, environment
from tests.course import write_course

KEYS = {
    "schema_version",
    "grade_id",
    "grade",
    "points",
    "locked",
    "solution",
    "task",
    "cell_type",
    "checksum",
}


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """The editions of a small course, with tests for nbgrader."""
    root = tmp_path_factory.mktemp("course")
    write_course(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        hand_out(root / "editions", nbgrader=True)
    return root / "editions"


@pytest.mark.parametrize("edition", ["learners", "instructor"])
def test_a_locked_test_follows_each_exercise(editions, edition):
    """Every exercise has one test with a point, a name and all of the metadata's version 3."""
    nb = nbformat.read(editions / edition / "07_small.ipynb", 4)
    nbformat.validate(nb)
    marked = [cell for cell in nb.cells if "nbgrader" in cell.metadata]
    assert [cell.metadata.nbgrader.grade_id for cell in marked] == [
        "test-07-1",
        "test-07-2",
        "test-07-q1",
    ]
    for cell in marked:
        found = cell.metadata.nbgrader
        assert set(found) == KEYS
        assert re.fullmatch(r"[\w-]+", found.grade_id)
        assert re.fullmatch(r"[0-9a-f]{32}", found.checksum)
        assert (found.schema_version, found.points, found.cell_type) == (3, 1, cell.cell_type)
        assert (found.grade, found.locked, found.solution, found.task) == (True, True, False, False)
    before = [nb.cells[nb.cells.index(cell) - 1] for cell in marked if edition == "learners"]
    assert all("exercise" in cell.metadata.tags for cell in before)


def test_right_answers_pass_the_tests(editions):
    """No test fails in the instructor's edition, which was run."""
    nb = nbformat.read(editions / "instructor" / "07_small.ipynb", 4)
    assert [cell.outputs for cell in nb.cells if "nbgrader" in cell.metadata] == [[], [], []]


@pytest.mark.skipif(
    os.environ.get("LEPTON_NBGRADER") != "required",
    reason="set LEPTON_NBGRADER=required: installs nbgrader in build/",
)
@pytest.mark.parametrize(
    ("edition", "change", "said"),
    [
        ("instructor", ("", ""), "Success! Your notebook passes all the tests."),
        ("learners", ("", ""), "VALIDATION FAILED ON 3 CELL(S)"),
        (
            "instructor",
            ("share = 2 / total", "share = 3 / total"),
            "VALIDATION FAILED ON 1 CELL(S)",
        ),
        (
            "instructor",
            ("is not correct yet", "is wrong"),
            "THE CONTENTS OF 3 TEST CELL(S) HAVE CHANGED!",
        ),
    ],
)
def test_nbgrader_validates(editions, tmp_path, edition, change, said):
    """`nbgrader validate` accepts the answers, counts open exercises and notices changed tests."""
    python, why = environment("nbgrader")
    assert python, why
    text = (editions / edition / "07_small.ipynb").read_text(encoding="utf-8").replace(*change)
    (editions.parent / edition).mkdir(exist_ok=True)
    path = editions.parent / edition / "07_small.ipynb"
    path.write_text(text, encoding="utf-8")
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    words = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernel / "kernel.json").write_text(
        f'{{"argv": {words}, "display_name": "the kit\'s", "language": "python"}}'
    )
    done = subprocess.run(
        [str(python.with_name("nbgrader")), "validate", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"JUPYTER_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert said in " ".join(done.stdout.split()), done.stdout[-2000:] + done.stderr[-2000:]
