"""What the last window and those before it say, as one page without scripts and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lepton_lib.artefacts import Run
from lepton_lib.cases import Case
from lepton_lib.monitoring import Reference, Summary
from lepton_lib.monitoring.drift import ColumnDrift
from lepton_lib.operations import records
from lepton_lib.operations.journal import Journal
from lepton_lib.operations.records import Act, Distribution, Light, Report, Span, Window
from lepton_lib.runs.summary import METRIC_NAMES, metric_name, number
from lepton_lib.utils import render, write_atomic

BINS = 20  # of a number's histogram
SHOWN = 24  # histograms, those that moved most; and windows in a time line
_NEXT = {
    "nothing": "Nothing is to be done; the next window is judged when its rows have come.",
    "watch": "Wait for the next window, and see to what the reasons name.",
    "retrain": "A challenger is to be trained: lepton monitor RUN --act does it, under the same gate.",
    "roll back": "The predecessor is to answer again: lepton monitor RUN --act does it.",
}
_STAGES = {
    "decided": "the next step of --act gathers the labelled rows",
    "gathered": "the enlarged case is ready to be trained on",
    "trained": "the challenger is ready to be compared",
    "shadow": "the challenger answers the next window unseen, beside the champion",
    "promoting": "the challenger is about to take over",
    "promoted": "the challenger took over",
    "kept": "the champion stays",
    "rolled back": "the predecessor answers again",
}


class TimeLine(NamedTuple):
    """A chart over the windows: points with their intervals, estimates before labels, a limit."""

    title: str
    windows: Sequence[int]
    points: Sequence[Span | None]
    estimates: Sequence[Span | None]
    limit: float | None

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value that is drawn, never equal."""
        spans = [span for span in (*self.points, *self.estimates) if span]
        values = [value for span in spans for value in span if value is not None]
        values += [self.limit] if self.limit else []
        low, high = min(values), max(values)
        return low, high if high > low else low + 1.0

    def y(self, value: float) -> float:
        """The height of a value in the drawing, which spans 20 (the greatest) to 120 (the least)."""
        low, high = self.range
        return float(round(120 - 100 * (value - low) / (high - low), 1))


def distributions(reference: Reference, current: Reference) -> list[Distribution]:
    """Every column's shares among reference and current rows, in the same few bins."""
    shared = [name for name in reference.names if name in current.names]
    return [_shares(name, reference.summary(name), current.summary(name)) for name in shared]


def _shares(name: str, reference: Summary, current: Summary) -> Distribution:
    pair = (reference, current)
    kind = "category" if reference.values is None else "number"
    bins, counts = (_count_categories if kind == "category" else _count_numbers)(*pair)
    sizes = [max(summary.rows, 1) for summary in pair]
    then, now = ([round(n / size, 4) for n in row] for row, size in zip(counts, sizes, strict=True))
    missing = [round(each.missing / n, 4) for each, n in zip(pair, sizes, strict=True)]
    return Distribution(name, kind, bins, then, now, (missing[0], missing[1]))


def _count_categories(*pair: Summary) -> tuple[list[float | str], list[list[int]]]:
    """The categories, the most frequent ones of the reference first, and rows of each."""
    first = pair[0].counts
    names = sorted({name for each in pair for name in each.counts}, key=lambda n: -first.get(n, 0))
    counts = [[each.counts.get(name, 0) for name in names] for each in pair]
    if len(names) <= BINS:
        return [*names], counts
    rest = BINS - 1
    return [*names[:rest], "others"], [[*row[:rest], sum(row[rest:])] for row in counts]


def _count_numbers(*pair: Summary) -> tuple[list[float | str], list[list[int]]]:
    """The ends of equal bins over 99 % of the reference, and rows in each, outliers in the outer ones."""
    values = [np.zeros(0) if each.values is None else each.values for each in pair]
    own = values[0] if len(values[0]) else np.zeros(1)
    low, high = own[int(0.005 * (len(own) - 1))], own[math.ceil(0.995 * (len(own) - 1))]
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = [np.diff([0, *row.searchsorted(edges[1:-1]), len(row)]).tolist() for row in values]
    return [float(edges[0]), float(edges[-1])], counts


def lights(window: Window, case: Case) -> list[Light]:
    """A light for each signal of a window."""
    signals = window.signals
    answers = [name for name in signals.drifted if name.startswith("p_") or name == "prediction"]
    inputs = [name for name in signals.drifted if name not in answers]
    broken, versus = ", ".join(signals.broken), signals.versus_previous
    shown = [
        Light("Data", "act", f"Broken at the source: {broken}.")
        if broken
        else Light("Data", "good", "Every column keeps its rules."),
        _drift_light("Inputs", inputs, "No column has drifted."),
        _drift_light("Answers", answers, "They are spread as on rows that the model hadn't seen."),
        _performance_light(window, case),
    ]
    if versus is not None:
        light, certainly = _certainly(versus)
        text = f"{certainly} worse than the one before ({interval(versus)})"
        shown.append(Light("Predecessor", light, f"The model at work is {text}."))
    return shown + ([_groups_light(window)] if case.sensitive else [])


