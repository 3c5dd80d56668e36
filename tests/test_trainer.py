"""The one training loop: what it learns, keeps, refuses, resumes and shows."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from lepton_lib.cases import load_case
from lepton_lib.data import DataLoader, Dataset, clean, encode, read_table
from lepton_lib.errors import DataError, ParameterError, TrainingError
from lepton_lib.models import MLP, LinearModel, build_model, load_model, save_model
from lepton_lib.optimizers import AdamW
from lepton_lib.trainer import History, Trainer, fit_model, fitting, task_loss
from lepton_lib.trainer import loop as trainer_module
from lepton_lib.trainer.fitting import CrossFitted


def circles(n=300, seed=0):
    """Points in the plane, labelled by whether they lie in a disc."""
    inputs = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return Dataset(inputs, (np.square(inputs).sum(1) < 1.4).astype(np.int64))


def trained(
    *, epochs=6, fail_at=None, resume=False, validate=True, optimizer=None, seed=3, **options
):
    """A fit of a small MLP with dropout, over shuffled batches, maybe cut off.

    Returns:
        The trainer; its history holds what came before the interruption.
    """
    torch.manual_seed(seed)
    model = MLP(2, 2, hidden_size=16, dropout=0.5)
    loader = DataLoader(circles(), 32, shuffle=True, generator=torch.Generator().manual_seed(seed))
    validation = DataLoader(circles(seed=1), 64) if validate else None
    optimizer = (
        optimizer(model.parameters())
        if optimizer
        else AdamW(model.parameters(), lr=0.01, total_steps=60)
    )
    trainer = Trainer(model, optimizer, epochs=epochs, device="cpu", progress=False, **options)
    if fail_at is not None:
        calls = iter(range(fail_at * len(loader)))

        def loss(outputs, labels):
            if model.training and next(calls, None) is None:
                raise KeyboardInterrupt
            return task_loss(outputs, labels)

        trainer.loss = loss
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(loader, validation, resume=resume)
    else:
        trainer.fit(loader, validation, resume=resume)
    return trainer


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# Learning


def test_it_learns():
    """The validation loss falls well below that of no model, and evaluation mode is left on."""
    trainer = trained(epochs=20)
    first, best = (
        trainer.history.rows[0],
        min(row["validation_loss"] for row in trainer.history.rows),
    )
    assert best < 0.57 < first["validation_loss"]
    assert not trainer.model.training


def test_it_is_the_bare_loop():
    """Without validation the Trainer leaves the very weights of the loop written out."""
    data, models = circles(), []
    for by_hand in (True, False):
        torch.manual_seed(0)
        model = LinearModel(input_size=2, output_size=2)
        optimizer = AdamW(model.parameters(), lr=0.01)
        loader = DataLoader(data, batch_size=64, shuffle=True)
        if by_hand:
            for _ in range(3):
                for inputs, labels in loader:
                    optimizer.zero_grad()
                    F.cross_entropy(model(inputs), labels).backward()
                    optimizer.step()
        else:
            Trainer(model, optimizer, epochs=3, device="cpu", progress=False).fit(loader)
        models.append(model)
    assert same_weights(*models)


def test_train_loss_is_weighted_by_batch_size():
    """The epoch's loss is the mean over rows, not over batches of which the last is shorter."""
    dataset = Dataset(np.zeros((5, 1)), np.array([0.0, 0.0, 0.0, 0.0, 10.0]))
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    history = Trainer(model, still, epochs=1, device="cpu", progress=False).fit(
        DataLoader(dataset, batch_size=4)
    )
    assert history.rows[0]["train_loss"] == pytest.approx(2.0)


def test_an_optimizer_is_made_where_none_is_given():
    """Without an optimizer the library's AdamW is used over all parameters."""
    trainer = Trainer(LinearModel(2, 2), epochs=1, progress=False)
    assert isinstance(trainer.optimizer, AdamW)
    trainer.fit(DataLoader(circles()))
    assert trainer.history.rows[0]["lr"] == 1e-3


