"""Models that take raw records: preprocessing, networks, and how both are stored and exported.

Knows cases and tensors; doesn't know training, files of a run or services.
"""

from lepton_lib.models.networks import MLP, Blend, Ensemble, LinearModel
from lepton_lib.models.preprocessing import Preprocessor
from lepton_lib.models.tabular import TabularModel, build_model, export_onnx, load_model, save_model

__all__ = [
    "MLP",
    "Blend",
    "Ensemble",
    "LinearModel",
    "Preprocessor",
    "TabularModel",
    "build_model",
    "export_onnx",
    "load_model",
    "save_model",
]
