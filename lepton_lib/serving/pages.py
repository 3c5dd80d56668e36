"""Everything of the service but the prediction route: health, models, metrics, description, pages. FastAPI."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from starlette.exceptions import HTTPException

from lepton_lib.errors import RunError
from lepton_lib.serving.batches import RECORD_LIMIT
from lepton_lib.serving.description import describe_predict
from lepton_lib.serving.page import ASSETS, desk_page, docs_page, monitor_page, style_of
from lepton_lib.serving.problems import ProblemError
from lepton_lib.serving.scoring import Scorer

if TYPE_CHECKING:
    from lepton_lib.serving.app import PredictionApp

PREDICT = "/v1/predict"
MONITOR = {"/monitor", "/monitor.css"}
GUARDED = {
    PREDICT,
    "/v1/models",
    "/metrics",
    *MONITOR,
}  # where a key is demanded; health and pages tell nothing of anybody
SWAGGER = {"/static/swagger-ui-bundle.js": "text/javascript", "/static/swagger-ui.css": "text/css"}
ROUTES = {*GUARDED, "/healthz", "/readyz", "/openapi.json", "/docs", "/", *ASSETS, *SWAGGER}


def make_pages(service: PredictionApp, scorer: Scorer) -> FastAPI:
    """The pages of a service while this scorer answers."""
    case = scorer.case

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.watching():
            yield

    pages = FastAPI(
        title=case.title,
        summary=case.question,
        version=scorer.version,
        docs_url=None,  # FastAPI's pages load from the internet
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )

    @pages.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @pages.get("/readyz")
    async def readyz() -> Response:
        """Predictions can be made and kept."""
        try:
            service.log.check()
        except RunError:
            raise HTTPException(
                503, "The prediction log can't be written to.", {"retry-after": "1"}
            ) from None
        return JSONResponse({"status": "ready"})

    @pages.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model that answers, and a release that was refused, if one was."""
        entry: dict[str, Any] = {
            "case": case.name,
            "version": scorer.version,
            "task": case.task,
            "classes": case.classes,
        }
        entry |= {"metrics": scorer.manifest["metrics"], "contract": scorer.manifest["contract"]}
        entry["fields"] = [field._asdict() for field in case.fields]
        return {"models": [entry], "refused": service.refused}

    def counted() -> CollectorRegistry:
        """What is counted, of all workers together."""
        registry = service.registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client's has no types
        return registry

    @pages.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and times, as Prometheus reads them; of all workers together."""
        return Response(generate_latest(counted()), headers={"content-type": CONTENT_TYPE_LATEST})

    @pages.get("/monitor", include_in_schema=False)
    async def monitor() -> HTMLResponse:
        samples = [sample for metric in counted().collect() for sample in metric.samples]
        report = await asyncio.to_thread(_report, service.run_dir)
        return HTMLResponse(monitor_page(report, samples, title=case.title))

    @pages.get("/monitor.css", include_in_schema=False)
    async def monitor_style() -> Response:
        report = await asyncio.to_thread(_report, service.run_dir)
        return Response(style_of(report), media_type="text/css")

    @pages.get("/", include_in_schema=False)
    async def desk() -> HTMLResponse:
        return HTMLResponse(
            desk_page(case, scorer.version, key=service.keys is not None and service.keys.required)
        )

    for path, (media_type, content) in ASSETS.items():
        answer = Response(content, media_type=media_type)
        pages.add_api_route(path, _always(answer), include_in_schema=False)
    # brings Swagger UI's files; the part that answers does without
    if spec := find_spec("fastapi_offline"):
        folder = Path(str(spec.origin)).parent / "static"
        pages.add_api_route(
            "/docs", _always(HTMLResponse(docs_page(case))), include_in_schema=False
        )
        for path, media_type in SWAGGER.items():
            file = FileResponse(folder / Path(path).name, media_type=media_type)
            pages.add_api_route(path, _always(file), include_in_schema=False)

    @pages.exception_handler(HTTPException)
    async def problem(request: Request, error: HTTPException) -> Response:
        asked = ProblemError(error.status_code, error.detail, headers=dict(error.headers or {}))
        status, headers, content = asked.render(request.state.request_id)
        return Response(content, status, headers)

    schema = pages.openapi()
    schema["paths"][PREDICT] = describe_predict(case, record_limit=RECORD_LIMIT)
    return pages


def _report(run_dir: str | Path) -> str:
    """The page that `lepton monitor` wrote last; empty where it hasn't yet."""
    with contextlib.suppress(OSError):
        return (Path(run_dir) / "monitoring" / "report.html").read_text(encoding="utf-8")
    return ""


def _always(answer: Response) -> Callable[[], Awaitable[Response]]:
    async def give() -> Response:
        return answer

    return give
