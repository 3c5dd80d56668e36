"""A reader's own copies of the notebooks: made, and updated without losing an answer.

The folder's marker file holds a hash of every cell as the course had it, so that a cell which the
reader edited is known.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lepton_lib.classroom.notebooks import keys_in, source_folder, write_notebook
from lepton_lib.errors import ParameterError, wrap_os_errors
from lepton_lib.exercises.progress import WORK_FILE
from lepton_lib.runs.notebooks import read_notebook, tags
from lepton_lib.utils import to_json, write_atomic

Hashes = dict[str, str]  # of the cells, by their ids


def make_work(folder: Path) -> list[str]:
    """Copy the notebooks and what they show into a work folder, or update its copies.

    A copy whose cells the reader hasn't touched is replaced. Of an edited one the exercise cells
    and the reader's own cells go into the new edition, and the former file stays beside it. The
    folder is made if need be; relative names lead to the same places if it lies beside
    ``notebooks/``.

    Returns:
        What was done, a line for each notebook that is new or was changed.

    Raises:
        ParameterError: The folder holds notebooks and is no work folder.
        RunError: Something in it can't be read or written.
    """
    source, marker = source_folder(), folder / WORK_FILE
    foreign = not marker.is_file() and any(folder.glob("*.ipynb"))
    if foreign or folder.resolve() == source.resolve():
        got = "a folder with notebooks that aren't copies of the course's"
        remedy = "Choose another, such as `lepton work work`."
        raise ParameterError(str(folder), got, "a new folder, or a work folder", remedy)
    lines = []
    remedy = "Change its permissions, or choose another work folder."
    with wrap_os_errors(folder, got="a folder that can't be read or written", remedy=remedy):
        folder.mkdir(parents=True, exist_ok=True)
        editions: dict[str, Hashes] = {}  # what the copies were made from; a broken file: nothing
        with contextlib.suppress(FileNotFoundError, ValueError):
            editions = msgspec.json.decode(marker.read_bytes(), type=dict[str, Hashes])
        if not marker.is_file():
            write_atomic(marker, "{}\n")
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            name = path.relative_to(source)
            if name.parts[0] == "exercises" or any(part.startswith(".") for part in name.parts):
                continue
            target, key = folder / name, name.as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".ipynb":
                edition = read_notebook(path)
                if done := _update(target, edition, editions.get(key, {})):
                    lines.append(f"{key}: {done}")
                editions[key] = _hashes(edition)
            elif not target.is_file() or target.read_bytes() != path.read_bytes():
                write_atomic(target, path.read_bytes())
        write_atomic(marker, to_json(editions))
    return lines


def _hash(cell: Any) -> str:
    return hashlib.sha256(f"{cell.cell_type}:{cell.source.strip()}".encode()).hexdigest()[:16]


def _hashes(nb: Any) -> Hashes:
    return {cell.id: _hash(cell) for cell in nb.cells}


def _update(target: Path, edition: Any, former: Hashes) -> str:
    """Bring a copy up to date; what was done, or nothing."""
    if not target.exists():
        write_notebook(target, edition)
        return "copied again" if former else "copied"
    try:
        mine = read_notebook(target)
    except ParameterError:
        backup = _back_up(target)
        write_notebook(target, edition)
        done = "was no longer a notebook; a fresh copy lies in its place, and what was there is"
        return f"{done} {backup}"
    _restore_ids(mine, edition, former)
    new, here = _hashes(edition), _hashes(mine)
    if new in (former, here):
        return ""
    if here == former:
        write_notebook(target, edition)
        return "brought up to date"
    merge = _merge(mine, edition, former)
    backup = _back_up(target)
    write_notebook(target, merge.nb)
    own = f"{merge.n_answers} of your answers and {merge.n_own} of your own cells"
    done = f"brought up to date with {own}; as it was: {backup}"
    if merge.n_lost:
        done += f"; {merge.n_lost} that you changed or that this edition no longer has: only there"
    if merge.both:
        keys = ", ".join(merge.both)
        done += f"; changed in this edition too, so compare with the course's: {keys}"
    return done


def _restore_ids(mine: Any, edition: Any, former: Hashes) -> None:
    """Give cells that another tool saved under no id, or a new one, the id of the course's cell.

    It is the one with the same source, now or formerly, or with the same exercise.
    """
    known = [*former.items(), *_hashes(edition).items()]
    known += [(cell.id, key) for cell in edition.cells for key in keys_in(cell.source)]
    ids = {id_ for id_, _ in known}
    unused = ids - {cell.id for cell in mine.cells}
    for cell in mine.cells:
        if cell.id not in ids:
            marks = {_hash(cell), *keys_in(cell.source)}
            matches = (id_ for id_, mark in known if id_ in unused and mark in marks)
            cell.id = next(matches, cell.id)
            unused.discard(cell.id)


@dataclass
class _Merge:
    """An edition with a reader's answers and cells in it."""

    nb: Any
    n_answers: int = 0
    n_own: int = 0
    n_lost: int = 0  # cells that the reader had edited and that aren't in it
    both: list[str] = field(default_factory=list)  # exercises that the edition changed as well


def _merge(mine: Any, edition: Any, former: Hashes) -> _Merge:
    merge = _Merge(copy.deepcopy(edition))
    cells = merge.nb.cells
    by_id = {cell.id: cell for cell in cells}
    before = None
    for cell in mine.cells:
        if cell.id not in by_id and cell.id not in former:  # the reader's: it stays behind its cell
            index = next((k for k, other in enumerate(cells) if other.id == before), -1)
            cells.insert(index + 1, cell)
            before, merge.n_own = cell.id, merge.n_own + 1
            continue
        edited = _hash(cell) != former.get(cell.id)
        if cell.id in by_id:
            before, target = cell.id, by_id[cell.id]
            edited = edited and _hash(cell) != _hash(target)
            if edited and "exercise" in tags(target) and cell.cell_type == "code":
                if _hash(target) != former.get(cell.id):
                    merge.both += keys_in(target.source)
                target.source = cell.source
                merge.n_answers += 1
                continue
        merge.n_lost += edited
    return merge


def _back_up(target: Path) -> str:
    """Copy a file beside itself; returns the copy's name, which nothing had before."""
    numbers = itertools.chain([""], (f"-{k}" for k in itertools.count(2)))
    names = (f"{target.stem}.before-update{number}.ipynb" for number in numbers)
    name = next(name for name in names if not target.with_name(name).exists())
    write_atomic(target.with_name(name), target.read_bytes())
    return name
