"""Who may ask, how often, and how long they may take: API keys, token buckets, limits on connections.

Knows headers and clocks, nothing of models.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lepton_lib.errors import ParameterError, RunError, wrap_os_errors
from lepton_lib.serving.http import HEADERS, ProblemError
from lepton_lib.utils import to_json, write_atomic

HEAD_LIMIT = 64 << 10  # bytes
HEAD_SECONDS, BODY_SECONDS, ANSWER_SECONDS = 10.0, 20.0, 30.0
CONNECTIONS = 1024  # open at once, in one worker
IN_FLIGHT = 256  # requests that are worked on at once, in one worker
DEFAULT_RATE = 100.0  # requests a second and key


class Keys:
    """The API keys of a service, hashed, in a file that only its owner may read.

    A key is 256 random bits: nobody can try them out, so that one SHA-256 is enough. Slow hashes
    (scrypt, argon2) are for passwords, which people choose, and would cost each request as much as
    ten thousand predictions.

    Args:
        path: The file. Keys are demanded as soon as it is there, and from then on also without it.
        required: Demand a key at once.
        share: What part of each key's rate counts here; one over the number of workers.

    Raises:
        RunError: The file is there and can't be read.
    """

    def __init__(self, path: Path, *, required: bool = False, share: float = 1.0) -> None:
        self.path = path
        self.required = required
        self._share = share
        self._seen: tuple[int, int] | None = None
        self._entries: dict[str, dict[str, Any]] = {}
        self._buckets: dict[str, Bucket] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it has changed.

        Raises:
            RunError: It can't be read; the keys that were known stay.
        """
        try:
            state = os.stat(self.path)
        except FileNotFoundError:
            self._entries, self._seen = {}, None
            return
        if self._seen != (seen := (state.st_mtime_ns, state.st_ino)):
            self._entries, self._seen, self.required = _read(self.path), seen, True
            self._buckets = {
                name: Bucket(entry["rate"] * self._share, self._buckets.get(name))
                for name, entry in self._entries.items()
            }

    def admit(self, headers: dict[bytes, bytes]) -> str | None:
        """The name of the key that a request brings, which then has one request less; None where none is demanded.

        Raises:
            ProblemError: 401 without a valid key, 429 when it has asked too often.
        """
        if not self.required:
            return None
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        digest, found = _digest(given), None
        # all of them, each in constant time: the wait tells nothing
        for name, entry in self._entries.items():
            if hmac.compare_digest(entry["sha256"], digest):
                found = name
        if found is None:
            detail = "expected a valid key: authorization: Bearer KEY"
            raise ProblemError(401, detail, headers={"www-authenticate": "Bearer"})
        if (wait := self._buckets[found].take()) > 0:
            again = {"retry-after": str(max(1, round(wait)))}
            raise ProblemError(
                429,
                f"expected at most {self._entries[found]['rate']:g} requests a second",
                headers=again,
            )
        return found


class Bucket:
    """A token bucket: ``rate`` tokens a second, as many at once as a second brings (at least one)."""

    def __init__(self, rate: float, earlier: Bucket | None = None) -> None:
        self.rate = rate
        self._tokens: float = (
            max(rate, 1.0) if earlier is None else min(earlier._tokens, max(rate, 1.0))
        )
        self._at = time.monotonic()

    def take(self) -> float:
        """Take a token; seconds until there is one, 0 if it was taken."""
        now = time.monotonic()
        self._tokens = min(max(self.rate, 1.0), self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.rate
        self._tokens -= 1
        return 0.0


def keys_file(run_dir: str | Path) -> Path:
    """Where a run's API keys lie."""
    return Path(run_dir) / "service" / "keys.json"


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {"sha256": str(e["sha256"]), "rate": float(e["rate"])}
            for name, e in entries.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            str(path),
            "a file that holds no keys",
            "what `lepton keys add` writes",
            "Bring it back, or delete it and make new keys.",
        ) from error


