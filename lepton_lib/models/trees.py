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
# Half of the columns are drawn for each split; held-out rows say when to stop.
GROWTH: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_iter": 400,
    "max_depth": 6,
    "max_features": 0.5,
    "min_samples_leaf": 5,
    "l2_regularization": 3.0,
    "n_iter_no_change": 20,
    "early_stopping": True,
    "scoring": "loss",
}


class Trees(nn.Module):
    """A sum of decision trees; inputs ``(b, d)``, NaN where missing, to outputs ``(b, k)``.

    Args:
        output_size: Width ``k`` of the outputs.
    """

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.exporting = False  # then one ONNX node stands for all trees, to be filled in later
        # of each node: its feature, its left and right child (a leaf's own number), and whether
        # a missing value goes left
        self.register_buffer("links", torch.zeros(4, 0, dtype=torch.int64))
        self.register_buffer("numbers", torch.zeros(2, 0))  # of each node: threshold and value
        self.register_buffer("trees", torch.zeros(2, 0, dtype=torch.int64))  # of each: root, output

    links: torch.Tensor
    numbers: torch.Tensor
    trees: torch.Tensor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map ``(b, d)`` to ``(b, k)``: logits, or standardised predictions for regression."""
        if self.exporting:
            return torch.onnx.ops.symbolic(
                "ai.onnx.ml::TreeEnsembleRegressor",
                (inputs,),
                {"n_targets": self.output_size},
                dtype=torch.float32,
                shape=(inputs.shape[0], self.output_size),
                version=3,
            )
        return torch.cat([self._look_up(rows) for rows in inputs.split(ROWS)])

    def _look_up(self, inputs: torch.Tensor) -> torch.Tensor:
        (feature, left, right, missing_left), (threshold, value) = self.links, self.numbers
        nodes = self.trees[0].expand(len(inputs), -1)  # (b, trees)
        while (left[nodes] != nodes).any():
            values = inputs.gather(1, feature[nodes])
            goes_left = (values <= threshold[nodes]) | (values.isnan() & missing_left[nodes].bool())
            nodes = torch.where(goes_left, left[nodes], right[nodes])
        totals = inputs.new_zeros(len(inputs), self.output_size)
        return totals.index_add(1, self.trees[1], value[nodes])

    def onnx_attributes(self) -> dict[str, Any]:
        """The trees as the attributes of ONNX's ``TreeEnsembleRegressor``."""
        (feature, left, right, missing_left), (threshold, value) = self.links, self.numbers
        root, output = self.trees
        sizes = root.diff(append=torch.tensor([len(feature)]))
        tree, own = torch.arange(len(sizes)).repeat_interleave(sizes), torch.arange(len(feature))
        leaf = left == own
        columns = {
            "nodes_treeids": tree,
            "nodes_nodeids": own - root[tree],
            "nodes_featureids": feature,
            "nodes_values": threshold,
            "nodes_truenodeids": torch.where(leaf, 0, left - root[tree]),
            "nodes_falsenodeids": torch.where(leaf, 0, right - root[tree]),
            "nodes_missing_value_tracks_true": missing_left,
            "target_treeids": tree[leaf],
            "target_nodeids": (own - root[tree])[leaf],
            "target_ids": output[tree[leaf]],
            "target_weights": value[leaf],
        }
        modes = ["LEAF" if end else "BRANCH_LEQ" for end in leaf.tolist()]
        lists: dict[str, Any] = {name: values.tolist() for name, values in columns.items()}
        return lists | {"n_targets": self.output_size, "nodes_modes": modes}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("links", "numbers", "trees"):  # the stored trees decide the lengths
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=self.links.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def from_boosters(cls, boosters: Sequence[Any], output_size: int, offset: int = 0) -> Self:
        """The mean of scikit-learn's histogram boosters, each cut off after its best round.

        Args:
            boosters: Fitted with held-out rows.
            output_size: Width ``k`` of the outputs.
            offset: The column of the inputs that was the boosters' first.
        """
        tables: list[np.ndarray] = []
        for booster in boosters:
            rounds = booster._predictors[: np.argmax(booster.validation_score_)]
            start = np.zeros(output_size, booster._predictors[0][0].nodes.dtype)  # one leaf each
            start["value"], start["is_leaf"] = booster._baseline_prediction.ravel(), 1
            tables += np.split(start, output_size)
            tables += [tree.nodes for trees in rounds for tree in trees]
        nodes, sizes = np.concatenate(tables), np.array([len(table) for table in tables])
        root, own, leaf = np.cumsum(sizes) - sizes, np.arange(len(nodes)), nodes["is_leaf"] == 1
        children = [
            np.where(leaf, own, nodes[s] + np.repeat(root, sizes)) for s in ("left", "right")
        ]
        feature = np.where(leaf, 0, nodes["feature_idx"] + offset)
        exact = nodes["num_threshold"]
        near = exact.astype(np.float32)
        # rounded down, so that every float32 falls on the same side as in scikit-learn
        threshold = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
        value = (nodes["value"] / len(boosters) / GRID).round() * GRID
        forest = cls(output_size)
        links = np.stack([feature, *children, nodes["missing_go_to_left"]]).astype(np.int64)
        forest.links = torch.from_numpy(links)
        forest.numbers = torch.from_numpy(np.stack([threshold, value]).astype(np.float32))
        forest.trees = torch.from_numpy(np.stack([root, np.arange(len(root)) % output_size]))
        return forest


def grow_trees(
    inputs: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    *,
    output_size: int,
    offset: int,
    seed: int,
) -> tuple[Trees, np.ndarray]:
    """Boost trees once for each fold, whose rows decide when to stop, and take their mean.

    Gradient boosting is Friedman's (Greedy Function Approximation, 2001), on scikit-learn's
    histograms.

    Args:
        inputs: ``(n, d)`` float32, NaN where missing.
        labels: ``(n,)`` int64 classes, or standardised numbers for regression.
        fold: ``(n,)`` the fold of each row, from 0.
        output_size: Width ``k`` of the outputs.
        offset: The first column that trees look at.
        seed: Of the columns drawn for each split.

    Returns:
        The trees, and outputs ``(n, k)`` for each row from the booster that didn't learn from it.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    classes, columns = labels.dtype.kind == "i", inputs[:, offset:]
    booster_type = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    boosters, outputs = [], np.zeros((len(labels), output_size), np.float32)
    with threadpool_limits(1):
        for number in range(fold.max() + 1):
            learn, held = fold != number, fold == number
            booster = booster_type(**GROWTH, random_state=seed + number)
            booster.fit(columns[learn], labels[learn], X_val=columns[held], y_val=labels[held])
            boosters.append(booster)
            alone = Trees.from_boosters([booster], output_size)
            outputs[held] = alone(torch.from_numpy(columns[held])).numpy()
    return Trees.from_boosters(boosters, output_size, offset), outputs
