"""How good the answers were, once labels have come, and how good they should be before. Knows cases and arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.cases import Case
from lepton_lib.evaluation import (
    MIN_GROUP_CLASS_ROWS,
    MIN_GROUP_ROWS,
    bootstrap_interval,
    case_metric,
    cost_matrix,
    decide,
    group_labels,
)
from lepton_lib.metrics import accuracy, calibration_error, log_loss, mean_decision_cost
from lepton_lib.monitoring.distances import Z95, Interval

ESTIMATE_ROWS = 5_000  # more rows are drawn from, for an estimate costs a metric for each draw


def row_losses(case: Case, labels: Any, answers: Any) -> np.ndarray:
    """The loss of each row ``(n,)``: cross-entropy in nats, or the absolute error in the target's unit.

    Args:
        case: The case.
        labels: ``(n,)`` class indices or numbers.
        answers: ``(n, n_classes)`` probabilities or ``(n, 1)`` predictions.
    """
    labels, answers = np.asarray(labels), np.asarray(answers, dtype=np.float64)
    if not case.classes:
        return np.asarray(np.abs(answers[:, 0] - labels))
    losses: np.ndarray = -np.log(answers[np.arange(len(labels)), labels.astype(int)].clip(1e-12))
    return losses


def _metrics(case: Case, labels: np.ndarray) -> dict[str, Callable[[Any, Any], float]]:
    """What can be measured on rows with these labels, by name."""
    name, metric = case_metric(case)
    if not case.classes:
        return {name: metric}
    found = {name: metric} if len(np.unique(labels)) == len(case.classes) else {}
    found |= {"accuracy": accuracy, "calibration_error": calibration_error, "log_loss": log_loss}
    if case.costs is not None:
        costs = cost_matrix(case)
        found["cost"] = lambda labels, answers: mean_decision_cost(
            labels, decide(answers, costs), costs
        )
    return found


def performance(
    case: Case, labels: Any, answers: Any, *, seed: int, n: int = 300, block: int = 1
) -> dict[str, Interval]:
    """What labelled rows say of the answers: the case's metric, calibration, accuracy, log loss, cost per decision.

    Args:
        case: The case.
        labels: ``(n,)``; late as they may be, joined to their answers by prediction id.
        answers: ``(n, n_classes)`` or ``(n, 1)``, of the same rows.
        seed: Of the bootstrap.
        n: Its draws.
        block: Rows that belong together, as for `bootstrap_interval`.

    Returns:
        Metric's name to ``(value, low, high)`` at 95 %. What these rows can't tell is left out:
        everything without rows, the AUC where a class is missing.
    """
    labels, answers = np.asarray(labels), np.asarray(answers, dtype=np.float64)
    if not len(labels):
        return {}
    labels = labels.astype(np.int64) if case.classes else labels
    options = {"seed": seed, "n": n, "block": min(block, len(labels))}
    found: dict[str, Interval] = {}
    for name, metric in _metrics(case, labels).items():
        strata = labels if name == "auc" else None
        found[name] = bootstrap_interval(metric, labels, answers, stratify=strata, **options)
    return found


def estimate_performance(
    case: Case, answers: Any, *, seed: int, n: int = 200
) -> dict[str, Interval]:
    """What labels should show, before any has come: labels are drawn from the answers' own probabilities.

    Confidence-based performance estimation (Bialek, Kuberski, Perrakis and Bifet, Estimating Model
    Performance Under Covariate Shift Without Labels, 2024). It follows a change of the *inputs*, as
    far as the probabilities are calibrated among the new ones. A change of what the inputs *mean*,
    of P(y | x), it cannot see: it takes the model's word for it. So it may ask for labels, and
    never stands in for them.

    Args:
        case: The case.
        answers: ``(n, n_classes)`` calibrated probabilities.
        seed: Of the draws.
        n: How many times labels are drawn.

    Returns:
        As `performance`, without what the draws make true by themselves (calibration); the ends
        hold 95 % of what labels of as many rows would show. Empty for regression: a number says
        nothing of its own error.
    """
    answers = np.asarray(answers, dtype=np.float64)
    if not case.classes or not len(answers):
        return {}
    generator, size = np.random.default_rng(seed), min(len(answers), ESTIMATE_ROWS)
    found: dict[str, list[float]] = {}
    for _ in range(n):
        rows = (
            answers
            if size == len(answers)
            else answers[generator.integers(len(answers), size=size)]
        )
        labels = (rows.cumsum(1) < generator.random((size, 1)) * rows.sum(1, keepdims=True)).sum(1)
        for name, metric in _metrics(case, labels).items():
            if name != "calibration_error":
                found.setdefault(name, []).append(metric(labels, rows))
    shrink = math.sqrt(size / len(answers))  # fewer rows were drawn than there are
    result = {}
    for name, values in found.items():
        mean, (low, high) = float(np.mean(values)), np.quantile(values, [0.025, 0.975])
        result[name] = (
            mean,
            float(mean + (low - mean) * shrink),
            float(mean + (high - mean) * shrink),
        )
    return result


def group_performance(
    frame: pd.DataFrame, case: Case, answers: Any, labels: Any = None, *, seed: int, n: int = 200
) -> pd.DataFrame:
    """The groups of the sensitive columns: what is decided on, and how far behind all rows the answers are.

    Args:
        frame: Rows with the case's columns.
        case: The case.
        answers: ``(n, n_classes)`` or ``(n, 1)``.
        labels: ``(n,)``, NaN where none has come; None for none at all.
        seed: Of the bootstrap.
        n: Its draws.

    Returns:
        One line a group: ``column``, ``group``, ``rows``, ``labelled``; ``rate`` with ``rate_low``
        and ``rate_high`` (Wilson's interval), the share decided on the positive class, NaN but for
        two classes; ``gap`` with ``gap_low`` and ``gap_high``: by how much the case's metric is
        worse than on all labelled rows, NaN where not ``judged``, which needs `MIN_GROUP_ROWS`
        labelled rows and `MIN_GROUP_CLASS_ROWS` of each class.
    """
    answers = np.asarray(answers, dtype=np.float64)
    labels = (
        np.full(len(answers), np.nan) if labels is None else np.asarray(labels, dtype=np.float64)
    )
    known = ~np.isnan(labels)
    truth, given = labels[known].astype(np.int64 if case.classes else np.float64), answers[known]
    costs = cost_matrix(case) if case.costs is not None else 1 - np.eye(max(len(case.classes), 1))
    chosen = decide(answers, costs) == 1 if case.task == "binary" else None
    metric = case_metric(case)[1]
    sign = 1 if case.classes else -1  # of the AUC more is better, of an error less
    lines: list[dict[str, Any]] = []
    for column in case.sensitive:
        groups = group_labels(frame, column)
        for group, rows in groups.groupby(groups, observed=True).indices.items():
            inside = np.zeros(len(frame), dtype=bool)
            inside[rows] = True
            part = inside[known]
            rate = (
                wilson(int(chosen[rows].sum()), len(rows))
                if chosen is not None
                else (math.nan,) * 3
            )
            counts = (
                np.bincount(truth[part], minlength=len(case.classes))
                if case.classes
                else np.array([part.sum()])
            )
            judged = part.sum() >= MIN_GROUP_ROWS and (
                not case.classes or counts.min() >= MIN_GROUP_CLASS_ROWS
            )
            gap: Interval = (math.nan,) * 3
            if judged:
                gap = bootstrap_interval(
                    lambda y, p, own: sign * (metric(y, p) - metric(y[own], p[own])),
                    *(truth, given, part),
                    seed=seed,
                    n=n,
                    stratify=part + 2 * truth if case.classes else part,
                )
            names = ["rate", "rate_low", "rate_high", "gap", "gap_low", "gap_high"]
            line = {
                "column": column.name,
                "group": str(group),
                "rows": len(rows),
                "labelled": int(part.sum()),
            }
            lines.append(
                line | dict(zip(names, (*rate, *gap), strict=True)) | {"judged": bool(judged)}
            )
    return pd.DataFrame(lines)


def wilson(hits: int, rows: int) -> Interval:
    """A share with Wilson's interval at 95 % (Probable Inference, 1927): never outside 0 to 1, and never empty."""
    share, z2 = hits / rows, Z95**2
    centre = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    margin = Z95 / (1 + z2 / rows) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows**2))
    return share, max(centre - margin, 0.0), min(centre + margin, 1.0)
