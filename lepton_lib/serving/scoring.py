"""A service folder, verified, and its model's answers. Uses onnxruntime; no torch, no pandas."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lepton_lib import decisions
from lepton_lib.cases import Case, encode_records, load_case
from lepton_lib.errors import RunError
from lepton_lib.explanation import shapley_values
from lepton_lib.serving import signing
from lepton_lib.serving.codec import Codec
from lepton_lib.utils import import_onnxruntime

# what the manifest vouches for
FILES = ("model.safetensors", "config.json", "model.onnx", "card.md", "background.npy")
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


def read_service(
    folder: Path, *, trust: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a service folder's manifest and files, once, and verify hashes and signature.

    Returns:
        The manifest, and each file's content, so that what was verified is what is used.

    Raises:
        RunError: The manifest can't be read or isn't signed by a trusted key, or a file is missing
            or isn't the one that was packaged: which.
    """
    path = folder / "manifest.json"
    try:
        raw = path.read_bytes()
        manifest = json.loads(raw)
        files, version = manifest["files"], manifest["version"]
        whole = set(files) == set(FILES) and version == version_of(files, manifest["contract"])
        manifest["case"], manifest["metrics"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing = isinstance(error, FileNotFoundError)
        got = "no such file" if missing else "a file that is no service's manifest"
        remedy = "Run notebook 04_deployment first, with the same run_dir."
        raise RunError(str(path), got, "the manifest of 04_deployment", remedy) from error
    if not whole:
        got = "a version that doesn't follow from the hashes beside it"
        raise RunError(str(path), got, "the manifest as it was written", _REMEDY)
    signing.verify(folder, raw, trust=trust)
    return manifest, {name: _read_verified(folder / name, files[name]) for name in FILES}


def _read_verified(path: Path, digest: str) -> bytes:
    expected = f"sha256 {digest[:12]}…, as the manifest says"
    try:
        content = path.read_bytes()
    except OSError as error:
        got = f"no file that can be read ({error.strerror})"
        raise RunError(str(path), got, expected, _REMEDY) from error
    if (actual := _sha256(content)) != digest:
        raise RunError(str(path), f"sha256 {actual[:12]}…", expected, _REMEDY)
    return content


class Scorer:
    """Answers records with a packaged model.

    Args:
        folder: A service folder, from `package`; every file is verified against the manifest.
        case: The case; found by the manifest's name if not given.
        trust: Public keys whose signature counts; without it, the user's own alone.

    Raises:
        RunError: A file is missing, changed or not signed by a trusted key, or the case has changed
            since the model was packaged.
        CaseError: There is no such case.
    """

    def __init__(
        self, folder: str | Path, *, case: Case | None = None, trust: Sequence[str] | None = None
    ) -> None:
        self.manifest, contents = read_service(Path(folder), trust=trust)
        # the service needs none of the data
        self.case = case or load_case(self.manifest["case"], verify=False)
        self.version: str = self.manifest["version"]
        self.codec = Codec(self.case)
        packaged = self.manifest["case"], self.manifest["contract"]
        if (self.case.name, contract_of(self.case)) != packaged:
            got = "inputs, classes, costs or bands other than those of the packaged model"
            expected = f"case {packaged[0]!r} as it was then"
            remedy = "Restore case.toml, or run the loop again."
            raise RunError(f"{self.case.name}/case.toml", got, expected, remedy)
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        # more are slower for models this small
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            contents["model.onnx"], options, providers=["CPUExecutionProvider"]
        )
        self._costs = decisions.cost_matrix(self.case)
        self.background: np.ndarray = np.load(
            io.BytesIO(contents["background.npy"]), allow_pickle=False
        )

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
            the case has them. For regression: ``prediction`` and ``unit``.

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

    def explain(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """How much each field moved each answer away from the average one, see `shapley_values`.

        Returns:
            For each record: ``of`` (the class whose probability is explained: the positive one of
            two, the decision of several; the unit for regression), ``base`` (the average answer),
            ``value`` (this record's) and ``contributions`` by field, the greatest first. Base and
            contributions add up to the value.

        Raises:
            RecordError: As for `score`.
            RunError: As for `probabilities`.
        """
        return [self._explain(row[None]) for row in encode_records(self.case, records)]

    def _explain(self, row: np.ndarray) -> dict[str, Any]:
        case, classes = self.case, self.case.classes
        output = min(len(classes), 1) if len(classes) <= 2 else int(self.answer(row)[0, -1])
        groups, start = [], 0
        for column in case.inputs:
            groups.append(range(start, start + len(column.fields)))
            start = groups[-1].stop

        def one(rows: np.ndarray) -> np.ndarray:
            column: np.ndarray = self.probabilities(rows)[:, output]
            return column

        reasons = shapley_values(one, row, self.background, groups=groups)
        names = [column.name for column in case.inputs]
        parts = zip(names, reasons.contributions[0].tolist(), strict=True)
        return {
            "of": classes[output] if classes else case.target.unit,
            "base": reasons.base,
            "value": float(reasons.values[0]),
            "contributions": dict(sorted(parts, key=lambda part: -abs(part[1]))),
        }
