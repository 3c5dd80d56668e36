"""The floors of the house: who may import whom, and what may not happen on the way."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lepton_lib
from lepton_lib import errors

ROOT = Path(lepton_lib.__file__).parent
FLOORS = {
    0: "errors utils plots",
    1: "cases artefacts",
    2: "data models optimizers metrics",
    3: "trainer",
    4: "evaluation robustness explanation fairness",
    5: "monitoring",
    6: "runs exercises serving doctor site",
    7: "classroom operations",
    8: "cli",
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules.split()}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
NAMES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]


def imported(tree, package):
    """Every module that a file imports, at its top or inside a function, by full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = ("." * node.level) and package
            module = ".".join(filter(None, [source, node.module]))
            yield from (
                (f"{module}.{alias.name}" for alias in node.names)
                if module == "lepton_lib"
                else [module]
            )


def each_file(function):
    return pytest.mark.parametrize("path", FILES, ids=NAMES)(function)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@each_file
def test_imports_run_strictly_downwards(path):
    """A module imports only from lower floors of DESIGN.md, or from its own folder."""
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in FLOOR, f"give {own} a floor"
    for name in imported(parse(path), f"lepton_lib.{own}"):
        if name.startswith("lepton_lib."):
            other = name.split(".")[1]
            assert other == own or FLOOR[other] < FLOOR[own], (
                f"{own} (floor {FLOOR[own]}) imports {other}"
            )


@each_file
def test_matplotlib_is_imported_in_plots_alone(path):
    """Figures are made in one place."""
    if path != ROOT / "plots.py":
        assert not any(
            name.split(".")[0] == "matplotlib" for name in imported(parse(path), "lepton_lib")
        )


@each_file
def test_nothing_is_printed(path):
    """The library returns values; the command line has its own way to tell them."""
    calls = [node.func for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    assert not any(isinstance(f, ast.Name) and f.id == "print" for f in calls)


@each_file
def test_no_module_outgrows_its_reader(path):
    """Before a module grows beyond 400 lines, it becomes a folder."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@each_file
def test_every_module_says_what_it_is_for(path):
    """Each module begins with a docstring."""
    assert ast.get_docstring(parse(path))


ERRORS = {
    name
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception)
}


@each_file
def test_errors_have_their_four_parts(path):
    """Wherever one of the library's errors is made, it says where, got, expected and remedy."""
    for node in ast.walk(parse(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ERRORS
        ):
            keywords = {keyword.arg for keyword in node.keywords}
            assert node.args or "where" in keywords, f"line {node.lineno} names no place"
            assert {"got", "expected", "remedy"} <= keywords, f"line {node.lineno} lacks a part"


def test_an_error_reads_as_one_sentence_and_a_remedy():
    """The message holds the four parts in order, and each can be asked for."""
    error = errors.DataError("row 3", got="-1", expected="0 or more", remedy="Mend it.")
    assert str(error) == "row 3: got -1, expected 0 or more. Mend it."
    assert (error.where, error.got, error.expected, error.remedy) == (
        "row 3",
        "-1",
        "0 or more",
        "Mend it.",
    )
    assert isinstance(error, errors.LeptonError)


def run(program, **options):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, **options
    )


def test_the_package_alone_imports_nothing_heavy():
    """`import lepton_lib`, its errors and its utils bring in none of the large libraries."""
    heavy = [
        "torch",
        "numpy",
        "pandas",
        "sklearn",
        "matplotlib",
        "pydantic",
        "onnx",
        "scipy",
        "fastapi",
    ]
    program = f"import lepton_lib, lepton_lib.errors, lepton_lib.utils, sys; print([m for m in {heavy} if m in sys.modules])"
    assert run(program).stdout == "[]\n"


IMPORT_ALL = f"""
import logging, os, random, socket, sys
def refuse(*_, **__): raise OSError("the network was touched")
socket.socket.connect = refuse
import numpy, torch
before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
handlers, variables = list(logging.getLogger().handlers), dict(os.environ)
import importlib
for name in {[name for name in NAMES if not name.endswith("__main__")]}:
    importlib.import_module("lepton_lib." + name.removesuffix(".__init__"))
assert before == (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()), "seeds"
assert handlers == logging.getLogger().handlers, "logging"
assert "matplotlib.pyplot" not in sys.modules, "pyplot"
print(len(sys.modules) > 100, os.listdir("."))
"""


def test_nothing_happens_at_import(tmp_path):
    """Importing every module writes no file, prints nothing, draws no random number and sets up no logging."""
    result = run(IMPORT_ALL, cwd=tmp_path)
    assert result.stdout == "True []\n"
    assert result.stderr == ""
