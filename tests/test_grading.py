"""A class's notebooks, as they come off a USB stick: every kind of them has its row."""

import csv
import io
import json
import os
import re
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell

from lepton_lib import plots
from lepton_lib.classroom import sandbox
from lepton_lib.classroom.class_report import (
    NO_EXAM,
    class_csv,
    class_html,
    not_run,
    shared_misconceptions,
    write_class_report,
)
from lepton_lib.classroom.grading import (
    INTERRUPTED,
    NOT_ISOLATED,
    NOT_RUN,
    Graded,
    Learner,
    Result,
    find_learners,
    grade,
)
from lepton_lib.classroom.sandbox import Limits, SandboxRunner, can_isolate
from lepton_lib.classroom.sandbox_process import CodeCell, needed_cells
from lepton_lib.classroom.sandbox_protocol import decode, encode, encode_answer
from lepton_lib.errors import RunError
from lepton_lib.exercises.comparison import Changed, Raised, same
from tests.course import answered, write_course

ROOT = Path(__file__).resolve().parents[1]
RIGHT = "correct correct correct"
# a busy machine imports matplotlib in 4 s or more
LIMITS = Limits(timeout=120, cell_timeout=10, jobs=2)
HALVES = 'def halve(x):\n    return x / 2 if x >= 0 else int("x")\n\n\ncheck("07.1", halve)'
SURVIVOR = "98765.4321"
ENDLESS = "try:\n    while True:\n        pass\nexcept Exception:\n    pass\ncheck('07.2', 1)"
REACH_OUT = """import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5)
    share = "connected"
except OSError:
    share = 0.25
share = checkpoint("07.2", share)"""
FORGES = """import os
total = 8
for name in os.listdir("/proc/self/fd"):
    link = f"/proc/self/fd/{{name}}"
    if os.path.exists(link) and os.readlink(link).endswith(".results"):
        os.write(int(name), {line!r})"""
# An orphan in a session of its own, and then no end that a cell's time limit could bring about.
OUTLIVES = f"""import signal, subprocess
total = 8
subprocess.run("setsid sleep {SURVIVOR} &", shell=True)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
while True:
    pass"""


def may_leave_out(reason):
    """Leave a test out where no namespace can be made, unless that is a must."""
    required = os.environ.get("LEPTON_NAMESPACE") == "required"
    return pytest.mark.skipif(not can_isolate() and not required, reason=reason)


isolated = may_leave_out("no user namespaces; LEPTON_NAMESPACE=required makes them a must")


def change(nb, **sources):
    """Give cells other sources; None takes a cell out."""
    for name, source in sources.items():
        cell = next(cell for cell in nb.cells if cell.id == name.replace("_", "-"))
        if source is None:
            nb.cells.remove(cell)
        else:
            cell.source = source
    return nb


def version_3(nb):
    """The notebook as IPython wrote it ten years ago."""
    return nbformat.v3.writes_json(nbformat.convert(nb, 3))


