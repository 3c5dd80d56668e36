"""What the last window and those before it say, as one page without scripts and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from lepton_lib.artefacts import Run
from lepton_lib.cases import Case
from lepton_lib.monitoring import ColumnSummary, Reference
from lepton_lib.monitoring.drift import ColumnDrift
from lepton_lib.operations import records
from lepton_lib.operations.journal import Journal
from lepton_lib.operations.records import Distribution, Light, Report, Span, Window
from lepton_lib.runs.summary import METRIC_NAMES, metric_name, number
from lepton_lib.utils import render, write_atomic

BINS = 20  # of a number's histogram
KEPT = 100  # windows in report.json and in the table of decisions; the journal has all
SHOWN = 24  # histograms, those that moved most; and windows in a time line
_CALM_ANSWERS = "They are spread as on rows that the model hadn't seen."


class TimeLine(NamedTuple):
    """A chart over the windows: points with their intervals, estimates before labels, a limit."""

    title: str
    windows: Sequence[int]
    points: Sequence[Span | None]
    estimates: Sequence[Span | None]
    limit: float | None


def distributions(reference: Reference, current: Reference) -> list[Distribution]:
    """Every column's shares among reference and current rows, in the same few bins."""
    shared = [name for name in reference.names if name in current.names]
    return [_shares(name, reference.summary(name), current.summary(name)) for name in shared]


def _shares(name: str, reference: ColumnSummary, current: ColumnSummary) -> Distribution:
    kind = "category" if reference.values is None else "number"
    count = _count_categories if kind == "category" else _count_numbers
    bins, (then, now) = count(reference, current)
    old, new = max(reference.rows, 1), max(current.rows, 1)
    missing = (round(reference.missing / old, 4), round(current.missing / new, 4))
    shares = [round(n / old, 4) for n in then], [round(n / new, 4) for n in now]
    return Distribution(name, kind, bins, *shares, missing)


def _count_categories(*pair: ColumnSummary) -> tuple[list[float | str], list[list[int]]]:
    """The categories, the most frequent ones of the reference first, and rows of each."""
    every = dict.fromkeys(name for each in pair for name in each.counts)
    names = sorted(every, key=lambda name: -pair[0].counts.get(name, 0))
    counts = [[each.counts.get(name, 0) for name in names] for each in pair]
    if len(names) <= BINS:
        return [*names], counts
    rest = BINS - 1
    return [*names[:rest], "others"], [[*row[:rest], sum(row[rest:])] for row in counts]


def _count_numbers(*pair: ColumnSummary) -> tuple[list[float | str], list[list[int]]]:
    """The outer edges of equal bins over 99 % of the reference, and rows in each with outliers."""
    values = [np.zeros(0) if each.values is None else each.values for each in pair]
    own = values[0] if len(values[0]) else np.zeros(1)
    low, high = own[int(0.005 * (len(own) - 1))], own[math.ceil(0.995 * (len(own) - 1))]
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = [np.diff([0, *row.searchsorted(edges[1:-1]), len(row)]).tolist() for row in values]
    return [float(edges[0]), float(edges[-1])], counts


def lights(window: Window, case: Case) -> list[Light]:
    """A light for each signal of a window."""
    signals, broken = window.signals, ", ".join(window.signals.broken)
    answers = [name for name in signals.drifted if name.startswith("p_") or name == "prediction"]
    inputs = [name for name in signals.drifted if name not in answers]
    shown = [
        _light("Data", broken, "act", "Broken at the source:", "Every column keeps its rules."),
        _light("Inputs", ", ".join(inputs), "watch", "Drift in", "No column has drifted."),
        _light("Answers", ", ".join(answers), "watch", "Drift in", _CALM_ANSWERS),
    ]
    if signals.loss_change is None:
        few = f"Fewer than {case.policy.min_labels} new labels: no loss to judge. Ask for labels."
        shown.append(Light("Performance", "none", few))
    else:
        text = f"{window.labels} labels: the loss is {{}} higher than on the reference rows ({{}})."
        shown.append(_loss_light("Performance", signals.loss_change, text))
    if signals.versus_previous is not None:
        text = "The model at work is {} worse than the one before ({})."
        shown.append(_loss_light("Predecessor", signals.versus_previous, text))
    return shown + ([_groups_light(window)] if case.sensitive else [])


