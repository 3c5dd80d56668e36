"""Re-executes the stored notebooks and writes their outputs back, fit to be compared on every change.

Keeps ids, tags and sources; drops what differs from run to run or from machine to machine, or
refuses.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lepton_lib.artefacts import STEPS
from lepton_lib.errors import NotebookError
from lepton_lib.runs.execution import (
    CELL_SECONDS,
    Listener,
    ProgressReporter,
    run_cells,
    strip_tagged_cells,
)
from lepton_lib.runs.parameters import find_notebook, is_code, read_notebook, read_parameters, tags
from lepton_lib.utils import SAME_BITS, write_atomic

VOLATILE = {"ExecuteTime", "collapsed", "execution", "papermill", "scrolled"}  # metadata of cells
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def refresh_notebooks(
    paths: Sequence[Path], *, timeout: int = CELL_SECONDS, progress: Listener | None = None
) -> None:
    """Run whole notebooks in order, in one temporary run folder, and store their outputs in them.

    The steps of the loop before the last one asked for run, too, and aren't stored.

    Args:
        paths: The notebooks to store.
        timeout: Seconds that one cell may take.
        progress: As for `run_notebook`.

    Raises:
        ParameterError: A notebook has no proper parameters cell.
        NotebookError: A cell failed, or an output can't be stored: it's on stderr, or names a place
            of this machine. The notebook stays as it was, and so do those after it.
    """
    stored = {path.stem: path for path in paths}
    last = max((STEPS.index(stem) for stem in stored if stem in STEPS), default=-1)
    before = [stored.get(step) or find_notebook(step) for step in STEPS[: last + 1]]
    with tempfile.TemporaryDirectory(prefix="lepton-run-") as run_dir:
        for path in [*before, *(path for stem, path in stored.items() if stem not in STEPS)]:
            parameters = read_parameters(path)
            nb = read_notebook(path)
            executed = (
                copy.deepcopy(nb) if path.stem in stored else strip_tagged_cells(copy.deepcopy(nb))
            )
            if "run_dir" in parameters:
                cell = next(
                    cell for cell in executed.cells if is_code(cell) and "parameters" in tags(cell)
                )
                cell.source += f"\nrun_dir = {run_dir!r}"
            tell = ProgressReporter(path.stem, progress)
            run_cells(
                executed,
                name=path.stem,
                folder=path.parent,
                look_in=f"notebook {path.stem}: run it in JupyterLab",
                timeout=timeout,
                environment=SAME_BITS,
                progress=tell.on_cell,
            )
            if path.stem in stored:
                _store(path, nb, executed, run_dir)
            tell("finished")


def _store(path: Path, nb: Any, executed: Any, run_dir: str) -> None:
    """Write the outputs of ``executed`` into the notebook ``nb`` as it stood before."""
    import nbformat

    places = {
        run_dir,
        str(Path.cwd()),
        str(path.parent.resolve()),
        str(Path.home()),
        sys.prefix,
        tempfile.gettempdir(),
    }
    count = 0
    for cell, run in zip(nb.cells, executed.cells, strict=True):
        cell.metadata = {
            key: value
            for key, value in cell.metadata.items()
            if key not in VOLATILE and value != []
        }
        if not is_code(cell):
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [_cleaned(output, count) for output in run.outputs]
        for output in cell.outputs:
            _check(
                output,
                f"notebook {path.stem}, cell {cell.id!r}",
                {place for place in places if len(place) > 3},
            )
    nb.nbformat_minor = max(nb.nbformat_minor, 5)  # cells have ids
    nb.metadata = copy.deepcopy(METADATA)
    write_atomic(path, nbformat.writes(nbformat.from_dict(nb)) + "\n")


def _cleaned(output: Any, count: int) -> Any:
    if "execution_count" in output:
        output.execution_count = count
    # a traceback holds the machine's paths; the reader needs its last line
    if output.output_type == "error":
        output.traceback = [f"{output.ename}: {output.evalue}"]
    return output


def _check(output: Any, where: str, places: set[str]) -> None:
    if output.get("name") == "stderr":
        raise NotebookError(
            where,
            f"text on stderr ({output.text.strip()[:200]!r})",
            "a cell without warnings",
            "Mend what it warns of.",
        )
    texts = [output.get("text", ""), *output.get("traceback", [])]
    texts += [
        text
        for kind, text in output.get("data", {}).items()
        if kind.startswith("text/") or "svg" in kind
    ]
    for text in texts:
        for place in places:
            if place in text:
                raise NotebookError(
                    where,
                    f"an output that names a place of this machine ({place})",
                    "outputs that are the same everywhere",
                    "Show the path relative to the run folder, or only its name.",
                )
