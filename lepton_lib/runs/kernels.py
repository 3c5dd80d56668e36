"""Starts the kernels of notebooks from a process that has the heavy packages imported, so that each starts at once.

Importing torch, pandas and scikit-learn costs a short notebook more time than its cells. Here they
are imported once for all the notebooks that a Python process runs: `forkserver` is started with the
first, and forks a kernel for each. Such a kernel differs from one begun afresh in ``sys.modules``
alone.

Only Linux tells of the end of a process that isn't one's child; elsewhere kernels are begun afresh.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from lepton_lib.runs.forkserver import LIMIT, OWN

# by which jupyter_client knows the provisioner, in a process that called `prepare`
NAME = "lepton-fork"


def prepare(environment: Mapping[str, str]) -> dict[str, object]:
    """Start the server for kernels with these variables; returns the metadata of a kernelspec whose kernels it forks.

    Where kernels can't be forked nothing is started, and the metadata is empty.
    """
    if not hasattr(os, "pidfd_open"):
        return {}
    server(environment)
    # of this process: nothing is to be found by others
    factory = KernelProvisionerFactory.instance()
    group = KernelProvisionerFactory.GROUP_NAME
    factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:{ForkProvisioner.__name__}", group)
    return {"kernel_provisioner": {"provisioner_name": NAME}}


class ForkProvisioner(LocalProvisioner):
    """What jupyter_client asks for a kernel. As with its own, the kernel leads a process group, ended with it."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        """Fork a kernel; of ``cmd`` only what follows ``ipykernel_launcher`` is needed.

        Raises:
            OSError: The server has ended, or the system refuses another process.
        """
        environment: Mapping[str, str] = options["env"]
        words = cmd[cmd.index("ipykernel_launcher") + 1 :]
        kernel = server(environment).fork(
            words, options["cwd"], environment, options.get("pass_fds", ())
        )
        self.process, self.pid, self.pgid = cast("Any", kernel), kernel.pid, kernel.pid
        return self.connection_info


class Kernel:
    """A forked process; it can do what `LocalProvisioner` asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, server: Server, pid: int) -> None:
        self._server, self.pid = server, pid
        self._end = os.pidfd_open(pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self._status is None and select.select([self._end], [], [], 0)[0]:
            return self.wait()
        return self._status

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        if self._status is None:
            self._status = self._server.wait(self.pid)
            os.close(self._end)
        return self._status

    def send_signal(self, number: int) -> None:
        """Send a signal to this process alone, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._end, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class Server:
    """The process that forks, as seen from the one that runs notebooks; it ends with the last reference to this object.

    A kernel holds one: it isn't ended by a server started after its own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._owner, self.environment = os.getpid(), _shared(environment)
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = str(Path(__file__).with_name("forkserver.py"))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-Xfrozen_modules=off", script, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=self.environment,
                start_new_session=True,  # Ctrl-C is for the process that runs notebooks
            )
        self.close = weakref.finalize(self, _end, self._socket, self._process)

    def fork(
        self, words: list[str], cwd: str, environment: Mapping[str, str], fds: Sequence[int] = ()
    ) -> Kernel:
        """A new kernel, begun with ``words`` on its command line; it inherits the file descriptors ``fds``."""
        own = {name: value for name, value in environment.items() if name.startswith(OWN)}
        return Kernel(self, self._ask({"words": words, "cwd": cwd, "own": own}, fds)["pid"])

    def wait(self, pid: int) -> int:
        """Wait for the end of a kernel; returns its exit status. Its number may then become another process's."""
        return self._ask({"wait": pid})["status"]

    def alive(self) -> bool:
        """Whether this process can ask it: one forked from its owner can't."""
        return (
            self._owner == os.getpid()
            and self._socket.fileno() >= 0
            and self._process.poll() is None
        )

    def _ask(self, request: Mapping[str, object], fds: Sequence[int] = ()) -> dict[str, int]:
        try:
            with self._lock:
                socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
                message = self._socket.recv(LIMIT)
            if not message:
                raise ConnectionResetError("the process that forks kernels has ended")
        except (
            BaseException
        ):  # ended; or interrupted before the answer, which the next question would get
            self.close()
            raise
        answer: dict[str, Any] = json.loads(message)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer


_starting = threading.Lock()
_latest: Server | None = None


def server(environment: Mapping[str, str]) -> Server:
    """This process's server, started if need be: with these variables, but for our own, which each kernel gets anew."""
    global _latest  # noqa: PLW0603  # one server, whoever runs notebooks in this process
    with _starting:
        if _latest is None or not _latest.alive() or _latest.environment != _shared(environment):
            _latest = Server(environment)
        return _latest


def _end(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    process.wait()


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OWN)}
