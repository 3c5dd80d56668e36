"""A run folder under watch, with its case, journal and log, and the models that its trainings made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lepton_lib.artefacts import Run
from lepton_lib.cases import Case
from lepton_lib.errors import RunError
from lepton_lib.operations.journal import Journal
from lepton_lib.serving import Scorer, read_log, releases


@dataclass(frozen=True)
class WatchedRun:
    """What monitoring needs of a run folder.

    Attributes:
        run: The run folder.
        case: Its case.
        journal: Its journal.
        trust: Public keys whose signature under a release counts; None for the user's own.
    """

    run: Run
    case: Case
    journal: Journal
    trust: Sequence[str] | None

    @property
    def log(self) -> Path:
        """The prediction log."""
        return self.run.folder / "service" / "predictions.sqlite"

    @property
    def current_version(self) -> str:
        """The version that the service answers with."""
        return releases.current_version(self.run.folder)

    def read_log(self, ids: Iterable[str]) -> pd.DataFrame:
        """The log's rows with these prediction ids, as `lepton_lib.serving.read_log` gives them."""
        return read_log(self.log, self.case, ids)

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
        retrained = sorted(self.run.folder.glob("monitoring/retrain-*/run"))
        for folder in (self.run.folder, *retrained):
            with contextlib.suppress(OSError, ValueError, KeyError):
                manifest = (folder / "service" / "manifest.json").read_text(encoding="utf-8")
                if json.loads(manifest)["version"] == version:
                    return Run(folder)
        raise RunError(
            str(self.run.folder),
            f"the version {version} at work, which none of its trainings made",
            "a version whose training rows lie in this run folder",
            "Roll the service back, or watch the run folder that the version comes from.",
        )

    def predecessor(self, version: str) -> str | None:
        """The version that this one took over from, as far as it was promoted here."""
        for act in reversed(self.journal.acts()):
            if act.stage == "promoted" and act.content.challenger == version:
                return act.content.champion
        return None


def logged_answers(case: Case, log: pd.DataFrame) -> np.ndarray:
    """The answers that the service gave, float64 ``(n, n_classes)`` or ``(n, 1)``."""
    names = [f"answer.p_{name}" for name in case.classes] or ["answer.prediction"]
    return log[names].to_numpy(dtype=np.float64).reshape(-1, len(names))


def block_of(run: Run) -> int:
    """How many neighbouring rows that run's evaluation drew together; 1 for independent rows."""
    return int(run.read_json("evaluation/metrics.json").get("block", 1))
