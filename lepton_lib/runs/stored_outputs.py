"""Re-executes the stored notebooks and writes their outputs back, to be compared on every change.

Keeps ids, tags and sources; drops what differs between runs or machines, or refuses it.
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
from lepton_lib.runs.execution import NotebookExecution, ProgressCallback
from lepton_lib.runs.notebooks import (
    find_notebook,
    is_code,
    read_notebook,
    strip_tagged_cells,
    tags,
)
from lepton_lib.runs.parameters import read_parameters
from lepton_lib.runs.readings import update
from lepton_lib.utils import SAME_BITS, write_atomic

VOLATILE = {"ExecuteTime", "collapsed", "execution", "papermill", "scrolled"}  # metadata of cells
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def refresh_notebooks(
    paths: Sequence[Path], *, progress: ProgressCallback | None = None
) -> list[str]:
    """Run whole notebooks in order, in temporary run folders, and store their outputs in them.

    The numbers of readings become the run's. The loop has one folder and each lesson its own. The
    steps of the loop before the last one asked for run, too, and aren't stored.

    Args:
        paths: The notebooks to store.
        progress: As for `run_notebook`.

    Returns:
        What the notebooks say and their runs don't bear out, a sentence each.

    Raises:
        ParameterError: A notebook has no proper parameters cell.
        NotebookError: A cell failed, or an output can't be stored: it's on stderr, or holds a path
            of this machine. The notebook stays as it was, and so do those after it.
    """
    stored, untrue = {path.stem: path for path in paths}, []
    last = max((STEPS.index(stem) for stem in stored if stem in STEPS), default=-1)
    loop = [stored.get(step) or find_notebook(step) for step in STEPS[: last + 1]]
    with tempfile.TemporaryDirectory(prefix="lepton-run-") as run_dir:
        for path in [*loop, *(path for stem, path in stored.items() if stem not in STEPS)]:
            nb = read_notebook(path)
            executed = copy.deepcopy(nb)
            if path.stem not in stored:
                strip_tagged_cells(executed)
            if "run_dir" in read_parameters(path):
                cell = next(c for c in executed.cells if is_code(c) and "parameters" in tags(c))
                place = run_dir if path.stem in STEPS else f"{run_dir}/{path.stem}"
                cell.source += f"\nrun_dir = {place!r}"
            execution = NotebookExecution(
                executed,
                name=path.stem,
                folder=path.parent,
                traceback_in=f"notebook {path.stem}: run it in JupyterLab",
                environment=SAME_BITS,
                progress=progress,
            )
            execution.run()
            if path.stem in stored:
                untrue += [f"{path.stem}: {text}" for text in update(execution.verdicts)]
                _store(path, nb, executed, run_dir)
            execution.report("finished")
    return untrue


def _store(path: Path, nb: Any, executed: Any, run_dir: str) -> None:
    """Write the outputs of ``executed`` into the notebook ``nb``, read before."""
    import nbformat

    here = [run_dir, str(Path.cwd()), str(path.parent.resolve()), str(Path.home()), sys.prefix]
    local_paths = [place for place in [*here, tempfile.gettempdir()] if len(place) > 3]
    count = 0
    for cell, run in zip(nb.cells, executed.cells, strict=True):
        cell.metadata = {
            key: value
            for key, value in cell.metadata.items()
            if key not in VOLATILE and value != []
        }
        if not is_code(cell):
            cell.source = run.source
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = run.outputs
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
            if output.output_type == "error":  # the rest of a traceback holds the machine's paths
                output.traceback = [f"{output.ename}: {output.evalue}"]
            _check(output, f"notebook {path.stem}, cell {cell.id!r}", local_paths)
    nb.nbformat_minor = max(nb.nbformat_minor, 5)  # cells have ids
    nb.metadata = copy.deepcopy(METADATA)
    write_atomic(path, nbformat.writes(nbformat.from_dict(nb)) + "\n")


def _check(output: Any, where: str, local_paths: Sequence[str]) -> None:
    if output.get("name") == "stderr":
        got = f"text on stderr ({output.text.strip()[:200]!r})"
        raise NotebookError(where, got, "a cell without warnings", "Fix what it warns of.")
    texts = [output.get("text", ""), *output.get("traceback", [])]
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/") or "svg" in kind:
            texts.append(content)
    for place in local_paths:
        if any(place in text for text in texts):
            raise NotebookError(
                where,
                f"an output that names a place of this machine ({place})",
                "outputs that are the same everywhere",
                "Show the path relative to the run folder, or only its name.",
            )
