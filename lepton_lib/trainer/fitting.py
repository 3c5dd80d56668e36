"""How a case's model is fitted: as told, or by a recipe that chooses on rows held out.

The recipe plans in steps and ends with a model that has learnt from training and validation rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from lepton_lib.cases import Case
from lepton_lib.data import DataLoader, Dataset
from lepton_lib.errors import DataError, ParameterError
from lepton_lib.models import TabularModel, build_model
from lepton_lib.models.networks import Ensemble, mean_outputs
from lepton_lib.models.preprocessing import Encoding
from lepton_lib.models.tabular import Kind
from lepton_lib.models.trees import grow_trees
from lepton_lib.optimizers import AdamW
from lepton_lib.trainer.loop import History, Loss, Trainer, task_loss
from lepton_lib.utils import one_thread

Rows = tuple[np.ndarray, np.ndarray]  # raw inputs and labels
N_FOLDS = 5  # each is held out once
N_OUTER_FOLDS = 3  # for the estimate of "best", which is fitted anew without each
TREE_SHARES = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Plan:
    """How a network is trained; see `fit_model`, `AdamW` and `Trainer`."""

    epochs: int
    lr: float = 3e-3
    batch_size: int = 64
    weight_decay: float = 0.1
    patience: int | None = None
    loss: Loss = task_loss
    progress: bool = True


def make_plan(case: Case, kind: Kind, n_rows: int) -> tuple[Plan, dict[str, Any]]:
    """The recipe: a plan in steps and the network's options, with strong brakes for classes."""
    batch_size = 2 ** round(math.log2(min(max(n_rows / 16, 32), 128 if n_rows < 10_000 else 256)))
    options: dict[str, Any] = {}
    if kind == "linear":
        steps, plan = 2000, Plan(0, lr=1e-2)
    elif case.classes:
        steps, plan, options = 400, Plan(0, weight_decay=1.0), {"hidden_size": 96, "dropout": 0.5}
    else:
        steps, plan, options = 600, Plan(0, lr=4e-3), {"n_layers": 2, "dropout": 0.0}
    if kind in ("ensemble", "blend"):
        options["n_members"] = 2 * N_FOLDS
    epochs = max(math.ceil(steps / math.ceil(n_rows / batch_size)), 8)
    plan = replace(plan, epochs=epochs, batch_size=batch_size, patience=epochs * 2 // 5)
    return plan, {} if kind == "trees" else options


def fit_model(
    case: Case,
    train: Rows,
    validation: Rows | None,
    *,
    seed: int,
    kind: Kind | Literal["best"] = "blend",
    encoding: Encoding = "piecewise",
    epochs: int | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[TabularModel, History]:
    """Build and train a case's model: in one call what 02 does step by step.

    Args:
        case: The case.
        train: Raw inputs ``(n, d)`` and labels ``(n,)``, from `lepton_lib.data.encode`.
        validation: The same of the rows that pick the epoch. Without them the last epoch's weights
            are kept, or the recipe holds rows of its own out.
        seed: Of first weights, dropout and batch order; the global generator is left as it was.
        kind: The model. ``best`` cross-validates a linear model, the ensemble, the trees and their
            blend, and takes the one with the lowest loss. It and the trees take no other option.
        encoding: Of the numbers.
        epochs: Passes over the training rows. Without it the recipe plans, and learns from the
            validation rows as well; a blend always does.
        progress: Show a progress bar.
        **options: For the plan (``lr``, ``batch_size``, ``weight_decay``, ``patience``, ``loss``)
            and for the network (``hidden_size``, ``dropout``, ``n_members``, ...).

    Returns:
        The model, and its history. The model's ``config["recipe"]`` holds the arguments that fit
        it again, on other rows.

    Raises:
        ParameterError: Options beside ``best`` or ``trees``, or an ensemble of one by the recipe.
        DataError: A class has a single row.
        TrainingError: The loss isn't finite.
    """
    if kind in ("best", "trees") and (epochs is not None or options):
        got = ", ".join(options) or "epochs"
        raise ParameterError(f"kind {kind!r}", got, "no other option", "It plans by itself.")
    if kind == "best":
        return _fit_best(case, train, validation, seed=seed, encoding=encoding, progress=progress)
    rows, n_held = _join(train, validation), 0 if validation is None else len(validation[1])
    recipe = {"kind": kind, "encoding": encoding, "epochs": epochs, **options}
    recipe.pop("loss", None)  # a function can't be stored
    changes = {name: options.pop(name) for name in Plan.__annotations__ if name in options}
    plan, defaults = make_plan(case, kind, len(rows[1])) if epochs is None else (Plan(epochs), {})
    plan, options = replace(plan, progress=progress, **changes), defaults | options
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind in ("trees", "blend") or (kind == "ensemble" and epochs is None):
            model = build_model(case, *rows, kind=kind, encoding=encoding, **options)
            history = _cross_fit(case, model, rows, plan, seed)
        else:
            if epochs is None and validation is None:
                train, validation = _hold_out(case, rows, seed)
            model = build_model(case, *train, kind=kind, encoding=encoding, **options)
            history = _train(model, train, validation, plan, seed).history
            if validation is not None:
                history.held_out = model.cpu().predict(validation[0])
            if epochs is None:
                torch.manual_seed(seed)
                model = build_model(case, *rows, kind=kind, encoding=encoding, **options)
                _train(model, rows, None, plan, seed, epochs=history.best_epoch)
    history.held_out = history.held_out[len(history.held_out) - n_held :]
    model.config["recipe"] = recipe
    return model.cpu().eval(), history


def _join(train: Rows, validation: Rows | None) -> Rows:
    if validation is None:
        return train
    return np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]])


