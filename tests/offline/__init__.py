"""Runs commands without a network but the loopback, in a network namespace where one is allowed."""

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
    """The prefix of a command to run in a network namespace; empty where that isn't allowed."""
    words = ("unshare", "--map-root-user", "--net", sys.executable, str(HERE / "loopback.py"))
    if (
        shutil.which("unshare")
        and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    ):
        return words
    return ()


def environment(**variables: str) -> dict[str, str]:
    """The variables of a process without a network, with the same bits everywhere, and no bars.

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
    """Run `lepton` offline, in the one process that runs all of them; the result is as `run`'s."""
    process = _cli_daemon()
    assert process.stdin is not None
    assert process.stdout is not None
    watch = threading.Timer(timeout, process.kill)
    watch.start()
    try:
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        ended = '[-9, "", "the cli daemon has ended"]'
        code, out, err = json.loads(process.stdout.readline() or ended)
    finally:
        watch.cancel()
    return subprocess.CompletedProcess(["lepton", *words], code, out, err)


@functools.cache
def _cli_daemon() -> subprocess.Popen[str]:
    """The process that runs the `lepton` commands, see cli_daemon.py; it ends with this one."""
    process = subprocess.Popen(
        [*namespace(), sys.executable, str(HERE / "cli_daemon.py")],
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
