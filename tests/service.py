"""A tiny service for the tests: a case, a model that was never trained, and ways to ask it."""

import asyncio
import json

import httpx
import numpy as np
import torch

from lepton_lib import serving
from lepton_lib.cases import load_case
from lepton_lib.models import build_model
from tests.conftest import write_case

HOSTILE = "<script>alert(1)</script>"
COLUMNS = [
    {
        "name": "age",
        "kind": "number",
        "min": 18,
        "max": 99,
        "unit": "years",
        "meaning": f"how old {HOSTILE}",
    },
    {
        "name": "income",
        "kind": "number",
        "unit": "coins",
        "nullable": True,
        "meaning": "what comes in",
    },
    {
        "name": "colour",
        "kind": "category",
        "categories": ["red", 'blue" onfocus="alert(2)'],
        "meaning": "a word",
    },
    {
        "name": "when",
        "kind": "timestamp",
        "parts": ["hour"],
        "nullable": True,
        "meaning": "a moment",
    },
]
COSTS = {
    "unit": "coins",
    "decisions": {"no": "grant", "yes": "refuse"},
    "matrix": {"no": {"no": 0.0, "yes": 1.0}, "yes": {"no": 3.0, "yes": 0.0}},
}
BANDS = {"names": ["low", "medium", "high"], "limits": [0.3, 0.5]}
GOOD = {"age": 42.125, "income": None, "colour": "red", "when": "2018-03-01T08:00:00"}
JSON = {"content-type": "application/json"}
METRICS = {"metric": "auc", "value": 0.8, "low": 0.7, "high": 0.9}
GATE = {
    "passed": False,
    "criteria": [
        {"name": "auc", "value": 0.8, "bound": "at_least 0.9", "passed": False, "why": "a | b"}
    ],
}


def some_inputs(case, rows=60):
    random = np.random.default_rng(0)
    columns = [random.integers(0, field.n_categories or 100, rows) for field in case.fields]
    inputs = np.column_stack(columns).astype(np.float32)
    inputs[::5, 1] = np.nan
    return inputs


def write_release(folder, case, seed=0, margin=None, **options):
    """A packaged model that was never trained, in ``folder``/service."""
    inputs = some_inputs(case)
    torch.manual_seed(seed)
    labels = np.arange(len(inputs)) % max(len(case.classes), 50)
    model = build_model(
        case, inputs, labels.astype(np.float32), kind="mlp", hidden_size=8, **options
    ).eval()
    if margin is not None:
        model.config["margin"] = margin
    if case.classes:
        model.temperature.fill_(0.1)  # far from even odds, so that every band and decision occurs
    (folder / "service").mkdir(parents=True)
    serving.package(
        folder / "service",
        model,
        case,
        metrics=METRICS,
        gate=GATE,
        comparison={"models": []},
        background=inputs,
    )
    return model


def write_case_and_release(folder, **changes):
    """Write the case, with changes, and a packaged model of it to ``folder``."""
    write_case(folder / "desk", costs=COSTS, bands=BANDS, **changes)
    write_release(folder / "run", load_case(folder / "desk"))
    return folder


def call(app, method, path, **options):
    async def request():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **options)

    return asyncio.run(request())


def refresh(app):
    """Let the service look at its files now, as it does four times a second."""

    async def look():
        await app.refresh()
        if hasattr(app, "predictor"):
            await app.predictor.refresh()

    asyncio.run(look())


def ask(app, *records, **headers):
    return call(
        app, "POST", "/v1/predict", content=json.dumps({"records": records}), headers=JSON | headers
    )


def kept(app):
    return serving.read_log(app.log.path, app.scorer.case)


def serving_log(run):
    """The log of a service that ran in a process of its own."""
    return serving.read_log(run / "service" / "predictions.sqlite", load_case(run.parent / "desk"))
