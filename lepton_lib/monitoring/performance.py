"""How good the outputs are once labels have come, and an estimate before.

Knows cases and arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.calibration import covered
from lepton_lib.cases import Case
from lepton_lib.decisions import cost_matrix, decide
from lepton_lib.evaluation import (
    can_be_judged,
    case_metric,
    group_labels,
    metric_interval,
)
from lepton_lib.intervals import Interval, bootstrap_interval, calibration_interval, wilson
from lepton_lib.metrics import accuracy, calibration_error, log_loss, mean_decision_cost

ESTIMATE_ROWS = 5_000  # of more rows as many are drawn: each draw costs the metrics
_UNKNOWN = Interval(math.nan, math.nan, math.nan)


def row_losses(case: Case, labels: Any, outputs: Any) -> np.ndarray:
    """The loss of each row ``(n,)``: cross-entropy in nats, or absolute error in the target's unit.

    Args:
        case: The case.
        labels: ``(n,)`` class indices or numbers.
        outputs: ``(n, n_classes)`` probabilities or ``(n, 1)`` predictions.
    """
    return case.task.row_losses(np.asarray(labels), np.asarray(outputs, dtype=np.float64))


def _metrics(
    case: Case, labels: np.ndarray, margin: float | None = None
) -> dict[str, Callable[[Any, Any], float]]:
    """What can be measured on rows with these labels, by name."""
    name, metric = case_metric(case)
    if not case.classes:
        held = {} if margin is None else {"coverage": partial(covered, margin=margin)}
        return {name: metric} | held
    metrics = {name: metric} if len(np.unique(labels)) == len(case.classes) else {}
    metrics |= {"accuracy": accuracy, "calibration_error": calibration_error, "log_loss": log_loss}
    if case.costs is not None:
        costs = cost_matrix(case)
        metrics["cost"] = lambda labels, outputs: mean_decision_cost(
            labels, decide(outputs, costs), costs
        )
    return metrics


def performance(
    case: Case,
    labels: Any,
    outputs: Any,
    *,
    seed: int,
    n: int = 300,
    block: int = 1,
    margin: float | None = None,
) -> dict[str, Interval]:
    """Metrics of labelled rows: the case's own, calibration, accuracy, log loss, cost per decision.

    Args:
        case: The case.
        labels: ``(n,)``, joined to their outputs by prediction id.
        outputs: ``(n, n_classes)`` or ``(n, 1)``, of the same rows.
        seed: Of the bootstrap.
        n: Its draws.
        block: Rows that belong together, as for `bootstrap_interval`.
        margin: Of the predictions' interval, whose ``coverage`` is then measured.

    Returns:
        Metric's name to ``(value, low, high)`` at 95 %. What these rows can't tell is left out:
        everything without rows, the AUC where a class is missing.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs, dtype=np.float64)
    if not len(labels):
        return {}
    labels = labels.astype(np.int64) if case.classes else labels
    options = {"seed": seed, "n": n, "block": min(block, len(labels))}
    intervals: dict[str, Interval] = {}
    for name, metric in _metrics(case, labels, margin).items():
        if name == case.task.metric:
            intervals[name] = metric_interval(case, labels, outputs, **options)
        elif name == "calibration_error":
            intervals[name] = calibration_interval(labels, outputs, **options)
        else:
            intervals[name] = bootstrap_interval(metric, labels, outputs, **options)
    return intervals


