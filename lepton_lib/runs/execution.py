"""Runs the cells of one notebook in a kernel of its own, and says which cell failed and why.

Knows kernels and cells; doesn't know run folders. papermill's engine reports a dead kernel, a
timeout and ``sys.exit()`` as completed, so the cells are run through nbclient here, and every reply
is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.errors import NotebookError
from lepton_lib.runs import kernels
from lepton_lib.runs.notebooks import is_code
from lepton_lib.runs.readings import Verdict, bound_after, user_expressions, verdicts
from lepton_lib.utils import NO_TELEMETRY, socket_folder

_LEPTON_ERROR = re.compile(r"(\w+Error: .+?): got (.+?), expected (.+?)\. (.+)", re.DOTALL)
CELL_TIMEOUT = 600  # seconds that one cell may take


class ProgressEvent(NamedTuple):
    """How far a notebook is: ``done`` of ``total`` code cells."""

    notebook: str
    state: str  # "running", "finished", "already done" or "failed"
    done: int = 0
    total: int = 0
    seconds: float = 0.0


ProgressCallback = Callable[[ProgressEvent], None]


@dataclass
class NotebookExecution:
    """One execution of a notebook's code cells, in a kernel of its own."""

    nb: Any  # gets the outputs, also when a cell fails
    name: str  # in messages
    folder: Path  # the kernel's working directory
    traceback_in: str  # where a message sends the reader for the traceback
    timeout: int | None = CELL_TIMEOUT  # seconds that one cell may take
    environment: Mapping[str, str] = field(default_factory=dict)  # over this process's own
    deadline: float | None = None  # of `time.monotonic`, for all cells together
    memory: int | None = None  # bytes that it may take; only where kernels are forked
    lock_fd: int | None = None  # inherited by the kernel, so that the lock lasts until it has ended
    progress: ProgressCallback | None = None  # called at the start, after each cell, and at the end
    verdicts: list[Verdict] = field(default_factory=list)  # on what the notebook says of its run
    _done: int = 0  # code cells
    _started: float = field(default_factory=time.monotonic)
    _reply: dict[str, Any] = field(default_factory=dict)  # the kernel's to the current cell

    def report(self, state: str) -> None:
        """Call the progress callback; the caller does so when it has finished or failed."""
        if self.progress is not None:
            total, seconds = sum(map(is_code, self.nb.cells)), time.monotonic() - self._started
            self.progress(ProgressEvent(self.name, state, self._done, total, seconds))

    def run(self) -> None:
        """Run every code cell; the kernel has ended when this returns or raises.

        Raises:
            NotebookError: A cell raised, timed out, asked to exit, or was never run; or the kernel
                died or didn't start.
        """
        self.report("running")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._run())
        else:  # called from a notebook, whose thread runs a loop already
            with ThreadPoolExecutor(1) as pool:
                pool.submit(asyncio.run, self._run()).result()

    def new_client(self, **options: Any) -> Any:
        """The client that sends cells to the kernel and collects their outputs."""
        from nbclient import NotebookClient

        return NotebookClient(self.nb, **options)

    async def _run(self) -> None:
        environment = {**kernels.DEFAULTS, **os.environ, **NO_TELEMETRY, **self.environment}
        if kernels.CAN_FORK:  # it imports what kernels need, while we import what we need ourselves
            kernels.fork_server(environment)

        def on_reply(*, execute_reply: dict[str, Any], **_: object) -> None:
            self._reply = execute_reply["content"]

        client = self.new_client(
            timeout=self.timeout,
            record_timing=False,
            coalesce_streams=True,  # how a text is cut depends on when the kernel flushes it
            on_cell_executed=on_reply,
            log=logging.Logger("nbclient", logging.CRITICAL),  # the NotebookError says it
        )
        client.reset_execution_trackers()
        start = self._forked_kernel if kernels.CAN_FORK else self._fresh_kernel
        async with start(client, environment):
            for index, cell in enumerate(self.nb.cells):
                if is_code(cell):
                    await self._run_cell(client, cell, index)
                    await self._judge(client, index)
                    self._done += 1
                    self.report("running")

    @contextlib.asynccontextmanager
    async def _forked_kernel(
        self, client: Any, environment: Mapping[str, str]
    ) -> AsyncIterator[None]:
        with self._kernel_errors():
            kernel = await kernels.SocketKernel.start(
                self.folder, environment, memory=self.memory, lock_fd=self.lock_fd
            )
        client.km = client.kc = kernel
        try:
            yield
        finally:
            kernel.end()

    @contextlib.asynccontextmanager
    async def _fresh_kernel(
        self, client: Any, environment: Mapping[str, str]
    ) -> AsyncIterator[None]:
        logging.getLogger(__name__).warning(kernels.SLOW_START)
        options = {} if self.lock_fd is None else {"pass_fds": (self.lock_fd,)}
        # Sockets in a folder of our own: no port that others on the machine could listen to, no
        # writable home needed.
        with self._kernel_errors():
            sockets = socket_folder()
        client.km = manager = _kernel_manager(f"{sockets.name}/kernel.json")
        try:
            with self._kernel_errors():
                await client.async_start_new_kernel(
                    cwd=str(self.folder), env=environment, **options
                )
                await client.async_start_new_kernel_client()
            yield
        finally:
            # its whole process group: also what the notebook started and left behind
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)
            if client.kc is not None:
                client.kc.stop_channels()
            await manager.cleanup_resources()
            sockets.cleanup()

    @contextlib.contextmanager
    def _kernel_errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:
            where, got = f"notebook {self.name}", f"no kernel ({error})"
            remedy = "Run `lepton doctor`."
            raise NotebookError(where, got, "a Jupyter kernel that starts", remedy) from error

    async def _run_cell(self, client: Any, cell: Any, index: int) -> None:
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

        self._reply = {}
        if self.deadline is not None:
            left = max(1, math.ceil(self.deadline - time.monotonic()))
            client.timeout = min(left, self.timeout or left)
        try:
            await client.async_execute_cell(cell, index)
        except CellExecutionError as error:
            raise self._error(cell, error.ename, error.evalue.rstrip(".")) from error
        except CellTimeoutError as error:
            text = f"no end within {client.timeout} s"
            raise self._error(cell, "TimeoutError", text) from error
        except DeadKernelError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # Ctrl-C, which nbclient takes for this
                raise asyncio.CancelledError from error
            text = "the kernel died (killed, out of memory, or ended by os._exit or native code)"
            if getattr(client.km, "output_bytes", 0) > kernels.OUTPUT_LIMIT:
                text = f"more than {kernels.OUTPUT_LIMIT / 1e6:.0f} MB of output"
            raise self._error(cell, "DeadKernelError", text) from error
        status, payload = self._reply.get("status"), self._reply.get("payload", [])
        asked = any(part.get("source") == "ask_exit" for part in payload)
        if asked or self._reply.get("ename") == "SystemExit":
            raise self._error(cell, "SystemExit", "the cell asked to exit")
        if status not in ("ok", "error") or cell.execution_count is None:
            text = f"the kernel answered {status!r} and ran nothing"
            raise self._error(cell, "CellNotRun", text)

    async def _judge(self, client: Any, index: int) -> None:
        """Evaluate in the kernel what the cells say of the run as it stands."""
        if not (bound := list(bound_after(self.nb.cells, index))):
            return
        asked = client.kc.execute(
            "", silent=True, store_history=False, user_expressions=user_expressions(bound)
        )
        reply = await client.kc.get_shell_msg(timeout=self.timeout)
        while reply["parent_header"].get("msg_id") != asked:
            reply = await client.kc.get_shell_msg(timeout=self.timeout)
        self.verdicts += verdicts(bound, reply["content"]["user_expressions"])

    def _error(self, cell: Any, ename: str, text: str) -> NotebookError:
        """The error for a cell; put among its outputs, too, where the kernel has left none."""
        from nbformat.v4 import new_output

        got = f"{ename}: {text}"
        if all(output.output_type != "error" for output in cell.outputs):
            cell.outputs.append(new_output("error", ename=ename, evalue=text, traceback=[got]))
        first = next(line for line in cell.source.splitlines() if line.strip())
        where = f"notebook {self.name}, cell {cell.id!r} (`{first.strip()}`)"
        expected, remedy = "a cell that runs to its end", f"Look into {self.traceback_in}."
        if inner := _LEPTON_ERROR.fullmatch(got):  # one of the library's: its parts, once
            where, got, expected = f"{where}: {inner[1]}", inner[2], inner[3]
            remedy = f"{inner[4]}. {remedy}"
        return NotebookError(where, got, expected, remedy)


def _kernel_manager(connection_file: str) -> Any:
    """Starts kernels of this Python, whatever a kernelspec elsewhere on the machine says."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    python = [sys.executable, "-Xfrozen_modules=off"]
    argv = [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    class ThisPython(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=argv, display_name="Python 3", language="python")

    return ThisPython(transport="ipc", connection_file=connection_file)
