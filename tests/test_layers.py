"""The layers of the library: which part may import which, and what may not happen at import."""

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
# The core's layers: a module imports only from the layers above it in this list.
CORE_LAYERS = (
    ("errors", "utils", "plots"),
    ("cases", "artefacts"),
    ("data", "models", "optimizers", "metrics", "decisions", "baselines", "calibration"),
    ("trainer", "intervals"),
    ("evaluation", "robustness", "explanation"),
    ("monitoring",),
)
CORE = frozenset(module for layer in CORE_LAYERS for module in layer)
COURSE = frozenset({"drafting", "exercises", "classroom", "cli", "doctor", "site", "__main__"})
PARTS = CORE | {"serving", "runs", "operations"} | COURSE
MAY_IMPORT = {
    **{
        module: frozenset(lower for layer in CORE_LAYERS[:depth] for lower in layer)
        for depth, layer in enumerate(CORE_LAYERS)
        for module in layer
    },
    "serving": CORE,
    "runs": CORE,
    "operations": CORE | {"serving", "runs"},
    "drafting": CORE,
    "exercises": CORE,
    "doctor": CORE,
    "site": CORE,
    "classroom": PARTS - {"classroom", "cli", "__main__"},
    "cli": PARTS - {"cli", "__main__"},
    "__main__": PARTS - {"__main__"},
}
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


def part_of(path):
    """The part that a file belongs to, by its path below the library: its module or its folder."""
    return path.parts[0].removesuffix(".py")


def parts_imported(path, part):
    """The other parts that a file imports."""
    for name in imported(parse(path), f"lepton_lib.{part}"):
        if name.startswith("lepton_lib.") and (other := name.split(".")[1]) != part:
            yield other


@each_file
def test_imports_run_strictly_downwards(path):
    """A module imports only what its part may import, or from its own folder."""
    part = part_of(path.relative_to(ROOT))
    assert part in MAY_IMPORT, f"give {part} a layer"
    assert set(parts_imported(path, part)) <= MAY_IMPORT[part]


def test_the_parts_form_no_circle():
    """Of two parts, the table lets at most one import the other."""
    for part, allowed in MAY_IMPORT.items():
        assert part not in allowed
        assert not any(part in MAY_IMPORT[other] for other in allowed)
    for part in CORE:
        assert MAY_IMPORT[part] <= CORE


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
    name: len(inspect.signature(value).parameters)
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.LeptonError)
}


@each_file
def test_errors_have_their_four_parts(path):
    """An error is made of where, got, expected and remedy, by position; RecordError of five."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ERRORS:
            assert not node.keywords, f"line {node.lineno} names a part"
            assert len(node.args) == ERRORS[node.func.id], f"line {node.lineno} lacks a part"
            assert not any(isinstance(part, ast.Starred) for part in node.args), node.lineno


def test_an_error_reads_as_one_sentence_and_a_remedy():
    """The message holds the four parts in order, and each can be asked for."""
    error = errors.DataError("row 3", "-1", "0 or more", "Fix it.")
    assert str(error) == "row 3: got -1, expected 0 or more. Fix it."
    parts = (error.where, error.got, error.expected, error.remedy)
    assert parts == ("row 3", "-1", "0 or more", "Fix it.")
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
    program = "import lepton_lib, lepton_lib.errors, lepton_lib.utils, sys; "
    program += f"print([m for m in {heavy} if m in sys.modules])"
    assert run(program).stdout == "[]\n"


IMPORT_ALL = f"""
import logging, os, random, socket, sys
def refuse(*_, **__): raise OSError("the network was touched")
socket.socket.connect = refuse
import numpy, torch
def seeds():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
before = seeds()
handlers, variables = list(logging.getLogger().handlers), dict(os.environ)
import importlib
for name in {[name for name in NAMES if not name.endswith("__main__")]}:
    importlib.import_module("lepton_lib." + name.removesuffix(".__init__"))
assert before == seeds(), "seeds"
assert handlers == logging.getLogger().handlers, "logging"
assert "matplotlib.pyplot" not in sys.modules, "pyplot"
print(len(sys.modules) > 100, os.listdir("."))
"""


def test_nothing_happens_at_import(tmp_path):
    """Importing any module writes no file, prints nothing, draws no number, sets up no logging."""
    result = run(IMPORT_ALL, cwd=tmp_path)
    assert result.stdout == "True []\n"
    assert result.stderr == ""
