"""Cells in a forked process put out what they put out in a kernel, also under papermill."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from lepton_lib.errors import LeptonError, NotebookError
from lepton_lib.runs import find_notebook, kernels
from lepton_lib.runs.execution import NotebookExecution
from lepton_lib.runs.notebooks import inject_parameters, is_code, read_notebook, tags
from tests.conftest import light
from tests.tiny import write_notebook

pytestmark = pytest.mark.skipif(not kernels.CAN_FORK, reason="processes are forked on Linux")

CELLS = (
    "import sys\nprint('out')\nprint('err', file=sys.stderr)\n'result'",
    "import subprocess\n_ = subprocess.run(['sh', '-c', 'echo a child; echo its error >&2'])\n"
    "import time\ntime.sleep(1)  # a kernel reads what a child writes in its own time",
    "!echo the shell",
    "%matplotlib inline\nfrom matplotlib import pyplot\n"
    "fig, ax = pyplot.subplots()\n_ = ax.plot([1, 2])",
    "from IPython.display import Markdown, clear_output, display\ndisplay(fig, Markdown('**b**'))",
    "import pandas as pd\npd.DataFrame({f'column {k}': range(70) for k in range(30)})",
    "print('gone')\nclear_output()\nshown = display('first', display_id=True)",
    "shown.update('second')\nimport asyncio\nawait asyncio.sleep(0.01)\n'awaited'",
    "from tqdm.auto import tqdm\ntqdm.__mro__[1].__name__",
    "print('10 %\\r20 %'); print('\\x1b[31mred\\x1b[0m é 漢', end='')",
    "import os, multiprocessing\nprocess = multiprocessing.get_context('fork').Process(\n"
    "    target=print, args=('from a fork',), kwargs={'flush': True})\n"
    "process.start()\nprocess.join()",
    "try:\n    input()\nexcept Exception as error:\n    print(type(error).__name__)",
    "Out[1], In[1][:6], __name__, os.getcwd() == os.path.abspath(''), sys.path",
    "def f(x):\n    return 1 / x\nf(0)",
    "1 +",
)


def execution_of(nb, folder, **options):
    return NotebookExecution(nb, name="small", folder=folder, traceback_in="", **options)


def run_cells(folder, *sources, **options):
    """The outputs of each cell, which may raise."""
    allowed = {"tags": ["raises-exception"]}
    cells = [nbformat.v4.new_code_cell(source, metadata=allowed) for source in sources]
    nb = nbformat.v4.new_notebook(cells=cells)
    execution_of(nb, folder, **options).run()
    return [cell.outputs for cell in nb.cells]


def texts(folder, *sources, **options):
    """What each cell prints."""
    return [outputs[0].text.strip() for outputs in run_cells(folder, *sources, **options)]


@pytest.fixture
def fresh(monkeypatch, caplog):
    """Run in fresh kernels, as elsewhere than on Linux."""

    def switch():
        monkeypatch.setattr(kernels, "CAN_FORK", False)
        return caplog

    return switch


def test_outputs_equal_a_kernels(tmp_path, fresh):
    """Text, tables, pictures, errors and the shell: the same cell by cell, whoever runs it."""
    ours = run_cells(tmp_path, *CELLS)
    said = fresh()
    for source, mine, theirs in zip(CELLS, ours, run_cells(tmp_path, *CELLS), strict=True):
        assert mine == theirs, source
    assert "fresh" in said.text
    assert sum("image/png" in o.get("data", {}) for cell in ours for o in cell) == 2


def test_a_lesson_equals_a_kernels(tmp_path, fresh):
    """A whole notebook of the course, too, but for what it measures."""
    path, runs = find_notebook("00"), []
    for switch in (lambda: None, fresh):
        switch()
        nb = inject_parameters(read_notebook(path), {"run_dir": str(tmp_path)})
        execution_of(nb, path.parent).run()
        compared = [cell for cell in nb.cells if is_code(cell) and "measured" not in tags(cell)]
        runs.append([(cell.outputs, cell.execution_count) for cell in compared])
    assert runs[0] == runs[1]
    assert any("image/png" in str(cell) for cell in runs[0])


# The hazards of forking


def test_libraries_compute_with_threads_after_the_fork(tmp_path, monkeypatch):
    """The server has computed nothing, so no library waits for threads that the fork has lost."""
    for name in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", "2")
    cell = (
        "import numpy, pyarrow, pyarrow.compute, torch\na = numpy.random.rand(600, 600)\n"
        "torch.linalg.inv(torch.from_numpy(a)) @ torch.rand(600, 600, dtype=torch.float64)\n"
        "a @ a, numpy.linalg.inv(a), pyarrow.compute.sort_indices(pyarrow.array(a.ravel()))\n"
        "print(torch.get_num_threads())"
    )
    assert [texts(tmp_path, cell, timeout=60) for _ in range(2)] == [["2"], ["2"]]


def test_runs_share_no_random_numbers(tmp_path):
    """Neither Python's nor NumPy's generator goes on where another run's was."""
    cell = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (texts(tmp_path, cell)[0].split() for _ in range(2))
    assert not set(first) & set(second)


def test_the_hash_seed_is_stated(tmp_path, monkeypatch):
    """All runs order sets alike, as any Python with the same ``PYTHONHASHSEED`` does."""
    expression = "list({'a', 'b', 'c', 'lr', 'seed', 'epochs'})"
    for seed in ("0", "7"):
        if seed != "0":
            monkeypatch.setenv("PYTHONHASHSEED", seed)
        words = [sys.executable, "-c", f"print({expression})"]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        plain = subprocess.check_output(words, env=env, text=True).strip()
        assert texts(tmp_path, f"print({expression})") == [plain]


