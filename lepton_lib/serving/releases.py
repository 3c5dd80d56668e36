"""Releases of a run's service: installed side by side, promoted, rolled back.

``RUN/service/releases/<version>/`` holds installed ones, ``RUN/service/current.json`` names the one
that answers, with all that were promoted before. Without that file ``RUN/service/`` itself answers,
as notebook 04 leaves it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lepton_lib.artefacts import exclusive_lock
from lepton_lib.errors import LeptonError, RunError, wrap_os_errors
from lepton_lib.serving.scoring import MANIFEST, Manifest, Scorer, read_manifest, read_service
from lepton_lib.serving.signing import read_bounded
from lepton_lib.utils import to_json, write_atomic

LOCK_SECONDS = 30.0  # for others to change what answers
_POINTER_LIMIT = 16 << 20  # bytes


def install(
    run_dir: str | Path,
    source: Path,
    *,
    trust: Sequence[str] | None = None,
    allow_older: bool = False,
) -> str:
    """Verify a service folder, from `package`, and copy it beside the run's others.

    What answers doesn't change.

    Args:
        run_dir: The run folder.
        source: The service folder.
        trust: Public keys whose signature counts; without it, the user's own alone.
        allow_older: Also take one that was packaged before another that is installed.

    Returns:
        Its version.

    Raises:
        RunError: It can't be verified, can't answer, is another case's or older than another.
    """
    manifest, contents = read_service(source, trust=trust)
    version, others = manifest["version"], _manifests(run_dir)
    current = _manifest(folder_of(run_dir))
    if current and current["case"] != manifest["case"]:
        got, expected = f"a model of the case {manifest['case']!r}", f"one of {current['case']!r}"
        raise RunError(str(source), got, expected, "Install it in a run folder of its own.")
    newest = max((other.get("packaged", 0) for other in others.values()), default=0)
    if version not in others and manifest.get("packaged", 0) < newest and not allow_older:
        got, expected = "a release older than one that is installed", "a newer one"
        remedy = "Package the model again, or pass allow_older (--allow-older)."
        raise RunError(str(source), got, expected, remedy)
    with _locked(run_dir):
        _place(run_dir, version, contents, trust)
    return version


def _place(
    run_dir: str | Path, version: str, contents: Mapping[str, bytes], trust: Sequence[str] | None
) -> None:
    """Write a release's files beside the run's others, whole, if what they make can answer."""
    place = _base(run_dir) / "releases" / version
    if place.exists():
        return
    with wrap_os_errors(place, remedy="Check that the disk has room."):
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{version}."))
        try:
            for name, content in contents.items():
                (staging / name).write_bytes(content)
            Scorer(staging, trust=trust)
            staging.chmod(0o755)
            staging.rename(place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def promote(run_dir: str | Path, version: str, *, trust: Sequence[str] | None = None) -> None:
    """Deploy an installed version: it answers from now on; running services notice within a second.

    The first time the packaged release is installed beside it, so that it can be rolled back to.

    Raises:
        RunError: It isn't installed, can't be verified or can't answer; what answers doesn't
            change then.
    """
    folder = folder_of_version(run_dir, version)
    if folder is None:
        got, expected = f"no release {version!r}", f"one of {installed(run_dir)}"
        remedy = "Install it first with install(run_dir, source)."
        raise RunError(str(_base(run_dir)), got, expected, remedy)
    Scorer(folder, trust=trust)
    with _locked(run_dir):
        past, own = history(run_dir), _manifest(_base(run_dir))
        if version != (past[-1]["version"] if past else own and own["version"]):
            if not past and own:
                with contextlib.suppress(RunError):  # else it couldn't be rolled back to
                    manifest, contents = read_service(_base(run_dir), trust=trust)
                    _place(run_dir, manifest["version"], contents, trust)
            _point(run_dir, version, "promoted")


def roll_back(run_dir: str | Path, *, trust: Sequence[str] | None = None) -> str:
    """Roll back to the version before the current one; again and again, back to the first.

    Returns:
        The version that answers now.

    Raises:
        RunError: There was none before, or it can't answer any more.
    """
    current = current_version(run_dir)
    with _locked(run_dir):
        before = _stack(run_dir)[:-1]
        if not before or (folder := folder_of_version(run_dir, before[-1])) is None:
            got, expected = f"no version before {current}", "an earlier one"
            remedy = "Promote an installed version instead."
            raise RunError(str(_base(run_dir)), got, expected, remedy)
        Scorer(folder, trust=trust)
        _point(run_dir, before[-1], "rolled back")
    return before[-1]


def load_current(
    run_dir: str | Path, *, trust: Sequence[str] | None = None
) -> tuple[Scorer, LeptonError | None]:
    """The release that answers; where it can't, the last one before it that can, and why.

    Raises:
        LeptonError: None can.
    """
    earlier = [folder_of_version(run_dir, version) for version in reversed(_stack(run_dir)[:-1])]
    failure: LeptonError | None = None
    for folder in filter(None, (folder_of(run_dir), *earlier)):
        try:
            return Scorer(folder, trust=trust), failure
        except LeptonError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def current_version(run_dir: str | Path) -> str:
    """The version that answers.

    Raises:
        RunError: There is no service in this run folder.
    """
    if past := history(run_dir):
        return past[-1]["version"]
    return read_manifest(_base(run_dir))[0]["version"]


def history(run_dir: str | Path) -> list[dict[str, str]]:
    """Every change of what answers, oldest first: ``version``, ``action`` and ``time``.

    An action is ``packaged``, ``promoted`` or ``rolled back``.

    Raises:
        RunError: The pointer file can't be read.
    """
    path = pointer(run_dir)
    try:
        past = json.loads(read_bounded(path, _POINTER_LIMIT))["history"]
        return [{key: str(entry[key]) for key in ("version", "action", "time")} for entry in past]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        got, remedy = "a file that names no release", "Restore it, or delete it to start anew."
        raise RunError(str(path), got, "what promote() has written", remedy) from error


def installed(run_dir: str | Path) -> list[str]:
    """The versions that can be promoted."""
    return sorted(_manifests(run_dir))


def _manifests(run_dir: str | Path) -> dict[str, Manifest]:
    """The packaged release's manifest and those of the installed ones, by version."""
    places = _base(run_dir).glob(f"releases/[!.]*/{MANIFEST}")
    own, others = _manifest(_base(run_dir)), {path.parent.name: path.parent for path in places}
    known = {version: _manifest(folder) for version, folder in others.items()}
    known |= {own["version"]: own} if own else {}
    return {version: manifest for version, manifest in known.items() if manifest}


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


def _locked(run_dir: str | Path) -> contextlib.AbstractContextManager[int]:
    """Hold the service folder: two that change it at once would undo each other's work."""
    return exclusive_lock(_base(run_dir), timeout=LOCK_SECONDS)


def _manifest(folder: Path) -> Manifest | None:
    with contextlib.suppress(RunError):
        return read_manifest(folder)[0]
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
