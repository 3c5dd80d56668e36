"""Distances between two samples, and tests of whether chance explains them. Knows arrays only.

Every distance of a column comes from its `ColumnSummary`, which costs one sort.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lepton_lib.intervals import Z95, Interval

# added to every bin's count (Jeffreys): an empty bin has a small share, and its logarithm is finite
SMOOTHING = 0.5
EXACT_ROWS = 10_000  # up to this many rows the Kolmogorov-Smirnov p-value is exact, as in SciPy
SPARSE = 5.0  # expected counts below this spoil the chi-square distribution (Cochran's rule)
DRAWS = 4_999  # random tables for a sparse one: the smallest p is 1 / 5000
STRIDE = 64  # between the points of the first pass over the distribution functions
CHUNK = 1 << 16  # values at a time, so that no large copy is made


@dataclass(frozen=True)
class ColumnSummary:
    """What the tests need of a column."""

    values: np.ndarray | None = None  # float64 (n,), sorted, none missing; None for categories
    counts: dict[str, int] = field(default_factory=dict)  # rows of each category
    missing: int = 0  # rows without a value

    @property
    def rows(self) -> int:
        """All rows, missing values among them."""
        present = sum(self.counts.values()) if self.values is None else len(self.values)
        return self.missing + present


def summarise(values: Any) -> ColumnSummary:
    """Summarise a column: numbers are sorted, everything else is counted as text.

    Args:
        values: ``(n,)``; NaN or None where missing. A summary is returned as it is.
    """
    if isinstance(values, ColumnSummary):
        return values
    series = pd.Series(values)
    if pd.api.types.is_numeric_dtype(series):
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        numbers = numbers[~np.isnan(numbers)]  # a copy, to be sorted in place
        numbers.sort()
        return ColumnSummary(numbers, missing=len(series) - len(numbers))
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes, names = series.cat.codes.to_numpy(), series.cat.categories
    else:
        text = series.map(str, na_action="ignore") if series.dtype == object else series
        codes, names = pd.factorize(text)
    known = codes[codes >= 0]
    rows = np.bincount(known, minlength=len(names)).tolist()
    counts = {str(name): n for name, n in zip(names, rows, strict=True) if n}
    return ColumnSummary(None, counts, len(codes) - len(known))


def psi(reference: Any, current: Any, *, n_bins: int = 10) -> float:
    """Population stability index: the sum over bins of (q - p) ln(q / p) for shares p and q.

    Numbers are cut at the reference's quantiles; a value that fills a quantile by itself gets a bin
    of its own. Categories stand as they are. Missing values are one more bin. To each count
    `SMOOTHING` is added.

    With no drift at all it is about ``(filled bins - 1) * (1 / n + 1 / m)``, see `psi_by_chance`:
    look at the number of rows before you compare it with a limit.

    Args:
        reference: ``(n,)`` numbers, or categories as text; NaN or None where missing.
        current: ``(m,)`` of the same kind.
        n_bins: Quantile bins of numbers.
    """
    return psi_of_counts(*bin_counts(reference, current, n_bins=n_bins))


def psi_of_counts(reference: np.ndarray, current: np.ndarray) -> float:
    """The PSI of two rows of counts; 0 where one of them is empty."""
    if not reference.sum() or not current.sum():
        return 0.0
    p, q = ((counts + SMOOTHING) / (counts + SMOOTHING).sum() for counts in (reference, current))
    return float(((q - p) * np.log(q / p)).sum())


def psi_by_chance(reference: np.ndarray, current: np.ndarray) -> float:
    """The mean PSI of two rows of counts when nothing has drifted: (k - 1) (1 / n + 1 / m).

    The index is, to second order, the chi-square statistic of the two samples times (1 / n + 1 / m)
    (Yurdakul, Statistical Properties of Population Stability Index, 2018), and that statistic's
    mean is k - 1.
    """
    n, m = reference.sum(), current.sum()
    return float((len(reference) - 1) * (1 / n + 1 / m)) if n and m else 0.0


def bin_counts(reference: Any, current: Any, *, n_bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Count two samples in the same bins, as `psi` says; bins that are empty in both are left out.

    Args:
        reference: As for `psi`, or its `ColumnSummary`.
        current: The same.
        n_bins: Quantile bins of numbers.

    Returns:
        Two int64 arrays of ``k`` counts, the missing values first.
    """
    pair = [summarise(values) for values in (reference, current)]
    if (pair[0].values is None) != (pair[1].values is None):
        pair = [_as_text(summary) for summary in pair]
    if pair[0].values is not None:
        rows = _quantile_counts(pair[0], pair[1], n_bins)
    else:
        names = sorted({*pair[0].counts, *pair[1].counts})
        rows = [[part.missing, *(part.counts.get(name, 0) for name in names)] for part in pair]
    counts = np.array(rows, dtype=np.int64)
    counts = counts[:, counts.any(0)]
    return counts[0], counts[1]


