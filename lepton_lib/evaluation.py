"""Judgement of a model: intervals, calibration, groups, and the gate against the charter.

Knows cases, arrays and metrics; doesn't know models, files of a run or services.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd

from lepton_lib.baselines import baseline_answers
from lepton_lib.calibration import (  # noqa: F401  # a notebook has all of a judgement here
    calibrate,
    conformal_margin,
    covered,
    fit_isotonic,
    fit_temperature,
    shift_prior,
)
from lepton_lib.cases import Case, CategoryColumn, NumberColumn
from lepton_lib.cases.sections import Metric
from lepton_lib.decisions import (  # noqa: F401
    band,
    cost_matrix,
    cost_threshold,
    decide,
)
from lepton_lib.errors import MetricError
from lepton_lib.intervals import (
    Interval,
    auc_difference,
    auc_interval,
    bootstrap_interval,
    paired_difference,
    wilson,
)
from lepton_lib.metrics import AUC, mean_absolute_error, mean_decision_cost

MIN_GROUP_ROWS = 50  # a smaller group's metric moves too much by chance to be judged
MIN_GROUP_CLASS_ROWS = 10  # the same for a class within a group


def case_metric(case: Case) -> tuple[str, Callable[[Any, Any], float]]:
    """Name and function of the metric that a case's models are compared by.

    It is ``auc``, or ``mean_absolute_error`` for regression. The function takes labels ``(n,)`` and
    what ``TabularModel.predict`` returns: ``(n, n_classes)`` or ``(n, 1)``.
    """
    if not case.classes:
        return case.task.metric, mean_absolute_error

    def area(labels: Any, probabilities: Any) -> float:
        auc = AUC()
        auc.add(case.task.scores(np.asarray(probabilities)), labels)
        return auc.average()

    return case.task.metric, area


def metric_interval(
    case: Case,
    labels: Any,
    outputs: Any,
    *,
    seed: int,
    n: int = 1000,
    block: int = 1,
    clusters: Any = None,
) -> Interval:
    """The case's metric (`case_metric`) with its interval at 95 %.

    It is `auc_interval` for the AUC of independent rows, else `bootstrap_interval`, stratified by
    class.

    Args:
        case: The case.
        labels: ``(n,)``.
        outputs: ``(n, n_classes)`` or ``(n, 1)``.
        seed: Of the bootstrap.
        n: Its draws.
        block: Rows that belong together, as for `bootstrap_interval`.
        clusters: The same, by label ``(n,)``; from `clusters_of`.
    """
    labels = np.asarray(labels)
    if case.classes and block == 1:
        return auc_interval(labels, case.task.scores(np.asarray(outputs)), clusters=clusters)
    strata, metric = labels if case.classes else None, case_metric(case)[1]
    options: Any = {"seed": seed, "n": n, "block": block, "clusters": clusters}
    return bootstrap_interval(metric, labels, outputs, stratify=strata, **options)


def clusters_of(case: Case, frame: pd.DataFrame) -> np.ndarray | None:
    """The label ``(n,)`` of each row's group, as ``split.group`` names it; None without one."""
    return None if not case.split.group else pd.factorize(frame[case.split.group])[0]