def assign_folds(case: Case, labels: np.ndarray, *, n_folds: int, seed: int) -> np.ndarray:
    """The fold ``(n,)`` of each row; neighbours stay together unless the case splits at random.

    Raises:
        DataError: A class has a single row.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    rarest = int(np.unique(labels, return_counts=True)[1].min()) if case.classes else len(labels)
    if rarest < 2:
        raise DataError("fit_model", "a class with one row", "two or more", "Collect more rows.")
    shuffle = case.split.method == "stratified"
    folds = (StratifiedKFold if case.classes else KFold)(
        min(n_folds, rarest), shuffle=shuffle, random_state=seed if shuffle else None
    )
    fold = np.zeros(len(labels), dtype=np.int64)
    for number, (_, held) in enumerate(folds.split(labels, labels)):
        fold[held] = number
    return fold


def _hold_out(case: Case, rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """The rows without their last fold, and the last fold."""
    fold = assign_folds(case, rows[1], n_folds=N_FOLDS, seed=seed)
    held = fold == fold.max()
    return (rows[0][~held], rows[1][~held]), (rows[0][held], rows[1][held])


def _train(
    model: nn.Module,
    rows: Rows,
    held: Rows | None,
    plan: Plan,
    seed: int,
    *,
    epochs: int | None = None,
) -> Trainer:
    """A trainer that has trained by the plan, or for the first ``epochs`` of it."""
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(Dataset(*rows), plan.batch_size, shuffle=True, generator=order)
    steps = plan.epochs * len(loader)
    weights = model.parameters()
    optimizer = AdamW(weights, plan.lr, weight_decay=plan.weight_decay, total_steps=steps)
    options: Any = {"patience": plan.patience, "progress": plan.progress}
    trainer = Trainer(model, optimizer, plan.loss, epochs=epochs or plan.epochs, **options)
    trainer.fit(loader, None if held is None else DataLoader(Dataset(*held), batch_size=4096))
    return trainer


class CrossFitted(nn.Module):
    """An ensemble whose members each leave one fold of the rows out.

    In training a member's outputs for its own fold count as constants, so that it learns nothing
    from them. In evaluation only members that left a row's fold out answer for the row.

    Args:
        model: The model that the ensemble belongs to.
        ensemble: Its ensemble.
        n_folds: Number of folds.
    """

    def __init__(self, model: TabularModel, ensemble: Ensemble, n_folds: int) -> None:
        super().__init__()
        self.model, self.ensemble = model, ensemble
        self.register_buffer("fold", torch.arange(len(ensemble.hidden_weight)) % n_folds)

    fold: torch.Tensor

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map raw inputs and, in a last column, the fold ``(b, d + 1)`` to outputs."""
        encoded = self.model.preprocessor(rows[:, :-1])
        width = self.ensemble.hidden_weight.shape[1]  # what follows is for trees
        members = self.model.finish(self.ensemble.members(encoded[:, :width]))  # (m, b, k)
        own = (self.fold[:, None] == rows[:, -1])[..., None]  # (m, b, 1)
        if self.training:
            return torch.where(own, members.detach(), members)
        return mean_outputs(members, own / own.sum(0), regression=self.ensemble.regression)