def test_metrics_are_taken_on_validation_rows():
    """Metrics get labels and outputs of all validation rows, after every epoch."""
    seen = []

    def share_right(labels, outputs):
        seen.append((labels.shape, outputs.shape))
        return float((outputs.argmax(1) == labels).mean())

    trainer = trained(epochs=2, metrics={"accuracy": share_right})
    assert seen == [((300,), (300, 2))] * 2
    assert 0 < trainer.history.rows[-1]["validation_accuracy"] <= 1


# Stopping


def test_early_stopping_keeps_the_best_weights():
    """Training ends after `patience` worse epochs, with the weights of the best epoch."""
    weights = []

    class Watched(LinearModel):
        def eval(self):
            weights.append(self.linear.weight.detach().clone())
            return super().eval()

    losses = iter([3.0, 2.0, 1.0, 1.5, 1.0, 1.2, 0.1])
    model = Watched(2, 2)

    def loss(outputs, labels):
        value = task_loss(outputs, labels)
        return value if model.training else value * 0 + next(losses)

    trainer = Trainer(
        model,
        AdamW(model.parameters(), lr=0.1),
        loss,
        epochs=20,
        patience=3,
        device="cpu",
        progress=False,
    )
    history = trainer.fit(DataLoader(circles()), DataLoader(circles(seed=1), 1000))
    assert len(history.rows) == 6  # an equal loss is no better one
    assert history.best_epoch == 3
    assert torch.equal(model.linear.weight, weights[2])
    assert not torch.equal(model.linear.weight, weights[5])


def test_without_validation_the_last_weights_stay():
    """Without validation rows nothing is stopped or put back, whatever the patience."""
    trainer = trained(epochs=5, validate=False, patience=1)
    assert len(trainer.history.rows) == 5
    assert "validation_loss" not in trainer.history.rows[0]
    assert trainer.history.best_epoch >= 1


@pytest.mark.parametrize("options", [{"epochs": 0}, {"patience": 0}])
def test_no_epoch_and_no_patience_are_refused(options):
    """No epoch at all, or no patience, is refused by name."""
    with pytest.raises(ParameterError, match=f"^{next(iter(options))}: got 0"):
        Trainer(LinearModel(2, 2), **options)


@pytest.mark.parametrize("where", ["train", "validation"])
def test_a_loss_that_is_no_number_raises(where):
    """A loss of NaN, in training or validation, ends the run with epoch, loss and a remedy."""
    good, bad = circles(), circles()
    bad.inputs[7] = torch.nan
    train, validation = (bad, good) if where == "train" else (good, bad)
    trainer = Trainer(LinearModel(2, 2), epochs=3, device="cpu", progress=False)
    with pytest.raises(TrainingError, match=f"epoch 1: got a {where} loss of nan.*learning rate"):
        trainer.fit(DataLoader(train), DataLoader(validation))
    assert trainer.history.rows == []


# Checkpoint and resume


@pytest.mark.parametrize("fail_at", [1, 3, 5])
@pytest.mark.parametrize(
    "optimizer",
    [
        None,
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
    ],
)
def test_resuming_is_bit_equal(tmp_path, fail_at, optimizer):
    """A run cut off in an epoch and resumed has the weights and history of an unbroken one."""
    options = {"checkpoint": tmp_path / "c.safetensors", "optimizer": optimizer}
    unbroken = trained(optimizer=optimizer)
    trained(fail_at=fail_at, **options)
    torch.manual_seed(999)  # a new process starts with another state
    resumed = trained(resume=True, **options)
    assert same_weights(unbroken.model, resumed.model)
    assert unbroken.history.rows == resumed.history.rows


