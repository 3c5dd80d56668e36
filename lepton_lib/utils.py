"""Hashes, atomic writes, templates and standardisation: what every layer above may need.

Knows nothing of cases, models or runs. Heavy libraries are imported where they are used.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import ipaddress
import json
import math
import os
import platform
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

Array = TypeVar("Array")  # numpy.ndarray, torch.Tensor or pandas.DataFrame
# Environment variables that make a run the same to the last bit on every x86 machine: one thread,
# and no instructions beyond AVX2. The libraries read them when they are loaded, so they are for a
# process that starts. onnxruntime has no such variable.
SAME_BITS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
if platform.machine() in {"x86_64", "AMD64"}:
    SAME_BITS |= {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    }
# Environment variables without which a package reports to its maker; read when it is loaded.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}

CASE_VARIABLE = "LEPTON_CASE"  # the folder of the case at work, for the processes that are started
KEY_REMEDY = "Set LEPTON_CONFIG to a folder of yours; a key's file must have mode 600."
SHORT_FOLDERS = ("/tmp", "/dev/shm")  # for sockets, where TMPDIR is too long
SOCKET_PATH = 70  # bytes of a folder's path: a socket's has 103 at most, with its own name of 29
NO_COURSE = (
    "The library was installed alone: go to the course's folder, with its notebooks and cases."
)


def normalize(values: Array, *, reference: Array | None = None) -> Array:
    """Standardise columns with the mean and standard deviation of ``reference``.

    Args:
        values: ``(n, d)`` array, tensor or data frame.
        reference: The rows whose statistics are used, ``(m, d)``: the *training* rows. Without it
            the statistics come from ``values`` itself, which is right for training rows and leaks
            when ``values`` holds any other row.

    Returns:
        The same type and shape; a column that is constant in ``reference`` becomes zero there.
    """
    rows: Any = values if reference is None else reference
    is_tensor = hasattr(rows, "amin")
    low = rows.amin(0) if is_tensor else rows.min(axis=0)
    high = rows.amax(0) if is_tensor else rows.max(axis=0)
    constant = low == high  # by the range: rounding can leave it a tiny deviation
    centre = rows.mean(axis=0) * ~constant + low * constant
    # The population's deviation for every type: pandas and torch would divide by n - 1, numpy by n.
    scale = ((rows - centre) ** 2).mean(axis=0) ** 0.5
    result: Array = (values - centre) / (scale + constant)
    return result


def course_folders(name: str) -> list[Path]:
    """Where a folder of the course may be: here, in a parent, in the clone; nearest first."""
    here = Path.cwd()
    return [root / name for root in (here, *here.parents, Path(__file__).resolve().parents[1])]


def course_root() -> Path:
    """The folder that holds the course's ``notebooks/``; the working directory if there is none."""
    places = course_folders("notebooks")
    return next((place.parent for place in places if any(place.glob("00_*.ipynb"))), Path.cwd())


def config_folder() -> Path:
    """The user's folder for keys: ``LEPTON_CONFIG``, or ``lepton`` in ``XDG_CONFIG_HOME``."""
    if named := os.environ.get("LEPTON_CONFIG"):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lepton"


def check_config_folder() -> None:
    """Make the user's folder for keys; an `OSError` if it holds no key and can't be written to."""
    folder = config_folder()
    if not (folder / "signing.key").exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass


def socket_folder() -> tempfile.TemporaryDirectory[str]:
    """A new folder whose path is short enough for Unix sockets in it.

    Raises:
        OSError: ``TMPDIR`` is too long, and no other place can be written to.
    """
    places = [tempfile.gettempdir(), *SHORT_FOLDERS]
    for place in places:
        if len(os.fsencode(place)) <= SOCKET_PATH and os.access(place, os.W_OK):
            return tempfile.TemporaryDirectory(prefix="lepton-", dir=place)
    reason = f"a folder of more than {SOCKET_PATH} bytes, too long for sockets"
    raise OSError(errno.ENAMETOOLONG, reason, places[0])


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all: beside its place first, then renamed into it."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:  # an interrupt, too, leaves nothing behind
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: fastest for small nets, and always the same bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit all that is written inside, or nothing; ``isolation_level`` must be None."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def to_json(value: Any) -> str:
    """Readable JSON with a final newline; NaN and infinity, which JSON lacks, become null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): plain(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [plain(entry) for entry in item]
        if hasattr(item, "tolist"):  # a NumPy or torch scalar or array
            return plain(item.tolist())
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return str(item) if isinstance(item, Path) else item

    return json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n"


def to_toml(value: Any) -> str:
    """Text, a number, a boolean, or a list or mapping of such, as TOML after ``key =``."""
    if isinstance(value, dict):
        pairs = [f"{to_toml(str(key))} = {to_toml(entry)}" for key, entry in value.items()]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, str | bool):  # as in JSON, but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value) if isinstance(value, int | float) else f"[{', '.join(map(to_toml, value))}]"


def render(template: str, **values: Any) -> str:
    """Fill a Jinja template that lies in the library.

    Args:
        template: Its path below ``lepton_lib``, such as ``"runs/templates/index.html"``. In HTML
            and SVG every value is escaped; other files (YAML, Containerfile) take values as is.
        **values: The template's variables; a missing one raises `jinja2.UndefinedError`.
    """
    text: str = _templates().get_template(template).render(values)
    return text


@functools.cache
def _templates() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and name.endswith((".html", ".svg")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def first_line(error: BaseException) -> str:
    """An exception's type and the first line of its message, to go into another message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address, or a name of its own."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def free_port() -> int:
    """A TCP port of the loopback interface that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
