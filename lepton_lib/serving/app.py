"""The service of a run folder as an ASGI application: routes under the middleware."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lepton_lib.serving import releases
from lepton_lib.serving.api_keys import Keys, keys_file
from lepton_lib.serving.log import PredictionLog
from lepton_lib.serving.middleware import ServiceMiddleware
from lepton_lib.serving.predictor import Predictor
from lepton_lib.serving.routes import GUARDED, ROUTES, make_router
from lepton_lib.serving.scoring import Scorer


class PredictionApp(ServiceMiddleware):
    """The ASGI application. Made by `create_app`."""

    def __init__(self, predictor: Predictor, keys: Keys) -> None:
        router = make_router(predictor, keys, lambda _: self.watching(predictor.refresh))
        super().__init__(
            router,
            metrics=predictor.metrics,
            routes=ROUTES,
            guarded=GUARDED.__contains__,
            keys=keys,
            log=predictor.log,
        )
        self.predictor = predictor

    @property
    def scorer(self) -> Scorer:
        """The model that answers now."""
        return self.predictor.scorer


def create_app(
    run_dir: str | Path,
    *,
    trust: Sequence[str] | None = None,
    require_key: bool = False,
    workers: int = 1,
) -> PredictionApp:
    """The service of a run folder: its current release verified and loaded, its log opened.

    Where that release can't answer, the last one before it that can does, and the log says so.

    Args:
        run_dir: The run folder.
        trust: Public keys whose signature counts; without it, the user's own alone.
        require_key: Demand an API key, also where the run has none yet.
        workers: How many processes share the log and the keys' rates.

    Raises:
        RunError: A file is missing, changed or signed by a stranger, or the log can't be written
            to.
        CaseError: The case isn't there.
    """
    scorer, failure = releases.load_current(run_dir, trust=trust)
    keys = Keys(keys_file(run_dir), required=require_key, share=1 / workers)
    path = Path(run_dir) / "service" / "predictions.sqlite"
    log = PredictionLog(path, timeout=0.2 if workers == 1 else 2.0)
    log.check_pages()
    predictor = Predictor(run_dir, scorer, log, trust=trust)
    if failure:
        predictor.refuse(releases.current_version(run_dir), failure)
    return PredictionApp(predictor, keys)
