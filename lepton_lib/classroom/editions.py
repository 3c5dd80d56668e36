"""Makes what a teacher hands out: the learners' and the instructor's edition, and slides."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lepton_lib.classroom.notebooks import (
    fill_in,
    insert_after_exercises,
    keys_in,
    source_folder,
    write_notebook,
)
from lepton_lib.errors import wrap_os_errors
from lepton_lib.exercises.definitions import find_definition, number_of
from lepton_lib.runs import find_notebooks, refresh_notebooks
from lepton_lib.runs.execution import ProgressCallback
from lepton_lib.runs.notebook_html import cells_to_html, markdown_to_html
from lepton_lib.runs.notebooks import read_notebook
from lepton_lib.utils import render, write_atomic

LEARNERS, INSTRUCTOR, SLIDES = EDITIONS = ("learners", "instructor", "slides")
SHOWN = ("images", "diagrams")  # folders of pictures that the notebooks show
_BEFORE_HEADING = re.compile(r"^(?=#{1,3} )", re.MULTILINE)
_TASK = re.compile(r"### (Exercise|Question) ")


def hand_out(
    folder: Path,
    *,
    notebooks: Sequence[Path] | None = None,
    nbgrader: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Make all editions in ``learners/``, ``instructor/`` and ``slides/``, and replace former ones.

    The learners' notebooks have no output. The instructor's have every answer, are run, and have a
    note after each exercise. The slides are pages that need no network: headings, figures and
    tasks, by arrow keys or swipes; the key n shows the notes, and printed each slide is a page.

    Args:
        folder: Where.
        notebooks: The course's own by default.
        nbgrader: Whether a test that nbgrader grades follows each exercise.
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
            for shown in SHOWN if edition != SLIDES else ():
                if (source / shown).is_dir():
                    shutil.copytree(source / shown, folder / edition / shown)
        for path in paths:
            nb, name = read_notebook(path), path.relative_to(source)
            if nbgrader:
                nb = insert_after_exercises(nb, _nbgrader_test)
            for edition in EDITIONS:
                (folder / edition / name).parent.mkdir(exist_ok=True)
            write_notebook(folder / LEARNERS / name, nb)
            write_notebook(folder / INSTRUCTOR / name, fill_in(nb))
            page = slides_page(nbformat.read(path, 4), path.stem)
            write_atomic(folder / SLIDES / name.with_suffix(".html"), page)
    answered = [folder / INSTRUCTOR / path.relative_to(source) for path in paths]
    refresh_notebooks(answered, progress=progress)
    for path in answered:
        write_notebook(path, insert_after_exercises(nbformat.read(path, 4), _instructor_note))
    files = [path for edition in EDITIONS for path in (folder / edition).rglob("*")]
    return sorted(path for path in files if path.is_file())


def _nbgrader_test(key: str) -> Any:
    """A locked cell that nbgrader gives a point: version 3 of its metadata."""
    from nbformat.v4 import new_code_cell

    name = f"test-{key.replace('.', '-')}"
    done = f'progress_card("{number_of(key)}").lines["{key}"][1].status == "correct"'
    source = "from lepton_lib.exercises import progress_card\n\n"
    source += f'assert {done}, "{key} is not correct yet"'
    # nbgrader.utils.compute_checksum, of 0.9: source, type, grade, solution, locked, name, points
    text = f"{source}codeTrueFalseTrue{name}1.0"
    checksum = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    metadata = {"schema_version": 3, "cell_type": "code", "grade_id": name, "checksum": checksum}
    metadata |= {"grade": True, "points": 1, "locked": True, "solution": False, "task": False}
    return new_code_cell(source, id=name, metadata={"nbgrader": metadata})


def _instructor_note(key: str) -> Any:
    """A cell with an exercise's minutes, its objective and what readers get wrong."""
    from nbformat.v4 import new_markdown_cell

    exercise = find_definition(key)
    note = render("classroom/templates/instructor_note.md", exercise=exercise)
    return new_markdown_cell(note.strip(), id=f"note-{key.replace('.', '-')}")


@dataclass
class Slide:
    """A slide: cells of a notebook, or a picture."""

    cells: list[Any] = field(default_factory=list)
    notes: Markup | str = ""  # HTML, which the key n shows
    picture: str = ""  # a PNG in Base64
    alt: str = ""

    @property
    def content(self) -> Markup:
        """The cells as HTML."""
        from nbformat.v4 import new_notebook

        return cells_to_html(new_notebook(cells=self.cells), source_folder())


def slides_page(nb: Any, title: str) -> str:
    """The slides as one page: a slide for each heading, for each figure and for each task."""
    return render("classroom/templates/slides.html", title=title, slides=_slides(nb))


def _slides(nb: Any) -> list[Slide]:
    from nbformat.v4 import new_code_cell

    slides: list[Slide] = []
    task = None  # the last slide's, to which the code to start from comes
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            source = cell.source.replace("](../diagrams/", "](diagrams/")  # a lesson's in a folder
            for part in _BEFORE_HEADING.split(source):
                if part.startswith("#"):
                    slides.append(_text_slide(part))
                    task = slides[-1] if _TASK.match(part) else None
            continue
        if task is not None and keys_in(cell.source):
            task.cells.append(new_code_cell(cell.source, id="code"))
            task = None
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                slides.append(Slide(picture="".join(picture.split()), alt=alt))
    return slides


def _text_slide(source: str) -> Slide:
    """A slide of a heading and the first paragraphs, or of a whole task; the rest is its notes."""
    from nbformat.v4 import new_markdown_cell

    paragraphs = source.strip().split("\n\n")
    n_shown = len(paragraphs) if _TASK.match(source) else 3
    # "After this you can" is shown with what follows
    while n_shown < len(paragraphs) and paragraphs[n_shown - 1][-1] not in ".!?*`)":
        n_shown += 1
    shown, rest = "\n\n".join(paragraphs[:n_shown]), "\n\n".join(paragraphs[n_shown:])
    return Slide([new_markdown_cell(shown, id="slide")], markdown_to_html(rest, source_folder()))