# name: what the learner did to a right notebook, and the three states that must come of it.
KINDS = {
    "right": (lambda nb: nb, RIGHT),
    "copied": (
        lambda nb: (
            nb.cells.append(new_code_cell('check("07.1", lambda x: x * 2)', id="halve-it")) or nb
        ),
        RIGHT,
    ),
    "deleted-check": (
        lambda nb: change(
            nb, halve_it="def halve(x):\n    return x * 2", a_share="share = 0.25", which=None
        ),
        "not yet|correct|not attempted",
    ),
    "redefined-check": (
        lambda nb: change(
            nb,
            imports="import lepton_lib.exercises as e\nclass R:\n    status = 'correct'\n"
            "def check(*_):\n    return R()\n"
            "checkpoint = e.grade_answer = e.check = e._compare = check",
            halve_it='halve = lambda x: 2 * x\ncheck("07.1", halve)',
            a_share='share = checkpoint("07.2", 25)',
        ),
        "not yet|not yet|correct",
    ),
    "exits": (lambda nb: change(nb, total="import sys\ntotal = 8\nsys.exit()"), RIGHT),
    "endless": (
        lambda nb: change(nb, a_share=ENDLESS),
        "correct|could not be run|correct",
    ),
    "killed": (
        lambda nb: change(
            nb,
            a_share="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\ncheck('07.2', 0.25)",
        ),
        "correct|could not be run|could not be run",
    ),
    "prints": (
        lambda nb: change(
            nb, total="total = 8\nfor _ in range(50):\n    print('x' * 1_000_000)\ntotal"
        ),
        RIGHT,
    ),
    "memory": (
        lambda nb: change(nb, a_share="share = [0.0] * 10**9\ncheck('07.2', share)"),
        "correct|could not be run|correct",
    ),
    "syntax": (
        lambda nb: change(nb, halve_it='def halve(x)\n    x\ncheck("07.1", 3)'),
        f"{NOT_RUN}|correct|correct",
    ),
    "magic": (lambda nb: change(nb, total="%matplotlib inline\n!true\ntotal = 8"), RIGHT),
    "raises": (
        lambda nb: change(nb, a_share="share = 1 / 0\ncheck('07.2', share)"),
        f"correct|{NOT_RUN}|correct",
    ),
    "kills-its-parent": (
        lambda nb: change(
            nb,
            total="import os, signal\ntotal = 8\nos.getppid() == 1 and os.kill(1, signal.SIGKILL)",
        ),
        RIGHT,
    ),
    "writes-outside": (
        lambda nb: change(
            nb, total="total = 8\nopen('../notebooks/07_small.ipynb', 'w').write('mine')"
        ),
        RIGHT,
    ),
    "removes-everything": (
        lambda nb: change(
            nb, total="import shutil\ntotal = 8\nshutil.rmtree('..', ignore_errors=True)"
        ),
        RIGHT,
    ),
    "timed": (
        lambda nb: change(
            nb,
            halve_it=f"%%time\n{HALVES}",
            a_share="%time share = 0.25\ncheckpoint('07.2', share)",
        ),
        RIGHT,
    ),
}
# Coverage follows the processes of these: between them they run each line that any does.
TRACED = ("right", "endless", "raises", "binary", "timed", "deleted-check", "syntax")
# What is no notebook, as bytes.
FILES = {
    "half": lambda nb: nbformat.writes(nb)[:700].encode(),
    "empty": lambda _: b"",
    "list": lambda _: b"[]",
    "deep": lambda _: b"[" * 100_000,
    "binary": lambda _: b"\xff\x00\x89PNG",
    "version3": lambda nb: version_3(nb).encode(),
    "other": lambda _: nbformat.writes(
        nbformat.v4.new_notebook(cells=[new_code_cell("1 + 1")])
    ).encode(),
    "marked": lambda nb: b"\xef\xbb\xbf" + nbformat.writes(nb).encode(),
    "new\nline": lambda nb: nbformat.writes(nb).encode(),
    "=cmd|' C calc'!A0": lambda nb: nbformat.writes(nb).encode(),
    'Böb, "<b>&amp;': lambda nb: nbformat.writes(nb).encode(),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A folder with every kind of hand-in, its learners by name, and the results of each."""
    root = tmp_path_factory.mktemp("course")
    notebook = write_course(root)
    folder = root / "class"
    (folder / "Ada" / "nested").mkdir(parents=True)
    clean, made, run = SandboxRunner._environment, SandboxRunner.__init__, SandboxRunner.run
    traced = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    at_work = threading.local()

    def traceable(runner, *words, **options):
        made(runner, *words, **options)
        runner.writable.append(ROOT)  # where coverage's files go

    def run_named(runner, path):
        at_work.name = path.stem
        return run(runner, path)

    def environment(runner, place):
        return clean(runner, place) | (traced if at_work.name in TRACED else {})

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        if traced:
            patch.setattr(SandboxRunner, "__init__", traceable)
            patch.setattr(SandboxRunner, "run", run_named)
            patch.setattr(SandboxRunner, "_environment", environment)
        for name, (harm, _) in KINDS.items():
            (folder / f"{name}.ipynb").write_text(json.dumps(harm(answered(notebook))))
        for name, make in FILES.items():
            (folder / f"{name}.ipynb").write_bytes(make(answered(notebook)))
        (folder / "untouched.ipynb").write_bytes(notebook.read_bytes())
        (folder / "folder.ipynb").mkdir()
        (folder / "untouched" / "work").mkdir(parents=True)
        (folder / "untouched" / "work" / "A.IPYNB").write_bytes(notebook.read_bytes())
        os.mkfifo(folder / "pipe.ipynb")
        (folder / "link.ipynb").symlink_to(folder / "right.ipynb")
        (folder / ".hidden.ipynb").write_text("x")
        (folder / "notes.txt").write_text("x")
        for name in HANDED_IN:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("x")
        nbformat.write(answered(notebook, nq1="c", n2="share = 25"), folder / "Ada" / "first.ipynb")
        nbformat.write(answered(notebook, n2="share = 25"), folder / "Ada" / "second.ipynb")
        reported = []
        result = grade(folder, limits=LIMITS, unisolated=True, progress=reported.append)
        assert result.learners == reported
        learners = {one.name: one for one in result.learners}
        write_class_report(result, folder)
    return folder, learners


def states(learner):
    return [result.status for result in learner.results.values()]


@pytest.mark.parametrize("name", KINDS)
def test_what_a_notebook_does_costs_only_itself(graded, name):
    """Whatever a cell does, the other exercises have their results, until the process ends."""
    expected = KINDS[name][1]
    learner = graded[1][name]
    assert states(learner) == (expected.split("|") if "|" in expected else expected.split()), (
        learner
    )


def test_why_something_could_not_be_run_is_said(graded):
    """The cell's error, the limit, or what ended the process, and where."""
    learners = graded[1]
    assert (
        learners["endless"].results["07.2"].message
        == f"its cell fails: no end within {LIMITS.cell_timeout} s"
    )
    assert "MemoryError" in learners["memory"].results["07.2"].message
    assert "SyntaxError" in learners["syntax"].results["07.1"].message
    assert "ZeroDivisionError: division by zero" in learners["raises"].results["07.2"].message
    assert learners["killed"].notes == [
        "killed.ipynb: its process was ended by SIGKILL, in the cell 'a-share'"
    ]


def test_what_was_handed_out_is_no_attempt(graded):
    """An untouched notebook has no wrong answer, even where its code would be one."""
    assert states(graded[1]["untouched.ipynb"]) == ["not attempted"] * 3


def test_a_folder_and_a_file_of_one_name_are_two_learners(graded):
    """Each has its own name in the report; notebooks deeper in a folder, and .IPYNB, are found."""
    learners = graded[1]
    assert [path.name for path in learners["untouched"].notebooks] == ["A.IPYNB"]
    assert states(learners["untouched"]) == ["not attempted"] * 3


@isolated
def test_a_notebook_changes_nothing_but_its_own_folder(graded):
    """What it wrote to the course isn't there."""
    course = graded[0].parent
    assert (course / "notebooks" / "07_small.ipynb").read_text(encoding="utf-8") != "mine"


@pytest.mark.parametrize("name", ["half", "empty", "list", "deep", "binary"])
def test_what_is_no_notebook_has_its_row(graded, name):
    """A file that can't be read is *could not be run*, with the reason."""
    learner = graded[1][name]
    assert states(learner) == [NOT_RUN] * 3
    assert learner.notes[0].startswith(f"{name}.ipynb: no notebook: ")


HANDED_IN = {
    "eve.ipynb.json": "rename it, so that it ends in .ipynb",
    "fay.ZIP": "an archive: unpack it",
    "gus.py": "code alone: ask for the .ipynb",
    "hal.html": "a page: ask for the .ipynb",
    "ida/07.pdf": "07.pdf: a page: ask for the .ipynb",
    "__MACOSX/._a.ipynb": "a folder without a notebook in it",
}


@pytest.mark.parametrize("name", HANDED_IN)
def test_what_was_handed_in_instead_has_its_row(graded, name):
    """A file of another kind is a row with a note that says what to do."""
    learner = graded[1][name.split("/")[0]]
    assert (learner.notes, states(learner)) == ([HANDED_IN[name]], [NOT_RUN] * 3)


def test_other_kinds_of_files(graded):
    """An old format is read; a folder, a link and another course's notebook are named."""
    folder, learners = graded
    assert states(learners["version3"]) == RIGHT.split()
    assert learners["folder.ipynb"].notes == ["a folder without a notebook in it"]
    assert learners["link.ipynb"].notes == ["a link, which isn't followed"]
    assert "no exercise of the course" in learners["other"].notes[0]
    assert learners["pipe"].notes == ["no file that can be read"]
    assert states(learners["marked"]) == states(learners["new\nline"]) == RIGHT.split()
    assert len(learners) == len(KINDS) + len(FILES) + len(HANDED_IN) + 6
    assert {path.name for path in folder.glob("class.*")} == {"class.csv", "class.html"}


def test_a_folder_is_one_learner(graded):
    """Of several notebooks of one learner the better result of each exercise counts."""
    ada = graded[1]["Ada"]
    assert ada.results == {
        "07.1": Result("correct"),
        "07.2": Result("not yet", "That is per cent."),
        "07.q1": Result("correct"),
    }


def test_the_table_is_read_by_spreadsheets(graded):
    """Names with commas and quotes stay whole, and none is taken for a formula."""
    folder, learners = graded
    content = (folder / "class.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf"), "Excel takes it for UTF-8 by its mark alone"
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    assert rows[0] == ["learner", "correct", "07.1", "07.2", "07.q1", "notes"]
    names = [row[0] for row in rows[1:]]
    assert len(names) == len(learners)
    assert 'Böb, "<b>&amp;' in names
    assert "'=cmd|' C calc'!A0" in names
    assert not any(cell[:1] in set("=+-@") for row in rows for cell in row)


def test_the_page_begins_with_what_the_class_shares(graded):
    """Misconceptions come first, counted, then the learners; it is no exam supervision."""
    folder, learners = graded
    shared = shared_misconceptions(list(learners.values()))
    assert shared[:2] == [(2, "07.1", "That doubles."), (2, "07.2", "That is per cent.")]
    assert [entry[0] for entry in shared] == sorted((entry[0] for entry in shared), reverse=True)
    text = (folder / "class.html").read_text(encoding="utf-8")
    assert text.index("That doubles.") < text.index("How each exercise stands")
    assert "no exam supervision" in text
    assert "<b>&amp;" not in text
    assert "&lt;b&gt;&amp;amp;" in text
    assert not re.findall(r"(?:src|href)=[\"']?http", text)


@pytest.fixture
def classroom(tmp_path, monkeypatch):
    """Hands in notebooks: each is a right one of the small course, with cells changed."""
    notebook = write_course(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class").mkdir()

    def hand_in(name, **sources):
        nb = change(answered(notebook), **sources)
        nbformat.write(nb, tmp_path / "class" / f"{name}.ipynb")
        return tmp_path / "class"

    return hand_in


def survivors():
    """The processes that a notebook of these tests has left."""
    return [
        one for one in psutil.process_iter(["cmdline"]) if SURVIVOR in (one.info["cmdline"] or ())
    ]


@isolated
def test_no_program_outlives_its_notebook(classroom):
    """A child in another session ends with the notebook, which ignores its time limit."""
    folder = classroom("outlives", total=OUTLIVES)
    (learner,) = grade(folder, limits=Limits(timeout=12, cell_timeout=2)).learners
    assert learner.notes == ["outlives.ipynb: stopped after 12 s, in the cell 'total'"]
    assert survivors() == []


@isolated
def test_a_notebook_reaches_no_service_of_this_machine(classroom):
    """A program that listens here on the loopback isn't reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        folder = classroom("network", a_share=REACH_OUT.format(port=server.getsockname()[1]))
        (learner,) = grade(folder, limits=LIMITS).learners
    assert states(learner) == RIGHT.split(), learner


TAKES = {
    "processes": (
        "import os, time\nfor _ in range(90):\n    os.fork() or time.sleep(60)\ntime.sleep(60)",
        "more than 64 processes",
    ),
    "memory": (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n"
        "        held = b'x' * (900 << 20)\n        time.sleep(60)\ntime.sleep(60)",
        "more than 2048 MB of memory",
    ),
    "disk": (
        "for name in range(3):\n    with open(f'{name}', 'wb') as file:\n"
        "        for _ in range(25):\n            file.write(bytes(8 << 20))\n"
        "import time\ntime.sleep(60)",
        "more than 512 MB on disk",
    ),
}


@isolated
@pytest.mark.parametrize("what", TAKES)
def test_a_limit_holds_for_all_that_a_notebook_starts(classroom, what):
    """Processes, their memory and their files are counted together; the note says which."""
    code, said = TAKES[what]
    folder = classroom("greedy", total=f"total = 8\n{code}")
    (learner,) = grade(folder, limits=Limits(timeout=100, cell_timeout=90)).learners
    assert said in learner.notes[0], learner.notes


@isolated
def test_a_file_has_a_limit_and_shared_memory_is_its_own(classroom):
    """One file holds 256 MB; what is written to /dev/shm and to Matplotlib's folder isn't kept."""
    big = "with open('big', 'wb') as file:\n    file.truncate(300 << 20)\ncheck('07.2', 0.25)"
    classroom("big", a_share=big)
    name = f"lepton-{os.getpid()}"
    leaves = f"""total = 8
import os
open('/dev/shm/{name}', 'w').write('x')
os.mkfifo(os.environ['MPLCONFIGDIR'] + '/matplotlib.log')
import matplotlib.pyplot"""
    folder = classroom("leaves", total=leaves)
    big, leaves = grade(folder, limits=LIMITS).learners
    assert "File too large" in big.results["07.2"].message
    assert states(leaves) == RIGHT.split()
    assert not Path("/dev/shm", name).exists()


def test_where_nothing_is_isolated_it_is_said(classroom, monkeypatch, lepton):
    """Without namespaces grading is refused, and with the option terminal and page warn."""
    folder = classroom("right")
    monkeypatch.setattr("lepton_lib.classroom.grading.can_isolate", lambda: False)
    code, _, err = lepton("grade", folder)
    assert (code, "add --unisolated" in err) == (2, True)
    assert not (folder / "class.html").exists()
    code, _, err = lepton("grade", folder, "--unisolated")
    assert (code, f"WARNING: {NOT_ISOLATED}" in err) == (0, True)
    assert NOT_ISOLATED in (folder / "class.html").read_text(encoding="utf-8")
    assert (folder / "class.csv").read_text("utf-8-sig").splitlines()[1].startswith("right,3,")


@isolated
def test_an_interrupt_keeps_what_was_graded(classroom, monkeypatch, lepton):
    """Ctrl-C writes the report of those who were graded, names the rest, and leaves no process."""
    for name in ("a", "b", "c"):
        folder = classroom(name, **({} if name == "a" else {"total": OUTLIVES}))
    graded = sandbox.SandboxRunner.run

    def interrupted(runner, path):
        if path.stem == "b":
            threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
        return graded(runner, path)

    monkeypatch.setattr(sandbox.SandboxRunner, "run", interrupted)
    code, _, err = lepton("grade", folder, "--jobs", "1")
    assert (code, f"WARNING: {INTERRUPTED}" in err) == (130, True)
    rows = (folder / "class.csv").read_text("utf-8-sig").splitlines()
    assert rows[1] == "a,3,correct,correct,correct,"
    assert rows[3].endswith("not graded: interrupted")
    assert survivors() == []


def test_an_empty_class_is_no_error(tmp_path, monkeypatch, lepton):
    """A folder without notebooks gives an empty report; one that isn't there is one message."""
    write_course(tmp_path)
    (tmp_path / "class").mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, _ = lepton("grade", "class")
    assert not code
    assert NO_EXAM in out
    assert (tmp_path / "class" / "class.csv").read_text("utf-8-sig") == "learner,correct,notes\n"
    with pytest.raises(RunError, match="can't be read"):
        find_learners(tmp_path / "nowhere")


def test_a_notebook_reads_what_the_steps_before_it_left(tmp_path, monkeypatch):
    """The runs of earlier notebooks lie beside each learner's notebook, as in the course."""

    def leave(*, run_dir, notebooks):
        assert [path.stem for path in notebooks] == ["00_environment"]
        run_dir.mkdir(parents=True)
        (run_dir / "left").write_text("0.25")

    monkeypatch.setattr(sandbox, "run_loop", leave)
    cell = 'from pathlib import Path\ncheck("01.4", float(Path("../runs/credit/left").read_text()))'
    (tmp_path / "Ada.ipynb").write_text(
        json.dumps(nbformat.v4.new_notebook(cells=[new_code_cell(cell, id="c")]))
    )
    (learner,) = grade(tmp_path, limits=LIMITS, unisolated=True).learners
    assert learner.results["01.4"].status == "not yet", learner.results["01.4"]


def test_forged_results_stop_nobody(tmp_path, monkeypatch):
    """Whatever a learner's process writes in place of its results, the class goes on."""
    notebook = write_course(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class").mkdir()
    forged = [
        {"kind": "failed", "keys": 1},
        {"kind": "answer"},
        {"kind": "answer", "keys": ["99.9"], "value": 1},
        {"kind": "answer", "keys": ["07.1"], "value": {"array": "x"}},
        3,
    ]
    for number, event in enumerate(forged):
        nb = answered(notebook)
        line = f"{json.dumps(event)}\n".encode()
        change(nb, total=FORGES.format(line=line))
        nbformat.write(nb, tmp_path / "class" / f"{number}.ipynb")
    learners = grade(tmp_path / "class", limits=LIMITS, unisolated=True).learners
    assert len(learners) == len(forged)
    why = "0.ipynb: its results can't be read (ValidationError), in the cell 'total'"
    assert learners[0].notes == [why]  # it was reached
    assert all(set(one.results) == {"07.1", "07.2", "07.q1"} for one in learners)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        float("nan"),
        float("inf"),
        "text",
        [1, [2, "x"]],
        {"a": 1, 2: [None]},
        {1, "b"},
        np.arange(6).reshape(2, 3),
        torch.tensor([[1.5], [2.0]]),
        np.float32(2),
        torch.tensor(4),
        pd.Series([1, 2], index=["a", "b"]),
        pd.DataFrame({"a": [1.5, 2], "b": ["x", "y"]}),
        Raised("ValueError", "m"),
        Changed([1.5], 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_answer_comes_back_as_it_was(value):
    """What leaves the learner's process as JSON is judged as the value itself would be."""
    back = decode(json.loads(json.dumps(encode(value))))
    assert same(back, value, 1e-9)
    assert same(value, back, 1e-9) or not isinstance(value, list | dict | str)


def test_a_figure_comes_back_by_its_data():
    """A figure is judged by what it shows."""
    fig, ax = plots.subplots()
    ax.plot([1, 2, 4])
    assert same(decode(json.loads(json.dumps(encode(fig)))), fig, 0)


@pytest.mark.parametrize("value", [..., object(), print, Counter, 10**400, b"bytes", 3j])
def test_what_has_no_plain_form_is_unlike_any_answer(value):
    """Other objects come back by the name of their type; the dots as the dots."""
    back = decode(json.loads(json.dumps(encode(value))))
    assert (back is ...) == (value is ...)
    assert not same(back, 1, 1e-9)


def test_only_what_an_exercise_reads_is_run():
    """Exercises and the cells that they depend on are run, through functions and changes."""
    sources = [
        ("imports", "import numpy as np"),
        ("unread", "slow = np.zeros(9)"),
        ("base", "base = 3"),
        ("helper", "def helper(x):\n    return base + x"),
        ("list", "rows = [1]"),
        ("grow", "rows.append(helper(2))"),
        ("figure", "fig, ax = 1, 2\nax"),
        ("other", "fig, ax = 3, 4\nax"),
        ("again", "base2 = 1"),
        ("star", "from os import *"),
        ("task", 'check("07.1", rows)'),
        ("after", "rows = []"),
    ]
    cells = [CodeCell(name, source, ["07.1"] if name == "task" else []) for name, source in sources]
    assert [cell.id for cell in needed_cells(cells)] == [
        "imports",
        "base",
        "helper",
        "list",
        "grow",
        "star",
        "task",
    ][1:]


@pytest.mark.parametrize("place", ["name", "notes", "misconception", "reason", "warning"])
def test_the_page_escapes_what_learners_wrote(monkeypatch, place):
    """Whatever a learner writes is text on the page: a name, a note, a message."""
    text = dict.fromkeys(["name", "notes", "misconception", "reason", "warning"], "plain")
    text[place] = '<script src="x">'
    monkeypatch.setattr("lepton_lib.classroom.grading.NOT_ISOLATED", text["warning"])
    results = {
        "00.1": Result("not yet", text["misconception"]),
        "00.2": Result(NOT_RUN, text["reason"]),
    }
    learner = Learner(text["name"], [], results, [text["notes"]])
    page = class_html(Graded([learner], isolated=False, complete=True))
    assert "<script" not in page
    assert "&lt;script src=" in page


def test_what_could_not_be_run_is_listed_once():
    """One line for each reason of each learner, with the exercises that it concerns."""
    lost = dict.fromkeys(["00.1", "00.2"], Result(NOT_RUN, "no end")) | {"00.q1": Result("correct")}
    one = Learner("one", [], lost, ["one.ipynb: no end"])
    other = Learner("other", [], dict.fromkeys(lost, Result(NOT_RUN, "empty")), ["empty"])
    assert not_run([one, other]) == [
        ("one", "", "one.ipynb: no end"),
        ("one", "00.1, 00.2", "no end"),
        ("other", "00.1, 00.2, 00.q1", "empty"),
    ]


def test_a_long_name_leaves_the_results_in_sight(classroom, lepton):
    """A file name of 240 letters takes its share of a line, in the terminal and on the page."""
    folder = classroom("n" * 240)
    code, _, err = lepton("grade", folder, "--unisolated")
    assert (code, err.splitlines()[0]) == (0, f"{'n' * 29}...   3 correct  ")
    assert "text-overflow: ellipsis" in (folder / "class.html").read_text(encoding="utf-8")


def test_reports_of_nobody():
    """A class without anyone can be written down."""
    assert class_csv([]) == "learner,correct,notes\r\n"
    assert "0 learners" in class_html(Graded([], isolated=True, complete=True))
    assert Learner("x").n_correct == 0


def test_an_answer_that_cannot_leave_its_process_is_named_by_its_type():
    """A value that fails when it is looked at, or a function of no exercise, leaves as a word."""

    class Hostile(dict):
        def items(self):
            raise RuntimeError("hands off")

    assert encode_answer("00.1", Hostile()) == {"other": "RuntimeError"}
    assert encode_answer("99.1", len) == {"other": "ExerciseError"}
