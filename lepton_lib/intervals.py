"""Values with their uncertainty: bootstrap, paired differences, and DeLong's interval of the AUC.

Knows arrays only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lepton_lib.errors import MetricError
from lepton_lib.metrics import AUC, calibration_bins

Z95 = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


class Interval(NamedTuple):
    """A value with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: Any,
    n: int = 1000,
    level: float = 0.95,
    seed: int,
    stratify: Any = None,
    block: int = 1,
    clusters: Any = None,
) -> Interval:
    """Percentile bootstrap: the metric on rows drawn again with replacement.

    Efron, Bootstrap Methods, 1979.

    Args:
        metric: Function of ``arrays``.
        *arrays: Arrays of one length ``(rows, ...)``; the same rows are drawn from all of them.
        n: Number of draws.
        level: Share of the draws that lies between the ends.
        seed: Of the draws.
        stratify: ``(rows,)`` labels: each label keeps its count, so that no draw lacks a class.
        block: Rows that are drawn together. More than one where neighbouring rows resemble each
            other, as in time: drawn alone they would seem to be more evidence than they are
            (Künsch, The Jackknife and the Bootstrap for General Stationary Observations, 1989).
            Stretches wrap around at the end, and hold at most a tenth of a label's rows: draws of
            few stretches are too alike.
        clusters: ``(rows,)`` labels of what rows come from, a person or a machine: all rows of one
            are drawn together, since they resemble each other (Davison and Hinkley, Bootstrap
            Methods and their Application, 1997, section 3.8). ``stratify`` and ``block`` then
            count for nothing.

    Raises:
        MetricError: There is no row, the lengths differ, or a setting is out of range.
    """
    columns = [np.asarray(array) for array in arrays]
    strata = np.zeros(len(columns[0])) if stratify is None else np.asarray(stratify)
    lengths = sorted({len(column) for column in (*columns, strata)})
    if len(lengths) != 1 or lengths[0] == 0 or n < 1 or not 0 < level < 1 or block < 1:
        got = f"arrays of length {lengths}, n={n}, level={level}, block={block}"
        expected = "arrays of one length, n and block of at least 1, a level between 0 and 1"
        raise MetricError("bootstrap_interval", got, expected, "Take all from the same rows.")
    generator = np.random.default_rng(seed)
    draw = _drawing(strata, block, clusters, generator)
    draws = np.empty(n)
    for i in range(n):
        rows = draw()
        draws[i] = metric(*(column[rows] for column in columns))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(metric(*columns)), float(low), float(high))


def _drawing(
    strata: np.ndarray, block: int, clusters: Any, generator: np.random.Generator
) -> Callable[[], np.ndarray]:
    """What draws the rows of one resample: whole clusters, or within each of the ``strata``."""
    labels = strata if clusters is None else np.asarray(clusters)
    parts = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if clusters is None:
        return lambda: np.concatenate([_draw_rows(part, block, generator) for part in parts])
    return lambda: np.concatenate(
        [parts[i] for i in generator.integers(len(parts), size=len(parts))]
    )


