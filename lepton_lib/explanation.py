"""Reasons: how much each input moved a prediction away from the average one.

Shapley values of the prediction itself by sampling permutations, after Štrumbelj & Kononenko,
Explaining prediction models and individual predictions with feature contributions, Knowledge and
Information Systems 41, 2014 (algorithm 1), with antithetic pairs: each permutation is also walked
backwards (Mitchell et al., JMLR 23, 2022). Knows functions of arrays, no models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_CHUNK = 8192  # rows that the model is asked about at once


class Reasons(NamedTuple):
    """What moved each prediction: ``base + contributions.sum(1) == values``, to rounding."""

    base: float  # the average prediction over the background
    contributions: np.ndarray  # float64 (n, n_groups)
    values: np.ndarray  # float64 (n,), the predictions
    # float64 (n, n_groups), standard errors of the contributions given the background; NaN with one
    # round, where chance can't be told from what the background rows differ by
    errors: np.ndarray


def shapley_values(
    predict: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    background: np.ndarray,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    rounds: int = 1,
    seed: int = 0,
) -> Reasons:
    """Shapley values of ``predict`` at ``rows``, against the average over ``background``.

    Each walk starts at a background row and takes the explained row's values over, group by group;
    a group's contribution is what its step changed, so that a walk's steps add up to what lies
    between both ends. Every background row starts equally many walks: the contributions and the
    base add up exactly, whatever the sample.

    Args:
        predict: Of raw rows ``(m, d)``, NaN for what is missing, the numbers to explain ``(m,)``.
        rows: What to explain, ``(n, d)``.
        background: What "nothing known" means, ``(b, d)``.
        groups: Column indices that move together, such as the parts of one moment; each column
            alone by default.
        rounds: Pairs of walks from each background row; two at least give standard errors.
        seed: Draws the permutations; the same ones for every row.

    Returns:
        The base, contributions ``(n, n_groups)``, predictions and standard errors.
    """
    parts = [
        np.asarray(group) for group in (groups or [[column] for column in range(rows.shape[1])])
    ]
    owner = np.empty(rows.shape[1], dtype=np.int64)
    for index, part in enumerate(parts):
        owner[part] = index
    random = np.random.default_rng(seed)
    # a group's turn in each walk
    ranks = np.argsort(random.random((rounds * len(background), len(parts))), axis=1)
    # (pairs, 2, n_groups): forwards and backwards
    ranks = np.stack([ranks, len(parts) - 1 - ranks], axis=1)
    starts = np.tile(background, (rounds, 1))
    # taken[pair, way, step, column]: has the walk taken the column over after that many steps?
    taken = ranks[:, :, None, owner] < np.arange(len(parts) + 1)[:, None]
    contributions, errors = np.zeros((2, len(rows), len(parts)))
    values, base = np.empty(len(rows)), 0.0
    for index, row in enumerate(rows):
        path = np.where(taken, row, starts[:, None, None, :]).reshape(-1, rows.shape[1])
        asked = [predict(path[start : start + _CHUNK]) for start in range(0, len(path), _CHUNK)]
        along = np.concatenate(asked).astype(np.float64).reshape(taken.shape[:3])
        # (pairs, n_groups)
        pairs = np.take_along_axis(np.diff(along, axis=2), ranks, axis=2).mean(axis=1)
        contributions[index] = pairs.mean(axis=0)
        errors[index] = _standard_error(pairs.reshape(rounds, len(background), -1))
        values[index], base = along[0, 0, -1], along[:, :, 0].mean()
    return Reasons(float(base), contributions, values, errors)


def _standard_error(pairs: np.ndarray) -> np.ndarray:
    """Of the mean of ``(rounds, b, n_groups)``, by the variance between the rounds of each row."""
    rounds, b, n_groups = pairs.shape
    if rounds == 1:
        return np.full(n_groups, np.nan)
    error: np.ndarray = np.sqrt(pairs.var(axis=0, ddof=1).mean(axis=0) / (rounds * b))
    return error
