"""The curves on a run's page: how the model ranks test rows, what it states, what has drifted.

Knows the files that the loop leaves, and plots; nothing of pages.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from lepton_lib import metrics, plots
from lepton_lib.artefacts import Run
from lepton_lib.cases import Case

SIZE: Any = {"width": 4.2, "height": 3.4}  # inches


class Curve(NamedTuple):
    """A PNG in Base64 and its alternative text."""

    png: str
    alt: str


class _Window(msgspec.Struct):
    window: int
    psi: float


class _Drift(msgspec.Struct):
    limit: float
    windows: list[_Window]


def curves(run: Run, case: Case) -> Iterator[Curve]:
    """The curves of the steps that are done: quality and calibration of 03, drift of 05."""
    predictions = run.folder / "evaluation" / "predictions.parquet"
    if predictions.is_file():
        import pyarrow.parquet as pq  # only where there is a table

        table = pq.read_table(predictions)
        labels = table["target"].to_numpy()
        if case.classes:
            answers = np.stack([table[f"p_{name}"].to_numpy() for name in case.classes], axis=1)
            yield _roc(case, labels, answers)
            yield _calibration(labels, answers)
        else:
            yield _errors(case, labels, table["prediction"].to_numpy())
    drift = run.folder / "monitoring" / "drift.json"
    if drift.is_file():
        yield _drift(msgspec.json.decode(drift.read_bytes(), type=_Drift))


def _roc(case: Case, labels: np.ndarray, answers: np.ndarray) -> Curve:
    """A curve for each class against the rest; of two classes for the positive one."""
    figure, axes = plots.subplots(**SIZE)
    for index in range(1 if len(case.classes) == 2 else 0, len(case.classes)):
        right = (labels == index)[np.argsort(-answers[:, index], kind="stable")]
        shares = [np.r_[0, part.cumsum()] / max(part.sum(), 1) for part in (~right, right)]
        axes.plot(*shares, label=case.classes[index])
    axes.plot([0, 1], [0, 1], color=plots.GREY, linewidth=1, linestyle="--", label="guessing")
    axes.set(title="ROC on test rows", xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(loc="lower right")
    return _drawn(figure, "ROC curve of the test rows: the true positive rate against the false.")


def _calibration(labels: np.ndarray, answers: np.ndarray) -> Curve:
    figure, axes = plots.subplots(**SIZE)
    plots.reliability(axes, {"model": metrics.reliability(labels, answers)})
    axes.set_title("Calibration on test rows")
    alt = "Calibration of the test rows: the observed frequency against the stated probability."
    return _drawn(figure, alt)


def _errors(case: Case, targets: np.ndarray, predictions: np.ndarray) -> Curve:
    figure, axes = plots.subplots(**SIZE)
    plots.histograms(axes, {"prediction minus target": predictions - targets}, bins=40)
    axes.set(title="Errors on test rows", xlabel=f"error ({case.target.unit})", ylabel="density")
    return _drawn(figure, "The errors of the test rows: a histogram of prediction minus target.")


def _drift(drift: _Drift) -> Curve:
    figure, axes = plots.subplots(**SIZE)
    numbers = [window.window for window in drift.windows]
    axes.plot(numbers, [window.psi for window in drift.windows], marker="o", label="largest PSI")
    axes.axhline(drift.limit, color=plots.RED, linestyle="--", label="limit")
    axes.set(title="Drift over the windows", xlabel="window", ylabel="PSI", xticks=numbers)
    axes.set_ylim(bottom=0)
    axes.legend()
    return _drawn(figure, "The largest PSI of a column in each window, and the limit.")


def _drawn(figure: Any, alt: str) -> Curve:
    data, _ = plots.show(figure, alt=alt)._repr_mimebundle_()
    return Curve(base64.b64encode(data["image/png"]).decode(), alt)
