"""uvicorn's protocol with limits: on the time of each phase, on heads and on connections."""

from __future__ import annotations

import re
import secrets
import sys
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lepton_lib.serving.problems import (
    ANSWER_SECONDS,
    HEADERS,
    HEALTH,
    RETRY,
    ProblemError,
    render,
)
from lepton_lib.serving.telemetry import log_event
from lepton_lib.utils import is_loopback

HEAD_LIMIT = 64 << 10  # bytes of a request that aren't its body
HEAD_SECONDS, BODY_SECONDS = 10.0, 20.0
CHECK_SECONDS = 0.25  # between two looks at a connection's deadline
CONNECTIONS, PER_ADDRESS = 1024, 512  # open at once, in one worker
CROWDED_SECONDS = 1.0  # for a client beyond these limits to ask for its health, and nothing else


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose connections have a deadline for the phase that they are in.

    uvicorn closes idle connections only between requests. Here each connection looks at its
    deadline four times a second: nothing is scheduled for a single request. What a callback of
    the parser raises ends the connection with that problem, before anything is answered.
    """

    loopback = False  # whether only loopback names are accepted in Host
    deadline: float | None = None
    _framing = 0  # bytes of the request so far that aren't its body
    _open = _body = False  # a request has begun and isn't there whole; its head is
    _crowded = False

    def connection_made(self, transport: Any) -> None:
        """Take a client in; beyond the limits only for a question about health."""
        super().connection_made(transport)
        self._crowded = self._is_beyond_limits()
        seconds = CROWDED_SECONDS if self._crowded else HEAD_SECONDS
        self.deadline = self.loop.time() + seconds
        self.loop.call_later(CHECK_SECONDS, self._check_deadline)
        if len(self.connections) > 2 * CONNECTIONS:
            self.expire()

    def _is_beyond_limits(self) -> bool:
        count = len(self.connections)
        if count > PER_ADDRESS and self.client:
            others: Any = self.connections
            same = sum(other.client and other.client[0] == self.client[0] for other in others)
            return count > CONNECTIONS or same > PER_ADDRESS
        return count > CONNECTIONS

    def data_received(self, data: bytes) -> None:
        """Read on; what isn't body is counted, however it arrives."""
        if self.transport.is_closing():
            return
        self._framing += len(data)
        super().data_received(data)
        if self._framing > HEAD_LIMIT:
            self.refuse(_too_long())

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self.deadline = self.loop.time() + HEAD_SECONDS
        self._open, self._body = True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the body it would be a trailer."""
        if self._body:
            raise ProblemError(400, "expected no trailers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body begins, if the head is one that is answered."""
        self._check_head()
        self._body = True
        self.deadline = self.loop.time() + BODY_SECONDS
        super().on_headers_complete()

    def _check_head(self) -> None:
        if self._framing > HEAD_LIMIT:  # with other requests, or a body, in the same bytes?
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > HEAD_LIMIT:
                raise _too_long()
        if self._crowded and self.url.partition(b"?")[0].decode("latin-1") not in HEALTH:
            raise _crowded()
        hosts = [value for name, value in self.headers if name == b"host"]
        if self.loopback and not (hosts and all(map(_is_loopback_name, hosts))):
            raise ProblemError(421, "expected a loopback name in host, such as localhost")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._framing -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The answer begins."""
        self.deadline, self._open = self.loop.time() + ANSWER_SECONDS, False
        self._framing = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Nothing is due; uvicorn watches the idle connection."""
        if not self.pipeline and not self._open:
            self.deadline = None
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What can't be read as HTTP, or what a callback has raised."""
        error = sys.exc_info()[1]
        problem = error.__context__ if error else None
        self.refuse(problem if isinstance(problem, ProblemError) else ProblemError(400, msg))

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
        elif self._crowded:
            self.refuse(_crowded())
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


class LoopbackProtocol(TimedProtocol):
    """For a service on a loopback address: a page of another name, resolved to it, is refused."""

    loopback = True


def _too_long() -> ProblemError:
    return ProblemError(431, f"expected a head of at most {HEAD_LIMIT} bytes, and no other framing")


def _crowded() -> ProblemError:
    return ProblemError(503, "Too many connections.", headers=RETRY)


@lru_cache(64)
def _is_loopback_name(host: bytes) -> bool:
    name = re.sub(rb":\d*$", b"", host).strip(b"[]").decode("latin-1").lower()
    return is_loopback(name)
