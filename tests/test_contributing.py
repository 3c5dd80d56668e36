"""What contributors read and what runs for them: commands, paths, tests and versions exist."""

import re
import shlex
import subprocess
import tomllib
from fnmatch import fnmatch

import pytest
import yaml
from typer.main import get_command

from lepton_lib.cli import app
from tests.offline import ROOT
from tests.static_checks import TAGS

NAMES = (".github/CONTRIBUTING.md", ".github/SECURITY.md", "CHANGELOG.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
CONTRIBUTING = TEXTS[".github/CONTRIBUTING.md"]
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", CONTRIBUTING, re.DOTALL)
    for line in block.splitlines()
]
COMMANDS += [text for text in re.findall(r"`([^`\n]+)`", CONTRIBUTING) if " " in text]
PYTEST = [line for line in COMMANDS if " -m pytest " in line]
LEPTON = [line for line in COMMANDS if line.startswith(".venv/bin/lepton ")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CI = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_path_exists(name):
    """Each file and folder that a page names in backticks or links to is there."""
    paths = re.findall(r"`([\w.][\w./-]*/[\w./-]*|[\w.-]+\.(?:toml|txt|md))`", TEXTS[name])
    paths += re.findall(r"\]\((?!https?:)/?([^)#\s]+)\)", TEXTS[name])
    for path in paths:
        places = (ROOT / path, ROOT / "datasets" / "credit" / path)
        assert any(place.exists() for place in places) or path == "templates/", path


def test_every_make_target_exists():
    """Each `make` command is a target of the Makefile."""
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", CONTRIBUTING, re.MULTILINE))
    assert {"setup", "check", "test", "site"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, target


@pytest.mark.parametrize("line", LEPTON)
def test_every_lepton_command_is_understood(line):
    """Each `lepton` command parses."""
    words = shlex.split(line)[1:]
    get_command(app).commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("line", PYTEST)
def test_every_test_that_is_named_is_there(line):
    """Each call of pytest names a test file, and ``-k`` words that occur in it or are an `and`."""
    words = shlex.split(line.partition(" -m pytest ")[2])
    (path,) = (word for word in words if word.startswith("tests/"))
    text = (ROOT / path).read_text(encoding="utf-8")
    chosen = words[words.index("-k") + 1].split(" and ") if "-k" in words else []
    for word in chosen:
        assert word in text or (ROOT / f"notebooks/{word}.ipynb").exists(), word


def test_the_tags_are_those_that_are_checked():
    """The tags of cells that the page lists are all that the check of notebooks allows."""
    (line,) = re.findall(r"^- Tags: ((?:.|\n  )*)", CONTRIBUTING, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", line)) == TAGS


def test_python_programs_run():
    """Each `python -c` prints something."""
    programs = [shlex.split(line) for line in COMMANDS if " -c " in line and "pip" not in line]
    assert programs
    for words in programs:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_version_is_the_changelogs_newest():
    """The changelog's first release is the project's version, and its dates descend."""
    releases = re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", TEXTS["CHANGELOG.md"], re.M)
    assert releases[0][0] == PROJECT["version"]
    assert releases == sorted(releases, key=lambda release: release[1], reverse=True)


def test_ci_runs_the_same_script_on_every_python():
    """CI calls .ci/run on the least Python and newer ones, and keeps what pip has downloaded."""
    job = CI["jobs"]["test"]
    assert {"run": "bash .ci/run"} in job["steps"]
    pythons = job["strategy"]["matrix"]["python"]
    assert pythons[0] == PROJECT["requires-python"].removeprefix(">=")
    assert CI["jobs"]["pins"]["strategy"]["matrix"]["python"] == [f"{each}.0" for each in pythons]
    (cache,) = (step for step in job["steps"] if "cache" in step.get("uses", ""))
    assert cache["with"]["path"] == job["env"]["PIP_CACHE_DIR"]


def test_pre_commit_runs_what_make_check_runs():
    """The hooks' programs are those of `make check`, out of the same environment."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook["entry"].split()[:2] for repo in config["repos"] for hook in repo["hooks"]]
    recipe = subprocess.run(
        ["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [" ".join(words) in recipe for words in entries] == [True] * 3


def test_files_are_as_editorconfig_says():
    """The limit of a line is ruff's, and every Python and Markdown file ends in a newline."""
    text = (ROOT / ".editorconfig").read_text(encoding="utf-8")
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert f"max_line_length = {ruff['line-length']}" in text
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in names:
        if fnmatch(name, "*.py") or fnmatch(name, "*.md"):
            content = (ROOT / name).read_bytes()
            assert not content or content.endswith(b"\n"), name
            assert b"\r" not in content, name
