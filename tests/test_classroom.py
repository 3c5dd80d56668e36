"""A reader's side of a class: filled in answers, work folders, progress and certificates."""

import datetime
import json
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from lepton_lib import exercises
from lepton_lib.classroom import notebooks
from lepton_lib.classroom.certificate import (
    Certificate,
    make_certificate,
    progress_cards,
    verify_certificate,
)
from lepton_lib.classroom.notebooks import bound_and_read, fill_in
from lepton_lib.classroom.work_folder import make_work
from lepton_lib.errors import ExerciseError, ParameterError, RunError
from lepton_lib.exercises import check
from lepton_lib.exercises.progress import PROGRESS_FILE, WORK_FILE
from tests.course import answered, write_course
from tests.test_exercises import halve


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The folder of a small course, which is the working directory; no exercise has been tried."""
    write_course(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exercises, "_session", [])
    return tmp_path


def sources(path):
    return {cell.id: cell.source for cell in nbformat.read(path, 4).cells}


def edit(path, *, clear=False, **changes):
    """Give cells of a notebook other sources, by their ids with _ for -; None takes a cell out."""
    nb = nbformat.read(path, 4)
    for name, source in changes.items():
        cell = next(cell for cell in nb.cells if cell.id == name.replace("_", "-"))
        if source is None:
            nb.cells.remove(cell)
        else:
            cell.source = source
        if clear and cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.write(nb, path)


# Answers put in


def test_answers_take_the_place_of_what_stands_there(course):
    """The answer replaces what defines its names; the check, imports and given values stay."""
    nb = nbformat.read(course / "notebooks" / "07_small.ipynb", 4)
    cell = next(cell for cell in nb.cells if cell.id == "a-share")
    cell.source = f"import math\n\ntotal = 8\nunused = math.pi\n{cell.source}"
    filled = {cell.id: cell.source for cell in fill_in(nb).cells}
    lines = [line for line in filled["halve-it"].splitlines() if line]
    assert (lines[0], lines[-1]) == ("def halve(x):", 'check("07.1", halve)')
    assert "// 2" not in filled["halve-it"]
    assert filled["a-share"].split() == [
        "import",
        "math",
        "total",
        "=",
        "8",
        "unused",
        "=",
        "math.pi",
        "share",
        "=",
        "2",
        "/",
        "total",
        "share",
        "=",
        'checkpoint("07.2",',
        "share)",
    ]
    assert filled["which"] == 'check("07.q1", "b")'
    assert filled["total"] == next(cell.source for cell in nb.cells if cell.id == "total")


def test_other_answers_can_be_put_in(course):
    """Any code or letter goes in by its key, so that a class can be made up."""
    filled = answered(course / "notebooks" / "07_small.ipynb", n2="share = 25", nq1="c")
    by_id = {cell.id: cell.source for cell in filled.cells}
    assert by_id["a-share"].startswith("share = 25\n")
    assert by_id["which"] == 'check("07.q1", "c")'


@pytest.mark.parametrize(
    ("code", "bound", "read"),
    [
        ("import a.b as c, d.e", {"c", "d"}, set()),
        ("x[0] = y", {"x"}, {"x", "y"}),
        ("x.a.b = 1", {"x"}, {"x"}),
        ("rows.pop(3)", {"rows"}, {"rows"}),
        ("show(rows)", set(), {"show", "rows"}),
        ("n += 1", {"n"}, {"n"}),
        ("def f(a):\n    n = a\n    return n + b", {"f"}, {"b"}),
        ("z = [k for k in y]", {"z"}, {"y"}),
    ],
)
def test_names(code, bound, read):
    """What a statement binds or changes, and what it reads."""
    assert bound_and_read(code) == (bound, read)


# Work folders


@pytest.fixture
def worked(course):
    """A work folder as it is made first, and the paths of the copy and of the source."""
    assert make_work(course / "work") == ["07_small.ipynb: copied"]
    return course / "work" / "07_small.ipynb", course / "notebooks" / "07_small.ipynb"


def test_a_work_folder_holds_copies_without_outputs(worked):
    """Notebooks and pictures are copied, definitions aren't; the same call again does nothing."""
    copy, source = worked
    assert sources(copy) == sources(source)
    assert (copy.parent / "images" / "dot.png").read_bytes() == b"picture"
    assert not (copy.parent / "exercises").exists()
    before = copy.stat().st_mtime_ns
    edit(copy, halve_it="mine")
    assert make_work(copy.parent) == []
    assert sources(copy)["halve-it"] == "mine"
    assert copy.stat().st_mtime_ns > before


