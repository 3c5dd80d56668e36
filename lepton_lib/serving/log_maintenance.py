"""The prediction log in later years: find, export, erase, remove what is old. Knows the log."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lepton_lib.cases import Case, load_case
from lepton_lib.errors import RunError
from lepton_lib.serving import log
from lepton_lib.serving.log import TOKEN, PredictionLog, Row
from lepton_lib.serving.releases import folder_of, folder_of_version
from lepton_lib.serving.scoring import Scorer, read_service
from lepton_lib.utils import to_json, write_atomic

LOCK_SECONDS = 10.0  # a service that writes is waited for


def find(path: Path, id_: str) -> list[Row]:
    """The predictions with this prediction id or request id, with what was sent and answered.

    Raises:
        RunError: There is no such log, or no such prediction in it.
    """
    with log.connect(path) as connection:
        rows = log.read_rows(connection, id_)
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
    table = log.read_log(path, case)
    with log.wrap_sqlite_errors(target):
        write_atomic(target, table.to_parquet(), mode=0o600)
    return len(table)


def erase(path: Path, id_: str) -> int:
    """Remove the predictions with this prediction id or request id, and their labels, for good.

    Their bytes are gone from the file and its journal when this returns; copies elsewhere
    aren't.

    Returns:
        How many they were.

    Raises:
        RunError: As for `find`, or the log can't be written to.
    """
    gone = {row.id for row in find(path, id_)}
    with _rewritten(path) as connection:
        for token in {name[:TOKEN] for name in gone}:
            batch = [row for row in log.read_rows(connection, token) if row.id[:TOKEN] == token]
            connection.execute("DELETE FROM batches WHERE token = ?", (token,))
            for row in batch:
                if row.id not in gone:  # on its own from now on
                    entry = log.make_entry(
                        row.request_id, row.model_version, [row.inputs], [row.answer]
                    )
                    values = (row.id, row.request_id, row.time, *entry.values[3:])
                    connection.execute(entry.statement, values)
        for table in ("predictions", "labels"):
            connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(name,) for name in gone])
    return len(gone)


def keep_days(path: Path, days: float, *, now: datetime | None = None) -> int:
    """Remove what is older than ``days``, for good; the number of requests that went.

    Raises:
        RunError: There is no such log, or it can't be written to.
    """
    if not path.is_file():
        find(path, "")
    cutoff = ((now or datetime.now(UTC)) - timedelta(days=days)).isoformat(timespec="microseconds")
    with _rewritten(path) as connection:
        gone = 0
        for table in ("predictions", "batches"):
            gone += connection.execute(f"DELETE FROM {table} WHERE time < ?", (cutoff,)).rowcount
        connection.execute(
            f"DELETE FROM labels WHERE substr(id, 1, {TOKEN}) NOT IN "
            f"(SELECT substr(id, 1, {TOKEN}) FROM predictions UNION SELECT token FROM batches)"
        )
    return gone


@contextlib.contextmanager
def _rewritten(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction after which nothing of what it deleted is left in the log's files."""
    with contextlib.closing(PredictionLog(path, timeout=LOCK_SECONDS)) as predictions:
        with predictions.transaction() as connection:
            yield connection
        with log.wrap_sqlite_errors(path):
            connection.execute("VACUUM")  # pages that were moved may have left copies
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                got = "another program that reads the log: its journal still has the old rows"
                raise sqlite3.OperationalError(got)