def _cross_fit(case: Case, model: TabularModel, rows: Rows, plan: Plan, seed: int) -> History:
    """Fit an ensemble, trees or both by folds: a row is answered by what hadn't learnt from it."""
    kind, network = model.config["kind"], cast(Any, model.network)
    ensemble: Ensemble = getattr(network, "ensemble", network)
    n_folds = N_FOLDS if kind == "trees" else min(N_FOLDS, len(ensemble.hidden_weight))
    if n_folds < 2:
        raise ParameterError("n_members", n_folds, "2 or more", "Or give a number of epochs.")
    fold = assign_folds(case, rows[1], n_folds=n_folds, seed=seed)
    answers: dict[str, np.ndarray] = {}
    history = History()
    if kind != "trees":
        marked = np.column_stack([rows[0], fold.astype(np.float32)]), rows[1]
        trainer = _train(CrossFitted(model, ensemble, fold.max() + 1), marked, marked, plan, seed)
        outputs, _ = trainer.evaluate(DataLoader(Dataset(*marked), batch_size=4096))
        answers["ensemble"] = case.task.to_probabilities(outputs).cpu().numpy()
        history = trainer.history
    if kind != "ensemble":
        answers["trees"] = _grow(case, model.cpu(), rows, fold, seed)
    losses = {name: _mean_loss(case, rows[1], answer) for name, answer in answers.items()}
    if kind == "blend":
        networks, trees = answers.values()
        blends = [(1 - share) * networks + share * trees for share in TREE_SHARES]
        tried = [_mean_loss(case, rows[1], blend) for blend in blends]
        network.tree_share.fill_(TREE_SHARES[np.argmin(tried)])
        answers["blend"], losses["blend"] = blends[np.argmin(tried)], min(tried)
    if kind == "trees":
        train_loss = _mean_loss(case, rows[1], model.predict(rows[0]))
        row = {"epoch": 1.0, "train_loss": train_loss, "validation_loss": losses[kind]}
        history = History([row])
    history.cross_validated = model.config["cross_validated"] = losses
    history.held_out = answers[kind].astype(np.float64)
    return history


def _grow(case: Case, model: TabularModel, rows: Rows, fold: np.ndarray, seed: int) -> np.ndarray:
    """Give the model its trees; returns their answers to the rows of each fold held out."""
    pre = model.preprocessor
    with torch.no_grad():
        encoded = pre(pre.as_raw(rows[0])).numpy()
    labels = rows[1]
    if not case.classes:
        labels = (labels - model.target_mean.item()) / model.target_scale.item()
    offset = pre.output_size - len(pre.level) - pre.n_raw
    k = case.n_outputs
    trees, outputs = grow_trees(encoded, labels, fold, output_size=k, offset=offset, seed=seed)
    if model.config["kind"] == "trees":
        model.network = trees
    else:
        model.network.trees = trees
    answers: np.ndarray = case.task.to_probabilities(
        model.finish(torch.from_numpy(outputs))
    ).numpy()
    return answers


def _mean_loss(case: Case, labels: np.ndarray, answers: np.ndarray) -> float:
    return float(case.task.row_losses(labels, answers).mean())


def _fit_best(
    case: Case,
    train: Rows,
    validation: Rows | None,
    *,
    seed: int,
    nested: bool = True,
    **options: Any,
) -> tuple[TabularModel, History]:
    """The candidate of the lowest cross-validated loss; how it would do on new rows is nested."""
    rows = _join(train, validation)

    def fit(kind: Kind, part: Rows, held: Rows | None = None) -> tuple[TabularModel, History]:
        return fit_model(case, part, held, seed=seed, kind=kind, **options)

    def choose(part: Rows) -> TabularModel:
        return _fit_best(case, part, None, seed=seed, nested=False, **options)[0]

    model, history = fit("blend", train, validation)
    losses: dict[Any, float] = history.cross_validated
    losses["linear"] = _cross_validate(
        case, rows, N_FOLDS, seed, lambda part: fit("linear", part)[0]
    )
    best = min(losses, key=losses.__getitem__)
    if best != "blend":
        model, history = fit(best, train, validation)
    if nested:
        losses["nested"] = _cross_validate(case, rows, N_OUTER_FOLDS, seed, choose)
    history.cross_validated = model.config["cross_validated"] = losses
    return model, history


def _cross_validate(
    case: Case, rows: Rows, n_folds: int, seed: int, fit: Callable[[Rows], TabularModel]
) -> float:
    """The mean loss of each row by a model that was fitted without its fold."""
    fold = assign_folds(case, rows[1], n_folds=n_folds, seed=seed + 1)
    losses = np.zeros(len(fold))
    for held in (fold == number for number in range(fold.max() + 1)):
        answers = fit((rows[0][~held], rows[1][~held])).predict(rows[0][held])
        losses[held] = case.task.row_losses(rows[1][held], answers)
    return float(losses.mean())
