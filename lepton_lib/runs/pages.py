"""What a reader gets from a run: its summary, its one-page index, and its notebooks as pages.

Pages stand alone: no script, no font, no style from elsewhere. Formulas are MathML, which browsers
draw themselves.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, ClassVar, NamedTuple

from lepton_lib.artefacts import OUTPUTS, STEPS, Run
from lepton_lib.cases import load_case
from lepton_lib.errors import CaseError
from lepton_lib.utils import write_atomic

METRIC_NAMES = {"auc": "AUC", "mean_absolute_error": "mean absolute error"}
_REMOTE = re.compile(
    r"<(script|link)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(?:https?:)?//[^>]*>(?:\s*</script>)?", re.I
)

_INLINE = r"(?<![$\\])\$(?=[^\s$])(?P<math_inline_tex>(?:[^$\\]|\\.)+?)(?<!\s)\$(?!\d)"
_STEP_HEAD = ("Step", "State", "Notebook", "Seconds")

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")

# Contrast of text on its ground is at least 4.5 : 1 in both schemes.
STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --text: #1d2430; --soft: #566072; --line: #d9dde4;
  --link: #0b57a4; --good: #11693a; --good-bg: #dff3e6; --bad: #a3201b; --bad-bg: #fde5e3; --open-bg: #eceff3;
  --code: #f3f4f6; --keyword: #8a2187; --string: #1c6a34; --comment: #5d6675; --number: #9a4a00; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --card: #1c2027; --text: #e6e9ee; --soft: #a7b0bf;
  --line: #363d49; --link: #84bdff; --good: #7fdba2; --good-bg: #14382a; --bad: #ffaaa3; --bad-bg: #4a1d1b;
  --open-bg: #2b313b; --code: #232831; --keyword: #e0a3ec; --string: #98d8a0; --comment: #a0a9b8; --number: #f2b37a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; background: var(--ground);
  color: var(--text); font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: break-word; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; margin: .3rem 0 .6rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .8rem; } h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.lead { font-size: 1.15rem; color: var(--soft); max-width: 46rem; margin: 0 0 1.2rem; }
.verdict { display: inline-flex; align-items: center; gap: .5rem; padding: .15rem .7rem; border-radius: 1rem;
  font-weight: 600; white-space: nowrap; background: var(--open-bg); }
.verdict::before { content: "\\25CB"; } .pass { color: var(--good); background: var(--good-bg); }
.pass::before { content: "\\2714"; } .fail { color: var(--bad); background: var(--bad-bg); }
.fail::before { content: "\\2716"; }
.figures { display: grid; grid-template-columns: repeat(2, 1fr); gap: .8rem; margin: 1.5rem 0 0; }
@media (min-width: 44rem) { .figures { grid-template-columns: repeat(3, 1fr); } }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .8rem 1rem; }
.figures dt { color: var(--soft); font-size: .9rem; } .figures dd { margin: 0; font-size: 1.35rem; font-weight: 650; }
.figures dd small { display: block; font-size: .85rem; font-weight: 400; color: var(--soft); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .7rem; background: var(--card);
  margin: 0 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem; }
caption { text-align: left; color: var(--soft); padding: .7rem .9rem .3rem; font-size: .9rem; }
th, td { text-align: left; padding: .45rem .9rem; border-top: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
details { margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
pre, code { font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 44rem) {
  .rows thead { position: absolute; clip-path: inset(50%); }
  .rows :is(table, caption, tbody, tr, th, td) { display: block; }
  .rows tbody tr { border-top: 1px solid var(--line); padding: .5rem .9rem; }
  .rows tbody :is(th, td) { border: 0; padding: .1rem 0; }
  .rows td::before { content: attr(data-name) " "; color: var(--soft); font-size: .85rem; } }
"""

NOTEBOOK_STYLE = """
.text_cell { max-width: 46rem; } .code_cell { margin: 1rem 0 1.6rem; }
.prompt { color: var(--soft); font-size: .75rem; }
pre { overflow-x: auto; margin: 0; padding: .6rem .9rem; } code { background: var(--code); }
.input_area, .rendered_html > pre, .highlight { background: var(--code); border-radius: .5rem; }
.output_error pre { color: var(--bad); background: var(--bad-bg); border-radius: .5rem; }
.output_area { margin: .4rem 0; } .output_subarea, .text_cell_render { overflow-x: auto; }
.output_text pre { white-space: pre-wrap; }
.output table { width: auto; margin: .6rem 0; border: 0; }
.output :is(th, td) { border: 0; border-top: 1px solid var(--line); }
math[display="block"] { margin: 1rem 0; overflow-x: auto; overflow-y: hidden; }
img, svg { max-width: 100%; height: auto; background: #fff; }
.highlight :is(.k,.kn,.kc,.kd,.ow,.nd) { color: var(--keyword); } .highlight :is(.c1,.cm) { color: var(--comment); }
.highlight :is(.s1,.s2,.sd,.sa,.si,.se) { color: var(--string); }
.highlight :is(.mi,.mf,.mh) { color: var(--number); }
"""


