"""The desk: a page with a form made from a case, that asks the service and shows its answer. Knows cases and HTML."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from lepton_lib.cases import Case, Column, example_record
from lepton_lib.cases.records import describe

ASSETS = {
    f"/static/{name}": (media_type, files("lepton_lib.serving").joinpath(name).read_text(encoding="utf-8"))
    for name, media_type in (("desk.js", "text/javascript"), ("desk.css", "text/css"))
}


def desk_page(case: Case, version: str) -> str:
    """The page as HTML: every input labelled, with its meaning, unit and range; no script or style inside it."""
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
<p><button type="submit">Ask the model</button> <button type="button" id="example">Fill in an example</button></p>
</form>
<section id="answer" aria-live="polite" tabindex="-1"></section>
<noscript><p>This page needs JavaScript. POST to /v1/predict as /openapi.json describes it.</p></noscript>
<footer>Model {escape(version)}, case {escape(case.name)}. Inputs and answer are kept in the prediction log.</footer>
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
        limits = {"min": column.min, "max": column.max}
        bounds = "".join(f' {key}="{value:.15g}"' for key, value in limits.items() if value is not None)
        control = f'<input type="number" step="any" inputmode="decimal"{bounds} {common}>'
    unit = f" <span>({escape(column.unit)})</span>" if column.unit else ""
    accepts = "" if column.kind == "category" else f": {describe(column)}"
    hint = f"{column.meaning}{accepts}{', or leave empty' if column.nullable else ''}"
    return (
        f'<div><label for="f-{name}">{escape(name.replace("_", " "))}{unit}</label>{control}'
        f'<small id="h-{name}">{escape(hint)}</small></div>'
    )
