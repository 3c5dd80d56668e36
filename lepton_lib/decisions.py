"""From probabilities to decisions: expected costs, the threshold, and bands. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_lib.cases import Case
from lepton_lib.cases.sections import Bands
from lepton_lib.errors import MetricError


def cost_matrix(case: Case) -> np.ndarray:
    """The case's costs ``(n_classes, n_classes)``: row the truth, column the decision.

    Without [costs] every wrong decision costs 1.
    """
    if case.costs is None:
        return 1 - np.eye(len(case.classes))
    matrix = case.costs.matrix
    return np.array([[matrix[truth][choice] for choice in case.classes] for truth in case.classes])


def decide(probabilities: Any, costs: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """The decision of least expected cost for each row, int64 ``(n,)``; of equal ones the first.

    Elkan, The Foundations of Cost-Sensitive Learning, 2001, eq. 1.

    Args:
        probabilities: ``(n, n_classes)``, calibrated: the expectation is only as true as they are.
        costs: ``costs[truth][decision]``, ``(n_classes, n_decisions)``.
    """
    return np.asarray((np.asarray(probabilities, dtype=np.float64) @ np.asarray(costs)).argmin(1))


def cost_threshold(costs: Sequence[Sequence[float]] | np.ndarray) -> float:
    """The probability of the positive class above which `decide` decides on it, for two classes.

    With the excess cost of a false alarm ``a = costs[0][1] - costs[0][0]`` and of a miss ``b =
    costs[1][0] - costs[1][1]`` it is ``a / (a + b)`` (Elkan, 2001, eq. 2).

    Raises:
        MetricError: Not two classes, or a wrong decision isn't dearer than a right one.
    """
    matrix = np.asarray(costs, dtype=np.float64)
    if matrix.shape != (2, 2) or matrix[0, 1] <= matrix[0, 0] or matrix[1, 0] <= matrix[1, 1]:
        raise MetricError(
            "cost_threshold",
            f"costs {matrix.tolist()}",
            "two rows of two, a wrong decision dearer than a right one",
            "Use decide() for more classes; check [costs] in case.toml for two.",
        )
    alarm, miss = matrix[0, 1] - matrix[0, 0], matrix[1, 0] - matrix[1, 1]
    return float(alarm / (alarm + miss))


def band(probabilities: Any, bands: Bands) -> np.ndarray:
    """The band of each positive class's probability ``(n,)``; a limit opens the band above it."""
    places = np.searchsorted(bands.limits, np.asarray(probabilities), side="right")
    return np.array(bands.names)[places]
