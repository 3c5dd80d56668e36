"""What is handed out, made from the course's notebooks alone: the learners' edition, the instructor's, and slides."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lepton_lib.classroom.cells import fill_in, keys_in, source_folder
from lepton_lib.errors import wrap_os_errors
from lepton_lib.exercises.definitions import Exercise, find_definition
from lepton_lib.runs import find_notebooks, refresh_notebooks
from lepton_lib.runs.execution import Listener
from lepton_lib.runs.pages import NOTEBOOK_STYLE, markdown_to_html, page, rendered
from lepton_lib.runs.parameters import read_notebook
from lepton_lib.utils import write_atomic

EDITIONS = ("learners", "instructor", "slides")
_HEADING = re.compile(r"^(?=#{1,3} )", re.MULTILINE)
# A slide is as high as the window, its text as large as fits; printed, it is a page of 1280 x 720.
_STYLE = """
@page { size: 1280px 720px; margin: 0; }
:root { --w: 100vw; --h: 100vh; }
html { scroll-snap-type: y mandatory; }
body { max-width: none; padding: 0; font-size: min(calc(var(--w) * .02), calc(var(--h) * .036)); }
section { height: var(--h); scroll-snap-align: start; display: flex; flex-direction: column; break-after: page;
  padding: 1.6em 8% .5em; overflow: hidden; }
.slide { flex: 1; min-height: 0; overflow: auto; display: flex; flex-direction: column; justify-content: safe center; }
.slide.figure { overflow: hidden; }
.slide img { max-height: 100%; width: 100%; object-fit: contain; background: #fff; }
.slide :is(.text_cell, .text_cell_render, .output_subarea) { max-width: none; overflow: visible; }
h1 { font-size: 2em; } h2 { font-size: 1.6em; margin: .2em 0 .5em; } h3 { font-size: 1.3em; margin: .2em 0 .5em; }
pre, code { font-size: .9em; } pre { white-space: pre-wrap; } table { font-size: .85em; width: auto; }
.prompt { display: none; } aside { display: none; }
.noted aside { display: block; max-height: 38%; overflow: auto; font-size: .75em; border-top: 2px solid var(--line); }
.foot { color: var(--soft); font-size: .65em; margin: .4em 0 0; display: flex; justify-content: space-between; }
@media print { aside { display: none !important; } }
"""
_KEYS = """<script>
const slides = [...document.querySelectorAll("section")], root = document.documentElement.style;
function fit() {
  for (const slide of document.querySelectorAll(".slide:not(.figure)"))
    for (let size = 100; size >= 30; size -= 5) {
      slide.style.fontSize = size + "%";
      if (slide.scrollHeight <= slide.clientHeight + 1 && slide.scrollWidth <= slide.clientWidth + 1) break;
    }
}
function go(step) {
  const here = slides.findIndex((slide) => slide.getBoundingClientRect().bottom > innerHeight / 2);
  slides[Math.max(0, Math.min(slides.length - 1, here + step))].scrollIntoView();
}
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1,
    Home: -1e4, End: 1e4 }[event.key];
  if (event.ctrlKey || event.altKey || event.metaKey || !(step || event.key === "n")) return;
  event.preventDefault();
  if (step) return go(step);
  document.body.classList.toggle("noted");
  fit();
});
let from = 0;
addEventListener("touchstart", (event) => { from = event.touches[0].clientX; }, { passive: true });
addEventListener("touchend", (event) => {
  const way = event.changedTouches[0].clientX - from;
  if (Math.abs(way) > 60) go(way < 0 ? 1 : -1);
});
addEventListener("resize", fit);
addEventListener("beforeprint", () => { root.setProperty("--w", "1280px"); root.setProperty("--h", "720px"); fit(); });
addEventListener("afterprint", () => { root.removeProperty("--w"); root.removeProperty("--h"); fit(); });
fit();
</script>"""


def hand_out(
    folder: Path,
    *,
    notebooks: Sequence[Path] | None = None,
    nbgrader: bool = False,
    progress: Listener | None = None,
) -> list[Path]:
    """Make all editions in ``learners/``, ``instructor/`` and ``slides/``; former ones there are replaced.

    The learners' notebooks have no output. The instructor's have every answer, are run, and have a
    note after each exercise. The slides are pages that need no network: headings, figures and
    tasks, by arrow keys or swipes; the key n shows the notes, and printed each slide is a page.

    Args:
        folder: Where.
        notebooks: The course's own by default.
        nbgrader: Whether a test that nbgrader grades follows each exercise, for learners and
            instructor.
        progress: As for `run_notebook`, while the instructor's edition is run.

    Returns:
        The files made, in order; the same bytes on every call.

    Raises:
        RunError: The folder can't be written to.
        NotebookError: An instructor's notebook doesn't run to its end.
    """
    import nbformat

    paths = list(find_notebooks().values()) if notebooks is None else list(notebooks)
    source = source_folder()
    with wrap_os_errors(folder, remedy="Choose another."):
        for edition in EDITIONS:
            shutil.rmtree(folder / edition, ignore_errors=True)
            (folder / edition).mkdir(parents=True)
        for edition in EDITIONS[:2]:
            if (source / "images").is_dir():
                shutil.copytree(source / "images", folder / edition / "images")
        for path in paths:
            nb = _tested(read_notebook(path)) if nbgrader else read_notebook(path)
            write_atomic(folder / "learners" / path.name, nbformat.writes(nb) + "\n")
            write_atomic(folder / "instructor" / path.name, nbformat.writes(fill_in(nb)) + "\n")
            write_atomic(
                folder / "slides" / f"{path.stem}.html",
                slides_page(nbformat.read(path, 4), path.stem),
            )
    answered = [folder / "instructor" / path.name for path in paths]
    refresh_notebooks(answered, progress=progress)
    for path in answered:
        write_atomic(path, nbformat.writes(_noted(nbformat.read(path, 4))) + "\n")
    return sorted(
        path for edition in EDITIONS for path in (folder / edition).rglob("*") if path.is_file()
    )


def _tested(nb: Any) -> Any:
    """The notebook with a locked cell after each exercise, which nbgrader gives a point: its metadata's version 3."""
    from nbformat.v4 import new_code_cell

    cells = []
    for cell in nb.cells:
        cells.append(cell)
        for key in keys_in(cell.source) if cell.cell_type == "code" else []:
            name = f"test-{key.replace('.', '-')}"
            source = (
                "from lepton_lib.exercises import progress_card\n\n"
                f'assert progress_card("{key[:2]}").lines["{key}"][1].status == "correct", "{key} is not correct yet"'
            )
            # Over source, type, grade, solution, locked, name and points:
            # nbgrader.utils.compute_checksum, of 0.9.
            checksum = hashlib.md5(
                f"{source}codeTrueFalseTrue{name}1.0".encode(), usedforsecurity=False
            ).hexdigest()
            metadata = {
                "schema_version": 3,
                "grade_id": name,
                "grade": True,
                "points": 1,
                "locked": True,
            }
            metadata |= {
                "solution": False,
                "task": False,
                "cell_type": "code",
                "checksum": checksum,
            }
            cells.append(new_code_cell(source, id=name, metadata={"nbgrader": metadata}))
    nb.cells = cells
    return nb


