"""The routes of a prediction service: predictions, health, models, metrics, description, pages."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Awaitable, Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Lifespan

from lepton_lib.cases.records import example_record
from lepton_lib.serving.api_keys import Keys
from lepton_lib.serving.codec import RECORD_LIMIT
from lepton_lib.serving.predictor import Predictor
from lepton_lib.serving.problems import JSON, RETRY, ProblemError
from lepton_lib.serving.telemetry import Metrics, log_error
from lepton_lib.utils import first_line, render

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
PREDICT = "/v1/predict"
# Where a key is demanded; health and pages show nothing of any request.
GUARDED = {PREDICT, "/v1/models", "/metrics", "/monitor", "/monitor.css"}
STATIC = {"form.js", "docs.js", "form.css", "icon.svg", "swagger-ui-bundle.js", "swagger-ui.css"}
ROUTES = {*GUARDED, "/healthz", "/readyz", "/openapi.json", "/docs", "/"}
ROUTES |= {f"/static/{name}" for name in STATIC}
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_STYLE = re.compile(r"<style>(.*?)</style>", re.S)
_FOLDER = Path(__file__).parent / "static"


def make_router(predictor: Predictor, keys: Keys, lifespan: Lifespan[Router]) -> Router:
    """The routes, the most frequent first."""
    pages = _Pages(predictor, keys)
    paths = {
        "/v1/models": pages.models,
        **common_endpoints(predictor.metrics, predictor.check),
        "/monitor": pages.monitor,
        "/monitor.css": pages.monitor_style,
        "/openapi.json": pages.description,
        "/": pages.form,
        "/static/{name}": static_file,
    }
    if _swagger_folder() is not None:
        paths["/docs"] = pages.docs
    routes = [Route(PREDICT, pages.predict, methods=["POST"])]
    routes += [Route(path, endpoint) for path, endpoint in paths.items()]
    return Router(routes, redirect_slashes=False, lifespan=lifespan)


def common_endpoints(metrics: Metrics, check: Callable[[], None]) -> dict[str, Endpoint]:
    """What every service has; ``check`` fails where no answer can be given or stored.

    ``/healthz`` (the process is alive), ``/readyz`` (answers can be given and stored) and
    ``/metrics`` (counts and times as Prometheus reads them).
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        try:
            await asyncio.to_thread(check)
        except Exception as error:  # whatever it is: no answer
            log_error("not ready", error=first_line(error))
            detail = "No answer can be given, or stored."
            raise ProblemError(503, detail, headers=RETRY) from error
        return JSONResponse({"status": "ready"})

    async def counts(_: Request) -> Response:
        content = generate_latest(metrics.collect())
        return Response(content, headers={"content-type": CONTENT_TYPE_LATEST})

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": counts}


