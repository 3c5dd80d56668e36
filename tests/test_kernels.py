"""Forked kernels start from a process with the packages imported, and are as good as fresh ones."""

import os
import signal

import nbformat
import pytest

from lepton_lib.runs import kernels
from lepton_lib.runs.execution import NotebookExecution

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="kernels are forked on Linux")


def shown(folder, *sources, **options):
    """What the cells of a notebook print, run in ``folder``."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookExecution(nb, name="small", folder=folder, traceback_in="", **options).run()
    return [cell.outputs[0].text.strip() for cell in nb.cells]


def test_kernels_share_one_server_and_nothing_else(tmp_path):
    """Two kernels have one parent, their own random numbers and folder, and no library imported."""
    cells = (
        "import os, random, numpy; print(os.getppid())",
        "print(os.getcwd(), os.getpid() == os.getpgrp())",
        "print(random.random(), numpy.random.rand())",
        "import sys; own = [name for name in sys.modules if name.startswith('lepton_lib')]\n"
        "print('torch' in sys.modules, own != [])",
    )
    first, second = shown(tmp_path, *cells), shown(tmp_path, *cells)
    assert first[0] == second[0] != str(os.getpid())
    assert first[1] == second[1] == f"{tmp_path.resolve()} True"
    assert not set(first[2].split()) & set(second[2].split())
    assert first[3] == second[3] == "True False"


def test_packages_take_a_forked_kernel_for_a_notebook(tmp_path):
    """Also those that asked when they were imported: pandas, for how many columns it prints."""
    cell = "import pandas; print(pandas.get_option('display.max_columns'))"
    assert shown(tmp_path, cell) == ["20"]


def test_each_kernel_gets_its_own_variables(tmp_path):
    """A variable of ours that one kernel was given isn't there in the next."""
    cell = "import os; print(os.environ.get('LEPTON_SMALL'))"
    assert shown(tmp_path, cell, environment={"LEPTON_SMALL": "1"}) == ["1"]
    assert shown(tmp_path, cell) == ["None"]


def test_a_killed_server_is_replaced(tmp_path):
    """The next notebook has a kernel all the same."""
    cell = "import os; print(os.getppid())"
    (before,) = shown(tmp_path, cell)
    kernels._latest._process.kill()
    kernels._latest._process.wait()
    assert shown(tmp_path, cell) != [before]


def test_other_variables_need_another_server(tmp_path, monkeypatch):
    """Variables that packages read at import are one server's; without any there is one thread."""
    cell = "import os; print(os.getppid(), os.environ['OMP_NUM_THREADS'], os.environ.get('SMALL'))"
    monkeypatch.delenv("OMP_NUM_THREADS")
    one = shown(tmp_path, cell)[0].split()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    other = shown(tmp_path, cell, environment={"SMALL": "1"})[0].split()
    assert one[0] != other[0]
    assert (one[1:], other[1:]) == (["1", "None"], ["2", "1"])


@pytest.fixture
def server():
    """The server of the tests before, or one of its own."""
    latest = kernels._latest
    return latest if latest is not None and latest.alive() else kernels.fork_server(os.environ)


@pytest.mark.parametrize(
    ("end", "number"), [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)]
)
def test_a_kernel_reports_its_end(server, tmp_path, end, number):
    """It runs until it is ended; then its status names the signal, however often one asks."""
    kernel = server.fork(str(tmp_path), {}, argv=["-f", str(tmp_path / "kernel.json")])
    assert kernel.poll() is None
    getattr(kernel, end)()
    assert kernel.wait() == kernel.poll() == kernel.wait() == -number
    kernel.send_signal(signal.SIGKILL)  # sent to no process


def test_a_refusal_is_an_error(server):
    """What the system refuses is an OSError here, and the server keeps running."""
    for _ in range(2):
        with pytest.raises(OSError, match="child"):
            server.wait(1)
    assert server.alive()


def test_a_closed_server_refuses_requests():
    """After its end a server isn't asked again; neither is one that has been killed."""
    server = kernels.ForkServer(dict(os.environ))
    server._process.kill()
    server._process.wait()
    with pytest.raises(OSError, match=r"ended|pipe|reset"):
        server.wait(1)
    assert not server.alive()
