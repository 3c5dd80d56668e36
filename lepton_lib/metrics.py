"""Metrics: how good the scores are, how true the probabilities, how large the errors.

All take NumPy arrays or torch tensors and compute in float64. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lepton_lib.errors import MetricError

_SAME_ROWS = "Take both from the same rows."
_MORE_ROWS = "Add more rows before asking for the average"
_FROM_ZERO = "Number the classes from 0."


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Mann-Whitney: the share of pairs in which the positive scores higher, a tie counting half."""
    # The shorter is looked up in the longer, in order: sorted needles walk through the cache.
    swap = len(positive) > len(negative)
    few, many = (negative, positive) if swap else (positive, negative)
    few, many = np.sort(few), np.sort(many)
    below = np.searchsorted(many, few, side="left")
    up_to = np.searchsorted(many, few, side="right")
    # Python's integers keep the counts exact
    share = (int(below.sum()) + int(up_to.sum())) / (2 * len(few) * len(many))
    return 1 - share if swap else share


def area_under_curve(labels: Any, scores: Any) -> float:
    """Area under the ROC curve of two classes, exact with ties.

    Args:
        labels: ``(n,)``, 1 for the positive class and 0 for the other.
        scores: ``(n,)``, higher for the positive class: logits or probabilities.

    Raises:
        MetricError: Only one class, another label, a NaN score, or lengths that differ.
    """
    return _auc(*_split_scores(labels, scores))


def _split_scores(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """The positives' scores and the negatives', after the checks of `area_under_curve`."""
    labels, scores = _array(labels).ravel(), _array(scores).ravel()
    if len(labels) != len(scores):
        got = f"{len(labels)} labels and {len(scores)} scores"
        raise MetricError("AUC", got, "one score a label", _SAME_ROWS)
    positive = labels == 1
    n_positive = int(positive.sum())
    if not (positive | (labels == 0)).all():
        remedy = "Use AUC() for several classes."
        raise MetricError("AUC", "labels other than 0 and 1", "0 and 1", remedy)
    if n_positive in (0, len(labels)):
        got = f"{n_positive} positive and {len(labels) - n_positive} negative labels"
        remedy = f"{_MORE_ROWS}; a single batch may hold one class only."
        raise MetricError("AUC", got, "at least one of each", remedy)
    if n_nan := int(np.isnan(scores).sum()):
        remedy = "Look for the batch where the loss became NaN; try a smaller learning rate."
        raise MetricError("AUC", f"{n_nan} scores that are NaN", "numbers", remedy)
    return scores[positive], scores[~positive]


class AUC:
    """Area under the ROC curve, gathered batch by batch and computed over everything at once.

    The mean of batch values is another number, and a wrong one: it leaves out all pairs that lie
    across batches. With three or more classes it is the mean of one-vs-rest areas over the classes.
    """

    def __init__(self) -> None:
        self._outputs: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, outputs: Any, labels: Any) -> None:
        """Add a batch.

        Args:
            outputs: ``(b,)`` or ``(b, 1)`` scores of the positive class, or ``(b, k)`` logits or
                probabilities.
            labels: ``(b,)`` class indices.

        Raises:
            MetricError: The lengths differ.
        """
        outputs, labels = _array(outputs), _array(labels).ravel()
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if outputs.ndim != 2 or len(outputs) != len(labels):
            got = f"outputs of shape {outputs.shape} and {len(labels)} labels"
            raise MetricError("AUC.add", got, "(b,) or (b, k) outputs and b labels", _SAME_ROWS)
        self._outputs.append(outputs)
        self._labels.append(labels)

    def per_class(self) -> list[float]:
        """One-vs-rest area of each class; for two classes the one area.

        Scores of three or more classes are first turned into probabilities if they are logits, row
        by row.

        Raises:
            MetricError: Nothing was added, or some class has no example; with the counts.
        """
        if not self._outputs:
            raise MetricError("AUC", "no batch", "at least one", "Call add(outputs, labels) first.")
        outputs, labels = np.concatenate(self._outputs), np.concatenate(self._labels)
        n_classes = outputs.shape[1]
        if n_classes == 1:
            return [area_under_curve(labels, outputs)]
        if n_classes == 2:
            if _are_probabilities(outputs):
                return [area_under_curve(labels, outputs[:, 1])]
            # The difference of two logits ranks like the probability, and doesn't round to 0 or 1.
            return [area_under_curve(labels, outputs[:, 1].astype(np.float64) - outputs[:, 0])]
        if not np.isin(labels, np.arange(n_classes)).all():
            got, expected = "labels that are no class index", f"0 to {n_classes - 1}"
            raise MetricError("AUC", got, expected, _FROM_ZERO)
        counts = np.bincount(labels.astype(np.int64), minlength=n_classes).tolist()
        if 0 in counts:
            expected = f"some of each of {n_classes} classes"
            raise MetricError("AUC", f"{counts} examples by class", expected, f"{_MORE_ROWS}.")
        outputs = outputs if _are_probabilities(outputs) else _softmax(outputs)
        return [area_under_curve(labels == k, outputs[:, k]) for k in range(n_classes)]

    def average(self) -> float:
        """The area over all that was added; of several classes the mean over the classes.

        Raises:
            MetricError: As for `per_class`.
        """
        return float(np.mean(self.per_class()))


