"""Networks over encoded inputs ``(b, d)``. They know nothing of columns or cases."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Self

import torch
from torch import nn


class LinearModel(nn.Module):
    """One affine map: logistic regression, softmax regression or least squares, as the loss has it.

    Args:
        input_size: Width ``d`` of the inputs.
        output_size: Width ``k`` of the outputs.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, output_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map ``(b, d)`` to logits ``(b, k)``."""
        logits: torch.Tensor = self.linear(inputs)
        return logits


class MLP(nn.Module):
    """Hidden layers with ReLU and dropout, then one affine map.

    Args:
        input_size: Width ``d`` of the inputs.
        output_size: Width ``k`` of the outputs.
        hidden_size: Width of each hidden layer.
        n_layers: Number of hidden layers.
        dropout: Share of hidden units that are zeroed in training.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden_size: int = 64,
        n_layers: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        widths = [input_size] + [hidden_size] * n_layers
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], output_size))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map ``(b, d)`` to logits ``(b, k)``."""
        logits: torch.Tensor = self.layers(inputs)
        return logits


class Ensemble(nn.Module):
    """Several MLPs in one module, trained side by side with batched matrix products.

    In training every member answers for itself; afterwards the members' *probabilities* are
    averaged, as Lakshminarayanan, Pritzel and Blundell do (Simple and Scalable Predictive
    Uncertainty Estimation using Deep Ensembles, 2017, eq. 2). Members differ by their first weights
    and their dropout.

    Args:
        input_size: Width ``d`` of the inputs.
        output_size: Width ``k`` of the outputs.
        n_members: Number of MLPs ``m``.
        hidden_size: Width ``h`` of each hidden layer.
        n_layers: Number of hidden layers.
        dropout: Share of hidden units that are zeroed in training.
        regression: Average the members' outputs as they are, not as probabilities.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        n_members: int = 8,
        hidden_size: int = 64,
        n_layers: int = 1,
        dropout: float = 0.5,
        regression: bool = False,
    ) -> None:
        super().__init__()
        self.regression = regression

        def uniform(fan_in: int, *shape: int) -> nn.Parameter:  # nn.Linear's own start
            return nn.Parameter(torch.empty(*shape).uniform_(-1, 1) / math.sqrt(fan_in))

        self.hidden_weight = uniform(input_size, n_members, input_size, hidden_size)
        self.hidden_bias = uniform(input_size, n_members, 1, hidden_size)
        inner = [(hidden_size, n_members, rows, hidden_size) for rows in (hidden_size, 1)]
        self.inner_weight = nn.ParameterList(uniform(*inner[0]) for _ in range(n_layers - 1))
        self.inner_bias = nn.ParameterList(uniform(*inner[1]) for _ in range(n_layers - 1))
        self.output_weight = uniform(hidden_size, n_members, hidden_size, output_size)
        self.output_bias = uniform(hidden_size, n_members, 1, output_size)
        self.dropout = nn.Dropout(dropout)

    def members(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map ``(b, d)`` to each member's logits ``(m, b, k)``."""
        if torch.compiler.is_exporting():
            return self._members_joined(inputs)
        shared = inputs.expand(len(self.hidden_weight), -1, -1)  # (m, b, d), no copy
        hidden = torch.baddbmm(self.hidden_bias, shared, self.hidden_weight).relu()  # (m, b, h)
        return self._upper_layers(hidden)

    def _upper_layers(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map the first layer's units ``(m, b, h)`` to each member's logits ``(m, b, k)``."""
        for weight, bias in zip(self.inner_weight, self.inner_bias, strict=True):
            hidden = torch.baddbmm(bias, self.dropout(hidden), weight).relu()
        return torch.baddbmm(self.output_bias, self.dropout(hidden), self.output_weight)

    def _members_joined(self, inputs: torch.Tensor) -> torch.Tensor:
        """The same as `members` with one product for all of them: faster on onnxruntime."""
        weight = self.hidden_weight.transpose(0, 1).flatten(1)  # (d, m h)
        hidden = torch.addmm(self.hidden_bias.flatten(), inputs, weight).relu()
        if self.inner_weight:
            hidden = hidden.unflatten(1, self.hidden_bias.shape[::2])  # (b, m, h)
            return self._upper_layers(hidden.transpose(0, 1))
        joined = hidden @ torch.block_diag(*self.output_weight)  # (b, m k)
        outputs: torch.Tensor = joined.unflatten(1, self.output_bias.shape[::2])
        return outputs.transpose(0, 1) + self.output_bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The members' logits ``(m, b, k)`` in training, else those of their mean ``(b, k)``."""
        logits = self.members(inputs)
        return logits if self.training else mean_outputs(logits, regression=self.regression)


def mean_outputs(
    outputs: torch.Tensor, weights: torch.Tensor | None = None, *, regression: bool
) -> torch.Tensor:
    """Several models' outputs ``(m, b, k)`` as one's ``(b, k)``: logits of their mean probability.

    Args:
        outputs: Logits, or predictions for regression, whose mean is taken as it is.
        weights: ``(m, b, 1)`` or ``(m, 1, 1)``, of sum 1; equal ones without.
        regression: Whether the outputs are predictions.
    """
    if weights is None:
        weights = torch.full_like(outputs[:, :1, :1], 1 / len(outputs))
    if regression:
        return (weights * outputs).sum(0)
    if torch.compiler.is_exporting():  # faster on onnxruntime; a share below 1e-38 becomes 0
        if outputs.shape[-1] > 1:
            return (weights * outputs.softmax(-1)).sum(0).log()
        positive, negative = ((weights * z.sigmoid()).sum(0) for z in (outputs, -outputs))
        return positive.log() - negative.log()
    shares = weights.log()
    if outputs.shape[-1] == 1:
        # log(mean p) - log(mean (1 - p)), each by logsumexp: exact where a sigmoid would round
        # to 0 or 1.
        positive = (nn.functional.logsigmoid(outputs) + shares).logsumexp(0)
        return positive - (nn.functional.logsigmoid(-outputs) + shares).logsumexp(0)
    return (outputs.log_softmax(-1) + shares).logsumexp(0)


class Blend(nn.Module):
    """The weighted mean of an ensemble of MLPs and of trees, each fitted by itself before.

    Args:
        ensemble: Of the encoded inputs.
        trees: Of the raw numbers and the categories, at the end of the inputs.
        n_raw: Raw numbers at the end of the inputs, NaN where missing; not for the ensemble.
    """

    def __init__(self, ensemble: Ensemble, trees: nn.Module, n_raw: int) -> None:
        super().__init__()
        self.ensemble, self.trees, self.n_raw = ensemble, trees, n_raw
        self.register_buffer("tree_share", torch.tensor(0.5))

    tree_share: torch.Tensor

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002  # it isn't trained as a whole
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map ``(b, d)`` to logits, or predictions for regression, ``(b, k)``."""
        networks = self.ensemble(inputs[:, : inputs.shape[1] - self.n_raw])
        outputs = torch.stack([networks, self.trees(inputs)])
        weights = torch.stack([1 - self.tree_share, self.tree_share])[:, None, None]
        return mean_outputs(outputs, weights, regression=self.ensemble.regression)
