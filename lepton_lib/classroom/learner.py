"""Runs one learner's notebook, in a process of its own, and writes down what it gave to each exercise, as plain data.

Nothing here judges, for a notebook may change everything in its process: the values are judged
elsewhere. Only the exercises and the cells that they read from are run; a line is written as soon
as something is known.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DATA = 2 << 30  # bytes of memory
FILE = 256 << 20  # bytes of one file
ENTRY = 2 << 20  # characters of one answer
# Linux's names for them: unshare's, mount's, mount_setattr's and ioctl's.
NEW_USER, NEW_PID, NEW_NET, NEW_MOUNTS = 0x10000000, 0x20000000, 0x40000000, 0x20000
BIND, RECURSIVE, PRIVATE, SET_ATTRIBUTES, DEEP, READ_ONLY, INTERFACE_UP = (
    0x1000,
    0x4000,
    0x40000,
    442,
    0x8000,
    1,
    0x8914,
)


class CellTimeout(BaseException):
    """A cell has taken too long; no ``except Exception`` catches it."""


def isolate(cpu_seconds: int, writable: Sequence[str]) -> None:
    """Limit memory, processor time and files; take the network away, but for the loopback.

    Where the machine allows it (Linux with user namespaces) that holds for every program, no other
    process can be reached, and nothing can be written but in the folders ``writable``; else Python
    alone refuses to connect.
    """
    for kind, most in (
        (resource.RLIMIT_DATA, DATA),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_CPU, cpu_seconds),
    ):
        with contextlib.suppress(ValueError, OSError):  # where a lower limit holds already
            resource.setrlimit(kind, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    user, group, here = os.getuid(), os.getgid(), os.getcwd()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "unshare") and libc.unshare(NEW_USER | NEW_PID | NEW_NET | NEW_MOUNTS) == 0:
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                fcntl.ioctl(control, INTERFACE_UP, struct.pack("16sh", b"lo", 1))
        libc.mount(None, b"/", None, ctypes.c_ulong(RECURSIVE | PRIVATE), None)
        places = [os.fsencode(folder) for folder in writable]
        for place in places:
            libc.mount(place, place, None, ctypes.c_ulong(BIND), None)
        for place, add, remove, flags in [
            (b"/", READ_ONLY, 0, DEEP),
            *((place, 0, READ_ONLY, 0) for place in places),
        ]:
            libc.syscall(
                SET_ATTRIBUTES, -100, place, flags, struct.pack("4Q", add, remove, 0, 0), 32
            )
        os.chdir(here)  # in the mounts as they are now
        # the first process of the namespace, with which all the others end, and the notebook's
        for _ in range(2):
            if child := os.fork():
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                sys.exit(code if code >= 0 else 128 - code)
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError("a class report runs notebooks without a network")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign,assignment]  # that is the guard


def main(
    path: Path,
    results: Path,
    *,
    cell_seconds: int,
    cpu_seconds: int,
    whole: bool,
    writable: Sequence[str],
) -> None:
    """Run the notebook at ``path``; events go to ``results``, a line of JSON each."""
    descriptor = os.open(results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def tell(**event: Any) -> None:
        line = json.dumps(event)
        line = line if len(line) < ENTRY else json.dumps(event | {"value": {"other": "large"}})
        os.write(descriptor, f"{line}\n".encode())

    isolate(cpu_seconds, writable)
    try:
        cells, untouched = _read(path)
    except BaseException as error:  # whatever makes it unreadable, the class report says so
        from lepton_lib.utils import first_line

        return tell(unreadable=first_line(error)[:200])
    needed = [cell for cell in cells if cell["source"].strip()] if whole else plan(cells)
    tell(
        keys=sorted({key for cell in cells for key in cell["keys"]}),
        sliced=len(needed) < len(cells),
    )
    _run(needed, untouched, tell, cell_seconds)
    tell(end=True)


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The code cells, as plain Python, and the exercises' sources as the course has them."""
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # a second for a check of jsonschema's that isn't used
    import nbformat
    from IPython.core.inputtransformer2 import TransformerManager

    from lepton_lib.classroom.cells import keys_in
    from lepton_lib.exercises.definitions import Exercise, definition_files, read_definitions
    from lepton_lib.runs import find_notebooks
    from lepton_lib.runs.parameters import read_notebook

    nb = nbformat.reads(path.read_text("utf-8-sig"), as_version=4)
    sources = [
        (str(cell.get("id", "")), str(cell.source)) for cell in nb.cells if cell.cell_type == "code"
    ]
    numbers = {key[:2] for _, source in sources for key in keys_in(source)} & set(
        definition_files()
    )
    numbers = numbers or set(definition_files())  # no check is left: then the cells' ids tell
    untouched, place = {}, {}  # the source by key; key and name by the cell's id
    for number in numbers:
        known = read_definitions(definition_files()[number])
        own = next(path for stem, path in find_notebooks().items() if stem.startswith(number))
        for cell in read_notebook(own).cells:
            for key in keys_in(cell.source) if cell.cell_type == "code" else []:
                definition = known.get(key)
                untouched[key] = cell.source.strip()
                if isinstance(definition, Exercise):
                    place[cell.id] = (key, definition.name)
    cells = []
    untyped: Any = TransformerManager
    manager = untyped()
    for name, source in sources:
        keys = keys_in(source)
        plain = manager.transform_cell(source)
        if name in place and not keys:  # the check was taken out: its name is looked at
            key, answer = place[name]
            keys, plain = [key], f'{plain}\ncheck("{key}", {answer})'
        cells.append({"id": name, "source": plain, "keys": keys, "as given": source.strip()})
    return cells, untouched


