"""The desk: a page with a form made from a case, that asks the service and shows its answer. Knows cases and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any

from lepton_lib.cases import Case, Column, example_record
from lepton_lib.cases.records import describe

_INLINE = re.compile(r"<style>(.*?)</style>", re.S)
ASSETS = {
    f"/static/{name}": (
        media_type,
        files("lepton_lib.serving").joinpath(name).read_text(encoding="utf-8"),
    )
    for name, media_type in (
        ("desk.js", "text/javascript"),
        ("docs.js", "text/javascript"),
        ("desk.css", "text/css"),
    )
}


def docs_page(case: Case) -> str:
    """The page that shows the service's description, /openapi.json."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(case.title)}: the service</title>
<link rel="stylesheet" href="/static/swagger-ui.css">
<link rel="icon" href="data:,">
<main id="docs"></main>
<script src="/static/swagger-ui-bundle.js"></script>
<script src="/static/docs.js"></script>
</html>
"""


def monitor_page(report: str, samples: Iterable[Any], *, title: str) -> str:
    """The monitor's last report with the service's own counts before it; it asks for itself anew every 15 seconds.

    Args:
        report: The page that `lepton monitor` wrote; empty where it hasn't yet.
        samples: Prometheus's samples of this moment.
        title: The case's.
    """
    found = [(each.name, each.labels, int(each.value)) for each in samples]
    requests = [
        (labels["status"], n) for name, labels, n in found if name == "lepton_requests_total"
    ]
    failed = sum(n for status, n in requests if status.startswith("5"))
    kept = [
        (labels["decision"], n) for name, labels, n in found if name == "lepton_predictions_total"
    ]
    counts = {"requests": sum(n for _, n in requests), "of them failed": failed}
    counts |= {f"answered {decision}": n for decision, n in sorted(kept)}
    figures = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{n:,}</dd></div>" for name, n in counts.items()
    )
    live = f'<h2>Since this service was started</h2><dl class="figures">{figures}</dl>'
    head = '<meta http-equiv="refresh" content="15"><link rel="stylesheet" href="/monitor.css">'
    if not report:
        words = "No report yet: run <code>lepton monitor RUN</code>, or with <code>--every 5</code> again and again."
        body = f"<h1>Monitoring: {escape(title)}</h1><p>{words}</p>{live}"
        head = f'<meta charset="utf-8"><title>Monitoring</title>{head}'
        return f'<!doctype html><html lang="en">{head}<main>{body}</main></html>'
    return _INLINE.sub(head, report).replace("<main>", f"<main>{live}", 1)


def style_of(report: str) -> str:
    """The style that stands in a report: the service lets no page bring its own."""
    found = _INLINE.search(report)
    return found[1] if found else ASSETS["/static/desk.css"][1]


def desk_page(case: Case, version: str, *, key: bool = False) -> str:
    """The page as HTML: every input labelled, with its meaning, unit and range; no script or style inside it.

    Args:
        case: The case.
        version: The model's.
        key: Whether an API key has to be asked for.
    """
    asked = '<p><label for="key">Key</label><input id="key" type="password" autocomplete="off" required></p>\n'
    example = example_record(case)
    fields = "\n".join(_field(column, example[column.name]) for column in case.inputs)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(case.title)}</title>
<link rel="stylesheet" href="/static/desk.css">
<link rel="icon" href="data:,">
<script src="/static/desk.js" defer></script>
<main>
<h1>{escape(case.title)}</h1>
<p>{escape(case.question)}</p>
<form id="desk">
<div class="fields">
{fields}
</div>
{asked if key else ""}<p><button type="submit">Ask the model</button>
<button type="button" id="example">Fill in an example</button></p>
</form>
<section id="answer" aria-live="polite" tabindex="-1"></section>
<noscript><p>This page needs JavaScript. POST to /v1/predict as /openapi.json describes it.</p></noscript>
<footer>Model {escape(version)}, case {escape(case.name)}. <a href="/docs">For programs</a>.
Inputs and answer are kept in the prediction log.</footer>
</main>
</html>
"""


def _field(column: Column, example: object) -> str:
    name, required = column.name, "" if column.nullable else " required"
    common = f'id="f-{name}" name="{name}" aria-describedby="h-{name}" data-kind="{column.kind}"{required}'
    filled = f"{example:.15g}" if isinstance(example, float) else str(example)
    common += f' data-example="{escape(filled)}"'
    if column.kind == "category":
        options = "".join(f"<option>{escape(entry)}</option>" for entry in column.categories)
        empty = "not known" if column.nullable else "choose"
        control = f'<select {common}><option value="">{empty}</option>{options}</select>'
    elif column.kind == "timestamp":
        control = f'<input type="datetime-local" {common}>'
    else:
        limits = {"min": getattr(column, "min", None), "max": getattr(column, "max", None)}
        bounds = "".join(
            f' {key}="{value:.15g}"' for key, value in limits.items() if value is not None
        )
        control = f'<input type="number" step="any" inputmode="decimal"{bounds} {common}>'
    unit = f" <span>({escape(column.unit)})</span>" if column.unit else ""
    accepts = "" if column.kind == "category" else f": {describe(column)}"
    hint = f"{column.meaning}{accepts}{', or leave empty' if column.nullable else ''}"
    return (
        f'<div><label for="f-{name}">{escape(name.replace("_", " "))}{unit}</label>{control}'
        f'<small id="h-{name}">{escape(hint)}</small></div>'
    )
