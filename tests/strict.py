"""A strict pytest plugin over nbval: it runs notebooks as JupyterLab does, compares all output.

    python -m pytest -p tests.strict --nbval --nbval-current-env notebooks/00_environment.ipynb

nbval finds the notebooks, starts the kernel and shows failures. This module runs the cells and
judges them:

- The file itself comes first (`tests.static_checks`), so a notebook that was stripped or never run
  is red.
- A cell is judged by the kernel's reply, not only by what it shows: an unknown magic, a failing
  shell command and ``sys.exit()`` leave no error output. A kernel that dies is seen within a
  second.
- Outputs are compared in their order with all that they hold. Nothing is skipped and no cell can
  ask to be.
- A figure's data come first, as its text describes them (`lepton_lib.plots.Picture`); then each
  pixel, which the pinned versions make the same everywhere.
- What is said of a run, in a reading, a figure's alternative text or by a question's right letter,
  is bound to it by an expression (`lepton_lib.runs.readings`), evaluated after the cell.
- Types: of what a cell can show, only a DataFrame hides them, so `lepton_lib.plots.use_style` ends
  its text with them. A type behind a ``print`` isn't seen, and what is printed doesn't depend on
  it.
"""

import base64
import difflib
import io
import json
import os
import sys
import time
from queue import Empty
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from nbval.cover import setup_coverage
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError
from PIL import Image

from lepton_lib.runs.readings import bound_after, describe, user_expressions, verdicts
from lepton_lib.utils import SAME_BITS
from tests import offline
from tests.static_checks import check_notebook
from tests.syscalls import strace

# Python's arguments for a separate run; xdist would spread a notebook's cells over kernels.
STRICT = [
    "-m",
    "pytest",
    "-p",
    "tests.strict",
    "-p",
    "no:xdist",
    "-p",
    "no:cacheprovider",
    "--color=no",
]
# two seconds of imports
STRICT += ["-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:schemathesis"]
STRICT += ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"]
POLL_SECONDS = 0.5  # how often a silent kernel is asked whether it's alive
OUTPUTS = {"stream", "display_data", "execute_result", "error"}
SILENT = {"status", "execute_input", "comm_open", "comm_msg", "comm_close"}
EXIT_CODE = "globals().pop('_exit_code', 0)"  # IPython keeps a shell command's here
SHOWN_LINES = 40  # of a difference


def pytest_configure():
    """Progress bars, threads and instructions as in `make notebooks`."""
    for name, value in {"TQDM_DISABLE": "1", **SAME_BITS}.items():
        os.environ.setdefault(name, value)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    """Take nbval's notebooks over."""
    found = yield
    return [
        StrictFile.from_parent(parent, path=file_path) if isinstance(f, IPyNbFile) else f
        for f in found
    ]


class StrictFile(IPyNbFile):
    """A notebook: first its file, then its code cells by their ids."""

    def setup(self):
        """Start this Python's kernel, which shows what native code writes, as in JupyterLab."""
        # ipykernel then follows file descriptors 1 and 2, too
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        seconds = self.config.option.nbval_kernel_startup_timeout
        self.kernel = StrictKernel(
            CURRENT_ENV_KERNEL_NAME, cwd=str(self.path.parent), startup_timeout=seconds
        )
        if getattr(self.config.option, "cov_source", None):
            setup_coverage(self.config, self.kernel, self.path)

    def collect(self):
        """The file, then the cells."""
        yield FileItem.from_parent(self, name="file")
        for item in super().collect():
            cell, number = item.cell, item.cell_num
            yield StrictCell.from_parent(
                self, name=cell.id, cell_num=number, cell=cell, options=item.options
            )

    def bound(self, cell):
        """What the notebook says of the run as it stands after a cell."""
        index = next(k for k, other in enumerate(self.nb.cells) if other.id == cell.id)
        return list(bound_after(self.nb.cells, index))


class FileItem(pytest.Item):
    """What holds of the file without running it."""

    def runtest(self):
        """Check the file."""
        problems = check_notebook(self.path)
        assert not problems, "\n".join(problems)

    def repr_failure(self, excinfo):
        """The problems, a line each."""
        return str(excinfo.value)


