"""What a service counts, for Prometheus; and its own log: JSON lines without anything of a body."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from functools import lru_cache

import prometheus_client as prometheus
from prometheus_client import multiprocess

_logger = logging.getLogger("lepton.serving")


def log_event(event: str, **values: object) -> None:
    """Write one line."""
    _logger.info(json.dumps({"event": event, **values}))


def log_error(event: str, **values: object) -> None:
    """Write one line about something that went wrong."""
    _logger.error(json.dumps({"event": event, **values}))


class Metrics:
    """Counters of one process. Where several workers share a folder, what is read is their sum."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        requests = self._counter("lepton_requests", "Requests", "route", "status")
        stored = self._counter("lepton_predictions", "Predictions kept", "decision")
        self.releases_refused = self._counter(
            "lepton_releases_refused", "Releases that could not be verified"
        )
        seconds = prometheus.Histogram(
            "lepton_request_seconds", "Time to answer", ["route"], registry=self.registry
        )
        # Looking a label up anew each time takes long.
        self._requests = lru_cache(256)(requests.labels)
        self._seconds = lru_cache(256)(seconds.labels)
        self._predictions = lru_cache(256)(stored.labels)
        self._model = prometheus.Gauge(
            "lepton_model",
            "The model that answers",
            ["case", "version"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(name, meaning, labels, registry=self.registry)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests(route, str(status)).inc()
        self._seconds(route).observe(seconds)

    def count_predictions(self, counts: Mapping[str, int]) -> None:
        """Count stored predictions by their decision."""
        for decision, count in counts.items():
            self._predictions(decision).inc(count)

    def set_model(self, case: str, version: str, *, answers: bool) -> None:
        """Note whether a model answers now."""
        self._model.labels(case, version).set(answers)

    def collect(self) -> prometheus.CollectorRegistry:
        """What is counted, of all workers together."""
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return self.registry
        registry = prometheus.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
