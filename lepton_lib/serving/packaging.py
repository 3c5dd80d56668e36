"""From a trained model to a service folder: weights, graph, card, manifest.

torch is imported where a model comes in.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_lib.cases import Case
from lepton_lib.errors import RunError
from lepton_lib.serving import signing
from lepton_lib.serving.scoring import FILES, Scorer, contract_of, version_of
from lepton_lib.utils import render, sha256_of, to_json, write_atomic

if TYPE_CHECKING:
    from lepton_lib.models import TabularModel

TOLERANCE = 1e-6
BACKGROUND_ROWS = 64
ANSWERED_ROWS = 4  # of them, whose answers the manifest states


def package(
    folder: Path,
    model: TabularModel,
    case: Case,
    *,
    metrics: Mapping[str, Any],
    gate: Mapping[str, Any],
    comparison: Mapping[str, Any],
    background: np.ndarray,
) -> dict[str, Any]:
    """Write what a service needs: `FILES`, then manifest.json and its signature by the user's key.

    Args:
        folder: Where to; must exist.
        model: Trained and calibrated: its temperature goes with the weights.
        case: Its case.
        metrics: ``evaluation/metrics.json``; goes into the card and the manifest.
        gate: ``evaluation/gate.json``; goes into the card.
        comparison: ``model/comparison.json``; goes into the card.
        background: Raw inputs of training rows float32 ``(n, len(case.fields))``. Reasons
            compare with rows that are put together from them, each value from another row, so
            that no row of the file belongs to a person.

    Returns:
        The manifest: version, case, contract (hash of the case's rules), files' sha256, metrics,
        the time of packaging and the answers to the first background rows.
    """
    from lepton_lib.models import export_onnx, save_model

    save_model(model, weights=folder / "model.safetensors", config=folder / "config.json")
    export_onnx(model, folder / "model.onnx")
    write_atomic(folder / "card.md", model_card(case, model.config, metrics, gate, comparison))
    shape = (BACKGROUND_ROWS, background.shape[1])
    drawn = np.random.default_rng(0).integers(0, len(background), shape)
    rows = np.take_along_axis(background, drawn, axis=0).astype(np.float32)
    content = io.BytesIO()
    np.save(content, rows, allow_pickle=False)
    write_atomic(folder / "background.npy", content.getvalue())
    files = {name: sha256_of(folder / name) for name in FILES}
    contract = contract_of(case)
    manifest = {
        "version": version_of(files, contract),
        "case": case.name,
        "contract": contract,
        "files": files,
        "metrics": dict(metrics),
        "packaged": time.time_ns(),
        "answers": model.predict(rows[:ANSWERED_ROWS]),
    }
    write_atomic(folder / signing.SIGNATURE, signing.sign(to_json(manifest).encode()))
    write_atomic(folder / "manifest.json", to_json(manifest))
    return manifest


def check_parity(model: TabularModel, scorer: Scorer, inputs: np.ndarray) -> float:
    """The greatest difference between the answers of the model in torch and of its exported graph.

    Args:
        model: In torch.
        scorer: The same model, packaged.
        inputs: Raw inputs float32 ``(n, len(case.fields))``.

    Returns:
        In probabilities; for regression in standard deviations of the training target.

    Raises:
        RunError: It exceeds 1e-6: the graph is not the model that was judged.
    """
    scale = float(model.target_scale) if model.task == "regression" else 1.0
    difference = float(np.abs(model.predict(inputs) - scorer.probabilities(inputs)).max()) / scale
    if not difference <= TOLERANCE:
        got = f"answers that differ from the model's by {difference:.1e}"
        remedy = "Package the model that was evaluated, in evaluation mode."
        raise RunError("model.onnx", got, f"at most {TOLERANCE:.0e}", remedy)
    return difference


def model_card(
    case: Case,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    gate: Mapping[str, Any],
    comparison: Mapping[str, Any],
) -> str:
    """The model card as Markdown: the model's use, origin, quality and risks.

    After Mitchell et al., Model Cards for Model Reporting, 2019.
    """
    return render(
        "serving/templates/card.md",
        case=case,
        kind=config["kind"],
        metrics=metrics,
        gate=gate,
        models=comparison["models"],
        background_rows=BACKGROUND_ROWS,
    )