def test_resuming_uses_the_global_generator_where_the_loader_does(tmp_path):
    """Batches in the order of torch's global generator go on in that order, too."""

    def run(resume, epochs):
        torch.manual_seed(1)
        model = MLP(2, 2, hidden_size=8)
        path = tmp_path / "c.safetensors" if epochs else None
        trainer = Trainer(
            model, AdamW(model.parameters()), epochs=epochs or 4, checkpoint=path, progress=False
        )
        trainer.fit(DataLoader(circles(), 32, shuffle=True), resume=resume)
        return trainer.model

    run(False, 2)
    assert same_weights(run(True, 4), run(False, None))


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    """A run that was finished, by its epochs or by its patience, is only read back."""
    options = {"checkpoint": tmp_path / "c.safetensors", "patience": 2, "epochs": 30}
    first = trained(**options)
    again = trained(resume=True, **options)
    assert again.history.rows == first.history.rows
    assert same_weights(first.model, again.model)


def test_without_resume_a_checkpoint_is_overwritten(tmp_path):
    """A new run ignores an old checkpoint; a missing one doesn't hinder resuming."""
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"something else")
    first = trained(checkpoint=path)
    path.unlink()
    assert same_weights(first.model, trained(checkpoint=path, resume=True).model)


def test_a_second_fit_trains_again():
    """Without resume a second fit goes through all epochs again, with a new history."""
    torch.manual_seed(0)
    trainer, loader = (
        Trainer(LinearModel(2, 2), epochs=2, device="cpu", progress=False),
        DataLoader(circles(), 32),
    )
    first = trainer.fit(loader)
    weights = [weight.detach().clone() for weight in trainer.model.parameters()]
    second = trainer.fit(loader)
    assert [row["epoch"] for row in second.rows] == [row["epoch"] for row in first.rows] == [1, 2]
    assert second.rows != first.rows
    assert not all(
        torch.equal(a, b) for a, b in zip(weights, trainer.model.parameters(), strict=True)
    )


def test_a_checkpoint_is_no_pickle(tmp_path):
    """The checkpoint is safetensors, which holds nothing that runs."""
    path = tmp_path / "c.safetensors"
    trained(checkpoint=path, epochs=1)
    with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError)):
        pickle.loads(path.read_bytes())
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"]["notes"])["history"][0]["epoch"] == 1


