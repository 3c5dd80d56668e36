"""Runs the cells of one notebook in a kernel of its own, and says exactly which cell failed and why.

Knows kernels and cells; doesn't know run folders. papermill injects the parameters. Its engine
reports a dead kernel, a time-out and ``sys.exit()`` as completed, so the cells are run through
nbclient here, and every reply is looked at.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.errors import NotebookError
from lepton_lib.runs.parameters import Value, is_code, tags

CELL_SECONDS = 600  # how long one cell may take
ASIDE = {"exercise", "lesson"}  # tags of cells that a pipeline run leaves out
Progress = Callable[[int, int], None]  # cells done, cells in all


class Event(NamedTuple):
    """How far a notebook is: ``done`` of ``total`` code cells."""

    notebook: str
    state: str  # "running", "finished", "already done" or "failed"
    done: int = 0
    total: int = 0
    seconds: float = 0.0


Listener = Callable[[Event], None]


class ProgressReporter:
    """Tells a listener how far one notebook is."""

    def __init__(self, notebook: str, listener: Listener | None) -> None:
        self._notebook, self._listener = notebook, listener
        self._cells, self._begun = (0, 0), time.monotonic()

    def on_cell(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` cells have run."""
        self._cells = (done, total)
        self("running")

    def __call__(self, state: str) -> None:
        """Tell of a new state."""
        if self._listener is not None:
            self._listener(
                Event(self._notebook, state, *self._cells, time.monotonic() - self._begun)
            )


def strip_tagged_cells(nb: Any) -> Any:
    """Take the cells tagged ``exercise`` or ``lesson`` out of a notebook."""
    nb.cells = [cell for cell in nb.cells if not ASIDE & set(tags(cell))]
    return nb


def inject(nb: Any, parameters: Mapping[str, Value]) -> Any:
    """A copy of the notebook with papermill's cell of parameters after the cell tagged ``parameters``."""
    from papermill.parameterize import parameterize_notebook

    nb.metadata["papermill"] = {}
    for cell in nb.cells:  # papermill takes tags on every cell for granted
        cell.metadata.setdefault("tags", [])
    nb = parameterize_notebook(nb, dict(parameters), kernel_name="python3", language="python")
    del nb.metadata["papermill"]
    for cell in nb.cells:
        if not cell.metadata["tags"]:
            del cell.metadata["tags"]
    next(cell for cell in nb.cells if "injected-parameters" in tags(cell))["id"] = (
        "injected-parameters"
    )
    return nb