def _as_text(summary: ColumnSummary) -> ColumnSummary:
    if summary.values is None:
        return summary
    text = summarise(summary.values.astype(str).astype(object))
    return ColumnSummary(None, text.counts, summary.missing)


def _quantile_counts(
    reference: ColumnSummary, current: ColumnSummary, n_bins: int
) -> list[list[int]]:
    assert reference.values is not None
    x, cuts = reference.values, np.zeros(0)
    if len(x):  # NumPy's own interpolation, without another sort
        at = np.linspace(0, 1, n_bins + 1)[1:-1] * (len(x) - 1)
        low = at.astype(np.int64)
        cuts = x[low] + (at - low) * (x[np.minimum(low + 1, len(x) - 1)] - x[low])
    edges, repeats = np.unique(cuts, return_counts=True)
    repeated = edges[repeats > 1]  # such a value fills a quantile: it gets a bin of its own
    rows = []
    for summary in (reference, current):
        values: Any = summary.values
        ends = values.searchsorted(edges, "right"), values.searchsorted(repeated, "left")
        bounds = np.sort(np.concatenate([[0], *ends, [len(values)]]))
        rows.append([summary.missing, *np.diff(bounds)])
    return rows


def kolmogorov_smirnov(reference: Any, current: Any) -> tuple[float, float]:
    """The largest distance between two empirical distribution functions, and its p-value.

    SciPy's, to 1e-12: exact up to 10,000 rows a sample, asymptotic beyond. With ties the p-value is
    an upper bound. An empty sample gives statistic 0 and p 1.

    Args:
        reference: ``(n,)`` numbers; NaN is left out. In a `ColumnSummary` a missing number stands
            below all others instead.
        current: ``(m,)`` numbers, the same.
    """
    (a, u), (b, v) = _ordered(reference), _ordered(current)
    n, m = len(a) + u, len(b) + v
    if not n or not m:
        return 0.0, 1.0
    statistic = _largest_gap(a, b, u, v)
    rows = n * m / (n + m)
    bound = math.exp(1 - 2 * rows * statistic**2)  # Wei and Dudley, 2012: holds for every n and m
    if max(n, m) <= EXACT_ROWS and bound > 1e-13:
        from scipy.stats import ks_2samp

        first = np.concatenate([np.full(u, -np.inf), a])
        second = np.concatenate([np.full(v, -np.inf), b])
        return statistic, float(ks_2samp(first, second, method="exact").pvalue)
    return statistic, _asymptotic(round(rows), statistic)


def _asymptotic(n: int, distance: float) -> float:
    """The chance that ``n`` values lie further from their own distribution: SciPy's ``kstwo.sf``.

    In the tail it is twice the chance of a larger distance in one direction (Smirnov), a sum over
    j = 0 ... n. SciPy adds it up term by term up to n = 1,000,000, and is content with six digits
    beyond. The terms vanish smoothly at both ends: a coarse grid gives the same sum to 1e-12.
    """
    strength = n * distance * distance
    if n < EXACT_ROWS / 2 or strength < 2.2:
        from scipy.stats import kstwo

        return float(np.clip(kstwo.sf(distance, n), 0.0, 1.0))
    if strength > 370:
        return 0.0  # below the smallest float
    u = np.linspace(0, 1 - distance, 4097)[1:-1]  # j / n
    exponent = u * np.log1p(distance / u) + (1 - u) * np.log1p(-distance / (1 - u))
    stirling = (1 - 1 / u - 1 / (1 - u)) / (12 * n)
    terms = np.exp(n * exponent + stirling) / np.sqrt(2 * np.pi * n * u * (1 - u)) / (u + distance)
    return float(min(2 * distance * n * (u[1] - u[0]) * terms.sum(), 1.0))


