"""The whole loop as its reader meets it: seconds for each notebook, and the cost of an import."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.timing import Row, best_of


def rows() -> list[Row]:
    """`lepton run loop` on credit into a fresh folder; whole notebooks; `import lepton_lib`."""
    result: list[Row] = []
    for what, flags, target in (
        ("the loop on credit, as a pipeline", [], "<= 90 s"),
        ("the loop on credit, lessons included", ["--whole"], ""),
    ):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "lepton_lib.cli",
                "run",
                "loop",
                "--case",
                "credit",
                "--out",
                folder,
                *flags,
            ]
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            result.append((what, f"{time.perf_counter() - begun:.0f} s", target))
            steps = json.loads((Path(folder) / "manifest.json").read_text())["steps"]
            slowest = max(steps, key=lambda name: steps[name]["seconds"])
            result.append(
                (
                    f"{what}: slowest notebook ({slowest})",
                    f"{steps[slowest]['seconds']:.0f} s",
                    "<= 30 s",
                )
            )
    best = best_of(
        {
            "import": lambda: subprocess.run(
                [sys.executable, "-c", "import lepton_lib"], check=True
            ),
            "nothing": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        },
        rounds=10,
        clock=time.perf_counter,
    )
    result.append(
        (
            "import lepton_lib alone",
            f"{1000 * (best['import'] - best['nothing']):.0f} ms",
            "<= 50 ms",
        )
    )
    return result
