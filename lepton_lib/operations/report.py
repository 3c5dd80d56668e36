"""What the last window and those before it say, as one page without scripts and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import zip_longest
from typing import Any

import numpy as np

from lepton_lib.artefacts import Run
from lepton_lib.cases import Case
from lepton_lib.monitoring import ColumnSummary, Reference
from lepton_lib.operations.journal import ENDS, Journal
from lepton_lib.operations.service import limits
from lepton_lib.runs.pages import METRIC_NAMES, PAGE, STYLE, number, table, verdict
from lepton_lib.utils import to_json, write_atomic

BINS = 20  # of a number's picture
SHOWN = 24  # pictures of distributions, those that moved most; and windows in a time line
FORM = 1  # of the JSON; a change that its readers would notice raises it
_STYLE = """
.lights { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.lights section, figure { background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: .8rem 1rem; margin: 0; }
.lights h3 { display: flex; justify-content: space-between; gap: .6rem; margin: 0 0 .4rem; }
.lights p { margin: 0; color: var(--soft); font-size: .95rem; } .lights .verdict { font-size: .85rem; }
.many { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.5rem), 1fr)); }
.wide-many { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
figcaption { font-size: .9rem; } figcaption small { color: var(--soft); display: block; }
svg { width: 100%; height: auto; display: block; margin-top: .3rem; }
svg text { fill: var(--soft); font-size: 11px; } .now { fill: var(--link); fill-opacity: .45; }
.then { fill: none; stroke: var(--text); stroke-width: 1.4; }
.care { color: #7a4b00; background: #fdefd0; } .care::before { content: "\\25B2"; }
@media (prefers-color-scheme: dark) { .care { color: #f2c879; background: #43330f; } }
.dot { fill: var(--link); } .bar { stroke: var(--link); stroke-width: 1.5; } .grid { stroke: var(--line); }
.limit { stroke: var(--bad); stroke-dasharray: 5 4; } .guess { fill: var(--soft); fill-opacity: .25; }
"""
_LIGHTS = {
    "good": ("pass", "all well"),
    "watch": ("care", "watch"),
    "act": ("fail", "act"),
    "none": ("", "not known"),
}
_NEXT = {
    "nothing": "Nothing is to be done; the next window is judged when its rows have come.",
    "watch": "Wait for the next window, and see to what the reasons name.",
    "retrain": "A challenger is to be trained: lepton monitor RUN --act does it, under the same gate.",
    "roll back": "The predecessor is to answer again: lepton monitor RUN --act does it.",
}


def distributions(reference: Reference, current: Reference) -> list[dict[str, Any]]:
    """Every column's shares among reference and current rows, in the same few bins, for a picture each."""
    return [
        _shares(n, reference.summary(n), current.summary(n))
        for n in reference.names
        if n in current.names
    ]


def _shares(name: str, reference: ColumnSummary, current: ColumnSummary) -> dict[str, Any]:
    pair = (reference, current)
    if reference.values is None:
        order = sorted(
            {*reference.counts, *current.counts}, key=lambda key: -reference.counts.get(key, 0)
        )
        bins: list[Any] = order if len(order) <= BINS else [*order[: BINS - 1], "others"]
        counts = [[summary.counts.get(key, 0) for key in order] for summary in pair]
        counts = [
            row if len(row) <= BINS else [*row[: BINS - 1], sum(row[BINS - 1 :])] for row in counts
        ]
    else:
        values = reference.values if len(reference.values) else np.zeros(1)
        low, high = (
            values[int(0.005 * (len(values) - 1))],
            values[math.ceil(0.995 * (len(values) - 1))],
        )
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        bins = [float(edges[0]), float(edges[-1])]  # what lies outside is counted at the ends
        counts = [
            np.diff([0, *summary.values.searchsorted(edges[1:-1]), len(summary.values)]).tolist()
            for summary in pair
            if summary.values is not None
        ]
    shares = [
        [round(n / max(summary.rows, 1), 4) for n in row]
        for row, summary in zip(counts, pair, strict=True)
    ]
    gone = [round(summary.missing / max(summary.rows, 1), 4) for summary in pair]
    kind = "category" if reference.values is None else "number"
    return {
        "column": name,
        "kind": kind,
        "bins": bins,
        "reference": shares[0],
        "current": shares[1],
        "missing": gone,
    }


def lights(window: dict[str, Any], case: Case) -> list[dict[str, str]]:
    """A light for each signal of a window: ``signal``, ``light`` (good, watch, act, none), ``text``."""
    signals, found = window["signals"], []

    def add(signal: str, light: str, text: str) -> None:
        found.append({"signal": signal, "light": light, "text": text})

    broken, drifted = signals["broken"], signals["drifted"]
    named = {
        "good": "Every column keeps its rules.",
        "act": f"Broken at the source: {', '.join(broken)}.",
    }
    add("Data", light := "act" if broken else "good", named[light])
    answers = [name for name in drifted if name.startswith("p_") or name == "prediction"]
    for signal, moved, calm in (
        ("Inputs", [name for name in drifted if name not in answers], "No column has drifted."),
        ("Answers", answers, "They are spread as on rows that the model hadn't seen."),
    ):
        add(
            signal, "watch" if moved else "good", f"Drift in {', '.join(moved)}." if moved else calm
        )
    change, versus = signals["loss_change"], signals["versus_previous"]
    if change is None:
        least = case.policy.min_labels
        add(
            "Performance",
            "none",
            f"Fewer than {least} new labels: no loss to judge. Ask for labels.",
        )
    else:
        worse = change[1] is not None and change[1] > 0
        add(
            "Performance",
            "act" if worse else "good",
            f"{window['labels']} labels: the loss is {'certainly higher' if worse else 'not certainly higher'} "
            f"than on the reference rows ({_interval(change)}).",
        )
    if versus is not None:
        behind = versus[1] > 0
        add(
            "Predecessor",
            "act" if behind else "good",
            f"The model at work is {'certainly' if behind else 'not certainly'} worse than the one before "
            f"({_interval(versus)}).",
        )
    if case.sensitive:
        judged = [line for line in window["groups"] if line.get("judged") is True]
        behind = [line for line in judged if line["gap_low"] > 0]
        text = (
            "Too few labelled rows in any group."
            if not judged
            else "No group is certainly served worse than all."
        )
        if behind:
            text = (
                "Certainly served worse than all: "
                + ", ".join(f"{g['column']} {g['group']}" for g in behind)
                + "."
            )
        add("Groups", "none" if not judged else "watch" if behind else "good", text)
    return found


def _service_light(reading: dict[str, Any]) -> dict[str, str]:
    """The light of a reading of the service's metrics."""
    known = reading.get("requests")
    text = "; ".join(reading["reasons"]) or "Judged from the second reading on." * (known is None)
    parts = ["the service was restarted"] * bool(reading.get("restarted"))
    if known is not None:
        parts += [f"{known:,} requests in {number(reading['seconds'])} s"]
        parts += [f"{reading['errors'][0]:.1%} failed"] if "errors" in reading else []
        parts += [f"{key} {reading[key] * 1000:.3g} ms" for key in ("p50", "p99") if key in reading]
        parts += [f"{reading['busy']:.2g} at work at a time"]
    light = "watch" if reading["reasons"] else "none" if known is None else "good"
    return {
        "signal": "Service",
        "light": light,
        "text": ". ".join(filter(None, [text, ", ".join(parts)])),
    }


def write_report(run: Run, case: Case, book: Journal, *, waiting: int) -> str:
    """Write ``monitoring/report.html`` and ``monitoring/report.json``; returns what to do next."""
    windows, acts = book.windows(), [act._asdict() for act in book.acts()]
    last = windows[-1] if windows else None
    todo = f"{waiting} of {case.policy.min_rows} rows have come for the first window."
    if last is not None:
        running = [act for act in acts if act["stage"] not in ENDS]
        todo = _NEXT[last["decision"]["action"]]
        if running:
            todo = (
                f"{running[-1]['action'].capitalize()}, decided in window {running[-1]['window']}, is under way: "
                f"{_STAGES[running[-1]['stage']]}."
            )
    kept = (
        "window",
        "time",
        "rows",
        "labels",
        "model_version",
        "decision",
        "performance",
        "estimate",
        "groups",
    )
    history = [
        {key: window[key] for key in kept}
        | {"psi": max((c["psi"] for c in window["drift"]["columns"]), default=0.0)}
        for window in windows
    ]
    readings = [{k: v for k, v in each.items() if k != "counters"} for each in book.readings(SHOWN)]
    shown = (lights(last, case) if last else []) + [_service_light(each) for each in readings[-1:]]
    if readings and readings[-1]["reasons"]:
        todo += f" See to the service: {'; '.join(readings[-1]['reasons'])}."
    content = {
        "form": FORM,
        "case": case.name,
        "next": todo,
        "waiting": waiting,
        "lights": shown,
        "latest": last,
        "windows": history,
        "acts": acts,
        "service": readings,
    }
    folder = run.folder / "monitoring"
    write_atomic(folder / "report.json", to_json(content))
    write_atomic(folder / "report.html", _page(case, content))
    return todo


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


def _page(case: Case, content: dict[str, Any]) -> str:
    last = content["latest"]
    cards = "".join(
        f"<section><h3>{escape(entry['signal'])} {_light(entry['light'])}</h3><p>{escape(entry['text'])}</p></section>"
        for entry in content["lights"]
    )
    if last is None:
        body = (
            f"<header><h1>Monitoring: {escape(case.title)}</h1><p class='lead'>{escape(content['next'])}</p></header>"
            f'<main><div class="lights">{cards}</div>{_service(content["service"])}</main>'
        )
        return PAGE.substitute(
            title=escape(f"Monitoring {case.name}"), style=STYLE + _STYLE, body=body
        )
    action = last["decision"]["action"]
    pill = _light({"nothing": "good", "watch": "watch"}.get(action, "act"), action.capitalize())
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in last["decision"]["reasons"])
    by_name = {entry["column"]: entry for entry in last["drift"]["columns"]}
    pictures = sorted(
        last["distributions"], key=lambda entry: -by_name.get(entry["column"], {"psi": 0})["psi"]
    )
    multiples = "".join(
        _distribution(entry, by_name.get(entry["column"])) for entry in pictures[:SHOWN]
    )
    more = len(pictures) - SHOWN
    rest = f"<p>{more} more columns moved less; all are in report.json.</p>" if more > 0 else ""
    body = f"""<header><p>Monitoring of <code>{escape(case.name)}</code>, window {last["window"]}</p>
<h1>{escape(case.title)}</h1>
{pill}
<ul>{reasons}</ul>
<p class="lead">{escape(content["next"])}</p>
<dl class="figures">
<div><dt>rows in this window</dt><dd>{last["rows"]:,}<small>until {escape(last["last"][:16])} UTC</small></dd></div>
<div><dt>labels judged</dt><dd>{last["labels"]:,}</dd></div>
<div><dt>model that answered</dt><dd><code>{escape(last["model_version"])}</code></dd></div></dl></header>
<main>
<h2>Signals</h2>
<div class="lights">{cards}</div>
<h2>Over the windows</h2>
<div class="wide-many">{_lines(case, content["windows"])}</div>
{_service(content["service"])}
<h2>Then and now</h2>
<p>Outlined: the rows that the model was trained on (of its answers: rows that it hadn't seen). Filled: this window.
Those that moved most come first.</p>
<div class="many">{multiples}</div>{rest}
<h2>In figures</h2>
<details open><summary>Performance</summary>{_performance(last)}</details>
{_groups(last)}
<details><summary>Drift of each column</summary>{_drift(last)}</details>
<details><summary>Decisions so far</summary>{_decisions(content)}</details>
</main>"""
    return PAGE.substitute(title=escape(f"Monitoring {case.name}"), style=STYLE + _STYLE, body=body)


def _light(light: str, text: str = "") -> str:
    kind, word = _LIGHTS[light]
    return f'<span class="verdict {kind}">{text or word}</span>'


def _interval(entry: Sequence[float | None]) -> str:
    value, *ends = ("unbounded" if part is None else number(part) for part in entry)
    return f"{value}, {ends[0]} to {ends[1]}"


def _distribution(entry: dict[str, Any], drift: dict[str, Any] | None) -> str:
    then, now, n = entry["reference"], entry["current"], len(entry["current"])
    top = max(*then, *now, 0.01)
    width = 220 / max(n, 1)
    tall = [76 * share / top for share in now]
    bars = "".join(
        f'<rect class="now" x="{i * width + 0.5:.1f}" y="{80 - h:.1f}" width="{width - 1:.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(tall)
    )
    steps = "".join(
        f"V{80 - 76 * share / top:.1f}H{(i + 1) * width:.1f}" for i, share in enumerate(then)
    )
    ends = (
        [number(entry["bins"][0]), number(entry["bins"][-1])]
        if entry["kind"] == "number"
        else entry["bins"][:1]
    )
    words = "".join(
        f'<text x="{x}" y="93" text-anchor="{anchor}">{escape(str(end)[:24])}</text>'
        for end, x, anchor in zip(ends, (0, 220), ("start", "end"), strict=False)
    )
    note = f"PSI {drift['psi']:.2f}, {drift['why']}" if drift else ""
    if abs(entry["missing"][1] - entry["missing"][0]) >= 0.01:
        note += f"; missing {entry['missing'][0]:.1%} then, {entry['missing'][1]:.1%} now"
    told = f"{entry['column']}: shares then {', '.join(map(str, then))}; now {', '.join(map(str, now))}"
    return (
        f"<figure><figcaption><strong>{escape(entry['column'])}</strong><small>{escape(note)}</small></figcaption>"
        f'<svg viewBox="0 0 220 96" role="img" aria-label="{escape(told)}">{bars}<path class="then" '
        f'd="M0 80{steps}V80"/>{words}</svg></figure>'
    )


def _lines(case: Case, windows: list[dict[str, Any]]) -> str:
    windows = windows[-SHOWN:]
    agreed = {
        str(name): entry.at_least or entry.at_most for name, entry in case.charter.criteria.items()
    }
    numbers = [str(window["window"]) for window in windows]
    made = [
        _line(
            "Largest PSI of a column",
            numbers,
            [(w["psi"],) * 3 for w in windows],
            [],
            agreed.get("drift_psi"),
        )
    ]
    for metric in (
        "auc" if case.classes else "mean_absolute_error",
        *(["cost"] if case.costs else []),
    ):
        points, guesses = (
            [w[kind].get(metric) for w in windows] for kind in ("performance", "estimate")
        )
        if any(points) or any(guesses):
            title = METRIC_NAMES.get(metric, "Cost per decision")
            made.append(
                _line(f"{title}, with its interval", numbers, points, guesses, agreed.get(metric))
            )
    return "".join(made)


def _service(readings: list[dict[str, Any]]) -> str:
    """Time lines of the service's own signals, a point for each reading."""
    if not readings:
        return ""
    times = [datetime.fromtimestamp(each["time"], UTC).strftime("%H:%M") for each in readings]
    made = []
    for key, title, limit in (
        ("rate", "Requests a second", None),
        ("errors", "Share of requests that failed, with its interval", "errors:ratio"),
        ("p99", "Seconds that 99 % of the requests stay below", "seconds:p99"),
        ("busy", "Requests at work at a time", "busy:rate"),
    ):
        values = [each.get(key) for each in readings]
        if any(value is not None for value in values):
            points = [(value,) * 3 if isinstance(value, float) else value for value in values]
            made.append(
                _line(title, times, points, [], limits()[limit] if limit else None, at="reading at")
            )
    return f'<h2>The service, reading by reading (UTC)</h2><div class="wide-many">{"".join(made)}</div>'


def _line(
    title: str,
    numbers: list[str],
    points: list[Any],
    guesses: list[Any],
    limit: float | None,
    *,
    at: str = "window",
) -> str:
    """A time line: points with their intervals, a grey band for what was estimated before labels, a dashed limit."""
    values = [value for entry in (*points, *guesses) if entry for value in entry] + (
        [limit] if limit else []
    )
    low, room = min(values), (max(values) - min(values)) or 1.0
    parts = []

    def y(value: float) -> float:
        return float(round(120 - 100 * (value - low) / room, 1))

    def mark(value: float, kind: str, text: str, x: int, anchor: str) -> None:
        parts.append(f'<line class="{kind}" x1="44" x2="395" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(
            f'<text x="{x}" y="{y(value) - 4 * (kind == "limit")}" text-anchor="{anchor}">{text}</text>'
        )

    for share in (0.0, 0.5, 1.0):
        mark(low + share * room, "grid", number(low + share * room), 40, "end")
    every = -(-len(numbers) // 8)
    for i, (name, point, guess) in enumerate(zip_longest(numbers, points, guesses)):
        x = round(44 + 351 * (i + 0.5) / len(numbers), 1)
        if guess:
            parts.append(f'<rect class="guess" x="{x - 7}" width="14" y="{y(guess[2])}" ')
            parts.append(f'height="{max(y(guess[1]) - y(guess[2]), 1):.1f}"/>')
        if point:
            parts.append(
                f'<line class="bar" x1="{x}" x2="{x}" y1="{y(point[1])}" y2="{y(point[2])}"/>'
            )
            parts.append(f'<circle class="dot" cx="{x}" cy="{y(point[0])}" r="4"/>')
        if i % every == 0:
            parts.append(f'<text x="{x}" y="146" text-anchor="middle">{name}</text>')
    if limit is not None:
        mark(limit, "limit", f"agreed {number(limit)}", 395, "end")
    told = [
        f"{at} {name}: {_interval(p) if p else 'none'}"
        for name, p in zip(numbers, points, strict=True)
    ]
    grey = (
        "<small>grey: estimated before labels, blind to a change of meaning</small>"
        if any(guesses)
        else ""
    )
    return (
        f"<figure><figcaption><strong>{title}</strong>{grey}</figcaption><svg viewBox='0 0 400 152' role='img' "
        f'aria-label="{escape(f"{title}: ")}{escape("; ".join(told))}">{"".join(parts)}</svg></figure>'
    )


def _performance(last: dict[str, Any]) -> str:
    names = list(dict.fromkeys([*last["performance"], *last["estimate"]]))
    rows = [
        [
            escape(METRIC_NAMES.get(name, name.replace("_", " "))),
            *(
                _interval(last[kind][name]) if name in last[kind] else "–"
                for kind in ("performance", "estimate")
            ),
        ]
        for name in names
    ]
    head = ("Metric", "On labelled rows", "Estimated before labels")
    return (
        table("With 95 % intervals; an estimate trusts the model's own probabilities", head, rows)
        if rows
        else "–"
    )


def _groups(last: dict[str, Any]) -> str:
    if not last["groups"]:
        return ""

    def span(line: dict[str, Any], name: str) -> str:
        known = line.get(name) is not None
        return _interval([line[name], line[f"{name}_low"], line[f"{name}_high"]]) if known else "–"

    rows = [
        [
            escape(f"{line['column']}: {line['group']}"),
            f"{line['rows']:,}",
            span(line, "rate"),
            span(line, "gap"),
        ]
        for line in last["groups"]
    ]
    head = ("Group", "Rows", "Decided positive", "Behind all rows")
    found = table(
        "Behind all rows: by how much the metric is worse in the group; needs labelled rows enough",
        head,
        rows,
    )
    return f"<details><summary>Groups</summary>{found}</details>"


def _drift(last: dict[str, Any]) -> str:
    rows: Iterable[list[str]] = (
        [
            escape(entry["column"]),
            verdict(entry["verdict"] == "none", "stays", "drift", ""),
            f"{entry['psi']:.3f} ({entry['chance']:.3f})",
            "&lt;0.001" if entry["p_holm"] < 0.001 else f"{entry['p_holm']:.3f}",
            "–" if entry["moved"] is None else number(entry["moved"]),
            escape(entry["why"]),
        ]
        for entry in sorted(last["drift"]["columns"], key=lambda entry: -entry["psi"])
    )
    head = ("Column", "Verdict", "PSI (by chance)", "Corrected p", "Moved", "Why")
    return table("PSI against what chance alone gives; p corrected for all columns", head, rows)


def _decisions(content: dict[str, Any]) -> str:
    by_window = {act["window"]: act for act in content["acts"]}
    rows = []
    for window in reversed(content["windows"]):
        act = by_window.get(window["window"])
        after = "–" if act is None else escape(_STAGES[act["stage"]] + _why(act["content"]))
        reasons = escape("; ".join(window["decision"]["reasons"]))
        rows.append(
            [
                str(window["window"]),
                escape(window["time"]),
                escape(window["decision"]["action"]),
                reasons,
                after,
            ]
        )
    return table(
        "Every window's decision, the last first",
        ("Window", "Judged", "Decision", "Reasons", "What came of it"),
        rows,
    )


def _why(content: dict[str, Any]) -> str:
    return f": {'; '.join(content['reasons'])}" if content.get("reasons") else ""
