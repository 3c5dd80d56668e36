"""What a run's manifest says: one entry per finished step, and the run's key figures.

Knows the manifest; doesn't know notebooks or pages.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from lepton_lib.artefacts import STEPS, Run
from lepton_lib.errors import RunError

METRIC_NAMES = {"auc": "AUC", "mean_absolute_error": "mean absolute error"}
_UNKNOWN = "–"


class StepEntry(msgspec.Struct, frozen=True):
    """A finished step in the manifest, as `artefacts.Step.finish` writes it."""

    parameters: dict[str, Any]
    packages: dict[str, str]  # versions by name
    read: dict[str, str]  # sha256 by file, of earlier steps
    files: dict[str, str]  # sha256 by file, its own
    seconds: float
    metrics: dict[str, Any]
    python: str = _UNKNOWN
    commit: str = _UNKNOWN


def read_steps(run: Run) -> dict[str, StepEntry]:
    """The finished steps of the loop, in its order, then lessons.

    Raises:
        RunError: The manifest can't be read, or an entry isn't a finished step's.
    """
    entries = run.manifest["steps"]
    try:
        entries = msgspec.convert(entries, dict[str, StepEntry])
    except msgspec.ValidationError as error:
        raise RunError(
            str(run.folder / "manifest.json"),
            f"a wrong entry ({error})",
            "what a finished step writes",
            "Choose another run folder, or delete this one and run the loop again.",
        ) from error
    return {step: entries[step] for step in dict.fromkeys([*STEPS, *entries]) if step in entries}


class KeyFigure(NamedTuple):
    """One line of a summary."""

    label: str
    value: str
    remark: str = ""


class RunSummary(NamedTuple):
    """The key figures of a run; None where a step hasn't run."""

    case: str | None
    rows_kept: int | None
    rows_dropped: int | None
    model: str | None
    validation_loss: float | None
    metric: str | None
    value: float | None
    low: float | None
    high: float | None
    gate_passed: bool | None
    latency_ms: float | None
    latency_ms_p99: float | None
    drift: str | None
    decision: str | None

    @classmethod
    def of(cls, run: Run) -> RunSummary:
        """Read it from the run's manifest.

        Raises:
            RunError: The manifest can't be read.
        """
        metrics: dict[str, Any] = {}
        for entry in read_steps(run).values():
            metrics |= entry.metrics
        return cls(run.manifest["case"], **{name: metrics.get(name) for name in cls._fields[1:]})

    def figures(self) -> list[KeyFigure]:
        """The figures that are known."""
        figures = []
        if self.rows_kept is not None:
            dropped = f"{number(self.rows_dropped)} dropped"
            figures.append(KeyFigure("rows", f"{self.rows_kept:,}", dropped))
        if self.model is not None:
            loss = f"validation loss {number(self.validation_loss)}"
            figures.append(KeyFigure("model", self.model, loss))
        if self.value is not None:
            interval = f"95 % interval {number(self.low)} to {number(self.high)}"
            remark = "" if self.low is None else interval
            figures.append(KeyFigure(metric_name(str(self.metric)), number(self.value), remark))
        if self.gate_passed is not None:
            figures.append(KeyFigure("gate", "passed" if self.gate_passed else "not passed"))
        if self.latency_ms is not None:
            slowest = f"99 % within {number(self.latency_ms_p99)} ms"
            remark = "" if self.latency_ms_p99 is None else slowest
            figures.append(KeyFigure("one answer", f"{number(self.latency_ms)} ms", remark))
        if self.drift is not None:
            figures.append(KeyFigure("drift", "found" if self.drift == "drift" else self.drift))
        if self.decision is not None:
            models = {"keep": "the champion", "promote": "the challenger"}
            figures.append(KeyFigure("decision", self.decision, models.get(self.decision, "")))
        return figures

    def to_text(self) -> str:
        """The summary for a terminal."""
        return "\n".join(
            f"{label:<22}{value}{f'  ({remark})' if remark else ''}"
            for label, value, remark in self.figures()
        )


def metric_name(name: str) -> str:
    """A metric's or criterion's name for readers."""
    return METRIC_NAMES.get(name, name.replace("_", " "))


def number(value: object) -> str:
    """A value for readers: three digits after the point, at most four significant ones.

    Thousands are written out: 75,000, not 7.5e+04.
    """
    if value is None:
        return _UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.3f}" if 0.01 <= abs(value) < 10 else f"{value:.4g}"
    return str(value)
