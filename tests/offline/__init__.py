"""Runs a command with no network but the loopback: always guarded, and in a namespace of its own where allowed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lepton_lib.utils import SAME_BITS

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


@functools.cache
def namespace() -> tuple[str, ...]:
    """The words before a command that put it into a network namespace; none where that isn't allowed."""
    words = ("unshare", "--map-root-user", "--net", sys.executable, str(HERE / "loopback.py"))
    if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
        return words
    return ()


def environment(**variables: str) -> dict[str, str]:
    """The variables for a process that is guarded, computes the same bits everywhere, and shows no progress bars.

    Args:
        **variables: More, or other values.
    """
    paths = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    # Whole loops and their kernels: tracing them would cost more time than all else, and cover nothing new.
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    return {
        **untraced,
        **SAME_BITS,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths))),
        "LEPTON_DATASETS": str(ROOT / "datasets"),
        "TQDM_DISABLE": "1",
        **variables,
    }


def run(*command: str, cwd: Path = ROOT, timeout: float = 900, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` offline; the result holds its text, whatever its exit code."""
    return subprocess.run(
        [*namespace(), *command],
        cwd=cwd,
        env=environment(**variables),
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


def lepton(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The `lepton` command, offline."""
    return run(sys.executable, "-m", "lepton_lib.cli", *words, **variables)


def loop(folder: Path, case: str, *parameters: str, **variables: str) -> Path:
    """Run the whole loop as a pipeline into ``folder``; it must come to its end."""
    words = [word for parameter in parameters for word in ("-p", parameter)]
    done = lepton("run", "loop", "--case", case, "--out", str(folder), *words, **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def steps(folder: Path) -> dict[str, Any]:
    """What the manifest of a run says of its steps."""
    entries: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["steps"]
    return entries
