"""Running the service: in this process for a person, or beside a notebook or test that ends it again."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from lepton_lib.errors import RunError

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is never behind a proxy


def serve(run_dir: str | Path, host: str = "127.0.0.1", port: int = 8000, *, with_parent: bool = False) -> None:
    """Serve a run folder until interrupted: what ``lepton serve RUN`` calls. Its log, JSON lines, goes to stderr.

    Args:
        run_dir: The run folder; its ``service/`` is verified first.
        host: The address to bind to; only this machine can reach the default.
        port: The port; 0 takes a free one, which the first line of the log names.
        with_parent: End when standard input closes, as it does when the process at its other end dies.

    Raises:
        RunError: The service folder can't be used, or the address can't be bound.
    """
    import uvicorn

    from lepton_lib.serving.app import create_app

    app = create_app(run_dir)
    listener = _listen(host, port)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3)
    )

    def end_with_parent() -> None:
        while os.read(0, 1024):
            pass
        server.should_exit = True

    if with_parent:
        threading.Thread(target=end_with_parent, daemon=True).start()
    bound = f"[{host}]" if ":" in host else host
    url = f"http://{bound}:{listener.getsockname()[1]}"
    logging.getLogger("lepton.serving").info(json.dumps({"event": "listening", "url": url}))
    server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    # With the protocol named, asyncio sets TCP_NODELAY on each connection; without it every answer waits 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise RunError(
            f"address {host}, port {port}",
            got=getattr(error, "strerror", None) or str(error),
            expected="an address of this machine and a free port",
            remedy="Choose another port (0 takes a free one), or end the program that holds it.",
        ) from error
    return listener


class LocalService:
    """A service in a process of its own, on the loopback interface. Made by `start`; a context manager.

    Attributes:
        url: Its address, ``http://127.0.0.1:<port>``.
        lines: The last lines of its log.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.url = ""
        self.lines: deque[str] = deque(maxlen=200)
        self._process = process
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process: asked first, killed after five seconds. May be called again."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        stream: IO[str] | None = self._process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                self.lines.append(line.rstrip())
                if not self.url and line.startswith('{"event": "listening"'):
                    self.url = json.loads(line)["url"]
                    self._listening.set()
        self._listening.set()  # its end: nothing more will come

    def _wait(self, patience: float) -> None:
        self._listening.wait(patience)
        deadline = time.monotonic() + patience
        while self.url and self.running and time.monotonic() < deadline:
            try:
                with _NO_PROXY.open(f"{self.url}/readyz", timeout=patience):
                    return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RunError(
            "service",
            got="\n".join(["no answer; its last lines:", *list(self.lines)[-5:]]),
            expected="a service that is ready",
            remedy="Mend what its last line names, then start it again.",
        )


def start(run_dir: str | Path, port: int = 0, *, patience: float = 60.0) -> LocalService:
    """Start the service of a run folder beside this process, and wait until it is ready.

    It ends with ``stop()``, at the end of a ``with`` block, or when this process dies, however it dies.

    Args:
        run_dir: The run folder.
        port: Of the loopback interface; 0 takes a free one.
        patience: Seconds to wait.

    Raises:
        RunError: It ended, or isn't ready in time; with the last lines of its log.
    """
    command = [sys.executable, "-m", "lepton_lib.serving", str(run_dir), "--port", str(port), "--with-parent"]
    pipe = subprocess.PIPE
    service = LocalService(
        subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True, encoding="utf-8")
    )
    service._wait(patience)
    return service
