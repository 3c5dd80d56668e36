"""What every answer has in common: limits, headers, problems. Knows ASGI messages, nothing of models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from lepton_lib.errors import RecordError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT = 1 << 20  # bytes
# how much of a refused body is read and forgotten before the end
DRAIN_LIMIT, DRAIN_SECONDS = 64 << 20, 5.0
JSON = "application/json"
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class ProblemError(Exception):
    """An answer that is a problem (RFC 9457): its status, details, and headers."""

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        self.status = status
        self.headers = headers or {}
        self.content = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
        self.content |= more

    def render(self, request_id: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        headers = {"content-type": "application/problem+json", **self.headers}
        # Python's own JSON: unlike msgspec's it can write a text with half a character in it.
        return self.status, headers, json.dumps(self.content | {"request_id": request_id}).encode()


def field_problem(error: RecordError) -> ProblemError:
    """The problem that names a record's field."""
    return ProblemError(
        422,
        str(error),
        record=error.position,
        field=error.field,
        got=error.got,
        expected=error.expected,
        remedy=error.remedy,
    )


def check_head(method: str, headers: dict[bytes, bytes]) -> None:
    """Refuse what needn't be read: another method, content type or coding, or a long body.

    Raises:
        ProblemError: 405, 415 or 413.
    """
    if method != "POST":
        raise ProblemError(405, f"got {method}, expected POST", headers={"allow": "POST"})
    media_type, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    found = media_type.strip().decode("latin-1")
    if found != JSON or charset not in (b"", b"utf-8"):
        raise ProblemError(415, f"expected content-type: {JSON}", expected=JSON)
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise ProblemError(415, "expected no content-encoding", expected="identity")
    if int(headers.get(b"content-length", b"0")) > BODY_LIMIT:
        raise _too_long()


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, at most `BODY_LIMIT` bytes; None if the client has gone.

    Raises:
        ProblemError: 413.
    """
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


def _too_long() -> ProblemError:
    limit = f"at most {BODY_LIMIT} bytes"
    return ProblemError(413, f"expected {limit}", headers={"connection": "close"}, expected=limit)


async def respond(
    send: Send, status: int, headers: dict[str, str], content: bytes, *, more_body: bool = False
) -> None:
    """Send a whole answer; with ``more_body`` its end is left open."""
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content, "more_body": more_body})


async def drain(read: Receive, send: Send, *, more: bool) -> None:
    """Read and forget the rest of a refused body, then end the answer.

    Who closes a connection with unread bytes in it resets it, and the client never sees the answer.
    """
    forgotten = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while more and forgotten <= DRAIN_LIMIT:
                message = await read()
                forgotten, more = (
                    forgotten + len(message.get("body", b"")),
                    message.get("more_body", False),
                )
    await send({"type": "http.response.body"})
