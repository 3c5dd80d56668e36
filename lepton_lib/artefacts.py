"""The run folder: the outputs of each pipeline step, written whole or not at all.

Knows files, hashes and the order of the steps; doesn't know what is in the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from lepton_lib.errors import RunError, wrap_os_errors
from lepton_lib.utils import (
    CASE_VARIABLE,
    course_folders,
    course_root,
    sha256_of,
    to_json,
    write_atomic,
)

# The files of each step of the loop. A step may read only those of earlier ones.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "00_environment": ("charter.json",),
    "01_data": (
        "data/train.parquet",
        "data/validation.parquet",
        "data/test.parquet",
        "data/cleaning.json",
        "data/card.md",
    ),
    "02_training": (
        "model/config.json",
        "model/model.safetensors",
        "model/history.json",
        "model/comparison.json",
        "model/held_out.parquet",
    ),
    "03_evaluation": (
        "evaluation/metrics.json",
        "evaluation/decision.json",
        "evaluation/gate.json",
        "evaluation/predictions.parquet",
        "evaluation/held_out.parquet",
    ),
    "04_deployment": (
        "service/config.json",
        "service/model.safetensors",
        "service/model.onnx",
        "service/card.md",
        "service/background.npy",
        "service/manifest.sig",
        "service/manifest.json",
        "service/latency.json",
    ),
    "05_monitoring": (
        "monitoring/drift.json",
        "monitoring/decision.json",
        "monitoring/challenger.safetensors",
        "monitoring/challenger.json",
    ),
}
STEPS = tuple(OUTPUTS)
PARTIAL = ".partial"  # the suffix of a folder of staged files
PACKAGES = ("lepton-course", "torch", "numpy", "pandas", "scikit-learn", "onnxruntime")
_LIBRARY = Path(__file__).resolve().parent
# no step's notebook runs these
_NOT_IN_STEPS = ("classroom", "cli", "drafting", "operations", "runs", "site")


def code_hash() -> str:
    """SHA-256 of the library's code that steps run, as it is on disk now."""
    digest = hashlib.sha256()
    for path in sorted(_LIBRARY.rglob("*.py")):
        name = path.relative_to(_LIBRARY)
        if name.parts[0] not in _NOT_IN_STEPS:
            digest.update(f"{name.as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def commit() -> str:
    """The commit of the clone that the library lies in, marked if files differ; else empty."""
    words = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40"]
    if not (_LIBRARY.parent / ".git").exists():
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(
            [*words, "--exclude=*"], cwd=_LIBRARY.parent, stderr=subprocess.DEVNULL, text=True
        ).strip()
    return ""


@contextlib.contextmanager
def exclusive_lock(
    folder: Path, *, timeout: float = 0.0, remedy: str = "Wait for it to end."
) -> Iterator[int]:
    """Hold a folder's lock against other processes; yields the lock's file descriptor.

    Args:
        folder: Created if it doesn't exist.
        timeout: Seconds to wait for the lock.
        remedy: For the error's message, what to do then.

    Raises:
        RunError: Another process holds it, or the folder can't be written to.
    """
    with wrap_os_errors(folder, remedy="Choose another, or change its permissions."):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    got = "a folder in which another is at work"
                    raise RunError(str(folder), got, "one at a time", remedy) from error
                time.sleep(0.1)
        yield lock
    finally:
        os.close(lock)


class Run:
    """A run folder.

    Args:
        folder: Where it lies; created by the first step that starts in it. Empty: ``runs/CASE`` in
            the course's folder, wherever a notebook is run from.
        case: The case's name, for an empty ``folder``.
    """

    def __init__(self, folder: str | Path, case: str = "") -> None:
        self.folder = Path(folder) if folder else course_root() / "runs" / case

    @property
    def manifest(self) -> dict[str, Any]:
        """Parameters, package versions, file hashes, duration and metrics of every finished step.

        Raises:
            RunError: The manifest is not readable JSON.
        """
        path = self.folder / "manifest.json"
        if not path.exists():
            return {"case": None, "steps": {}}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content["case"], content["steps"].items()
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            got, expected = "a file that is no run's manifest", "JSON with 'case' and 'steps'"
            remedy = "Choose another run folder, or delete this one and run the loop again."
            raise RunError(str(path), got, expected, remedy) from error
        return dict(content)

    def start(self, step: str, *, case: str, parameters: Mapping[str, Any]) -> Step:
        """Begin a step: its files are staged until `Step.finish` moves them into place.

        Raises:
            RunError: The folder can't be written to, belongs to another case, or an earlier step's
                file is missing.
        """
        self.check(case)
        return Step(self, step, case, parameters)

    def check(self, case: str | None) -> None:
        """Refuse a folder that holds another case's run, or other files than a run's.

        Raises:
            RunError: It does.
        """
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        is_run = any(name in ("manifest.json", ".lock") or name.endswith(PARTIAL) for name in names)
        is_course = (self.folder / "notebooks" / "exercises").is_dir()
        if names and (is_course or not is_run):
            got = "the course's folder" if is_course else "a folder of other files"
            remedy = "Choose another, such as runs/NAME; a run overwrites what is in its folder."
            raise RunError(str(self.folder), got, "a run folder, or a new or empty one", remedy)
        owner = self.manifest["case"]
        if None not in (case, owner) and case != owner:
            got, expected = f"a run of the case {owner!r}", f"one of {case!r}, or a new folder"
            remedy = f"Choose another folder, such as runs/{case}."
            raise RunError(str(self.folder), got, expected, remedy)

    def path(self, name: str) -> Path:
        """A file of an earlier step, verified against its recorded hash.

        Raises:
            RunError: It isn't there or was changed since; the message says which notebook makes it.
        """
        maker = next(step for step, files in OUTPUTS.items() if name in files)
        recorded = self.manifest["steps"].get(maker, {}).get("files", {}).get(name)
        file = self.folder / name
        if recorded is None or not file.is_file():
            remedy = f"Run notebook {maker} first, with the same run_dir."
            raise RunError(str(file), "no such result", f"the file that {maker} makes", remedy)
        if sha256_of(file) != recorded:
            got, expected = "a file that was changed after its step", f"what {maker} wrote"
            remedy = f"Run notebook {maker} again, with the same run_dir."
            raise RunError(str(file), got, expected, remedy)
        return file

    def read_json(self, name: str) -> Any:
        """A JSON file of an earlier step.

        Raises:
            RunError: As for `path`.
        """
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def done(self, step: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the step has finished with these parameters and its files are unchanged.

        So must be the files that it read: a step that ran again makes all later ones stale.
        """
        entry = self.manifest["steps"].get(step)
        if entry is None or entry["parameters"] != json.loads(to_json(dict(parameters))):
            return False
        hashes = entry["files"] | entry["read"]
        paths = {self.folder / name: recorded for name, recorded in hashes.items()}
        return all(path.is_file() and sha256_of(path) == paths[path] for path in paths)


class Step:
    """One running step: reads earlier steps' files, and stages its own until it has finished.

    Made by `Run.start`.
    """

    def __init__(self, run: Run, name: str, case: str, parameters: Mapping[str, Any]) -> None:
        self.run, self.name, self.case, self.parameters = run, name, case, dict(parameters)
        self._staging = run.folder / f".{name}{PARTIAL}"
        self._read: dict[str, str] = {}
        self._begun = time.monotonic()
        remedy = "Choose another run_dir, or change its permissions."
        with wrap_os_errors(run.folder, remedy=remedy):
            shutil.rmtree(self._staging, ignore_errors=True)  # left by a run that was killed
            self._staging.mkdir(parents=True)

    def path(self, name: str) -> Path:
        """Where to write the output ``name``; `finish` moves it into place."""
        known = OUTPUTS.get(self.name, (name,))  # a lesson may leave any file
        assert name in known, f"{name} is not in artefacts.OUTPUTS[{self.name!r}]"
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def input(self, name: str) -> Path:
        """A file of an earlier step; recorded, so that a later change of it makes this step stale.

        Raises:
            RunError: As for `Run.path`.
        """
        path = self.run.path(name)
        self._read[name] = sha256_of(path)
        return path

    def read_json(self, name: str) -> Any:
        """A JSON file of an earlier step; as `input`."""
        return json.loads(self.input(name).read_text(encoding="utf-8"))

    def write_json(self, name: str, value: Any) -> None:
        """Write an output as JSON."""
        write_atomic(self.path(name), to_json(value))

    def finish(self, **metrics: float | str | bool) -> Self:
        """Move the outputs into place and record the step in the manifest.

        Raises:
            RunError: An output is missing; nothing is moved then.
        """
        staged = [path for path in self._staging.rglob("*") if path.is_file()]
        names = sorted(path.relative_to(self._staging).as_posix() for path in staged)
        outputs = OUTPUTS.get(self.name, names)
        if missing := [name for name in outputs if not (self._staging / name).is_file()]:
            expected = "every file of the step written before finish()"
            remedy = "Run the notebook from its first cell to its last."
            raise RunError(f"step {self.name}", f"no {missing[0]}", expected, remedy)
        manifest = self.run.manifest
        entry = {
            "parameters": self.parameters,
            "python": sys.version.split()[0],
            "commit": commit(),
            "packages": _versions(),
            "read": self._read,
            "files": {name: sha256_of(self._staging / name) for name in outputs},
            "seconds": round(time.monotonic() - self._begun, 2),
            "metrics": metrics,
        }
        manifest["case"] = self.case
        folder = Path(os.environ.get(CASE_VARIABLE, ""))
        if folder.name == self.case and folder.parent not in course_folders("datasets"):
            manifest["case_folder"] = str(folder)
        manifest["steps"].pop(self.name, None)  # not done until its files have moved
        write_atomic(self.run.folder / "manifest.json", to_json(manifest))
        for name in outputs:
            (self.run.folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._staging / name, self.run.folder / name)
        manifest["steps"][self.name] = entry
        write_atomic(self.run.folder / "manifest.json", to_json(manifest))
        shutil.rmtree(self._staging, ignore_errors=True)
        return self

    def __repr__(self) -> str:
        return f"Step({self.name!r})"


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # not all belong to the core
            versions[name] = metadata.version(name)
    return versions
