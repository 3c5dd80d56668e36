"""Runs notebooks into a run folder: whole or not at all, and resumed where a run was cut off.

Knows notebooks and the run folder; doesn't know what the steps compute.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_lib.artefacts import Run, code_hash, exclusive_lock
from lepton_lib.errors import NotebookError
from lepton_lib.runs.execution import (
    CELL_TIMEOUT,
    NotebookExecution,
    ProgressCallback,
    ProgressEvent,
)
from lepton_lib.runs.notebook_html import notebook_page
from lepton_lib.runs.notebooks import (
    inject_parameters,
    loop_notebooks,
    read_notebook,
    strip_tagged_cells,
)
from lepton_lib.runs.pages import write_index
from lepton_lib.runs.parameters import Value, check_parameters, find_case, read_parameters
from lepton_lib.runs.readings import drop_untrue
from lepton_lib.runs.summary import read_steps
from lepton_lib.utils import CASE_VARIABLE, sha256_of, write_atomic

# seconds; a killed run's kernel holds the lock until it sees that its parent is gone, within 1 s
LOCK_TIMEOUT = 3.0


@dataclass(frozen=True)
class Limits:
    """What one run may take; memory is limited only where kernels are forked."""

    seconds: float | None = None
    memory: int | None = None  # bytes


def run_notebook(
    notebook: Path,
    *,
    parameters: Mapping[str, object] | None = None,
    run_dir: str | Path,
    timeout: int = CELL_TIMEOUT,
    progress: ProgressCallback | None = None,
    whole: bool = False,
) -> Path:
    """Run one notebook; the executed one lands in ``run_dir/notebooks`` as .ipynb and .html.

    Args:
        notebook: The notebook; it isn't changed.
        parameters: Values as text or in their own type; the notebook's defaults for the rest.
        run_dir: The run folder, made if need be. The notebook gets it as an absolute path, if it
            has that parameter.
        timeout: Seconds that one cell may take.
        progress: Called at the start, after each cell, and at the end.
        whole: Run the cells tagged ``exercise`` and ``lesson``, too.

    Returns:
        The executed notebook.

    Raises:
        ParameterError: A parameter doesn't fit; nothing was run or written.
        RunError: The run folder can't be used; nothing was run or written.
        NotebookError: A cell failed. Earlier results are as they were.
    """
    values = check_parameters([notebook], parameters or {})
    with _locked(Path(run_dir), values) as lock_fd:
        context = _RunContext(Run(run_dir), timeout, progress, whole, lock_fd)
        return context.execute(notebook, values[notebook.stem])


def run_loop(
    *,
    run_dir: str | Path,
    parameters: Mapping[str, object] | None = None,
    notebooks: Sequence[Path] | None = None,
    progress: ProgressCallback | None = None,
    whole: bool = False,
    fresh: bool = False,
) -> Run:
    """Run the loop's notebooks in order, except those that are done with these parameters.

    A step is done when its files, and the earlier ones that it read, are as it left them, and when
    its notebook, its case and the library's code haven't changed since.

    Args:
        run_dir: The run folder.
        parameters: As for `run_notebook`; a name goes to every notebook that has it.
        notebooks: Other notebooks than the course's own; named as the steps are.
        progress: As for `run_notebook`.
        whole: Run the cells tagged ``exercise`` and ``lesson``, too.
        fresh: Run every step, done or not.

    Raises:
        ParameterError: As for `run_notebook`.
        RunError: As for `run_notebook`.
        NotebookError: A cell failed; the same call resumes at its notebook.
    """
    notebooks = loop_notebooks() if notebooks is None else notebooks
    values = check_parameters(notebooks, parameters or {})
    return run_steps(run_dir, notebooks, values, progress=progress, whole=whole, fresh=fresh)


def run_steps(
    run_dir: str | Path,
    notebooks: Sequence[Path],
    values: Mapping[str, Mapping[str, Value]],
    *,
    progress: ProgressCallback | None = None,
    whole: bool = False,
    fresh: bool = False,
    limits: Limits | None = None,
) -> Run:
    """As `run_loop`, with values that have been checked, by notebook's stem."""
    with _locked(Path(run_dir), values) as lock_fd:
        context = _RunContext(Run(run_dir), CELL_TIMEOUT, progress, whole, lock_fd, limits)
        for notebook in notebooks:
            if fresh or not context.is_done(notebook, values[notebook.stem]):
                context.execute(notebook, values[notebook.stem])
            elif progress is not None:
                progress(ProgressEvent(notebook.stem, "already done"))
        write_index(context.run)
    return context.run


