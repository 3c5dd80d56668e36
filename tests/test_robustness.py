"""Adversarial samples and jitter: what moves, how far, and which way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lepton_lib.cases import load_case
from lepton_lib.errors import DataError, ParameterError
from lepton_lib.models import build_model
from lepton_lib.robustness import fgsm, jitter, pgd
from lepton_lib.trainer import fit_model, task_loss

RADIUS = 0.3


@pytest.fixture(scope="module")
def credit():
    return load_case("credit")


def draw(case, n=200, missing=0.1):
    """Raw rows within the case's range, some missing, with labels that depend on two numbers."""
    generator = np.random.default_rng(0)
    rows = np.empty((n, len(case.fields)), dtype=np.float32)
    for index, field in enumerate(case.fields):
        if field.kind == "category":
            rows[:, index] = generator.integers(field.n_categories, size=n)
        else:
            low, high = case.column(field.name).min, case.column(field.name).max
            rows[:, index] = low + (min(high, 1000) - low) * generator.beta(1, 4, size=n)
    names = [field.name for field in case.fields]
    labels = (rows[:, names.index("income")] < rows[:, names.index("expenses")]).astype(np.int64)
    for column in case.inputs:
        if column.nullable:
            rows[generator.random(n) < missing, names.index(column.name)] = np.nan
    return rows, labels


@pytest.fixture(scope="module")
def attacked(credit):
    rows, labels = draw(credit)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(credit, rows, labels, kind="mlp")
    return model, rows, labels


def numbers(case):
    return np.array([field.kind == "number" for field in case.fields])


def loss(model, rows, labels):
    model.eval()
    with torch.no_grad():
        return float(task_loss(model(torch.tensor(rows)), torch.tensor(labels)))


def both(attacked, case, radius):
    model, rows, labels = attacked
    return (
        fgsm(model, rows, labels, case=case, radius=radius),
        pgd(model, rows, labels, case=case, radius=radius, seed=0),
    )


@pytest.mark.parametrize("radius", [0.05, RADIUS, 3.0, 100.0])
def test_attacks_stay_within_radius_and_range(attacked, credit, radius):
    """No number moves further than the radius, nor out of the range that the case allows."""
    model, rows, _ = attacked
    is_number = numbers(credit)
    scale = model.preprocessor.scale[: is_number.sum()].numpy()
    for moved in both(attacked, credit, radius):
        distance = np.abs(moved - rows)[:, is_number] / scale
        assert np.nanmax(distance) <= radius * (1 + 1e-4) + 1e-5
        for index in np.flatnonzero(is_number):
            column = credit.column(credit.fields[index].name)
            assert np.nanmin(moved[:, index]) >= column.min
            assert np.nanmax(moved[:, index]) <= column.max


def test_attacks_leave_categories_and_gaps_alone(attacked, credit):
    """Categories keep their value and what is missing stays missing; nothing else becomes so."""
    _, rows, _ = attacked
    for moved in both(attacked, credit, RADIUS):
        np.testing.assert_array_equal(moved[:, ~numbers(credit)], rows[:, ~numbers(credit)])
        np.testing.assert_array_equal(np.isnan(moved), np.isnan(rows))
        assert (moved != rows)[~np.isnan(rows)].any()


def test_a_gap_does_not_shield_the_other_numbers(attacked, credit):
    """A row with a missing income can be attacked through the amount, which shares a formula."""
    model, rows, labels = attacked
    names = [field.name for field in credit.fields]
    without = rows[:20].copy()
    without[:, names.index("income")] = np.nan
    raw = torch.tensor(without, requires_grad=True)
    (gradient,) = torch.autograd.grad(task_loss(model(raw), torch.tensor(labels[:20])), raw)
    assert not gradient[:, names.index("amount")].isnan().any()
    moved = fgsm(model, without, labels[:20], case=credit, radius=RADIUS)
    assert (moved[:, names.index("amount")] != without[:, names.index("amount")]).mean() > 0.5