def _certainly(excess: Span) -> tuple[str, str]:
    """The light and the word for a loss that is certainly higher, or isn't."""
    if excess[1] is not None and excess[1] > 0:
        return "act", "certainly"
    return "good", "not certainly"


def _drift_light(signal: str, drifted: list[str], calm: str) -> Light:
    if drifted:
        return Light(signal, "watch", f"Drift in {', '.join(drifted)}.")
    return Light(signal, "good", calm)


def _performance_light(window: Window, case: Case) -> Light:
    if (change := window.signals.loss_change) is None:
        few = f"Fewer than {case.policy.min_labels} new labels: no loss to judge. Ask for labels."
        return Light("Performance", "none", few)
    light, certainly = _certainly(change)
    text = f"the loss is {certainly} higher than on the reference rows ({interval(change)})"
    return Light("Performance", light, f"{window.labels} labels: {text}.")


def _groups_light(window: Window) -> Light:
    judged = [group for group in window.groups if group.judged]
    behind = [f"{each.column} {each.group}" for each in judged if (each.gap_low or 0) > 0]
    if behind:
        return Light("Groups", "watch", f"Certainly served worse than all: {', '.join(behind)}.")
    if judged:
        return Light("Groups", "good", "No group is certainly served worse than all.")
    return Light("Groups", "none", "Too few labelled rows in any group.")


def write_report(run: Run, case: Case, journal: Journal, *, waiting: int) -> str:
    """Write ``monitoring/report.html`` and ``monitoring/report.json``; returns what to do next."""
    windows, acts = journal.windows(), journal.acts()
    last = windows[-1] if windows else None
    report = Report(
        case=case.name,
        next=_next_step(last, acts, f"{waiting} of {case.policy.min_rows} rows"),
        waiting=waiting,
        lights=lights(last, case) if last else [],
        latest=last,
        windows=[{name: getattr(each, name) for name in records.HISTORY} for each in windows],
        acts=acts,
    )
    page = render(
        "operations/templates/report.html",
        title=f"Monitoring {case.name}",
        case=case,
        report=report,
        columns=_moved_most_first(last) if last else [],
        shown=SHOWN,
        charts=_time_lines(case, windows[-SHOWN:]),
        stages=_STAGES,
        interval=interval,
        metric_name=metric_name,
        number=number,
    )
    folder = run.folder / "monitoring"
    write_atomic(folder / "report.json", records.dump(report))
    write_atomic(folder / "report.html", page)
    return report.next


def _next_step(last: Window | None, acts: Sequence[Act], waiting: str) -> str:
    if last is None:
        return f"{waiting} have come for the first window."
    for act in reversed(acts):
        if not act.over:
            decided = f"{act.action.capitalize()}, decided in window {act.window}"
            return f"{decided}, is under way: {_STAGES[act.stage]}."
    return _NEXT[last.decision.action]


def _moved_most_first(window: Window) -> list[tuple[Distribution, ColumnDrift | None]]:
    """A window's distributions with their drift; none where the model's answers weren't compared."""
    drift = {entry.column: entry for entry in window.drift.columns}
    pairs = [(entry, drift.get(entry.column)) for entry in window.distributions]
    return sorted(pairs, key=lambda pair: -(pair[1].psi if pair[1] else 0.0))


def _time_lines(case: Case, windows: Sequence[Window]) -> list[TimeLine]:
    """The PSI, the case's metric and the cost over the windows, as far as they are known."""
    agreed = {
        str(name): entry.at_least or entry.at_most for name, entry in case.charter.criteria.items()
    }
    numbers = [window.window for window in windows]
    largest = [(window.psi,) * 3 for window in windows]
    charts = [
        TimeLine(
            "Largest PSI of a column",
            numbers,
            largest,
            [None] * len(windows),
            agreed.get("drift_psi"),
        )
    ]
    for metric in ("auc" if case.classes else "mean_absolute_error", "cost"):
        title = f"{METRIC_NAMES.get(metric, 'Cost per decision')}, with its interval"
        points = [window.performance.get(metric) for window in windows]
        estimates = [window.estimate.get(metric) for window in windows]
        charts.append(TimeLine(title, numbers, points, estimates, agreed.get(metric)))
    return [chart for chart in charts if any(chart.points) or any(chart.estimates)]


def interval(span: Span) -> str:
    """A value and the ends of its interval for a reader."""
    value, low, high = ("unbounded" if part is None else number(part) for part in span)
    return f"{value}, {low} to {high}"
