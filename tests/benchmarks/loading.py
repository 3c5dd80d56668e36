"""The data loader against slicing by hand and torch's own, and the trainer against a bare loop."""

from __future__ import annotations

import contextlib
import os
from collections import deque

import torch

from lepton_lib.data import DataLoader, Dataset
from lepton_lib.models import MLP
from lepton_lib.optimizers import AdamW
from lepton_lib.trainer import Trainer, task_loss
from tests.benchmarks.timing import Row, best_of, peak_megabytes

ROWS, COLUMNS = 1_000_000, 20
MAKE_DATA = f"""
import torch
from collections import deque
from lepton_lib.data import DataLoader, Dataset
dataset = Dataset(torch.randn({ROWS}, {COLUMNS}), torch.zeros({ROWS}, dtype=torch.int64))
"""


def rows() -> list[Row]:
    """One shuffled epoch, two batch sizes; peak memory; the training loop."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(ROWS, COLUMNS), torch.randint(2, (ROWS,))
    result: list[Row] = []
    for batch_size in (64, 1024):
        result += _epoch(inputs, labels, batch_size)
    before = peak_megabytes(MAKE_DATA)
    after = peak_megabytes(MAKE_DATA + "deque(DataLoader(dataset, 64, shuffle=True), maxlen=0)")
    data = ROWS * COLUMNS * 4 / 1024**2
    result.append(
        (
            "peak memory of a shuffled epoch above the data, in copies of the data",
            f"{(after - before) / data:.2f}",
            "< 1",
        )
    )
    return [*result, _loop(inputs[:100_000], labels[:100_000])]


def _epoch(inputs: torch.Tensor, labels: torch.Tensor, batch_size: int) -> list[Row]:
    ours = DataLoader(Dataset(inputs, labels), batch_size, shuffle=True)
    theirs = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, labels), batch_size, shuffle=True
    )

    def by_hand() -> None:
        order = torch.randperm(len(inputs))
        pairs = zip(
            inputs.index_select(0, order).split(batch_size),
            labels.index_select(0, order).split(batch_size),
            strict=True,
        )
        deque(pairs, maxlen=0)

    fast = best_of({"ours": lambda: deque(ours, maxlen=0), "by hand": by_hand}, rounds=9)
    slow = best_of({"torch": lambda: deque(theirs, maxlen=0)}, rounds=2)
    what = f"shuffled epoch of {ROWS:,} x {COLUMNS}, batches of {batch_size}: rate relative to"
    return [
        (
            f"{what} index_select + split of the whole",
            f"{fast['by hand'] / fast['ours']:.2f}",
            ">= 0.90",
        ),
        (f"{what} torch's DataLoader", f"{slow['torch'] / fast['ours']:.0f}", ">= 25"),
    ]


def _loop(inputs: torch.Tensor, labels: torch.Tensor) -> Row:
    dataset, epochs = Dataset(inputs, labels), 1

    def parts() -> tuple[torch.nn.Module, AdamW, DataLoader]:
        torch.manual_seed(0)
        model = MLP(COLUMNS, 1)
        loader = DataLoader(dataset, 64, shuffle=True)
        return model, AdamW(model.parameters(), total_steps=epochs * len(loader)), loader

    def bare() -> None:
        model, optimizer, loader = parts()
        model.train()
        for batch, target in loader:
            optimizer.zero_grad()
            task_loss(model(batch), target).backward()
            optimizer.step()

    def trainer() -> None:
        model, optimizer, loader = parts()
        with open(os.devnull, "w") as sink, contextlib.redirect_stderr(sink):
            Trainer(model, optimizer, epochs=epochs, device="cpu").fit(loader)

    best = best_of({"trainer": trainer, "bare": bare}, rounds=20)
    what = "Trainer, progress bar on, against a bare loop (same loader, model, optimizer): time"
    return (what, f"{best['trainer'] / best['bare']:.3f}", "<= 1.05")