class StrictCell(IPyNbCell):
    """A code cell."""

    def runtest(self):
        """Run the cell and judge it."""
        if not self.parent.kernel.is_alive():
            raise NbCellError(
                self.cell_num, "the kernel is gone since an earlier cell", self.cell.source
            )
        bound = self.parent.bound(self.cell)
        try:
            reply, outputs = self.parent.kernel.run(
                self.cell.source, self.config.option.nbval_cell_timeout, bound
            )
        except KernelError as error:
            raise NbCellError(self.cell_num, str(error), self.cell.source) from error
        if problem := judge(self.cell, reply, outputs, bound):
            raise NbCellError(self.cell_num, problem, self.cell.source)


class KernelError(Exception):
    """The kernel didn't come to the cell's end, or sent what can't be compared."""


class StrictKernel(RunningKernel):
    """A kernel that runs cells as JupyterLab does, and is watched."""

    def run(self, source, seconds, bound):
        """Run a cell; return the reply, with the bindings evaluated, and the outputs in order."""
        expressions = user_expressions(bound) | {"exit": EXIT_CODE}
        asked = self.kc.execute(
            source, store_history=True, allow_stdin=False, user_expressions=expressions
        )
        deadline = time.monotonic() + seconds
        outputs = []
        while True:
            message = self._next("iopub", deadline, seconds)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked:
                if kind in OUTPUTS:
                    raise KernelError(f"an output of an earlier cell came only now: {content}")
            elif kind in OUTPUTS:
                outputs.append({"output_type": kind, **content})
            elif kind not in SILENT:
                raise KernelError(
                    f"the cell sends {kind}, which changes outputs afterwards and can't be compared"
                )
            elif content.get("execution_state") == "idle":
                break
        while (message := self._next("shell", deadline, seconds))["parent_header"].get(
            "msg_id"
        ) != asked:
            pass
        return message["content"], outputs

    def _next(self, stream, deadline, seconds):
        while time.monotonic() < deadline:
            try:
                return self.get_message(stream, timeout=POLL_SECONDS)
            except Empty:
                if not self.is_alive():
                    raise KernelError("the kernel died in this cell") from None
        self.stop()
        raise KernelError(f"the cell came to no end within {seconds:g} s")


def judge(cell, reply, outputs, bound):
    """Say what is wrong with a cell that ran; empty if nothing is.

    Args:
        cell: As stored.
        reply: The kernel's reply to it.
        outputs: What it gave now.
        bound: What is said of it, by it and the readings behind it.
    """
    meant = "raises-exception" in cell.metadata.get("tags", [])
    if reply["status"] != "ok" and not meant:
        trace = "\n".join(line for output in outputs for line in output.get("traceback", []))
        return f"the cell failed: {reply.get('ename')}: {reply.get('evalue')}\n{trace}"
    if reply["status"] == "ok" and meant:
        return "the cell is tagged raises-exception, and raised nothing"
    code = reply.get("user_expressions", {}).get("exit", {}).get("data", {}).get("text/plain", "0")
    if code != "0":
        return f"a shell command failed with exit code {code}"
    if any(part.get("source") == "ask_exit" for part in reply.get("payload", [])):
        return "the cell asked the kernel to exit"
    if cell.execution_count is None:
        return "the cell was never run: nothing is stored that could be compared"
    if cell.execution_count != reply["execution_count"]:
        number = reply["execution_count"]
        run = f"the cell was run as number {cell.execution_count}"
        return f"{run}, but is number {number} from the top"
    judged = verdicts(bound, reply.get("user_expressions", {})) if reply["status"] == "ok" else ()
    if problems := [describe(verdict) for verdict in judged if verdict.problem]:
        return "\n".join(problems)
    if "measured" in cell.metadata.get("tags", []):
        return compare_kinds(cell.outputs, outputs)
    return compare(cell.outputs, outputs)


def compare_kinds(stored, fresh):
    """Describe how the kinds of a measured cell's outputs differ; empty if they are the same."""
    kinds = [[sorted(part) for part in _parts(outputs)] for outputs in (stored, fresh)]
    return "" if kinds[0] == kinds[1] else f"{kinds[0]} is stored, the run gives {kinds[1]}"


