"""Running the service: in this process for a person, or beside a notebook or test that ends it again."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from lepton_lib.errors import RunError
from lepton_lib.serving.releases import folder_of
from lepton_lib.serving.scoring import read_service

# loopback is never behind a proxy
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def serve(
    run_dir: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    workers: int = 1,
    trust: Sequence[str] | None = None,
    require_key: bool = False,
    no_keys: bool = False,
    with_parent: bool = False,
) -> None:
    """Serve a run folder until interrupted: what ``lepton serve RUN`` calls. Its log, JSON lines, goes to stderr.

    Args:
        run_dir: The run folder; its current release is verified first.
        host: The address to bind to; only this machine can reach the default.
        port: The port; 0 takes a free one, which the first line of the log names.
        workers: Processes that answer; one that dies is started again.
        trust: Public keys whose signature counts; without it, the user's own alone.
        require_key: Demand an API key, also where the run has none yet.
        no_keys: Let everybody who reaches another address than this machine's own ask without a
            key.
        with_parent: End when standard input closes, as it does when the process at its other end
            dies.

    Raises:
        RunError: The service folder can't be used, the address can't be bound, or it can be reached
            from elsewhere and there are no keys.
    """
    from lepton_lib.serving.guards import keys_file

    if not (is_loopback(host) or no_keys or require_key or keys_file(run_dir).exists()):
        raise RunError(
            f"address {host}",
            "a service that others can reach and that asks nobody for a key",
            "keys, or the word that none are wanted",
            f"`lepton keys add {run_dir} NAME` first, or say --no-keys.",
        )
    listener = listen(host, port)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    bound = f"[{host}]" if ":" in host else host
    url = f"http://{bound}:{listener.getsockname()[1]}"
    if workers > 1:
        read_service(folder_of(run_dir), trust=trust)  # once, here, where it can be told
        words = [str(run_dir), "--share", str(workers), *(f"--trust={key}" for key in trust or ())]
        _log("listening", url=url, workers=workers)
        Supervisor(
            words + ["--require-key"] * require_key, listener, workers, with_parent=with_parent
        ).run()
    else:
        answer(
            run_dir,
            listener,
            url=url,
            trust=trust,
            require_key=require_key,
            with_parent=with_parent,
        )


def answer(
    run_dir: str | Path,
    listener: socket.socket,
    *,
    url: str = "",
    trust: Sequence[str] | None = None,
    require_key: bool = False,
    workers: int = 1,
    with_parent: bool = False,
) -> None:
    """Answer what comes in at a listening socket until interrupted; one of ``workers`` processes."""
    import uvicorn

    from lepton_lib.serving.app import create_app
    from lepton_lib.serving.guards import GuardedProtocol, GuardedServer

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # no line tells them
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # nor where it was written; to find it out takes longer than to write the line
    logging._srcfile = None
    app = create_app(run_dir, trust=trust, require_key=require_key, workers=workers)
    config = uvicorn.Config(
        app,
        http=GuardedProtocol,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = GuardedServer(config)
    if with_parent:
        _end_with_parent(lambda: setattr(server, "should_exit", True))
    if url:
        _log("listening", url=url)
    server.run(sockets=[listener])


class Supervisor:
    """Keeps worker processes alive that share one listening socket.

    Each worker is a program of its own, started anew rather than forked: a fork of a process with
    threads inherits their locks, and none of the threads that would open them. All write to one
    log, which SQLite lets one do at a time.

    Args:
        words: What each worker is told: the run folder and options.
        listener: The socket.
        workers: How many.
        with_parent: End when standard input closes.
    """

    def __init__(
        self, words: Sequence[str], listener: socket.socket, workers: int, *, with_parent: bool
    ) -> None:
        self._words = words
        self._listener = listener
        self._workers: list[subprocess.Popen[bytes]] = []
        self._count = workers
        self._end = threading.Event()
        if with_parent:
            _end_with_parent(self._end.set)
        elif threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._end.set())

    def run(self) -> None:
        """Until told to end: start the workers, and start again each that dies, at most one in half a second."""
        with tempfile.TemporaryDirectory(prefix="lepton-metrics-") as folder:
            self._metrics = folder
            try:
                self._workers = [self._start() for _ in range(self._count)]
                while not self._end.wait(0.05):
                    for place, worker in enumerate(self._workers):
                        if (code := worker.poll()) is not None:
                            self._forget(worker)
                            _log("worker died", pid=worker.pid, code=code)
                            self._end.wait(0.5)
                            if not self._end.is_set():
                                self._workers[place] = self._start()
            finally:
                for worker in self._workers:
                    assert worker.stdin is not None
                    worker.stdin.close()
                for worker in self._workers:
                    try:
                        worker.wait(5)
                    except subprocess.TimeoutExpired:
                        worker.kill()
                        worker.wait()
                self._listener.close()

    def _start(self) -> subprocess.Popen[bytes]:
        number = self._listener.fileno()
        command = [
            sys.executable,
            "-m",
            "lepton_lib.serving",
            *self._words,
            "--fd",
            str(number),
            "--with-parent",
        ]
        worker = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=[number],
            # an interrupt at the terminal is the supervisor's: it ends them in good order
            start_new_session=True,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": self._metrics},
        )
        _log("worker started", pid=worker.pid)
        return worker

    def _forget(self, worker: subprocess.Popen[bytes]) -> None:
        from prometheus_client import multiprocess

        assert worker.stdin is not None
        worker.stdin.close()
        multiprocess.mark_process_dead(worker.pid, self._metrics)  # type: ignore[no-untyped-call]  # it has no types


def _end_with_parent(end: Callable[[], object]) -> None:
    def watch() -> None:
        while os.read(0, 1024):
            pass
        end()

    threading.Thread(target=watch, daemon=True).start()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _log(event: str, **values: object) -> None:
    logging.getLogger("lepton.serving").info(json.dumps({"event": event, **values}))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        RunError: The address can't be bound.
    """
    # With the protocol named, asyncio sets TCP_NODELAY on each connection; without it every answer
    # waits 40 ms.
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
            getattr(error, "strerror", None) or str(error),
            "an address of this machine and a free port",
            "Choose another port (0 takes a free one), or end the program that holds it.",
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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
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
        raise RunError(
            "service",
            "\n".join(["no answer; its last lines:", *list(self.lines)[-5:]]),
            "a service that is ready",
            "Mend what its last line names, then start it again.",
        )


def start(
    run_dir: str | Path, port: int = 0, *, workers: int = 1, timeout: float = 60.0
) -> LocalService:
    """Start the service of a run folder beside this process, and wait until it is ready.

    It ends with ``stop()``, at the end of a ``with`` block, or when this process dies, however it
    dies.

    Args:
        run_dir: The run folder.
        port: Of the loopback interface; 0 takes a free one.
        workers: Processes that answer.
        timeout: Seconds to wait.

    Raises:
        RunError: It ended, or isn't ready in time; with the last lines of its log.
    """
    command = [
        sys.executable,
        "-m",
        "lepton_lib.serving",
        str(run_dir),
        "--port",
        str(port),
        "--with-parent",
    ]
    command += ["--workers", str(workers)]
    pipe = subprocess.PIPE
    service = LocalService(
        subprocess.Popen(
            command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True, encoding="utf-8"
        )
    )
    service._wait(timeout)
    return service
