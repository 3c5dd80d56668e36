"""What several test modules share."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import coverage
import pytest

from lepton_lib.runs import kernels
from lepton_lib.utils import NO_TELEMETRY, SAME_BITS, to_toml
from tests import chromium, prometheus, syscalls

# before any test loads torch, and for every process that a test starts
os.environ.update(SAME_BITS | NO_TELEMETRY)
sys.modules["rfc3987_syntax"] = None  # as lepton_lib.cli.main does
# The tests sign with a key of their own, one for all workers and the programs that they start.
os.environ.setdefault(
    "LEPTON_CONFIG", str(Path(tempfile.gettempdir()) / f"lepton-tests-{os.getuid()}")
)

collect_ignore = [
    name
    for name, absent in (
        ("test_browser.py", chromium.left_out()),
        ("test_prometheus.py", prometheus.left_out()),
    )
    if absent
]


# The files that take longest, which are begun first: two workers then end at about the same time.
# See `make test`.
LONG = (
    "notebooks",
    "every_case",
    "operations",
    "instructor",
    "parameters",
    "runs",
    "browser",
    "models",
    "verification",
)
LONG += ("mutants", "grading", "cli", "serving")


HEAVY = (
    "torch",
    "sklearn.ensemble",
    "matplotlib.pyplot",
    "pandas",
    "fastapi",
    "httpx",
    "nbformat",
    "playwright.sync_api",
    "pyarrow.parquet",
    "onnxruntime",
)


def pytest_configure() -> None:
    """Import the heavy packages in each xdist worker before coverage traces their lines.

    Coverage has started with the process (``patch`` in pyproject.toml) and again with pytest-cov,
    which starts anew before the tests; the earlier ones would trace the tests marked ``no_cover``.
    The garbage collector waits, too.
    """
    gc.disable()
    if "PYTEST_XDIST_WORKER" in os.environ:
        while (begun := coverage.Coverage.current()) is not None:
            begun.stop()
        for name in HEAVY:
            importlib.import_module(name)


def pytest_collection_finish() -> None:
    """What is there by now stays, and isn't looked through for garbage again and again."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order within a file stays."""
    rank = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Iterator[Any]:
    """See `pytest_pyfunc_call`; pytest sets the variable before the fixtures and the test."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[Any]:
    """Unset pytest's variable with the test's name: one server forks kernels of equal variables."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    return (yield)


# The files whose tests start programs that run lines which no test runs in its own process.
TRACED = (
    "cli",
    "durability",
    "grading",
    "guards",
    "kernels",
    "releases",
    "serving",
    "service_signals",
    "trainer",
)


def untraced(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables without those by which coverage traces a program, and slows it by half."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("COVERAGE_PROCESS")
    }


