"""What a teacher hands out, plans and starts from."""

import re

import nbformat
import pytest

from lepton_lib.artefacts import STEPS
from lepton_lib.classroom.editions import hand_out
from lepton_lib.classroom.pacing import (
    BREAK,
    Section,
    plan_lesson,
    run_steps_before,
    sections,
    stamp,
)
from lepton_lib.errors import ParameterError, RunError
from lepton_lib.exercises.definitions import definition_files, read_definitions
from lepton_lib.runs import find_notebooks
from lepton_lib.runs.notebooks import read_notebook
from tests.course import write_course
from tests.tiny import write_loop


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    """All editions of a small course, made twice."""
    root = tmp_path_factory.mktemp("course")
    source = write_course(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return source, [(root / name, hand_out(root / name)) for name in ("first", "second")]


def cells(path):
    return {cell.id: cell for cell in nbformat.read(path, 4).cells}


@pytest.mark.no_cover
def test_editions_come_out_the_same_twice(handed_out):
    """The same source gives the same bytes, whatever folder they go to."""
    (first, files), (second, again) = handed_out[1]
    names = [path.relative_to(first).as_posix() for path in files]
    assert names == [
        "instructor/07_small.ipynb",
        "instructor/images/dot.png",
        "learners/07_small.ipynb",
        "learners/images/dot.png",
        "slides/07_small.html",
    ]
    assert names == [path.relative_to(second).as_posix() for path in again]
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]


def test_learners_get_no_output_and_no_answer(handed_out):
    """The learners' notebook is the source without anything that was run."""
    source, ((folder, _), _) = handed_out
    learners = cells(folder / "learners" / "07_small.ipynb")
    assert {name: cell.source for name, cell in learners.items()} == {
        n: c.source for n, c in cells(source).items()
    }
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in learners.values())


def test_the_instructor_gets_answers_that_are_correct(handed_out):
    """Every exercise is answered and was run; a note has minutes, objective and misconceptions."""
    found = cells(handed_out[1][0][0] / "instructor" / "07_small.ipynb")
    for name, key in (("halve-it", "07.1"), ("a-share", "07.2"), ("which", "07.q1")):
        output = "".join(
            out.get("text", out.get("data", {}).get("text/plain", ""))
            for out in found[name].outputs
        )
        assert output.startswith(f"{key} correct: ")
        assert list(found)[list(found).index(name) + 1] == f"note-{key.replace('.', '-')}"
    note = found["note-07-1"].source
    assert note.startswith(
        "**For the instructor, 07.1**: 2 minutes, to write. After it learners can halve a number."
    )
    assert "- // rounds down.\n- That doubles." in note
    assert "- a is too early." in found["note-07-q1"].source


def test_slides_need_no_network(handed_out):
    """A slide for each heading and each task, on a page that loads nothing."""
    text = (handed_out[1][0][0] / "slides" / "07_small.html").read_text(encoding="utf-8")
    assert text.count("<section>") == 6 == text.count(" / 6</span>")
    assert "Mend it." in text
    assert "mend this" in text  # the code to start from
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?http", text)


def test_a_folder_that_cannot_be_written_is_one_message(handed_out, tmp_path, monkeypatch):
    """A file in the place of the folder is named."""
    monkeypatch.chdir(handed_out[0].parents[1])
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="can't be written to"):
        hand_out(tmp_path / "file")


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """All editions of the first notebook."""
    folder = tmp_path_factory.mktemp("editions")
    hand_out(folder, notebooks=[find_notebooks()["00_environment"]])
    return folder


@pytest.mark.no_cover
def test_the_instructors_edition_is_run_and_correct(editions):
    """Run from top to bottom, each check says *correct*, nothing fails, and notes follow."""
    nb = nbformat.read(editions / "instructor" / "00_environment.ipynb", 4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error"] == []
    text = "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs
    )
    known = list(read_definitions(definition_files()["00"]))
    assert re.findall(r"^(\d\d\.\w+) correct: ", text, re.MULTILINE) == known
    assert not re.findall(r"^(\d\d\.\w+) not ", text, re.MULTILINE)
    notes = [cell.id for cell in nb.cells if cell.id.startswith("note-")]
    assert notes == [f"note-{key.replace('.', '-')}" for key in known]


def test_learners_and_slides_come_from_the_same_source(editions):
    """The learners' cells are the course's, without outputs; every exercise has its slide."""
    source = nbformat.read(find_notebooks()["00_environment"], 4)
    learners = nbformat.read(editions / "learners" / "00_environment.ipynb", 4)
    assert [cell.source for cell in learners.cells] == [cell.source for cell in source.cells]
    assert not any(cell.get("outputs") for cell in learners.cells)
    slides = (editions / "slides" / "00_environment.html").read_text(encoding="utf-8")
    for key in read_definitions(definition_files()["00"]):
        assert f"{key}: " in slides


