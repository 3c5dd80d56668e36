"""Looks at the machine before the course starts: names each problem and its mend.

Knows Python, packages, Jupyter and the machine; doesn't know the course's content.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from html import escape
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from lepton_lib.utils import free_port

DISTRIBUTION = "lepton-course"
LEAST_MEMORY = 2.0  # GiB
EXTRAS = ("", "serve", "ops", "class")  # what the course's notebooks and commands import
REINSTALL = (
    "Run `make setup`, or `python -m pip install -c constraints.txt -e '.[class]'` "
    "in the course's folder."
)


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str  # what was found: versions, places, sizes
    remedy: str = ""  # what to do where it isn't ok


class Report(tuple[Finding, ...]):
    """All findings. It shows the same on every machine that has no problem."""

    @property
    def ok(self) -> bool:
        """Whether nothing needs mending."""
        return all(finding.ok for finding in self)

    def to_text(self, *, details: bool = False) -> str:
        """One line a finding; what was found is told where something is wrong, or everywhere with ``details``."""
        lines = []
        for finding in self:
            told = f"  {finding.detail}" if details or not finding.ok else ""
            lines.append(
                f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.name:<16}{told}".rstrip()
            )
            if not finding.ok:
                lines.append(f"         -> {finding.remedy}")
        n_problems = sum(not finding.ok for finding in self)
        lines.append(
            "Ready." if self.ok else f"{n_problems} problem{'s' if n_problems > 1 else ''} to mend."
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'✔' if ok else '✖'}</td><td>{escape(name)}</td>"
            f"<td>{'' if ok else f'{escape(detail)}<br><b>{escape(remedy)}</b>'}</td></tr>"
            for name, ok, detail, remedy in self
        )
        head = "<tr><th></th><th>looked at</th><th>to mend</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"

    def __repr__(self) -> str:
        return self.to_text()


def examine(folder: Path | None = None) -> Report:
    """Look at Python, packages, kernel, write access, ports, memory and GPU.

    Args:
        folder: Where the course works; the working directory by default.
    """
    folder = Path.cwd() if folder is None else folder
    return Report((_python(), _packages(), _kernel(), _writing(folder), _port(), _memory(), _gpu()))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    remedy = "Install Python 3.11 or newer, remove .venv, and run `make setup`."
    return Finding("Python", sys.version_info >= (3, 11), f"{version} at {sys.executable}", remedy)


def _packages() -> Finding:
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return Finding("packages", False, "the course itself isn't installed", REINSTALL)
    wrong, count = [], 0
    for requirement in wanted:
        marker = requirement.marker
        needed = marker is None or any(marker.evaluate({"extra": extra}) for extra in EXTRAS)
        if requirement.name == DISTRIBUTION or not needed:
            continue
        count += 1
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
        else:
            if not requirement.specifier.contains(installed, prereleases=True):
                wrong.append(
                    f"{requirement.name} {installed} is installed, {requirement.specifier} is needed"
                )
    return Finding("packages", not wrong, "; ".join(wrong) or f"{count} as required", REINSTALL)


def _kernel() -> Finding:
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        return Finding("Jupyter kernel", False, f"{error.name} is missing", REINSTALL)
    remedy = (
        "Run `python -m ipykernel install --sys-prefix --name python3` with the course's Python."
    )
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except (NoSuchKernel, OSError, ValueError, IndexError) as error:
        return Finding("Jupyter kernel", False, f"no kernel named python3 ({error})", remedy)
    # Jupyter replaces a bare name by the Python that it runs in; links are left alone, for a .venv
    # is made of them.
    own = (
        os.sep not in command
        or Path(command).parent.absolute() == Path(sys.executable).parent.absolute()
    )
    return Finding(
        "Jupyter kernel", own, f"python3 runs {sys.executable if own else command}", remedy
    )


def _writing(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "Change its permissions, or work in a copy of the course in your home folder."
        return Finding("write access", False, f"{folder}: {error.strerror}", remedy)
    free = shutil.disk_usage(folder).free / 2**30
    return Finding(
        "write access",
        free > 0.5,
        f"{folder}, {free:.1f} GiB free",
        "Free half a GiB on that disk.",
    )


def _port() -> Finding:
    try:
        return Finding("loopback port", True, f"127.0.0.1:{free_port()} is free")
    except OSError as error:
        remedy = "Allow connections to 127.0.0.1 on this machine; notebooks 04 and 05 call a service there."
        return Finding("loopback port", False, str(error), remedy)


def _memory() -> Finding:
    size = _memory_size()
    remedy = f"Close other programs, or give the container at least {LEAST_MEMORY:.0f} GiB."
    return Finding("memory", size >= LEAST_MEMORY, f"{size:.1f} GiB", remedy)


def _memory_size() -> float:
    """The memory that this process may use, in GiB: the machine's, or a container's limit."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            size = min(size, int(text))
    return size / 2**30


def _gpu() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("GPU (optional)", False, f"torch can't be imported ({error})", REINSTALL)
    found = (
        torch.cuda.get_device_name(0)
        if torch.cuda.is_available()
        else "none; the course doesn't need one"
    )
    return Finding("GPU (optional)", True, found)
