"""For a plain ``pytest --nbval notebooks/``: the variables that its outputs were made with."""

import os

import pytest

from lepton_lib.utils import NO_TELEMETRY, SAME_BITS


def pytest_configure(config: pytest.Config) -> None:
    """Set them for the notebooks' kernels; other tests have `tests.conftest`."""
    if config.getoption("nbval", False):
        for name, value in {"TQDM_DISABLE": "1", **SAME_BITS, **NO_TELEMETRY}.items():
            os.environ.setdefault(name, value)
