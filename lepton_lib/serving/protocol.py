"""uvicorn's protocol with limits: on the time of each phase, on heads and on connections."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lepton_lib.serving.problems import HEADERS, RETRY, ProblemError, render
from lepton_lib.serving.telemetry import log_event

HEAD_LIMIT = 64 << 10  # bytes
HEAD_SECONDS, BODY_SECONDS, ANSWER_SECONDS = 10.0, 20.0, 30.0
CHECK_SECONDS = 0.25  # between two looks at a connection's deadline
CONNECTIONS = 1024  # open at once, in one worker


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose connections have a deadline for the phase that they are in.

    uvicorn closes idle connections only between requests. Here each connection looks at its
    deadline four times a second: nothing is scheduled for a single request.
    """

    deadline: float | None = None
    _head = 0  # bytes of a head that isn't complete; less than nothing outside heads
    _open = False  # a request has begun and isn't there whole

    def connection_made(self, transport: Any) -> None:
        """Take a client in, or send it away."""
        super().connection_made(transport)
        self.deadline = self.loop.time() + HEAD_SECONDS
        self.loop.call_later(CHECK_SECONDS, self._check_deadline)
        if len(self.connections) > CONNECTIONS:
            self.refuse(ProblemError(503, "Too many connections.", headers=RETRY))

    def data_received(self, data: bytes) -> None:
        """Read on, but no head without end."""
        if self.transport.is_closing():
            return
        if self._head >= 0:
            self._head += len(data)
        super().data_received(data)
        if self._head > HEAD_LIMIT:
            self.refuse(ProblemError(431, f"expected a head of at most {HEAD_LIMIT} bytes"))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self.deadline = self.loop.time() + HEAD_SECONDS
        self._head, self._open = max(self._head, 0), True

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._head = -1
        self.deadline = self.loop.time() + BODY_SECONDS
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The answer begins."""
        self.deadline, self._open = self.loop.time() + ANSWER_SECONDS, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Nothing is due; uvicorn watches the idle connection."""
        if not self.pipeline and not self._open:
            self.deadline, self._head = None, 0
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What can't be read as HTTP."""
        self.refuse(ProblemError(400, msg))

    def _check_deadline(self) -> None:
        if self.transport.is_closing():
            return
        if self.deadline is not None and self.deadline < self.loop.time():
            self.expire()
        else:
            self.loop.call_later(CHECK_SECONDS, self._check_deadline)

    def expire(self) -> None:
        """End a connection that has taken too long; with an answer where none was begun."""
        self.deadline = None
        cycle = self.cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self.transport.abort()  # it doesn't read what it asked for
        else:
            self.refuse(ProblemError(408, "The request took too long."))

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem, and close."""
        if self.transport.is_closing():
            return
        status, headers, content = render(problem, secrets.token_hex(8))
        headers += [*HEADERS, (b"connection", b"close")]
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [b": ".join(pair) for pair in headers]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + content)
        self.transport.close()
        log_event("refused", status=status)