@contextlib.contextmanager
def _locked(folder: Path, values: Mapping[str, Mapping[str, Value]]) -> Iterator[int]:
    """Check that a run folder can be used, and lock it; yields the lock's file descriptor."""
    run = Run(folder)
    for entry in values.values():
        case = find_case(entry)
        run.check(case.name if case else None)
    read_steps(run)
    remedy = "Wait for it to end, or choose another with --out."
    with exclusive_lock(folder, timeout=LOCK_TIMEOUT, remedy=remedy) as lock_fd:
        yield lock_fd


@dataclass(frozen=True)
class _RunContext:
    """A locked run folder, and how notebooks are run in it."""

    run: Run
    timeout: int
    progress: ProgressCallback | None
    whole: bool
    lock_fd: int
    limits: Limits | None = None
    started: float = field(default_factory=time.monotonic)

    def execute(self, notebook: Path, values: Mapping[str, Value]) -> Path:
        """Run one notebook whose parameters have been checked."""
        import nbformat

        nb, fingerprint = self._prepare(notebook, values)
        run_dir = {"run_dir": str(self.run.folder.absolute())} if "run_dir" in values else {}
        nb = inject_parameters(nb, {**values, **run_dir})
        executed = self.run.folder / "notebooks" / f"{notebook.stem}.ipynb"
        failed = executed.with_suffix(".failed.ipynb")
        executed.parent.mkdir(exist_ok=True)
        case, limits = find_case(values), self.limits or Limits()
        execution = NotebookExecution(
            nb,
            name=notebook.stem,
            folder=notebook.parent,
            traceback_in=str(failed),
            timeout=self.timeout,
            environment={CASE_VARIABLE: str(case.folder.resolve())} if case else {},
            deadline=self.started + limits.seconds if limits.seconds else None,
            memory=limits.memory,
            lock_fd=self.lock_fd,
            progress=self.progress,
        )
        try:
            execution.run()
        except NotebookError:
            write_atomic(failed, nbformat.writes(nb) + "\n")
            execution.report("failed")
            raise
        drop_untrue(nb, execution.verdicts)
        nb.metadata["lepton"] = {"fingerprint": fingerprint}
        page = notebook_page(nb, title=notebook.stem, folder=notebook.parent)
        write_atomic(executed.with_suffix(".html"), page)
        write_atomic(executed, nbformat.writes(nb) + "\n")  # last: it says that the step is done
        failed.unlink(missing_ok=True)
        write_index(self.run)
        execution.report("finished")
        return executed

    def is_done(self, notebook: Path, values: Mapping[str, Value]) -> bool:
        """Whether the step ran with these values from this notebook, and its files are there."""
        executed = self.run.folder / "notebooks" / notebook.name
        if executed.with_suffix(".failed.ipynb").exists():  # a cell after Step.finish failed
            return False
        own = {name: value for name, value in values.items() if name != "run_dir"}
        if not executed.with_suffix(".html").is_file() or not self.run.done(notebook.stem, own):
            return False
        try:
            nb = json.loads(executed.read_text(encoding="utf-8"))
            fingerprint = nb["metadata"]["lepton"]["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(fingerprint == self._prepare(notebook, values)[1])

    def _prepare(self, notebook: Path, values: Mapping[str, Value]) -> tuple[Any, str]:
        """The notebook to run, and a hash of its cells and parameters, its case and the library."""
        nb = read_notebook(notebook)
        if not self.whole:
            strip_tagged_cells(nb)
        default = read_parameters(notebook).get("case")
        if default is not None and values.get("case") != default.default:
            strip_tagged_cells(nb, {"reading"})  # they speak of the default case
        content: list[Any] = [[cell.cell_type, cell.source] for cell in nb.cells]
        content += [{name: value for name, value in values.items() if name != "run_dir"}]
        content.append(code_hash())
        if case := find_case(values):
            content.append(sha256_of(case.path("case.toml")))
        return nb, hashlib.sha256(json.dumps(content).encode()).hexdigest()
