"""Forks the kernels of notebooks from a process that has the heavy packages imported.

Importing torch, pandas and scikit-learn takes longer than the cells of a short notebook. Here they
are imported once for all notebooks that a Python process runs: `forkserver` starts with the first,
and forks a kernel for each. Such a kernel differs from a fresh one in ``sys.modules`` only.

Our own runs talk to it through one socket; Jupyter's tools, through the kernelspec ``lepton-warm``,
as they talk to any kernel. Only Linux reports the end of a process that isn't one's child;
elsewhere kernels start afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from lepton_lib.runs.forkserver import MESSAGE_LIMIT, OWN_PREFIX

CAN_FORK = hasattr(os, "pidfd_open")
SLOW_START = "This system can't fork kernels: each notebook gets a fresh one, which takes longer."
OUTPUT_LIMIT = 64_000_000  # bytes of all messages of one notebook
# for a kernel's environment, where the user has set nothing else; all kernels of one server have
# one hash seed, so it is always the same
DEFAULTS = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class WarmProvisioner(LocalProvisioner):
    """Starts kernels for Jupyter; each leads a process group that is ended with it."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        """Fork a kernel with the arguments that follow ``ipykernel_launcher`` in ``cmd``.

        Raises:
            OSError: The server has ended, or the system refuses another process.
        """
        if not CAN_FORK:
            self.log.warning(SLOW_START)
            return await super().launch_kernel(cmd, **options)
        environment: Mapping[str, str] = options["env"]
        argv, fds = cmd[cmd.index("ipykernel_launcher") + 1 :], options.get("pass_fds", ())
        folder = options.get("cwd") or os.getcwd()
        kernel = fork_server(environment).fork(folder, environment, fds, argv=argv)
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
        self,
        cwd: str,
        environment: Mapping[str, str],
        fds: Sequence[int] = (),
        **request: list[str] | int | None,
    ) -> ForkedKernel:
        """A new kernel that inherits the file descriptors ``fds``; see `forkserver`."""
        own = {name: value for name, value in environment.items() if name.startswith(OWN_PREFIX)}
        answer = self._request({"cwd": cwd, "env": own, **request}, fds)
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


class _Channel:
    """A queue of messages, read as a channel of jupyter_client is."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.put = self._messages.put_nowait

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(self._messages.get(), timeout)
        except TimeoutError as error:
            raise queue.Empty from error


class SocketKernel:
    """A forked kernel whose messages go through one socket.

    Has the methods of a kernel's manager and of its client that `nbclient` calls while it runs
    cells. Made in a running event loop.
    """

    has_kernel = True

    def __init__(
        self,
        kernel: ForkedKernel,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._kernel, self._writer = kernel, writer
        self.shell_channel, self.iopub_channel = _Channel(), _Channel()
        self.output_bytes = 0
        self._receiver = asyncio.ensure_future(self._receive(reader))

    @classmethod
    async def start(
        cls,
        folder: Path,
        environment: Mapping[str, str],
        *,
        memory: int | None = None,
        lock_fd: int | None = None,
    ) -> Self:
        """Fork one that has this working directory, at most ``memory`` bytes, and the lock."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = [theirs.fileno(), *([] if lock_fd is None else [lock_fd])]
            server = fork_server(environment)
            kernel = server.fork(str(folder), environment, fds, memory=memory)
        return cls(kernel, *await asyncio.open_connection(sock=ours, limit=OUTPUT_LIMIT))

    def execute(self, code: str, **content: Any) -> str:
        """Send a cell to run; returns the id that its messages refer to."""
        identity = uuid.uuid4().hex
        header = {"msg_id": identity, "msg_type": "execute_request"}
        content = {"code": code, **content, "stop_on_error": False}
        request = {"header": header, "metadata": {}, "content": content}
        self._writer.write(json.dumps(request).encode() + b"\n")
        return identity

    async def get_shell_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next reply to a request; `queue.Empty` after that many seconds."""
        return await self.shell_channel.get_msg(timeout)

    def is_alive(self) -> bool:
        """Whether it runs and may go on."""
        return not self._receiver.done()

    def end(self) -> None:
        """End the kernel's process group: also what the notebook started and left behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._kernel.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # its server has ended, and it with the server
            self._kernel.wait()
        self._receiver.cancel()
        self._writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # ValueError: a line over the limit
            while self.output_bytes <= OUTPUT_LIMIT and (line := await reader.readline()):
                self.output_bytes += len(line)
                message = json.loads(line)
                is_reply = message["msg_type"].endswith("_reply")
                (self.shell_channel if is_reply else self.iopub_channel).put(message)


_starting = threading.Lock()
_latest: ForkServer | None = None


def fork_server(environment: Mapping[str, str]) -> ForkServer:
    """This process's server with these variables; the library's own may differ between kernels."""
    global _latest  # noqa: PLW0603  # one server per process
    with _starting:
        if _latest is None or not _latest.alive() or _latest.environment != _shared(environment):
            _latest = ForkServer(environment)
        return _latest


def end_server() -> None:
    """End the server and all kernels that it forked: what runs in other threads fails at once."""
    if _latest is not None:
        _latest.close()


def _close_server(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.wait()


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OWN_PREFIX)}