def _largest_gap(a: np.ndarray, b: np.ndarray, u: int, v: int) -> float:
    """The supremum of |F - G| of two sorted samples, ``u`` and ``v`` values below all others."""
    n, m, size = len(a) + u, len(b) + v, len(b)
    largest = abs(u / n - v / m)

    def gaps(index: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """How many of ``a`` lie up to and below these points of ``b``, and the largest gap."""
        # F - G is largest just before a step of G, G - F just after one: b's points are enough
        part = b[index]
        right = left = a.searchsorted(part, "right") + u
        if len(a) and (a[right - u - 1] == part).any():
            left = a.searchsorted(part, "left") + u
        after, before = (index + v + 1) / m - right / n, left / n - (index + v) / m
        return right, left, max(largest, float(after.max()), float(before.max()))

    if not size:
        return largest
    ends = np.append(np.arange(0, size - 1, STRIDE), size - 1)
    right, left, largest = gaps(ends)
    # Both functions rise: between two points no gap exceeds one here minus the other there.
    most = np.maximum((ends[1:] + v + 1) / m - right[:-1] / n, left[1:] / n - (ends[:-1] + v) / m)
    near = ends[:-1][most > largest]
    for start in range(0, len(near), CHUNK // STRIDE):
        inner = near[start : start + CHUNK // STRIDE, None] + np.arange(STRIDE)
        largest = gaps(inner[inner < size])[2]
    return largest


def wasserstein(reference: Any, current: Any) -> float:
    """The area between two empirical distribution functions: how far the values moved on average.

    In the values' unit; 0 where one of the samples has no finite value.

    Args:
        reference: ``(n,)`` numbers or their `ColumnSummary`; NaN is left out.
        current: ``(m,)``, the same.
    """
    a, b = (_finite(_ordered(values)[0]) for values in (reference, current))
    n, m = len(a), len(b)
    if not n or not m:
        return 0.0
    if n == m:
        return float(np.abs(a - b).mean())
    # Between the quantile functions, over the shares i / n and j / m, all times n * m: integers.
    at = np.sort(np.concatenate([np.arange(n) * m, np.arange(m) * n]))
    gaps = a[at // m]
    gaps -= b[at // n]
    return float(np.diff(at, append=n * m) @ np.abs(gaps, out=gaps)) / n / m


def _finite(values: np.ndarray) -> np.ndarray:
    ends = values[[0, -1]] if len(values) else values
    return values if np.isfinite(ends).all() else values[np.isfinite(values)]


def _ordered(values: Any) -> tuple[np.ndarray, int]:
    """The sorted numbers, and how many missing ones stand below them."""
    if isinstance(values, ColumnSummary):
        assert values.values is not None
        return values.values, values.missing
    array = np.asarray(values, dtype=np.float64).ravel()
    return np.sort(array[~np.isnan(array)]), 0


def chi_square(reference: Any, current: Any, *, seed: int = 0) -> tuple[float, float]:
    """Pearson's test that two rows of counts come from the same shares: SciPy's, uncorrected.

    Where an expected count is below 5 the chi-square distribution no longer fits. The p-value is
    then the share of `DRAWS` random tables with the same sums whose statistic is no smaller,
    counting the table itself.

    Args:
        reference: ``(k,)`` counts, from `bin_counts`.
        current: ``(k,)`` counts of the same categories.
        seed: Of the random tables.

    Returns:
        Statistic and p-value; 0 and 1 where there is nothing to compare.
    """
    table = np.stack([np.asarray(reference, dtype=np.int64), np.asarray(current, dtype=np.int64)])
    table = table[:, table.any(0)]
    n, m = table.sum(1)
    if table.shape[1] < 2 or not n or not m:
        return 0.0, 1.0
    expected = table.sum(0) * m / (n + m)
    # Both rows miss their expected counts by the same amounts: one row is enough.
    statistic = float(((table[1] - expected) ** 2 / expected).sum() * (n + m) / n)
    if min(expected.min(), expected.min() * n / m) >= SPARSE:
        from scipy.special import chdtrc

        return statistic, float(chdtrc(table.shape[1] - 1, statistic))
    draws = np.random.default_rng(seed).multivariate_hypergeometric(
        table.sum(0), m, size=DRAWS, method="marginals"
    )
    statistics = ((draws - expected) ** 2 / expected).sum(1) * (n + m) / n
    return statistic, float((1 + (statistics >= statistic * (1 - 1e-9)).sum()) / (1 + DRAWS))


def holm(p_values: Any) -> np.ndarray:
    """Correct the p-values of many tests, so that a level holds for *any false alarm among them*.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979. It holds for dependent
    columns, too, and columns are dependent: a price and a loan move as one. Benjamini and
    Hochberg's milder correction bounds the share of false alarms among the named columns; here one
    false alarm wakes people.

    Args:
        p_values: ``(n,)``.

    Returns:
        ``(n,)`` corrected p-values, to be compared with the level itself.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


class Moments(NamedTuple):
    """What a comparison of means needs of a sample."""

    mean: float
    variance: float  # unbiased; NaN of fewer than two rows
    rows: int
    inflation: float = 1.0  # of the mean's variance, by rows that resemble their neighbours
    blocks: int = 0  # that the inflation was estimated from; 0 for independent rows


def moments(values: Any, *, block: int = 1) -> Moments:
    """The moments of a sample.

    Args:
        values: ``(n,)``, in order of time where rows aren't independent.
        block: Rows that belong together. The variance between the means of such blocks tells how
            much more a mean varies than that of independent rows (the design effect: Kish, Survey
            Sampling, 1965). There are at least ten blocks: of few rows they are shorter.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    n = len(array)
    block = max(min(block, n // 10), 1)
    variance = float(array.var(ddof=1)) if n > 1 else math.nan
    mean = float(array.mean()) if n else 0.0
    if block == 1 or variance == 0:
        return Moments(mean, variance, n)
    blocks = n // block
    between = array[: blocks * block].reshape(blocks, block).mean(axis=1).var(ddof=1)
    return Moments(mean, variance, n, max(float(block * between / variance), 1.0), blocks)


def change_in_mean(reference: Any, current: Any, *, block: int = 1) -> Interval:
    """How much higher the mean of ``current`` ``(m,)`` is than that of ``reference`` ``(n,)``.

    The interval is Welch's at 95 %; without two values on either side it is unbounded. Dependent
    rows widen it by the larger of both samples' `Moments.inflation`: a window of a few days can't
    show how weeks differ, the reference can.

    Args:
        reference: Numbers in order of time, or their `Moments`.
        current: The same.
        block: Rows that belong together, as for `moments`.
    """
    a, b = (
        values if isinstance(values, Moments) else moments(values, block=block)
        for values in (reference, current)
    )
    value = b.mean - a.mean if a.rows and b.rows else 0.0
    if min(a.rows, b.rows) < 2:
        return Interval(value, -math.inf, math.inf)
    strongest = max(a, b, key=lambda sample: sample.inflation)
    error = math.sqrt(strongest.inflation * (a.variance / a.rows + b.variance / b.rows))
    quantile = Z95
    if strongest.blocks:  # few blocks, and few rows' worth of evidence: Student's t
        from scipy.special import stdtrit

        effective = min(a.rows, b.rows) / strongest.inflation
        quantile = float(stdtrit(max(min(strongest.blocks, effective) - 1, 1), 0.975))
    margin = quantile * error
    return Interval(value, value - margin, value + margin)
