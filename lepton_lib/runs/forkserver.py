"""The fork server for kernels: imports the heavy packages once, then forks a kernel per request.

Started by `lepton_lib.runs.kernels` as a script, so that it never imports the library: a kernel
sees the library as it is on disk when its notebook starts. Its one argument is the file descriptor
of a socket of whole messages, each a JSON object:

- ``{"cwd": folder, "env": {name: value}, "memory": bytes or null}`` with the file descriptor of a
  socket is answered by ``{"pid": number}``: a kernel that takes its requests from that socket;
- the same with ``"argv": [...]`` gives a kernel that Jupyter talks to, by the connection file that
  these arguments name. In both cases more file descriptors may follow, for the kernel to hold;
- ``{"wait": pid}`` by ``{"status": exit status}``; until then no other process gets that pid.

What the system refuses is answered by ``{"error": text}``. The script ends when the other end of
the socket is closed.
"""

from __future__ import annotations

import asyncio
import builtins
import codecs
import contextlib
import ctypes
import gc
import importlib
import io
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any

OWN_PREFIX = "LEPTON_"  # variables that only the library reads, so they may differ between kernels
MESSAGE_LIMIT = 100_000  # bytes
FLUSH_SIZE = 1 << 16  # characters of a stream that are sent before the cell's end
PR_SET_PDEATHSIG = 1  # of Linux's prctl: which signal to get when the parent ends
PRELOADED = (
    "ipykernel.debugger",
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "matplotlib.backends.backend_agg",
    "pandas",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "torch",
)


def preload() -> None:
    """Import what the notebooks import, without running torch: a fork loses its worker threads."""
    # read when ipykernel is imported: kernels end when this process does
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    # ipykernel sets it too late
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # pandas asks only once whether it runs in a notebook
    vars(builtins)["get_ipython"] = lambda: SimpleNamespace(kernel=None)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # the notebook that imports it will show the error
            importlib.import_module(name)
    del vars(builtins)["get_ipython"]
    gc.collect()
    gc.freeze()  # no collection touches these objects, so kernels keep sharing their pages


