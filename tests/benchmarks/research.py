"""The headline comparisons of the research lessons, with more seeds than a reader waits for."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from lepton_lib.intervals import Interval
from lepton_lib.runs import find_notebook, run_notebook
from tests.benchmarks.timing import Row

SEEDS = 10


def rows() -> list[Row]:
    """What each lesson's pipeline run leaves, a row a claim: mean with 95 % interval."""
    return _transformer(_results("research/01_transformer", "transformer/results.json"))


def _results(lesson: str, name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run_notebook(find_notebook(lesson), run_dir=folder, parameters={"repeats": SEEDS})
        results: dict[str, Any] = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
    return results


def _transformer(results: dict[str, Any]) -> list[Row]:
    bigram = results["bigram_loss"]
    result: list[Row] = [
        (
            f"hidden words, {SEEDS} seeds: loss of the left side alone minus both sides",
            f"{Interval(*results['encoder_gain'])} nats",
            "above 0 (Devlin 2019)",
        ),
        (
            f"next character, {SEEDS} seeds: loss of the decoder",
            f"{Interval(*results['decoder_loss'])} nats",
            f"below the bigram's {bigram:.3g}",
        ),
    ]
    for name, gain in results["gain"].items():
        value = Interval(*(100 * end for end in gain))
        what = f"MiniLM's frozen features against {name} labelled sentences, {SEEDS} draws"
        result.append((what, f"{value} points of accuracy", "above 0 (Devlin 2019)"))
    return result
