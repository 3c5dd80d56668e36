"""The fork server for kernels: imports the heavy packages once, then forks a kernel per request.

Started by `lepton_lib.runs.kernels` as a script, so that it never imports the library: a kernel
sees the library as it is on disk when its notebook starts. Its one argument is the file descriptor
of a socket of whole messages, each a JSON object:

- ``{"argv": [...], "cwd": folder, "env": {name: value}}``, optionally with file descriptors for the
  kernel, is answered by ``{"pid": number}``;
- ``{"wait": pid}`` by ``{"status": exit status}``; until then no other process gets that pid.

What the system refuses is answered by ``{"error": text}``. The script ends when the other end of
the socket is closed.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import json
import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

OWN_PREFIX = "LEPTON_"  # variables that only the library reads, so they may differ between kernels
MESSAGE_LIMIT = 100_000  # bytes
PRELOADED = (
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


def answer_requests(server: socket.socket) -> dict[str, Any]:
    """Answer requests; returns only in a forked kernel, with the request that it was forked for."""
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
                    return request
                # in both processes: the kernel leads a process group from its first moment
                with contextlib.suppress(OSError):
                    os.setpgid(pid, pid)
                answer = {"pid": pid}
        except OSError as error:
            answer = {"error": str(error)}
        for fd in fds:
            os.close(fd)
        server.send(json.dumps(answer).encode())


def become_kernel(request: dict[str, Any]) -> None:
    """In a forked process: do what ``python -m ipykernel_launcher ARGV`` does in its folder."""
    import numpy as np
    from ipykernel.kernelapp import launch_new_instance

    os.chdir(request["cwd"])
    for name in [name for name in os.environ if name.startswith(OWN_PREFIX)]:
        del os.environ[name]
    os.environ.update(request["env"])
    np.random.seed()  # Python reseeds its own generator after a fork, NumPy doesn't
    sys.argv = ["ipykernel_launcher", *request["argv"]]
    launch_new_instance()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the script's folder
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        preload()
        kernel_request = answer_requests(connection)
    become_kernel(kernel_request)
