"""The container that a class runs in, as far as can be checked without building it."""

import json
import re
import subprocess
import tomllib

import pytest
from typer.main import get_command

from lepton_lib.cli import app
from tests.offline import ROOT

FOLDER = ROOT / ".devcontainer"
CONTAINERFILE = (FOLDER / "Containerfile").read_text(encoding="utf-8")
LINES = [
    line
    for line in CONTAINERFILE.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
STEPS = [tuple(line.split(None, 1)) for line in LINES]
EDITOR = json.loads((FOLDER / "devcontainer.json").read_text(encoding="utf-8"))


def of(kind):
    return [rest for word, rest in STEPS if word == kind]


def test_every_line_is_an_instruction():
    """The file holds known instructions alone, and begins with a pinned image."""
    known = {"FROM", "RUN", "USER", "WORKDIR", "COPY", "ENV", "ARG", "EXPOSE", "CMD"}
    assert {word for word, _ in STEPS} <= known
    assert STEPS[0][0] == "FROM"
    assert re.search(r":\d+\.\d+-[a-z-]+$", of("FROM")[0])


def test_its_python_is_one_that_the_course_supports():
    """The image's Python is new enough."""
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "requires-python"
    ].removeprefix(">=")
    found = re.search(r"python:(\d+)\.(\d+)", of("FROM")[0])
    assert tuple(map(int, found.groups())) >= tuple(map(int, least.split(".")))


def test_it_isnt_root():
    """The copy of the course and all after it are the learner's, as is the editor's session."""
    words = [word for word, _ in STEPS]
    assert of("USER") == [EDITOR["remoteUser"]] == ["learner"]
    assert "useradd" in of("RUN")[0]
    assert words.index("USER") < words.index("COPY") < words.index("CMD")
    assert f"--chown={EDITOR['remoteUser']}" in of("COPY")[0]


def test_the_environment_is_made_by_make_setup():
    """The README's command sets the image up, outside the folder that an editor mounts over."""
    (setup,) = [run for run in of("RUN") if "make setup" in run]
    (place,) = re.findall(r"VIRTUAL_ENV=(\S+)", CONTAINERFILE)
    home = of("WORKDIR")[0]
    assert EDITOR["workspaceFolder"] == home
    assert f"target={home}," in EDITOR["workspaceMount"]
    assert not place.startswith(home)
    assert (
        EDITOR["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
        == f"{place}/bin/python"
    )
    assert "https://download.pytorch.org/whl/cpu" in setup
    done = subprocess.run(
        ["make", "-n", "setup", f"VENV={place}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert f"{place}/bin/python -m pip" in done.stdout


def test_nothing_is_fetched_when_it_runs():
    """What is started is in the image, the token stays on, no build output is copied in."""
    command = json.loads(of("CMD")[0])
    assert command[:2] == ["sh", "-c"]
    assert not re.search(r"\b(?:pip|apt|curl|wget|git)\b", command[2] + EDITOR["postStartCommand"])
    assert "token" not in CONTAINERFILE.lower().replace("its token", "")
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", "runs", "work"} <= set(ignored)
    assert EDITOR["forwardPorts"] == [int(of("EXPOSE")[0])]


@pytest.mark.parametrize(
    "text", [CONTAINERFILE, (FOLDER / "README.md").read_text(encoding="utf-8"), str(EDITOR)]
)
def test_its_commands_exist(text):
    """Each `lepton` command that is named there is one, and each file is there."""
    named = set(re.findall(r"\blepton ([a-z]+)\b(?!-)", re.sub(r"`lepton-course`", "", text)))
    assert named
    assert named <= set(get_command(app).commands)
    for path in re.findall(r"(?:-f |COPY \S+ )(\.\S+)", text):
        assert (ROOT / path).exists(), path


def test_the_notes_for_a_hub_are_python():
    """The configuration parses, and leads to the first notebook."""
    (block,) = re.findall(
        r"```python\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    compile(block, "jupyterhub_config.py", "exec")
    (page,) = re.findall(r'default_url = "/lab/tree/work/([^"]+)"', block)
    assert (ROOT / "notebooks" / page).is_file()