class Summary(NamedTuple):
    """The results of a run in a few words; None where a step hasn't run."""

    case: str | None
    rows_kept: int | None
    rows_dropped: int | None
    model: str | None
    validation_loss: float | None
    metric: str | None
    value: float | None
    low: float | None
    high: float | None
    gate_passed: bool | None
    latency_ms: float | None
    latency_ms_p99: float | None
    drift: str | None
    decision: str | None

    @classmethod
    def of(cls, run: Run) -> Summary:
        """Read it from the run's manifest.

        Raises:
            RunError: The manifest can't be read.
        """
        manifest = run.manifest
        metrics: dict[str, Any] = {}
        for step in STEPS:
            metrics |= manifest["steps"].get(step, {}).get("metrics", {})
        return cls(manifest["case"], **{name: metrics.get(name) for name in cls._fields[1:]})

    def lines(self) -> list[tuple[str, str, str]]:
        """What is known: label, figure, and a remark or ``""``."""
        found: list[tuple[str, str, str]] = []
        if self.rows_kept is not None:
            found.append(("rows", f"{self.rows_kept:,}", f"{number(self.rows_dropped)} dropped"))
        if self.model is not None:
            found.append(("model", self.model, f"validation loss {number(self.validation_loss)}"))
        if self.value is not None:
            name = METRIC_NAMES.get(str(self.metric), str(self.metric))
            interval = f"95 % interval {number(self.low)} to {number(self.high)}"
            found.append((name, number(self.value), interval if self.low is not None else ""))
        if self.gate_passed is not None:
            found.append(("gate", "passed" if self.gate_passed else "not passed", ""))
        if self.latency_ms is not None:
            slowest = (
                f"99 % within {number(self.latency_ms_p99)} ms"
                if self.latency_ms_p99 is not None
                else ""
            )
            found.append(("one answer", f"{number(self.latency_ms)} ms", slowest))
        if self.drift is not None:
            found.append(("drift", "found" if self.drift == "drift" else self.drift, ""))
        if self.decision is not None:
            found.append(
                (
                    "decision",
                    self.decision,
                    {"keep": "the champion", "promote": "the challenger"}.get(self.decision, ""),
                )
            )
        return found

    def to_text(self) -> str:
        """The summary for a terminal."""
        return "\n".join(
            f"{label:<22}{figure}{f'  ({remark})' if remark else ''}"
            for label, figure, remark in self.lines()
        )


def number(value: object) -> str:
    """A value as a reader wants it: three digits after the point, and no more than four significant ones."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if 0.01 <= abs(value) < 10 else f"{value:,.4g}"
    return str(value)


def notebook_page(nb: Any, *, title: str) -> str:
    """An executed notebook as one HTML page."""
    body = f'<nav><a href="../index.html">This run</a></nav>\n<main>{rendered(nb)}</main>'
    return page(title, body, NOTEBOOK_STYLE)


def rendered(nb: Any) -> str:
    """A notebook's cells as HTML that loads nothing."""
    from nbconvert import HTMLExporter

    quiet = logging.Logger("nbconvert", logging.CRITICAL)
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True, log=quiet)
    exporter.register_filter("markdown2html", markdown_to_html)
    content, _ = exporter.from_notebook_node(nb)
    return str(_REMOTE.sub("", content))


def markdown_to_html(source: str) -> str:
    """Markdown as HTML, with its formulas in MathML; what code holds, and an amount of dollars, is no formula."""
    from nbconvert.filters.markdown_mistune import (
        IPythonRenderer,
        MarkdownWithMath,
        MathInlineParser,
    )

    class Renderer(IPythonRenderer):
        def block_math(self, body: str) -> str:
            return _mathml(body, "block")

        def inline_math(self, body: str) -> str:
            return _mathml(body, "inline")

    class Inline(MathInlineParser):
        # Code comes before formulas, and a dollar that opens a formula stands before no blank: $5,
        # and $6.
        SPECIFICATION: ClassVar[dict[str, str]] = {
            **MathInlineParser.SPECIFICATION,
            "inline_math_tex": _INLINE,
        }
        DEFAULT_RULES: ClassVar[tuple[str, ...]] = tuple(
            dict.fromkeys(("codespan", *MathInlineParser.DEFAULT_RULES))
        )

    return str(
        MarkdownWithMath(Renderer(escape=False, exclude_anchor_links=True), inline=Inline()).render(
            source
        )
    )


def _mathml(tex: str, display: str) -> str:
    from latex2mathml.converter import convert

    try:
        return convert(tex.replace(r"\arg", r"\operatorname{arg}"), display=display)
    except Exception:  # TeX that isn't right fails in many ways; it is shown as it was written
        return f"<code>{escape(tex)}</code>"


def page(title: str, body: str, style: str = "") -> str:
    """A page that stands alone, in the style of them all; ``body`` is HTML."""
    return PAGE.substitute(title=escape(title), style=STYLE + style, body=body)


def write_index(run: Run) -> Path:
    """Write ``index.html``: the question, the gate, the key figures, and links to all that the run has left.

    Raises:
        RunError: The manifest can't be read.
    """
    path = run.folder / "index.html"
    write_atomic(path, _index(run))
    return path


