"""What was judged, decided and done, in one SQLite file and whole steps: a kill neither loses nor doubles one."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.errors import RunError
from lepton_lib.monitoring import State
from lepton_lib.serving.log import wrap_sqlite_errors
from lepton_lib.utils import to_json, transaction

_TABLES = """
CREATE TABLE IF NOT EXISTS windows (number INTEGER PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS judged (id TEXT PRIMARY KEY, window INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labelled (id TEXT PRIMARY KEY, window INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acts (window INTEGER PRIMARY KEY, action TEXT NOT NULL, stage TEXT NOT NULL,
    content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS readings (number INTEGER PRIMARY KEY, window INTEGER NOT NULL, content TEXT NOT NULL);
"""
_FRESH = "SELECT id FROM log.predictions WHERE id NOT IN (SELECT id FROM judged)"
_FRESH_BATCHES = """SELECT token, rows FROM log.batches  -- each is judged whole
WHERE NOT EXISTS (SELECT 1 FROM judged WHERE judged.id BETWEEN token || '-' AND token || '.')"""
_LABELS = "SELECT id FROM log.labels"
_TOLD = f"""{_LABELS} AS new WHERE id NOT IN (SELECT id FROM labelled) AND ?1 IN (
    SELECT model_version FROM log.predictions WHERE id = new.id UNION ALL
    SELECT model_version FROM log.batches WHERE token = substr(new.id, 1, 16))"""
ENDS = ("promoted", "kept", "rolled back")  # stages after which an act is over


class Act(NamedTuple):
    """Something that was decided on: ``stage`` is the last step that is done."""

    window: int
    action: str
    stage: str
    content: dict[str, Any]


class Journal:
    """The journal of a run folder, ``RUN/monitoring/journal.sqlite``.

    Raises:
        RunError: It can't be opened or isn't a journal.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = path = run_dir / "monitoring" / "journal.sqlite"
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, uri=True)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)

    def windows(self) -> list[dict[str, Any]]:
        """Every window that was judged, oldest first, as it was recorded."""
        rows = self._connection.execute("SELECT content FROM windows ORDER BY number")
        return [json.loads(content) for (content,) in rows]

    def state(self) -> State:
        """What the policy remembers."""
        row = self._connection.execute(
            "SELECT content FROM windows ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return State(*json.loads(row[0])["state"]) if row else State()

    def judged(self, *, after: int = 0) -> dict[str, int]:
        """The predictions that were judged after that window, and in which."""
        return dict(
            self._connection.execute(
                "SELECT id, window FROM judged WHERE window > ?", [after]
            ).fetchall()
        )

    def fresh(self, log: Path) -> list[str]:
        """The log's predictions that were not judged yet.

        Told by their ids, in SQL: the clock may jump, and what is erased moves the other rows'
        places in the file.

        Raises:
            RunError: There is no such log.
        """
        with self._beside(log):
            singles = self._connection.execute(_FRESH).fetchall()
            batches = self._connection.execute(_FRESH_BATCHES).fetchall()
        return [id_ for (id_,) in singles] + [
            f"{token}-{i}" for token, rows in batches for i in range(rows)
        ]

    def told(self, log: Path, version: str | None = None) -> list[str]:
        """The log's predictions with a label; with ``version`` this model's, of which no label was judged yet."""
        with self._beside(log):
            rows = self._connection.execute(
                _LABELS if version is None else _TOLD, [version][: version is not None]
            )
            return [id_ for (id_,) in rows]

    @contextlib.contextmanager
    def _beside(self, log: Path) -> Iterator[None]:
        with wrap_sqlite_errors(log):
            self._connection.execute("ATTACH ? AS log", [f"{log.resolve().as_uri()}?mode=ro"])
            try:
                yield
            finally:
                self._connection.execute("DETACH log")

    def acts(self) -> list[Act]:
        """Every act, oldest first."""
        rows = self._connection.execute(
            "SELECT window, action, stage, content FROM acts ORDER BY window"
        )
        return [
            Act(window, action, stage, json.loads(content))
            for window, action, stage, content in rows
        ]

    def open_act(self) -> Act | None:
        """The act that is not over."""
        return next((act for act in self.acts() if act.stage not in ENDS), None)

    def readings(self, last: int, *, after: int = -1) -> list[dict[str, Any]]:
        """So many readings of the service's metrics, the last ones, oldest first; those taken since that window."""
        rows = self._connection.execute(
            "SELECT content FROM readings WHERE window > ? ORDER BY number DESC LIMIT ?",
            [after, last],
        )
        return [json.loads(content) for (content,) in rows][::-1]

    def note(self, reading: Mapping[str, Any]) -> None:
        """Keep a reading; it belongs to the window that is judged next."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO readings (window, content) SELECT coalesce(max(number), 0), ? FROM windows",
                [to_json(dict(reading))],
            )

    def record(
        self, window: Mapping[str, Any], rows: Iterable[str], labels: Iterable[str], *, act: bool
    ) -> None:
        """Keep a window's judgement, which rows and labels it took in, and the act that it asks for: all or nothing."""
        number = window["window"]
        with self._transaction():
            self._connection.execute(
                "INSERT INTO windows VALUES (?, ?)", (number, to_json(dict(window)))
            )
            self._connection.executemany(
                "INSERT INTO judged VALUES (?, ?)", ((id_, number) for id_ in rows)
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO labelled VALUES (?, ?)", ((i, number) for i in labels)
            )
            if act:
                entry = number, window["decision"]["action"], "decided", "{}"
                self._connection.execute("INSERT INTO acts VALUES (?, ?, ?, ?)", entry)

    def advance(self, act: Act, stage: str, **content: Any) -> Act:
        """Note that an act has reached a stage."""
        act = act._replace(stage=stage, content=act.content | content)
        with self._transaction():
            values = stage, to_json(act.content), act.window
            self._connection.execute(
                "UPDATE acts SET stage = ?, content = ? WHERE window = ?", values
            )
        return act

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told(), transaction(self._connection):
            yield

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RunError(
                str(self.path),
                str(error),
                "a journal that can be written to",
                "See that the disk has room and the folder is yours.",
            ) from error