def answer_requests(server: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Answer requests; returns only in a forked process, with its request and descriptors."""
    while True:
        message, fds, *_ = socket.recv_fds(server, MESSAGE_LIMIT, 8)
        if not message:
            sys.exit()
        request: dict[str, Any] = json.loads(message)
        answer: dict[str, object]
        try:
            if "wait" in request:
                _, status = os.waitpid(request["wait"], 0)
                answer = {"status": os.waitstatus_to_exitcode(status)}
            else:
                pid = os.fork()
                if pid == 0:
                    os.setpgid(0, 0)
                    return request, fds
                # in both processes: the kernel leads a process group from its first moment
                with contextlib.suppress(OSError):
                    os.setpgid(pid, pid)
                answer = {"pid": pid}
        except OSError as error:
            answer = {"error": str(error)}
        for fd in fds:
            os.close(fd)
        server.send(json.dumps(answer).encode())


def settle(request: dict[str, Any]) -> None:
    """In a forked process: its folder, variables, limits and random numbers."""
    import numpy as np

    os.chdir(request["cwd"])
    for name in [name for name in os.environ if name.startswith(OWN_PREFIX)]:
        del os.environ[name]
    os.environ.update(request["env"])
    np.random.seed()  # Python reseeds its own generator after a fork, NumPy doesn't
    importlib.invalidate_caches()  # modules that were written since the server started
    if limit := request.get("memory"):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def become_kernel(argv: list[str]) -> None:
    """Do what ``python -m ipykernel_launcher ARGV`` does."""
    from ipykernel.kernelapp import launch_new_instance

    sys.argv = ["ipykernel_launcher", *argv]
    launch_new_instance()


async def serve_cells(connection: socket.socket) -> None:
    """Be a kernel whose messages go through one socket, each a line of JSON.

    It is IPython's own kernel, so that a cell's outputs are the same; what is left out are
    ZeroMQ's sockets and threads, the history file, and the user's start-up files.
    """
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelapp import IPKernelApp
    from tornado.ioloop import IOLoop
    from traitlets.config import Config

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    session = _line_session(connection)
    # tqdm takes an application of this name for a notebook
    config = Config(IPKernelApp={"transport": "ipc"}, HistoryManager={"enabled": False})
    log = logging.getLogger("kernel")
    kernel: Any = IPythonKernel.instance(session=session, config=config, log=log)
    application: Any = IPKernelApp.instance(config=config)
    application.kernel = kernel  # where `%matplotlib` looks for it
    application.init_path()
    kernel.io_loop = IOLoop.current()  # `exit()` asks it to stop
    kernel.shell_channel_thread = SimpleNamespace(parent_thread=threading.current_thread())
    kernel.shell.extension_manager.load_extension("storemagic")
    sys.stdout, sys.stderr = (
        _CellStream(name, fd, kernel) for fd, name in ((1, "stdout"), (2, "stderr"))
    )
    requests = connection.makefile("rb")
    while line := await asyncio.to_thread(requests.readline):
        request = json.loads(line)
        kernel.set_parent([], request)
        await kernel.execute_request(None, [], request)
        session.send(None, "status", {"execution_state": "idle"}, request)
    os._exit(0)


def _line_session(connection: socket.socket) -> Any:
    from jupyter_client.session import Session

    lock, owner = threading.RLock(), os.getpid()

    class LineSession(Session):
        """Sends messages as lines of JSON, whatever channel they are meant for."""

        def send(  # noqa: PLR0917  # its base's
            self,
            _: Any,
            msg_or_type: Any,
            content: Any = None,
            parent: Any = None,
            ident: Any = None,  # noqa: ARG002
            buffers: Any = None,  # noqa: ARG002
            track: bool = False,  # noqa: ARG002
            header: Any = None,
            metadata: Any = None,
        ) -> Any:
            message = msg_or_type
            if not isinstance(message, dict):
                message = self.msg(msg_or_type, content, parent, header, metadata)
            if os.getpid() == owner:  # a process that a cell forked must not mix its lines in
                with lock:
                    connection.sendall(self.pack(message) + b"\n")
            return message

    return LineSession()


class _CellStream(io.TextIOBase):
    """Python's stdout or stderr, and what others write to its file descriptor, as messages."""

    encoding = "utf-8"

    def __init__(self, name: str, fd: int, kernel: Any) -> None:
        self.name, self._fd, self._kernel, self._owner = name, fd, kernel, os.getpid()
        self._lock, self._size = threading.RLock(), 0
        self._text: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        os.dup2(write_end, fd)
        os.close(write_end)
        threading.Thread(target=self._watch, daemon=True).start()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._owner:  # a process that a cell forked
            os.write(self._fd, text.encode())
            return len(text)
        with self._lock:
            self._text.append(text)
            self._size += len(text)
        if self._size > FLUSH_SIZE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._drain()
            text, self._text, self._size = "".join(self._text), [], 0
            if text:
                content = {"name": self.name, "text": text}
                parent = self._kernel.shell.display_pub.parent_header
                self._kernel.session.send(None, "stream", content, parent)

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def _watch(self) -> None:
        while True:
            select.select([self._pipe], [], [])
            with self._lock:
                self._drain()
            if self._size > FLUSH_SIZE:
                self.flush()

    def _drain(self) -> None:
        """Take over what the pipe holds now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, FLUSH_SIZE):
                text = self._decoder.decode(data)
                self._text.append(text)
                self._size += len(text)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the script's folder
    with socket.socket(fileno=int(sys.argv[1])) as server:
        preload()
        request, fds = answer_requests(server)
    settle(request)
    if "argv" in request:
        become_kernel(request["argv"])
    else:
        asyncio.run(serve_cells(socket.socket(fileno=fds[0])))
