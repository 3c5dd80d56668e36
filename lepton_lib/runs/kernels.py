"""Forks the kernels of notebooks from a process that has the heavy packages imported.

Importing torch, pandas and scikit-learn takes longer than the cells of a short notebook. Here they
are imported once for all notebooks that a Python process runs: `forkserver` starts with the first,
and forks a kernel for each. Such a kernel differs from a fresh one in ``sys.modules`` only.

Only Linux reports the end of a process that isn't one's child; elsewhere kernels start afresh.
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

from lepton_lib.runs.forkserver import MESSAGE_LIMIT, OWN_PREFIX

PROVISIONER = "lepton-fork"  # its name in jupyter_client, in this process only


def prepare(environment: Mapping[str, str]) -> dict[str, object]:
    """Start the fork server; returns the metadata of a kernelspec whose kernels it forks.

    Where kernels can't be forked nothing is started, and the metadata is empty.
    """
    if not hasattr(os, "pidfd_open"):
        return {}
    fork_server(environment)
    factory = KernelProvisionerFactory.instance()
    place, group = f"{__name__}:{ForkProvisioner.__name__}", KernelProvisionerFactory.GROUP_NAME
    factory.provisioners[PROVISIONER] = EntryPoint(PROVISIONER, place, group)
    return {"kernel_provisioner": {"provisioner_name": PROVISIONER}}


class ForkProvisioner(LocalProvisioner):
    """Starts kernels for jupyter_client; each leads a process group that is ended with it."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        """Fork a kernel with the arguments that follow ``ipykernel_launcher`` in ``cmd``.

        Raises:
            OSError: The server has ended, or the system refuses another process.
        """
        environment: Mapping[str, str] = options["env"]
        argv, fds = cmd[cmd.index("ipykernel_launcher") + 1 :], options.get("pass_fds", ())
        kernel = fork_server(environment).fork(argv, options["cwd"], environment, fds)
        self.process, self.pid, self.pgid = cast("Any", kernel), kernel.pid, kernel.pid
        return self.connection_info


class ForkedKernel:
    """A forked process, with the methods of `subprocess.Popen` that `LocalProvisioner` calls."""

    stdin = stdout = stderr = None

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self._pidfd = os.pidfd_open(pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self._status is None and select.select([self._pidfd], [], [], 0)[0]:
            return self.wait()
        return self._status

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        if self._status is None:
            self._status = self._server.wait(self.pid)
            os.close(self._pidfd)
        return self._status

    def send_signal(self, number: int) -> None:
        """Send a signal to this process alone, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class ForkServer:
    """The client of the `forkserver` process, which ends with the last reference to this object.

    A kernel holds a reference: its server lives on when another one is started.
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
        self.close = weakref.finalize(self, _close_server, self._socket, self._process)

    def fork(
        self, argv: list[str], cwd: str, environment: Mapping[str, str], fds: Sequence[int] = ()
    ) -> ForkedKernel:
        """A new kernel with these arguments; it inherits the file descriptors ``fds``."""
        own = {name: value for name, value in environment.items() if name.startswith(OWN_PREFIX)}
        answer = self._request({"argv": argv, "cwd": cwd, "env": own}, fds)
        return ForkedKernel(self, answer["pid"])

    def wait(self, pid: int) -> int:
        """Wait for the end of a kernel; returns its exit status. Its pid may then be reused."""
        return self._request({"wait": pid})["status"]

    def alive(self) -> bool:
        """Whether this process can send it requests: one forked from its owner can't."""
        own = self._owner == os.getpid()
        return own and self._socket.fileno() >= 0 and self._process.poll() is None

    def _request(self, request: Mapping[str, object], fds: Sequence[int] = ()) -> dict[str, int]:
        try:
            with self._lock:
                socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
                message = self._socket.recv(MESSAGE_LIMIT)
            if not message:
                raise ConnectionResetError("the fork server has ended")
        except BaseException:  # after an interrupt the next request would get this one's answer
            self.close()
            raise
        answer: dict[str, Any] = json.loads(message)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer


_starting = threading.Lock()
_latest: ForkServer | None = None


def fork_server(environment: Mapping[str, str]) -> ForkServer:
    """This process's server with these variables; the library's own may differ between kernels."""
    global _latest  # noqa: PLW0603  # one server per process
    with _starting:
        if _latest is None or not _latest.alive() or _latest.environment != _shared(environment):
            _latest = ForkServer(environment)
        return _latest


def _close_server(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.wait()


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OWN_PREFIX)}
