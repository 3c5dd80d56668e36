"""Runs a command with no network but the loopback: always guarded, and in a namespace of its own where allowed."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from lepton_lib.utils import SAME_BITS

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


@functools.cache
def namespace() -> tuple[str, ...]:
    """The words before a command that put it into a network namespace; none where that isn't allowed."""
    words = ("unshare", "--map-root-user", "--net", sys.executable, str(HERE / "loopback.py"))
    if (
        shutil.which("unshare")
        and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    ):
        return words
    return ()


def environment(**variables: str) -> dict[str, str]:
    """The variables for a process that is guarded, computes the same bits everywhere, and shows no progress bars.

    Args:
        **variables: More, or other values.
    """
    paths = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    # Whole loops and their kernels: tracing them would cost more time than all else, and cover
    # nothing new.
    untraced = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")
    }
    return {
        **untraced,
        **SAME_BITS,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths))),
        "LEPTON_DATASETS": str(ROOT / "datasets"),
        "TQDM_DISABLE": "1",
        **variables,
    }


def run(
    *command: str, cwd: Path = ROOT, timeout: float = 900, **variables: str
) -> subprocess.CompletedProcess[str]:
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


def lepton(*words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """The `lepton` command, offline, in the process that answers all of them; the result is as `run` gives it."""
    process = _desk()
    assert process.stdin is not None
    assert process.stdout is not None
    watch = threading.Timer(timeout, process.kill)
    watch.start()
    try:
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        code, out, err = json.loads(process.stdout.readline() or '[-9, "", "the desk has ended"]')
    finally:
        watch.cancel()
    return subprocess.CompletedProcess(["lepton", *words], code, out, err)


@functools.cache
def _desk() -> subprocess.Popen[str]:
    """The process that `lepton` asks, see desk.py; it ends with this one."""
    process = subprocess.Popen(
        [*namespace(), sys.executable, str(HERE / "desk.py")],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)  # closes its input, and waits
    return process


def loop(folder: Path, case: str, *parameters: str, timeout: float = 900) -> Path:
    """Run the whole loop as a pipeline into ``folder``; it must come to its end."""
    words = [word for parameter in parameters for word in ("-p", parameter)]
    done = lepton("run", "loop", "--case", case, "--out", str(folder), *words, timeout=timeout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def steps(folder: Path) -> dict[str, Any]:
    """What the manifest of a run says of its steps."""
    entries: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["steps"]
    return entries
