"""The reader's own copies of the notebooks: made, and brought up to date without losing an answer.

The folder's marker holds a hash of every cell as the course had it, so that a cell which the reader
edited is known.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from lepton_lib.classroom.cells import source_folder
from lepton_lib.errors import ParameterError, wrap_os_errors
from lepton_lib.exercises.progress import WORK_FILE
from lepton_lib.runs.parameters import read_notebook, tags
from lepton_lib.utils import to_json, write_atomic

Hashes = dict[str, str]


def make_work(folder: Path) -> list[str]:
    """Copy the notebooks, without outputs, and what they show into a work folder; or bring its copies up to date.

    A copy whose cells the reader hasn't touched is replaced. Of an edited one the exercise cells
    and the reader's own cells go into the new edition, and the former file stays beside it.

    Args:
        folder: The work folder; made if need be. Beside ``notebooks/``, for relative names to lead
            to the same places.

    Returns:
        What was done, a line for each notebook that is new or was changed.

    Raises:
        ParameterError: The folder holds notebooks and is no work folder.
        RunError: Something in it can't be read or written.
    """
    source, marker = source_folder(), folder / WORK_FILE
    if folder.resolve() == source.resolve() or (
        not marker.is_file() and next(folder.glob("*.ipynb"), None)
    ):
        raise ParameterError(
            str(folder),
            "a folder with notebooks that aren't copies of the course's",
            "a new folder, or a work folder",
            "Choose another, such as `lepton work work`.",
        )
    said = []
    with wrap_os_errors(
        folder,
        got="a folder that can't be read or written",
        remedy="Change its permissions, or choose another work folder.",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        known = _read_marker(marker)
        if not marker.is_file():
            write_atomic(marker, "{}\n")
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            name = path.relative_to(source)
            if any(part.startswith(".") for part in name.parts) or name.parts[0] == "exercises":
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if path.suffix != ".ipynb":
                if (
                    not (folder / name).is_file()
                    or (folder / name).read_bytes() != path.read_bytes()
                ):
                    write_atomic(folder / name, path.read_bytes())
                continue
            edition = read_notebook(path)
            done = _bring(folder / name, edition, known.get(name.as_posix(), {}))
            known[name.as_posix()] = _hashes(edition)
            said += [f"{name.as_posix()}: {done}"] if done else []
        write_atomic(marker, to_json(known))
    return said


def _read_marker(marker: Path) -> dict[str, Hashes]:
    """What the copies were made from; nothing where the marker is broken: then every cell may be the reader's."""
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        return {
            str(name): {str(cell): str(known) for cell, known in cells.items()}
            for name, cells in content.items()
        }
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def _hash(cell: Any) -> str:
    return hashlib.sha256(f"{cell.cell_type}:{cell.source.strip()}".encode()).hexdigest()[:16]


def _hashes(nb: Any) -> Hashes:
    return {cell.id: _hash(cell) for cell in nb.cells}


def _bring(target: Path, edition: Any, known: Hashes) -> str:
    """Put an edition in the place of ``target``; what was done, or nothing."""
    if not target.exists():
        _write(target, edition)
        return "copied again" if known else "copied"
    try:
        mine = read_notebook(target)
    except ParameterError:
        kept = _keep(target)
        _write(target, edition)
        return f"was no longer a notebook; a fresh copy lies in its place, and what was there is {kept}"
    new, here = _hashes(edition), _hashes(mine)
    if new in (known, here):
        return ""
    if here == known:
        _write(target, edition)
        return "brought up to date"
    merged, answers, own, lost = _merge(mine, edition, known)
    kept = _keep(target)
    _write(target, merged)
    also = (
        f"; {lost} that you changed or that this edition no longer has: only there" if lost else ""
    )
    return f"brought up to date with {answers} of your answers and {own} of your own cells; as it was: {kept}{also}"


def _merge(mine: Any, edition: Any, known: Hashes) -> tuple[Any, int, int, int]:
    """The edition with the reader's answers and cells, how many of each, and how many cells stay behind."""
    merged = copy.deepcopy(edition)
    place = {cell.id: cell for cell in merged.cells}
    answers, own, lost, before = 0, 0, 0, None
    for cell in mine.cells:
        # the reader's: after the cell that it stands after
        if cell.id not in place and cell.id not in known:
            index = next((k for k, other in enumerate(merged.cells) if other.id == before), -1)
            merged.cells.insert(index + 1, cell)
            before, own = cell.id, own + 1
            continue
        edited = _hash(cell) != known.get(cell.id)
        if cell.id in place:
            before = cell.id
            edited = edited and _hash(cell) != _hash(place[cell.id])
            if edited and "exercise" in tags(place[cell.id]) and cell.cell_type == "code":
                place[cell.id].source = cell.source
                answers += 1
                continue
        lost += edited
    return merged, answers, own, lost


def _keep(target: Path) -> str:
    """Copy a file beside itself; the copy's name, which nothing had before."""
    names = [
        f"{target.stem}.before-update{number}.ipynb"
        for number in ("", *(f"-{k}" for k in range(2, 1000)))
    ]
    name = next(name for name in names if not target.with_name(name).exists())
    write_atomic(target.with_name(name), target.read_bytes())
    return name


def _write(target: Path, nb: Any) -> None:
    import nbformat

    write_atomic(target, nbformat.writes(nb) + "\n")