def test_code_is_read_anew(tmp_path):
    """A module that changed between two runs is the new one in the second."""
    for number in (1, 2):
        (tmp_path / "helper.py").write_text(f"NUMBER = {number}  {'#' * number}")
        assert texts(tmp_path, "import helper; print(helper.NUMBER)") == [str(number)]


# Limits


def test_too_much_output_ends_a_run(tmp_path):
    """A notebook that prints without end fails; this process doesn't fill its memory with it."""
    with pytest.raises(NotebookError, match="got DeadKernelError: more than 64 MB of output"):
        run_cells(tmp_path, "while True:\n    print('x' * 10_000)")


def test_a_run_can_be_kept_from_the_memory(tmp_path):
    """A cell that asks for more than the run may take gets a MemoryError."""
    cell = "import numpy\nnumpy.ones(10**9)"
    (outputs,) = run_cells(tmp_path, cell, memory=4_000_000_000)
    assert "MemoryError" in outputs[-1].ename


# papermill


@pytest.fixture
def notebook(tmp_path):
    cells = [
        (
            "parameters",
            "lr = 1e-3  # (0, 1]\nepochs = 3  # [1, 100]\ncase = 'credit'",
            "parameters",
        ),
        ("show", "import os\nprint(lr, epochs, type(lr).__name__, os.environ.get('LEPTON_CASE'))"),
    ]
    return write_notebook(tmp_path / "n.ipynb", *cells)


def papermilled(path, engine="lepton", kernel="python3", **options):
    out = path.with_name("out.ipynb")
    options |= {
        "language": "python",
        "engine_name": engine,
        "kernel_name": kernel,
        "progress_bar": False,
    }
    papermill.execute_notebook(path, out, **options)
    return nbformat.read(out, as_version=4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epoch": 3}, "unknown name.*Did you mean 'epochs'"),
        ({"epochs": 3.0}, "got 3.0, expected an integer"),
        ({"epochs": 300}, r"expected a value in \[1, 100\]"),
        ({"lr": "fast"}, "expected a number"),
        ({"case": "credits"}, "no such case"),
    ],
)
def test_papermill_is_strict(notebook, given, said):
    """A wrong parameter is refused before a cell runs."""
    with pytest.raises(LeptonError, match=said):
        papermilled(notebook, parameters=given)
    assert "'execution_count': 1" not in str(nbformat.read(notebook.with_name("out.ipynb"), 4))


@pytest.mark.parametrize("source", ["import sys\nsys.exit(0)", "exit()", "import os; os._exit(0)"])
def test_papermill_fails_where_a_notebook_ends_early(tmp_path, source):
    """What papermill's own engine calls completed is an error, and is stored as one."""
    cells = [("p", "n = 0", "parameters"), ("bad", source), ("after", "print('AFTER')")]
    path = write_notebook(tmp_path / "n.ipynb", *cells)
    with pytest.raises(NotebookError, match="cell 'bad'"):
        papermilled(path)
    stored = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert [cell.metadata.papermill.status for cell in stored.cells] == [
        "completed",
        "failed",
        "pending",
    ]
    assert stored.metadata.papermill.exception is True


def test_papermill_converts_a_value(notebook):
    """``-y 'lr: 1e-3'`` is a text for papermill; the notebook gets the number, and its case."""
    nb = papermilled(notebook, parameters={"lr": "1e-2", "case": "heart"})
    assert nb.cells[-1].outputs[0].text.split()[:3] == ["0.01", "3", "float"]
    assert nb.cells[-1].outputs[0].text.strip().endswith("datasets/heart")
    assert {cell.metadata.papermill.status for cell in nb.cells} == {"completed"}


def test_papermill_command(notebook):
    """From the command line a wrong parameter's exit code isn't 0, a right one's is."""
    words = [sys.executable, "-m", "papermill", str(notebook), str(notebook.with_name("o.ipynb"))]
    for value, code in (("1e-2", 0), ("2", 1)):
        done = subprocess.run(
            [*words, "-k", "python3", "-l", "python", "--engine", "lepton", "-p", "lr", value],
            env=light(),
            check=False,
            capture_output=True,
        )
        assert done.returncode == code


@pytest.fixture
def warm(tmp_path, monkeypatch):
    """The kernelspec where Jupyter looks for it."""
    target = tmp_path / "jupyter" / "kernels" / "lepton-warm"
    shutil.copytree(Path(kernels.__file__).with_name("kernelspec"), target)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


@pytest.mark.usefixtures("warm")
def test_papermill_with_a_warm_kernel(tmp_path):
    """Papermill's own engine runs a notebook in a kernel that the server forks."""
    cells = [
        ("p", "n = 0", "parameters"),
        ("show", "import os, sys\nprint(os.getppid(), 'torch' in sys.modules)"),
    ]
    path = write_notebook(tmp_path / "n.ipynb", *cells)
    nb = papermilled(path, engine=None, kernel="lepton-warm")
    assert nb.cells[-1].outputs[0].text == f"{kernels._latest._process.pid} True\n"


@pytest.mark.usefixtures("warm")
def test_nbval_with_a_warm_kernel(tmp_path):
    """Nbval compares stored outputs with those of such a kernel."""
    path = write_notebook(tmp_path / "n.ipynb", ("show", "print('same')"))
    stored = papermilled(path)
    stored.cells[-1].outputs[0].text = "same\n"
    nbformat.write(stored, path)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-kernel-name",
        "lepton-warm",
        str(path),
    ]
    done = subprocess.run(
        [*words, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=light(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
