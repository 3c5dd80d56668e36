"""Running an application on uvicorn: one process, or several workers that share a listening socket.

Each worker is a program of its own, started anew rather than forked: a fork of a process with
threads inherits their locks, and none of the threads that would open them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_lib.errors import LeptonError, RunError
from lepton_lib.serving.problems import ANSWER_SECONDS
from lepton_lib.serving.releases import load_current
from lepton_lib.serving.telemetry import log_event
from lepton_lib.utils import is_loopback

if TYPE_CHECKING:
    import uvicorn

WORKER_SECONDS = 30.0  # for a worker to show that it is alive: it may be busy with its imports


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
    """Serve a run folder until interrupted: what ``lepton serve RUN`` calls. Logs JSON to stderr.

    Args:
        run_dir: The run folder; its current release is verified first.
        host: The address to bind to; only this machine can reach the default.
        port: The port; 0 takes a free one, which the first line of the log names.
        workers: Processes that answer; one that dies is started again.
        trust: Public keys whose signature counts; without it, the user's own alone.
        require_key: Demand an API key, also where the run has none yet.
        no_keys: Answer without a key, also on an address that others can reach.
        with_parent: End when standard input closes, for example at the death of its writer.

    Raises:
        RunError: The service folder can't be used, the address can't be bound, others can reach it
            and there are no keys, or no worker can start.
    """
    from lepton_lib.serving.app import create_app

    require_keys(host, run_dir, no_keys=no_keys or require_key)
    listener = listen(host, port)
    if workers > 1:
        load_current(run_dir, trust=trust)  # once, here, where an error is seen
    make_app = partial(create_app, run_dir, trust=trust, require_key=require_key, workers=workers)
    run(make_app, listener, workers=workers, with_parent=with_parent)


def require_keys(host: str, run_dir: str | Path | None, *, no_keys: bool) -> None:
    """Refuse an address that others can reach while there are no API keys, unless that is wanted.

    Raises:
        RunError: There are none.
    """
    from lepton_lib.serving.api_keys import keys_file

    if not (is_loopback(host) or no_keys or (run_dir and keys_file(run_dir).exists())):
        where, got = f"refusing to bind to {host} without API keys", "no key file"
        remedy = (
            f"Run `lepton keys add {run_dir or 'FOLDER'} NAME` first, or pass no_keys (--no-keys)."
        )
        raise RunError(where, got, "one, because others can reach this address", remedy)


def run(
    make_app: Callable[[], Any],
    listener: socket.socket,
    *,
    workers: int = 1,
    with_parent: bool = False,
) -> None:
    """Serve an ASGI application until interrupted; for several workers it is made in each.

    Raises:
        LeptonError: What ``make_app`` raises.
        RunError: No worker can start.
    """
    import uvicorn

    _configure_logging()
    address, port, *_ = listener.getsockname()
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    if workers == 1:
        server = uvicorn.Server(_config(make_app(), address))
        if with_parent:
            _at_end_of_input(lambda: setattr(server, "should_exit", True))
        log_event("listening", url=url)
        server.run(sockets=[listener])
    else:
        log_event("listening", url=url, workers=workers)
        _run_workers(make_app, listener, address, workers, with_parent=with_parent)


def _config(app: Any, address: str, **options: Any) -> uvicorn.Config:
    import uvicorn

    from lepton_lib.serving.protocol import LoopbackProtocol, TimedProtocol

    return uvicorn.Config(
        app,
        http=LoopbackProtocol if is_loopback(address) else TimedProtocol,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=ANSWER_SECONDS,
        **options,
    )


def _run_workers(
    make_app: Callable[[], Any],
    listener: socket.socket,
    address: str,
    workers: int,
    *,
    with_parent: bool,
) -> None:
    from prometheus_client import multiprocess
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    class Supervisor(Multiprocess):
        """uvicorn's, which also forgets a dead worker's gauges."""

        def keep_subprocess_alive(self) -> None:
            before = [process.pid for process in self.processes]
            for process in self.processes:
                # The worker has an end of its own: with ours closed, its death is seen at once.
                process.child_conn.close()
            super().keep_subprocess_alive()
            for pid in {*before} - {process.pid for process in self.processes}:
                log_event("worker died", pid=pid)
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]

    with tempfile.TemporaryDirectory(prefix="lepton-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        options = {"workers": workers, "timeout_worker_healthcheck": WORKER_SECONDS}
        config = _config(partial(_start_worker, make_app), address, factory=True, **options)
        supervisor = Supervisor(config, [listener])
        if with_parent:
            _at_end_of_input(supervisor.should_exit.set)
        supervisor.run()
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise RunError("service", "a worker that can't start", "one that can", "Fix what it names.")


def _start_worker(make_app: Callable[[], Any]) -> Any:
    """Make the application in a worker, which ends with its supervisor."""
    from uvicorn.config import STARTUP_FAILURE

    _configure_logging()
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    started = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) / "started"
    try:
        app = make_app()
    except Exception as error:
        known = isinstance(error, LeptonError)
        logging.getLogger("lepton.serving").error(str(error) if known else traceback.format_exc())
        # The supervisor ends at a startup failure. Once a worker has started, others may serve:
        # then it is to try again. At once, because it kills what is slow to end.
        os._exit(1 if started.exists() else STARTUP_FAILURE)
    started.touch()
    return app


def _end_with_supervisor() -> None:
    if supervisor := multiprocessing.parent_process():
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _at_end_of_input(end: Callable[[], object]) -> None:
    def watch() -> None:
        while os.read(0, 1024):
            pass
        end()

    threading.Thread(target=watch, daemon=True).start()


def _configure_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # No line shows these; finding the caller takes longer than writing the line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


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
        got = getattr(error, "strerror", None) or str(error)
        remedy = "Choose another port (0 takes a free one), or end the program that holds it."
        where, expected = f"address {host}, port {port}", "an address of this machine, a free port"
        raise RunError(where, got, expected, remedy) from error
    return listener
