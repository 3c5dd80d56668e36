"""A service folder, verified, and what it answers to records. Knows cases and onnxruntime; no torch, no pandas."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lepton_lib.cases import Case, encode_records, load_case
from lepton_lib.errors import RunError
from lepton_lib.explanation import shapley_values
from lepton_lib.serving import signing
from lepton_lib.serving.batches import Rules

# what the manifest vouches for
FILES = ("model.safetensors", "config.json", "model.onnx", "card.md", "background.npy")
_REMEDY = "Bring the service folder back as it was, or run notebook 04_deployment again."


def contract_of(case: Case) -> str:
    """SHA-256 of what a model and its clients rely on in a case: the inputs' rules, the classes, costs and bands."""
    rules = ("name", "kind", "unit", "min", "max", "categories", "parts", "nullable")
    empty = {"categories": (), "parts": ()}
    parts = [{r: getattr(column, r, empty.get(r)) for r in rules} for column in case.inputs]
    rest = [part.model_dump() if part else None for part in (case.costs, case.bands)]
    return hashlib.sha256(
        json.dumps([parts, case.classes, rest], sort_keys=True).encode()
    ).hexdigest()


def version_of(files: Mapping[str, str], contract: str) -> str:
    """The model's version: twelve digits that follow from the content alone, never from a date."""
    return hashlib.sha256(json.dumps([dict(files), contract], sort_keys=True).encode()).hexdigest()[
        :12
    ]


def read_service(
    folder: Path, *, trust: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a service folder's manifest and files, once, and compare them; see who signed.

    Args:
        folder: The folder.
        trust: Public keys whose signature counts; without it, the user's own alone.

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
        got = (
            "no such file"
            if isinstance(error, FileNotFoundError)
            else "a file that is no service's manifest"
        )
        raise RunError(
            str(path),
            got,
            "the manifest that notebook 04_deployment writes",
            "Run notebook 04_deployment first, with the same run_dir.",
        ) from error
    if not whole:
        raise RunError(
            str(path),
            "a version that doesn't follow from the hashes beside it",
            "the manifest as it was written",
            _REMEDY,
        )
    signing.verify(folder, raw, trust=trust)
    contents: dict[str, bytes] = {}
    for name in FILES:
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise RunError(
                str(folder / name),
                f"no file that can be read ({error.strerror})",
                f"sha256 {files[name][:12]}…",
                _REMEDY,
            ) from error
        if (actual := hashlib.sha256(contents[name]).hexdigest()) != files[name]:
            raise RunError(
                str(folder / name),
                f"sha256 {actual[:12]}…",
                f"{files[name][:12]}…, as the manifest says",
                _REMEDY,
            )
    return manifest, contents


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
        self.rules = Rules(self.case)
        if (
            self.case.name != self.manifest["case"]
            or contract_of(self.case) != self.manifest["contract"]
        ):
            raise RunError(
                f"{self.case.name}/case.toml",
                "inputs, classes, costs or bands other than those that the model was packaged with",
                f"case {self.manifest['case']!r} as it was then",
                "Bring case.toml back, or run the loop again.",
            )
        options = onnxruntime.SessionOptions()
        # more are slower for models this small
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            contents["model.onnx"], options, providers=["CPUExecutionProvider"]
        )
        names = self.case.classes
        costs = self.case.costs
        self._costs = (
            np.array([[costs.matrix[t][d] for d in names] for t in names])
            if costs
            else 1 - np.eye(len(names))
        )
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
            raise RunError(
                f"model {self.version}",
                "an answer that is not a finite number",
                "numbers",
                "Don't use this model: train it again and look at its history.",
            )
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
        return self.rules.answers.plain(self.answer(encode_records(self.case, records)))

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Probabilities and the decision's index, float32 ``(n, n_classes + 1)``; for regression ``(n, 1)``.

        Raises:
            RunError: As for `probabilities`.
        """
        told = self.probabilities(inputs)
        if not self.case.classes:
            return told
        return np.concatenate([told, self.decide(told)[:, None].astype(np.float32)], axis=1)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """The index of the class of least expected cost, int64 ``(n,)``, for probabilities ``(n, n_classes)``."""
        decisions: np.ndarray = (probabilities.astype(np.float64) @ self._costs).argmin(1)
        return decisions

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
        case, inputs = self.case, encode_records(self.case, records)
        groups, start = [], 0
        for column in case.inputs:
            groups.append(range(start, start + len(column.fields)))
            start = groups[-1].stop
        answers = []
        for row in inputs:
            output = 0 if not case.classes else 1
            if len(case.classes) > 2:
                output = int(self.decide(self.probabilities(row[None]))[0])

            def one(rows: np.ndarray, output: int = output) -> np.ndarray:
                told: np.ndarray = self.probabilities(rows)[:, output]
                return told

            reasons = shapley_values(one, row[None], self.background, groups=groups)
            parts = zip(
                (column.name for column in case.inputs),
                reasons.contributions[0].tolist(),
                strict=True,
            )
            answers.append(
                {
                    "of": case.classes[output] if case.classes else case.target.unit,
                    "base": reasons.base,
                    "value": float(reasons.values[0]),
                    "contributions": dict(sorted(parts, key=lambda part: -abs(part[1]))),
                }
            )
        return answers
