"""The AUC against scikit-learn's and torchmetrics'."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from lepton_lib.metrics import AUC, area_under_curve
from tests.benchmarks.timing import Row, best_of

N = 1_000_000


def rows() -> list[Row]:
    """Agreement with heavy ties, speed with and without ties, and logits that come in batches."""
    rng = np.random.default_rng(0)
    labels = (rng.random(N) < 0.3).astype(np.int64)
    smooth = rng.normal(size=N) + labels
    tied = smooth.round(1)
    gap = max(abs(area_under_curve(labels, s) - roc_auc_score(labels, s)) for s in (smooth, tied))
    result: list[Row] = [
        (f"AUC of {N:,} scores, with and without ties: greatest distance to scikit-learn", f"{gap:.1e}", "<= 1e-12")
    ]
    for name, scores in (("distinct scores", smooth), ("tied scores", tied)):
        best = best_of(
            {
                "ours": lambda scores=scores: area_under_curve(labels, scores),
                "theirs": lambda scores=scores: roc_auc_score(labels, scores),
            },
            rounds=5,
        )
        result.append(
            (f"AUC of {N:,} {name}: speed relative to scikit-learn", f"{best['theirs'] / best['ours']:.1f}", ">= 5")
        )
    return [*result, *_logits_in_batches()]


def _logits_in_batches() -> list[Row]:
    """Batches whose logits happen to lie in [0, 1] beside others that don't: each is a logit all the same."""
    rng = np.random.default_rng(1)
    labels = (rng.random(4000) < 0.3).astype(np.int64)
    logits = rng.normal(size=4000) + 2 * labels
    ours = AUC()
    for batch, target in zip(logits, labels, strict=True):
        ours.add([batch], [target])
    true = roc_auc_score(labels, logits)
    result = [
        (
            "AUC of 4,000 logits added one by one: distance to the true value",
            f"{abs(ours.average() - true):.1e}",
            "<= 1e-12",
        )
    ]
    try:
        from torchmetrics.classification import BinaryAUROC
    except ImportError:
        return [*result, ("the same by torchmetrics", "not installed", "")]
    theirs = BinaryAUROC()
    for batch, target in zip(logits, labels, strict=True):
        theirs.update(torch.tensor([batch]), torch.tensor([target]))
    return [*result, ("the same by torchmetrics", f"{abs(float(theirs.compute()) - true):.1e}", "")]
