"""What guards every service, whatever it answers: a pure ASGI middleware.

API keys and their rates, limits on bodies and on requests in flight, request ids, security headers,
problems instead of exceptions, metrics, and a log line for each request. Knows HTTP, nothing
of cases or models. No log line holds anything that a client sent, but a well-formed request id.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lepton_lib.errors import RunError
from lepton_lib.serving.api_keys import Keys
from lepton_lib.serving.log import Entry, PredictionLog
from lepton_lib.serving.problems import HEADERS, HEALTH, RETRY, ProblemError, render
from lepton_lib.serving.telemetry import Metrics, log_error, log_event

BODY_LIMIT = 1 << 20  # bytes
# How much of a refused body is read and forgotten before the connection may close.
DRAIN_LIMIT, DRAIN_SECONDS = 64 << 20, 5.0
IN_FLIGHT = 256  # complete, authorised requests that are worked on at once, in one worker
WATCH_SECONDS = 0.25  # between two looks at the files that name the release and the keys
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class ServiceMiddleware:
    """Guards an ASGI application, and looks after keys and log while it lives.

    Args:
        app: The application. An `HTTPException` that it raises becomes a problem.
        metrics: Where requests are counted.
        routes: The paths that metrics and log name; all others count as ``other``.
        guarded: Whether a path needs a key.
        keys: Who may call; without them anyone may.
        log: The prediction log, which is closed when the application ends.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        routes: Collection[str],
        guarded: Callable[[str], bool],
        keys: Keys | None = None,
        log: PredictionLog | None = None,
    ) -> None:
        self.keys = keys
        self.log = log
        self.metrics = metrics
        self._app = app
        self._routes = routes
        self._guarded = guarded
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what goes wrong becomes a problem, and is counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = dict(scope["headers"])
        sent = headers.get(b"x-request-id", b"")
        request_id = sent.decode() if REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        scope.setdefault("app", self._app)  # else Starlette answers 404 and 405 by itself
        exchange, held = _Exchange(receive, send, request_id), 0
        try:
            self._admit(scope["path"], headers)
            await exchange.read()
            held = self._hold_place(scope["path"])
            await self._app(scope, exchange.receive, exchange.send)
        except HTTPException as problem:
            await exchange.refuse(problem)
        except ClientDisconnect:
            pass
        except Exception as error:  # whatever it is, the client gets an answer that doesn't tell
            # The error's message may hold what the client sent.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            log_error("failed", request_id=request_id, error=type(error).__name__, where=where)
            detail = "The service failed; its log names this request's id."
            await exchange.refuse(ProblemError(500, detail))
        finally:
            self._in_flight -= held
            self._note(scope["path"], exchange, time.perf_counter() - begun)

    def _admit(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self.keys is not None and self._guarded(path):
            self.keys.admit(headers)
        if int(headers.get(b"content-length", b"0")) > BODY_LIMIT:
            raise _too_long()

    def _hold_place(self, path: str) -> int:
        """Take a place among the requests in flight; health needs none."""
        if path in HEALTH:
            return 0
        if self._in_flight >= IN_FLIGHT:
            raise ProblemError(503, "Too many requests at once.", headers=RETRY)
        self._in_flight += 1
        return 1

    def _note(self, path: str, exchange: _Exchange, seconds: float) -> None:
        route = path if path in self._routes else "other"
        self.metrics.count_request(route, exchange.status, seconds)
        values = {"request_id": exchange.request_id, "route": route, "status": exchange.status}
        log_event("request", **values, ms=round(seconds * 1e3, 3))

    async def refresh(self) -> None:
        """Take changed keys over."""
        try:
            if self.keys is not None:
                self.keys.refresh()
        except RunError as error:
            log_error("keys not read", error=str(error))

    async def _checkpoint(self) -> None:
        try:
            if self.log is not None:
                # In a thread: else all requests would wait for the disk.
                await asyncio.to_thread(self.log.checkpoint)
        except RunError as error:
            log_error("checkpoint failed", error=str(error))

    @contextlib.asynccontextmanager
    async def watching(self, *more: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Look after keys, log and ``more`` while the service lives; then close the log.

        Each has a task of its own: a disk or a release that takes long keeps no revoked key alive.
        """
        duties = (self.refresh, self._checkpoint, *more)
        watchers = [asyncio.create_task(_repeat(duty)) for duty in duties]
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            if self.log is not None:
                self.log.close()


async def _repeat(duty: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        await duty()


class _Exchange:
    """One request: how much of its body was read, and what was sent."""

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self.status = 0
        self._receive = receive
        self._send = send
        self._size = 0
        self._more = True  # of the body, that the client is still sending
        self._whole: Message | None = None

    async def read(self) -> None:
        """The whole body, within the limit, before anything else is done for the request."""
        parts = []
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._more = message.get("more_body", False)
            parts.append(message.get("body", b""))
            self._size += len(parts[-1])
            if self._size > BODY_LIMIT:
                raise _too_long()
        self._whole = {"type": "http.request", "body": b"".join(parts), "more_body": False}

    async def receive(self) -> Message:
        """The body, once; then the client's departure."""
        whole, self._whole = self._whole, None
        return whole or await self._receive()

    async def send(self, message: Message) -> None:
        """A part of the answer, with the headers of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [*HEADERS, (b"x-request-id", self.request_id.encode())]
            message["headers"] = [*message.get("headers", ()), *own]
        await self._send(message)

    async def refuse(self, error: HTTPException) -> None:
        """Answer with a problem, and read and forget the rest of the body before the end.

        A connection that is closed with unread bytes in it is reset, and the client never sees the
        answer.
        """
        if self.status:
            return  # an answer has begun
        status, headers, content = render(error, self.request_id)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": content, "more_body": True})
        forgotten = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._more and forgotten <= DRAIN_LIMIT:
                    message = await self._receive()
                    forgotten += len(message.get("body", b""))
                    self._more = message.get("more_body", False)
        await self.send({"type": "http.response.body"})


def _too_long() -> ProblemError:
    limit = f"at most {BODY_LIMIT} bytes"
    return ProblemError(413, f"expected {limit}", headers={"connection": "close"}, expected=limit)


async def store_or_refuse(log: PredictionLog, entry: Entry, request_id: str) -> None:
    """Store a request's answers before they are given.

    Raises:
        ProblemError: 503: they could not be stored, and must not be given.
    """
    try:
        await log.store(entry)
    except RunError as error:
        log_error("not stored", request_id=request_id, error=str(error))
        detail = "The answer could not be kept, and is not given."
        raise ProblemError(503, detail, headers=RETRY) from error
