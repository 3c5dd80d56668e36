"""Making outputs mean what they say: temperature, isotonic curves, priors, conformal margins.

Each is fitted on rows that the model hasn't learnt from. Knows arrays only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lepton_lib.errors import MetricError


def fit_temperature(logits: Any, labels: Any) -> float:
    """The temperature with the least log loss of ``logits / temperature``, or 1 without clear gain.

    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017, eq. 9. Above 1
    the model was too sure of itself, below 1 too timid. It never changes an order, nor the AUC of
    two classes. Few rows, or rows that the logits separate, would pull it to an extreme: a normal
    prior keeps its logarithm near 0, with a standard deviation of ``log(2)``. And it stays at 1
    unless twice the gain in log likelihood exceeds 3.84: chi-square at 95 % (Wilks, 1938).

    Args:
        logits: ``(n,)`` or ``(n, 1)`` of the positive class, or ``(n, n_classes)``; of rows that
            were not trained on.
        labels: ``(n,)`` class indices.

    Returns:
        The temperature, from 0.05 to 20.

    Raises:
        MetricError: There is no row, the lengths differ, or a logit isn't finite.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels).astype(np.int64)
    if scores.ndim == 1 or scores.shape[1] == 1:  # two classes: the other's logit is 0
        scores = np.column_stack([np.zeros(len(scores)), scores])
    if len(truth) != len(scores) or len(truth) == 0 or not np.isfinite(scores).all():
        got = f"{len(scores)} logits, {len(truth)} labels"
        expected = "finite logits, one label each, at least one"
        raise MetricError("fit_temperature", got, expected, "Pass those of the validation rows.")
    chosen = scores[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        return float((logsumexp(scores * inverse, axis=1) - chosen * inverse).sum())

    def with_prior(log_temperature: float) -> float:
        return loss(log_temperature) + (log_temperature / math.log(2)) ** 2 / 2

    limit, options = math.log(20), {"xatol": 1e-6}
    best = minimize_scalar(with_prior, bounds=(-limit, limit), method="bounded", options=options).x
    return math.exp(best) if 2 * (loss(0.0) - loss(best)) > 3.84 else 1.0


def calibrate(answers: Any, labels: Any) -> tuple[float, np.ndarray]:
    """The temperature of a model's answers to rows that it hasn't learnt from, and its effect.

    Args:
        answers: Probabilities ``(n, n_classes)``, such as ``History.held_out``; predicted numbers
            ``(n, 1)`` have no temperature: it is 1.
        labels: ``(n,)`` class indices.

    Returns:
        The temperature, and the answers ``(n, n_classes)`` with it.

    Raises:
        MetricError: As `fit_temperature`.
    """
    from scipy.special import softmax

    answers = np.asarray(answers)
    if answers.shape[1] == 1:
        return 1.0, answers
    logits = np.log(answers.clip(1e-12))
    temperature = fit_temperature(logits, labels)
    return temperature, softmax(logits / temperature, axis=1)


def fit_isotonic(labels: Any, probabilities: Any) -> Callable[[Any], np.ndarray]:
    """A rising curve for each class, from stated probability to observed frequency.

    Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability
    Estimates, 2002: one class against the rest, then divided by their sum. It bends where one
    temperature can't, and needs more rows for it: some hundreds of each class.

    Args:
        labels: ``(n,)`` class indices.
        probabilities: ``(n, n_classes)``.

    Returns:
        A function from probabilities ``(m, n_classes)`` to calibrated ones.
    """
    from sklearn.isotonic import IsotonicRegression

    labels, stated = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    # a row of each outcome at either end keeps the curve away from 0 and 1 (Laplace)
    ends, outcomes = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    curves = [
        IsotonicRegression(out_of_bounds="clip").fit(
            np.append(column, ends), np.append(labels == k, outcomes)
        )
        for k, column in enumerate(stated.T)
    ]

    def calibrate(probabilities: Any) -> np.ndarray:
        columns = np.asarray(probabilities, dtype=np.float64).T
        raw = [curve.predict(column) for curve, column in zip(curves, columns, strict=True)]
        risen = np.column_stack(raw)
        return np.asarray(risen / risen.sum(1, keepdims=True))

    return calibrate


def shift_prior(probabilities: Any, learnt: Any, expected: Any) -> np.ndarray:
    """Probabilities ``(n, n_classes)`` for a place where the classes have other shares.

    Holds where the rows of each class look as they did, and only the classes' shares moved
    (Saerens, Latinne and Decaestecker, Adjusting the Outputs of a Classifier, 2002, eq. 4).

    Args:
        probabilities: ``(n, n_classes)``, calibrated for the learnt shares.
        learnt: ``(n_classes,)`` shares among the rows that were learnt from.
        expected: ``(n_classes,)`` shares where the model is used.
    """
    odds = np.asarray(probabilities) * (np.asarray(expected) / np.asarray(learnt))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def conformal_margin(targets: Any, predictions: Any, *, level: float = 0.9) -> float:
    """How far to either side of a prediction an interval reaches that holds ``level`` of targets.

    Split conformal prediction (Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, Distribution-Free
    Predictive Inference for Regression, 2018): the ``ceil((n + 1) level)``-th smallest error. It
    holds for new rows that are drawn as these were, whatever the model.

    Args:
        targets: ``(n,)``, of rows that the model hasn't learnt from.
        predictions: ``(n,)`` or ``(n, 1)``.
        level: Share of new rows whose interval holds their target.

    Returns:
        The margin in the target's unit; infinite with too few rows for the level.
    """
    errors = np.sort(np.abs(np.asarray(targets) - np.asarray(predictions).reshape(-1)))
    place = math.ceil((len(errors) + 1) * level)
    return float(errors[place - 1]) if place <= len(errors) else math.inf


def covered(targets: Any, predictions: Any, margin: float) -> float:
    """The share of targets ``(n,)`` within ``margin`` of predictions ``(n,)`` or ``(n, 1)``."""
    gaps = np.abs(np.asarray(targets) - np.asarray(predictions).reshape(-1))
    return float((gaps <= margin).mean())
