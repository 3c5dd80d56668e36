"""The README's commands and links: each leads somewhere."""

import re
import shlex
import subprocess

import pytest
from typer.main import get_command

from lepton_lib.cli import app
from lepton_lib.runs import check_parameters, find_notebook
from lepton_lib.runs.notebooks import loop_notebooks
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
        notebooks = loop_notebooks() if name == "loop" else [find_notebook(name)]
        assert check_parameters(notebooks, values | {"case": context.params["case"]})


def test_every_link_resolves():
    """Each relative link and picture of the README is a file of the repository."""
    for target in re.findall(r"\]\(([^)#\s]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
