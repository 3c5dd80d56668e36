"""Who packaged a model: Ed25519 signatures over manifests. Knows keys and bytes, nothing of models.

The private key lies in the user's configuration folder, never beside what it signs.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lepton_lib.errors import RunError

SIGNATURE = "manifest.sig"
_PURPOSE = b"lepton manifest 1\n"  # so that a signature can't be taken for one of something else


def config_folder() -> Path:
    """The user's own folder for keys: ``LEPTON_CONFIG``, or ``lepton`` in ``XDG_CONFIG_HOME`` or ``~/.config``."""
    named = os.environ.get("LEPTON_CONFIG")
    return (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lepton"
    )


def public_key() -> str:
    """The user's public key in hexadecimal; the pair is made if there is none."""
    return _private_key().public_key().public_bytes_raw().hex()


def _private_key(*, make: bool = True) -> Ed25519PrivateKey:
    path = config_folder() / "signing.key"
    try:
        if make and not path.exists():
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
        raise RunError(
            str(path),
            f"no signing key ({getattr(error, 'strerror', None) or error})",
            "a key of yours, or one that can be made there",
            "Make the folder yours and the file's mode 600, or name the keys that you trust with --trust.",
        ) from error


def sign(manifest: bytes) -> str:
    """What `SIGNATURE` holds for a manifest: the user's public key and the signature, as JSON.

    Raises:
        RunError: The user's key can't be read or made.
    """
    key = _private_key()
    signature = key.sign(_PURPOSE + manifest).hex()
    return (
        json.dumps({"key": key.public_key().public_bytes_raw().hex(), "signature": signature})
        + "\n"
    )


def verify(folder: Path, manifest: bytes, *, trust: Sequence[str] | None) -> None:
    """See that a trusted key has signed a manifest.

    Args:
        folder: Where `SIGNATURE` lies.
        manifest: The manifest's bytes, as read.
        trust: Public keys in hexadecimal; without it, the user's own alone.

    Raises:
        RunError: No signature, one of a key that isn't trusted, or one that belongs to another
            manifest.
    """
    path = folder / SIGNATURE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        key, signature = str(content["key"]), bytes.fromhex(content["signature"])
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            str(path),
            "no signature"
            if isinstance(error, FileNotFoundError)
            else "a file that is no signature",
            "the signature that packaging writes",
            "Run notebook 04_deployment again, with the same run_dir.",
        ) from error
    trusted = trust or [_private_key(make=False).public_key().public_bytes_raw().hex()]
    if key not in trusted:
        raise RunError(
            str(path),
            f"a signature of the key {key[:12]}…",
            "one of " + ", ".join(f"{known[:12]}…" for known in trusted),
            f"If you trust whoever holds that key: --trust {key}. If not, don't use the model.",
        )
    try:
        public.verify(signature, _PURPOSE + manifest)
    except InvalidSignature as error:
        raise RunError(
            str(path),
            "a signature of something else",
            "one of the manifest beside it",
            "Don't use this folder: someone has changed it. Bring it back, or run notebook 04_deployment again.",
        ) from error
