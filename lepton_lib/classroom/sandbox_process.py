"""Runs one learner's notebook in a sandbox, and writes down its answers to the exercises.

Nothing here grades, because a notebook may change everything in its process: the answers leave as
plain data. A line is written as soon as something is known. What the notebook needs is imported
after `isolate`, which can't work in a process with threads.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import fcntl
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lepton_lib.classroom.sandbox_protocol import SandboxEvent, SandboxJob, encode_answer

MAX_MEMORY = 2 << 30  # bytes
MAX_FILE = 256 << 20  # bytes of one file
MAX_ANSWER = 2 << 20  # characters of one answer
# Linux's constants: clone(2), mount(2), mount_setattr(2) and netdevice(7).
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 1 << 28, 1 << 29, 1 << 30
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
# Magics that run the rest as Python; `check` is looked for in plain code.
_TIMED = re.compile(r"^%%(?:time|timeit|capture)\b.*$|^%time\s+", re.MULTILINE)


class CellTimeout(BaseException):
    """A cell has taken too long; no ``except Exception`` catches it."""


@dataclass
class CodeCell:
    """A code cell of the learner's notebook."""

    id: str
    source: str  # plain Python, without magics
    keys: list[str]  # of the exercises that it checks
    original: str = ""  # its source as the notebook has it


def set_limits() -> None:
    """Limit what this process, and each one that it starts, may take."""
    for kind, limit in (
        (resource.RLIMIT_DATA, MAX_MEMORY),
        (resource.RLIMIT_FSIZE, MAX_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # where a lower limit holds already
            resource.setrlimit(kind, (limit, limit))


def isolate(writable: Sequence[str]) -> bool:
    """Cut this process off: it sees no network and no other process.

    It can write to the folders ``writable`` and to a ``/dev/shm`` of its own alone. That takes
    Linux, from 5.12, with user namespaces.

    Returns:
        Whether it worked.
    """
    user, group = os.getuid(), os.getgid()
    libc, namespaces = ctypes.CDLL(None), CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS
    if not hasattr(libc, "unshare") or libc.unshare(namespaces) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
        _mount_read_only(libc, [os.fsencode(folder) for folder in writable])
    except OSError:
        return False
    # The first child is the init of the PID namespace, with which all the others end; its child
    # runs the notebook.
    for _ in range(2):
        if child := os.fork():
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(code if code >= 0 else 128 - code)
    return True


def _mount_read_only(libc: ctypes.CDLL, writable: Sequence[bytes]) -> None:
    """Make all mounts read-only but the folders ``writable`` and a new ``/dev/shm``.

    Raises:
        OSError: The kernel refuses.
    """

    def must(result: int) -> None:
        if result != 0:
            raise OSError("the kernel refuses to mount")

    def mount(source: bytes | None, place: bytes, kind: bytes | None, flags: int) -> None:
        options = f"size={MAX_FILE}".encode() if kind else None
        must(libc.mount(source, place, kind, ctypes.c_ulong(flags), options))

    def set_attributes(place: bytes, add: int, remove: int, flags: int) -> None:
        attributes = struct.pack("4Q", add, remove, 0, 0)
        must(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, place, flags, attributes, len(attributes)))

    here = os.getcwd()
    mount(None, b"/", None, MS_REC | MS_PRIVATE)
    for place in writable:
        mount(place, place, None, MS_BIND)
    mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0)
    set_attributes(b"/", MOUNT_ATTR_RDONLY, 0, AT_RECURSIVE)
    for place in (*writable, b"/dev/shm"):
        set_attributes(place, 0, MOUNT_ATTR_RDONLY, 0)
    os.chdir(here)  # in the mounts as they are now


