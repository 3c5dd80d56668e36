"""What a case predicts: one of two classes, one of several, or a number. Each answers for itself.

A task equals its name in case.toml, so ``case.task == "binary"`` holds. Knows labels and outputs,
nothing of models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch


class Task(str):
    """Classification into one of several classes; the other tasks change what differs."""

    __slots__ = ()
    metric: ClassVar[str] = "auc"  # by which models are compared
    n_classes: ClassVar[str] = "three or more"  # in words

    def accepts(self, n_classes: int) -> bool:
        """Whether a target with so many classes fits."""
        return n_classes > 2

    def n_outputs(self, n_classes: int) -> int:
        """Width ``k`` of the model's output."""
        return n_classes

    def to_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """A model's outputs ``(..., k)`` as probabilities ``(..., n_classes)``."""
        return outputs.softmax(-1)

    def losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each row ``(n,)`` in nats, of outputs ``(n, k)`` and labels ``(n,)``."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none")

    def row_losses(self, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Cross-entropy of each row ``(n,)`` in nats, of probabilities ``(n, n_classes)``."""
        true_class = answers[np.arange(len(labels)), labels.astype(int)]
        losses: np.ndarray = -np.log(true_class.clip(1e-12))
        return losses

    def scores(self, answers: np.ndarray) -> np.ndarray:
        """What the AUC ranks: a probability for each class ``(n, n_classes)``."""
        return answers

    def observed_and_stated(
        self, labels: np.ndarray, answers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether the most probable class is right ``(n,)``, and its probability ``(n,)``."""
        return answers.argmax(1) == labels, answers.max(1)

    def answer_columns(self, classes: tuple[str, ...], answers: np.ndarray) -> dict[str, Any]:
        """Answers ``(n, n_classes)`` as columns that can move by themselves, by name."""
        return {f"p_{name}": answers[:, index] for index, name in enumerate(classes)}


class _Binary(Task):
    """One of two classes; the model has one logit, of the positive (second) class."""

    __slots__ = ()
    n_classes = "two"

    def accepts(self, n_classes: int) -> bool:
        return n_classes == 2

    def n_outputs(self, n_classes: int) -> int:  # noqa: ARG002  # one logit tells both
        return 1

    def to_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        import torch

        positive = outputs.sigmoid()
        return torch.cat([1 - positive, positive], dim=-1)

    def losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        labels = labels.to(outputs.dtype)
        return binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none")

    def scores(self, answers: np.ndarray) -> np.ndarray:
        return answers[:, 1]

    def observed_and_stated(
        self, labels: np.ndarray, answers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return labels, answers[:, 1]

    def answer_columns(self, classes: tuple[str, ...], answers: np.ndarray) -> dict[str, Any]:
        return {f"p_{classes[1]}": answers[:, 1]}  # the other is what this one lacks to 1


class _Regression(Task):
    """A number, in the target's own unit."""

    __slots__ = ()
    metric = "mean_absolute_error"
    n_classes = "no"

    def accepts(self, n_classes: int) -> bool:
        return n_classes == 0

    def n_outputs(self, n_classes: int) -> int:  # noqa: ARG002  # there are none
        return 1

    def to_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    def losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (outputs[:, 0] - labels).abs()

    def row_losses(self, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(answers[:, 0] - labels))

    def observed_and_stated(
        self, labels: np.ndarray, answers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return labels, answers[:, 0]

    def answer_columns(self, classes: tuple[str, ...], answers: np.ndarray) -> dict[str, Any]:  # noqa: ARG002
        return {"prediction": answers[:, 0]}


TASKS: dict[str, Task] = {
    "binary": _Binary("binary"),
    "multiclass": Task("multiclass"),
    "regression": _Regression("regression"),
}


def find_task(name: object) -> Task:
    """The task of that name.

    Raises:
        ValueError: There is none.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError("'binary', 'multiclass' or 'regression'")
    return TASKS[name]