class _Pages:
    """The endpoints of a predictor, whose model may change while they live."""

    def __init__(self, predictor: Predictor, keys: Keys) -> None:
        self._predictor = predictor
        self._keys = keys

    async def predict(self, request: Request) -> Response:
        _check_content(request)
        explain = _read_flag(request.scope.get("query_string", b""))
        body, request_id = await request.body(), request.state.request_id
        work = self._predictor.predict(body, request_id, explain=explain)
        content = await (_unless_gone(request, work) if explain else work)
        return Response(content, media_type=JSON)

    async def models(self, _: Request) -> Response:
        scorer = self._predictor.scorer
        case = scorer.case
        entry = {
            "case": case.name,
            "version": scorer.version,
            "task": case.task,
            "classes": case.classes,
            "metrics": scorer.manifest["metrics"],
            "contract": scorer.manifest["contract"],
            "fields": [field._asdict() for field in case.fields],
        }
        return JSONResponse({"models": [entry], "refused": self._predictor.refused})

    async def description(self, _: Request) -> Response:
        """OpenAPI 3.1."""
        case = self._predictor.scorer.case
        return self._page(
            "openapi.json",
            JSON,
            fields={column.name: column.json_schema() for column in case.inputs},
            required=[column.name for column in case.inputs if not column.nullable],
            example=self._example(),
            record_limit=RECORD_LIMIT,
        )

    async def docs(self, _: Request) -> Response:
        return self._page("docs.html")

    async def form(self, _: Request) -> Response:
        return self._page("form.html", example=self._example(), key=self._keys.required)

    def _example(self) -> dict[str, Any]:
        """A typical record: the background's values are those of training rows."""
        scorer = self._predictor.scorer
        return example_record(scorer.case, scorer.background)

    def _page(self, name: str, media_type: str = "text/html", **values: object) -> Response:
        scorer = self._predictor.scorer
        values |= {"case": scorer.case, "version": scorer.version}
        return Response(render(f"serving/templates/{name}", **values), media_type=media_type)

    async def monitor(self, _: Request) -> Response:
        """The monitor's last report with the service's own counts before it."""
        report = await asyncio.to_thread(self._report)
        counts = _counts(self._predictor.metrics)
        if not report:
            return self._page("monitor.html", counts=counts)
        head = '<meta http-equiv="refresh" content="15"><link rel="stylesheet" href="/monitor.css">'
        live = render("serving/templates/counts.html", counts=counts)
        page = _STYLE.sub(head, report).replace("<main>", f"<main>{live}", 1)
        return HTMLResponse(page)

    async def monitor_style(self, _: Request) -> Response:
        """The style of the report: the service lets no page bring its own."""
        match = _STYLE.search(await asyncio.to_thread(self._report))
        style = match[1] if match else (_FOLDER / "form.css").read_text(encoding="utf-8")
        return Response(style, media_type="text/css")

    def _report(self) -> str:
        """The page that `lepton monitor` wrote last; empty where it hasn't yet."""
        with contextlib.suppress(OSError):
            path = self._predictor.run_dir / "monitoring" / "report.html"
            return path.read_text(encoding="utf-8")
        return ""


async def _unless_gone(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes:
    """The result of work, which is cancelled when its client goes."""
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def _check_content(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if media_type.strip() != JSON or charset not in ("", "utf-8"):
        raise ProblemError(415, f"expected content-type: {JSON}", expected=JSON)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError(415, "expected no content-encoding", expected="identity")


def _read_flag(query_string: bytes) -> bool:
    """``?explain=true``; nothing else may stand there."""
    query = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
    if unknown := set(query) - {"explain"}:
        detail = f"got the parameter {sorted(unknown)[0][:80]!r}, expected 'explain'"
        raise ProblemError(422, detail, field="query", expected="explain")
    value = query.get("explain", ["false"])[-1]
    if value not in ("true", "false"):
        detail = f"got explain={value[:80]!r}, expected true or false"
        raise ProblemError(422, detail, field="explain", expected="true or false")
    return value == "true"


def _counts(metrics: Metrics) -> dict[str, int]:
    """What was answered since the service was started, by what it is."""
    requests, failed, stored = 0, 0, {}
    for sample in (sample for metric in metrics.collect().collect() for sample in metric.samples):
        if sample.name == "lepton_requests_total":
            requests += int(sample.value)
            failed += int(sample.value) if sample.labels["status"].startswith("5") else 0
        elif sample.name == "lepton_predictions_total":
            stored[f"answered {sample.labels['decision']}"] = int(sample.value)
    return {"requests": requests, "of them failed": failed, **dict(sorted(stored.items()))}


async def static_file(request: Request) -> Response:
    """A script or style of the pages, by its name alone."""
    name = request.path_params["name"]
    folder = _swagger_folder() if name.startswith("swagger") else _FOLDER
    if name not in STATIC or folder is None:
        raise ProblemError(404, "Not Found")
    return FileResponse(folder / name, media_type=_MEDIA_TYPES[Path(name).suffix])


@functools.cache
def _swagger_folder() -> Path | None:
    """Where fastapi-offline has Swagger UI's files; a service can do without them."""
    spec = find_spec("fastapi_offline")
    return Path(str(spec.origin)).parent / "static" if spec else None
