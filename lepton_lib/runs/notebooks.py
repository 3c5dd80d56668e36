"""Finds the course's notebooks and reads their cells."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from lepton_lib.artefacts import STEPS
from lepton_lib.errors import ParameterError
from lepton_lib.utils import NO_COURSE, course_folders

_NO_NOTEBOOK = (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError)
_TASK = re.compile(r"^### (?:Exercise|Question) .*?(?=^#{1,3} |\Z)", re.MULTILINE | re.DOTALL)
SKIPPED_TAGS = frozenset({"exercise", "lesson"})  # of cells that a pipeline run leaves out


def find_notebooks() -> dict[str, Path]:
    """The course's notebooks by name (``02_training``, ``industry/04_retail``), in order.

    They lie in ``notebooks/`` under the working directory or one of its parents, else beside the
    library.
    """
    for folder in course_folders("notebooks"):
        notebooks = {
            path.relative_to(folder).with_suffix("").as_posix(): path
            for path in sorted(folder.rglob("*.ipynb"))
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        }
        if notebooks:
            return notebooks
    return {}


def find_notebook(name: str) -> Path:
    """The notebook of that name (``industry/04_retail``), unique prefix (``02``), or path.

    Raises:
        ParameterError: There is none, or more than one.
    """
    if (path := Path(name)).suffix == ".ipynb" and path.is_file():
        return path.resolve()
    known = find_notebooks()
    matches = [each for each in known if name and each.startswith(name)]
    if name in known or len(matches) == 1:
        return known[name if name in known else matches[0]]
    raise ParameterError(
        f"notebook {name!r}",
        f"a prefix of {', '.join(matches)}" if matches else "no such notebook",
        f"'loop', or one of: {', '.join(known) or 'none was found under notebooks/'}",
        "Write more of its name." if matches else did_you_mean(name, known) if known else NO_COURSE,
    )


def loop_notebooks() -> list[Path]:
    """The notebooks of the loop, in its order.

    Raises:
        ParameterError: One of them isn't there.
    """
    return [find_notebook(step) for step in STEPS]


def find_lessons(name: str) -> list[Path]:
    """The notebooks of a folder of lessons, such as ``industry``, in order; none for another name.

    A lesson is no step of the loop: its run folder is its own.
    """
    return [path for each, path in find_notebooks().items() if each.startswith(f"{name}/")]


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """The remedy for a name that isn't among the valid ones."""
    near = difflib.get_close_matches(str(name), valid, 1, 0.6)
    return f"Did you mean {near[0]!r}?" if near else "Check its spelling."


def read_notebook(path: Path) -> Any:
    """The notebook in its format's last version, without outputs; a cell without an id gets one.

    Raises:
        ParameterError: The file is no notebook.
    """
    import nbformat

    try:
        content = json.loads(path.read_text("utf-8-sig"))
        if content.get("nbformat") == 4:
            content["nbformat_minor"] = max(content.get("nbformat_minor", 0), 5)  # cells have ids
            for number, cell in enumerate(content["cells"]):
                cell.setdefault("id", f"cell-{number}")
        nb = nbformat.reads(json.dumps(content), as_version=4)
    except (*_NO_NOTEBOOK, nbformat.ValidationError) as error:
        got = f"a file that can't be read ({error})"
        raise ParameterError(str(path), got, "a notebook", "Restore it.") from error
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def strip_tagged_cells(nb: Any, skipped: Set[str] = SKIPPED_TAGS) -> Any:
    """Take the cells with one of these tags, ``exercise`` and ``lesson``, out of a notebook.

    With the exercises go their texts: from their heading to the next one.
    """
    nb.cells = [cell for cell in nb.cells if not skipped & set(tags(cell))]
    for cell in nb.cells if "exercise" in skipped else ():
        if cell.cell_type == "markdown":
            cell.source = _TASK.sub("", cell.source).rstrip()
    nb.cells = [cell for cell in nb.cells if cell.source or cell.cell_type != "markdown"]
    return nb


def inject_parameters(nb: Any, values: dict[str, Any]) -> Any:
    """A copy with papermill's cell of values after the cell tagged ``parameters``."""
    from papermill.parameterize import parameterize_notebook

    nb.metadata["papermill"] = {}
    for cell in nb.cells:  # papermill takes tags on every cell for granted
        cell.metadata.setdefault("tags", [])
    nb = parameterize_notebook(nb, values, kernel_name="python3", language="python")
    del nb.metadata["papermill"]
    for cell in nb.cells:
        if "injected-parameters" in cell.metadata["tags"]:
            cell["id"] = "injected-parameters"
        elif not cell.metadata["tags"]:
            del cell.metadata["tags"]
    return nb


def tags(cell: Any) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def is_code(cell: Any) -> bool:
    """Whether the cell holds code to run."""
    return bool(cell.cell_type == "code" and cell.source.strip())
