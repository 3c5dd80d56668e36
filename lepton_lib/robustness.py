"""Adversarial and noisy inputs: to attack a model that is known, and to train against both.

Numbers move in units of their standard deviation in training and stay in their case's range;
categories and missing values stay as they are. Knows cases and models, not decisions or costs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lepton_lib.cases import Case, NumberColumn
from lepton_lib.errors import DataError, ParameterError
from lepton_lib.models import TabularModel


def fgsm(model: TabularModel, inputs: Any, labels: Any, *, case: Case, radius: float) -> np.ndarray:
    """Fast gradient sign method: one step of ``radius`` that raises the loss.

    Goodfellow, Shlens and Szegedy, Explaining and Harnessing Adversarial Examples, 2015, section 4.

    Args:
        model: The model under attack; left as it is.
        inputs: Raw ``(n, d)``, laid out as ``case.fields`` says, NaN where missing.
        labels: ``(n,)`` true classes, or targets.
        case: Says which fields are numbers and what range they may have.
        radius: How far each number may move, in its standard deviations in training.

    Returns:
        float32 ``(n, d)``, within the radius and the case's range.

    Raises:
        ParameterError: ``radius`` is negative or not finite.
        DataError: The model is of trees alone, which have no slope.
    """
    ball = _Ball(model, case, inputs, radius)
    _, uphill = _losses(model, case, ball.centre, labels)
    return ball.project(ball.centre + radius * ball.scale * uphill).cpu().numpy()


def pgd(
    model: TabularModel,
    inputs: Any,
    labels: Any,
    *,
    case: Case,
    radius: float,
    seed: int,
    n_steps: int = 10,
    step: float | None = None,
    n_starts: int = 3,
) -> np.ndarray:
    """Projected gradient descent: small steps from several starts, projected into the radius.

    Madry, Makelov, Schmidt, Tsipras and Vladu, Towards Deep Learning Models Resistant to
    Adversarial Attacks, 2018, section 2.1, with restarts. The first start is `fgsm`'s result, the
    others are random. Each row keeps the position with the highest loss of all, its own included:
    it never does less harm than `fgsm`.

    Args:
        model: The model under attack; left as it is.
        inputs: Raw ``(n, d)``, laid out as ``case.fields`` says, NaN where missing.
        labels: ``(n,)`` true classes, or targets.
        case: Says which fields are numbers and what range they may have.
        radius: How far each number may move, in its standard deviations in training.
        seed: Of the random starts.
        n_steps: Number of steps.
        step: Length of a step in the same unit; by default 2.5 times the radius, divided by the
            number of steps.
        n_starts: Number of starts.

    Returns:
        float32 ``(n, d)``, within the radius and the case's range.

    Raises:
        ParameterError: ``radius`` or ``step`` is negative or not finite, or a number below 1.
        DataError: The model is of trees alone, which have no slope.
    """
    ball = _Ball(model, case, inputs, radius)
    default_step = 2.5 * radius / _at_least_one("n_steps", n_steps)
    length = _not_negative("step", default_step if step is None else step)
    worst, generator = ball.centre, torch.Generator().manual_seed(seed)
    highest, direction = _losses(model, case, worst, labels)
    for _ in range(_at_least_one("n_starts", n_starts)):
        position = ball.project(ball.centre + radius * ball.scale * direction)
        for _ in range(n_steps + 1):  # the last round only looks
            losses, uphill = _losses(model, case, position, labels)
            worst = torch.where((losses > highest)[:, None], position, worst)
            highest = torch.maximum(losses, highest)
            position = ball.project(position + length * ball.scale * uphill)
        direction = 2 * torch.rand(worst.shape, generator=generator).to(worst.device) - 1
    return worst.cpu().numpy()


def jitter(
    inputs: np.ndarray, labels: np.ndarray, *, case: Case, radius: float, seed: int, copies: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Augment training rows by copies whose numbers are moved at random, with the labels they had.

    For small noise this comes close to a penalty on the model's slope (Bishop, Training with Noise
    is Equivalent to Tikhonov Regularization, 1995).

    Args:
        inputs: Raw ``(n, d)`` of training rows.
        labels: ``(n,)``.
        case: Says which fields are numbers and what range they may have.
        radius: Standard deviation of the noise, in standard deviations of each number in
            ``inputs``.
        seed: Of the noise.
        copies: Moved copies of each row.

    Returns:
        The rows as they are, followed by the copies: ``((copies + 1) * n, d)`` float32 and as many
        labels.

    Raises:
        ParameterError: ``radius`` is negative or not finite, or ``copies`` below 1.
    """
    _not_negative("radius", radius)
    numbers = _numbers(case)
    low, high = _allowed_range(case)
    generator = np.random.default_rng(seed)
    moved = np.tile(inputs, (_at_least_one("copies", copies), 1)).astype(np.float32)
    scale = np.nanstd(inputs[:, numbers], axis=0)
    noise = generator.normal(size=(len(moved), len(numbers))) * radius * scale
    moved[:, numbers] = (moved[:, numbers] + noise).clip(low[numbers], high[numbers])
    return np.concatenate([inputs, moved]), np.tile(labels, copies + 1)