def test_gradient_without_gaps_is_the_plain_one(attacked, credit):
    """Guarding formulas against gaps changes no other gradient: finite differences agree."""
    _, rows, labels = attacked
    row = np.nan_to_num(rows[:1], nan=100.0)
    index = [field.name for field in credit.fields].index("term")
    exact = build_model(credit, rows, labels, kind="linear", encoding="standard").double().eval()
    raw = torch.tensor(row, dtype=torch.float64, requires_grad=True)
    exact(raw).sum().backward()
    ahead, behind = raw.detach().clone(), raw.detach().clone()
    ahead[0, index] += 1e-4
    behind[0, index] -= 1e-4
    slope = (exact(ahead) - exact(behind)).sum() / 2e-4
    assert raw.grad[0, index].item() == pytest.approx(slope.item(), rel=1e-5)


def test_attacks_raise_the_loss_and_pgd_at_least_as_much(attacked, credit):
    """Both attacks raise the loss, many steps at least as much as one, chance hardly at all."""
    model, rows, labels = attacked
    before = loss(model, rows, labels)
    for radius in (0.05, RADIUS, 1.0):
        once, often = (loss(model, moved, labels) for moved in both(attacked, credit, radius))
        assert before < once <= often + 1e-6
        noisy, _ = jitter(rows, labels, case=credit, radius=radius, seed=0)
        assert loss(model, noisy[len(rows) :], labels) - before < 0.5 * (once - before)


def row_losses(model, case, rows, labels):
    model.eval()
    with torch.no_grad():
        return case.task.losses(model(torch.tensor(rows)), torch.tensor(labels)).numpy()


def test_pgd_never_lowers_a_rows_loss(attacked, credit):
    """Each row keeps its worst position, its own and that of FGSM included, for any steps."""
    model, rows, labels = attacked
    once = fgsm(model, rows, labels, case=credit, radius=RADIUS)
    for options in ({}, {"step": 5.0, "n_steps": 3}, {"n_starts": 1, "n_steps": 1}):
        moved = pgd(model, rows, labels, case=credit, radius=RADIUS, seed=0, **options)
        least = np.maximum(*(row_losses(model, credit, x, labels) for x in (rows, once)))
        assert (row_losses(model, credit, moved, labels) >= least - 1e-6).all()


def test_more_starts_find_more(attacked, credit):
    """Eight starts do at least as much harm to every row as one, and more on average."""
    model, rows, labels = attacked
    one, eight = (
        pgd(model, rows, labels, case=credit, radius=1.0, seed=0, n_steps=3, n_starts=n)
        for n in (1, 8)
    )
    gains = row_losses(model, credit, eight, labels) - row_losses(model, credit, one, labels)
    assert gains.min() >= -1e-6
    assert gains.mean() > 0


def test_radius_zero_changes_nothing(attacked, credit):
    """An adversary without a budget returns the rows as they are."""
    _, rows, _ = attacked
    for moved in both(attacked, credit, 0.0):
        np.testing.assert_array_equal(moved, rows)


def test_attacks_leave_the_model_as_it_was(attacked, credit):
    """Weights, gradients and mode are untouched, and torch's global generator too."""
    model = attacked[0]
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    both(attacked, credit, RADIUS)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_trees_alone_have_no_slope_to_climb(credit):
    """Trees answer in steps: an attack by the gradient refuses them rather than find nothing."""
    rows, labels = draw(credit)
    trees, _ = fit_model(credit, (rows, labels), None, seed=0, kind="trees", progress=False)
    with pytest.raises(DataError, match="trees alone"):
        fgsm(trees, rows, labels, case=credit, radius=RADIUS)


