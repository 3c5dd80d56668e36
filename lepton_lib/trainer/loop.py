"""The one training loop: early stopping, checkpoints, history, progress, TensorBoard, any device.

Knows models, optimizers and loaders; doesn't know what the numbers mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from lepton_lib.data import DataLoader
from lepton_lib.errors import ParameterError, TrainingError, needs_extra
from lepton_lib.models import TabularModel
from lepton_lib.optimizers import AdamW
from lepton_lib.utils import first_line, one_thread, write_atomic

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def task_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean loss that fits the labels: what is taught in 02 as empirical risk.

    Args:
        outputs: ``(b, k)``, or ``(m, b, k)`` from the members of an ensemble, whose losses are
            averaged.
        labels: ``(b,)``; float: absolute error; int with one output: binary cross-entropy; else
            cross-entropy.
    """
    if outputs.ndim == 3:
        labels = labels.expand(len(outputs), -1).reshape(-1)
        outputs = outputs.flatten(0, 1)
    if labels.is_floating_point():
        return F.l1_loss(outputs[:, 0], labels)
    if outputs.shape[-1] == 1:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs.dtype))
    return F.cross_entropy(outputs, labels)


@dataclass
class History:
    """What happened, one row an epoch.

    Attributes:
        rows: ``epoch`` (from 1), ``lr``, ``train_loss``, ``validation_loss`` and metrics of each.
        cross_validated: Mean loss of rows that the answering parts hadn't learnt from, by what
            answered: ``ensemble``, ``trees``, ``blend``, ...; empty where nothing was
            cross-validated. ``nested`` is free of the luck in choosing the lowest of the others.
        held_out: From `fit_model`: what ``(n, k)`` the validation rows are answered by parts that
            haven't learnt from them. They may have picked the epoch, so they flatter a little.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    cross_validated: dict[str, float] = field(default_factory=dict)
    held_out: np.ndarray = field(default_factory=lambda: np.empty((0, 1)), compare=False)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss, or training loss without validation."""
        key = "validation_loss" if "validation_loss" in self.rows[0] else "train_loss"
        return int(min(self.rows, key=lambda row: row[key])["epoch"])

    def to_frame(self) -> pd.DataFrame:
        """The rows as a frame, indexed by epoch."""
        return pd.DataFrame(self.rows or {"epoch": []}).astype({"epoch": int}).set_index("epoch")

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(float_format="{:.4f}".format))


