"""What was judged, decided and done, in one SQLite file.

Every change is one transaction: a process that is killed neither loses one nor does one twice.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from lepton_lib.errors import RunError
from lepton_lib.operations.records import FORM, Act, Progress, Window, dump
from lepton_lib.serving.log import wrap_sqlite_errors
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
Ids = Iterable[str]


class Journal:
    """The journal of a run folder, beside its prediction log: ``RUN/monitoring/journal.sqlite``.

    Raises:
        RunError: It can't be opened or isn't a journal.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = path = run_dir / "monitoring" / "journal.sqlite"
        self.log = run_dir / "service" / "predictions.sqlite"
        with self._wrap_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, uri=True)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)

    def windows(self) -> Iterator[Window]:
        """The windows that were judged, newest first, read one by one.

        Raises:
            RunError: One was written in a form that this version doesn't know.
        """
        with self._wrap_errors():
            rows = self._connection.execute("SELECT content FROM windows ORDER BY number DESC")
            for (content,) in rows:
                yield msgspec.json.decode(content, type=Window)

    def judged(self, *, after: int = 0) -> dict[str, int]:
        """The ids of predictions that were judged after that window, and the window of each."""
        query = "SELECT id, window FROM judged WHERE window > ?"
        return dict(self._connection.execute(query, [after]).fetchall())

    def unjudged(self) -> list[str]:
        """The ids of the log's predictions that no window holds yet.

        Compared by id, not by time or place: the clock may jump, and erasing rows moves the others.

        Raises:
            RunError: There is no such log.
        """
        with self._attached_log():
            singles = self._connection.execute(_UNJUDGED).fetchall()
            batches = self._connection.execute(_UNJUDGED_BATCHES).fetchall()
        ids = [id_ for (id_,) in singles]
        return ids + [f"{token}-{i}" for token, rows in batches for i in range(rows)]

    def labelled(self, version: str | None = None) -> list[str]:
        """The ids of predictions with a label; of a model's ``version``, those not judged yet."""
        query = (_LABELS, []) if version is None else (_NEW_LABELS, [version])
        with self._attached_log():
            return [id_ for (id_,) in self._connection.execute(*query)]

    def acts(self) -> list[Act]:
        """Every act, oldest first."""
        query = "SELECT window, action, stage, content FROM acts ORDER BY window"
        with self._wrap_errors():
            return [
                Act(window, action, stage, msgspec.json.decode(content, type=Progress))
                for window, action, stage, content in self._connection.execute(query)
            ]

    def skip(self, rows: Ids) -> None:
        """Note that rows are in no window, because they can't be read."""
        with self._wrap_errors(), transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO judged VALUES (?, 0)", [(id_,) for id_ in rows]
            )

    def record(self, window: Window, rows: Ids, labels: Ids, *, act: bool) -> None:
        """Store a window, the rows and labels that it judged, and an act on it: all or nothing."""
        number = window.window
        judged, labelled = ([(id_, number) for id_ in ids] for ids in (rows, labels))
        acts = [(number, window.decision.action, "decided", "{}")] if act else []
        with self._wrap_errors(), transaction(self._connection):
            self._connection.execute("INSERT INTO windows VALUES (?, ?)", (number, dump(window)))
            self._connection.executemany("INSERT INTO judged VALUES (?, ?)", judged)
            self._connection.executemany("INSERT OR IGNORE INTO labelled VALUES (?, ?)", labelled)
            self._connection.executemany("INSERT INTO acts VALUES (?, ?, ?, ?)", acts)

    def advance(self, act: Act, stage: str, **content: Any) -> Act:
        """Note that an act has reached a stage, and what it left."""
        act = Act(act.window, act.action, stage, msgspec.structs.replace(act.content, **content))
        update = "UPDATE acts SET stage = ?, content = ? WHERE window = ?"
        with self._wrap_errors(), transaction(self._connection):
            self._connection.execute(update, (stage, dump(act.content), act.window))
        return act

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def _attached_log(self) -> Iterator[None]:
        with wrap_sqlite_errors(self.log):
            self._connection.execute("ATTACH ? AS log", [f"{self.log.resolve().as_uri()}?mode=ro"])
            try:
                yield
            finally:
                self._connection.execute("DETACH log")

    @contextlib.contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            remedy = "See that the disk has room and the folder is yours."
            expected = "a journal that can be written to"
            raise RunError(str(self.path), str(error), expected, remedy) from error
        except msgspec.DecodeError as error:
            got = f"an entry of another form ({error})"
            remedy = "Use the version that wrote it, or move the journal away."
            raise RunError(str(self.path), got, f"form {FORM} or older", remedy) from error