def _are_probabilities(outputs: np.ndarray) -> bool:
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(1), 1, atol=1e-3))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def _classified(name: str, labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    """Class indices ``(n,)`` and float64 probabilities ``(n, n_classes)``, checked."""
    labels, probabilities = _array(labels), _array(probabilities).astype(np.float64)
    n, n_columns = len(labels), probabilities.shape[1] if probabilities.ndim == 2 else 0
    if labels.ndim != 1 or n_columns < 2 or len(probabilities) != n or n == 0:
        got = f"labels of shape {labels.shape} and probabilities of shape {probabilities.shape}"
        expected = "(n,) and (n, n_classes), with n at least 1 and a column for every class"
        raise MetricError(name, got, expected, _SAME_ROWS)
    if not np.isin(labels, np.arange(n_columns)).all() or np.isnan(probabilities).any():
        got = "a label that is no class index, or a probability that is NaN"
        raise MetricError(name, got, f"labels from 0 to {n_columns - 1} and numbers", _FROM_ZERO)
    return labels.astype(np.int64), probabilities


def _calibrated(name: str, labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    """As `_classified`, for metrics of which only probabilities have a meaning."""
    labels, probabilities = _classified(name, labels, probabilities)
    if not _are_probabilities(probabilities):
        row = int(np.argmax((probabilities < 0).any(1) | (abs(probabilities.sum(1) - 1) > 1e-3)))
        got = f"row {row} with {probabilities[row].tolist()}"
        remedy = "Turn logits into probabilities first; TabularModel.predict does."
        raise MetricError(name, got, "probabilities of at least 0 that sum to 1", remedy)
    return labels, probabilities


def log_loss(labels: Any, probabilities: Any) -> float:
    """Mean cross-entropy in nats.

    A probability of zero counts as the smallest step from one, 2.2e-16, as in scikit-learn.

    Args:
        labels: ``(n,)`` class indices.
        probabilities: ``(n, n_classes)``.

    Raises:
        MetricError: Shapes that don't agree, a label that is no class, a NaN, or a row that doesn't
            hold probabilities.
    """
    labels, probabilities = _calibrated("log_loss", labels, probabilities)
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(chosen.clip(np.finfo(np.float64).eps)).mean())


def brier_score(labels: Any, probabilities: Any) -> float:
    """Mean squared distance between probabilities and one-hot labels, summed over the classes.

    Arguments and errors as for `log_loss`.
    """
    labels, probabilities = _calibrated("brier_score", labels, probabilities)
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean())


def accuracy(labels: Any, probabilities: Any) -> float:
    """Share of rows whose most probable class is the label.

    Arguments and errors as for `log_loss`, but logits will do: their order counts.
    """
    labels, probabilities = _classified("accuracy", labels, probabilities)
    return float((probabilities.argmax(1) == labels).mean())