class Trainer:
    """Fits a model, any ``nn.Module`` that maps inputs to outputs.

    Args:
        model: The model; moved to ``device``.
        optimizer: Over the model's parameters; without one, `AdamW` with its defaults.
        loss: Of outputs and labels; `task_loss` without one.
        epochs: Passes over the training rows.
        patience: Epochs without a lower validation loss before training stops; None: never.
        metrics: Functions of ``(labels, outputs)``, evaluated on the validation rows after every
            epoch.
        device: ``"auto"``: CUDA or MPS if there is one, else the CPU.
        checkpoint: File that holds the whole state after every epoch; safetensors, no pickle.
        log_dir: Folder for TensorBoard.
        progress: Show a progress bar. The environment's ``TQDM_DISABLE=1`` hides it, too.

    Raises:
        ParameterError: No epoch, or no patience at all.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        loss: Loss = task_loss,
        *,
        epochs: int = 10,
        patience: int | None = None,
        metrics: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] | None = None,
        device: torch.device | str = "auto",
        checkpoint: Path | None = None,
        log_dir: Path | None = None,
        progress: bool = True,
    ) -> None:
        for name, number in (("epochs", epochs), ("patience", patience)):
            if number is not None and number < 1:
                raise ParameterError(name, number, "at least 1", "Start with 10.")
        self.device = torch.device(_best_device() if device == "auto" else device)
        self.model = model.to(self.device)
        self.optimizer = optimizer or AdamW(model.parameters())
        self.loss = loss
        self.epochs = epochs
        self.patience = patience
        self.metrics = dict(metrics or {})
        self.checkpoint = checkpoint
        self.log_dir = log_dir
        self.progress = progress
        self.history = History()
        self._best: dict[str, torch.Tensor] = {}
        self._best_loss = math.inf

    def fit(
        self, train: DataLoader, validation: DataLoader | None = None, *, resume: bool = False
    ) -> History:
        """Train, and leave the model with the weights of its best epoch, in evaluation mode.

        Args:
            train: Batches to learn from.
            validation: Batches to judge each epoch by; without them the last epoch's weights stay.
            resume: Go on from ``checkpoint`` if it is there; the result is bit for bit that of an
                unbroken run. Without it the history begins anew, from the weights that the model
                has.

        Raises:
            TrainingError: The loss isn't finite, or the checkpoint doesn't fit this model and
                optimizer.
        """
        if not resume:
            self.history, self._best, self._best_loss = History(), {}, math.inf
        elif self.checkpoint is not None and self.checkpoint.exists():
            self._load(train, self.checkpoint)
        begun, planned = len(self.history.rows), self.epochs * len(train)
        # left open, tqdm reads TQDM_DISABLE
        options: Any = {} if self.progress else {"disable": True}
        options |= {"desc": "training", "unit": "batch", "mininterval": 0.5}
        threads = one_thread() if isinstance(self.model, TabularModel) else nullcontext()
        bar = tqdm(total=planned, initial=begun * len(train), **options)
        with threads, bar, self._log() as log:
            for epoch in range(begun + 1, self.epochs + 1):
                if self._out_of_patience():
                    break
                row = {"epoch": float(epoch), "train_loss": self._epoch(train, bar)}
                row["lr"] = self.optimizer.param_groups[0]["lr"]
                row |= {} if validation is None else self._validate(validation)
                self._check(row)
                self.history.rows.append(row)
                self._keep_best(row)
                losses = {name: f"{row[name]:.4f}" for name in row if name.endswith("loss")}
                bar.set_postfix(losses)
                log(row)
                if self.checkpoint is not None:
                    self._save(train, self.checkpoint)
        if self._best:
            self.model.load_state_dict(self._best)
        self.model.eval()
        return self.history

    @torch.no_grad()
    def evaluate(
        self, loader: Iterable[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs and labels of all batches, joined, from the model in evaluation mode."""
        self.model.eval()
        pairs = [
            (self.model(inputs.to(self.device)), labels.to(self.device))
            for inputs, labels in loader
        ]
        outputs, labels = zip(*pairs, strict=True)
        return torch.cat(outputs), torch.cat(labels)

    def _validate(self, loader: DataLoader) -> dict[str, float]:
        """Loss and metrics of the validation rows."""
        outputs, labels = self.evaluate(loader)
        arrays = labels.cpu().numpy(), outputs.cpu().numpy()
        metrics = {f"validation_{name}": value(*arrays) for name, value in self.metrics.items()}
        return {"validation_loss": float(self.loss(outputs, labels))} | metrics

    def _epoch(self, loader: DataLoader, bar: tqdm[Any]) -> float:
        self.model.train()
        losses, sizes = [], []
        for inputs, labels in loader:
            self.optimizer.zero_grad()
            loss = self.loss(self.model(inputs.to(self.device)), labels.to(self.device))
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())  # no .item(): on a GPU it would wait for every batch
            sizes.append(len(labels))
            bar.update()
        weights = torch.tensor(sizes, dtype=torch.float64)
        return float((torch.stack(losses).cpu().double() * weights).sum() / weights.sum())

    def _check(self, row: Mapping[str, float]) -> None:
        for name in ("train_loss", "validation_loss"):
            if not math.isfinite(row.get(name, 0.0)):
                where, got = (
                    f"epoch {row['epoch']:.0f}",
                    f"a {name.replace('_', ' ')} of {row[name]}",
                )
                remedy = f"Divide the learning rate ({row['lr']:g}) by ten"
                remedy += ", or look for gaps in the inputs."
                raise TrainingError(where, got, "a finite number", remedy)

    def _keep_best(self, row: Mapping[str, float]) -> None:
        if row.get("validation_loss", math.inf) < self._best_loss:
            self._best_loss = row["validation_loss"]
            self._best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def _out_of_patience(self) -> bool:
        if self.patience is None or not self._best:
            return False
        return len(self.history.rows) - self.history.best_epoch >= self.patience

    @contextmanager
    def _log(self) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Writes an epoch's row for TensorBoard; nothing without a ``log_dir``."""
        if self.log_dir is None:
            yield lambda _: None
            return
        with needs_extra("class", "log_dir of Trainer"):
            from torch.utils.tensorboard import SummaryWriter
        with SummaryWriter(str(self.log_dir)) as writer:

            def write(row: Mapping[str, float]) -> None:
                for name, value in row.items():
                    writer.add_scalar(name, value, int(row["epoch"]))

            yield write

    def _save(self, train: DataLoader, checkpoint: Path) -> None:
        state = self.optimizer.state_dict()
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for index, entries in state["state"].items():
            parts = {f"optimizer.{index}.{name}": value for name, value in entries.items()}
            tensors |= {name: torch.as_tensor(value) for name, value in parts.items()}
        tensors["rng"] = torch.get_rng_state()
        if self.device.type != "cpu":  # dropout draws from the device's own generator
            tensors["rng.device"] = torch.get_device_module(self.device).get_rng_state()
        if train.generator is not None:
            tensors["rng.loader"] = train.generator.get_state()
        notes = {"history": self.history.rows, "best_loss": self._best_loss}
        notes["optimizer"] = {name: value for name, value in state.items() if name != "state"}
        # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
        copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        write_atomic(checkpoint, save(copies, {"notes": json.dumps(notes)}))

    def _load(self, train: DataLoader, checkpoint: Path) -> None:
        try:
            with safe_open(checkpoint, framework="pt") as file:
                notes = json.loads(file.metadata()["notes"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping

            def part(prefix: str) -> dict[str, torch.Tensor]:
                names = [name for name in tensors if name.startswith(prefix)]
                return {name.removeprefix(prefix): tensors[name] for name in names}

            self.model.load_state_dict(part("model."))
            self._best = {name: tensor.to(self.device) for name, tensor in part("best.").items()}
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, tensor in part("optimizer.").items():
                index, name = key.split(".")
                state.setdefault(int(index), {})[name] = tensor
            self.optimizer.load_state_dict(notes["optimizer"] | {"state": state})
            torch.set_rng_state(tensors["rng"])
            if self.device.type != "cpu":
                torch.get_device_module(self.device).set_rng_state(tensors["rng.device"])
            if train.generator is not None:
                train.generator.set_state(tensors["rng.loader"])
            self.history, self._best_loss = History(notes["history"]), notes["best_loss"]
        except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
            got = f"a checkpoint that doesn't fit ({first_line(error)})"
            expected = "one written by the same model, optimizer and loader"
            remedy = "Delete it, or train without resume."
            raise TrainingError(checkpoint.name, got, expected, remedy) from error


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