# Pacing


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The small course's notebook, from its folder."""
    path = write_course(tmp_path)
    monkeypatch.chdir(tmp_path)
    return path


def test_minutes_are_measured_from_the_content(course):
    """Words, code and the exercises' minutes add up; the line that tells them isn't counted."""
    found = sections(course)
    assert [(one.title, one.exercises) for one in found] == [
        ("Introduction", ()),
        ("Halves", ("07.1", "07.2")),
        ("Letters", ("07.q1",)),
    ]
    assert [one.minutes for one in found] == [2, 6, 2]
    nb = stamp(read_notebook(course), found)
    nbformat.write(nb, course)
    assert "## Halves\n\n*About 6 minutes.*\n\nSome words" in nb.cells[3].source
    assert sections(course) == found
    assert stamp(read_notebook(course), found) == nb
    assert (
        "*About 1 minute.*"
        in stamp(nb, [found[0], found[1]._replace(minutes=1), found[2]]).cells[3].source
    )


def fake(monkeypatch, *minutes):
    """Sections of these minutes in each notebook; the second has an exercise."""

    def made(path):
        return [
            Section(path.stem[:2], f"s{k}", m, ("x",) if k == 1 else ())
            for k, m in enumerate(minutes)
        ]

    monkeypatch.setattr("lepton_lib.classroom.pacing.sections", made)


def test_a_plan_fits_its_minutes(tmp_path, monkeypatch, lepton):
    """Sections in order, exercises first where not all fit, breaks in time, the rest named."""
    write_loop(tmp_path)
    monkeypatch.chdir(tmp_path)
    fake(monkeypatch, 20, 20, 20)
    whole = plan_lesson(150, ["training", "1"])
    assert [item and item.title for _, item in whole.items] == [
        "s0",
        "s1",
        None,
        "s2",
        "s0",
        None,
        "s1",
        "s2",
    ]
    assert [item.notebook for _, item in whole.items if item] == ["01"] * 3 + ["02"] * 3
    assert (whole.minutes, whole.left) == (6 * 20 + 2 * BREAK, [])
    short = plan_lesson(45, ["01", "02"])
    assert [(at, item.notebook, item.title) for at, item in short.items] == [
        (0, "01", "s1"),
        (20, "02", "s1"),
    ]
    assert len(short.left) == 4
    code, out, _ = lepton("plan", "--minutes", "45", "--goals", "data, training")
    assert (code, out.splitlines()[0]) == (0, "0:00   20 min  01 s1  (x)")
    assert "To read before or after:" in out


def test_a_plan_keeps_what_the_steps_after_it_need():
    """Sections whose code the loop runs come before those with exercises, and those before others.

    02 without the section that makes the run's model would leave 03 nothing to evaluate.
    """
    plan = plan_lesson(180, ["data", "training"])
    chosen = {section for _, section in plan.items if section}
    assert "The model of this run" in {section.title for section in chosen}
    assert not any(section.needed for section in plan.left)
    assert any(section.exercises for section in plan.left)


@pytest.mark.parametrize(
    ("minutes", "goals", "said"), [(5, ["data"], "5 minutes"), (90, ["cooking"], "no such step")]
)
def test_a_plan_that_cannot_be_made(tmp_path, monkeypatch, minutes, goals, said):
    """A goal that is no step, or no time for anything, is one message."""
    write_loop(tmp_path)
    monkeypatch.chdir(tmp_path)
    fake(monkeypatch, 20)
    with pytest.raises(ParameterError, match=said):
        plan_lesson(minutes, goals)


def test_a_room_starts_together(tmp_path, monkeypatch, lepton):
    """The steps before a notebook run once, and their codes are the same in every folder."""
    write_loop(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = lepton("jump", "02")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:2]] == list(STEPS[:2])
    assert err.count("finished") == 2
    again = lepton("jump", "training")
    assert again[1].splitlines()[:2] == out.splitlines()[:2]
    assert again[2].count("already done") == 2
    assert [
        f"{step:<16} {digest}" for step, digest in run_steps_before("02", tmp_path / "other")
    ] == out.splitlines()[:2]
    assert run_steps_before("00", tmp_path / "none") == []
    assert lepton("jump", "07")[0] == 2


@pytest.mark.parametrize("path", find_notebooks().values(), ids=lambda path: path.stem)
def test_a_notebook_tells_the_minutes_of_its_sections(path):
    """Under each section's heading stand the minutes that its content is measured to take."""
    nb = read_notebook(path)
    before = [cell.source for cell in nb.cells]
    assert [cell.source for cell in stamp(nb, sections(path)).cells] == before