def test_an_untouched_copy_is_brought_up_to_date(worked):
    """A copy that was only run is replaced by a new edition."""
    copy, source = worked
    nb = nbformat.read(copy, 4)
    nb.cells[1].outputs = [nbformat.v4.new_output("stream", text="run")]
    nbformat.write(nb, copy)
    edit(source, after_share="print(share)")
    assert make_work(copy.parent) == ["07_small.ipynb: brought up to date"]
    assert sources(copy)["after-share"] == "print(share)"
    assert not list(copy.parent.glob("*before-update*"))


def test_answers_go_into_the_new_edition(worked):
    """An edited copy gets the new edition with the reader's answers and cells; it is backed up."""
    copy, source = worked
    edit(
        copy,
        halve_it='def halve(x):\n    return x / 2\n\n\ncheck("07.1", halve)',
        parameters="case = 'heart'",
    )
    nb = nbformat.read(copy, 4)
    at = next(k for k, cell in enumerate(nb.cells) if cell.id == "total")
    nb.cells[at + 1 : at + 1] = [
        new_code_cell("1 + 1", id="mine-1"),
        new_markdown_cell("Aha.", id="mine-2"),
    ]
    nbformat.write(nb, copy)
    former = sources(copy)
    edit(source, after_share="print(share)", unneeded=None)
    assert make_work(copy.parent) == [
        "07_small.ipynb: brought up to date with 1 of your answers and 2 of your own cells; "
        "as it was: 07_small.before-update.ipynb; "
        "1 that you changed or that this edition no longer has: only there"
    ]
    now = sources(copy)
    assert "x / 2" in now["halve-it"]
    assert now["after-share"] == "print(share)"
    assert now["parameters"] == sources(source)["parameters"]
    assert "unneeded" not in now
    assert list(now)[list(now).index("total") :][:3] == ["total", "mine-1", "mine-2"]
    assert sources(copy.with_name("07_small.before-update.ipynb")) == former
    edit(source, after_share="print(share, 2)")
    assert "as it was: 07_small.before-update-2.ipynb" in make_work(copy.parent)[0]


def test_an_exercise_that_both_sides_changed_is_named(worked):
    """An edition that changes an answered exercise, too, is reported; the answer stays."""
    copy, source = worked
    edit(copy, a_share='share = 0.25\nshare = checkpoint("07.2", share)')
    edit(source, a_share='rows = 9\nshare = ...\nshare = checkpoint("07.2", share)')
    (line,) = make_work(copy.parent)
    assert line.endswith("; changed in this edition too, so compare with the course's: 07.2")
    assert sources(copy)["a-share"].startswith("share = 0.25\n")


def saved_by_another_tool(path, minor, mark=""):
    """Write a notebook as tools do that know no ids of cells, or that begin with a mark."""
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        del cell["id"]
    path.write_text(mark + json.dumps(content | {"nbformat_minor": minor}), encoding="utf-8")


@pytest.mark.parametrize(("minor", "mark"), [(0, ""), (4, "\ufeff"), (5, "")])
def test_a_copy_that_another_tool_saved(worked, minor, mark):
    """Without ids, cells are known by their source or exercise: nothing is lost or doubled."""
    copy, source = worked
    edit(copy, halve_it='def halve(x):\n    return x / 2\n\n\ncheck("07.1", halve)')
    nb = nbformat.read(copy, 4)
    nb.cells.insert(2, new_code_cell("1 + 1"))
    nbformat.write(nb, copy)
    saved_by_another_tool(copy, minor, mark)
    assert make_work(copy.parent) == []
    edit(source, after_share="print(share)")
    (line,) = make_work(copy.parent)
    assert "with 1 of your answers and 1 of your own cells; as it was" in line
    assert "only there" not in line
    now = sources(copy)
    assert "x / 2" in now["halve-it"]
    assert now["after-share"] == "print(share)"
    assert len(now) == len(sources(source)) + 1
    assert list(now.values()).index("1 + 1") == 2