class _Ball:
    """Where an adversary may go: ``radius`` deviations from ``centre``, in the case's range."""

    def __init__(self, model: TabularModel, case: Case, inputs: Any, radius: float) -> None:
        _not_negative("radius", radius)
        device = model.temperature.device
        self.centre = torch.tensor(np.asarray(inputs), dtype=torch.float32, device=device)  # (n, d)
        self.scale = torch.zeros(len(case.fields), device=device)  # (d,), 0 for a category
        numbers = _numbers(case)
        self.scale[numbers] = model.preprocessor.scale[: len(numbers)]
        low, high = (torch.tensor(bound, device=device) for bound in _allowed_range(case))
        reach = radius * self.scale
        # A value that is out of range already may stay where it is.
        self.low = torch.maximum(self.centre - reach, torch.minimum(low, self.centre))
        self.high = torch.minimum(self.centre + reach, torch.maximum(high, self.centre))

    def project(self, position: torch.Tensor) -> torch.Tensor:
        """The nearest position within; NaN stays NaN."""
        return torch.maximum(torch.minimum(position, self.high), self.low)


def _numbers(case: Case) -> list[int]:
    return [index for index, field in enumerate(case.fields) if field.kind == "number"]


def _allowed_range(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value that the case allows in each field, float32 ``(d,)``."""
    columns = [column for column in case.inputs for _ in column.fields]
    unlimited = -math.inf, math.inf
    limits = [c.limits if isinstance(c, NumberColumn) else unlimited for c in columns]
    low, high = np.array(limits, dtype=np.float32).T
    return low, high


def _losses(
    model: TabularModel, case: Case, raw: torch.Tensor, labels: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's loss ``(n,)``, and the sign of its gradient ``(n, d)``, 0 where missing."""
    was_training = model.training
    model.eval()
    position = raw.detach().clone().requires_grad_()
    outputs = model(position)
    truth = torch.tensor(np.asarray(labels), device=outputs.device)
    losses = case.task.losses(outputs, truth)
    if not losses.requires_grad:
        expected = "a model with a slope in its inputs"
        raise DataError("model", "trees alone", expected, "Attack a network, or a blend.")
    # Rows don't touch each other: the gradient of the sum holds the gradient of each row's loss.
    (gradient,) = torch.autograd.grad(losses.sum(), position)
    model.train(was_training)
    return losses.detach(), gradient.sign()


def _not_negative(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ParameterError(name, value, "a finite number of at least 0", "Start with 0.1.")
    return value


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ParameterError(name, value, "at least 1", "Start with 1.")
    return value
