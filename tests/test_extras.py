"""What each part needs installed: the core its dependencies, the others an extra each."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lepton_lib
from lepton_lib.errors import MissingExtraError, needs_extra
from tests.offline import ROOT, environment
from tests.test_layers import CORE, part_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = metadata.packages_distributions()  # by module
EXTRA_OF = {  # the extra that a part's imports may come from
    **dict.fromkeys(CORE, ""),
    "serving": "serve",
    "runs": "ops",
    "operations": "ops",
}
CUDA = ("nvidia-", "cuda-", "triton")  # pinned by torch itself, and no part of its CPU build


def names(lines):
    return {canonicalize_name(Requirement(line).name) for line in lines}


def closure(extra=""):
    """All distributions that installing the course with an extra brings."""
    done, todo = set(), [(line, {""}) for line in PROJECT["dependencies"]]
    todo += [(line, {""}) for line in EXTRAS.get(extra, [])]
    while todo:
        requirement, extras = Requirement(todo[-1][0]), todo.pop()[1]
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if name == "lepton-course":
            todo += [(line, {""}) for each in requirement.extras for line in EXTRAS[each]]
        elif (name, *requirement.extras) not in done:
            done.add((name, *requirement.extras))
            try:
                lines = metadata.requires(name) or []
            except metadata.PackageNotFoundError:  # for another platform
                continue
            todo += [(line, {"", *requirement.extras}) for line in lines]
    return {name for name, *_ in done}


def third_party(path, *, with_extras=False):
    """The distributions that a file imports, at its top or in functions, but for its extras'."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [tree]
    for node in nodes:  # grows on the way
        guarded = isinstance(node, ast.With) and "needs_extra" in ast.unparse(node.items[0])
        if not guarded or with_extras:
            nodes += ast.iter_child_nodes(node)
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    tops = {name.split(".")[0] for name in modules} - {"lepton_lib", "tests"}
    tops -= sys.stdlib_module_names
    return {canonicalize_name(name) for top in tops for name in DISTRIBUTIONS.get(top, [top])}


def files_of(parts):
    library = Path(lepton_lib.__file__).parent
    return [path for path in library.rglob("*.py") if part_of(path.relative_to(library)) in parts]


def test_the_core_imports_its_dependencies_and_nothing_else():
    """The core imports what `pip install .` brings: nothing is missing, nothing unused."""
    imported = set().union(*map(third_party, files_of(CORE)))
    assert imported == names(PROJECT["dependencies"])


@pytest.mark.parametrize("part", ["serving", "runs", "operations", ""])
def test_a_part_imports_what_its_extra_brings(part):
    """Serving imports nothing beyond ``serve``, operations ``ops``, the course ``class``."""
    parts = [part] if part else {"drafting", "exercises", "classroom", "cli", "doctor"}
    imported = set().union(*(third_party(path, with_extras=True) for path in files_of(parts)))
    optional = closure("scale") if part == "runs" else set()
    assert imported <= closure(EXTRA_OF.get(part, "class")) | optional


def test_notebooks_import_what_the_class_has():
    """What a notebook of the loop imports comes with ``class``, what a lesson does with ``all``."""
    imported = imported_by(ROOT.glob("notebooks/*.ipynb"))
    assert {"torch", "optuna", "httpx"} <= imported
    assert brought_by(imported) <= closure("class")
    assert brought_by(imported_by(ROOT.glob("notebooks/*/*.ipynb"))) <= closure("all")


def brought_by(modules):
    return {canonicalize_name(DISTRIBUTIONS[name][0]) for name in modules}


def imported_by(notebooks):
    """The third-party modules that notebooks import."""
    imported = set()
    for path in notebooks:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "code")
        imported |= set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
    return imported - sys.stdlib_module_names - {"lepton_lib"}


def test_all_and_test_hold_every_extra():
    """``all`` has each part's extra, and ``test``, which `make setup` installs, has ``all``."""
    parts = [closure(extra) for extra in ("serve", "ops", "class", "text", "vision")]
    assert closure("all") == set().union(*parts)
    assert closure("test") >= closure("all") | closure("site")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--editable '.[test]'" in makefile


def test_every_requirement_has_a_pin():
    """Each distribution that any extra but a benchmark's brings is pinned in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = names(line for line in lines if not line.startswith("#"))
    for extra in ("", "serve", "ops", "class", "site", "test"):
        unpinned = {name for name in closure(extra) - pinned if not name.startswith(CUDA)}
        assert unpinned <= {"colorama"}


def test_the_core_walks_alone():
    """Without any other package the core trains and evaluates; what leaves it names its extra."""
    core = closure() | {"lepton-course"}
    installed = {distribution.name for distribution in metadata.distributions()}
    others = {name for name in installed if canonicalize_name(name) not in core}
    assert {"typer", "fastapi", "onnx", "papermill", "optuna", "tensorboard", "ipython"} <= others
    done = subprocess.run(
        [sys.executable, "-m", "tests.core_walk", *sorted(others)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["auc"] > 0.75
    command = re.compile(r"-e '\.\[(\w+)\]'")
    extras = {way: command.search(error)[1] for way, error in result["errors"].items()}
    assert extras == {
        "export_onnx": "serve",
        "log_dir": "class",
        "serving": "serve",
        "runs": "ops",
        "operations": "ops",
        "lepton": "class",
    }


def test_a_missing_package_is_named_with_the_command_that_brings_it():
    """The error says who needs what, is an ImportError, and hides no mistake in our own imports."""
    with pytest.raises(MissingExtraError) as raised, needs_extra("ops", "runs", "no_such_package"):
        pytest.fail("looked for before anything else")
    assert isinstance(raised.value, ImportError)
    assert str(raised.value) == (
        "runs: got no package 'no_such_package', expected the extra 'ops'. "
        "Run `python -m pip install -c constraints.txt -e '.[ops]'` in the course's folder."
    )
    larger = pytest.raises(MissingExtraError, match=r"^outer: .*\.\[class\]")
    with larger, needs_extra("class", "outer"), needs_extra("serve", "inner"):
        import no_such_package  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="lepton_lib") as own, needs_extra("ops", "runs"):
        import lepton_lib.no_such_module  # noqa: F401
    assert not isinstance(own.value, MissingExtraError)
