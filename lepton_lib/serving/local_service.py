"""The service beside a notebook or a test: a process of its own that ends with this one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from pathlib import Path

from lepton_lib.errors import RunError

# loopback is never behind a proxy
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class LocalService(contextlib.AbstractContextManager["LocalService"]):
    """A service in a process of its own, on the loopback interface. A context manager.

    Made by `start`.

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

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self.lines.append(line.rstrip())
                if not self.url and line.startswith('{"event": "listening"'):
                    self.url = json.loads(line)["url"]
                    self._listening.set()
        self._listening.set()  # its end: nothing more will come

    def _wait(self, timeout: float) -> None:
        self._listening.wait(timeout)
        deadline = time.monotonic() + timeout
        while self.url and self.running and time.monotonic() < deadline:
            try:
                with _NO_PROXY.open(f"{self.url}/readyz", timeout=timeout):
                    return
            except OSError:
                time.sleep(0.02)
        self.stop()
        last = "\n".join(["no answer; its last lines:", *list(self.lines)[-5:]])
        remedy = "Fix what its last line names, then start it again."
        raise RunError("service", last, "a service that is ready", remedy)


def start(
    run_dir: str | Path, port: int = 0, *, workers: int = 1, timeout: float = 60.0
) -> LocalService:
    """Start the service of a run folder beside this process, and wait until it is ready.

    It ends with ``stop()``, at the end of a ``with`` block, or when this process dies, however it
    dies.

    Args:
        run_dir: The run folder.
        port: The port; 0 takes a free one.
        workers: Processes that answer.
        timeout: Seconds to wait.

    Raises:
        RunError: It ended, or isn't ready in time; with the last lines of its log.
    """
    command = [sys.executable, "-m", "lepton_lib.serving", str(run_dir), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers), "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    service = LocalService(process)
    service._wait(timeout)
    return service
