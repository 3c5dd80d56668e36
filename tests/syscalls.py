"""Runs `lepton` commands under strace, and reads which of their system calls leave the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests import offline

MISSING = (
    "No strace was found, so the network's system calls (tests/test_telemetry.py) weren't watched. "
    "`apt-get install strace` brings it; LEPTON_STRACE=required makes it a must."
)
# Every way to reach another machine; a look-up of a name is one, too, though its server may be here
_CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(
    r'sin6?_port=htons\((?P<port>\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )"(?P<host>[^"]+)"'
)


def strace() -> tuple[str, ...]:
    """The words before a command; empty where there is no strace."""
    if shutil.which("strace") or os.environ.get("LEPTON_STRACE") == "required":
        return ("strace", "-f", "--seccomp-bpf", "-qq", "-s", "80", "-e", _CALLS)
    return ()


def environment(trace: Path) -> dict[str, str]:
    """A user's variables: no CI, no guard of Python's sockets, and a home of its own."""
    home = trace.with_suffix(".home")
    home.mkdir(parents=True, exist_ok=True)
    own = {"PYTHONPATH": str(offline.ROOT), "HOME": str(home), "TQDM_DISABLE": "1"}
    left_out = {"CI", "ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK", "XDG_CACHE_HOME"}
    entries = offline.environment(**own).items()
    return {name: value for name, value in entries if name not in left_out}


def command(trace: Path, *words: str) -> list[str]:
    """`lepton` with these words, without a network, its system calls written to a file."""
    watch = [*strace(), "-o", str(trace)] if strace() else []
    return [*offline.namespace(), *watch, sys.executable, "-m", "lepton_lib.cli", *words]


def run(trace: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `lepton` to its end."""
    return subprocess.run(
        command(trace, *words),
        cwd=offline.ROOT,
        env=environment(trace),
        timeout=900,
        capture_output=True,
        text=True,
        check=False,
    )


def outside(trace: Path) -> list[str]:
    """The calls that leave the machine or ask for a name, and onnxruntime's report files."""
    calls = [
        line
        for line in trace.read_text(errors="replace").splitlines()
        if (place := _ADDRESS.search(line))
        and (place["port"] == "53" or not place["host"].startswith(("127.", "::1", "::ffff:127.")))
    ]
    return calls + [str(path) for path in trace.with_suffix(".home").rglob("deviceid")]
