"""The service as an ASGI application. Knows HTTP and the scorer; what it answers is kept in the log first.

`POST /v1/predict` is handled without a framework, for speed; everything else, and the description, by FastAPI.
No line of its own log holds anything that a client sent, but for a well-formed request id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException

from lepton_lib.cases import encode_records
from lepton_lib.errors import RecordError, RunError
from lepton_lib.serving.description import describe_predict
from lepton_lib.serving.log import PredictionLog
from lepton_lib.serving.page import ASSETS, desk_page
from lepton_lib.serving.scoring import Scorer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT = 1 << 20  # bytes
DRAIN_LIMIT, DRAIN_SECONDS = 64 << 20, 5.0  # how much of a refused body is read and forgotten before the end
RECORD_LIMIT = 4096  # in one request, so that no request keeps the others waiting for long
PREDICT = "/v1/predict"
ROUTES = {PREDICT, "/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/", *ASSETS}
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_logger = logging.getLogger("lepton.serving")


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    records: list[dict[str, Any]]


_decode = msgspec.json.Decoder(_Body).decode


class _ProblemError(Exception):
    """An answer that is a problem: its status, details, and headers."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> None:
        self.status = status
        self.headers = headers or {}
        self.content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        self.content |= more


def create_app(run_dir: str | Path) -> Service:
    """The service of a run folder: its ``service/`` is verified and loaded, its prediction log opened.

    Raises:
        RunError: A file is missing or changed, or the log can't be written to.
        CaseError: The case isn't there.
    """
    folder = Path(run_dir) / "service"
    scorer = Scorer(folder)
    return Service(scorer, PredictionLog(folder / "predictions.sqlite"))


class Service:
    """The ASGI application. Made by `create_app`."""

    def __init__(self, scorer: Scorer, log: PredictionLog) -> None:
        self.scorer = scorer
        self.log = log
        self.registry = CollectorRegistry()
        self._requests = Counter("lepton_requests", "Requests", ["route", "status"], registry=self.registry)
        self._seconds = Histogram("lepton_request_seconds", "Time to answer", ["route"], registry=self.registry)
        self._predictions = Counter("lepton_predictions", "Predictions kept", ["decision"], registry=self.registry)
        info = Gauge("lepton_model", "The model that answers", ["case", "version"], registry=self.registry)
        info.labels(scorer.case.name, scorer.version).set(1)
        self._pages = self._make_pages()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; what goes wrong becomes a problem, and is counted."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        wanted = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = wanted.decode() if _REQUEST_ID.fullmatch(wanted) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*HEADERS, (b"x-request-id", request_id.encode())]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            if scope["path"] == PREDICT:
                await self._answer_predict(scope, receive, send_with_headers, request_id)
            else:
                await self._pages(scope, receive, send_with_headers)
        except Exception as error:  # the last line of defence: whatever it is, the client gets an answer without it
            place = traceback.extract_tb(error.__traceback__)[-1]  # its message may hold what the client sent
            where = f"{Path(place.filename).name}:{place.lineno}"
            _logger.error(_line("failed", request_id=request_id, error=type(error).__name__, where=where))
            if not status:
                problem = _ProblemError(500, "The service failed; its log names this request's id.")
                await _respond(send_with_headers, *_render(problem, request_id))
        finally:
            route, seconds = scope["path"] if scope["path"] in ROUTES else "other", time.perf_counter() - begun
            self._requests.labels(route, str(status)).inc()
            self._seconds.labels(route).observe(seconds)
            _logger.info(
                _line("request", request_id=request_id, route=route, status=status, ms=round(seconds * 1e3, 3))
            )

    async def _answer_predict(self, scope: Message, receive: Receive, send: Send, request_id: str) -> None:
        more = True  # of the body, that the client is still sending

        async def read() -> Message:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        try:
            _check_head(scope)
            if (body := await _read_body(read)) is not None:  # else the client has gone
                content = msgspec.json.encode(self._predict(body, request_id))
                await _respond(send, 200, {"content-type": "application/json"}, content)
        except _ProblemError as problem:
            await _respond(send, *_render(problem, request_id), more_body=True)
            # Who closes a connection with unread bytes in it resets it, and the client never sees the answer.
            forgotten = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    while more and forgotten <= DRAIN_LIMIT:
                        forgotten += len((await read()).get("body", b""))
            await send({"type": "http.response.body"})

    def _predict(self, body: bytes, request_id: str) -> dict[str, Any]:
        records = self._records(body)
        try:
            answers = self.scorer.score(records)
        except RecordError as error:
            raise _field_problem(error) from error
        try:
            ids = self.log.append(request_id, self.scorer.version, records, answers)
        except RunError as error:
            _logger.error(_line("not kept", request_id=request_id, error=str(error)))
            detail = "The answer could not be kept, and is not given."
            raise _ProblemError(503, detail, headers={"retry-after": "1"}) from error
        for answer in answers:
            self._predictions.labels(answer.get("class", "number")).inc()
        predictions = [{"id": id_, **answer} for id_, answer in zip(ids, answers, strict=True)]
        return {"request_id": request_id, "model_version": self.scorer.version, "predictions": predictions}

    def _records(self, body: bytes) -> list[dict[str, Any]]:
        try:
            records = _decode(body).records
        except msgspec.ValidationError as error:
            self._name_the_field(body)
            raise _ProblemError(422, str(error), expected='{"records": [{...}, ...]}') from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._name_the_field(body)
            got = "bytes that are no JSON" if isinstance(error, UnicodeDecodeError) else str(error)
            raise _ProblemError(400, got, expected='JSON in UTF-8: {"records": [{...}, ...]}') from error
        if not 1 <= len(records) <= RECORD_LIMIT:
            detail = f"got {len(records)} records, expected 1 to {RECORD_LIMIT}"
            raise _ProblemError(422, detail, field="records", got=len(records), expected=f"1 to {RECORD_LIMIT}")
        return records

    def _name_the_field(self, body: bytes) -> None:
        """JSON has no NaN and no infinity, but Python's reader knows them, so that their field can be named."""
        with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
            try:
                encode_records(self.scorer.case, json.loads(body, parse_int=float)["records"])
            except RecordError as error:
                raise _field_problem(error) from error

    def _make_pages(self) -> FastAPI:
        scorer, case = self.scorer, self.scorer.case

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            self.log.close()

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
                self.log.check()
            except RunError:
                raise HTTPException(503, "The prediction log can't be written to.", {"retry-after": "1"}) from None
            return JSONResponse({"status": "ready"})

        @pages.get("/v1/models")
        async def models() -> dict[str, Any]:
            """The model that answers."""
            entry = {"case": case.name, "version": scorer.version, "task": case.task, "classes": case.classes}
            return {"models": [entry | {"metrics": scorer.manifest["metrics"]}]}

        @pages.get("/metrics")
        async def metrics() -> Response:
            """Counts and times, as Prometheus reads them."""
            return Response(generate_latest(self.registry), headers={"content-type": CONTENT_TYPE_LATEST})

        page = desk_page(case, scorer.version)

        @pages.get("/", include_in_schema=False)
        async def desk() -> HTMLResponse:
            return HTMLResponse(page)

        for path, (media_type, content) in ASSETS.items():
            answer = Response(content, media_type=media_type)
            pages.add_api_route(path, _always(answer), include_in_schema=False)

        @pages.exception_handler(HTTPException)
        async def problem(request: Request, error: HTTPException) -> Response:
            asked = _ProblemError(error.status_code, error.detail, headers=dict(error.headers or {}))
            status, headers, content = _render(asked, request.state.request_id)
            return Response(content, status, headers)

        schema = pages.openapi()
        schema["paths"][PREDICT] = describe_predict(case, record_limit=RECORD_LIMIT)
        return pages


