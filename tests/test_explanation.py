"""Reasons: contributions that add up, and are the Shapley values."""

import asyncio
import threading
import time
from itertools import combinations
from math import comb

import httpx
import numpy as np
import pytest

from lepton_lib.explanation import shapley_values
from tests.service import GOOD, ask, call, kept


def exact(predict, row, background, groups):
    """Shapley values by definition: every coalition, averaged over the whole background."""

    def worth(known):
        mixed = background.copy()
        columns = [column for group in known for column in groups[group]]
        mixed[:, columns] = row[columns]
        return predict(mixed).mean()

    values = np.zeros(len(groups))
    for group in range(len(groups)):
        others = [other for other in range(len(groups)) if other != group]
        for size in range(len(groups)):
            for known in combinations(others, size):
                weight = 1 / (len(groups) * comb(len(groups) - 1, size))
                values[group] += weight * (worth((*known, group)) - worth(known))
    return values


def crooked(rows):
    """Interactions, a kink and a gap that counts as a value."""
    rows = np.where(np.isnan(rows), 0.5, rows)
    return 1 / (
        1 + np.exp(-(rows[:, 0] * rows[:, 1] + np.maximum(rows[:, 2], 0) - rows[:, 3] + rows[:, 0]))
    )


@pytest.fixture
def data():
    random = np.random.default_rng(3)
    rows, background = random.normal(size=(3, 4)), random.normal(size=(40, 4))
    rows[1, 0] = np.nan
    background[::5, 2] = np.nan
    return rows, background


def test_contributions_add_up_exactly(data):
    """Base and contributions give the prediction to rounding, however few walks there are."""
    rows, background = data
    for rounds in (1, 3):
        reasons = shapley_values(crooked, rows, background[:7], rounds=rounds)
        assert reasons.base == pytest.approx(crooked(background[:7]).mean(), abs=1e-12)
        assert reasons.base + reasons.contributions.sum(1) == pytest.approx(
            crooked(rows), abs=1e-12
        )


@pytest.mark.parametrize("groups", [[[0], [1], [2], [3]], [[1], [0, 3], [2]]])
def test_contributions_are_the_shapley_values(data, groups):
    """Sampled values lie within four standard errors of the enumerated ones."""
    rows, background = data
    reasons = shapley_values(crooked, rows, background, groups=groups, rounds=40)
    for row, sampled, error in zip(rows, reasons.contributions, reasons.errors, strict=True):
        enumerated = exact(crooked, row, background, groups)
        assert np.abs(sampled - enumerated).max() < 0.01
        assert (np.abs(sampled - enumerated) < 4 * error + 1e-12).all()


def test_standard_errors_are_those_of_the_seed(data):
    """They equal the deviation over 300 seeds within 3 / sqrt(600), three times its own error."""
    rows, background = data
    runs = [shapley_values(crooked, rows, background, rounds=2, seed=seed) for seed in range(300)]
    spread = np.std([run.contributions for run in runs], axis=0, ddof=1)
    stated = np.mean([run.errors**2 for run in runs], axis=0) ** 0.5
    assert stated / spread == pytest.approx(np.ones_like(spread), abs=3 / 600**0.5)
    assert np.isnan(shapley_values(crooked, rows, background).errors).all()


def test_a_linear_model_is_explained_without_error(data):
    """For a sum each contribution is weight times distance from the background's mean."""
    rows, background = np.nan_to_num(data[0]), np.nan_to_num(data[1])
    weights = np.array([2.0, 0.0, -1.0, 0.5])
    reasons = shapley_values(lambda x: x @ weights, rows, background, rounds=2)
    exactly = weights * (rows - background.mean(0))
    assert reasons.contributions == pytest.approx(exactly, abs=1e-12)
    assert reasons.errors == pytest.approx(np.zeros_like(exactly), abs=1e-12)


def test_reasons_are_seeded(data):
    """The same seed gives the same values, another nearly the same."""
    rows, background = data
    one, again, other = (
        shapley_values(crooked, rows, background, seed=seed).contributions for seed in (0, 0, 1)
    )
    assert np.array_equal(one, again)
    assert 0 < np.abs(one - other).max() < 0.05


@pytest.mark.no_cover
def test_the_service_tells_reasons_on_request(app):
    """With ?explain=true each answer has shares that add up to its probability, and keeps them."""
    reply = call(
        app,
        "POST",
        "/v1/predict?explain=true",
        json={"records": [GOOD, GOOD | {"age": 90, "when": None}]},
    )
    for answer in reply.json()["predictions"]:
        reasons = answer["reasons"]
        assert set(reasons["contributions"]) == set(GOOD)
        assert reasons["of"] == "yes"
        assert reasons["value"] == pytest.approx(answer["probabilities"]["yes"], abs=1e-6)
        assert reasons["base"] + sum(reasons["contributions"].values()) == pytest.approx(
            reasons["value"], abs=1e-6
        )
        sizes = [abs(share) for share in reasons["contributions"].values()]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] > 1e-3
    assert "reasons" not in ask(app, GOOD).json()["predictions"][0]
    assert len(kept(app)) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [("explain=yes", "explain"), ("explian=true", "query"), ("explain=", "explain")],
)
def test_a_wrong_query_is_refused(app, query, field):
    """A parameter that doesn't exist or isn't true or false is 422 with its name."""
    reply = call(app, "POST", f"/v1/predict?{query}", json={"records": [GOOD]})
    assert (reply.status_code, reply.json()["field"]) == (422, field)


def test_reasons_for_too_many_records_are_refused(app):
    """Reasons cost a thousand answers each, so that one request may ask for few of them."""
    reply = call(app, "POST", "/v1/predict?explain=true", json={"records": [GOOD] * 65})
    assert (reply.status_code, reply.json()["field"]) == (422, "records")


def test_reasons_keep_nobody_waiting(app, monkeypatch):
    """While reasons are computed the event loop goes on with other requests."""
    main, seen = threading.current_thread(), []
    inner = app.scorer.explain

    def slow(records, cancelled):
        seen.append(threading.current_thread() is not main)
        time.sleep(0.3)
        return inner(records, cancelled)

    monkeypatch.setattr(app.scorer, "explain", slow)

    async def both():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            long = asyncio.create_task(
                client.post("/v1/predict?explain=true", json={"records": [GOOD]})
            )
            await asyncio.sleep(0.05)
            await client.post("/v1/predict", json={"records": [GOOD]})
            return long.done(), await long

    done, reply = asyncio.run(both())
    assert (done, reply.status_code, seen) == (False, 200, [True])