def _light(signal: str, names: str, light: str, text: str, calm: str) -> Light:
    """A light that names what is wrong, where something is."""
    return Light(signal, light, f"{text} {names}.") if names else Light(signal, "good", calm)


def _loss_light(signal: str, excess: Span, text: str) -> Light:
    """A light for a loss that is certainly higher than another, or isn't."""
    if excess[1] is not None and excess[1] > 0:
        return Light(signal, "act", text.format("certainly", interval(excess)))
    return Light(signal, "good", text.format("not certainly", interval(excess)))


def _groups_light(window: Window) -> Light:
    judged = [group for group in window.groups if group.judged]
    behind = [f"{each.column} {each.group}" for each in judged if (each.gap_low or 0) > 0]
    if not judged:
        return Light("Groups", "none", "Too few labelled rows in any group.")
    calm = "No group is certainly served worse than all."
    return _light("Groups", ", ".join(behind), "watch", "Certainly served worse than all:", calm)


def write_report(run: Run, case: Case, journal: Journal, *, waiting: int) -> str:
    """Write ``monitoring/report.html`` and ``monitoring/report.json``; returns what to do next."""
    windows, acts = [*islice(journal.windows(), KEPT)][::-1], journal.acts()[-KEPT:]
    last = windows[-1] if windows else None
    values = {"case": case, "last": last, "acts": acts, "waiting": waiting}
    report = Report(
        case=case.name,
        next=render("operations/templates/next.txt", **values).strip(),
        waiting=waiting,
        lights=lights(last, case) if last else [],
        latest=last,
        windows=[{name: getattr(each, name) for name in records.HISTORY} for each in windows],
        acts=acts,
    )
    page = render(
        "operations/templates/report.html",
        title=f"Monitoring {case.name}",
        **values,
        report=report,
        columns=_moved_most_first(last) if last else [],
        shown=SHOWN,
        charts=_time_lines(case, windows[-SHOWN:]),
        interval=interval,
        metric_name=metric_name,
        number=number,
        plain=plain,
        ticks=ticks,
    )
    folder = run.folder / "monitoring"
    write_atomic(folder / "report.json", records.dump(report))
    write_atomic(folder / "report.html", page)
    return report.next


def _moved_most_first(window: Window) -> list[tuple[Distribution, ColumnDrift | None]]:
    """A window's distributions with their drift; no drift where answers weren't compared."""
    drift = {entry.column: entry for entry in window.drift.columns}
    pairs = [(entry, drift.get(entry.column)) for entry in window.distributions]
    return sorted(pairs, key=lambda pair: -(pair[1].psi if pair[1] else 0.0))


def _time_lines(case: Case, windows: Sequence[Window]) -> list[TimeLine]:
    """The PSI, the case's metric and the cost over the windows, as far as they are known."""
    numbers, unknown = [window.window for window in windows], [None] * len(windows)
    agreed = {str(name): one.at_least or one.at_most for name, one in case.charter.criteria.items()}
    psi = [(window.psi,) * 3 for window in windows]
    charts = [TimeLine("Largest PSI of a column", numbers, psi, unknown, agreed.get("drift_psi"))]
    for metric in (case.task.metric, "cost"):
        title = f"{METRIC_NAMES.get(metric, 'Cost per decision')}, with its interval"
        points = [window.performance.get(metric) for window in windows]
        estimates = [window.estimate.get(metric) for window in windows]
        charts.append(TimeLine(title, numbers, points, estimates, agreed.get(metric)))
    return [chart for chart in charts if any(chart.points) or any(chart.estimates)]


def ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers, evenly spaced, from ``low`` or below to ``high`` or above."""
    rough = (high - low or abs(high) or 1.0) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    marks = range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    return [mark * step for mark in (marks if len(marks) > 1 else (marks[0], marks[0] + 1))]


def plain(value: float) -> str:
    """A number on an axis: at most three significant digits, and no zeros at its end."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 or not value else f"{value:.1g}"


def interval(span: Span) -> str:
    """A value and the ends of its interval for a reader."""
    value, low, high = ("unbounded" if part is None else number(part) for part in span)
    return f"{value}, {low} to {high}"