def _draw_rows(rows: np.ndarray, block: int, generator: np.random.Generator) -> np.ndarray:
    block = max(min(block, len(rows) // 10), 1)
    starts = generator.integers(len(rows), size=-(-len(rows) // block))
    if block == 1:
        return rows[starts]
    stretches = (starts[:, None] + np.arange(block)).ravel()[: len(rows)]
    return np.asarray(rows[stretches % len(rows)])


def paired_difference(
    metric: Callable[[Any, Any], float], labels: Any, a: Any, b: Any, *, seed: int, **options: Any
) -> Interval:
    """How much higher the metric is for ``a`` than for ``b``, both judged on the same drawn rows.

    What makes both look good or bad alike cancels, so that the interval is narrower than either
    model's own.

    Args:
        metric: Function of ``(labels, predictions)``.
        labels: ``(rows,)``.
        a: One model's predictions or probabilities, ``(rows, ...)``.
        b: The other's.
        seed: Of the draws.
        **options: For `bootstrap_interval`: ``n``, ``level``, ``stratify``, ``block``,
            ``clusters``.
    """

    def difference(labels: Any, a: Any, b: Any) -> float:
        return metric(labels, a) - metric(labels, b)

    return bootstrap_interval(difference, labels, a, b, seed=seed, **options)


def auc_interval(
    labels: Any, scores: Any, *, level: float = 0.95, clusters: Any = None
) -> Interval:
    """The AUC of independent rows or clusters with DeLong's interval on the logit scale.

    DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated ROC Curves,
    1988. The logit keeps the ends within 0 to 1 and the lower one low enough with few rows, where
    the percentile bootstrap is too optimistic (Qin and Hotilovac, 2008); Student's t, with as many
    degrees of freedom as the smallest class allows, makes up for a variance of few rows. Of three
    or more classes it is the mean of one-vs-rest areas. Where nothing is ranked wrongly the far end
    is that of a share of 1 among the rows of the smallest class (Clopper and Pearson, 1934).

    Args:
        labels: ``(n,)`` class indices.
        scores: ``(n,)`` of the positive class, or probabilities ``(n, n_classes)``.
        level: Share of samples whose interval holds the true area.
        clusters: ``(n,)`` labels of what rows come from: the influence of all rows of one is added
            up (Obuchowski, Nonparametric Analysis of Clustered ROC Curve Data, 1997).

    Raises:
        MetricError: As for `AUC.average`.
    """
    from scipy.special import expit, logit, stdtrit

    value, influence, n_smallest = _area(labels, scores, clusters)
    tail = (1 - level) / 2
    if value in (0, 1):
        far = tail ** (1 / n_smallest)
        return Interval(value, far, 1.0) if value == 1 else Interval(value, 0.0, 1 - far)
    if n_smallest < 2:
        return Interval(value, 0.0, 1.0)
    error = float((influence**2).sum() ** 0.5)
    margin = stdtrit(n_smallest - 1, 1 - tail) * error / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-margin, margin]))
    return Interval(value, float(low), float(high))


def auc_difference(
    labels: Any, a: Any, b: Any, *, level: float = 0.95, clusters: Any = None
) -> Interval:
    """How much larger the AUC of ``a`` is than that of ``b`` on the same rows (DeLong, 1988).

    Arguments and errors as for `auc_interval`, with two scores.
    """
    from scipy.special import stdtrit

    (first, ours, n_smallest), (second, theirs, _) = (
        _area(labels, scores, clusters) for scores in (a, b)
    )
    error = float(((ours - theirs) ** 2).sum() ** 0.5)
    margin = float(stdtrit(max(n_smallest - 1, 1), (1 + level) / 2)) * error
    return Interval(first - second, first - second - margin, first - second + margin)


def _area(labels: Any, scores: Any, clusters: Any) -> tuple[float, np.ndarray, int]:
    """The AUC, each cluster's influence on it, and the clusters that the smallest class lies in."""
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    auc = AUC()
    auc.add(scores, labels)
    value = auc.average()
    columns = [scores] if scores.ndim == 1 else list(scores.T)
    classes = [1] if scores.ndim == 1 else range(len(columns))
    pairs = zip(classes, columns, strict=True)
    influence = np.mean([_influence(labels == k, column) for k, column in pairs], axis=0)
    own = np.arange(len(labels))
    if clusters is not None:
        own = np.unique(np.asarray(clusters), return_inverse=True)[1]
    n_smallest = min(len(np.unique(own[labels == label])) for label in np.unique(labels))
    return value, np.bincount(own, influence), n_smallest


def _influence(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """By how much each row ``(n,)`` moves the area: the sum of squares is DeLong's variance."""
    shares = np.empty(len(scores))  # of the other class that the row is ranked right against
    for own, sign in ((positive, 1), (~positive, -1)):
        others = np.sort(sign * scores[~own])
        ranks = others.searchsorted(sign * scores[own], "left")
        ranks = ranks + others.searchsorted(sign * scores[own], "right")  # a tie counts half
        shares[own] = ranks / 2 / len(others)
        n = int(own.sum())
        shares[own] = (shares[own] - shares[own].mean()) / max(n * (n - 1), 1) ** 0.5
    return shares


def calibration_interval(
    labels: Any,
    probabilities: Any,
    *,
    n: int = 300,
    level: float = 0.95,
    seed: int,
    block: int = 1,
    clusters: Any = None,
) -> Interval:
    """The calibration error with an interval that allows for its bias.

    Chance alone makes the error of a flawless model positive, and that of resampled rows larger
    still, so that a percentile interval misses the truth. By the triangle inequality measured and
    true error differ by no more than the bins' summed noise: the interval reaches as far either way
    as that noise does in ``(1 + level) / 2`` of the bootstrap draws. It is wide rather than wrong.

    Args:
        labels: ``(n,)`` class indices.
        probabilities: ``(n, n_classes)``.
        n: Number of draws.
        level: Share of samples whose interval holds the true error of these bins, at least.
        seed: Of the draws.
        block: Rows that belong together, as for `bootstrap_interval`.
        clusters: The same, by label ``(n,)``.

    Raises:
        MetricError: As for `calibration_error`.
    """
    bins, stated, happened = calibration_bins(labels, probabilities)
    gaps = happened - stated
    measured = np.bincount(bins, gaps, minlength=bins.max() + 1)
    draw = _drawing(np.zeros(len(bins)), block, clusters, np.random.default_rng(seed))
    noise = np.empty(n)
    for i in range(n):
        drawn = draw()
        resampled = np.bincount(bins[drawn], gaps[drawn], minlength=len(measured))
        noise[i] = np.abs(resampled - measured).sum() / len(bins)
    value = float(np.abs(measured).sum() / len(bins))
    reach = float(np.quantile(noise, (1 + level) / 2))
    return Interval(value, max(value - reach, 0.0), min(value + reach, 1.0))


def mean_interval(values: Any, *, level: float = 0.95) -> Interval:
    """The mean of independent runs, such as those of several seeds, with Student's interval.

    Student, The Probable Error of a Mean, 1908.

    Args:
        values: ``(n,)``, one of each run.
        level: Share of samples whose interval holds the true mean.

    Raises:
        MetricError: There are fewer than two runs: one says nothing of how runs differ.
    """
    from scipy.special import stdtrit

    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        got = f"{array.size} values"
        raise MetricError("mean_interval", got, "at least 2", "Repeat with more seeds.")
    mean, error = float(array.mean()), float(array.std(ddof=1)) / math.sqrt(array.size)
    margin = float(stdtrit(array.size - 1, (1 + level) / 2)) * error
    return Interval(mean, mean - margin, mean + margin)


def wilson(hits: int, rows: int) -> Interval:
    """A share with Wilson's 95 % interval (Probable Inference, 1927), which stays within 0 to 1.

    NaN without rows.
    """
    if rows == 0:
        return Interval(math.nan, math.nan, math.nan)
    share, z2 = hits / rows, Z95**2
    centre = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    margin = Z95 / (1 + z2 / rows) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows**2))
    return Interval(share, max(centre - margin, 0.0), min(centre + margin, 1.0))
