"""The README's commands and links: each leads somewhere."""

import json
import re
import shlex
import subprocess

import pytest
from typer.main import get_command

from lepton_lib.cli import app
from lepton_lib.runs import check_parameters, find_notebook, find_notebooks
from lepton_lib.runs.notebooks import find_lessons, loop_notebooks
from tests.offline import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()
]
LEPTON = [shlex.split(line)[1:] for line in LINES if "/lepton " in line]


def test_every_make_target_exists():
    """Each `make` command in the README names a target of the Makefile."""
    targets = set(
        re.findall(
            r"\bmake ([a-z]+)", "\n".join(LINES) + " ".join(re.findall(r"`[^`\n]+`", README))
        )
    )
    assert {"setup", "run", "test", "learn", "help", "check", "notebooks", "bench"} <= targets
    for target in targets:
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"make {target}: {done.stderr}"


@pytest.mark.parametrize("words", LEPTON, ids=" ".join)
def test_every_lepton_command_is_understood(words):
    """Each `lepton` command in the README parses, and its notebooks take its parameters."""
    command = get_command(app).commands[words[0]]
    context = command.make_context(words[0], words[1:])
    if words[0] == "run":
        values = dict(pair.split("=", 1) for pair in context.params["parameter"] or [])
        name = context.params["notebook"]
        notebooks = find_lessons(name) or (
            loop_notebooks() if name == "loop" else [find_notebook(name)]
        )
        case = context.params["case"]
        assert check_parameters(notebooks, values | ({"case": case} if case else {}))


def test_every_link_resolves():
    """Each relative link and picture of the README is a file of the repository."""
    for target in re.findall(r"\]\(([^)#\s]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


LESSONS = re.findall(r"^\| \[.+?\]\((notebooks/industry/.+?)\) \|.*\| (.+) \|$", README, re.M)


def test_every_lesson_has_its_row():
    """The README lists the lessons from industry, in their order."""
    paths = [path.relative_to(ROOT).as_posix() for path in find_notebooks().values()]
    assert [path for path, _ in LESSONS] == [
        path for path in paths if path.startswith("notebooks/industry/")
    ]


@pytest.mark.parametrize(("path", "result"), LESSONS)
def test_a_lessons_result_is_its_runs(path, result):
    """Each percentage of a lesson's row stands as a share in what its cell ``finish`` shows."""
    cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
    shown = next(cell["outputs"][0] for cell in cells if cell["id"] == "finish")
    shares = re.findall(r"\b0\.\d{3}\b", "".join(shown["data"]["text/plain"]))
    stated = re.findall(r"(\d+\.\d) %", result)
    assert stated
    for number in stated:
        assert f"{float(number) / 100:.3f}" in shares, number