def plan(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells with exercises, and those before them that bind or change a name which is read there."""
    from lepton_lib.classroom.cells import names

    reads: dict[str, set[str]] = {}  # what a function needs when it is called
    parsed: list[list[tuple[ast.stmt, set[str], set[str]]]] = []
    for cell in cells:
        try:
            body = ast.parse(cell["source"]).body
            parsed.append([(part, *names(ast.unparse(part))) for part in body])
        except (SyntaxError, ValueError, RecursionError):
            parsed.append([])
        for part, _, read in parsed[-1]:
            if isinstance(part, ast.FunctionDef | ast.ClassDef):
                reads[part.name] = reads.get(part.name, set()) | read
    wanted: set[str] = set()
    needed = []
    for cell, parts in zip(reversed(cells), reversed(parsed), strict=True):
        bound = set().union(*(part[1] for part in parts))
        hidden = any(
            word in cell["source"] for word in ("import *", "exec(", "globals(", "get_ipython(")
        )
        if not (cell["keys"] or hidden or bound & wanted):
            continue
        needed.append(cell)
        for part, binds, read in reversed(parts):
            if isinstance(
                part, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom | ast.FunctionDef
            ):
                wanted -= binds
            new = read - wanted
            while new:
                wanted |= new
                new = set().union(*(reads.get(name, set()) for name in new)) - wanted
    return needed[::-1]


def _run(
    cells: list[dict[str, Any]],
    untouched: dict[str, str],
    tell: Callable[..., None],
    cell_seconds: int,
) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    from lepton_lib.classroom.cells import check_calls
    from lepton_lib.classroom.values import answer_of
    from lepton_lib.exercises import checkpoint
    from lepton_lib.utils import first_line

    untyped: Any = InteractiveShell
    shell = untyped.instance()
    shell.enable_gui = lambda *_: None
    shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None
    collector = f"collect_{os.urandom(8).hex()}"
    at_work: list[dict[str, Any]] = []

    def collect(kind: str, key: str, value: Any) -> Any:
        signal.setitimer(signal.ITIMER_REAL, 0)  # what follows isn't the learner's time
        tell(
            key=key,
            value=answer_of(key, value),
            untouched=at_work[0]["as given"] == untouched.get(key),
        )
        right = checkpoint(key, value) if kind == "checkpoint" else None
        signal.setitimer(signal.ITIMER_REAL, cell_seconds, 1.0)
        return right

    def late(*_: object) -> None:
        raise CellTimeout

    signal.signal(signal.SIGALRM, late)
    for cell in cells:
        at_work[:] = [cell]
        tell(cell=cell["id"], keys=cell["keys"])
        try:
            tree = ast.parse(cell["source"])
            for call in check_calls(tree):
                kind = getattr(call.func, "attr", getattr(call.func, "id", ""))
                call.func = ast.Name(collector, ast.Load())
                call.args.insert(0, ast.Constant(kind))
            source = ast.unparse(ast.fix_missing_locations(tree))
            shell.user_ns[collector] = collect
            signal.setitimer(signal.ITIMER_REAL, cell_seconds, 1.0)
            done = shell.run_cell(source, silent=True, store_history=False)
            error = done.error_before_exec or done.error_in_exec
        except (
            BaseException
        ) as raised:  # whatever a learner's code does, the next cell has its turn
            error = raised
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if error is not None:
            said = (
                f"no end within {cell_seconds} s"
                if isinstance(error, CellTimeout)
                else first_line(error)[:200]
            )
            tell(failed=cell["id"], keys=cell["keys"], error=said)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        cell_seconds=int(sys.argv[3]),
        cpu_seconds=int(sys.argv[4]),
        whole=sys.argv[5] == "whole",
        writable=sys.argv[6:],
    )
