"""Gradient-boosted trees as tensors: grown by scikit-learn, stored and exported like a network.

Knows arrays; doesn't know cases or how rows are divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn

GRID = 2.0**-15  # leaves are multiples of it: their sum is exact in float32, in any order
ROWS = 1024  # looked up together: more would only cost memory
# Small steps, a random half of the columns for each split, stopped by held-out rows.
GROWTH: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_iter": 400,
    "max_depth": 6,
    "max_features": 0.5,
    "min_samples_leaf": 5,
    "l2_regularization": 3.0,
    "n_iter_no_change": 20,
}


class Trees(nn.Module):
    """A sum of decision trees; inputs ``(b, d)``, NaN where missing, to outputs ``(b, k)``.

    The nodes of all trees stand in one table; a leaf is its own child. In ONNX they are one
    TreeEnsembleRegressor.

    Args:
        output_size: Width ``k`` of the outputs.
    """

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.onnx_attributes: dict[str, Any] = {}  # set while it is exported
        for name in ("feature", "left", "right", "root", "output"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))
        self.register_buffer("missing_left", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("threshold", torch.zeros(0))
        self.register_buffer("value", torch.zeros(0))

    # One entry a node; `root` and `output` (the column that is added to) one entry a tree.
    feature: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    missing_left: torch.Tensor
    threshold: torch.Tensor
    value: torch.Tensor
    root: torch.Tensor
    output: torch.Tensor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map ``(b, d)`` to ``(b, k)``: logits, or standardised predictions for regression."""
        if self.onnx_attributes:
            return torch.onnx.ops.symbolic(
                "ai.onnx.ml::TreeEnsembleRegressor",
                (inputs,),
                self.onnx_attributes,
                dtype=torch.float32,
                shape=(inputs.shape[0], self.output_size),
                version=3,
            )
        return torch.cat([self._look_up(rows) for rows in inputs.split(ROWS)])

    def _look_up(self, inputs: torch.Tensor) -> torch.Tensor:
        nodes = self.root.expand(len(inputs), -1)  # (b, trees)
        while (self.left[nodes] != nodes).any():
            values = inputs.gather(1, self.feature[nodes])
            left = torch.where(
                values.isnan(), self.missing_left[nodes], values <= self.threshold[nodes]
            )
            nodes = torch.where(left, self.left[nodes], self.right[nodes])
        totals = inputs.new_zeros(len(inputs), self.output_size)
        return totals.index_add(1, self.output, self.value[nodes])

    def prepare_export(self) -> None:
        """Lay the trees out as ONNX wants them: while a graph is exported no value can be read."""
        sizes = self.root.diff(append=torch.tensor([len(self.feature)]))
        tree = torch.arange(len(sizes)).repeat_interleave(sizes)
        start = self.root[tree]
        leaf = self.left == torch.arange(len(self.left))
        nodes = {
            "treeids": tree,
            "nodeids": torch.arange(len(tree)) - start,
            "featureids": self.feature,
            "values": self.threshold,
            "truenodeids": torch.where(leaf, 0, self.left - start),
            "falsenodeids": torch.where(leaf, 0, self.right - start),
            "missing_value_tracks_true": self.missing_left.long(),
        }
        target = {
            "treeids": tree[leaf],
            "nodeids": nodes["nodeids"][leaf],
            "ids": self.output[tree[leaf]],
            "weights": self.value[leaf],
        }
        self.onnx_attributes = {
            "n_targets": self.output_size,
            "nodes_modes": ["LEAF" if end else "BRANCH_LEQ" for end in leaf.tolist()],
            **{f"nodes_{name}": values.tolist() for name, values in nodes.items()},
            **{f"target_{name}": values.tolist() for name, values in target.items()},
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self.named_buffers():  # the trees decide the lengths
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def from_boosters(
        cls, boosters: Sequence[Any], output_size: int, first_column: int = 0
    ) -> Self:
        """The mean of scikit-learn's histogram boosters, each cut off after its best round.

        Args:
            boosters: Fitted with held-out rows.
            output_size: Width ``k`` of the outputs.
            first_column: Where the boosters' columns begin in the inputs.
        """
        tables: list[np.ndarray] = []
        outputs: list[int] = []
        for booster in boosters:
            rounds = booster._predictors[: np.argmax(booster.validation_score_)]
            start = np.zeros(output_size, booster._predictors[0][0].nodes.dtype)  # one leaf each
            start["value"], start["is_leaf"] = booster._baseline_prediction.ravel(), 1
            tables += np.split(start, output_size)
            tables += [tree.nodes for trees in rounds for tree in trees]
            outputs += list(range(output_size)) * (1 + len(rounds))
        nodes, sizes = np.concatenate(tables), np.array([len(table) for table in tables])
        root = np.cumsum(sizes) - sizes
        offset, own, leaf = np.repeat(root, sizes), np.arange(len(nodes)), nodes["is_leaf"] == 1
        exact = nodes["num_threshold"]
        threshold = exact.astype(np.float32)
        below = np.nextafter(threshold, np.float32(-np.inf))
        forest = cls(output_size)
        columns: dict[str, np.ndarray] = {
            "feature": np.where(leaf, 0, nodes["feature_idx"] + first_column),
            "left": np.where(leaf, own, nodes["left"] + offset),
            "right": np.where(leaf, own, nodes["right"] + offset),
            "missing_left": nodes["missing_go_to_left"] == 1,
            # rounded down: every float32 falls on the same side as in scikit-learn
            "threshold": np.where(threshold > exact, below, threshold),
            "value": (nodes["value"] / len(boosters) / GRID).round().astype(np.float32) * GRID,
            "root": root,
            "output": np.array(outputs),
        }
        for name, values in columns.items():
            setattr(forest, name, torch.from_numpy(values).to(getattr(forest, name).dtype))
        return forest


def grow_trees(
    inputs: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    *,
    output_size: int,
    first_column: int,
    seed: int,
) -> tuple[Trees, np.ndarray]:
    """Boost trees once for each fold, whose rows decide when to stop, and take their mean.

    Gradient boosting is Friedman's (Greedy Function Approximation, 2001), grown on histograms by
    scikit-learn.

    Args:
        inputs: ``(n, d)`` float32, NaN where missing; the trees look at ``first_column`` and after.
        labels: ``(n,)`` int64 classes, or standardised numbers for regression.
        fold: ``(n,)`` the fold of each row, from 0.
        output_size: Width ``k`` of the outputs.
        first_column: The first column that trees look at.
        seed: Of the columns drawn for each split.

    Returns:
        The trees, and outputs ``(n, k)`` for each row from the booster that didn't learn from it.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    kind = (
        HistGradientBoostingClassifier
        if labels.dtype.kind == "i"
        else HistGradientBoostingRegressor
    )
    columns = inputs[:, first_column:]
    boosters, outputs = [], np.zeros((len(labels), output_size), np.float32)
    with threadpool_limits(1):
        for number in range(fold.max() + 1):
            learn, held = fold != number, fold == number
            booster = kind(
                **GROWTH, early_stopping=True, scoring="loss", random_state=seed + number
            )
            booster.fit(columns[learn], labels[learn], X_val=columns[held], y_val=labels[held])
            boosters.append(booster)
            alone = Trees.from_boosters([booster], output_size)
            outputs[held] = alone(torch.from_numpy(columns[held])).numpy()
    return Trees.from_boosters(boosters, output_size, first_column), outputs
