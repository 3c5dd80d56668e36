"""Virtual environments under build/ for peers whose pinned packages conflict with ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def environment(name: str) -> tuple[Path | None, str]:
    """Create the environment of a peer if needed.

    Args:
        name: The peer's name; pyproject's extra ``bench-<name>`` lists its packages.

    Returns:
        The environment's Python and an empty text, or None and pip's error.
    """
    folder = ROOT / "build" / f"bench-{name}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ][f"bench-{name}"]
    # first, or its CUDA comes along
    torch = [package for package in wanted if package.startswith("torch==")]
    # written last: pip may have been interrupted, or the extra have changed
    filled = folder / "filled.json"
    if not filled.exists() or json.loads(filled.read_text()) != wanted:
        for packages in filter(None, (torch, wanted)):
            command = [str(python), "-m", "pip", "install", "-q", *packages]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return None, (done.stderr.splitlines() or ["pip failed"])[-1]
        filled.write_text(json.dumps(wanted))
    return python, ""