def baselines(
    case: Case, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """What can be had without a model, or with a very simple one, on the test rows.

    Args:
        case: The case.
        train: Raw inputs ``(n, d)`` and labels ``(n,)``, from `lepton_lib.data.encode`.
        test: The same of the rows that are judged.

    Returns:
        By name: with costs the mean cost of deciding alike for every row, and by a linear model of
        the charter's ``baseline``; else the case's metric of `baseline_answers`.
    """
    answers = baseline_answers(case, train, test[0])
    if case.costs is None:
        metric = case_metric(case)[1]
        return {name: metric(test[1], answer) for name, answer in answers.items()}
    costs, decisions = cost_matrix(case), case.costs.decisions
    pairs = zip(case.classes, costs[test[1]].mean(0), strict=True)
    alike = {f"always {decisions.get(name, name)}": float(mean) for name, mean in pairs}
    del answers["class shares"]
    return alike | {
        name: mean_decision_cost(test[1], decide(answer, costs), costs)
        for name, answer in answers.items()
    }


def baseline_gain(
    case: Case,
    labels: Any,
    outputs: Any,
    answers: Mapping[str, np.ndarray],
    *,
    seed: int,
    block: int = 1,
    clusters: Any = None,
    **options: Any,
) -> Interval:
    """How much better the model is than the best of `baseline_answers`, both on the same rows.

    Measured by the case's metric; above 0 the model is better. The best is picked on these rows,
    which favours the baselines: the burden of proof is the model's.

    Args:
        case: The case.
        labels: ``(n,)``.
        outputs: The model's ``(n, n_classes)`` or ``(n, 1)``.
        answers: From `baseline_answers`, of the same rows.
        seed: Of the bootstrap.
        block: Rows that belong together, as for `bootstrap_interval`.
        clusters: The same, by label ``(n,)``.
        **options: For `bootstrap_interval`.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs)
    sign, metric = (1 if case.classes else -1), case_metric(case)[1]
    best = max(answers.values(), key=lambda answer: sign * metric(labels, answer))
    if case.classes and block == 1:
        scores = case.task.scores(outputs), case.task.scores(best)
        return auc_difference(labels, *scores, clusters=clusters)
    options |= {"seed": seed, "block": block, "clusters": clusters}
    options["stratify"] = labels if case.classes else None
    return paired_difference(lambda y, a: sign * metric(y, a), labels, outputs, best, **options)


def group_labels(frame: pd.DataFrame, column: NumberColumn | CategoryColumn) -> pd.Series:
    """Which group of a category or number column each row belongs to.

    Categorical ``(n,)``, in the case's order, ``"missing"`` last; a number's groups lie between its
    ``cuts``.
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
    clusters: Any = None,
    n: int = 1000,
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
        clusters: The same, by label ``(n,)``; from `clusters_of`.
        n: Draws of the bootstrap.

    Returns:
        One line a group: ``column``, ``group``, ``rows``; ``observed`` and ``stated``: the positive
        class's frequency and mean probability (of several classes: how often the most probable one
        is right, and its mean probability; regression: mean target and prediction); the metric by
        its name, ``low``, ``high`` (NaN where undefined); ``judged``: see `can_be_judged`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if groups is None:
        groups = {column.name: group_labels(frame, column) for column in case.sensitive}
    together = None if clusters is None else np.asarray(clusters)
    observed, stated = case.task.observed_and_stated(labels, probabilities)
    lines: list[tuple[Any, ...]] = []
    for column, values in groups.items():
        for group, rows in values.groupby(values, observed=True).indices.items():
            truth, interval = labels[rows], Interval(math.nan, math.nan, math.nan)
            if _smallest_class(case, truth) > 0:
                share = max(round(block * len(rows) / len(labels)), 1)
                options: Any = {"seed": seed, "n": n, "block": share}
                if together is not None:
                    options["clusters"] = together[rows]
                interval = metric_interval(case, truth, probabilities[rows], **options)
            means = observed[rows].mean(), stated[rows].mean()
            judged = can_be_judged(case, truth)
            lines.append((column, group, len(rows), *means, *interval, judged))
    columns = ["column", "group", "rows", "observed", "stated"]
    header = [*columns, case.task.metric, "low", "high", "judged"]
    return pd.DataFrame(lines, columns=header)


def can_be_judged(case: Case, labels: np.ndarray) -> bool:
    """Whether a group has `MIN_GROUP_ROWS` labels, and `MIN_GROUP_CLASS_ROWS` of each class."""
    enough = not case.classes or _smallest_class(case, labels) >= MIN_GROUP_CLASS_ROWS
    return len(labels) >= MIN_GROUP_ROWS and enough


def _smallest_class(case: Case, labels: np.ndarray) -> int:
    """Rows of the rarest class; of numbers all rows."""
    if not case.classes:
        return len(labels)
    return int(np.bincount(labels, minlength=len(case.classes)).min())


def group_gap(table: pd.DataFrame, overall: float) -> float:
    """How far the worst judged group of a `group_table` lies behind ``overall``.

    0 where no group does, or none can be judged.
    """
    name = next(column for column in ("auc", "mean_absolute_error") if column in table)
    judged = table.loc[table["judged"].astype(bool), name]
    gaps = overall - judged if name == "auc" else judged - overall
    return float(max(gaps.max(), 0.0)) if len(gaps) else 0.0


