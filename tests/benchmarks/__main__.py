"""Measure everything and write the table: ``python -m tests.benchmarks [NAME ...]``."""

from __future__ import annotations

import platform
import sys
from importlib import import_module, metadata
from pathlib import Path

import torch

from lepton_lib.utils import write_atomic

BENCHMARKS = ("loading", "auc", "accuracy", "monitoring", "loop", "serving", "classroom")
RESULTS = Path(__file__).with_name("RESULTS.md")
PEERS = (
    "torch",
    "scikit-learn",
    "torchmetrics",
    "catboost",
    "xgboost-cpu",
    "lightgbm",
    "fastapi",
    "uvicorn",
    "litserve",
    "bentoml",
)


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all; only a full run is written down."""
    torch.set_num_threads(1)
    lines = ["| what | measured | target |", "| --- | --- | --- |"]
    for name in names or BENCHMARKS:
        for what, measured, target in import_module(f"tests.benchmarks.{name}").rows():
            lines.append(f"| {what} | {measured} | {target} |")
            print(lines[-1], flush=True)
    installed = ", ".join(f"{name} {_version(name)}" for name in PEERS)
    head = f"# Figures\n\nMeasured by `make bench` on {platform.machine()}, Python {platform.python_version()}, "
    head += f"one thread for torch; {installed}.\n"
    head += "Speeds are ratios of best rounds, the candidates taking turns; ± is one standard error of the mean.\n\n"
    if not names:
        write_atomic(RESULTS, head + "\n".join(lines) + "\n")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main(sys.argv[1:])