def compare(stored, fresh):
    """Describe the first difference between stored and fresh outputs; empty if there is none."""
    stored, fresh = _parts(stored), _parts(fresh)
    for was, now in zip(stored, fresh, strict=False):
        if list(was) != list(now):
            kinds = f"{', '.join(was)} is stored, the run gives {', '.join(now)}"
            return f"another kind of output: {kinds}"
        for part in (part for part in was if was[part] != now[part]):
            if part != "image/png":
                what = "the figure's data" if part == "text/plain" and "image/png" in was else part
                difference = _difference(was[part], now[part])
                return f"{what}: the run gives something else than is stored\n{difference}"
            if problem := _pixels(was[part], now[part]):
                return problem
    if len(stored) == len(fresh):
        return ""
    number, more = (
        (len(stored), stored[len(fresh) :])
        if len(stored) > len(fresh)
        else (len(fresh), fresh[len(stored) :])
    )
    less = f"{len(stored)} outputs are stored, the run gives {len(fresh)}"
    return f"{less}; without a counterpart from number {number - len(more) + 1} on:\n{more[0]}"[
        :2000
    ]


def _parts(outputs):
    """Turn each output into a dictionary of its parts, in the order in which they are compared."""
    found = []
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            if found and list(found[-1]) == [output["name"]]:
                found[-1][output["name"]] += output["text"]
            else:
                found.append({output["name"]: output["text"]})
        elif kind == "error":
            found.append({"error": f"{output['ename']}: {output['evalue']}"})
        else:
            data = sorted(
                output["data"].items(), key=lambda item: (item[0] == "image/png", item[0])
            )
            found.append(
                dict(data) | {"metadata": json.dumps(output["metadata"], sort_keys=True), kind: ""}
            )
    return found


def _difference(was, now):
    lines = list(
        difflib.unified_diff(
            str(was).splitlines(), str(now).splitlines(), "stored", "now", lineterm="", n=1
        )
    )
    return "\n".join(lines[:SHOWN_LINES])


def _pixels(was, now):
    """Describe how the pixels of two pictures differ; empty if they are the same."""
    try:
        before, after = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))
            for png in (was, now)
        )
    except (OSError, ValueError, SyntaxError):
        return "the stored picture can't be decoded"
    if before.shape != after.shape:
        change = f"its size was {before.shape[1::-1]} and is {after.shape[1::-1]}"
    elif (changed := int((before != after).any(axis=2).sum())) > 0:
        change = f"{changed} of {before[..., 0].size} pixels differ"
    else:
        return ""
    versions = f"matplotlib is {matplotlib.__version__}; constraints.txt has the pinned one"
    remedy = "If it's meant, store it by `make notebooks`"
    return f"the figure shows the same data, but {change} ({versions}). {remedy}"


def run_strictly(paths, *options, cwd, **variables):
    """Run notebooks in a strict pytest of their own, with no network.

    Args:
        paths: The notebooks, which lie below ``cwd``.
        *options: More of pytest's words.
        cwd: Where it runs.
        **variables: More for its environment.

    Returns:
        By notebook and cell, or ``file``: the failure's text, empty where it passed, and the
        seconds that it took. Under ``network`` in the last notebook: each attempt to reach another
        machine, also one whose error was swallowed.
    """
    report, attempts, trace = (cwd / name for name in ("strict.xml", "attempts.txt", "calls.txt"))
    attempts.write_text("")
    watch = [*strace(), "-o", str(trace)] if strace() else []
    words = [*STRICT, "--rootdir", str(cwd), f"--junitxml={report}", *options]
    done = offline.run(
        *[*watch, sys.executable, *words, *map(str, paths)],
        cwd=cwd,
        timeout=2700,
        **{"LEPTON_ATTEMPTS": str(attempts), **variables},
    )
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), (
        done.stdout[-4000:] + done.stderr
    )
    results = {path.stem: {} for path in paths}
    assert len(results) == len(paths), "two notebooks of one name"
    for case in ElementTree.parse(report).iter("testcase"):
        failures = [part.text for part in case if part.tag in ("failure", "error")]
        stem = case.get("classname").split(".")[-2]  # notebooks.00_environment.ipynb
        results[stem][case.get("name")] = ("\n".join(failures), float(case.get("time")))
    assert (done.returncode == 0) == (
        not any(text for cells in results.values() for text, _ in cells.values())
    )
    return results
