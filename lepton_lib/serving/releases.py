"""Releases of a run's service: installed side by side, promoted and rolled back through one small file.

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


def install(run_dir: str | Path, source: Path, *, trust: Sequence[str] | None = None) -> str:
    """Verify a service folder and copy it beside the run's others; what answers doesn't change.

    Args:
        run_dir: The run folder.
        source: A service folder, from `package`.
        trust: Public keys whose signature counts; without it, the user's own alone.

    Returns:
        Its version.

    Raises:
        RunError: It can't be verified, or is another case's.
    """
    base = Path(run_dir) / "service"
    manifest, _ = read_service(source, trust=trust)
    version: str = manifest["version"]
    if (current := _manifest(folder_of(run_dir))) and current["case"] != manifest["case"]:
        raise RunError(
            str(source),
            f"a model of the case {manifest['case']!r}",
            f"one of {current['case']!r}, as the service has now",
            "Install it in a run folder of its own.",
        )
    place = base / "releases" / version
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{version}."))
        try:
            with wrap_os_errors(
                place, remedy="See that the disk has room and the folder is yours."
            ):
                for name in (*FILES, SIGNATURE, "manifest.json"):
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
    """Let an installed version answer from now on; running services notice within a second.

    The first time the packaged release is installed beside it, so that it can be rolled back to.

    Raises:
        RunError: It isn't installed or can't be verified, or the packaged one can't be kept; what
            answers doesn't change then.
    """
    folder = folder_of_version(run_dir, version)
    if folder is None:
        raise RunError(
            str(Path(run_dir) / "service"),
            f"no release {version!r}",
            f"one of {installed(run_dir)}",
            "Install it first with install(run_dir, source).",
        )
    read_service(folder, trust=trust)
    past, own = history(run_dir), _manifest(Path(run_dir) / "service")
    if version != (past[-1]["version"] if past else own and own["version"]):
        if not past and own:
            _keep_packaged(run_dir, trust)
        _point(run_dir, version, "promoted")


def roll_back(run_dir: str | Path, *, trust: Sequence[str] | None = None) -> str:
    """Let the version answer that answered before the current one; again and again, back to the first.

    Returns:
        The version that answers now.

    Raises:
        RunError: There was none before, or it can't be verified any more.
    """
    before = _stack(run_dir)[:-1]
    if not before or (folder := folder_of_version(run_dir, before[-1])) is None:
        raise RunError(
            str(Path(run_dir) / "service"),
            f"no version before {current_version(run_dir)}",
            "one that was promoted earlier and still lies there",
            "Promote an installed version instead.",
        )
    read_service(folder, trust=trust)
    _point(run_dir, before[-1], "rolled back")
    return before[-1]


def current_version(run_dir: str | Path) -> str:
    """The version that answers.

    Raises:
        RunError: There is no service in this run folder.
    """
    if past := history(run_dir):
        return str(past[-1]["version"])
    base = Path(run_dir) / "service"
    if (manifest := _manifest(base)) is None:
        read_service(base)  # says what is wrong
        raise AssertionError
    return str(manifest["version"])


def history(run_dir: str | Path) -> list[dict[str, Any]]:
    """Every change of what answers, oldest first: ``version``, ``action`` (packaged, promoted, rolled back), ``time``.

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
        raise RunError(
            str(path),
            "a file that names no release",
            "what promote() has written",
            "Bring it back, or delete it: then the run's own service answers.",
        ) from error


def installed(run_dir: str | Path) -> list[str]:
    """The versions that can be promoted."""
    base = Path(run_dir) / "service"
    own = _manifest(base)
    found = {path.parent.name for path in base.glob("releases/[!.]*/manifest.json")}
    return sorted(found | ({str(own["version"])} if own else set()))


def folder_of(run_dir: str | Path) -> Path:
    """The folder of the version that answers; it may not be there any more."""
    base = Path(run_dir) / "service"
    past = history(run_dir)
    return (
        base
        if not past
        else folder_of_version(run_dir, past[-1]["version"])
        or base / "releases" / past[-1]["version"]
    )


def pointer(run_dir: str | Path) -> Path:
    """The file that names the version that answers."""
    return Path(run_dir) / "service" / "current.json"


def folder_of_version(run_dir: str | Path, version: str) -> Path | None:
    """The folder of an installed version; None if it isn't there."""
    base = Path(run_dir) / "service"
    if version not in installed(run_dir):
        return None
    return base / "releases" / version if (base / "releases" / version).is_dir() else base


def _keep_packaged(run_dir: str | Path, trust: Sequence[str] | None) -> None:
    """Install what lies in ``RUN/service/``, which notebook 04 writes over, so that the way back to it exists."""
    base = Path(run_dir) / "service"
    try:
        read_service(base, trust=trust)
    except RunError:
        # what can't be verified couldn't be rolled back to either, and a good release may replace
        # it
        return
    install(run_dir, base, trust=trust)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
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
    if not past and (own := _manifest(Path(run_dir) / "service")):
        past = [{"version": own["version"], "action": "packaged", "time": now}]
    past.append({"version": version, "action": action, "time": now})
    write_atomic(pointer(run_dir), to_json({"version": version, "history": past}))
