"""Erased predictions, removed from what retrainings have copied. Imports pandas."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lepton_lib.artefacts import exclusive_lock
from lepton_lib.cases import TARGET, Case, load_case
from lepton_lib.data import read_table
from lepton_lib.serving.log_maintenance import LOCK_SECONDS, case_of, find
from lepton_lib.serving.log_reading import read_log
from lepton_lib.utils import sha256_of, write_atomic


def erase_copies(run_dir: Path, id_: str, *, trust: Sequence[str] | None = None) -> int:
    """Remove predictions from the tables of every retraining, while the log still has them.

    The hashes that name the tables are brought up to date. A retraining's executed notebooks go
    whole, because they may show any row. What its model has learnt stays.

    Args:
        run_dir: The run folder.
        id_: A prediction's or a request's.
        trust: Public keys whose signature counts; without it, the user's own alone.

    Returns:
        How many rows went, of all tables together.

    Raises:
        RunError: There is no such prediction, or another program is at work in the folder.
    """
    if not (folders := sorted(run_dir.glob("monitoring/retrain-*"))):
        return 0
    log = run_dir / "service" / "predictions.sqlite"
    case, ids = case_of(run_dir, trust=trust), [row.id for row in find(log, id_)]
    erased = read_log(log, case, ids)
    with exclusive_lock(run_dir / "monitoring", timeout=LOCK_SECONDS):
        return sum(_erase_from(folder, case, erased) for folder in folders)


def _erase_from(folder: Path, case: Case, erased: pd.DataFrame) -> int:
    """The same for one retraining, whose table has the case's own rows before the served ones."""
    place, run = folder / case.name, folder / "run"
    if not (place / "case.toml").exists():
        return 0
    gone, table = set(_texts(erased, case)), read_table(load_case(place))
    own = table.index[len(read_table(case)) - 1]
    tables, hashes = {place / "table.csv": table}, dict[str, str]()
    tables |= {path: pd.read_parquet(path) for path in sorted(run.glob("data/*.parquet"))}
    lines: list[object] = []  # and, in shadow.parquet, ids
    for path, frame in tables.items():
        hit = (frame.index > own) & [text in gone for text in _texts(frame, case)]
        lines += [*frame.index[hit]]
        hashes |= _write(path, frame[~hit], case)
    count, names = len(lines), [*lines, *erased.index]
    for path in (run / "evaluation" / "predictions.parquet", folder / "shadow.parquet"):
        if path.exists():
            frame = pd.read_parquet(path)
            hashes |= _write(path, frame[~frame.index.isin(names)], case)
    for path in filter(Path.exists, (place / "case.toml", run / "manifest.json")):
        text = path.read_text(encoding="utf-8")
        for before, after in hashes.items():
            text = text.replace(before, after)
        write_atomic(path, text, mode=0o600)
    shutil.rmtree(run / "notebooks", ignore_errors=True)
    return count


def _texts(frame: pd.DataFrame, case: Case) -> list[tuple[str, ...]]:
    """Each row's inputs as cells of a file, however the frame has them."""
    cells = [
        frame[column.name]
        if isinstance(frame[column.name].dtype, pd.StringDtype)
        else column.to_text(frame[column.name]).astype(object).fillna("")
        for column in case.inputs
    ]
    return list(zip(*cells, strict=True))


def _write(path: Path, frame: pd.DataFrame, case: Case) -> dict[str, str]:
    """Write a table in its old one's place; the hash before, and after."""
    before = sha256_of(path)
    if path.suffix == ".csv":
        headers = {column.name: column.header for column in case.columns}
        named = frame.rename(columns=headers | {TARGET: case.target.column})
        content = named.to_csv(index=False, sep=case.data.delimiter).encode()
    else:
        content = frame.to_parquet()
    write_atomic(path, content, mode=0o600)
    return {before: sha256_of(path)}