def test_tied_weights_have_a_checkpoint(tmp_path):
    """A model whose parts share their weights can be stored and resumed like any other."""

    def run(resume):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[1].weight = model[0].weight
        trainer = Trainer(model, epochs=2, checkpoint=tmp_path / "c", device="cpu", progress=False)
        trainer.fit(DataLoader(circles()), resume=resume)
        return model

    assert same_weights(run(False), run(True))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_a_foreign_checkpoint_is_refused(tmp_path, content):
    """A checkpoint that is none, or without notes, is refused with a remedy and left alone."""
    path = tmp_path / "c.safetensors"
    if content is None:
        save_file({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(
        TrainingError, match=r"c\.safetensors: got a checkpoint that doesn't fit .*without resume"
    ):
        trained(checkpoint=path, resume=True)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    """Another model's or another optimizer's checkpoint is refused."""
    path = tmp_path / "c.safetensors"
    trained(checkpoint=path, epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    with pytest.raises(TrainingError, match="doesn't fit"):
        trained(checkpoint=path, resume=True)  # AdamW wants its number of steps
    model = LinearModel(2, 2)
    with pytest.raises(TrainingError, match="doesn't fit"):
        Trainer(model, checkpoint=path, progress=False).fit(DataLoader(circles()), resume=True)


# What is shown


def test_history_is_a_frame():
    """The history has one row an epoch, as a frame and in a notebook; it may be empty."""
    frame = trained(epochs=3).history.to_frame()
    assert list(frame.index) == [1, 2, 3]
    assert list(frame) == ["train_loss", "lr", "validation_loss"]
    history = History([{"epoch": 1.0, "train_loss": 0.123456}])
    assert "0.1235" in history._repr_html_()
    assert History().to_frame().empty


def test_tensorboard_files_only_where_asked(tmp_path):
    """Event files appear in log_dir, one set for each run, and nowhere without it."""
    trained(epochs=1)
    assert list(tmp_path.iterdir()) == []
    trained(epochs=1, log_dir=tmp_path / "logs")
    assert any(file.name.startswith("events.") for file in (tmp_path / "logs").iterdir())


PROGRAM = """
import sys
import numpy as np
from lepton_lib.data import DataLoader, Dataset
from lepton_lib.models import LinearModel
from lepton_lib.trainer import Trainer
data = Dataset(np.ones((8, 2)), np.array([0, 1] * 4))
for progress in (False, True):
    Trainer(LinearModel(2, 2), epochs=2, progress=progress).fit(DataLoader(data))
    print("|", file=sys.stderr)
"""


@pytest.mark.parametrize(("variable", "shown"), [({}, True), ({"TQDM_DISABLE": "1"}, False)])
def test_progress_goes_to_stderr(variable, shown):
    """The bar is on standard error; progress=False hides it, and so does TQDM_DISABLE."""
    environment = {
        name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"
    } | variable
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True
    )
    without, _, wanted = result.stderr.partition("|")
    assert (result.stdout, without) == ("", "")
    assert ("training" in wanted) == shown


# Losses and fit_model


def test_task_loss_of_the_four_shapes():
    """Two classes, several, regression and members: each the mean of its own loss."""
    one, many = torch.randn(6, 1), torch.randn(6, 3)
    binary, classes, numbers = (
        torch.tensor([0, 1, 1, 0, 1, 0]),
        torch.tensor([0, 1, 2, 0, 1, 2]),
        torch.randn(6),
    )
    assert task_loss(one, binary) == F.binary_cross_entropy_with_logits(one[:, 0], binary.float())
    assert task_loss(many, classes) == F.cross_entropy(many, classes)
    assert task_loss(one, numbers) == (one[:, 0] - numbers).abs().mean()
    for outputs, labels in (
        (torch.randn(4, 6, 1), binary),
        (torch.randn(4, 6, 3), classes),
        (torch.randn(4, 6, 1), numbers),
    ):
        each = torch.stack([task_loss(member, labels) for member in outputs])
        torch.testing.assert_close(task_loss(outputs, labels), each.mean())


@pytest.fixture(scope="module")
def heart():
    """The smallest case, with made-up rows."""
    case = load_case("heart")
    generator = np.random.default_rng(0)
    rows = [generator.integers(f.n_categories or 90, size=120) for f in case.fields]
    inputs = np.column_stack(rows).astype(np.float32)
    return (
        case,
        (inputs[:80], (inputs[:80, 0] > 45).astype(np.int64)),
        (inputs[80:], (inputs[80:, 0] > 45).astype(np.int64)),
    )


@pytest.mark.parametrize("kind", ["linear", "mlp", "ensemble"])
def test_fit_model_repeats_and_draws_nothing(heart, kind):
    """One seed gives the same bits, another others; the global generator stays."""
    case, train, validation = heart
    state = torch.get_rng_state()
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed * 17 + len(models))
        model, history = fit_model(
            case, train, validation, seed=seed, kind=kind, epochs=3, progress=False
        )
        models.append(model)
    torch.set_rng_state(state)
    fit_model(case, train, validation, seed=0, kind=kind, epochs=1, progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])
    assert len(history.rows) == 3


def test_fit_model_learns_and_takes_options(heart):
    """A fitted model beats chance, options reach the network, validation may be left out."""
    case, train, validation = heart
    model, history = fit_model(
        case,
        train,
        validation,
        seed=0,
        kind="ensemble",
        epochs=30,
        lr=1e-2,
        n_members=2,
        progress=False,
    )
    assert history.rows[history.best_epoch - 1]["validation_loss"] < 0.6
    assert len(model.network.hidden_weight) == 2
    _, history = fit_model(case, train, None, seed=0, kind="linear", epochs=2, progress=False)
    assert "validation_loss" not in history.rows[0]


