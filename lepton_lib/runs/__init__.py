"""Parameterised runs of notebooks: checked beforehand, whole or not at all, and resumable.

Knows notebooks, kernels and run folders; doesn't know data, models or what a step computes.
"""

from lepton_lib.errors import needs_extra

with needs_extra("ops", "lepton_lib.runs", "nbclient", "papermill"):
    from lepton_lib.runs.execution import ProgressEvent
    from lepton_lib.runs.notebooks import find_notebook, find_notebooks
    from lepton_lib.runs.pages import write_index
    from lepton_lib.runs.parameters import Parameter, check_parameters, read_parameters
    from lepton_lib.runs.pipeline import Limits, run_loop, run_notebook
    from lepton_lib.runs.records import RunRecord
    from lepton_lib.runs.stored_outputs import refresh_notebooks
    from lepton_lib.runs.summary import RunSummary
    from lepton_lib.runs.sweeps import run, sweep

__all__ = [
    "Limits",
    "Parameter",
    "ProgressEvent",
    "RunRecord",
    "RunSummary",
    "check_parameters",
    "find_notebook",
    "find_notebooks",
    "read_parameters",
    "refresh_notebooks",
    "run",
    "run_loop",
    "run_notebook",
    "sweep",
    "write_index",
]