@pytest.mark.parametrize(
    ("harm", "said", "kept"),
    [
        (lambda path: path.write_text('{"cells": [{"cell_'), "was no longer a notebook", True),
        (lambda path: path.write_bytes(b""), "was no longer a notebook", True),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "was no longer a notebook", True),
        (lambda path: path.unlink(), "copied again", False),
        (lambda path: path.chmod(0o400), "", False),
    ],
)
def test_a_damaged_work_folder_is_repaired(worked, harm, said, kept):
    """A copy that was cut short or deleted is there again, and what lay in its place is kept."""
    copy, source = worked
    harm(copy)
    bytes_ = copy.read_bytes() if copy.exists() else b""
    done = make_work(copy.parent)
    assert (said in done[0]) if said else done == []
    assert sources(copy) == sources(source)
    kept_file = copy.with_name("07_small.before-update.ipynb")
    assert kept_file.exists() == kept
    assert not kept or kept_file.read_bytes() == bytes_


def test_a_lost_marker_costs_no_answer(worked):
    """Where the marker is broken, whatever differs from the edition counts as the reader's."""
    copy, source = worked
    (copy.parent / WORK_FILE).write_text("[")
    edit(copy, halve_it='def halve(x):\n    return 7\n\n\ncheck("07.1", halve)')
    edit(source, after_share="print(share)")
    assert "with 1 of your answers" in make_work(copy.parent)[0]
    assert "return 7" in sources(copy)["halve-it"]
    assert json.loads((copy.parent / WORK_FILE).read_text())["07_small.ipynb"]


def test_a_folder_of_other_notebooks_is_refused(course):
    """The course's own notebooks, and anyone else's, are never written over."""
    before = (course / "notebooks" / "07_small.ipynb").read_bytes()
    with pytest.raises(ParameterError, match="Choose another"):
        make_work(course / "notebooks")
    (course / "mine").mkdir()
    (course / "mine" / "07_small.ipynb").write_text("{}")
    with pytest.raises(ParameterError, match="aren't copies of the course's"):
        make_work(course / "mine")
    assert (course / "notebooks" / "07_small.ipynb").read_bytes() == before


def test_a_work_folder_that_cannot_be_written_is_refused(worked, monkeypatch):
    """A read-only folder is one message, and what was there stays."""
    copy, source = worked
    edit(source, after_share="print(share)")
    before = copy.read_bytes()

    def refuse(path, _):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(notebooks, "write_atomic", refuse)
    with pytest.raises(RunError, match=r"can't be read or written \(Permission denied\)"):
        make_work(copy.parent)
    assert copy.read_bytes() == before
    with pytest.raises(RunError):
        make_work(source / "work")


# Progress and certificates


@pytest.fixture
def done(worked, monkeypatch):
    """A work folder, the working directory, with everything done; one after seeing the solution."""
    folder = worked[0].parent
    monkeypatch.chdir(folder)
    exercises.solution("07.2")
    for key, answer in {"07.1": halve, "07.2": 0.25, "07.q1": "b"}.items():
        assert check(key, answer).status == "correct"
    return folder


def test_progress_over_all_notebooks(worked, lepton, monkeypatch):
    """The cards of all notebooks and their sum, from the work folder around or below."""
    monkeypatch.chdir(worked[0].parent)
    check("07.q1", "b")
    monkeypatch.chdir(worked[0].parents[1])
    code, out, _ = lepton("progress")
    assert not code
    assert "[x] 07.q1  Which?" in out
    assert out.endswith("In all 1 of 3 done.\n")
    with pytest.raises(ExerciseError, match="no work folder"):
        progress_cards(worked[1].parent)


def test_no_certificate_before_all_is_done(worked):
    """What is still open is named."""
    with pytest.raises(ExerciseError, match=r"3 of 3 not done yet: 07\.1, 07\.2, 07\.q1"):
        make_certificate("Ada", worked[0].parent)