def quick_plan(case, kind, n_rows):  # noqa: ARG001  # the arguments of make_plan
    """A plan of two epochs, that tests can wait for."""
    return fitting.Plan(2, batch_size=32), {"n_members": 2} if kind in ("ensemble", "blend") else {}


def test_the_recipe_plans_in_steps(heart):
    """A small table is passed over more often, so that no table is left with a handful of steps."""
    case = heart[0]
    for n_rows in (100, 1_000, 20_000):
        plan, _ = fitting.make_plan(case, "blend", n_rows)
        assert plan.epochs * -(-n_rows // plan.batch_size) >= 400
    assert fitting.make_plan(case, "blend", 100)[0].epochs > 50


@pytest.mark.parametrize("kind", ["mlp", "ensemble", "trees", "blend"])
def test_the_recipe_learns_from_validation_rows_too(heart, kind, monkeypatch):
    """Without a number of epochs the validation rows choose, and then they are learnt from."""
    monkeypatch.setattr(fitting, "make_plan", quick_plan)
    case, train, validation = heart
    model, history = fit_model(case, train, validation, seed=0, kind=kind, progress=False)
    both = np.concatenate([train[0], validation[0]])
    numbers = both[:, [not field.n_categories for field in case.fields]]
    np.testing.assert_allclose(model.preprocessor.mean, numbers.mean(0), rtol=1e-5)
    again, _ = fit_model(case, train, validation, seed=0, kind=kind, progress=False)
    assert same_weights(model, again)
    assert "validation_loss" in history.rows[0]


@pytest.mark.parametrize("kind", ["ensemble", "trees", "blend"])
def test_held_out_answers_are_those_of_the_cross_validation(heart, kind, monkeypatch):
    """The validation rows' out-of-fold answers come in their order, with the loss that is told."""
    monkeypatch.setattr(fitting, "make_plan", quick_plan)
    case, (inputs, labels), _ = heart
    first, rest = (inputs[:1], labels[:1]), (inputs[1:], labels[1:])
    model, history = fit_model(case, first, rest, seed=0, kind=kind, progress=False)
    losses = case.task.row_losses(rest[1], history.held_out)
    told = history.cross_validated[kind] * len(labels)
    assert 0 < told - losses.sum() < 5  # the one row before them
    assert not np.allclose(history.held_out, model.predict(rest[0]), atol=1e-3)


@pytest.mark.parametrize("kind", ["linear", "mlp", "best"])
def test_validation_rows_are_answered_before_they_are_learnt_from(heart, kind, monkeypatch):
    """Where the recipe learns from validation rows, their answers aren't the finished model's."""
    monkeypatch.setattr(fitting, "make_plan", quick_plan)
    case, train, validation = heart
    model, history = fit_model(case, train, validation, seed=0, kind=kind, progress=False)
    assert history.held_out.shape == (len(validation[1]), 2)
    assert not np.allclose(history.held_out, model.predict(validation[0]), atol=1e-3)


@pytest.mark.parametrize(
    "options", [{"kind": "ensemble", "epochs": 2, "n_members": 2}, {"kind": "blend", "lr": 0.02}]
)
def test_a_stored_recipe_fits_the_same_model_again(heart, options, monkeypatch, tmp_path):
    """The stored configuration holds the arguments of `fit_model`: a challenger is given them."""
    monkeypatch.setattr(fitting, "make_plan", quick_plan)
    model, _ = fit_model(*heart, seed=0, progress=False, **options)
    files = {"weights": tmp_path / "m.safetensors", "config": tmp_path / "m.json"}
    save_model(model, **files)
    recipe = load_model(**files).config["recipe"]
    again, _ = fit_model(*heart, seed=0, progress=False, **recipe)
    assert same_weights(model, again)


@pytest.mark.parametrize("kind", ["trees", "best"])
@pytest.mark.parametrize("options", [{"epochs": 3}, {"lr": 0.1}])
def test_what_trees_have_no_use_for_is_refused(heart, kind, options):
    """Trees have no epochs and no learning rate of networks: giving one isn't silently ignored."""
    with pytest.raises(ParameterError, match=rf"^kind '{kind}': got {next(iter(options))}, "):
        fit_model(*heart, seed=0, kind=kind, **options)


def test_a_member_learns_nothing_from_its_own_fold(heart):
    """Rows of a member's own fold give it no gradient, and only it answers for them afterwards."""
    case, (inputs, labels), _ = heart
    model = build_model(case, inputs, labels, n_members=2, dropout=0.0)
    crossed = CrossFitted(model, model.network, 2).train()
    rows = torch.tensor(np.column_stack([inputs, np.ones(len(inputs))]), dtype=torch.float32)
    task_loss(crossed(rows), torch.tensor(labels)).backward()
    gradient = model.network.hidden_weight.grad
    assert gradient[0].any()
    assert not gradient[1].any()
    members = model.network.members(model.preprocessor(torch.tensor(inputs)))
    torch.testing.assert_close(crossed.eval()(rows), members[1])


def test_the_best_is_chosen_and_its_luck_told(heart, monkeypatch, tmp_path):
    """Each candidate's loss is stored with the model, and that of such choices on new rows."""
    monkeypatch.setattr(fitting, "make_plan", quick_plan)
    case, train, _ = heart
    model, history = fit_model(case, train, None, seed=0, kind="best", progress=False)
    losses = history.cross_validated
    assert set(losses) == {"linear", "ensemble", "trees", "blend", "nested"}
    assert model.config["kind"] == min(set(losses) - {"nested"}, key=losses.get)
    files = {"weights": tmp_path / "m.safetensors", "config": tmp_path / "m.json"}
    save_model(model, **files)
    assert load_model(**files).config["cross_validated"] == losses


def test_folds_keep_neighbours_together_unless_the_case_draws(heart):
    """A case that splits by time has folds of neighbours; drawn folds hold every class."""
    labels = np.arange(100) % 2
    drawn = fitting.assign_folds(heart[0], labels, n_folds=5, seed=0)
    assert all(set(labels[drawn == k]) == {0, 1} for k in range(5))
    in_time = fitting.assign_folds(load_case("traffic"), np.arange(100.0), n_folds=5, seed=0)
    assert (np.diff(in_time) >= 0).all()
    with pytest.raises(DataError, match="a class with one row"):
        fitting.assign_folds(heart[0], np.array([0, 0, 1]), n_folds=5, seed=0)


def test_an_ensemble_of_one_cannot_be_cross_fitted(heart):
    """One member can't leave a fold out and answer for the others."""
    with pytest.raises(ParameterError, match=r"^n_members"):
        fit_model(*heart, seed=0, kind="ensemble", n_members=1, progress=False)


def test_the_bar_is_closed_even_where_training_fails(monkeypatch):
    """The bar of a failed training is closed first, so nothing is drawn over the error."""
    made, closed = [], []

    class Bar(trainer_module.tqdm):
        def __init__(self, *args, **options):
            made.append(self)  # so that it isn't closed by being collected
            super().__init__(*args, **options)

        def close(self):
            closed.append(self)
            super().close()

    monkeypatch.setattr(trainer_module, "tqdm", Bar)
    rows = Dataset(np.full((4, 2), np.nan, np.float32), np.array([0, 1, 0, 1]))
    with pytest.raises(TrainingError):
        Trainer(LinearModel(2, 2), epochs=1, device="cpu", progress=False).fit(
            DataLoader(rows, batch_size=2)
        )
    assert closed


def test_a_small_net_is_the_same_with_more_threads():
    """Two threads give bit for bit the weights of one, and torch keeps its two."""
    case = load_case("credit")
    rows = encode(clean(read_table(case), case)[0], case)
    threads, weights = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            model, _ = fit_model(
                case, rows, None, seed=0, kind="mlp", epochs=1, batch_size=128, progress=False
            )
            weights.append(
                torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])
            )
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*weights)