def _noted(nb: Any) -> Any:
    """The notebook with a note after each exercise: minutes, objective and what readers get wrong."""
    from nbformat.v4 import new_markdown_cell

    cells = []
    for cell in nb.cells:
        cells.append(cell)
        for key in keys_in(cell.source) if cell.cell_type == "code" else []:
            definition = find_definition(key)
            wrong = definition.wrong
            messages = (
                [one.message for one in wrong] if isinstance(wrong, tuple) else list(wrong.values())
            )
            kind = f", to {definition.kind}" if isinstance(definition, Exercise) else ""
            lines = [
                f"**For the instructor, {key}**: {definition.minutes:g} minutes{kind}. "
                f"After it learners can {definition.objective.rstrip('.')}.",
                "Answers that are known to be wrong earn:",
                "\n".join(f"- {message}" for message in messages),
                f"A correct one: {definition.why}",
            ]
            cells.append(new_markdown_cell("\n\n".join(lines), id=f"note-{key.replace('.', '-')}"))
    nb.cells = cells
    return nb


def slides_page(nb: Any, stem: str) -> str:
    """The slides as one page: one for each heading with the first of its text, for each figure, and for each task."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    def html(*cells: Any) -> str:
        return f'<div class="slide">{rendered(new_notebook(cells=list(cells)))}</div>'

    found: list[list[str]] = []  # a slide's content, and its notes
    task = None  # the last slide's, if it is one: the code to start from comes to it
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for part in _HEADING.split(cell.source):
                if part.startswith("#"):
                    paragraphs = part.strip().split("\n\n")
                    whole = re.match(r"### (Exercise|Question) ", part)
                    most = len(paragraphs) if whole else 3
                    # "After this you can"
                    while most < len(paragraphs) and paragraphs[most - 1][-1] not in ".!?*`)":
                        most += 1
                    text, rest = "\n\n".join(paragraphs[:most]), "\n\n".join(paragraphs[most:])
                    shown = new_markdown_cell(text, id="slide")
                    found.append([html(shown), markdown_to_html(rest)])
                    task = (found[-1], shown) if whole else None
            continue
        if task is not None and keys_in(cell.source):
            task[0][0] = html(task[1], new_code_cell(cell.source, id="code"))
            task = None
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                alt = escape(str(output.metadata.get("image/png", {}).get("alt", "")))
                image = f'<img alt="{alt}" src="data:image/png;base64,{"".join(picture.split())}">'
                found.append([f'<div class="slide figure">{image}</div>', ""])
    sections = [
        f'<section>{content}<aside>{notes}</aside><p class="foot"><span>{escape(stem)}</span>'
        f"<span>{number} / {len(found)}</span></p></section>"
        for number, (content, notes) in enumerate(found, start=1)
    ]
    return page(stem, "\n".join(sections) + _KEYS, NOTEBOOK_STYLE + _STYLE)
