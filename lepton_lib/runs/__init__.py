"""Parameterised runs of notebooks: strict where papermill is not, whole or not at all, resumed where cut off.

Knows notebooks, kernels and run folders; doesn't know data, models or what a step computes.
"""

from lepton_lib.errors import needs_extra

with needs_extra("ops", "lepton_lib.runs", "nbclient", "papermill"):
    from lepton_lib.runs.execution import Event
    from lepton_lib.runs.loop import run_loop, run_notebook
    from lepton_lib.runs.pages import write_index
    from lepton_lib.runs.parameters import (
        Parameter,
        check_parameters,
        find_notebook,
        find_notebooks,
        read_parameters,
    )
    from lepton_lib.runs.refresh import refresh_notebooks
    from lepton_lib.runs.summary import RunSummary

__all__ = [
    "Event",
    "Parameter",
    "RunSummary",
    "check_parameters",
    "find_notebook",
    "find_notebooks",
    "read_parameters",
    "refresh_notebooks",
    "run_loop",
    "run_notebook",
    "write_index",
]