def group_errors(frame: pd.DataFrame, case: Case, labels: Any, probabilities: Any) -> pd.DataFrame:
    """How often each sensitive group is decided on wrongly, and how true its probabilities are.

    An AUC compares within a group and knows no threshold; these rates are what its members meet
    (Hardt, Price and Srebro, Equality of Opportunity in Supervised Learning, 2016).

    Args:
        frame: The clean frame of the judged rows.
        case: The case, of two classes.
        labels: ``(n,)``, of the same rows.
        probabilities: ``(n, 2)``, of the same rows.

    Returns:
        One line a group: ``column``, ``group``, ``rows``; ``false_alarms``, the share of its
        negatives that `decide` takes for positive, and ``misses``, of its positives for negative,
        each with Wilson's ``_low`` and ``_high`` (NaN without such rows); ``stated_minus_observed``
        mean probability minus frequency of the positive class.
    """
    truth, stated = np.asarray(labels) == 1, np.asarray(probabilities)[:, 1]
    decided = decide(probabilities, cost_matrix(case)) == 1
    lines: list[tuple[Any, ...]] = []
    for column in case.sensitive:
        values = group_labels(frame, column)
        for group, rows in values.groupby(values, observed=True).indices.items():
            alarms, misses = decided[rows][~truth[rows]], ~decided[rows][truth[rows]]
            rates = (wilson(int(wrong.sum()), len(wrong)) for wrong in (alarms, misses))
            gap = stated[rows].mean() - truth[rows].mean()
            lines.append((column.name, group, len(rows), *itertools.chain(*rates), gap))
    ends = [f"{name}{end}" for name in ("false_alarms", "misses") for end in ("", "_low", "_high")]
    header = ["column", "group", "rows", *ends, "stated_minus_observed"]
    return pd.DataFrame(lines, columns=header)


class Judgement(NamedTuple):
    """One criterion of the charter and what came of it."""

    name: str
    value: float
    judged: float  # the interval's worse end, which the bound is held against; else the value
    bound: str
    passed: bool | None  # None: not judged
    why: str


@dataclass(frozen=True)
class Gate:
    """The charter's criteria, each judged. A closed gate is a result, not an error.

    Nothing is judged by a charter that is a draft: measured values stand beside drafted bounds.
    """

    criteria: tuple[Judgement, ...]
    agreed: bool = True

    @property
    def passed(self) -> bool | None:
        """Whether something was judged and all of it holds; None where nobody agreed to a bound."""
        if not self.agreed:
            return None
        return bool(self.criteria) and all(entry.passed for entry in self.criteria)

    def to_frame(self) -> pd.DataFrame:
        """One line a criterion."""
        return pd.DataFrame(list(self.criteria), columns=list(Judgement._fields))

    def to_dict(self) -> dict[str, Any]:
        """What is written as JSON."""
        return {"passed": self.passed, "criteria": [entry._asdict() for entry in self.criteria]}

    def __str__(self) -> str:
        failed = [entry.name for entry in self.criteria if not entry.passed]
        if not self.agreed:
            return "Gate not judged: the charter is a draft that nobody has agreed to"
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
        numbers = {name: frame[name].map("{:.3g}".format) for name in ("value", "judged")}
        return frame.assign(
            **numbers, passed=frame["passed"].map({True: "yes", False: "no", None: "–"})
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
        expected = f"one of {list(get_args(Metric))}"
        raise MetricError("gate", repr(unknown[0]), expected, "Check its spelling.")
    judgements = []
    for name, criterion in case.charter.criteria.items():
        if name not in values:
            continue
        measured = values[name]
        value, low, high = measured if isinstance(measured, tuple) else (measured,) * 3
        if criterion.at_most is None:
            least = criterion.at_least or 0.0
            judged, passed, bound = low, low >= least, f"at_least {least:g}"
        else:
            judged, passed = high, high <= criterion.at_most
            bound = f"at_most {criterion.at_most:g}"
        verdict = bool(passed) if case.charter.agreed else None
        entry = Judgement(name, float(value), float(judged), bound, verdict, criterion.why)
        judgements.append(entry)
    return Gate(tuple(judgements), case.charter.agreed)
