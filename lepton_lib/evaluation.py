"""Judgement of a model: intervals, calibration, decisions, groups, and the gate against the charter.

Knows cases, arrays and metrics; doesn't know models, files of a run or services.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd

from lepton_lib.cases import Case, CategoryColumn, NumberColumn
from lepton_lib.cases.sections import Bands, Metric
from lepton_lib.errors import MetricError
from lepton_lib.metrics import AUC, mean_absolute_error

MIN_GROUP_ROWS = 50  # a smaller group's metric moves too much by chance to be judged
MIN_GROUP_CLASS_ROWS = 10  # the same for a class within a group


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
) -> Interval:
    """Percentile bootstrap (Efron, Bootstrap Methods, 1979): the metric on rows drawn again with replacement.

    Args:
        metric: Function of ``arrays``.
        *arrays: Arrays of one length ``(rows, ...)``; the same rows are drawn from all of them.
        n: Number of draws.
        level: Share of the draws that lies between the ends.
        seed: Of the draws.
        stratify: ``(rows,)`` labels: each label keeps its count, so that no draw lacks a class.
        block: Rows that are drawn together. More than one where neighbouring rows resemble each
            other, as in time: drawn alone they would seem to be more evidence than they are
            (Künsch, The Jackknife and the Bootstrap for General Stationary Observations, 1989; here
            the stretches go round at the end, and hold at most a tenth of a label's rows, for draws
            of few stretches are too alike).

    Raises:
        MetricError: There is no row, the lengths differ, or a setting is out of range.
    """
    columns = [np.asarray(array) for array in arrays]
    lengths = sorted(
        {len(column) for column in columns} | ({len(stratify)} if stratify is not None else set())
    )
    if len(lengths) != 1 or lengths[0] == 0 or n < 1 or not 0 < level < 1 or block < 1:
        raise MetricError(
            "bootstrap_interval",
            f"arrays of length {lengths}, n={n}, level={level}, block={block}",
            "arrays of one length, n and block of at least 1, a level between 0 and 1",
            "Take all arrays from the same rows.",
        )
    generator = np.random.default_rng(seed)
    labels = np.zeros(lengths[0]) if stratify is None else np.asarray(stratify)
    strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    draws = np.empty(n)
    for i in range(n):
        rows = np.concatenate([_draw(stratum, block, generator) for stratum in strata])
        draws[i] = metric(*(column[rows] for column in columns))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(metric(*columns)), float(low), float(high))


def _draw(rows: np.ndarray, block: int, generator: np.random.Generator) -> np.ndarray:
    # draws of few stretches, or of one that is all rows, are too alike
    block = max(min(block, len(rows) // 10), 1)
    starts = generator.integers(len(rows), size=-(-len(rows) // block))
    picked = (
        starts
        if block == 1
        else (starts[:, None] + np.arange(block)).ravel()[: len(rows)] % len(rows)
    )
    return rows[picked]


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
        **options: For `bootstrap_interval`: ``n``, ``level``, ``stratify``, ``block``.
    """
    return bootstrap_interval(
        lambda labels, a, b: metric(labels, a) - metric(labels, b),
        labels,
        a,
        b,
        seed=seed,
        **options,
    )


def case_metric(case: Case) -> tuple[str, Callable[[Any, Any], float]]:
    """The metric that a case's models are compared by, and its name: ``auc``, or ``mean_absolute_error``.

    The function takes labels ``(n,)`` and what ``TabularModel.predict`` returns ``(n, n_classes)``
    or ``(n, 1)``.
    """
    if case.task == "regression":
        return "mean_absolute_error", mean_absolute_error

    def area(labels: Any, probabilities: Any) -> float:
        auc = AUC()
        auc.add(np.asarray(probabilities)[:, 1] if case.task == "binary" else probabilities, labels)
        return auc.average()

    return "auc", area


