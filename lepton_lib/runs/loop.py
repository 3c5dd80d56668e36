"""Runs notebooks into a run folder: strict before, whole or not at all after, and resumed where it was cut off.

Knows notebooks and the run folder; doesn't know what the steps compute.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.artefacts import Run, exclusive_lock
from lepton_lib.cases import load_case
from lepton_lib.errors import NotebookError, RunError
from lepton_lib.runs.execution import (
    CELL_SECONDS,
    Event,
    Listener,
    ProgressReporter,
    inject,
    run_cells,
    strip_tagged_cells,
)
from lepton_lib.runs.notebook_html import notebook_page
from lepton_lib.runs.pages import write_index
from lepton_lib.runs.parameters import (
    Value,
    check_parameters,
    is_code,
    loop_notebooks,
    read_notebook,
)
from lepton_lib.utils import sha256_of, write_atomic

# a killed run's kernel holds the lock until it sees that its parent is gone, within about 1 s
LOCK_SECONDS = 3.0


def run_notebook(
    notebook: Path,
    *,
    parameters: Mapping[str, object] | None = None,
    run_dir: str | Path,
    timeout: int = CELL_SECONDS,
    progress: Listener | None = None,
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
        NotebookError: The notebook didn't come to its end. Earlier results are as they were.
    """
    values = check_parameters([notebook], parameters or {})
    with _hold(Path(run_dir), values) as lock:
        work = _Work(Run(run_dir), timeout, progress, whole, lock)
        return work.run_notebook(notebook, values[notebook.stem])


def run_loop(
    *,
    run_dir: str | Path,
    parameters: Mapping[str, object] | None = None,
    notebooks: Sequence[Path] | None = None,
    timeout: int = CELL_SECONDS,
    progress: Listener | None = None,
    whole: bool = False,
    fresh: bool = False,
) -> Run:
    """Run the loop's notebooks in order, without those that are done already with these parameters.

    A step is done when its files, and the earlier ones that it read, lie as it left them, and when
    its notebook and its case are still the ones that it was run from.

    Args:
        run_dir: The run folder.
        parameters: As for `run_notebook`; a name goes to every notebook that has it.
        notebooks: Other notebooks than the course's own; named as the steps are.
        timeout: Seconds that one cell may take.
        progress: As for `run_notebook`.
        whole: Run the cells tagged ``exercise`` and ``lesson``, too.
        fresh: Run every step, done or not.

    Raises:
        ParameterError: As for `run_notebook`.
        RunError: As for `run_notebook`.
        NotebookError: A notebook didn't come to its end; the same call goes on from there.
    """
    notebooks = loop_notebooks() if notebooks is None else notebooks
    values = check_parameters(notebooks, parameters or {})
    run = Run(run_dir)
    with _hold(run.folder, values) as lock:
        work = _Work(run, timeout, progress, whole, lock)
        for notebook in notebooks:
            if not fresh and _is_done(notebook, values[notebook.stem], run, whole):
                if progress is not None:
                    progress(Event(notebook.stem, "already done"))
            else:
                work.run_notebook(notebook, values[notebook.stem])
        write_index(run)
    return run


class _Work(NamedTuple):
    """A run folder that is locked and checked, and how notebooks are run in it."""

    run: Run
    timeout: int
    listener: Listener | None
    whole: bool
    lock: int

    def run_notebook(self, notebook: Path, values: Mapping[str, Value]) -> Path:
        """Run one notebook whose parameters have been checked."""
        import nbformat

        nb, fingerprint = _prepare(notebook, values, self.whole)
        own = {
            name: str(self.run.folder.absolute()) if name == "run_dir" else value
            for name, value in values.items()
        }
        nb = inject(nb, own)
        folder = self.run.folder / "notebooks"
        folder.mkdir(exist_ok=True)
        executed, failed = (
            folder / f"{notebook.stem}.ipynb",
            folder / f"{notebook.stem}.failed.ipynb",
        )
        tell = ProgressReporter(notebook.stem, self.listener)
        tell.on_cell(0, sum(map(is_code, nb.cells)))
        try:
            run_cells(
                nb,
                name=notebook.stem,
                folder=notebook.parent,
                look_in=str(failed),
                timeout=self.timeout,
                environment=_case_path(values),
                hold=self.lock,
                progress=tell.on_cell,
            )
        except NotebookError:
            write_atomic(failed, nbformat.writes(nb) + "\n")
            tell("failed")
            raise
        nb.metadata["lepton"] = {"fingerprint": fingerprint}
        write_atomic(executed.with_suffix(".html"), notebook_page(nb, title=notebook.stem))
        # last, for it tells that the step is done
        write_atomic(executed, nbformat.writes(nb) + "\n")
        failed.unlink(missing_ok=True)
        write_index(self.run)
        tell("finished")
        return executed


def _prepare(notebook: Path, values: Mapping[str, Value], whole: bool) -> tuple[Any, str]:
    """The notebook to run, and the hash of all that it is made from: cells, parameters and its case's description."""
    nb = read_notebook(notebook)
    if not whole:
        strip_tagged_cells(nb)
    made_from: list[Any] = [[cell.cell_type, cell.source] for cell in nb.cells]
    made_from.append({name: value for name, value in values.items() if name != "run_dir"})
    if "case" in values:
        made_from.append(sha256_of(load_case(str(values["case"])).path("case.toml")))
    return nb, hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _is_done(notebook: Path, values: Mapping[str, Value], run: Run, whole: bool) -> bool:
    executed = run.folder / "notebooks" / notebook.name
    if executed.with_suffix(".failed.ipynb").exists():  # a cell after the step's own end failed
        return False
    own = {name: value for name, value in values.items() if name != "run_dir"}
    if not (
        executed.is_file()
        and executed.with_suffix(".html").is_file()
        and run.done(notebook.stem, own)
    ):
        return False
    try:
        recorded = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["lepton"][
            "fingerprint"
        ]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(recorded == _prepare(notebook, values, whole)[1])


def _case_path(values: Mapping[str, Value]) -> dict[str, str]:
    """Where the kernel, which works in the notebook's folder, finds the case that was found from here."""
    if "case" not in values:
        return {}
    found = str(load_case(str(values["case"])).folder.absolute().parent)
    return {
        "LEPTON_DATASETS": os.pathsep.join(filter(None, (found, os.environ.get("LEPTON_DATASETS"))))
    }


@contextlib.contextmanager
def _hold(folder: Path, values: Mapping[str, Mapping[str, Value]]) -> Iterator[int]:
    """Refuse a run folder that can't be used, then keep other runs out of it; yields the lock's file descriptor."""
    _check_content(folder, values)
    with exclusive_lock(
        folder, timeout=LOCK_SECONDS, remedy="Wait for it to end, or choose another with --out."
    ) as lock:
        yield lock


def _check_content(folder: Path, values: Mapping[str, Mapping[str, Value]]) -> None:
    run = Run(folder)
    for case in {str(entry["case"]) for entry in values.values() if "case" in entry}:
        run.check_case(load_case(case).name)
    try:
        for entry in run.manifest["steps"].values():
            for key in ("parameters", "packages", "files", "read", "metrics"):
                entry[key].items()
            float(entry["seconds"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(
            str(folder / "manifest.json"),
            f"an entry that no finished step leaves ({type(error).__name__}: {error})",
            "parameters, files read and made, and metrics of every finished step",
            "Choose another run folder, or delete this one and run the loop again.",
        ) from error