def estimate_performance(
    case: Case, outputs: Any, *, seed: int, n: int = 200
) -> dict[str, Interval]:
    """What labels should show, before any has come: labels are drawn from the probabilities.

    Confidence-based performance estimation (Kivimäki, Białek, Kuberski and Nurminen, Performance
    Estimation in Binary Classification Using Calibrated Confidence, arXiv:2505.05295, 2025). It
    follows a change of the *inputs*, as far as the probabilities are calibrated on the new ones. It
    can't see a change of P(y | x), of what the inputs mean. So it is a reason to ask for labels and
    never replaces them.

    Args:
        case: The case.
        outputs: ``(n, n_classes)`` calibrated probabilities.
        seed: Of the draws.
        n: How many times labels are drawn.

    Returns:
        As `performance`, without what the draws make true by themselves (calibration); the ends
        hold 95 % of what labels of as many rows would show. Empty for regression: a predicted
        number says nothing of its own error.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if not case.classes or not len(outputs):
        return {}
    generator, size = np.random.default_rng(seed), min(len(outputs), ESTIMATE_ROWS)
    draws: dict[str, list[float]] = {}
    for _ in range(n):
        rows = outputs
        if size < len(outputs):
            rows = outputs[generator.integers(len(outputs), size=size)]
        labels = (rows.cumsum(1) < generator.random((size, 1)) * rows.sum(1, keepdims=True)).sum(1)
        for name, metric in _metrics(case, labels).items():
            if name != "calibration_error":
                draws.setdefault(name, []).append(metric(labels, rows))
    shrink = math.sqrt(size / len(outputs))  # fewer rows were drawn than there are
    result = {}
    for name, values in draws.items():
        mean, ends = np.mean(values), np.quantile(values, [0.025, 0.975])
        low, high = mean + (ends - mean) * shrink
        result[name] = Interval(float(mean), float(low), float(high))
    return result


def group_performance(
    frame: pd.DataFrame, case: Case, outputs: Any, labels: Any = None, *, seed: int, n: int = 200
) -> pd.DataFrame:
    """Each sensitive group's rate of positive decisions, and its gap to all rows.

    Args:
        frame: Rows with the case's columns.
        case: The case.
        outputs: ``(n, n_classes)`` or ``(n, 1)``.
        labels: ``(n,)``, NaN where none has come; None for none at all.
        seed: Of the bootstrap.
        n: Its draws.

    Returns:
        One line a group: ``column``, ``group``, ``rows``, ``labelled``; ``rate`` with ``rate_low``
        and ``rate_high`` (Wilson's interval), the share decided on the positive class, NaN but for
        two classes; ``gap`` with ``gap_low`` and ``gap_high``: by how much the case's metric is
        worse than on all labelled rows, NaN where not ``judged`` (`can_be_judged`).
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    labels = np.full(len(outputs), np.nan) if labels is None else np.asarray(labels, dtype=float)
    known = ~np.isnan(labels)
    truth = labels[known].astype(np.int64 if case.classes else np.float64)
    lines = []
    for column in case.sensitive:
        groups = group_labels(frame, column)
        for group, rows in groups.groupby(groups, observed=True).indices.items():
            inside = np.zeros(len(frame), dtype=bool)
            inside[rows] = True
            part = inside[known]
            judged = can_be_judged(case, truth[part])
            rate = gap = _UNKNOWN
            if len(case.classes) == 2:
                rate = _decided_positive(case, outputs[rows])
            if judged:
                gap = _gap(case, truth, outputs[known], part, seed=seed, n=n)
            n_labelled = int(part.sum())
            lines.append((column.name, str(group), len(rows), n_labelled, *rate, *gap, judged))
    ends = ["rate", "rate_low", "rate_high", "gap", "gap_low", "gap_high"]
    header = ["column", "group", "rows", "labelled", *ends, "judged"]
    return pd.DataFrame(lines, columns=header)


def _decided_positive(case: Case, outputs: np.ndarray) -> Interval:
    """The share of rows decided on the positive class."""
    return wilson(int((decide(outputs, cost_matrix(case)) == 1).sum()), len(outputs))


def _gap(
    case: Case, labels: np.ndarray, outputs: np.ndarray, inside: np.ndarray, **options: int
) -> Interval:
    """By how much the case's metric is worse on the rows ``inside`` ``(n,)`` than on all."""
    metric, sign = case_metric(case)[1], 1 if case.classes else -1  # more AUC is better, less error

    def gap(labels: Any, outputs: Any, own: Any) -> float:
        return sign * (metric(labels, outputs) - metric(labels[own], outputs[own]))

    strata = inside + 2 * labels if case.classes else inside
    return bootstrap_interval(gap, labels, outputs, inside, stratify=strata, **options)
