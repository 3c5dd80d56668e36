"""The prediction log in later years: find, export, erase, remove what is old. Knows the log."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lepton_lib.cases import Case, load_case
from lepton_lib.errors import RunError
from lepton_lib.serving import log, log_reading
from lepton_lib.serving.log import TOKEN, PredictionLog
from lepton_lib.serving.log_reading import Row
from lepton_lib.serving.releases import folder_of, folder_of_version
from lepton_lib.serving.scoring import Scorer, read_service
from lepton_lib.utils import to_json, write_atomic

LOCK_SECONDS = 10.0  # a service that writes is waited for
CHUNK = 200  # requests, or pages, that are removed at once: a service waits so long
PAUSE = 0.01  # seconds between two of them, for others to write


def find(path: Path, id_: str) -> list[Row]:
    """The predictions with this prediction id or request id, with what was sent and answered.

    Raises:
        RunError: There is no such log, or no such prediction in it.
    """
    with log.connect(path) as connection:
        rows = log_reading.read_rows(connection, id_)
    if not rows:
        got, expected = f"no prediction or request {id_!r}", "an id from an answer or its header"
        remedy = "Check the id; an erased prediction isn't found, either."
        raise RunError(f"prediction log {path.name}", got, expected, remedy)
    return rows


def describe(run_dir: Path, id_: str, *, trust: Sequence[str] | None = None) -> str:
    """What `find` gives, as JSON, with reasons.

    Reasons that weren't asked for are computed now, if the release that answered still exists.

    Raises:
        RunError: As for `find`.
    """
    rows = [row._asdict() for row in find(run_dir / "service" / "predictions.sqlite", id_)]
    for version in {row["model_version"] for row in rows}:
        if (folder := folder_of_version(run_dir, version)) is None:
            continue
        scorer = Scorer(folder, trust=trust)
        for row in rows:
            if row["model_version"] == version and "reasons" not in row["answer"]:
                row["answer"]["reasons"] = scorer.explain([row["inputs"]])[0]
    return to_json(rows).rstrip()


def case_of(run_dir: Path, *, trust: Sequence[str] | None = None) -> Case:
    """The case whose model a run serves.

    Raises:
        RunError: There is no service.
    """
    manifest, _ = read_service(folder_of(run_dir), trust=trust)
    return load_case(manifest["case"], verify=False)


def export(path: Path, case: Case, target: Path) -> int:
    """Write the table that `read_log` gives as Parquet, whole or not at all; the number of rows.

    Raises:
        RunError: There is no such log, or the file can't be written.
    """
    table = log_reading.read_log(path, case)
    with log.wrap_sqlite_errors(target):
        write_atomic(target, table.to_parquet(), mode=0o600)
    return len(table)


def erase(path: Path, id_: str) -> int:
    """Remove the predictions with this prediction id or request id, and their labels, for good.

    Their bytes are gone from the file and its journal when this returns. Copies for retraining are
    `erasure.erase_copies`'s.

    Returns:
        How many they were.

    Raises:
        RunError: As for `find`, or the log can't be written to.
    """
    gone = {row.id for row in find(path, id_)}
    with _opened(path) as predictions, predictions.transaction() as connection:
        for token in {name[:TOKEN] for name in gone}:
            query = "DELETE FROM batches WHERE token = ? RETURNING *"
            for batch in connection.execute(query, (token,)).fetchall():
                for row in log_reading.read_batch(batch):
                    if row.id not in gone:  # on its own from now on
                        content = map(log.to_text, (row.inputs, row.answer))
                        connection.execute(log.SINGLE, (*row[:4], *content))
        for table in ("predictions", "labels"):
            connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(name,) for name in gone])
    return len(gone)


def keep_days(path: Path, days: float, *, now: datetime | None = None) -> int:
    """Remove what is older than ``days``, for good; the number of requests that went.

    Raises:
        RunError: There is no such log, or it can't be written to.
    """
    cutoff = ((now or datetime.now(UTC)) - timedelta(days=days)).isoformat(timespec="microseconds")
    old: list[tuple[str, str]] = []
    with log.connect(path) as connection:
        for table, key in (("predictions", "id"), ("batches", "token")):
            rows = connection.execute(f"SELECT {key} FROM {table} WHERE time < ?", (cutoff,))
            old += [(f"DELETE FROM {table} WHERE {key} = ?", name) for (name,) in rows]
    with _opened(path) as predictions:
        for start in range(0, len(old), CHUNK):
            with predictions.transaction() as connection:
                for statement, name in old[start : start + CHUNK]:
                    connection.execute(statement, (name,))
                    labels = (
                        "DELETE FROM labels WHERE id = ?1 OR id BETWEEN ?1 || '-' AND ?1 || '.'"
                    )
                    connection.execute(labels, (name,))
            time.sleep(PAUSE)
    return len(old)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[PredictionLog]:
    """A log, and nothing of what was deleted from it is left in its files when this ends.

    SQLite overwrites what is deleted (``secure_delete``). A running service goes on meanwhile: free
    pages are given back a few at a time, and the journal is emptied between its own checkpoints.
    """
    with contextlib.closing(PredictionLog(path, timeout=LOCK_SECONDS)) as predictions:
        yield predictions
    deadline, free = time.monotonic() + LOCK_SECONDS, -1
    with log.connect(path, "rw", LOCK_SECONDS) as connection:
        while free != (free := connection.execute("PRAGMA freelist_count").fetchone()[0]):
            connection.executescript(f"PRAGMA incremental_vacuum({CHUNK})")
            time.sleep(PAUSE)
        # Most is carried over while others write, the rest, and the journal's end, while none does.
        carried = "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(TRUNCATE)"
        while [connection.execute(step).fetchone()[0] for step in carried][-1]:
            if time.monotonic() > deadline:
                got = "another program that reads the log: its journal still has the old rows"
                raise sqlite3.OperationalError(got)
            time.sleep(PAUSE)