@pytest.fixture(scope="module", autouse=True)
def programs_traced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trace only programs that the tests of `TRACED` start, and kernels only in test_kernels."""
    name, shared = request.path.stem.removeprefix("test_"), kernels._shared
    with pytest.MonkeyPatch.context() as patch:
        if name not in TRACED:
            for variable in os.environ.keys() - untraced(os.environ).keys():
                patch.delenv(variable)
        if name != "kernels":
            patch.setattr(kernels, "_shared", lambda environment: shared(untraced(environment)))
        yield


@pytest.fixture(scope="session", autouse=True)
def exporter_untraced() -> Iterator[None]:
    """Export to ONNX in a thread without a tracer: millions of calls, none of them ours."""
    import torch

    export = torch.onnx.export

    def aside(*args: Any, **options: Any) -> Any:
        with ThreadPoolExecutor(1, initializer=sys.settrace, initargs=(None,)) as pool:
            return pool.submit(export, *args, **options).result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", aside)
        yield


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Path:
    """What the tests of several files read and none changes, made by the first worker to ask."""
    from lepton_lib.artefacts import exclusive_lock

    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    with exclusive_lock(folder, timeout=900):
        if not (folder / "done").exists():
            make(folder / name)
            (folder / "done").touch()
    return folder / name


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after `lepton run loop` on credit with one thread, without the lessons."""

    def make(folder: Path) -> None:
        words = ["run", "loop", "--case", "credit", "--out", str(folder)]
        # a process of its own, as for its users
        done = syscalls.run(folder.with_suffix(".strace"), *words)
        assert done.returncode == 0, done.stderr[-4000:]

    return made_once(tmp_path_factory, "credit", make)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The site's folder, built from the repository, and its pages in their order."""
    from lepton_lib.site import build

    def make(out: Path) -> None:
        out.with_suffix(".json").write_text(json.dumps(build(out)))

    out = made_once(tmp_path_factory, "site", make).resolve()
    return out, json.loads(out.with_suffix(".json").read_text())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it at the end, where it is read, when the tests in a browser were left out."""
    if chromium.left_out():
        terminalreporter.write_line(chromium.MISSING)
    if prometheus.left_out():
        terminalreporter.write_line(prometheus.MISSING)
    if not syscalls.strace():
        terminalreporter.write_line(syscalls.MISSING)


def light() -> dict[str, str]:
    """The variables of a process that imports no heavy package, see light/sitecustomize.py."""
    paths = [str(Path(__file__).with_name("light")), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def small_table(rows: int = 40) -> str:
    """A CSV ``x,colour,label`` with ``rows`` rows, every other one labelled ``yes``."""
    lines = [
        f"{i / 4},{('red', 'blue', 'green')[i % 3]},{('no', 'yes')[i % 2]}" for i in range(rows)
    ]
    return "\n".join(["x,colour,label", *lines, ""])


def write_case(folder: Path, table: str | bytes | None = None, **changes: Any) -> Path:
    """Write a small binary case into ``folder``.

    Args:
        folder: Where; its name is the case's name.
        table: The table, as text or bytes; without it `small_table`.
        **changes: Replace its keys: ``columns=[...]``; a dictionary adds to a section:
            ``data={"delimiter": ";"}``; None takes the key out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = small_table() if table is None else table
    content = table.encode() if isinstance(table, str) else table
    (folder / "table.csv").write_bytes(content)
    case: dict[str, Any] = {
        "name": folder.name,
        "title": "Yes or no?",
        "question": "Is it yes?",
        "task": "binary",
        "source": {"origin": "made up", "licence": "none needed", "citation": "none"},
        "data": {
            "file": "table.csv",
            "sha256": hashlib.sha256(content).hexdigest(),
            "row": "one thing",
        },
        "target": {
            "column": "label",
            "meaning": "the answer",
            "classes": [{"name": "no", "values": ["no"]}, {"name": "yes", "values": ["yes"]}],
        },
        "split": {"method": "stratified"},
        "columns": [
            {"name": "x", "kind": "number", "min": 0, "max": 100, "meaning": "a number"},
            {
                "name": "colour",
                "kind": "category",
                "categories": ["red", "blue", "green"],
                "meaning": "a word",
            },
        ],
        "charter": {
            "criteria": {"auc": {"at_least": 0.6, "why": "chance is 0.5"}},
            "stop": [],
            "risks": [],
        },
    }
    for key, value in changes.items():
        case[key] = {**case[key], **value} if isinstance(value, dict) and key in case else value
    lines = [f"{key} = {to_toml(value)}" for key, value in case.items() if value is not None]
    (folder / "case.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def make_case(tmp_path: Path) -> Callable[..., Path]:
    """Write a small case into the test's folder: ``make_case(table, **changes)``."""
    return lambda table=None, **changes: write_case(tmp_path / "small", table, **changes)


@pytest.fixture
def lepton(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, str, str]]:
    """Calls the command in this process: exit code, stdout, stderr."""
    from lepton_lib import cli

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("LEPTON_CASE", "")  # commands set it

    def call(*words: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["lepton", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a case and a run whose model was packaged; `run` gives a copy."""
    from tests.service import COLUMNS, HOSTILE, write_case_and_release

    folder = tmp_path_factory.mktemp("release")
    return write_case_and_release(folder, columns=COLUMNS, title=HOSTILE, question=HOSTILE)


@pytest.fixture
def run(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of this test's own, with the packaged model in it."""
    shutil.copytree(release, tmp_path / "release")
    monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path / "release"))
    return tmp_path / "release" / "run"


@pytest.fixture
def app(run: Path) -> Iterator[Any]:
    """The service of that run folder, in this process."""
    from lepton_lib import serving

    service = serving.create_app(run)
    yield service
    service.log.close()
