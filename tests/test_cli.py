"""The `lepton` command: exit codes, messages, and what it leaves."""

import errno
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from lepton_lib import __main__, doctor
from lepton_lib.cases import load_case
from tests.conftest import light, small_table
from tests.tiny import PARAMETERS, work, write_loop, write_notebook

LEPTON = [sys.executable, "-m", "lepton_lib.cli"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with one training notebook that prints its parameters."""
    cells = [
        ("parameters", PARAMETERS + "\nlr = 1e-3  # (0, 1]", "parameters"),
        ("show", "print('LR', lr, case)"),
    ]
    write_notebook(tmp_path / "notebooks" / "02_training.ipynb", *cells)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEPTON_DATASETS", raising=False)
    return tmp_path


def test_help(lepton):
    """Help lists the commands, without loading anything heavy."""
    code, out, _ = lepton("--help")
    assert code == 0
    for command in ("run", "doctor", "cases", "new-case", "serve", "notebooks"):
        assert f"  {command}" in out
    heavy = "{'torch', 'pandas', 'nbclient', 'pydantic', 'numpy'}"
    code = f"import sys, lepton_lib.cli; print({heavy} & set(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "set()"


def test_run_loop(tmp_path):
    """A loop prints a line per notebook, then the summary, then where the page is."""
    write_loop(tmp_path)
    command = [*LEPTON, "run", "-p", "epochs=7"]
    done = subprocess.run(
        command, cwd=tmp_path, env=light(), capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [step, "finished"]
        for step in (
            "00_environment",
            "01_data",
            "02_training",
            "03_evaluation",
            "04_deployment",
            "05_monitoring",
        )
    ]
    assert "AUC                   0.840  (95 % interval 0.810 to 0.870)" in done.stdout
    assert done.stdout.endswith("All of it on one page: runs/credit/index.html\n")
    assert (tmp_path / "runs" / "credit" / "index.html").is_file()


def test_run_notebook(lepton, here):
    """One notebook runs by its prefix, into the folder that was named."""
    code, out, _ = lepton("run", "02", "--out", "x/y", "-p", "lr=1e-2", "-p", "seed=3")
    assert (code, out) == (0, "To read: x/y/notebooks/02_training.html\n")
    assert "LR 0.01 credit" in (here / "x" / "y" / "notebooks" / "02_training.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["02", "-p", "lrr=1"], "Did you mean 'lr'?"),
        (["02", "-p", "lr=2"], "expected a value in (0, 1]"),
        (["02", "-p", "lr"], "-p lr: got no '=', expected name=value"),
        (["02", "-p", "=3"], "expected name=value"),
        (["02", "-p", "lr=1", "-p", "lr=1"], "parameter 'lr': got two values"),
        (["02", "-p", "case=credit", "--case", "credit"], "parameter 'case': got two values"),
        (["02", "--case", "nope"], "case 'nope': got no such case"),
        (["02", "--case", "./nope"], "got no such case"),
        (["02", "--case", ""], "got no such case"),
        (["07"], "notebook '07': got no such notebook"),
        (["loop"], "notebook '00_environment': got no such notebook"),
        (["02", "--out", "notebooks/02_training.ipynb"], "can't be written to"),
        (["02", "--out", "."], ".: got a folder of other files"),
        (["02", "--out", "notebooks"], "notebooks: got a folder of other files"),
        (["02", "-p", "run_dir=/"], "/: got a folder of other files"),
        (["02", "--out", ""], "the run folder: got an empty text"),
        (["02", "-p", "run_dir="], "the run folder: got an empty text"),
        (["02", "--case", "heart", "--case", "credit"], "it is given more than once"),
        (["02", "--out", "a", "--out", "b"], "'--out': it is given more than once"),
        (["02", "-p", "name=007"], "'name' of 02_training: got an unknown name"),
        (["02", "--nope"], "No such option"),
    ],
)
def test_bad_usage(lepton, here, words, said):
    """A wrong command line is one message on stderr and exit code 2, and nothing is run."""
    code, out, err = lepton("run", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert os.listdir(here) == ["notebooks"]
    assert os.listdir(here / "notebooks") == ["02_training.ipynb"]


@pytest.mark.usefixtures("here")
def test_a_suggestion_is_near(lepton):
    """What is as far from every name as from each other isn't suggested."""
    assert "Check its spelling." in lepton("run", "02", "-p", "name=007")[2]
    assert "Did you mean 'case'?" in lepton("run", "02", "-p", "cases=007")[2]


def test_an_error_of_the_library_is_told_once(lepton, here):
    """A cell's error with four parts is the command's, with the cell before and one remedy more."""
    source = "from lepton_lib.cases import load_case\nload_case('nope')"
    write_notebook(here / "notebooks" / "n.ipynb", ("p", "x = 1", "parameters"), ("bad", source))
    code, _, err = lepton("run", "n")
    assert (code, err.count(": got "), err.count(", expected ")) == (1, 1, 1)
    assert (
        "cell 'bad' (`from lepton_lib.cases import load_case`): CaseError: case 'nope': got" in err
    )
    assert "COLUMN`. Look into " in err


@pytest.mark.parametrize("source", ["1 / 0", "import os; os._exit(0)", "import sys; sys.exit(0)"])
def test_failed_run(lepton, here, source):
    """A notebook that doesn't come to its end is exit code 1, with the cell and the error."""
    write_notebook(here / "notebooks" / "n.ipynb", ("p", "x = 1", "parameters"), ("bad", source))
    code, out, err = lepton("run", "n")
    assert (code, out) == (1, "")
    assert "n                failed" in err
    assert "lepton: notebook n, cell 'bad'" in err
    assert "runs/n/notebooks/n.failed.ipynb" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "cwd"),
    [("a:b/mine", "."), ("mine", "a:b"), (".", "a:b/mine"), ("../a:b/mine", "other")],
)
def test_case_by_folder(lepton, here, monkeypatch, words, cwd):
    """A case is found by its folder, whatever its path, and later commands know where it lies."""
    mine = here / "a:b" / "mine"
    shutil.copytree(load_case("credit").folder, mine)
    text = (mine / "case.toml").read_text().replace('name = "credit"', 'name = "mine"', 1)
    (mine / "case.toml").write_text(text)
    cells = [
        ("p", PARAMETERS, "parameters"),
        ("c", "from lepton_lib.cases import load_case\nload_case(case).name"),
        ("work", work("00_environment", ["case", "seed"])),
    ]
    write_notebook(here / "notebooks" / "00_environment.ipynb", *cells)
    (here / "other").mkdir()
    monkeypatch.chdir(here / cwd)
    run_dir = here / "runs" / "mi:ne"
    code, _, err = lepton("run", "00", "--case", words, "--out", run_dir)
    assert code == 0, err
    assert "<pre>'mine'</pre>" in (run_dir / "notebooks" / "00_environment.html").read_text()
    monkeypatch.setenv("LEPTON_CASE", "")
    served = []
    monkeypatch.setattr(
        "lepton_lib.serving.serve", lambda *_, **__: served.append(load_case("mine").folder)
    )
    monkeypatch.chdir(here)
    assert lepton("serve", run_dir)[0] == 0
    shutil.copytree(mine, here / "moved" / "mine")
    assert lepton("serve", run_dir, "--case", "moved/mine")[0] == 0
    assert served == [mine, here / "moved" / "mine"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", [("serve",), ("monitor",), ("label", "labels.csv")])
def test_case_of_a_service(lepton, command):
    """The commands that need the case take its folder."""
    code, _, err = lepton(command[0], "runs/x", *command[1:], "--case", "nowhere/mine")
    assert (code, "case 'nowhere/mine': got no such case" in err) == (2, True)


def test_terminal_bar(here):
    """In a terminal a bar over the cells shows how far a notebook is."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [*LEPTON, "run", "02"], cwd=here, env=light(), stdout=subprocess.PIPE, stderr=slave
    )
    os.close(slave)
    process.communicate(timeout=60)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert "02_training" in shown
    assert "3/3 cells" in shown


def test_doctor(lepton, monkeypatch):
    """The doctor shows details, and exits with 1 where there is something to fix."""
    code, out, _ = lepton("doctor")
    assert (code, out.splitlines()[-1]) == (0, "Ready.")
    assert sys.executable in out
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 1e9)
    code, out, _ = lepton("doctor")
    assert (code, out.splitlines()[-1]) == (1, "1 problem to fix.")


def test_cases(lepton, tmp_path, monkeypatch):
    """The cases are listed with their titles, and one that is broken says so."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "case.toml").write_text("name = 3")
    monkeypatch.setenv("LEPTON_DATASETS", str(tmp_path))
    code, out, _ = lepton("cases")
    assert code == 0
    assert "credit           Will this applicant repay?" in out
    assert "broken           can't be used: " in out


def test_new_case(lepton, here):
    """A case drafted from a CSV into datasets/ can be loaded; an unusable file is one message."""
    (here / "My Table.csv").write_text(small_table())
    code, out, _ = lepton("new-case", "My Table.csv", "--target", "label")
    assert (code, "lepton run loop --case datasets/my_table" in out) == (0, True)
    assert load_case("my_table").classes == ("no", "yes")
    (here / "bad.csv").write_text("a,b\n")
    code, _, err = lepton("new-case", "bad.csv", "--target", "b", "--out", "d")
    assert code == 2
    assert err.startswith("lepton: bad.csv: got a header and no rows, expected rows.")
    assert not (here / "d").exists()


def test_serve(lepton, monkeypatch):
    """Serving hands the run folder, the host and the port on."""
    asked = []
    serving = types.ModuleType("lepton_lib.serving")
    serving.serve = lambda run_dir, **options: asked.append((run_dir, options))
    monkeypatch.setitem(sys.modules, "lepton_lib.serving", serving)
    assert lepton("serve", "runs/credit", "--port", "0", "--workers", "2", "--trust", "ab")[0] == 0
    expected = {
        "host": "127.0.0.1",
        "port": 0,
        "workers": 2,
        "trust": ["ab"],
        "require_key": False,
        "no_keys": False,
    }
    assert asked == [(Path("runs/credit"), expected)]


def test_notebooks(lepton, here):
    """Stored notebooks are refreshed by name."""
    write_notebook(
        here / "notebooks" / "extra.ipynb", ("p", "x = 1", "parameters"), ("show", "x + 41")
    )
    code, _, err = lepton("notebooks", "extra")
    assert (code, err.split()[:2]) == (0, ["extra", "finished"])
    assert '"42"' in (here / "notebooks" / "extra.ipynb").read_text()


@pytest.mark.usefixtures("here")
def test_interrupted_run(lepton, monkeypatch):
    """Ctrl-C is exit code 130 and one line that says how to go on."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lepton_lib.runs.run_notebook", interrupted)
    code, _, err = lepton("run", "02")
    assert (code, err) == (130, "Interrupted. The same command resumes the run.\n")


def test_one_notebook_whole(lepton, here):
    """One notebook reports its end, and runs its lessons, too, with --whole."""
    cells = [("p", "seed = 0", "parameters"), ("l", "print('LES' + 'SON')", "lesson")]
    write_notebook(here / "notebooks" / "n.ipynb", *cells)
    for words, shown in ([], False), (["--whole"], True):
        code, _, err = lepton("run", "n", *words)
        assert code == 0
        assert re.search(r"^n +finished", err, re.MULTILINE)
        assert ("LESSON" in (here / "runs" / "n" / "notebooks" / "n.html").read_text()) is shown


def test_handout(lepton, monkeypatch, tmp_path):
    """The command prints how many files it made, and where."""
    monkeypatch.setattr(
        "lepton_lib.classroom.editions.hand_out", lambda folder, **_: [folder / "a", folder / "b"]
    )
    assert lepton("handout", tmp_path)[:2] == (
        0,
        f"2 files in {tmp_path}: learners, instructor, slides.\n",
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(13, "Permission denied", "/proc/x"),
            "/proc/x: got Permission denied, expected a path",
        ),
        (
            UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"),
            "the command: got 'utf-8' codec",
        ),
        (OverflowError("timestamp out of range"), "the command: got timestamp out of range"),
    ],
)
def test_what_the_machine_refuses_is_one_message(lepton, monkeypatch, error, message):
    """What the machine refuses is one message on stderr and exit code 1, no traceback."""

    def refuse():
        raise error

    monkeypatch.setattr("lepton_lib.cases.list_cases", refuse)
    code, out, err = lepton("cases")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"lepton: {message}")


def test_a_reader_who_goes_away_ends_the_command_silently(lepton, monkeypatch):
    """A closed pipe, as by `head`, is no error."""

    def refuse():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("lepton_lib.cases.list_cases", refuse)
    assert lepton("cases") == (1, "", "")


def test_container(lepton, monkeypatch, tmp_path):
    """The command prints the image's folder and the page to read first."""
    monkeypatch.setattr(
        "lepton_lib.serving.container.write_container", lambda *places, trust: [*places, *trust]
    )
    printed = f"3 files in {tmp_path}: read {tmp_path / 'README.md'}.\n"
    assert lepton("container", "runs/x", tmp_path, "--trust", "ab")[:2] == (0, printed)


def test_work_opens_jupyterlab_beside_the_notebooks(lepton, monkeypatch, tmp_path):
    """With --open JupyterLab takes this process over, at the first copy."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "00_first.ipynb").write_text("{}")
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lepton_lib.classroom.work_folder.make_work", lambda folder: [f"copies in {folder}"]
    )
    monkeypatch.setattr(os, "execv", lambda *words: asked.append(words))
    assert lepton("work", "--open")[:2] == (0, "copies in work\n")
    ((program, words),) = asked
    assert program == words[0] == sys.executable
    assert f"--ServerApp.root_dir={tmp_path}" in words
    assert words[-1] == os.path.join("work", "00_first.ipynb")


def test_closed_streams(here):
    """Without standard streams, as some schedulers start commands, a notebook runs as ever."""
    words = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", words, "sh", *LEPTON, "run", "02"], cwd=here, env=light(), check=False
    )
    assert done.returncode == 0
    assert "LR 0.001" in (here / "runs/credit/notebooks/02_training.html").read_text()


def test_a_temporary_folder_too_long_for_sockets(lepton, here, monkeypatch):
    """Runs need no socket's path; JupyterLab's kernels do, and the doctor says so."""
    long = here / ("x" * 110)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setattr("lepton_lib.utils.SHORT_FOLDERS", ())
    assert lepton("run", "02")[0] == 0
    code, out, _ = lepton("doctor")
    assert (code, "Set TMPDIR to a shorter one." in out) == (1, True)


def test_a_home_without_room_for_a_key(lepton, here, monkeypatch):
    """It's said by the doctor and before a loop begins, with the variable that helps."""
    write_loop(here)
    monkeypatch.setenv("LEPTON_CONFIG", "/proc/nowhere")
    code, out, _ = lepton("doctor")
    assert (code, "-> Set LEPTON_CONFIG to a folder of yours" in out) == (1, True)
    code, _, err = lepton("run", "loop")
    assert (code, "Set LEPTON_CONFIG to a folder of yours" in err) == (2, True)
    assert not (here / "runs").exists()


def test_the_entry_point_is_the_command(monkeypatch, capsys):
    """`lepton` and ``python -m lepton_lib`` are the same command."""
    monkeypatch.setattr("sys.argv", ["lepton", "--help"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 0
    assert "doctor" in capsys.readouterr().out
