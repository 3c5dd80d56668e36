"""What papermill finds as its engine ``lepton``; imports nothing, as papermill loads every engine.

See `papermill_engine`, which needs papermill's classes: importing them here would import this
module again, half loaded.
"""

from __future__ import annotations

from typing import Any


class LeptonEngine:
    """The methods that papermill calls. The notebooks are Python's, whatever they say."""

    @staticmethod
    def execute_notebook(nb: Any, kernel_name: str, **options: Any) -> Any:
        """Run a notebook; see `papermill_engine.CheckedEngine`."""
        from lepton_lib.runs.papermill_engine import CheckedEngine

        return CheckedEngine.execute_notebook(nb, kernel_name, **options)

    @staticmethod
    def nb_kernel_name(_: Any, name: str | None = None) -> str:
        """The kernel's name, for papermill's translation of values."""
        return name or "python3"

    @staticmethod
    def nb_language(_: Any, name: str | None = None) -> str:
        """The notebook's language."""
        return name or "python"
