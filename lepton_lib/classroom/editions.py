"""What is handed out, made from the course's notebooks alone: the learners' edition, the instructor's, and slides."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lepton_lib.classroom.cells import fill_in, keys_in, source_folder
from lepton_lib.errors import usable
from lepton_lib.exercises.definitions import Exercise, find_definition
from lepton_lib.runs import find_notebooks, refresh_notebooks
from lepton_lib.runs.execution import Listener
from lepton_lib.runs.pages import page, rendered
from lepton_lib.runs.parameters import read_notebook
from lepton_lib.utils import write_atomic

EDITIONS = ("learners", "instructor", "slides")
_HEADING = re.compile(r"^(?=#{1,3} )", re.MULTILINE)
_STYLE = """
html { scroll-snap-type: y proximity; } body { max-width: 70rem; padding-top: 0; font-size: 1.3rem; }
section { min-height: 100vh; scroll-snap-align: start; display: flex; flex-direction: column; justify-content: center;
  padding: 2rem 0; border-bottom: 1px solid var(--line); break-after: page; }
section img { max-height: 78vh; width: 100%; object-fit: contain; background: #fff; }
.foot { color: var(--soft); font-size: .9rem; margin-top: auto; }
"""
_KEYS = """<script>
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const slides = [...document.querySelectorAll("section")];
  const here = slides.findIndex((slide) => slide.getBoundingClientRect().bottom > innerHeight / 2);
  slides[Math.max(0, Math.min(slides.length - 1, here + step))].scrollIntoView();
});
</script>"""


def hand_out(folder: Path, *, notebooks: Sequence[Path] | None = None, progress: Listener | None = None) -> list[Path]:
    """Make all editions in ``learners/``, ``instructor/`` and ``slides/``; former ones there are replaced.

    The learners' notebooks have no output. The instructor's have every answer, are run, and have a note after each
    exercise. The slides are pages that need no network: headings, figures and tasks, with the arrow keys.

    Args:
        folder: Where.
        notebooks: The course's own by default.
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
    with usable(folder, remedy="Choose another."):
        for edition in EDITIONS:
            shutil.rmtree(folder / edition, ignore_errors=True)
            (folder / edition).mkdir(parents=True)
        for edition in EDITIONS[:2]:
            if (source / "images").is_dir():
                shutil.copytree(source / "images", folder / edition / "images")
        for path in paths:
            nb = read_notebook(path)
            write_atomic(folder / "learners" / path.name, nbformat.writes(nb) + "\n")
            write_atomic(folder / "instructor" / path.name, nbformat.writes(fill_in(nb)) + "\n")
            slides = page(path.stem, "\n".join(_slides(nbformat.read(path, 4), path.stem)) + _KEYS, _STYLE)
            write_atomic(folder / "slides" / f"{path.stem}.html", slides)
    answered = [folder / "instructor" / path.name for path in paths]
    refresh_notebooks(answered, progress=progress)
    for path in answered:
        write_atomic(path, nbformat.writes(_noted(nbformat.read(path, 4))) + "\n")
    return sorted(path for edition in EDITIONS for path in (folder / edition).rglob("*") if path.is_file())


def _noted(nb: Any) -> Any:
    """The notebook with a note after each exercise: minutes, objective and what readers get wrong."""
    from nbformat.v4 import new_markdown_cell

    cells = []
    for cell in nb.cells:
        cells.append(cell)
        for key in keys_in(cell.source) if cell.cell_type == "code" else []:
            definition = find_definition(key)
            wrong = definition.wrong
            messages = [one.message for one in wrong] if isinstance(wrong, tuple) else list(wrong.values())
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


def _slides(nb: Any, stem: str) -> Iterator[str]:
    """A slide for each heading with the first of its text, and for each figure; an exercise's task stands whole."""
    from nbformat.v4 import new_markdown_cell, new_notebook

    def slide(content: str) -> str:
        return f'<section>{content}<p class="foot">{escape(stem)}</p></section>'

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for part in _HEADING.split(cell.source):
                if part.startswith("#"):
                    task = re.match(r"### (Exercise|Question) ", part)
                    paragraphs = part.strip().split("\n\n")
                    text = "\n\n".join(paragraphs if task else paragraphs[:3])
                    yield slide(rendered(new_notebook(cells=[new_markdown_cell(text, id="slide")])))
            continue
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                alt = escape(str(output.metadata.get("image/png", {}).get("alt", "")))
                yield slide(f'<img alt="{alt}" src="data:image/png;base64,{"".join(picture.split())}">')