def baselines(
    case: Case, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """What can be had without a model, on the test rows: a model that doesn't beat it isn't worth its keep.

    Args:
        case: The case.
        train: Raw inputs ``(n, d)`` and labels ``(n,)``, from `lepton_lib.data.encode`; constants
            come from them alone.
        test: The same of the rows that are judged.

    Returns:
        With costs the mean cost of deciding alike for everybody, by decision; for regression the
        mean absolute error of the training median, and of the training means by hour and weekday
        where the case has them.
    """
    if case.costs is not None:
        costs, names = (
            cost_matrix(case),
            [case.costs.decisions.get(name, name) for name in case.classes],
        )
        return {
            f"always {name}": float(costs[test[1], index].mean())
            for index, name in enumerate(names)
        }
    if case.task != "regression":
        return {}
    result = {
        "training median": mean_absolute_error(test[1], np.full(len(test[1]), np.median(train[1])))
    }
    clock = [i for i, field in enumerate(case.fields) if field.name.endswith((".hour", ".weekday"))]
    if clock:
        means = (
            pd.DataFrame(train[0][:, clock])
            .assign(mean=train[1])
            .groupby(list(range(len(clock))))["mean"]
            .mean()
        )
        found = pd.DataFrame(test[0][:, clock]).merge(means.reset_index(), how="left")["mean"]
        result["means by hour and weekday"] = mean_absolute_error(
            test[1], found.fillna(train[1].mean()).to_numpy()
        )
    return result


def fit_temperature(logits: Any, labels: Any) -> float:
    """The temperature that makes the probabilities truest: the least log loss of ``logits / temperature``.

    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017, eq. 9. Above 1
    the model was too sure of itself, below 1 too timid. It never changes an order, nor the AUC of
    two classes.

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
        raise MetricError(
            "fit_temperature",
            f"{len(scores)} logits, {len(truth)} labels",
            "finite logits, one label each, at least one",
            "Pass the model's logits and the labels of the validation rows.",
        )
    chosen = scores[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        return float((logsumexp(scores * inverse, axis=1) - chosen * inverse).mean())

    limit = math.log(20)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def cost_matrix(case: Case) -> np.ndarray:
    """The case's costs as an array ``(n_classes, n_classes)``: the row is the truth, the column the decision."""
    assert case.costs is not None
    return np.array(
        [
            [case.costs.matrix[truth][decision] for decision in case.classes]
            for truth in case.classes
        ]
    )


def decide(probabilities: Any, costs: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """The decision with the least expected cost for each row, int64 ``(n,)``; of equal ones the first.

    Elkan, The Foundations of Cost-Sensitive Learning, 2001, eq. 1.

    Args:
        probabilities: ``(n, n_classes)``, calibrated: the expectation is only as true as they are.
        costs: ``costs[truth][decision]``, ``(n_classes, n_decisions)``.
    """
    return np.asarray((np.asarray(probabilities) @ np.asarray(costs)).argmin(1))


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
    """The name of the band of each probability of the positive class ``(n,)``; a limit belongs to the band above it."""
    return np.array(bands.names)[
        np.searchsorted(bands.limits, np.asarray(probabilities), side="right")
    ]


def group_labels(frame: pd.DataFrame, column: NumberColumn | CategoryColumn) -> pd.Series:
    """Which group of a category or number column each row belongs to; a number's groups lie between its ``cuts``.

    Categorical ``(n,)``, in the case's order, ``"missing"`` last.
    """
    return column.groups(frame[column.name])


def group_table(
    frame: pd.DataFrame,
    case: Case,
    labels: Any,
    probabilities: Any,
    *,
    seed: int,
    groups: Mapping[str, pd.Series] | None = None,
    block: int = 1,
    **options: Any,
) -> pd.DataFrame:
    """The case's metric in every group, with its interval.

    Args:
        frame: The clean frame of the judged rows.
        case: The case; its sensitive columns make the groups.
        labels: ``(n,)``, of the same rows.
        probabilities: ``(n, n_classes)`` or predictions ``(n, 1)``, of the same rows.
        seed: Of the bootstrap.
        groups: Other groups than the sensitive columns': name to a label for each row.
        block: Rows of ``frame`` that belong together, as for `bootstrap_interval`; of a group the
            same share of it.
        **options: For `bootstrap_interval`: ``n``, ``level``.

    Returns:
        One line a group: ``column``, ``group``, ``rows``; ``observed`` and ``stated``: the positive
        class's frequency and mean probability (of several classes: how often the most probable one
        is right, and its mean probability; regression: mean target and prediction); the metric by
        its name, ``low``, ``high`` (NaN where undefined); ``judged``: false where the group is too
        small to say anything (`MIN_GROUP_ROWS`, `MIN_GROUP_CLASS_ROWS`).
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    name, metric = case_metric(case)
    if groups is None:
        groups = {column.name: group_labels(frame, column) for column in case.sensitive}
    observed, stated = _observed_and_stated(case, labels, probabilities)
    lines: list[tuple[Any, ...]] = []
    for column, values in groups.items():
        for group, rows in values.groupby(values, observed=True).indices.items():
            counts = (
                np.bincount(labels[rows], minlength=len(case.classes))
                if case.classes
                else np.array([len(rows)])
            )
            interval = Interval(math.nan, math.nan, math.nan)
            if counts.min() > 0:
                strata = labels[rows] if case.classes else None
                share = max(round(block * len(rows) / len(labels)), 1)
                chosen = labels[rows], probabilities[rows]
                interval = bootstrap_interval(
                    metric, *chosen, seed=seed, stratify=strata, block=share, **options
                )
            judged = len(rows) >= MIN_GROUP_ROWS and (
                not case.classes or counts.min() >= MIN_GROUP_CLASS_ROWS
            )
            lines.append(
                (
                    column,
                    group,
                    len(rows),
                    observed[rows].mean(),
                    stated[rows].mean(),
                    *interval,
                    judged,
                )
            )
    header = ["column", "group", "rows", "observed", "stated", name, "low", "high", "judged"]
    return pd.DataFrame(lines, columns=header)


def _observed_and_stated(
    case: Case, labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if case.task == "regression":
        return labels, probabilities[:, 0]
    if case.task == "binary":
        return labels, probabilities[:, 1]
    return probabilities.argmax(1) == labels, probabilities.max(1)


def group_gap(table: pd.DataFrame, overall: float) -> float:
    """How far the worst judged group of a `group_table` lies behind ``overall``; 0 where none does or is judged."""
    name = next(column for column in ("auc", "mean_absolute_error") if column in table)
    judged = table.loc[table["judged"].astype(bool), name]
    gaps = overall - judged if name == "auc" else judged - overall
    return float(max(gaps.max(), 0.0)) if len(gaps) else 0.0


class Judgement(NamedTuple):
    """One criterion of the charter and what came of it."""

    name: str
    value: float
    # the end of the interval that the bound is held against, or the value where there is none
    judged: float
    bound: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Gate:
    """What the charter says to what was measured. A gate that doesn't open is a result, not an error."""

    criteria: tuple[Judgement, ...]

    @property
    def passed(self) -> bool:
        """Whether something was judged and all of it holds."""
        return bool(self.criteria) and all(entry.passed for entry in self.criteria)

    def to_frame(self) -> pd.DataFrame:
        """One line a criterion."""
        return pd.DataFrame(list(self.criteria), columns=list(Judgement._fields))

    def to_dict(self) -> dict[str, Any]:
        """What is written as JSON."""
        return {"passed": self.passed, "criteria": [entry._asdict() for entry in self.criteria]}

    def __str__(self) -> str:
        failed = [entry.name for entry in self.criteria if not entry.passed]
        if not self.criteria:
            return "Gate closed: nothing was judged"
        return f"Gate closed: {', '.join(failed)}" if failed else "Gate open: every criterion holds"

    def __repr__(self) -> str:
        return f"{self}\n{self._rounded().to_string(index=False, max_colwidth=None)}"

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return f"<p><strong>{self}</strong></p>{self._rounded().to_html(index=False)}"

    def _rounded(self) -> pd.DataFrame:
        frame = self.to_frame()
        numbers = {name: [f"{value:.3g}" for value in frame[name]] for name in ("value", "judged")}
        return frame.assign(
            **numbers, passed=["yes" if passed else "no" for passed in frame["passed"]]
        )


def gate(case: Case, values: Mapping[str, float | tuple[float, float, float]]) -> Gate:
    """Hold what was measured against the case's charter.

    Where a value comes with an interval, the bound is held against its worse end: the lower one for
    ``at_least``, the upper one for ``at_most``. A value that isn't a number fails.

    Args:
        case: The case.
        values: Metric's name, as in the charter, to its value, or to ``(value, low, high)``. Only
            criteria that have a value here are judged; values without a criterion are left aside.

    Raises:
        MetricError: A name that no charter can hold.
    """
    if unknown := [name for name in values if name not in get_args(Metric)]:
        raise MetricError(
            "gate", repr(unknown[0]), f"one of {list(get_args(Metric))}", "Check its spelling."
        )
    judgements = []
    for name, criterion in case.charter.criteria.items():
        if name not in values:
            continue
        given = values[name]
        value, low, high = given if isinstance(given, tuple) else (given, given, given)
        if criterion.at_most is None:
            judged, passed, bound = (
                low,
                low >= (criterion.at_least or 0.0),
                f"at_least {criterion.at_least:g}",
            )
        else:
            judged, passed, bound = (
                high,
                high <= criterion.at_most,
                f"at_most {criterion.at_most:g}",
            )
        judgements.append(
            Judgement(name, float(value), float(judged), bound, bool(passed), criterion.why)
        )
    return Gate(tuple(judgements))