def _write(path: Path, entries: dict[str, dict[str, Any]]) -> None:
    with wrap_os_errors(
        path,
        got="a file that can't be written to",
        remedy="Run notebook 04_deployment first, with the same run_dir.",
    ):
        write_atomic(path, to_json(entries), mode=0o600)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Change the file while nobody else does: a write of what was read before undoes the other's change."""
    with wrap_os_errors(
        path,
        got="a file that can't be written to",
        remedy="Run notebook 04_deployment first, with the same run_dir.",
    ):
        lock = os.open(path.with_name(".keys.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def add_key(path: Path, name: str, *, rate: float = DEFAULT_RATE) -> str:
    """Make a key; it is told once and never again, for only its hash is kept.

    Raises:
        ParameterError: The name is taken, or the rate isn't positive.
        RunError: The file can't be read or written.
    """
    with _alone(path):
        entries = _read(path)
        if name in entries or not name:
            raise ParameterError("key's name", repr(name), "a new name", "Choose another.")
        if not 0 < rate < float("inf"):
            raise ParameterError("key's rate", rate, "requests a second above 0", "Raise it.")
        key = f"lepton_{secrets.token_hex(32)}"
        _write(path, entries | {name: {"sha256": _digest(key.encode()), "rate": rate}})
    return key


def list_keys(path: Path) -> dict[str, float]:
    """Each key's name and rate.

    Raises:
        RunError: The file can't be read.
    """
    return {name: entry["rate"] for name, entry in _read(path).items()}


def revoke_key(path: Path, name: str) -> None:
    """Take a key away; running services notice within a second.

    Raises:
        ParameterError: There is no such key.
        RunError: The file can't be read or written.
    """
    with _alone(path):
        entries = _read(path)
        if name not in entries:
            raise ParameterError("key's name", repr(name), f"one of {sorted(entries)}", "Check it.")
        _write(path, {other: entry for other, entry in entries.items() if other != name})


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with what it lacks: time limits for head, body and answer, and limits on head and connections.

    uvicorn closes idle connections only between requests. Here each connection has a deadline for
    the phase that it is in, and `GuardedServer` looks at all of them ten times a second: nothing is
    scheduled for a single request.
    """

    deadline: float | None = None
    _head = 0  # bytes of a head that isn't complete; less than nothing outside heads
    _open = False  # a request has begun and isn't there whole

    def connection_made(self, transport: Any) -> None:
        """Take a client in, or send it away."""
        super().connection_made(transport)
        self.deadline = self.loop.time() + HEAD_SECONDS
        if len(self.connections) > CONNECTIONS:
            self.refuse(ProblemError(503, "Too many connections.", headers={"retry-after": "1"}))

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

    def expire(self) -> None:
        """End a connection that has taken too long; with an answer where none was begun."""
        self.deadline = None
        if (
            self.cycle is not None
            and not self.cycle.response_complete
            and self.cycle.response_started
        ):
            self.transport.abort()  # it doesn't read what it asked for
        else:
            self.refuse(ProblemError(408, "The request took too long."))

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem, and close."""
        if self.transport.is_closing():
            return
        status, headers, content = problem.render(secrets.token_hex(8))
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        pairs += [
            *HEADERS,
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        lines = [
            f"HTTP/1.1 {status} {problem.content['title']}".encode(),
            *(b": ".join(pair) for pair in pairs),
        ]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + content)
        self.transport.close()
        logging.getLogger("lepton.serving").info(json.dumps({"event": "refused", "status": status}))


class GuardedServer(uvicorn.Server):
    """uvicorn's server, which looks after the deadlines of `GuardedProtocol`."""

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        now = time.monotonic()
        for connection in list(self.server_state.connections):
            deadline = getattr(connection, "deadline", None)
            if deadline is not None and deadline < now:
                connection.expire()  # type: ignore[union-attr]  # only ours have a deadline
        return await super().on_tick(counter)
