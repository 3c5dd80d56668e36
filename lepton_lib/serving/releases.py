"""Releases of a run's service: installed side by side, promoted, rolled back.

``RUN/service/releases/<version>/`` holds installed ones, ``RUN/service/current.json`` names the one
that answers, with all that were promoted before. Without that file ``RUN/service/`` itself answers,
as notebook 04 leaves it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lepton_lib.errors import RunError, wrap_os_errors
from lepton_lib.serving.scoring import FILES, read_service
from lepton_lib.serving.signing import SIGNATURE
from lepton_lib.utils import to_json, write_atomic

_MANIFEST = "manifest.json"


def install(run_dir: str | Path, source: Path, *, trust: Sequence[str] | None = None) -> str:
    """Verify a service folder, from `package`, and copy it beside the run's others.

    What answers doesn't change.

    Returns:
        Its version.

    Raises:
        RunError: It can't be verified, or is another case's.
    """
    manifest, _ = read_service(source, trust=trust)
    version: str = manifest["version"]
    if (current := _manifest(folder_of(run_dir))) and current["case"] != manifest["case"]:
        got, expected = f"a model of the case {manifest['case']!r}", f"one of {current['case']!r}"
        raise RunError(str(source), got, expected, "Install it in a run folder of its own.")
    place = _base(run_dir) / "releases" / version
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{version}."))
        try:
            with wrap_os_errors(place, remedy="Check that the disk has room."):
                for name in (*FILES, SIGNATURE, _MANIFEST):
                    shutil.copyfile(source / name, staging / name)
                read_service(staging, trust=trust)
                staging.chmod(0o755)
                try:
                    staging.rename(place)
                except OSError:
                    if not place.exists():  # else another process has installed the same
                        raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return version


def promote(run_dir: str | Path, version: str, *, trust: Sequence[str] | None = None) -> None:
    """Deploy an installed version: it answers from now on; running services notice within a second.

    The first time the packaged release is installed beside it, so that it can be rolled back to.

    Raises:
        RunError: It isn't installed or can't be verified; what answers doesn't change then.
    """
    folder = folder_of_version(run_dir, version)
    if folder is None:
        got, expected = f"no release {version!r}", f"one of {installed(run_dir)}"
        remedy = "Install it first with install(run_dir, source)."
        raise RunError(str(_base(run_dir)), got, expected, remedy)
    read_service(folder, trust=trust)
    past, own = history(run_dir), _manifest(_base(run_dir))
    if version != (past[-1]["version"] if past else own and own["version"]):
        if not past and own:
            _install_packaged(run_dir, trust)
        _point(run_dir, version, "promoted")


def roll_back(run_dir: str | Path, *, trust: Sequence[str] | None = None) -> str:
    """Roll back to the version before the current one; again and again, back to the first.

    Returns:
        The version that answers now.

    Raises:
        RunError: There was none before, or it can't be verified any more.
    """
    before = _stack(run_dir)[:-1]
    if not before or (folder := folder_of_version(run_dir, before[-1])) is None:
        got, expected = f"no version before {current_version(run_dir)}", "an earlier one"
        raise RunError(str(_base(run_dir)), got, expected, "Promote an installed version instead.")
    read_service(folder, trust=trust)
    _point(run_dir, before[-1], "rolled back")
    return before[-1]


def current_version(run_dir: str | Path) -> str:
    """The version that answers.

    Raises:
        RunError: There is no service in this run folder.
    """
    if past := history(run_dir):
        return past[-1]["version"]
    manifest = _manifest(_base(run_dir)) or read_service(_base(run_dir))[0]  # says what is wrong
    return str(manifest["version"])


def history(run_dir: str | Path) -> list[dict[str, str]]:
    """Every change of what answers, oldest first: ``version``, ``action`` and ``time``.

    An action is ``packaged``, ``promoted`` or ``rolled back``.

    Raises:
        RunError: The pointer file can't be read.
    """
    path = pointer(run_dir)
    try:
        past = json.loads(path.read_text(encoding="utf-8"))["history"]
        return [{key: str(entry[key]) for key in ("version", "action", "time")} for entry in past]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        got, remedy = "a file that names no release", "Restore it, or delete it to start anew."
        raise RunError(str(path), got, "what promote() has written", remedy) from error


def installed(run_dir: str | Path) -> list[str]:
    """The versions that can be promoted."""
    own = _manifest(_base(run_dir))
    versions = {path.parent.name for path in _base(run_dir).glob(f"releases/[!.]*/{_MANIFEST}")}
    return sorted(versions | ({str(own["version"])} if own else set()))


def folder_of(run_dir: str | Path) -> Path:
    """The folder of the version that answers; it may not be there any more."""
    if not (past := history(run_dir)):
        return _base(run_dir)
    version = past[-1]["version"]
    return folder_of_version(run_dir, version) or _base(run_dir) / "releases" / version


def pointer(run_dir: str | Path) -> Path:
    """The file that names the version that answers."""
    return _base(run_dir) / "current.json"


def folder_of_version(run_dir: str | Path, version: str) -> Path | None:
    """The folder of an installed version; None if it isn't there."""
    if version not in installed(run_dir):
        return None
    place = _base(run_dir) / "releases" / version
    return place if place.is_dir() else _base(run_dir)


def _base(run_dir: str | Path) -> Path:
    return Path(run_dir) / "service"


def _install_packaged(run_dir: str | Path, trust: Sequence[str] | None) -> None:
    """Install what lies in ``RUN/service/``, because notebook 04 writes over it."""
    try:
        read_service(_base(run_dir), trust=trust)
    except RunError:
        return  # what can't be verified couldn't be rolled back to
    install(run_dir, _base(run_dir), trust=trust)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return manifest if {"version", "case"} <= set(manifest) else None
    except (OSError, ValueError, TypeError):
        return None


def _stack(run_dir: str | Path) -> list[str]:
    """The versions that a roll back walks through, the current one last."""
    stack: list[str] = []
    for entry in history(run_dir):
        if entry["action"] == "rolled back":
            stack.pop()
        else:
            stack.append(entry["version"])
    return stack


def _point(run_dir: str | Path, version: str, action: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    past = history(run_dir)
    if not past and (own := _manifest(_base(run_dir))):
        past = [{"version": str(own["version"]), "action": "packaged", "time": now}]
    past.append({"version": version, "action": action, "time": now})
    write_atomic(pointer(run_dir), to_json({"version": version, "history": past}))