NAMES = [
    "Ada Lovelace",
    'R. "Bob" <b>&amp;</b> O\'Neil',
    "王小明",
    "$name ${code}",
    "x" * 60,
    "  spaced \n out ",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("done")
def test_a_certificate_is_accepted_as_it_was_issued(name):
    """File and code are accepted with the name, whatever its characters; the SVG is well formed."""
    drawn = make_certificate(name, day=datetime.date(2026, 3, 1))
    shown = " ".join(name.split())
    root = ElementTree.fromstring(drawn)
    texts = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert texts["name"] == shown
    said = verify_certificate(drawn)
    assert said.startswith(
        f"The code fits: {shown}, 1 March 2026, 3 exercises and questions, 1 of them after"
    )
    assert "no signature: anyone with the course can compute one" in said
    assert "no signature" in drawn
    code = next(
        element.text for element in root.iter() if (element.text or "").startswith("LEPTON-")
    )
    assert verify_certificate(code, name) == said
    with pytest.raises(ExerciseError):
        verify_certificate(code, "Someone Else")
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.usefixtures("done")
def test_a_long_name_is_drawn_smaller():
    """Up to 24 letters are drawn in full size, more in proportion: 60 lie within the frame."""
    drawn = {n: make_certificate("x" * n, day=datetime.date(2026, 3, 1)) for n in (1, 24, 30, 60)}
    assert {
        n: ElementTree.fromstring(page).find(".//*[@id='name']").get("font-size")
        for n, page in drawn.items()
    } == {
        1: "58",
        24: "58",
        30: "52",
        60: "29",
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Ada", "Eve"),
        ("1 March", "2 March"),
        ("20260301", "20250301"),
        ("-3-1-", "-3-0-"),
        (" 1 of", " 0 of"),
        ("</svg>", "<text>also</text></svg>"),
        ("LEPTON", "LAPTOP"),
        ("#fdfcf8", "#ffffff"),
    ],
)
@pytest.mark.usefixtures("done")
def test_a_changed_certificate_is_refused(old, new):
    """Whatever is changed in it, its code no longer fits."""
    drawn = make_certificate("Ada", day=datetime.date(2026, 3, 1))
    assert old in drawn
    with pytest.raises(ExerciseError, match="expected a certificate as"):
        verify_certificate(drawn.replace(old, new))


@pytest.mark.parametrize(
    ("day", "n_done", "n_seen"),
    [("20260231", 3, 0), ("29990101", 3, 0), ("20260301", 9999, 0), ("20260301", 3, 4)],
)
@pytest.mark.usefixtures("done")
def test_an_impossible_certificate_is_refused(day, n_done, n_seen):
    """No such day, a day to come, more exercises than there are: the code may fit all the same."""
    forged = Certificate("Ada", day, n_done, n_seen)
    with pytest.raises(ExerciseError, match="one that this course doesn't make"):
        verify_certificate(forged.code, "Ada")
    assert verify_certificate(Certificate("Ada", "20260301", 3, 0).code, "Ada")


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\x00b"])
@pytest.mark.usefixtures("done")
def test_a_name_that_cannot_be_set_is_refused(name):
    """A certificate needs a name that can be printed."""
    with pytest.raises(ExerciseError, match="the name"):
        make_certificate(name)


def test_the_certificate_command(done, lepton):
    """The command writes the drawing, verifies file and code, and fails on a forged one."""
    assert lepton("certificate", "Ada", "--out", "ada.svg")[0] == 0
    assert lepton("certificate", "--verify", "ada.svg")[1].startswith("The code fits: Ada, ")
    assert lepton("certificate", "--verify", "LEPTON-20260301-3-0-AAAAAAAAAAAAAAAA", "Ada")[0] == 2
    (done / PROGRESS_FILE).unlink()
    assert lepton("certificate", "Ada")[0] == 2


def test_the_answers_are_never_in_the_progress(done):
    """The file of a reader's progress holds only keys and outcomes."""
    events = [json.loads(line) for line in (done / PROGRESS_FILE).read_text().splitlines()]
    assert [tuple(event.items()) for event in events] == [
        (("exercise", "07.2"), ("event", "solution")),
        *((("exercise", key), ("event", "correct")) for key in ("07.1", "07.2", "07.q1")),
    ]
