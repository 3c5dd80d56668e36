"""Batches by slicing. Knows tensors only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch

from lepton_lib.errors import DataError

# rows gathered at a time when shuffling: small enough for the cache, large enough to be rare
CHUNK_ROWS = 16_384


class Dataset:
    """Inputs and labels of one length, as tensors.

    Args:
        inputs: ``(n, d)`` tensor, array or numeric data frame; becomes float32. float32 memory is
            shared, not copied.
        labels: ``(n,)`` tensor, array or series; whole numbers become int64 (classes), others
            float32.

    Raises:
        DataError: The lengths differ, there is no row, labels have columns, or something isn't
            numeric.
    """

    def __init__(self, inputs: Any, labels: Any) -> None:
        self.inputs = _to_tensor(inputs, "inputs").to(torch.float32)
        labels = _to_tensor(labels, "labels")
        self.labels = labels.to(torch.float32 if labels.is_floating_point() else torch.int64)
        if labels.ndim != 1 or self.inputs.shape[:1] != labels.shape or len(labels) == 0:
            got = f"inputs {tuple(self.inputs.shape)} and labels {tuple(labels.shape)}"
            remedy = "Take both from the same rows, the labels as one column."
            raise DataError("Dataset", got, "(n, ...) and (n,), with n at least 1", remedy)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.labels[index]

    def to(self, device: torch.device | str) -> Self:
        """Move both tensors to ``device``; returns the same data set."""
        self.inputs, self.labels = self.inputs.to(device), self.labels.to(device)
        return self


class DataLoader:
    """Iterates over a data set in batches ``((b, d), (b,))``.

    A table that fits in memory needs no worker processes and no collating: unshuffled batches are
    views, shuffled ones are views of chunks that were gathered with one ``index_select`` each.
    There is never a second copy of the data.

    Args:
        dataset: What to iterate over.
        batch_size: Rows in a batch; the last may be shorter.
        shuffle: Draw a new order for every pass.
        generator: Source of the order; torch's global generator without one.

    Raises:
        DataError: A batch of no rows.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 64,
        shuffle: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        if batch_size < 1:
            raise DataError("batch_size", batch_size, "at least 1", "Choose 64, for example.")
        self.dataset, self.batch_size = dataset, batch_size
        self.shuffle, self.generator = shuffle, generator

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        inputs, labels, size = self.dataset.inputs, self.dataset.labels, self.batch_size
        if not self.shuffle:
            yield from zip(inputs.split(size), labels.split(size), strict=True)
            return
        order = torch.randperm(len(inputs), generator=self.generator).to(inputs.device)
        # so that batches don't straddle chunks
        for chunk in order.split(max(CHUNK_ROWS // size, 1) * size):
            parts = [rows.index_select(0, chunk).split(size) for rows in (inputs, labels)]
            yield from zip(*parts, strict=True)


def _to_tensor(values: Any, what: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        remedy = "Encode categories first: data.encode(frame, case) does."
        raise DataError(what, f"values of type {array.dtype}", "numbers", remedy)
    array = np.ascontiguousarray(array)
    # torch can't promise not to write, so memory that pandas has marked read-only is copied.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