def test_attacks_are_seeded(attacked, credit):
    """The same seed gives the same rows, another seed others."""
    model, rows, labels = attacked
    first, again, other = (
        pgd(model, rows, labels, case=credit, radius=RADIUS, seed=seed, n_steps=1)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


@pytest.mark.parametrize(("name", "kind"), [("credit_tiers", "linear"), ("traffic", "ensemble")])
def test_other_tasks_are_attacked_too(name, kind):
    """Several classes and regression: the loss of their own kind grows."""
    case = load_case(name)
    generator = np.random.default_rng(0)
    rows = generator.random((60, len(case.fields))).astype(np.float32)
    for index, field in enumerate(case.fields):
        if field.kind == "category":
            rows[:, index] = generator.integers(field.n_categories, size=60)
        elif (column := case.column(field.name)).min is not None:
            rows[:, index] += column.min
    labels = (
        generator.integers(3, size=60)
        if case.classes
        else generator.random(60).astype(np.float32) * 1000
    )
    model = build_model(case, rows, labels, kind=kind)
    moved = fgsm(model, rows, labels, case=case, radius=0.5)
    assert loss(model, moved, labels) > loss(model, rows, labels)


@pytest.mark.parametrize(
    "options",
    [
        {"radius": -1.0},
        {"radius": math.nan},
        {"radius": 0.1, "step": -1.0},
        {"radius": 0.1, "n_steps": 0},
        {"radius": 0.1, "n_starts": 0},
    ],
)
def test_budgets_must_make_sense(attacked, credit, options):
    """A radius or step below zero or not finite, or no step at all, is refused by name."""
    model, rows, labels = attacked
    wrong = list(options)[-1]
    with pytest.raises(ParameterError, match=f"^{wrong}"):
        pgd(model, rows, labels, case=credit, seed=0, **options)
    if wrong == "radius":
        with pytest.raises(ParameterError, match=r"^radius"):
            fgsm(model, rows, labels, case=credit, **options)
        with pytest.raises(ParameterError, match=r"^radius"):
            jitter(rows, labels, case=credit, seed=0, **options)


def test_jitter_adds_moved_copies(credit):
    """The rows come first; copies keep labels, categories and gaps and move as stated."""
    rows, labels = draw(credit, n=4000)
    augmented, targets = jitter(rows, labels, case=credit, radius=0.1, copies=2, seed=0)
    np.testing.assert_array_equal(augmented[:4000], rows)
    np.testing.assert_array_equal(targets, np.tile(labels, 3))
    assert augmented.dtype == np.float32
    for copy in (augmented[4000:8000], augmented[8000:]):
        np.testing.assert_array_equal(copy[:, ~numbers(credit)], rows[:, ~numbers(credit)])
        np.testing.assert_array_equal(np.isnan(copy), np.isnan(rows))
        for index in np.flatnonzero(numbers(credit)):
            column = credit.column(credit.fields[index].name)
            inside = rows[:, index] > column.min + 0.5 * np.nanstd(rows[:, index])
            moved = (copy - rows)[inside, index]
            assert np.nanstd(moved) / np.nanstd(rows[:, index]) == pytest.approx(0.1, rel=0.1)
            assert np.nanmin(copy[:, index]) >= column.min
    assert not np.array_equal(augmented[4000:8000], augmented[8000:], equal_nan=True)


def test_jitter_leaves_the_rows_given_alone(credit):
    """The caller's arrays are not written to, and the same seed gives the same copies."""
    rows, labels = draw(credit)
    before = rows.copy()
    first, again, other = (
        jitter(rows, labels, case=credit, radius=0.5, seed=seed)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


def test_jitter_fits_the_one_training_loop(credit):
    """Augmented rows go into fit_model as any rows do, and the model becomes less steep by them."""
    rows, labels = draw(credit, n=400)
    train, validation = (rows[:300], labels[:300]), (rows[300:], labels[300:])
    options = {
        "seed": 0,
        "kind": "mlp",
        "lr": 1e-2,
        "weight_decay": 0.0,
        "dropout": 0.0,
        "progress": False,
    }
    steep, _ = fit_model(credit, train, validation, epochs=20, **options)
    smooth, _ = fit_model(
        credit, jitter(*train, case=credit, radius=1.0, seed=0), validation, epochs=10, **options
    )
    losses = []
    for model in (steep, smooth):
        moved = fgsm(model, *validation, case=credit, radius=RADIUS)
        losses.append(loss(model, moved, validation[1]) - loss(model, *validation))
    assert losses[1] < losses[0]
