"""What was judged, decided and done, in one SQLite file.

Every change is one transaction: a process that is killed neither loses one nor does one twice.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lepton_lib.errors import RunError
from lepton_lib.operations.records import FORM, Act, Progress, Window, dump
from lepton_lib.serving.log import kept
from lepton_lib.utils import transaction

_TABLES = """
CREATE TABLE IF NOT EXISTS windows (number INTEGER PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS judged (id TEXT PRIMARY KEY, window INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labelled (id TEXT PRIMARY KEY, window INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acts (window INTEGER PRIMARY KEY, action TEXT NOT NULL,
    stage TEXT NOT NULL, content TEXT NOT NULL);
"""
_UNJUDGED = "SELECT id FROM log.predictions WHERE id NOT IN (SELECT id FROM judged)"
_UNJUDGED_BATCHES = """SELECT token, rows FROM log.batches  -- each is judged whole
WHERE NOT EXISTS (SELECT 1 FROM judged WHERE judged.id BETWEEN token || '-' AND token || '.')"""
_LABELS = "SELECT id FROM log.labels"
_NEW_LABELS = f"""{_LABELS} AS new WHERE id NOT IN (SELECT id FROM labelled) AND ?1 IN (
    SELECT model_version FROM log.predictions WHERE id = new.id UNION ALL
    SELECT model_version FROM log.batches WHERE token = substr(new.id, 1, 16))"""
_Record = TypeVar("_Record", Window, Progress)


class Journal:
    """The journal of a run folder, ``RUN/monitoring/journal.sqlite``.

    Raises:
        RunError: It can't be opened or isn't a journal.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = path = run_dir / "monitoring" / "journal.sqlite"
        with self._wrap_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, uri=True)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)

    def windows(self) -> list[Window]:
        """Every window that was judged, oldest first.

        Raises:
            RunError: One was written in a form that this version doesn't know.
        """
        return self._windows("ORDER BY number")

    def last_window(self) -> Window | None:
        """The window that was judged last."""
        return next(iter(self._windows("ORDER BY number DESC LIMIT 1")), None)

    def _windows(self, order: str) -> list[Window]:
        rows = self._connection.execute(f"SELECT content FROM windows {order}")
        return [self._decode(content, Window) for (content,) in rows]

    def judged(self, *, after: int = 0) -> dict[str, int]:
        """The ids of predictions that were judged after that window, and the window of each."""
        return dict(
            self._connection.execute(
                "SELECT id, window FROM judged WHERE window > ?", [after]
            ).fetchall()
        )

    def unjudged(self, log: Path) -> list[str]:
        """The ids of the log's predictions that no window holds yet.

        Compared by id, not by time or place: the clock may jump, and erasing rows moves the others.

        Raises:
            RunError: There is no such log.
        """
        with self._attached(log):
            singles = self._connection.execute(_UNJUDGED).fetchall()
            batches = self._connection.execute(_UNJUDGED_BATCHES).fetchall()
        ids = [id_ for (id_,) in singles]
        return ids + [f"{token}-{i}" for token, rows in batches for i in range(rows)]

    def labelled(self, log: Path, version: str | None = None) -> list[str]:
        """The ids of predictions with a label; with ``version`` this model's not yet judged ones."""
        with self._attached(log):
            if version is None:
                rows = self._connection.execute(_LABELS)
            else:
                rows = self._connection.execute(_NEW_LABELS, [version])
            return [id_ for (id_,) in rows]

    def acts(self) -> list[Act]:
        """Every act, oldest first."""
        rows = self._connection.execute(
            "SELECT window, action, stage, content FROM acts ORDER BY window"
        )
        return [
            Act(window, action, stage, self._decode(content, Progress))
            for window, action, stage, content in rows
        ]

    def record(
        self, window: Window, rows: Iterable[str], labels: Iterable[str], *, act: bool
    ) -> None:
        """Store a window, which rows and labels it judged, and the act it asks for: all or nothing."""
        number = window.window
        with self._transaction() as connection:
            connection.execute("INSERT INTO windows VALUES (?, ?)", (number, dump(window)))
            connection.executemany(
                "INSERT INTO judged VALUES (?, ?)", ((id_, number) for id_ in rows)
            )
            connection.executemany(
                "INSERT OR IGNORE INTO labelled VALUES (?, ?)", ((id_, number) for id_ in labels)
            )
            if act:
                entry = number, window.decision.action, "decided", "{}"
                connection.execute("INSERT INTO acts VALUES (?, ?, ?, ?)", entry)

    def advance(self, act: Act, stage: str, **content: Any) -> Act:
        """Note that an act has reached a stage, and what it left."""
        act = Act(act.window, act.action, stage, msgspec.structs.replace(act.content, **content))
        with self._transaction() as connection:
            values = stage, dump(act.content), act.window
            connection.execute("UPDATE acts SET stage = ?, content = ? WHERE window = ?", values)
        return act

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _decode(self, content: str, record: type[_Record]) -> _Record:
        try:
            return msgspec.json.decode(content, type=record)
        except msgspec.DecodeError as error:
            remedy = "Use the version that wrote it, or move the journal away."
            got = f"an entry that can't be read ({error})"
            raise RunError(str(self.path), got, f"form {FORM} or older", remedy) from error

    @contextlib.contextmanager
    def _attached(self, log: Path) -> Iterator[None]:
        with kept(log):
            self._connection.execute("ATTACH ? AS log", [f"{log.resolve().as_uri()}?mode=ro"])
            try:
                yield
            finally:
                self._connection.execute("DETACH log")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._wrap_errors(), transaction(self._connection):
            yield self._connection

    @contextlib.contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            remedy = "See that the disk has room and the folder is yours."
            expected = "a journal that can be written to"
            raise RunError(str(self.path), str(error), expected, remedy) from error
