"""Nothing phones home: seen by the system calls of every command, whatever package makes them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from lepton_lib.cli.classroom import OFFLINE_LAB
from lepton_lib.utils import free_port
from tests import offline, syscalls

pytestmark = pytest.mark.skipif(not syscalls.strace(), reason=syscalls.MISSING)


def test_the_watch_sees_what_leaves_the_machine(tmp_path):
    """A datagram, a connection and a look-up are seen, and the loopback isn't."""
    code = "import socket; s = socket.socket(type=socket.SOCK_DGRAM)\n"
    code += "for place in ('192.0.2.1', 9), ('127.0.0.1', 53), ('127.0.0.1', 9):\n"
    code += "    try:\n        s.sendto(b'x', place)\n    except OSError:\n        pass"
    words = [*syscalls.strace(), "-o", tmp_path / "trace", sys.executable, "-c", code]
    subprocess.run([*offline.namespace(), *words], check=True)
    assert ["192.0.2.1" in call for call in syscalls.outside(tmp_path / "trace")] == [True, False]


@pytest.fixture
def run_dir(pipeline, tmp_path):
    """A copy of the finished loop, which commands may write to."""
    return shutil.copytree(pipeline, tmp_path / "run")


def test_a_loop_stays_on_the_machine(pipeline):
    """The whole loop, with its kernels and the service in 04, calls nothing outside."""
    trace = pipeline.with_suffix(".strace")
    assert "127.0.0.1" in trace.read_text()  # the service's clients
    assert syscalls.outside(trace) == []


@pytest.mark.parametrize(
    "words",
    [("doctor",), ("work", "{tmp}/work"), ("monitor", "{run}"), ("plan",), ("cases",)],
    ids=lambda words: words[0],
)
def test_a_command_stays_on_the_machine(run_dir, tmp_path, words):
    """Nor do the other commands."""
    trace = tmp_path / "lepton.strace"
    syscalls.run(trace, *(word.format(tmp=tmp_path, run=run_dir) for word in words))
    assert syscalls.outside(trace) == []


def test_a_service_stays_on_the_machine(run_dir, tmp_path):
    """Nor does a service that has answered, with two workers."""
    trace, port = tmp_path / "lepton.strace", free_port()
    # strace makes no network of its own here: the test asks the service
    words = syscalls.command(trace, "serve", str(run_dir), "--port", str(port), "--workers", "2")
    words = words[len(offline.namespace()) :]
    environment = {**syscalls.environment(trace), "LEPTON_CONFIG": os.environ["LEPTON_CONFIG"]}
    with subprocess.Popen(words, env=environment, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    url = f"http://127.0.0.1:{port}/readyz"
                    with urllib.request.urlopen(url, timeout=5) as answer:
                        assert json.load(answer)
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    assert process.poll() is None
                    time.sleep(0.2)
            time.sleep(2)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
    assert syscalls.outside(trace) == []


def test_jupyterlab_asks_nobody_for_news():
    """`lepton work --open` starts it without news, updates and a list of extensions."""
    from jupyterlab import NeverCheckForUpdate
    from jupyterlab.labapp import LabApp

    app = LabApp()
    app.parse_command_line(list(OFFLINE_LAB))
    assert app.news_url is None
    assert app.check_for_updates_class is NeverCheckForUpdate
    assert app.extension_manager == "readonly"
