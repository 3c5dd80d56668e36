"""Who packaged a model: Ed25519 signatures over manifests. Knows keys and bytes, nothing of models.

The private key is stored in the user's configuration folder, never beside what it signs.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lepton_lib.errors import RunError
from lepton_lib.utils import KEY_REMEDY, config_folder

SIGNATURE, SIGNATURE_LIMIT = "manifest.sig", 4096  # bytes
_PURPOSE = b"lepton manifest 1\n"  # so that a signature can't be taken for one of something else


def public_key() -> str:
    """The user's public key in hexadecimal; the pair is generated if there is none."""
    return _private_key().public_key().public_bytes_raw().hex()


def _private_key(*, generate: bool = True) -> Ed25519PrivateKey:
    path = config_folder() / "signing.key"
    try:
        if generate and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(dir=path.parent)  # mode 600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(Ed25519PrivateKey.generate().private_bytes_raw().hex().encode())
                # another process was first: its key counts
                with contextlib.suppress(FileExistsError):
                    os.link(name, path)
            finally:
                os.unlink(name)
        if path.stat().st_mode & 0o077 and os.name == "posix":
            raise ValueError("others may read it")
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text()))
    except (OSError, ValueError) as error:
        got = f"no signing key ({getattr(error, 'strerror', None) or error})"
        raise RunError(str(path), got, "a key of yours, or room for one", KEY_REMEDY) from error


def sign(manifest: bytes) -> str:
    """What `SIGNATURE` holds for a manifest: the user's public key and the signature, as JSON.

    Raises:
        RunError: The user's key can't be read or generated.
    """
    key = _private_key()
    public, signature = key.public_key().public_bytes_raw().hex(), key.sign(_PURPOSE + manifest)
    return json.dumps({"key": public, "signature": signature.hex()}) + "\n"


def read_bounded(path: Path, limit: int) -> bytes:
    """A file's bytes; ValueError where they are more than ``limit`` or it is no plain file."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no plain file")
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return content


def verify(folder: Path, manifest: bytes, *, trust: Sequence[str] | None) -> bytes:
    """Verify a folder's `SIGNATURE` of its manifest's bytes; the signature's own bytes.

    Args:
        folder: The folder.
        manifest: The bytes, as read.
        trust: Public keys in hexadecimal; without it, the user's own alone.

    Raises:
        RunError: No signature, one of a key that isn't trusted, or one that belongs to another
            manifest.
    """
    path = folder / SIGNATURE
    try:
        raw = read_bounded(path, SIGNATURE_LIMIT)
        content = json.loads(raw)
        key, signature = str(content["key"]), bytes.fromhex(content["signature"])
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError)
        got = "no signature" if missing else "a file that is no signature"
        remedy = "Run notebook 04_deployment again, with the same run_dir."
        raise RunError(str(path), got, "the signature that packaging writes", remedy) from error
    trusted = trust or [_private_key(generate=False).public_key().public_bytes_raw().hex()]
    if key not in trusted:
        got = f"a signature of the key {key[:12]}…"
        expected = "one of " + ", ".join(f"{known[:12]}…" for known in trusted)
        remedy = f"If you trust its owner: --trust {key}. If not, don't use the model."
        raise RunError(str(path), got, expected, remedy)
    try:
        public.verify(signature, _PURPOSE + manifest)
    except InvalidSignature as error:
        got, expected = "a signature of something else", "one of the manifest beside it"
        remedy = "Don't use this folder: it was changed. Restore it, or run 04_deployment again."
        raise RunError(str(path), got, expected, remedy) from error
    return raw
