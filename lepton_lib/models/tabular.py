"""A case's model: preprocessing, network and temperature; raw records in, probabilities out."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from lepton_lib.cases import Case
from lepton_lib.cases.tasks import Task, find_task
from lepton_lib.errors import DataError, LeptonError, needs_extra
from lepton_lib.models.networks import MLP, Blend, Ensemble, LinearModel
from lepton_lib.models.preprocessing import Encoding, Preprocessor
from lepton_lib.models.trees import Trees
from lepton_lib.utils import first_line, one_thread, sha256_of, to_json, write_atomic

Kind = Literal["linear", "mlp", "ensemble", "trees", "blend"]


class TabularModel(nn.Module):
    """Raw inputs ``(b, d)`` to logits ``(b, k)``; for regression ``(b, 1)`` in the target's unit.

    Args:
        preprocessor: Fitted on training rows.
        network: From encoded inputs to outputs.
        task: What the outputs mean. Two classes have one logit, of the positive (second) class.
        config: How to build the same model again; stored beside the weights.
    """

    def __init__(
        self, preprocessor: Preprocessor, network: nn.Module, task: Task, config: dict[str, Any]
    ) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.network = network
        self.task = task
        self.config = config
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_scale", torch.ones(()))

    temperature: torch.Tensor
    target_mean: torch.Tensor
    target_scale: torch.Tensor

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Logits or predicted numbers; an `Ensemble` in training adds a leading axis of members."""
        return self.finish(self.network(self.preprocessor(raw)))

    def finish(self, outputs: torch.Tensor) -> torch.Tensor:
        """The network's outputs in the target's unit, or divided by the temperature."""
        if self.task == "regression":
            return outputs * self.target_scale + self.target_mean
        return outputs / self.temperature

    def probabilities(self, raw: torch.Tensor) -> torch.Tensor:
        """Class probabilities ``(b, n_classes)``; for regression the predictions ``(b, 1)``."""
        return self.task.to_probabilities(self(raw))

    @torch.no_grad()
    def predict(self, raw: torch.Tensor | np.ndarray) -> np.ndarray:
        """`probabilities` without gradients, in evaluation mode, float64; the mode is restored.

        Raises:
            DataError: The width isn't the fields'.
        """
        was_training = self.training
        self.eval()
        result = self.probabilities(self.preprocessor.as_raw(raw)).cpu().numpy()
        self.train(was_training)
        return np.asarray(result, dtype=np.float64)


@one_thread()
def build_model(
    case: Case,
    inputs: torch.Tensor | np.ndarray,
    labels: torch.Tensor | np.ndarray,
    *,
    kind: Kind = "ensemble",
    encoding: Encoding = "piecewise",
    **options: Any,
) -> TabularModel:
    """A model for a case: preprocessing fitted on the training rows, weights freshly drawn.

    Args:
        case: The case.
        inputs: Raw training inputs ``(n, d)``, from `lepton_lib.data.encode`.
        labels: Training labels ``(n,)``; used for the target's mean and scale in regression only.
        kind: The network; trees have yet to be grown, by `lepton_lib.trainer.fit_model`.
        encoding: Of the numbers.
        **options: For the network: ``hidden_size``, ``n_layers``, ``n_members``, ``dropout``.
    """
    with_trees = kind in ("trees", "blend")
    preprocessor = Preprocessor.for_case(case, encoding=encoding, keep_raw=with_trees).fit(inputs)
    config = {
        "case": case.name,
        "task": case.task,
        "kind": kind,
        "output_size": case.n_outputs,
        "options": options,
        "preprocessor": preprocessor.config,
    }
    model = _assemble(config, preprocessor)
    if case.task == "regression":
        target = torch.as_tensor(labels, dtype=torch.float32)
        model.target_mean, model.target_scale = (
            target.mean(),
            target.std(correction=0).clamp_min(1e-12),
        )
    return model