def run_job(job: SandboxJob) -> None:
    """Run a notebook and write down what becomes known of it."""
    descriptor = os.open(job.results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def send(event: SandboxEvent) -> None:
        fields = msgspec.structs.asdict(event)
        if len(line := json.dumps(fields)) >= MAX_ANSWER:
            line = json.dumps(fields | {"value": {"other": "large"}})
        os.write(descriptor, f"{line}\n".encode())

    set_limits()
    if job.isolated and not isolate(job.writable):
        return send(SandboxEvent("stopped", text="it can't be isolated"))
    from lepton_lib.utils import first_line

    try:
        cells, originals = _read_cells(Path(job.notebook))
    except BaseException as error:  # whatever makes it unreadable, the class report says so
        return send(SandboxEvent("unreadable", text=first_line(error)[:200]))
    needed = [cell for cell in cells if cell.source.strip()] if job.whole else needed_cells(cells)
    keys = sorted({key for cell in cells for key in cell.keys})
    send(SandboxEvent("keys", keys, partial=len(needed) < len(cells)))
    _run_cells(needed, originals, send, job.cell_timeout)
    send(SandboxEvent("end"))


def _read_cells(path: Path) -> tuple[list[CodeCell], dict[str, str]]:
    """The code cells, and the exercises' cells as the course has them by key."""
    # jsonschema takes a second to get ready for a format that no notebook has
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import nbformat
    from IPython.core.inputtransformer2 import TransformerManager

    from lepton_lib.classroom.notebooks import keys_in
    from lepton_lib.exercises.definitions import (
        Exercise,
        definition_files,
        find_definition,
        notebook_number,
        number_of,
    )
    from lepton_lib.runs import find_notebooks
    from lepton_lib.runs.notebooks import read_notebook

    nb = nbformat.reads(path.read_text("utf-8-sig"), as_version=4)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    known = set(definition_files())
    # where no check is left, the cells' ids tell
    numbers = {number_of(key) for cell in code for key in keys_in(cell.source)} & known or known
    own = [path for path in find_notebooks().values() if notebook_number(path) in numbers]
    originals: dict[str, str] = {}
    exercises: dict[str, Exercise] = {}  # by the cell's id
    for cell in (cell for path in own for cell in read_notebook(path).cells):
        for key in keys_in(cell.source) if cell.cell_type == "code" else []:
            originals[key] = cell.source.strip()
            if isinstance(definition := find_definition(key), Exercise):
                exercises[cell.id] = definition
    cells = []
    manager = TransformerManager()
    for cell in code:
        name, keys = cell.get("id", ""), keys_in(cell.source)
        plain = manager.transform_cell(_TIMED.sub("", cell.source))
        if name in exercises and not keys:  # the check was taken out: look at the answer's name
            exercise = exercises[name]
            keys, plain = [exercise.key], f'{plain}\ncheck("{exercise.key}", {exercise.name})'
        cells.append(CodeCell(name, plain, keys, cell.source.strip()))
    return cells, originals


def needed_cells(cells: list[CodeCell]) -> list[CodeCell]:
    """The cells with exercises, and those before that bind or change a name which is read there."""
    from lepton_lib.classroom.notebooks import bound_and_read

    dynamic = ("import *", "exec(", "globals(", "get_ipython(")
    missing: set[str] = set()
    needed = []
    for cell in reversed(cells):
        bound, read = set[str](), set[str]()
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            bound, read = bound_and_read(cell.source)
        if cell.keys or bound & missing or any(word in cell.source for word in dynamic):
            needed.append(cell)
            missing |= read
    return needed[::-1]


def _run_cells(
    cells: list[CodeCell],
    originals: dict[str, str],
    send: Callable[[SandboxEvent], None],
    cell_timeout: int,
) -> None:
    """Run cells in one IPython shell; each check in them sends its answer instead of grading it."""
    from IPython.core.interactiveshell import InteractiveShell

    from lepton_lib.classroom.notebooks import check_calls
    from lepton_lib.exercises import checkpoint
    from lepton_lib.utils import first_line

    shell: Any = InteractiveShell.instance()
    shell.enable_gui = lambda *_: None
    shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None
    collector = f"collect_{os.urandom(8).hex()}"
    running = cells[:1]

    def start_timer(seconds: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0 if seconds else 0)

    def collect(function: str, key: str, value: Any) -> Any:
        start_timer(0)  # what follows isn't the learner's time
        untouched = running[0].original == originals.get(key)
        send(SandboxEvent("answer", [key], value=encode_answer(key, value), untouched=untouched))
        right = checkpoint(key, value) if function == "checkpoint" else None
        start_timer(cell_timeout)
        return right

    def stop_cell(*_: object) -> None:
        raise CellTimeout

    signal.signal(signal.SIGALRM, stop_cell)
    for cell in cells:
        running[:] = [cell]
        send(SandboxEvent("cell", text=cell.id))
        try:
            tree = ast.parse(cell.source)
            for function, call in check_calls(tree):
                call.args.insert(0, ast.Constant(function))
                call.func = ast.Name(collector, ast.Load())
            source = ast.unparse(ast.fix_missing_locations(tree))
            shell.user_ns[collector] = collect
            start_timer(cell_timeout)
            result = shell.run_cell(source, silent=True, store_history=False)
            error = result.error_before_exec or result.error_in_exec
        except BaseException as raised:  # whatever a learner's code does, the next cell is run
            error = raised
        finally:
            start_timer(0)
        if error is not None:
            reason = first_line(error)[:200]
            if isinstance(error, CellTimeout):
                reason = f"no end within {cell_timeout} s"
            send(SandboxEvent("failed", cell.keys, text=reason))


if __name__ == "__main__":
    if len(sys.argv) == 1:  # asked whether it can be done here
        sys.exit(not isolate([]))
    run_job(msgspec.json.decode(sys.argv[1], type=SandboxJob))