def run_cells(
    nb: Any,
    *,
    name: str,
    folder: Path,
    look_in: str,
    timeout: int = CELL_SECONDS,
    environment: Mapping[str, str] | None = None,
    hold: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Run every code cell of ``nb``, which gets the outputs; its kernel has ended when this returns or raises.

    Args:
        nb: The notebook; changed in place, also when a cell fails.
        name: What messages call it.
        folder: The kernel's working directory.
        look_in: Where messages say the traceback is to be found.
        timeout: Seconds that one cell may take.
        environment: Variables set for the kernel, besides this process's own.
        hold: A file descriptor that the kernel inherits: a lock then lasts until the kernel has
            ended, too.
        progress: Called after each code cell with the number done and the number in all.

    Raises:
        NotebookError: A cell raised, timed out, asked to exit, or was never run; or the kernel died
            or didn't start.
    """
    work = _Execution(nb, name, folder, look_in, timeout, environment or {}, hold, progress).run()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:  # called from a notebook, whose thread runs a loop already
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, work).result()


@dataclass
class _Execution:
    """One notebook at work; the fields are `run_cells`'s arguments."""

    nb: Any
    name: str
    folder: Path
    look_in: str
    timeout: int
    environment: Mapping[str, str]
    hold: int | None
    progress: Progress | None
    # what the kernel answered to the cell at work
    reply: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> None:
        """Start the kernel, run every code cell, end the kernel."""
        from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager

        from lepton_lib.runs import kernels

        environment = {
            "TQDM_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
            **os.environ,
            **self.environment,
        }
        # imports what kernels need while we import what we need ourselves
        how = kernels.prepare(environment)
        from nbclient import NotebookClient

        class ThisPython(KernelSpecManager):
            """The kernel is this very Python, whatever a kernelspec of that name says elsewhere on the machine."""

            def get_kernel_spec(self, kernel_name: str) -> Any:  # noqa: ARG002  # the name is jupyter_client's
                argv = [
                    sys.executable,
                    "-Xfrozen_modules=off",
                    "-m",
                    "ipykernel_launcher",
                    "-f",
                    "{connection_file}",
                ]
                return KernelSpec(
                    argv=argv, display_name="Python 3", language="python", metadata=how
                )

        def keep(*, execute_reply: dict[str, Any], **_: object) -> None:
            self.reply = execute_reply["content"]

        # Sockets in a folder of our own: no port that others on the machine could listen to, no
        # writable home needed.
        sockets = tempfile.TemporaryDirectory(prefix="lepton-")
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=ThisPython(),
            transport="ipc",
            connection_file=f"{sockets.name}/kernel.json",
        )
        client = NotebookClient(
            self.nb,
            km=manager,
            timeout=self.timeout,
            record_timing=False,
            coalesce_streams=True,  # how a text is cut depends on when the kernel flushes it
            on_cell_executed=keep,
            # what it would log is said in the NotebookError
            log=logging.Logger("nbclient", logging.CRITICAL),
        )
        client.reset_execution_trackers()
        try:
            await self._start(client, environment)
            n_code = sum(map(is_code, self.nb.cells))
            done = 0
            for index, cell in enumerate(self.nb.cells):
                if is_code(cell):
                    await self._run_cell(client, cell, index)
                    done += 1
                    if self.progress is not None:
                        self.progress(done, n_code)
        finally:
            # its whole process group: also what the notebook started and left behind
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)
            if client.kc is not None:
                client.kc.stop_channels()
            await manager.cleanup_resources()
            sockets.cleanup()

    async def _start(self, client: Any, environment: Mapping[str, str]) -> None:
        options = {} if self.hold is None else {"pass_fds": (self.hold,)}
        try:
            await client.async_start_new_kernel(cwd=str(self.folder), env=environment, **options)
            await client.async_start_new_kernel_client()
        except (RuntimeError, OSError) as error:
            raise NotebookError(
                f"notebook {self.name}",
                f"no kernel ({error})",
                "a Jupyter kernel that starts",
                "Run `lepton doctor`.",
            ) from error

    async def _run_cell(self, client: Any, cell: Any, index: int) -> None:
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

        self.reply = {}
        try:
            await client.async_execute_cell(cell, index)
        except CellExecutionError as error:
            raise self._error(cell, f"{error.ename}: {error.evalue.rstrip('.')}") from error
        except CellTimeoutError as error:
            raise self._error(
                cell, f"TimeoutError: no end within {self.timeout} s", note=True
            ) from error
        except DeadKernelError as error:
            task = asyncio.current_task()
            # Ctrl-C, which nbclient takes for a dead kernel
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
            text = "DeadKernelError: the kernel died (killed, out of memory, or ended by os._exit or native code)"
            raise self._error(cell, text, note=True) from error
        status, ename = self.reply.get("status"), self.reply.get("ename")
        exits = ename == "SystemExit" or any(
            part.get("source") == "ask_exit" for part in self.reply.get("payload", [])
        )
        if exits:
            raise self._error(
                cell, "SystemExit: the cell asked to exit", note=ename != "SystemExit"
            )
        if status not in ("ok", "error") or cell.execution_count is None:
            raise self._error(
                cell, f"CellNotRun: the kernel answered {status!r} and ran nothing", note=True
            )

    def _error(self, cell: Any, got: str, *, note: bool = False) -> NotebookError:
        """The error for a cell; with ``note`` also put among its outputs, where nothing else tells of it."""
        from nbformat.v4 import new_output

        if note:
            name, _, text = got.partition(": ")
            cell.outputs.append(new_output("error", ename=name, evalue=text, traceback=[got]))
        first = next(line for line in cell.source.splitlines() if line.strip())
        return NotebookError(
            f"notebook {self.name}, cell {cell.id!r} (`{first.strip()}`)",
            got,
            "a cell that runs to its end",
            f"Look into {self.look_in}.",
        )
