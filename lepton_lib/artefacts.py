"""The run folder: what each step of the loop leaves there, whole or not at all.

Knows files, hashes and the order of the steps; doesn't know what is in the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from lepton_lib.errors import RunError, wrap_os_errors
from lepton_lib.utils import sha256_of, to_json, write_atomic

# Which step makes which file. A step may read only what an earlier one makes.
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
    ),
    "03_evaluation": (
        "evaluation/metrics.json",
        "evaluation/decision.json",
        "evaluation/gate.json",
        "evaluation/predictions.parquet",
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
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "onnxruntime")


@contextlib.contextmanager
def exclusive_lock(
    folder: Path, *, timeout: float = 0.0, remedy: str = "Wait for it to end."
) -> Iterator[int]:
    """Work in a folder while nobody else does; yields the lock's file descriptor.

    Args:
        folder: Made if need be.
        timeout: Seconds to wait for another to end.
        remedy: What to do when it hasn't.

    Raises:
        RunError: Another is at work there, or the folder can't be written to.
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
                    raise RunError(
                        str(folder), "a folder in which another is at work", "one at a time", remedy
                    ) from error
                time.sleep(0.1)
        yield lock
    finally:
        os.close(lock)


class Run:
    """A run folder.

    Args:
        folder: Where it lies; made by the first step that is started in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def manifest(self) -> dict[str, Any]:
        """Parameters, seeds, package versions, file hashes, durations and metrics of every finished step.

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
            raise RunError(
                str(path),
                "a file that is no run's manifest",
                "JSON with the keys 'case' and 'steps'",
                "Choose another run folder, or delete this one and run the loop again.",
            ) from error
        return dict(content)

    def start(self, step: str, *, case: str, parameters: Mapping[str, Any]) -> Step:
        """Begin a step: what it writes lies beside the results until `Step.finish` puts it in its place.

        Raises:
            RunError: The folder can't be written to, belongs to another case, or an earlier step's
                file is missing.
        """
        self.check_case(case)
        return Step(self, step, case, parameters)

    def check_case(self, case: str) -> None:
        """Refuse a folder that holds another case's run.

        Raises:
            RunError: It does.
        """
        owner = self.manifest["case"]
        if owner not in (None, case):
            raise RunError(
                str(self.folder),
                f"a run of the case {owner!r}",
                f"one of {case!r}, or a new folder",
                f"Choose another folder, such as runs/{case}.",
            )

    def path(self, name: str) -> Path:
        """A file that an earlier step has left, verified against its recorded hash.

        Raises:
            RunError: It isn't there or was changed since; the message says which notebook makes it.
        """
        maker = next(step for step, files in OUTPUTS.items() if name in files)
        recorded = self.manifest["steps"].get(maker, {}).get("files", {}).get(name)
        file = self.folder / name
        if recorded is None or not file.is_file():
            raise RunError(
                str(file),
                "no such result",
                f"the file that {maker} makes",
                f"Run notebook {maker} first, with the same run_dir.",
            )
        if sha256_of(file) != recorded:
            raise RunError(
                str(file),
                "a file that was changed after its step",
                f"what {maker} wrote",
                f"Run notebook {maker} again, with the same run_dir.",
            )
        return file

    def read_json(self, name: str) -> Any:
        """A JSON file that an earlier step has left.

        Raises:
            RunError: As for `path`.
        """
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def done(self, step: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the step has finished with these parameters and its files lie as it left them.

        The steps before it must be the ones whose files it read: a step that ran again makes all
        later ones stale.
        """
        entry = self.manifest["steps"].get(step)
        if entry is None or entry["parameters"] != json.loads(to_json(dict(parameters))):
            return False
        files = entry["files"] | entry["read"]
        return all(
            (self.folder / name).is_file() and sha256_of(self.folder / name) == h
            for name, h in files.items()
        )


class Step:
    """One step at work: reads what earlier steps left, writes its own files aside, and puts them in place at the end.

    Made by `Run.start`.
    """

    def __init__(self, run: Run, name: str, case: str, parameters: Mapping[str, Any]) -> None:
        self.run = run
        self.name = name
        self.case = case
        self.parameters = dict(parameters)
        self._staging = run.folder / f".{name}.partial"
        self._read: dict[str, str] = {}
        self._begun = time.monotonic()
        with wrap_os_errors(
            run.folder, remedy="Choose another run_dir, or change its permissions."
        ):
            shutil.rmtree(self._staging, ignore_errors=True)  # left by a run that was killed
            self._staging.mkdir(parents=True)

    def path(self, name: str) -> Path:
        """Where to write the result ``name``; it is moved to its place by `finish`."""
        assert name in OUTPUTS[self.name], (
            f"{name} is not listed in artefacts.OUTPUTS[{self.name!r}]"
        )
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def input(self, name: str) -> Path:
        """A file of an earlier step; remembered, so that a later change of it makes this step stale.

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
        """Write a result as JSON."""
        write_atomic(self.path(name), to_json(value))

    def finish(self, **metrics: float | str | bool) -> Self:
        """Put the results in place and note the step in the manifest.

        Raises:
            RunError: A file that the step should have made is missing; nothing is moved then.
        """
        missing = [name for name in OUTPUTS[self.name] if not (self._staging / name).is_file()]
        if missing:
            raise RunError(
                f"step {self.name}",
                f"no {missing[0]}",
                "every file of the step written before finish()",
                "Run the notebook from its first cell to its last.",
            )
        manifest = self.run.manifest
        entry = {
            "parameters": self.parameters,
            "python": sys.version.split()[0],
            "packages": _versions(),
            "read": self._read,
            "files": {name: sha256_of(self._staging / name) for name in OUTPUTS[self.name]},
            "seconds": round(time.monotonic() - self._begun, 2),
            "metrics": metrics,
        }
        manifest["case"] = self.case
        # until its files have moved, the step counts as not done
        manifest["steps"].pop(self.name, None)
        write_atomic(self.run.folder / "manifest.json", to_json(manifest))
        for name in OUTPUTS[self.name]:
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
