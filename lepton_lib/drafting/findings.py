"""What a table's target is, which columns give it away, and which bounds its rows make sensible."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from lepton_lib.cases.sections import Target, TargetClass
from lepton_lib.data.tables import MIN_ROWS_PER_CLASS
from lepton_lib.drafting import profiling
from lepton_lib.errors import DataError
from lepton_lib.metrics import area_under_curve

MAX_CLASSES = 20  # more distinct whole numbers than that are a quantity, not classes
MANY_WORDS = 100  # so few whole numbers of a quantity could be classes all the same: a note says so
RARE = 0.1  # a class with a smaller share is noted, and a miss of it is drafted to cost more
FEW_ROWS = 50  # of a class in the test part: fewer say little
WILD = 20  # median deviations from the median: what lies further out is noted
GIVEN_AWAY = 0.98  # of the doubt about the target that one column alone takes away: it is noted
COPY = "a copy of the target"
_AGREE = "a placeholder: to be agreed before any work"


class Truth(NamedTuple):
    """The target as drafted: its task, [target], and the label of each row that has one."""

    task: str
    section: dict[str, Any]
    labels: pd.Series  # class names, or numbers
    notes: list[str]


def keys(section: Any) -> dict[str, Any]:
    """What a section says beyond its defaults."""
    said: dict[str, Any] = section.model_dump(exclude_defaults=True)
    return said


def describe_target(values: pd.Series, where: str, task: str | None, *, comma: bool) -> Truth:
    """Find out what the target's cells ``(n,)`` are; ``task`` overrules the guess.

    Raises:
        DataError: One value only, too many words, or not what ``task`` says.
    """
    truth = _describe_target(values, where, task, comma=comma)
    if task not in (None, truth.task):
        n = len(truth.section.get("classes", ()))
        got = f"{n} classes" if n else "numbers"
        raise DataError(where, got, f"a {task} task's", f"Leave out --task: it is {truth.task}.")
    return truth


def _describe_target(values: pd.Series, where: str, task: str | None, *, comma: bool) -> Truth:
    base: dict[str, Any] = {"column": str(values.name), "meaning": "to be described"}
    words = values[~profiling.is_missing(values)].drop_duplicates()
    strict = words[~profiling.is_missing(words, numbers=True)]
    form = profiling.find_number_format(strict, comma=comma)
    if form is None:
        if task == "regression":
            got, remedy = f"words such as {words.iloc[0]!r}", "Leave out --task."
            raise DataError(where, got, "numbers", remedy)
        return _describe_classes(values, base, where, task, [])
    numbers = form.read_numbers(values).dropna()
    counts = numbers.value_counts()
    whole, n = bool((numbers % 1 == 0).all()), f"target: {len(counts)} whole numbers are taken for"
    few = whole and len(counts) <= MAX_CLASSES and counts.min() >= MIN_ROWS_PER_CLASS
    if task in ("binary", "multiclass") or (task is None and (few or len(counts) <= 2)):
        note = f"{n} classes; if they are a quantity, draft again with --task regression"
        remarks = [note] * (task is None and len(counts) > 2)
        return _describe_classes(values, base, where, task, remarks)
    note = f"{n} a quantity; if they name classes, draft again with --task multiclass"
    notes = [note] * (task is None and whole and len(counts) <= MANY_WORDS)
    lost = sorted(set(values.drop(numbers.index)) - {""})
    if lost:
        notes.append(f"target: rows with {lost[:5]} hold no number and are left out")
    section = keys(Target(**base, missing=tuple(lost), **form.model_dump()))
    return Truth("regression", section, numbers, notes)


def _describe_classes(
    values: pd.Series, base: dict[str, Any], where: str, task: str | None, notes: list[str]
) -> Truth:
    """The same of classes: numbers rising, words by falling frequency; spellings are joined."""
    missing = profiling.is_missing(values)
    groups = profiling.group_spellings(values[~missing].value_counts().index)
    labels = values[~missing].map({word: words[0] for words in groups.values() for word in words})
    counts = labels.value_counts()
    if len(counts) < 2:
        got = f"one class only, {counts.index[0]!r}" if len(counts) else "no values"
        remedy = "Predict another column, or collect rows of other classes."
        raise DataError(where, got, "at least two", remedy)
    if len(counts) > MAX_CLASSES and task is None:
        expected = f"numbers, or at most {MAX_CLASSES} classes"
        remedy = "Predict another column, or merge its values into classes first."
        raise DataError(where, f"{len(counts)} different words", expected, remedy)
    if counts.min() < MIN_ROWS_PER_CLASS:
        got, expected = f"{counts.min()} rows of {counts.idxmin()!r}", "at least 10 of each class"
        raise DataError(where, got, expected, "Collect more, or merge classes in the table.")
    numeric = pd.to_numeric(pd.Series(list(groups)), errors="coerce").notna().all()
    order = {k: (float(k) if numeric else -int(counts[w[0]]), w[0]) for k, w in groups.items()}
    classes = [
        keys(TargetClass(name=groups[k][0], values=tuple(groups[k])))
        for k in sorted(groups, key=order.__getitem__)
    ]
    marks = tuple(sorted(set(values[missing]) - {""}))
    section = keys(Target(**base, missing=marks)) | {"classes": classes}
    return Truth("binary" if len(classes) == 2 else "multiclass", section, labels, notes)


def find_leak(cells: pd.Series, column: Any, truth: Truth) -> str:
    """Whether a column is the target in other words, or nearly gives it away; empty if not."""
    if column.role == "ignored" or column.kind == "timestamp":
        return ""
    values = column.parse(cells.mask(cells.isin(["", *column.missing]))).dropna()
    labels = truth.labels.reindex(values.index).dropna()
    values = values.loc[labels.index]
    if len(values) < MIN_ROWS_PER_CLASS or values.nunique() < 2 or labels.nunique() < 2:
        return ""
    if truth.task == "regression":
        if column.kind != "number":
            return ""
        if abs(values.corr(labels)) > 1 - 1e-9:
            return COPY
        likeness = abs(values.corr(labels, method="spearman"))
        return "orders the rows as the target does" if likeness > 0.5 + GIVEN_AWAY / 2 else ""
    if values.nunique() > MAX_CLASSES and column.kind == "number":
        if truth.task != "binary":
            return ""
        auc = area_under_curve(labels == labels.iloc[0], values)
        return "alone parts the classes" if abs(2 * auc - 1) > GIVEN_AWAY else ""
    table = pd.crosstab(values.astype(object), labels).to_numpy()
    errors, doubt = len(labels) - table.max(axis=1).sum(), len(labels) - table.sum(axis=0).max()
    if errors > (1 - GIVEN_AWAY) * doubt or len(table) > len(labels) / 10:
        return ""
    return COPY if errors == 0 and len(table) == table.shape[1] else "alone gives the target away"


def draft_charter(
    truth: Truth, notes: list[str]
) -> tuple[dict[str, Any], dict[str, dict[str, float]], str]:
    """Criteria, costs (none of a quantity) and a rule to consider; adds to ``notes``."""
    labels, bounds, costs, rule = truth.labels, [], {}, ""
    if len(labels) < 10 * FEW_ROWS:
        notes.append(f"{len(labels)} labelled rows: every figure will be uncertain")
    if truth.task == "regression":
        distance = (labels - labels.median()).abs()
        reach = WILD * (float(distance.median()) or float(distance.mean()))
        wild = distance > reach
        if 0 < wild.mean() < 0.05:
            low, high = labels.median() - reach, labels.median() + reach
            rule = f"target < {low:.6g} or target > {high:.6g}"
            seen = ", ".join(f"{value:.6g}" for value in labels[wild].unique()[:3])
            notes.append(f"{wild.sum()} target values lie far out ({seen}): drop them if wrong")
        why = "the median alone has this error, values far out left aside"
        bounds.append(("mean_absolute_error", "at_most", distance[~wild].mean(), why))
    else:
        shares = labels.value_counts(normalize=True)
        rare, tested = str(shares.idxmin()), 0.2 * shares.min() * len(labels)
        factor = round(shares.max() / shares.min()) if shares.min() < RARE else 1
        if tested < FEW_ROWS:
            notes.append(f"class {rare!r}: about {tested:.0f} rows in the test part say little")
        if factor > 1:
            text = (
                f"class {rare!r} is rare ({shares.min():.1%}): a miss is drafted to cost {factor}"
            )
            notes.append(f"{text}, for at equal costs never deciding on it looks good")
        names = [entry["name"] for entry in truth.section["classes"]]
        for name in names:
            price = float(factor if name == rare else 1)
            costs[name] = {other: price * (other != name) for other in names}
        constant = min(sum(shares[t] * costs[t][choice] for t in names) for choice in names)
        bounds.append(("auc", "at_least", 0.6, "chance is 0.5"))
        bounds.append(("calibration_error", "at_most", 0.2, "no more than a start"))
        bounds.append(("cost", "at_most", constant, "deciding the same for every row costs this"))
    bounds.append(("latency_ms", "at_most", 100.0, "a tenth of a second"))
    bounds.append(("drift_psi", "at_most", 0.3, "customary"))
    criteria = {
        name: {bound: float(f"{value:.4g}"), "why": f"{_AGREE}; {why}"}
        for name, bound, value, why in bounds
    }
    return criteria, costs, rule
