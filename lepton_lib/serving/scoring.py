"""A service folder, verified, and its model's answers. Uses onnxruntime; no torch, no pandas."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec
import numpy as np

from lepton_lib import decisions
from lepton_lib.cases import Case, encode_records, load_case
from lepton_lib.errors import LeptonError, RunError
from lepton_lib.explanation import shapley_values
from lepton_lib.serving import signing
from lepton_lib.serving.codec import Codec
from lepton_lib.utils import NO_TELEMETRY, first_line

# what the manifest vouches for, and how many bytes it may have
LIMITS = {
    "model.safetensors": 1 << 30,
    "config.json": 1 << 20,
    "model.onnx": 1 << 30,
    "card.md": 1 << 20,
    "background.npy": 64 << 20,
}
FILES = tuple(LIMITS)
MANIFEST, MANIFEST_LIMIT = "manifest.json", 1 << 20
LARGEST = 1_000_000  # size that config.json may name
TOLERANCE = 1e-4  # of the answers in the manifest, relative to the greatest of them
_REMEDY = "Bring the service folder back as it was, or run notebook 04_deployment again."


def contract_of(case: Case) -> str:
    """SHA-256 of what a model and its clients rely on: inputs' rules, classes, costs and bands."""
    rules = ("name", "kind", "unit", "min", "max", "categories", "parts", "nullable")
    empty = {"categories": (), "parts": ()}
    inputs = [{r: getattr(column, r, empty.get(r)) for r in rules} for column in case.inputs]
    for column, part in zip(case.inputs, inputs, strict=True):
        if other := getattr(column, "other", ""):
            part["other"] = other  # any word is accepted
    rest = [part.model_dump() if part else None for part in (case.costs, case.bands)]
    return _sha256(json.dumps([inputs, case.classes, rest], sort_keys=True).encode())


def version_of(files: Mapping[str, str], contract: str) -> str:
    """The model's version: twelve digits that follow from the content alone, not from a date."""
    return _sha256(json.dumps([dict(files), contract], sort_keys=True).encode())[:12]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Manifest(TypedDict):
    """What a service folder holds, and what it must answer."""

    version: str
    case: str
    contract: str  # hash of the case's rules
    files: dict[str, str]  # sha256 by name
    metrics: dict[str, Any]
    packaged: NotRequired[int]  # when, in nanoseconds since 1970: a later one is higher
    answers: NotRequired[list[list[float]]]  # to the first rows of background.npy


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """A service folder's manifest, which nobody has verified, and its bytes.

    Raises:
        RunError: It can't be read, or is no such manifest.
    """
    path = folder / MANIFEST
    try:
        raw = signing.read_bounded(path, MANIFEST_LIMIT)
        return msgspec.json.decode(raw, type=Manifest), raw
    except (OSError, ValueError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError)
        got = "no such file" if missing else "a file that is no service's manifest"
        remedy = "Run notebook 04_deployment first, with the same run_dir."
        raise RunError(str(path), got, "the manifest of 04_deployment", remedy) from error


