"""AdamW: torch's own, with a schedule inside."""

from __future__ import annotations

import math

import pytest
import torch

from lepton_lib.errors import ParameterError
from lepton_lib.optimizers import AdamW


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (3,))]


def descend(optimizer, parameters, steps):
    """Some steps on a fixed bowl."""
    for _ in range(steps):
        optimizer.zero_grad()
        sum(((p - 1) ** 2).sum() for p in parameters).backward()
        optimizer.step()
    return [p.detach().clone() for p in parameters]


@pytest.mark.parametrize(
    "options", [{}, {"foreach": True}, {"betas": (0.8, 0.9)}, {"fused": False}]
)
def test_without_a_schedule_it_is_torchs(options):
    """Without total_steps every step equals that of torch's AdamW, whatever its options."""
    ours, theirs = weights(), weights()
    here = descend(AdamW(ours, lr=0.05, weight_decay=0.1, **options), ours, 20)
    there = descend(torch.optim.AdamW(theirs, lr=0.05, weight_decay=0.1, **options), theirs, 20)
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_rate_follows_the_formula():
    """The rate rises in a straight line, peaks at lr and falls along half a cosine."""
    parameters = weights()
    optimizer = AdamW(parameters, lr=0.01, total_steps=50, warmup=0.2)
    rates = []
    for _ in range(50):
        descend(optimizer, parameters, 1)
        rates.append(optimizer.param_groups[0]["lr"])
    rise = [0.01 * (t + 1) / 11 for t in range(10)]
    fall = [0.005 * (1 + math.cos(math.pi * (t - 10) / 40)) for t in range(10, 50)]
    assert rates == pytest.approx(rise + fall, rel=1e-12)
    assert max(rates) == rates[10] == 0.01


def test_the_rate_stays_at_zero_after_the_plan():
    """Steps beyond total_steps don't let the rate rise again."""
    optimizer = AdamW(weights(), total_steps=10)
    assert optimizer.rate_at(10) == optimizer.rate_at(25) == 0


def test_one_step_in_all_is_possible():
    """A plan of one step takes it at the full rate, as does any step without a plan."""
    assert AdamW(weights(), total_steps=1, warmup=0.0).rate_at(0) == 1
    assert AdamW(weights()).rate_at(10**6) == 1


def test_without_a_schedule_the_rate_is_the_users():
    """Without total_steps a rate that is set by hand, or by a torch scheduler, is left alone."""
    parameters = weights()
    optimizer = AdamW(parameters, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    descend(optimizer, parameters, 1)
    scheduler.step()
    descend(optimizer, parameters, 1)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_groups_keep_their_own_peak():
    """Every parameter group follows the schedule from its own rate, later ones too."""
    first, second = weights()
    optimizer = AdamW([{"params": [first], "lr": 0.1}], total_steps=20, warmup=0.5)
    optimizer.add_param_group({"params": [second], "lr": 0.01})
    descend(optimizer, [first, second], 3)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.1 * 3 / 11, 0.01 * 3 / 11]
    )


def test_it_resumes_where_it_was():
    """Ten steps, the state loaded into a fresh optimizer, ten more: as twenty at once."""
    whole, parts = weights(), weights()
    unbroken = descend(AdamW(whole, lr=0.05, total_steps=20), whole, 20)
    before = AdamW(parts, lr=0.05, total_steps=20)
    descend(before, parts, 10)
    after = AdamW(parts, lr=0.05, total_steps=20)
    after.load_state_dict(before.state_dict())
    for a, b in zip(unbroken, descend(after, parts, 10), strict=True):
        assert torch.equal(a, b)


def test_a_closure_is_evaluated():
    """A step with a closure evaluates it and returns its loss."""
    (parameter, _) = weights()
    optimizer = AdamW([parameter])

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    before = (parameter**2).sum().item()
    assert optimizer.step(closure).item() == pytest.approx(before)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": -1e-3}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": -0.1}, "warmup"),
        ({"total_steps": 0}, "total_steps"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, name):
    """A rate, a share, a decay or a number of steps that can't be meant names itself."""
    with pytest.raises(ParameterError, match=f"^{name}: got"):
        AdamW(weights(), **options)


@pytest.mark.parametrize(
    ("options", "fused"), [({}, True), ({"foreach": True}, None), ({"differentiable": True}, None)]
)
def test_the_fused_kernel_gives_way_to_what_excludes_it(options, fused):
    """One kernel for all is the default, unless an option that torch can't join with it is set."""
    parameter = torch.nn.Parameter(torch.ones(2))
    assert AdamW([parameter], lr=0.1, **options).defaults["fused"] is fused


def test_an_infinite_decay_is_refused():
    """Weight decay is any finite number from 0 on."""
    for decay in (math.inf, -0.1, math.nan):
        with pytest.raises(ParameterError, match="weight_decay"):
            AdamW([torch.nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=decay)
    assert (
        AdamW([torch.nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=0).defaults["weight_decay"]
        == 0
    )
