"""A run folder under watch: its case, journal and log, and the models that its trainings made."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lepton_lib.artefacts import Run
from lepton_lib.cases import Case
from lepton_lib.errors import RunError
from lepton_lib.operations.journal import Journal
from lepton_lib.serving import Scorer, releases

MOST_ROWS = 100_000  # that are judged together


@dataclass(frozen=True)
class WatchedRun:
    """What monitoring needs of a run folder."""

    run: Run
    case: Case
    journal: Journal
    trust: Sequence[str] | None  # public keys whose signature counts; None for the user's own

    @property
    def current_version(self) -> str:
        """The version that the service answers with."""
        return releases.current_version(self.run.folder)

    def scorer(self, home: Run) -> Scorer:
        """Scores as the service of that run folder does."""
        return Scorer(home.folder / "service", case=self.case, trust=self.trust)

    def retraining(self, window: int) -> Path:
        """The folder of the retraining that was decided in that window."""
        return self.run.folder / "monitoring" / f"retrain-{window:03}"

    def home_of(self, version: str) -> Run:
        """The run folder that made a version: this one, or one of its retrainings.

        Raises:
            RunError: None of them made it.
        """
        folder = self.run.folder
        for home in (folder, *sorted(folder.glob("monitoring/retrain-*/run"))):
            with contextlib.suppress(OSError, ValueError, KeyError):
                manifest = (home / "service" / "manifest.json").read_text(encoding="utf-8")
                if json.loads(manifest)["version"] == version:
                    return Run(home)
        got = f"the version {version} at work, which none of its trainings made"
        remedy = "Roll the service back, or watch the run folder that the version comes from."
        raise RunError(str(folder), got, "a version that was trained in this run folder", remedy)

    def predecessor(self, version: str) -> str | None:
        """The version that this one took over from, as far as it was promoted here."""
        promoted = (act.content for act in self.journal.acts()[::-1] if act.stage == "promoted")
        return next((each.champion for each in promoted if each.challenger == version), None)


def sample(ids: Sequence[str]) -> Sequence[str]:
    """At most `MOST_ROWS` predictions, evenly spaced: more cost memory and decide the same."""
    return ids[:: max(math.ceil(len(ids) / MOST_ROWS), 1)]


def logged_answers(case: Case, log: pd.DataFrame) -> np.ndarray:
    """The answers that the service gave, float64 ``(n, n_classes)`` or ``(n, 1)``."""
    names = [f"answer.p_{name}" for name in case.classes] or ["answer.prediction"]
    return log[names].to_numpy(dtype=np.float64).reshape(-1, len(names))


def block_of(run: Run) -> int:
    """How many neighbouring rows that run's evaluation drew together; 1 for independent rows."""
    return int(run.read_json("evaluation/metrics.json").get("block", 1))
