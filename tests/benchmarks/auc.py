"""The AUC against scikit-learn's and torchmetrics'."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from lepton_lib.metrics import AUC, area_under_curve
from tests.benchmarks.timing import Row, best_of

N = 1_000_000
KINDS = ("distinct float32", "distinct float64", "tied float64")
# NumPy sorts with AVX-512 where it can, which on some processors is several times slower than with
# AVX2.
WITHOUT_AVX512 = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL"}


def rows() -> list[Row]:
    """Agreement with heavy ties, speed, and logits that come in batches."""
    gap = max(
        abs(area_under_curve(*_scores(kind)) - roc_auc_score(*_scores(kind))) for kind in KINDS
    )
    what = f"AUC of {N:,} scores, with and without ties: greatest distance to scikit-learn"
    result: list[Row] = [(what, f"{gap:.1e}", "<= 1e-12")]
    for note, variables in (("", {}), (", NumPy without AVX-512", WITHOUT_AVX512)):
        for kind in KINDS:
            command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.auc", kind]
            done = subprocess.run(
                command, env=os.environ | variables, check=True, capture_output=True, text=True
            )
            what = f"AUC of {N:,} {kind} scores{note}: speed relative to scikit-learn"
            result.append((what, f"{float(done.stdout):.1f}", ">= 5"))
    return [*result, *_logits_in_batches()]


def _scores(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (rng.random(N) < 0.3).astype(np.int64)
    scores = rng.normal(size=N) + labels
    if kind.startswith("tied"):
        scores = scores.round(1)
    return labels, scores.astype(kind.split()[1])


def speed(kind: str) -> float:
    """How many times faster than scikit-learn, in this process."""
    labels, scores = _scores(kind)
    best = best_of(
        {
            "ours": lambda: area_under_curve(labels, scores),
            "theirs": lambda: roc_auc_score(labels, scores),
        },
        rounds=7,
    )
    return best["theirs"] / best["ours"]


def _logits_in_batches() -> list[Row]:
    """Logits that come one by one: some lie between 0 and 1, and are logits all the same."""
    rng = np.random.default_rng(1)
    labels = (rng.random(4000) < 0.3).astype(np.int64)
    logits = rng.normal(size=4000) + 2 * labels
    ours = AUC()
    for batch, target in zip(logits, labels, strict=True):
        ours.add([batch], [target])
    true = roc_auc_score(labels, logits)
    what = "AUC of 4,000 logits added one by one: distance to the true value"
    result = [(what, f"{abs(ours.average() - true):.1e}", "<= 1e-12")]
    try:
        from torchmetrics.classification import BinaryAUROC
    except ImportError:
        return [*result, ("the same by torchmetrics", "not installed", "")]
    theirs = BinaryAUROC()
    for batch, target in zip(logits, labels, strict=True):
        theirs.update(torch.tensor([batch]), torch.tensor([target]))
    return [*result, ("the same by torchmetrics", f"{abs(float(theirs.compute()) - true):.1e}", "")]


if __name__ == "__main__":
    print(speed(sys.argv[1]))
