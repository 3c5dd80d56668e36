"""Tests of the guard that keeps the course off the network."""

import os
import sys

import pytest

from tests import offline

REACH_OUT = "import socket; socket.create_connection(({host!r}, {port}), timeout=5)"


def test_a_connection_to_another_machine_is_refused():
    """A kernel that reaches for another machine fails at once."""
    done = offline.run(sys.executable, "-c", REACH_OUT.format(host="192.0.2.1", port=80))
    assert done.returncode == 1
    assert "without a network; got a connection to 192.0.2.1" in done.stderr


def test_a_look_up_of_a_name_is_refused():
    """A kernel that asks for a host by name fails at once."""
    done = offline.run(sys.executable, "-c", REACH_OUT.format(host="example-host.test", port=80))
    assert done.returncode == 1
    assert "without a network; got a look-up of example-host.test" in done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 9))",
        "socket.gethostbyname('example-host.test')",
    ],
)
def test_no_other_way_leads_out(code):
    """A datagram to another machine, or an older look-up of a name, is refused, too."""
    done = offline.run(sys.executable, "-c", f"import socket; {code}")
    assert done.returncode == 1
    assert "the tests run without a network" in done.stderr


def test_the_loopback_stays_open():
    """A service on 127.0.0.1 can be started and called."""
    server = "import socket; server = socket.create_server(('127.0.0.1', 0))"
    code = f"{server}; socket.create_connection(server.getsockname()); print('ok')"
    done = offline.run(sys.executable, "-c", code)
    assert done.stdout == "ok\n", done.stderr


def test_a_program_that_is_not_python_has_no_network_either():
    """Every program has the loopback interface only, where network namespaces are allowed."""
    if not offline.namespace() and os.environ.get("LEPTON_NAMESPACE") != "required":
        pytest.skip(
            "no network namespace can be made here; LEPTON_NAMESPACE=required makes it a must"
        )
    done = offline.run("cat", "/proc/net/dev")
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]] == ["lo"]


def test_a_run_computes_with_one_thread_and_the_instructions_of_every_machine():
    """What is compared uses neither more threads nor newer instructions than what is stored."""
    code = "import torch; print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())"
    done = offline.run(sys.executable, "-c", code)
    assert done.stdout in ("1 AVX2\n", "1 DEFAULT\n", "1 NO AVX\n"), done.stderr
    done = offline.run(sys.executable, "-c", code, OMP_NUM_THREADS="2", MKL_NUM_THREADS="2")
    assert done.stdout.startswith("2 ")
