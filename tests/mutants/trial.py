"""Try each mutant in a copy of the repository, with the tests that run the changed line.

The quickest tests come first. Each trial is forked from this process, which has the heavy libraries
loaded, and ends at the first red test.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib
import operator
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.mutants.plant import Mutant
from tests.offline import ROOT

# The notebooks and what runs them are for survivors; the rest looks at files or into a browser.
NOTEBOOKS = {"tests/test_notebooks.py": 120.0, "tests/test_every_case.py": 60.0}
ASIDE = (
    *NOTEBOOKS,
    *(f"tests/test_{name}.py" for name in ("browser", "site", "verification", "mutants")),
)
HEAVY = "numpy pandas torch sklearn.metrics scipy.stats matplotlib.pyplot pydantic"
HEAVY += " nbformat nbclient typer httpx"
CRASH = 70  # exit code of a trial that can't even start pytest
NEAR, FAR = 40.0, 10.0  # seconds of tests that run the line, and of others that run the module
# that a trial may take, besides ten times what its tests took when the map was drawn
SECONDS = 60.0
LIMIT, UNCLEAR = "limit", "unclear"
Tests = dict[str, float]  # seconds by the test's id, or by its file for all tests in that
Round = tuple[str, Tests]  # what a round is called, and its tests


def copy_repository(folder: Path) -> Path:
    """A copy of what the tests need, to plant faults in."""
    for name in ("lepton_lib", "tests", "notebooks", "datasets", ".ci", ".devcontainer"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, folder)
    for name in ("Makefile", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    # Bytecode that goes by what a module says, not by when it was written: a module with a fault is
    # compiled anew.
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(folder / "lepton_lib", quiet=2, invalidation_mode=mode)
    return folder


def _variables(folder: Path) -> dict[str, str]:
    """Variables for a run on the copy; it writes no bytecode, which a later fault would load."""
    return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass
class Map:
    """Which tests run which line."""

    seconds: Tests = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)  # tests by module and line

    @classmethod
    def draw(cls, folder: Path, jobs: int) -> Map:
        """Run the tests once on a copy of the repository, and note which of them run each line."""
        data, report = folder / "build" / "coverage", folder / "build" / "tests.xml"
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            str(jobs),
            "--dist",
            "loadfile",
            f"--junitxml={report}",
        ]
        words += [
            "-p",
            "no:cacheprovider",
            "--cov",
            "--cov-context=test",
            "--cov-report=",
            "--cov-fail-under=0",
        ]
        words += [f"--ignore={name}" for name in ASIDE]
        variables = os.environ | _variables(folder) | {"COVERAGE_FILE": str(data)}
        if subprocess.run(words, cwd=folder, env=variables, check=False).returncode:
            sys.exit("The tests must be green before faults are planted.")
        return cls.read(data, report, folder / "lepton_lib")

    @classmethod
    def read(cls, data: Path, report: Path, library: Path) -> Map:
        """From coverage's data and pytest's report."""
        from coverage import CoverageData

        found = cls()
        of_file: dict[str, set[str]] = defaultdict(set)
        for case in ET.parse(report).iter("testcase"):
            file = f"{case.get('classname', '').replace('.', '/')}.py"
            found.seconds[f"{file}::{case.get('name')}"] = float(case.get("time", 0))
            of_file[file].add(f"{file}::{case.get('name')}")
        coverage = CoverageData(str(data))
        coverage.read()
        for measured in coverage.measured_files():
            lines: dict[int, set[str]] = defaultdict(set)
            for line, contexts in coverage.contexts_by_lineno(measured).items():
                for name, _, phase in (context.rpartition("|") for context in contexts if context):
                    # What a module's fixture does is noted for the first test that asks, but serves
                    # the others, too.
                    lines[line] |= {name} if phase == "run" else of_file[name.partition("::")[0]]
            found.lines[str(Path(measured).relative_to(library))] = lines
        return found

    def rounds(self, mutant: Mutant) -> Iterator[Round]:
        """Yield tests that run the line, then others that run the module, then the notebooks."""
        lines = self.lines.get(mutant.module, {})
        near = lines.get(mutant.line, set()) & set(self.seconds)
        files = {name.partition("::")[0] for tests in lines.values() for name in tests}
        yield "tests", self._quickest(near, NEAR)
        others = {name for name in self.seconds if name.partition("::")[0] in files}
        yield "tests", self._quickest(others - near, FAR)
        yield "notebooks", NOTEBOOKS

    def _quickest(self, names: set[str], most: float) -> Tests:
        """As many of the tests as take so many seconds together, the quickest first."""
        chosen: Tests = {}
        for name in sorted(names, key=lambda name: (self.seconds[name], name)):
            most -= self.seconds[name]
            if most >= 0 or not chosen:
                chosen[name] = self.seconds[name]
        return chosen


@dataclass(frozen=True)
class Verdict:
    """What noticed a mutant: the round and the test; both are empty where it survived.

    The round is `LIMIT` where the tests came to no end, and did without the fault; `UNCLEAR` where
    neither did.
    """

    round: str = ""
    test: str = ""


def try_all(
    mutants: Sequence[Mutant],
    rounds: Callable[[Mutant], Iterable[Round]],
    *,
    jobs: int,
    place: Path,
) -> Iterator[tuple[Mutant, Verdict]]:
    """Each mutant with its verdict, as they come.

    Args:
        mutants: To try.
        rounds: Gives a mutant's rounds of tests, as `Map.rounds` does.
        jobs: How many at a time.
        place: An empty folder for the copies.
    """
    for name in HEAVY.split():
        importlib.import_module(name)
    free = [copy_repository(place / str(job)) for job in range(jobs)]
    waiting = list(reversed(mutants))
    running: list[tuple[Mutant, Path, Generator[None, None, Verdict]]] = []
    while waiting or running:
        while free and waiting:
            folder, mutant = free.pop(), waiting.pop()
            running.append((mutant, folder, _attempt(mutant, folder, rounds(mutant))))
        for entry in list(running):
            mutant, folder, attempt = entry
            try:
                next(attempt)
            except StopIteration as end:
                running.remove(entry)
                free.append(folder)
                yield mutant, end.value
        time.sleep(0.02)


def _attempt(
    mutant: Mutant, folder: Path, rounds: Iterable[Round]
) -> Generator[None, None, Verdict]:
    """Plant a mutant in the copy, try it, and restore the copy; yields while it waits."""
    path = folder / "lepton_lib" / mutant.module
    whole = path.read_bytes()
    path.write_bytes(mutant.plant(whole))
    try:
        for name, tests in filter(operator.itemgetter(1), rounds):
            limit = SECONDS + 10 * sum(tests.values())
            if (noticed := (yield from _run(folder, tests, limit))) is None:
                at_work = (
                    (folder / "begun").read_text()
                    if (folder / "begun").exists()
                    else "the start of pytest"
                )
                # the control: a busy machine needs long without a fault, too
                path.write_bytes(whole)
                control = yield from _run(folder, tests, limit / 2)
                return Verdict(LIMIT if control == "" else UNCLEAR, at_work)
            if noticed:
                return Verdict(name, noticed)
    finally:
        path.write_bytes(whole)
    return Verdict()


def _run(folder: Path, tests: Tests, seconds: float) -> Generator[None, None, str | None]:
    """Run tests on the copy in a process of their own.

    Returns:
        What noticed a fault, empty where nothing did; None where they came to no end within
        ``seconds``.
    """
    note = folder / "note"
    note.unlink(missing_ok=True)
    deadline = time.monotonic() + seconds
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(_become_pytest(folder, tests, note))
        finally:
            os._exit(CRASH)
    status = None
    try:
        while status is None and time.monotonic() < deadline:
            ended, code = os.waitpid(pid, os.WNOHANG)
            status = code if ended else None
            yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # and what the tests have started and left behind
        if status is None:
            os.waitpid(pid, 0)
    if status is None:
        return None
    code = os.waitstatus_to_exitcode(status)
    if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ""
    return note.read_text() if note.exists() else f"pytest: exit code {code}"


def _become_pytest(folder: Path, tests: Tests, note: Path) -> int:
    """In the forked child: run the tests on the copy, up to the first that is red."""
    os.setsid()
    # ignored in what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(_variables(folder))
    os.chdir(folder)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    for name in list(sys.modules):  # the copy's own are to be loaded
        if name.partition(".")[0] in {"lepton_lib", "tests", "conftest"}:
            del sys.modules[name]
    files = sorted({name.partition("::")[0] for name in tests})
    words = [
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:cov",
        "--rootdir",
        str(folder),
        *files,
    ]
    return int(pytest.main(words, plugins=[_Chosen(tests, note)]))


class _Chosen:
    """A pytest plugin: runs only the chosen tests, quickest first, and notes the first failure."""

    def __init__(self, tests: Tests, note: Path) -> None:
        self.tests, self.note = tests, note

    def _seconds(self, item: pytest.Item) -> float | None:
        return self.tests.get(item.nodeid, self.tests.get(item.nodeid.partition("::")[0]))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        timed = [(seconds, item) for item in items if (seconds := self._seconds(item)) is not None]
        items[:] = [item for _, item in sorted(timed, key=lambda pair: pair[0])]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.note.with_name("begun").write_text(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.note.write_text(report.nodeid)