def read_service(
    folder: Path, *, trust: Sequence[str] | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    """Read a service folder's manifest and files, once, and verify hashes and signature.

    Returns:
        The manifest, and each file's content, so that what was verified is what is used.

    Raises:
        RunError: The manifest can't be read or isn't signed by a trusted key, or a file is missing,
            too long or isn't the one that was packaged: which.
    """
    manifest, raw = read_manifest(folder)
    files = manifest["files"]
    if set(files) != set(FILES) or manifest["version"] != version_of(files, manifest["contract"]):
        got = "a version that doesn't follow from the hashes beside it"
        raise RunError(str(folder / MANIFEST), got, "the manifest as it was written", _REMEDY)
    contents = {MANIFEST: raw, signing.SIGNATURE: signing.verify(folder, raw, trust=trust)}
    return manifest, contents | {name: _read_verified(folder / name, files[name]) for name in FILES}


def _read_verified(path: Path, digest: str) -> bytes:
    expected = f"sha256 {digest[:12]}…, as the manifest says"
    try:
        content = signing.read_bounded(path, LIMITS[path.name])
    except (OSError, ValueError) as error:
        got = f"no file that can be read ({getattr(error, 'strerror', None) or error})"
        raise RunError(str(path), got, expected, _REMEDY) from error
    if (actual := _sha256(content)) != digest:
        raise RunError(str(path), f"sha256 {actual[:12]}…", expected, _REMEDY)
    return content


@contextlib.contextmanager
def _wrap_errors(where: str, expected: str) -> Iterator[None]:
    """Turn whatever a library says about a release's file into a `RunError`."""
    try:
        yield
    except LeptonError:
        raise
    except Exception as error:  # onnxruntime and NumPy have many
        got, remedy = f"what can't be used ({first_line(error)})", "Package the model again."
        raise RunError(where, got[:500], expected, remedy) from error


def _check_sizes(value: Any) -> None:
    """Refuse sizes that no model has, before anything of such a size is made."""
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            _check_sizes(entry)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"the size {value}")