def _assemble(config: dict[str, Any], preprocessor: Preprocessor) -> TabularModel:
    width, outputs, options = preprocessor.output_size, config["output_size"], config["options"]
    members = {"regression": config["task"] == "regression"} | options
    network: nn.Module
    match config["kind"]:
        case "linear":
            network = LinearModel(width, outputs, **options)
        case "mlp":
            network = MLP(width, outputs, **options)
        case "ensemble":
            network = Ensemble(width, outputs, **members)
        case "trees":
            network = Trees(outputs)
        case "blend":
            ensemble = Ensemble(width - preprocessor.n_raw, outputs, **members)
            network = Blend(ensemble, Trees(outputs), preprocessor.n_raw)
        case other:
            expected = f"one of {', '.join(get_args(Kind))}"
            raise DataError("model kind", repr(other), expected, "Choose one of them.")
    return TabularModel(preprocessor, network, find_task(config["task"]), config)


def save_model(model: TabularModel, *, weights: Path, config: Path) -> None:
    """Store a model as safetensors and JSON: no pickle, nothing that runs when it is read.

    The JSON holds the weights' SHA-256, for safetensors itself reads a flipped byte without a word.
    """
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    write_atomic(weights, save(state))
    write_atomic(config, to_json(model.config | {"weights_sha256": sha256_of(weights)}))


def load_model(*, weights: Path, config: Path) -> TabularModel:
    """Read a model back, in evaluation mode.

    Raises:
        DataError: One of the files is no such file, or they don't belong together.
    """
    try:
        description = json.loads(config.read_text(encoding="utf-8"))
        if description.pop("weights_sha256") != sha256_of(weights):
            raise ValueError("the weights are not the ones that the configuration was stored with")
        state = load_file(weights)
        sizes = [size for _, size in description["preprocessor"]["fields"]]
        layers = description["options"].get("n_layers", 1)
        if max(sizes, default=0) > len(state["preprocessor.level"]) or layers > len(state):
            raise ValueError("sizes that the weights don't have")
        preprocessor = Preprocessor(**description["preprocessor"])
        prefix = "preprocessor."
        preprocessor.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
        with torch.device("meta"):  # takes no memory: the weights come from the file
            model = _assemble(description, preprocessor)
        model.load_state_dict(state, assign=True)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
        LeptonError,
    ) as error:
        raise DataError(
            f"{weights.name} and {config.name}",
            f"files that make no model ({first_line(error)})",
            "what save_model wrote",
            "Run notebook 02_training again.",
        ) from error
    return model.eval()


def export_onnx(model: TabularModel, path: Path) -> None:
    """Write the whole graph, from raw records to probabilities, as ONNX.

    Input ``records`` float32 ``(batch, d)``, NaN where missing; output ``probabilities`` float32
    ``(batch, n_classes)``, or ``(batch, 1)`` in the target's unit for regression.
    """
    import logging
    import warnings

    with needs_extra("serve", "export_onnx", "onnxscript"):
        import onnx

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = copy.deepcopy(model)  # the caller's stays in its mode and on its device

        def forward(self, records: torch.Tensor) -> torch.Tensor:
            return self.model.probabilities(records)

    graph = Graph().eval().cpu()
    trees = [module for module in graph.modules() if isinstance(module, Trees)]
    for module in trees:
        module.exporting = True
    sample = torch.zeros(2, len(model.config["preprocessor"]["fields"]))
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own future
            program = torch.onnx.export(
                graph,
                (sample,),
                input_names=["records"],
                output_names=["probabilities"],
                dynamic_shapes={"records": {0: torch.export.Dim("batch")}},
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    proto = program.model_proto
    for node in [
        *proto.graph.node,
        *(node for function in proto.functions for node in function.node),
    ]:
        del node.metadata_props[:]  # the exporter writes stack traces with this machine's paths
        node.doc_string = ""
        if node.op_type == "TreeEnsembleRegressor":  # through the exporter it would take a minute
            del node.attribute[:]
            attributes = trees[0].onnx_attributes().items()
            node.attribute.extend(onnx.helper.make_attribute(*each) for each in attributes)
    del proto.graph.metadata_props[:]
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        del value.metadata_props[:]
    onnx.checker.check_model(proto)
    write_atomic(path, proto.SerializeToString())
