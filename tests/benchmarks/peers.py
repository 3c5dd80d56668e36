"""The peers of the serving benchmark: ``python -m tests.benchmarks.peers NAME RUN PORT``.

All answer the same model and the same records on one thread of uvicorn with uvloop and httptools,
or with what they bring. ``frame`` is what a tutorial shows: FastAPI, pydantic, records made a
DataFrame and encoded by what encoded the training data, torch. ``bare`` is the same with this
library's own reader of records in the DataFrame's place, which no tutorial has. ``stock`` is
``bare`` with the guards that ours has: strict types, ranges and categories, an API key, a body
limit, a log committed before the answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, create_model

from lepton_lib.artefacts import Run
from lepton_lib.cases import Case, encode_records, load_case
from lepton_lib.models import TabularModel, load_model

KEY = "0" * 64


def read(run_dir: str) -> tuple[Case, TabularModel]:
    """The case and its model in torch."""
    torch.set_num_threads(1)
    folder = Path(run_dir) / "service"
    model = load_model(weights=folder / "model.safetensors", config=folder / "config.json").eval()
    return load_case(Run(run_dir).manifest["case"], verify=False), model


def record_type(case: Case, *, strict: bool) -> type[BaseModel]:
    """A record as pydantic describes it: only types, or with all rules of case.toml."""
    fields: dict[str, Any] = {}
    for column in case.inputs:
        kind: Any = float if column.kind == "number" else str
        if strict and column.kind == "category":
            kind = Literal[column.categories]
        if strict and column.kind == "number":
            low, high = column.limits
            kind = Annotated[float, Field(ge=low, le=high)]
        fields[column.name] = (kind | None, None) if column.nullable else (kind, ...)
    config = (
        ConfigDict(strict=True, extra="forbid", allow_inf_nan=False) if strict else ConfigDict()
    )
    return create_model("Record", __config__=config, **fields)


def encode_frame(case: Case, frame: pd.DataFrame) -> np.ndarray:
    """What `lepton_lib.data.encode` does to the inputs of credit, which has no moments."""
    columns = []
    for column in case.inputs:
        values = frame[column.name]
        if column.kind == "category":
            codes = pd.Categorical(values, categories=list(column.categories)).codes
            columns.append(np.where(codes < 0, np.nan, codes))
        else:
            columns.append(values.to_numpy(dtype="float64"))
    return np.column_stack(columns).astype(np.float32)


def fastapi_app(run_dir: str, *, strict: bool, framed: bool = False) -> Any:
    """Bare FastAPI, or FastAPI with the guards that come with it and its neighbours."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    case, model = read(run_dir)
    record = record_type(case, strict=strict)
    body = create_model("Body", records=(list[record], ...))
    app = FastAPI()
    log = sqlite3.connect(
        Path(run_dir) / "stock.sqlite", isolation_level=None, check_same_thread=False
    )
    log.execute("PRAGMA journal_mode = WAL")
    log.execute("PRAGMA synchronous = NORMAL")
    log.execute(
        "CREATE TABLE IF NOT EXISTS kept (id TEXT PRIMARY KEY, time TEXT, inputs TEXT, answer TEXT)"
    )
    digest = hashlib.sha256(KEY.encode()).hexdigest()

    if strict:

        @app.middleware("http")
        async def guard(request: Request, call_next: Any) -> Any:
            given = request.headers.get("x-api-key", "")
            if not hmac.compare_digest(hashlib.sha256(given.encode()).hexdigest(), digest):
                return JSONResponse({"detail": "key"}, 401)
            if int(request.headers.get("content-length", "0")) > 1 << 20:
                return JSONResponse({"detail": "too long"}, 413)
            answer = await call_next(request)
            answer.headers["x-request-id"] = secrets.token_hex(8)
            return answer

    async def predict(given: Any) -> dict[str, Any]:
        records = [item.model_dump() for item in given.records]
        inputs = (
            encode_frame(case, pd.DataFrame(records)) if framed else encode_records(case, records)
        )
        with torch.inference_mode():
            shares = model.probabilities(torch.from_numpy(inputs))
        answers = shares.tolist()
        if strict:
            now = datetime.now(UTC).isoformat()
            rows = [
                (secrets.token_hex(8), now, json.dumps(r), json.dumps(a))
                for r, a in zip(records, answers, strict=True)
            ]
            log.execute("BEGIN IMMEDIATE")
            log.executemany("INSERT INTO kept VALUES (?, ?, ?, ?)", rows)
            log.execute("COMMIT")
        return {"predictions": answers}

    predict.__annotations__ = {"given": body, "return": dict[str, Any]}
    app.post("/v1/predict")(predict)
    return app


def serve_fastapi(run_dir: str, port: int, *, strict: bool, framed: bool) -> None:
    """On uvicorn, without an access log."""
    import uvicorn

    uvicorn.run(
        fastapi_app(run_dir, strict=strict, framed=framed),
        port=port,
        log_level="warning",
        access_log=False,
    )


# Only in its own environment. At module level because its worker is another process.
if find_spec("litserve"):
    import litserve

    class LitApi(litserve.LitAPI):
        """LitServe with one worker, its own defaults."""

        run_dir = ""

        def setup(self, device: str) -> None:  # noqa: ARG002
            """Read the model, in the worker."""
            self.case, self.model = read(self.run_dir)

        def decode_request(self, request):
            """Records to raw inputs; LitServe would read an annotation, which is a text here."""
            return encode_records(self.case, request["records"])

        def predict(self, x: np.ndarray) -> np.ndarray:
            """Raw inputs to probabilities."""
            return self.model.predict(x)

        def encode_response(self, output: np.ndarray) -> dict[str, Any]:
            """Probabilities to what JSON holds."""
            return {"predictions": output.tolist()}


def serve_litserve(run_dir: str, port: int) -> None:
    """LitServe with one worker, its own defaults."""
    api = LitApi(api_path="/v1/predict")
    api.run_dir = run_dir
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=port, log_level="warning", generate_client_file=False)


if find_spec("bentoml"):  # likewise: BentoML imports its service by name, in processes of its own
    import bentoml

    @bentoml.service(workers=1)
    class Bento:
        """BentoML with one worker, its own defaults."""

        def __init__(self) -> None:
            self.case, self.model = read(os.environ["BENCHMARK_RUN"])

        @bentoml.api(route="/v1/predict")
        def predict(self, records: list[dict]) -> dict:
            """Records to probabilities, in the thread that BentoML gives."""
            return {"predictions": self.model.predict(encode_records(self.case, records)).tolist()}


def serve_bentoml(run_dir: str, port: int) -> None:
    """BentoML's own command, in this process's place."""
    os.environ |= {"BENCHMARK_RUN": run_dir, "BENTOML_DO_NOT_TRACK": "True"}
    words = [
        "-m",
        "bentoml",
        "serve",
        "tests.benchmarks.peers:Bento",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    name, run, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if name in ("litserve", "bentoml"):
        {"litserve": serve_litserve, "bentoml": serve_bentoml}[name](run, port)
    else:
        serve_fastapi(run, port, strict=name == "stock", framed=name == "frame")
