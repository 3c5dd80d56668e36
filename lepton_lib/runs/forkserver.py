"""The process that `lepton_lib.runs.kernels` starts: imports the heavy packages once, then forks a kernel a request.

Run as a script, so that nothing of our own is imported: a kernel sees the library as it lies on the
disk when its notebook begins. Its one argument is the file descriptor of a socket of whole
messages, each a JSON object:

- ``{"words": [...], "cwd": folder, "own": {name: value}}``, perhaps with file descriptors for the
  kernel, is answered by ``{"pid": number}``;
- ``{"wait": pid}`` by ``{"status": exit status}``; until then the number belongs to nobody else.

Where the system refuses, the answer is ``{"error": text}``. The script ends when the socket's other
end is closed.
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

# variables that only our library reads, in a kernel: they may differ from those of this process
OWN = "LEPTON_"
LIMIT = 100_000  # bytes of a message
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
    """Import what the notebooks import; runs nothing in torch, whose worker threads a fork would lose."""
    # read when ipykernel is imported: kernels end when we do
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    # as ipykernel does, too late
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # pandas asks once: is this a notebook?
    vars(builtins)["get_ipython"] = lambda: SimpleNamespace(kernel=None)
    for name in PRELOADED:
        # what is missing or broken is told by the notebook that imports it
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    del vars(builtins)["get_ipython"]
    gc.collect()
    # the collector then leaves these objects alone, and the kernels go on sharing their pages
    gc.freeze()


def serve(server: socket.socket) -> dict[str, Any]:
    """Answer until the other end is closed; returns the request in each kernel, and only there."""
    while True:
        message, fds, *_ = socket.recv_fds(server, LIMIT, 8)
        if not message:
            sys.exit()
        request: dict[str, Any] = json.loads(message)
        try:
            if "wait" in request:
                answer: dict[str, object] = {
                    "status": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
                }
            else:
                pid = os.fork()
                if pid == 0:
                    os.setpgid(0, 0)
                    return request
                # whoever is first: the kernel leads a group from its first moment
                with contextlib.suppress(OSError):
                    os.setpgid(pid, pid)
                answer = {"pid": pid}
        except OSError as error:
            answer = {"error": str(error)}
        for fd in fds:
            os.close(fd)
        server.send(json.dumps(answer).encode())


def become_kernel(request: dict[str, Any]) -> None:
    """In a forked process: be what ``python -m ipykernel_launcher WORDS`` is, in its folder."""
    import numpy as np
    from ipykernel.kernelapp import launch_new_instance

    os.chdir(request["cwd"])
    for name in [name for name in os.environ if name.startswith(OWN)]:
        del os.environ[name]
    os.environ.update(request["own"])
    np.random.seed()  # Python's own generator starts anew in a fork, NumPy's global one doesn't
    sys.argv = ["ipykernel_launcher", *request["words"]]
    launch_new_instance()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the script's folder
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        preload()
        order = serve(ours)
    become_kernel(order)