def _always(answer: Response) -> Callable[[], Awaitable[Response]]:
    async def give() -> Response:
        return answer

    return give


def _check_head(scope: Message) -> None:
    """Refuse what needn't be read: another method, type or coding, or a body that is too long by its own account."""
    headers = dict(scope["headers"])
    if scope["method"] != "POST":
        raise _ProblemError(405, f"got {scope['method']}, expected POST", headers={"allow": "POST"})
    media_type, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    if media_type.strip() != b"application/json" or charset not in (b"", b"utf-8"):
        raise _ProblemError(415, "expected content-type: application/json", expected="application/json")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise _ProblemError(415, "expected no content-encoding", expected="identity")
    if int(headers.get(b"content-length", b"0")) > BODY_LIMIT:
        raise _too_long()


async def _read_body(receive: Receive) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise _too_long()
        if not message.get("more_body", False):
            return bytes(body)


def _too_long() -> _ProblemError:
    limit = f"at most {BODY_LIMIT} bytes"
    return _ProblemError(413, f"expected {limit}", headers={"connection": "close"}, expected=limit)


def _field_problem(error: RecordError) -> _ProblemError:
    return _ProblemError(
        422,
        str(error),
        record=error.position,
        field=error.field,
        got=error.got,
        expected=error.expected,
        remedy=error.remedy,
    )


def _render(problem: _ProblemError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"content-type": "application/problem+json", **problem.headers}
    # Python's own JSON: unlike msgspec's it can write a text with half a character in it.
    return problem.status, headers, json.dumps(problem.content | {"request_id": request_id}).encode()


async def _respond(
    send: Send, status: int, headers: dict[str, str], content: bytes, *, more_body: bool = False
) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content, "more_body": more_body})


def _line(event: str, **values: Any) -> str:
    return json.dumps({"event": event, **values})