def _index(run: Run) -> str:
    manifest, summary = run.manifest, Summary.of(run)
    steps: dict[str, Any] = {
        step: manifest["steps"][step] for step in STEPS if step in manifest["steps"]
    }
    title, question = str(summary.case or "No case yet"), ""
    try:
        case = load_case(title)
        title, question = case.title, case.question
    except CaseError:  # the run may be read where the case isn't
        pass
    figures = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(figure)}<small>{escape(remark)}</small></dd></div>"
        for label, figure, remark in summary.lines()
        if label != "gate"  # it stands above them
    )
    parameters: dict[str, dict[str, object]] = {}
    for step, entry in steps.items():
        for name, value in entry["parameters"].items():
            parameters.setdefault(name, {})[step] = value
    packages: dict[str, Any] = {}
    for entry in steps.values():
        packages |= {"python": entry.get("python", "–")} | entry["packages"]
    versions = [[escape(name), escape(str(version))] for name, version in packages.items()]
    tables = [
        table("What each step left, and how long its work took", _STEP_HEAD, _steps(run, steps)),
        table(
            "The files that the steps have left in the run folder",
            ("File", "Made by", "Size"),
            _files(run, steps),
        ),
        table(
            "Parameters and the steps that took them",
            ("Parameter", "Value", "Steps"),
            _parameters(parameters),
        ),
        table("Python and the packages that decide the results", ("Package", "Version"), versions),
    ]
    body = f"""<header><p>Run of the case <code>{escape(str(summary.case))}</code></p>
<h1>{escape(title)}</h1>
<p class="lead">{escape(question)}</p>
{verdict(summary.gate_passed, "Gate passed", "Gate not passed", "Gate not reached yet")}
<dl class="figures">{figures}</dl></header>
<main>
<h2>The gate</h2>
{_gate(run)}
<h2>The steps</h2>
{tables[0]}
<h2>The results</h2>
{tables[1]}
<h2>How it was made</h2>
<details><summary>Parameters</summary>
{tables[2]}
</details>
<details><summary>Versions</summary>
{tables[3]}
</details>
</main>"""
    return page(f"{title} – run {summary.case}", body)


def verdict(passed: bool | None, yes: str, no: str, unknown: str) -> str:
    """A label whose sign and word say what its colour says."""
    kind, text = ("", unknown) if passed is None else ("pass", yes) if passed else ("fail", no)
    return f'<span class="verdict {kind}">{text}</span>'


def table(caption: str, head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already; the first cell of a row is its heading."""
    _, *names = head
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = []
    for first, *others in rows:
        cells = "".join(
            f'<td data-name="{name}">{cell}</td>' for name, cell in zip(names, others, strict=True)
        )
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="wide rows" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _gate(run: Run) -> str:
    try:
        gate = json.loads((run.folder / "evaluation" / "gate.json").read_text(encoding="utf-8"))
        rows = [
            [
                escape(METRIC_NAMES.get(item["name"], item["name"].replace("_", " "))),
                escape(number(item["value"])),
                escape(str(item["bound"]).replace("_", " ")).replace(" ", "&nbsp;"),
                verdict(item["passed"], "passed", "not passed", "open"),
                escape(item["why"]),
            ]
            for item in gate["criteria"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "<p>No gate yet: notebook 03_evaluation makes it.</p>"
    head = ("Criterion", "Value", "Agreed bound", "Verdict", "Why")
    return table("Acceptance criteria, agreed before any work", head, rows)


def _steps(run: Run, steps: Mapping[str, Any]) -> Iterable[list[str]]:
    for step in STEPS:
        current = step in steps and run.done(step, steps[step]["parameters"])
        state = verdict(current if step in steps else None, "done", "out of date", "not run")
        links = [
            f'<a href="notebooks/{step}{suffix}">{text}</a>'
            for suffix, text in ((".html", "read"), (".ipynb", "open in Jupyter"))
            if (run.folder / "notebooks" / f"{step}{suffix}").is_file()
        ]
        yield [
            step,
            state,
            ", ".join(links) or "–",
            f"{steps[step]['seconds']:.1f}" if step in steps else "–",
        ]


def _files(run: Run, steps: Mapping[str, Any]) -> Iterable[list[str]]:
    for step in steps:
        for name in OUTPUTS[step]:
            if (run.folder / name).is_file():
                size = f"{max((run.folder / name).stat().st_size / 1000, 0.1):,.1f} kB"
                yield [f'<a href="{escape(name)}">{escape(name)}</a>', step, size]


def _parameters(parameters: Mapping[str, Mapping[str, object]]) -> Iterable[list[str]]:
    for name, by_step in sorted(parameters.items()):
        for value in dict.fromkeys(map(repr, by_step.values())):
            users = [step for step, given in by_step.items() if repr(given) == value]
            everywhere = len(users) == len(by_step) > 3
            yield [
                escape(name),
                f"<code>{escape(value)}</code>",
                "all that take it" if everywhere else ", ".join(users),
            ]