def calibration_error(
    labels: Any, probabilities: Any, *, n_bins: int = 10, bins: Literal["width", "mass"] = "mass"
) -> float:
    """Expected calibration error: the mean gap between stated probability and observed frequency.

    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017, eq. 3. Two
    classes: the positive class's probability against its frequency. More: the most probable class's
    probability against its being right.

    Args:
        labels: ``(n,)`` class indices.
        probabilities: ``(n, n_classes)``.
        n_bins: Number of bins.
        bins: Of equal ``width``, as in the paper, or of equal ``mass``: as many rows each, so that
            none hangs on a few.

    Raises:
        MetricError: As for `log_loss`.
    """
    stated, happened, weights = reliability(labels, probabilities, n_bins=n_bins, bins=bins)
    return float(np.sum(weights * np.abs(stated - happened)) / weights.sum())


def reliability(
    labels: Any, probabilities: Any, *, n_bins: int = 10, bins: Literal["width", "mass"] = "mass"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, observed frequency and row count of each bin of a reliability diagram.

    Empty bins are left out. Arguments and errors as for `calibration_error`.
    """
    index, confidence, hit = calibration_bins(labels, probabilities, n_bins=n_bins, bins=bins)
    counts = np.bincount(index, minlength=n_bins)
    filled = counts > 0
    stated = np.bincount(index, weights=confidence, minlength=n_bins)[filled] / counts[filled]
    happened = np.bincount(index, weights=hit, minlength=n_bins)[filled] / counts[filled]
    return stated, happened, counts[filled]


def calibration_bins(
    labels: Any, probabilities: Any, *, n_bins: int = 10, bins: Literal["width", "mass"] = "mass"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bin, stated probability and outcome (0 or 1) of each row, ``(n,)`` each.

    Arguments and errors as for `calibration_error`.
    """
    labels, probabilities = _calibrated("reliability", labels, probabilities)
    if probabilities.shape[1] == 2:
        confidence, hit = probabilities[:, 1], labels == 1
    else:
        confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels
    if bins == "width":
        index = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
    else:
        edges = np.quantile(confidence, np.linspace(0, 1, n_bins + 1)[1:-1])
        index = np.searchsorted(edges, confidence, side="right")  # equal probabilities share a bin
    return index, confidence, hit


def confusion_matrix(labels: Any, decisions: Any, *, n_classes: int) -> np.ndarray:
    """Counts ``(n_classes, n_classes)``: the row is the truth, the column the decision.

    Raises:
        MetricError: A label or decision isn't one of 0 to ``n_classes`` - 1.
    """
    truths, choices = _array(labels), _array(decisions)
    if foreign := set(np.union1d(truths, choices).tolist()) - set(range(n_classes)):
        got = f"labels or decisions {sorted(foreign)[:5]}"
        expected = f"0 to {n_classes - 1}, of {n_classes} classes"
        raise MetricError("confusion_matrix", got, expected, _FROM_ZERO)
    pairs = truths.astype(np.int64) * n_classes + choices.astype(np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def average_precision(labels: Any, scores: Any) -> float:
    """Area under the precision-recall curve of two classes, as scikit-learn's step function."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(_array(labels), _array(scores)))


def mean_absolute_error(targets: Any, predictions: Any) -> float:
    """Mean distance of targets ``(n,)`` and predictions ``(n,)`` or ``(n, 1)``, in their unit.

    Raises:
        MetricError: Another shape, or there is no row.
    """
    targets, predictions = _array(targets).astype(np.float64), _array(predictions)
    n = len(targets) if targets.ndim == 1 else 0
    if n == 0 or predictions.shape not in ((n,), (n, 1)):
        got = f"targets of shape {targets.shape} and predictions of shape {predictions.shape}"
        raise MetricError("mean_absolute_error", got, "(n,) and (n,) or (n, 1)", _SAME_ROWS)
    return float(np.abs(targets - predictions.reshape(n)).mean())


def mean_decision_cost(
    labels: Any, decisions: Any, costs: Sequence[Sequence[float]] | np.ndarray
) -> float:
    """Mean of ``costs[truth][decision]`` over the rows."""
    truths, choices = _array(labels).astype(np.int64), _array(decisions).astype(np.int64)
    return float(np.asarray(costs)[truths, choices].mean())
