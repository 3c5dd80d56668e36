"""Fair timing on a shared machine: candidates take turns and the best CPU time of each counts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

Row = tuple[str, str, str]  # what was measured, the figure, the target


def best_of(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Return the seconds of each candidate's fastest round.

    The candidates are interleaved, so that noise hits all alike. By default ``clock`` counts CPU
    seconds of this process, without another program's share of the cores.
    """
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for name, run in candidates.items():
            begun = clock()
            run()
            best[name] = min(best[name], clock() - begun)
    return best


def peak_megabytes(code: str) -> float:
    """Peak resident memory of a fresh process that runs ``code``, in MB."""
    program = f"{code}\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    kilobytes = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return int(kilobytes.split()[-1]) / (1024 if sys.platform != "darwin" else 1024**2)
