"""AdamW with its schedule inside: warm-up, then cosine decay. Knows parameters and steps only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from lepton_lib.errors import ParameterError


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay, and a schedule.

    Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.

    With ``total_steps`` the rate rises in a straight line to ``lr`` over the first ``warmup`` of
    the steps and falls to zero along half a cosine; without it the rate stays at ``lr``. The
    current rate is ``param_groups[0]["lr"]``.

    Args:
        params: Parameters or parameter groups, as torch takes them.
        lr: Peak learning rate.
        weight_decay: Decay per step, times the current rate.
        total_steps: Number of optimizer steps planned: epochs times batches.
        warmup: Share of ``total_steps`` spent on the rise.
        **options: For `torch.optim.AdamW`: ``betas``, ``eps``, ...

    Raises:
        ParameterError: A rate, a decay, a share or a number of steps that can't be meant.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        weight_decay: float = 1e-2,
        total_steps: int | None = None,
        warmup: float = 0.1,
        **options: Any,
    ) -> None:
        if not 0 < lr < math.inf:
            raise ParameterError("lr", lr, "a positive number", "Start with 1e-3.")
        if not 0 <= weight_decay < math.inf:
            raise ParameterError("weight_decay", weight_decay, "0 or more", "Start with 0.01.")
        if not 0 <= warmup < 1:
            raise ParameterError("warmup", warmup, "a share from 0 to below 1", "Start with 0.1.")
        if total_steps is not None and total_steps < 1:
            raise ParameterError(
                "total_steps", total_steps, "at least 1", "Give epochs * len(loader)."
            )
        if not (options.get("foreach") or options.get("differentiable")):  # which exclude it
            # one kernel for all parameters; 1.2 to 1.5 times faster, also on a CPU
            options.setdefault("fused", True)
        super().__init__(params, lr=lr, weight_decay=weight_decay, **options)
        self.total_steps = total_steps
        self.warmup = warmup
        self.n_steps = 0

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take more parameters, with a peak rate of their own if the group names an ``lr``."""
        super().add_param_group(param_group)
        self.param_groups[-1]["peak_lr"] = self.param_groups[-1]["lr"]

    def rate_at(self, step: int) -> float:
        """The share of the peak rate that step number ``step`` (from 0) takes."""
        if self.total_steps is None:
            return 1.0
        rise = self.warmup * self.total_steps
        if step < rise:
            return (step + 1) / (rise + 1)
        progress = (step - rise) / max(self.total_steps - rise, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        """Update the parameters with the rate of this step."""
        if self.total_steps is not None:
            share = self.rate_at(self.n_steps)
            for group in self.param_groups:
                group["lr"] = group["peak_lr"] * share
        self.n_steps += 1
        result: float | None = super().step(closure)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state and the number of steps taken."""
        return super().state_dict() | {"n_steps": self.n_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.n_steps = state_dict["n_steps"]
        super().load_state_dict(
            {key: value for key, value in state_dict.items() if key != "n_steps"}
        )