class Scorer:
    """Answers records with a packaged model; one that can't answer isn't made.

    Args:
        folder: A service folder, from `package`; every file is verified against the manifest.
        case: The case; found by the manifest's name if not given.
        trust: Public keys whose signature counts; without it, the user's own alone.

    Raises:
        RunError: A file is missing, changed or not signed by a trusted key, the case has changed
            since the model was packaged, or `check` fails.
        CaseError: There is no such case.
    """

    def __init__(
        self, folder: str | Path, *, case: Case | None = None, trust: Sequence[str] | None = None
    ) -> None:
        self.manifest, contents = read_service(Path(folder), trust=trust)
        # the service needs none of the data
        self.case = case or load_case(self.manifest["case"], verify=False)
        self.version: str = self.manifest["version"]
        packaged = self.manifest["case"], self.manifest["contract"]
        if (self.case.name, contract_of(self.case)) != packaged:
            got = "inputs, classes, costs or bands other than those of the packaged model"
            expected = f"case {packaged[0]!r} as it was then"
            remedy = "Restore case.toml, or run the loop again."
            raise RunError(f"{self.case.name}/case.toml", got, expected, remedy)
        os.environ.update(NO_TELEMETRY)  # read when onnxruntime is imported, which is only here
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # more are slower for models this small
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._costs = decisions.cost_matrix(self.case)
        place = Path(folder)
        with _wrap_errors(str(place / "config.json"), "a model's description"):
            config = msgspec.json.decode(contents["config.json"])
            _check_sizes(config)
            self.margin = msgspec.convert(config.get("margin"), float | None)
            self.codec = Codec(self.case, self.margin)
        with _wrap_errors(str(place / "model.onnx"), "a graph"):
            self._session = onnxruntime.InferenceSession(
                contents["model.onnx"], options, providers=["CPUExecutionProvider"]
            )
        width = len(self.case.fields)
        with _wrap_errors(str(place / "background.npy"), f"float32 (n, {width})"):
            file = io.BytesIO(contents["background.npy"])
            self.background: np.ndarray = np.load(file, allow_pickle=False)
            if self.background.dtype != np.float32 or self.background.shape[1:] != (width,):
                raise ValueError(f"{self.background.dtype} {self.background.shape}")
            self.background[0]
        with _wrap_errors(str(place / "model.onnx"), "a graph that answers"):
            self.check()

    def check(self) -> None:
        """Score the background's rows, and explain the first.

        Raises:
            RunError: What comes isn't what this case's model answers, or what it has answered when
                it was packaged.
            Exception: What onnxruntime says of a graph that can't be run.
        """
        answers = self.probabilities(self.background)
        width = len(self.case.classes) or 1
        wrong = answers.shape != (len(self.background), width)
        if not wrong and self.case.classes:
            shares = np.abs(answers.sum(axis=1) - 1) < 1e-3
            wrong = answers.min() < 0 or not shares.all()
        if not wrong and (packaged := np.array(self.manifest.get("answers", []))).size:
            wrong = packaged.shape != (answers := answers[: len(packaged)]).shape
            limit = TOLERANCE * float(np.abs(packaged).max())
            wrong = wrong or bool(np.abs(answers - packaged).max() > limit)
        if wrong:
            got, expected = "answers that are not this model's", "those of the packaged model"
            raise RunError(f"model {self.version}", got, expected, "Package the model again.")
        self._explain(self.background[:1], self.background[:4])

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """Class probabilities float32 ``(n, n_classes)``, for regression predictions ``(n, 1)``.

        Args:
            inputs: Raw inputs float32 ``(n, len(case.fields))``, from `encode_records` or
                ``data.encode``.

        Raises:
            RunError: The model gave something that is no number.
        """
        result: np.ndarray = self._session.run(["probabilities"], {"records": inputs})[0]
        if not np.isfinite(result).all():
            got, remedy = "an answer that is not a finite number", "Don't use it: train it again."
            raise RunError(f"model {self.version}", got, "numbers", remedy)
        return result

    def score(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Answer raw records.

        Returns:
            For each: ``class`` (the decision of least expected cost; the most probable class where
            the case states no costs), ``probabilities`` by class, and ``action`` and ``band`` where
            the case has them. For regression: ``prediction``, ``unit`` and, with a margin,
            ``interval``, which holds 90 % of targets.

        Raises:
            RecordError: A record that the case refuses: which record and field, got, expected.
            RunError: As for `probabilities`.
        """
        return self.codec.answers.plain(self.answer(encode_records(self.case, records)))

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Probabilities and the decision's index, float32 ``(n, n_classes + 1)``.

        For regression the predictions ``(n, 1)``.

        Raises:
            RunError: As for `probabilities`.
        """
        outputs = self.probabilities(inputs)
        if not self.case.classes:
            return outputs
        chosen = decisions.decide(outputs, self._costs)[:, None].astype(np.float32)
        return np.concatenate([outputs, chosen], axis=1)

    def explain(
        self, records: Sequence[Mapping[str, Any]], cancelled: threading.Event | None = None
    ) -> list[dict[str, Any]]:
        """How much each field moved each answer away from the average one, see `shapley_values`.

        When another thread sets ``cancelled``, this ends with a `CancelledError`.

        Returns:
            For each record: ``of`` (the class whose probability is explained: the positive one of
            two, the decision of several; the unit for regression), ``base`` (the average answer),
            ``value`` (this record's) and ``contributions`` by field, the greatest first. Base and
            contributions add up to the value.

        Raises:
            RecordError: As for `score`.
            RunError: As for `probabilities`.
        """
        rows = encode_records(self.case, records)
        return [self._explain(row[None], self.background, cancelled) for row in rows]

    def _explain(
        self, row: np.ndarray, background: np.ndarray, cancelled: threading.Event | None = None
    ) -> dict[str, Any]:
        case, classes = self.case, self.case.classes
        output = min(len(classes), 1) if len(classes) <= 2 else int(self.answer(row)[0, -1])
        groups, start = [], 0
        for column in case.inputs:
            groups.append(range(start, start + len(column.fields)))
            start = groups[-1].stop

        def one(rows: np.ndarray) -> np.ndarray:
            if cancelled and cancelled.is_set():
                raise CancelledError
            column: np.ndarray = self.probabilities(rows)[:, output]
            return column

        reasons = shapley_values(one, row, background, groups=groups)
        names = [column.name for column in case.inputs]
        parts = zip(names, reasons.contributions[0].tolist(), strict=True)
        return {
            "of": classes[output] if classes else case.target.unit,
            "base": reasons.base,
            "value": float(reasons.values[0]),
            "contributions": dict(sorted(parts, key=lambda part: -abs(part[1]))),
        }
