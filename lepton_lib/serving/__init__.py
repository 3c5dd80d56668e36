"""The service: a model packaged, verified and deployed over HTTP, with every answer stored.

Knows cases and service folders; the part that answers needs neither torch nor pandas.
"""

from pathlib import Path
from typing import Any

from lepton_lib.errors import needs_extra

with needs_extra("serve", "lepton_lib.serving", "fastapi"):
    from lepton_lib.serving import releases
    from lepton_lib.serving.local_service import LocalService, start
    from lepton_lib.serving.log import PredictionLog, attach_labels
    from lepton_lib.serving.log_reading import read_log
    from lepton_lib.serving.packaging import check_parity, model_card, package
    from lepton_lib.serving.scoring import Scorer
    from lepton_lib.serving.server import serve


def create_app(run_dir: str | Path, **options: Any) -> Any:
    """`lepton_lib.serving.app.create_app`, whose libraries are imported only when it is called."""
    from lepton_lib.serving.app import create_app

    return create_app(run_dir, **options)


__all__ = [
    "LocalService",
    "PredictionLog",
    "Scorer",
    "attach_labels",
    "check_parity",
    "create_app",
    "model_card",
    "package",
    "read_log",
    "releases",
    "serve",
    "start",
]
