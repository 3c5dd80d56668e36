"""API keys: who may call a service, and how often. Knows headers and clocks, nothing of models."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lepton_lib.artefacts import exclusive_lock
from lepton_lib.errors import ParameterError, RunError, wrap_os_errors
from lepton_lib.serving.problems import ProblemError
from lepton_lib.utils import to_json, write_atomic

DEFAULT_RATE = 100.0  # requests a second and key
LOCK_SECONDS = 10.0  # for another program to write its change


class ApiKey(msgspec.Struct, frozen=True):
    """What is stored of a key: its hash in hexadecimal, and its rate in requests a second."""

    sha256: str
    rate: float


class Keys:
    """The API keys of a service, hashed, in a file that only its owner may read.

    A key is 256 random bits: they can't be guessed, so one SHA-256 is enough. Slow hashes
    (scrypt, argon2) are for passwords, which people choose, and would cost each request as much as
    ten thousand predictions.

    Args:
        path: The file. Keys are demanded as soon as it exists, and from then on also without it.
        required: Demand a key at once.
        share: What part of each key's rate counts here; one over the number of workers.

    Raises:
        RunError: The file exists and can't be read.
    """

    def __init__(self, path: Path, *, required: bool = False, share: float = 1.0) -> None:
        self.path = path
        self.required = required
        self._share = share
        self._seen: tuple[int, int] | None = None
        self._keys: dict[str, ApiKey] = {}
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
            self._keys, self._seen = {}, None
            return
        if self._seen != (seen := (state.st_mtime_ns, state.st_ino)):
            self._keys, self._seen, self.required = _read(self.path), seen, True
            self._buckets = {
                name: Bucket(key.rate * self._share, self._buckets.get(name))
                for name, key in self._keys.items()
            }

    def admit(self, headers: Mapping[bytes, bytes]) -> None:
        """Count a request against the rate of the key that it brings; where keys are demanded.

        Raises:
            ProblemError: 401 without a valid key, 429 when it has asked too often.
        """
        if not self.required:
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        sent = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        digest, match = _digest(sent), None
        # All of them, each in constant time: the duration tells nothing.
        for name, key in self._keys.items():
            if hmac.compare_digest(key.sha256, digest):
                match = name
        if match is None:
            detail = "expected a valid key: authorization: Bearer KEY"
            raise ProblemError(401, detail, headers={"www-authenticate": "Bearer"})
        if (wait := self._buckets[match].take()) > 0:
            raise ProblemError(
                429,
                f"expected at most {self._keys[match].rate:g} requests a second",
                headers={"retry-after": str(max(1, round(wait)))},
            )


class Bucket:
    """A token bucket: ``rate`` tokens a second, at most as many at once (at least one)."""

    def __init__(self, rate: float, earlier: Bucket | None = None) -> None:
        self.rate = rate
        self._most = max(rate, 1.0)
        self._tokens: float = self._most if earlier is None else min(earlier._tokens, self._most)
        self._at = time.monotonic()

    def take(self) -> float:
        """Take a token; seconds until there is one, 0 if it was taken."""
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.rate
        self._tokens -= 1
        return 0.0


def keys_file(run_dir: str | Path) -> Path:
    """The file of a run's API keys."""
    return Path(run_dir) / "service" / "keys.json"


def add_key(path: Path, name: str, *, rate: float = DEFAULT_RATE) -> str:
    """Make a key; returned this once, because only its hash is stored.

    Raises:
        ParameterError: The name is taken, or the rate isn't positive.
        RunError: There is no such folder, or the file can't be read or written.
    """
    if not (folder := path.parent.parent).is_dir():
        raise RunError(str(folder), "no such folder", "a run folder, or a service's", "Make it.")
    with exclusive_lock(path.parent, timeout=LOCK_SECONDS):
        keys = _read(path)
        if name in keys or not name:
            raise ParameterError("key's name", repr(name), "a new name", "Choose another.")
        if not 0 < rate < float("inf"):
            raise ParameterError("key's rate", rate, "requests a second above 0", "Raise it.")
        key = f"lepton_{secrets.token_hex(32)}"
        _write(path, keys | {name: ApiKey(_digest(key.encode()), rate)})
    return key


def list_keys(path: Path) -> dict[str, float]:
    """Each key's name and rate.

    Raises:
        RunError: The file can't be read.
    """
    return {name: key.rate for name, key in _read(path).items()}


def revoke_key(path: Path, name: str) -> None:
    """Revoke a key; running services notice within a second.

    Raises:
        ParameterError: There is no such key.
        RunError: The file can't be read or written.
    """
    with exclusive_lock(path.parent, timeout=LOCK_SECONDS):
        keys = _read(path)
        if name not in keys:
            raise ParameterError("key's name", repr(name), f"one of {sorted(keys)}", "Check it.")
        _write(path, {other: key for other, key in keys.items() if other != name})


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _read(path: Path) -> dict[str, ApiKey]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, ApiKey])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        remedy = "Restore it, or delete it and make new keys."
        expected = "what `lepton keys add` writes"
        raise RunError(str(path), "a file that holds no keys", expected, remedy) from error


def _write(path: Path, keys: Mapping[str, ApiKey]) -> None:
    with wrap_os_errors(path, remedy="Choose a folder that you may write to."):
        content = {name: msgspec.to_builtins(key) for name, key in keys.items()}
        write_atomic(path, to_json(content), mode=0o600)
