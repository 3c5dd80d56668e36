"""What a service refuses, as problems (RFC 9457), and the headers of every answer."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from lepton_lib.errors import DataError, RecordError

JSON = "application/json"
PROBLEM = "application/problem+json"
ANSWER_SECONDS = 30  # for an answer, also while the service shuts down
HEALTH = {"/healthz", "/readyz"}  # paths that are answered beyond every limit
RETRY = {"retry-after": "1"}
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


class ProblemError(HTTPException):
    """An answer that is a problem.

    Args:
        status: The HTTP status.
        detail: What is wrong, for the client to read.
        headers: Further headers.
        **more: Further members of the problem, such as ``field`` and ``expected``.
    """

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, detail, headers)
        self.more = more


def render(error: HTTPException, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of a problem; Starlette's own exceptions become problems, too."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.detail,
        **getattr(error, "more", {}),
        "request_id": request_id,
    }
    # Python's own JSON: unlike msgspec's it can write a text with half a character in it.
    body = json.dumps(content).encode()
    headers = {"content-type": PROBLEM, "content-length": str(len(body)), **(error.headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return error.status_code, pairs, body


def data_problem(error: DataError) -> ProblemError:
    """The problem with a request's data; it names a record's field where that is known."""
    more: dict[str, Any] = {"field": error.where, "expected": error.expected}
    if isinstance(error, RecordError):
        more = {"record": error.position, "field": error.field, "got": error.got}
        more |= {"expected": error.expected, "remedy": error.remedy}
    return ProblemError(422, str(error), **more)
