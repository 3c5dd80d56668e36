"""Checks the machine before the course starts: names each problem and its fix.

Knows Python, packages, Jupyter and the machine; doesn't know the course's content.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from lepton_lib.utils import (
    KEY_REMEDY,
    check_config_folder,
    config_folder,
    free_port,
    render,
    socket_folder,
)

DISTRIBUTION = "lepton-course"
LEAST_MEMORY, LEAST_DISK = 2.0, 0.5  # GiB
EXTRAS = ("", "serve", "ops", "class")  # what the course's notebooks and commands import
REINSTALL = (
    "Run `make setup`, or `python -m pip install -c constraints.txt -e '.[class]'` "
    "in the course's folder."
)


class Check(NamedTuple):
    """The result of one check."""

    name: str
    ok: bool
    detail: str  # versions, paths, sizes
    remedy: str = ""  # what to do where it isn't ok


class DoctorReport(tuple[Check, ...]):
    """All checks. It shows the same on every machine that has no problem."""

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self)

    def to_text(self, *, details: bool = False) -> str:
        """One line a check; its detail only where it failed, or everywhere with ``details``."""
        lines = []
        for name, ok, detail, remedy in self:
            shown = f"  {detail}" if details or not ok else ""
            lines.append(f"{'ok     ' if ok else 'PROBLEM'}  {name:<16}{shown}".rstrip())
            if not ok:
                lines.append(f"         -> {remedy}")
        n_problems = sum(not check.ok for check in self)
        problems = f"{n_problems} problem{'s' if n_problems > 1 else ''} to fix."
        return "\n".join([*lines, "Ready." if self.ok else problems])

    def _repr_html_(self) -> str:
        return render("templates/doctor.html", checks=self)

    def __repr__(self) -> str:
        return self.to_text()


def examine(folder: Path | None = None) -> DoctorReport:
    """Check Python, packages, kernel, write access, ports, memory and GPU.

    Args:
        folder: Where the course works; the working directory by default.
    """
    folder = Path.cwd() if folder is None else folder
    checks = (_python(), _packages(), _kernel(), _disk(folder), _port(), _memory(), _gpu())
    return DoctorReport(checks)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    remedy = "Install Python 3.11 or newer, remove .venv, and run `make setup`."
    return Check("Python", sys.version_info >= (3, 11), f"{version} at {sys.executable}", remedy)


def _packages() -> Check:
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return Check("packages", False, "the course itself isn't installed", REINSTALL)
    needed = [
        one
        for one in requirements
        if one.name != DISTRIBUTION
        and (not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in EXTRAS))
    ]
    wrong = []
    for requirement in needed:
        name, specifier = requirement.name, requirement.specifier
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
        else:
            if not specifier.contains(version, prereleases=True):
                wrong.append(f"{name} {version} is installed, {specifier} is needed")
    detail = "; ".join(wrong) or f"{len(needed)} as required"
    return Check("packages", not wrong, detail, REINSTALL)


def _kernel() -> Check:
    name = "Jupyter kernel"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        return Check(name, False, f"{error.name} is missing", REINSTALL)
    remedy = (
        "Run `python -m ipykernel install --sys-prefix --name python3` with the course's Python."
    )
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except (NoSuchKernel, OSError, ValueError, IndexError) as error:
        return Check(name, False, f"no kernel named python3 ({error})", remedy)
    # Jupyter replaces a bare name by its own Python; links are not resolved, as a .venv consists
    # of them.
    if os.sep not in command:
        command = sys.executable
    ok = Path(command).parent.absolute() == Path(sys.executable).parent.absolute()
    return Check(name, ok, f"python3 runs {sys.executable if ok else command}", remedy)


def _disk(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        remedy = "Change its permissions, or work in a copy of the course in your home folder."
        return Check("write access", False, f"{folder}: {error.strerror}", remedy)
    try:
        check_config_folder()
    except OSError as error:
        detail = f"{config_folder()}, for your signing key: {error.strerror}"
        return Check("write access", False, detail, KEY_REMEDY)
    try:
        socket_folder().cleanup()
    except OSError as error:
        remedy = "Set TMPDIR to a shorter one."
        return Check("write access", False, f"{error.filename}: {error.strerror}", remedy)
    detail, remedy = f"{folder}, {free:.1f} GiB free", f"Free {LEAST_DISK} GiB on that disk."
    return Check("write access", free > LEAST_DISK, detail, remedy)


def _port() -> Check:
    name, remedy = "loopback port", "Allow connections to 127.0.0.1; notebooks 04 and 05 need them."
    try:
        return Check(name, True, f"127.0.0.1:{free_port()} is free")
    except OSError as error:
        return Check(name, False, str(error), remedy)


def _memory() -> Check:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        path = Path("/sys/fs/cgroup", limit)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            size = min(size, int(text))
    gib = size / 2**30
    remedy = f"Close other programs, or give the container at least {LEAST_MEMORY:.0f} GiB."
    return Check("memory", gib >= LEAST_MEMORY, f"{gib:.1f} GiB", remedy)


def _gpu() -> Check:
    name = "GPU (optional)"
    try:
        import torch
    except ImportError as error:
        return Check(name, False, f"torch can't be imported ({error})", REINSTALL)
    available = torch.cuda.is_available()
    gpu = torch.cuda.get_device_name(0) if available else "none; the course doesn't need one"
    return Check(name, True, gpu)
