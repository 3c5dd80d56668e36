"""The service's own signals, from two readings of its Prometheus metrics: rate, errors, latency, saturation.

The limits are those of the shipped alert rules, read from rules.yml. Knows HTTP and Prometheus's
text; no run folders.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from importlib.resources import files
from itertools import pairwise
from typing import Any

from lepton_lib.errors import RunError
from lepton_lib.monitoring import MIN_ROWS
from lepton_lib.monitoring.performance import wilson

KEY = "LEPTON_API_KEY"  # the variable with the key, where the service asks for one
PATIENCE = 5.0  # seconds that the service may take to answer
LARGEST = 1 << 22  # bytes of metrics
ROUTE = 'route="/v1/predict"'
_KEPT = re.compile(
    r"lepton_(requests_total|request_seconds_(bucket|sum)|predictions_total|releases_refused_total)\b"
)
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@functools.cache
def limits() -> dict[str, float]:
    """The shipped alerts' limits: a recording rule's name, without window, to the value above which it rings."""
    rules = files("lepton_lib.operations").joinpath("rules.yml").read_text(encoding="utf-8")
    found = re.findall(r"expr: lepton:(\w+:\w+?)_?5m > ([\d.]+)$", rules, flags=re.MULTILINE)
    return {name: float(limit) for name, limit in found}


def read_service(url: str, before: dict[str, Any] | None, now: float) -> dict[str, Any]:
    """Read the metrics at ``url`` and judge what has happened since the reading before.

    Args:
        url: The service's address, or that of its metrics.
        before: The last reading, as this function gave it; None for the first.
        now: POSIX seconds.

    Returns:
        Plain values: ``time``; ``counters``, with their time, as they were last read; ``seconds``
        between the two readings, ``requests``, ``restarted``, ``rate`` (a second), ``errors`` and
        ``refusals`` (shares with their 95 % intervals), ``p50`` and ``p99`` (seconds), ``busy``
        (requests at work at a time), as far as they can be told; ``reasons``: what is wrong,
        nothing where all is well. A service that doesn't answer is a reason.

    Raises:
        RunError: That is no address.
    """
    if not re.match(r"https?://[^/]", url):
        raise RunError(
            f"--metrics {url}",
            "no address",
            "one such as http://127.0.0.1:8000",
            "Take the address that `lepton serve` names when it starts.",
        )
    last: dict[str, Any] = (before or {}).get("counters") or {}
    reading: dict[str, Any] = {"time": now, "counters": last, "reasons": []}
    try:
        counted = _fetch(url)
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        return reading | {"reasons": [f"the service's metrics can't be read: {why}"]}
    reading["counters"] = {"time": now, "values": counted}
    if not last or now <= last["time"]:  # the first reading, or the clock was put back
        return reading
    return reading | _judge(counted, last["values"], now - last["time"])


def _fetch(url: str) -> dict[str, float]:
    """The counters at that address, each by its name and labels."""
    from prometheus_client.parser import text_string_to_metric_families

    place = url if re.search(r"//[^/]+/.", url) else f"{url.rstrip('/')}/metrics"
    request = urllib.request.Request(place)
    if key := os.environ.get(KEY):
        request.add_header("authorization", f"Bearer {key}")
    try:
        with contextlib.closing(_NO_PROXY.open(request, timeout=PATIENCE)) as answer:
            text = answer.read(LARGEST).decode()
    except urllib.error.HTTPError as error:
        with error:
            hint = f"; put a key into {KEY}" if error.code == 401 else ""
            raise ValueError(f"it answers {error.code}{hint}") from error
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    counted = {
        each.name
        + "".join(f' {name}="{value}"' for name, value in sorted(each.labels.items())): each.value
        for each in samples
        if _KEPT.match(each.name)
    }
    if not counted and not any(each.name == "lepton_model" for each in samples):
        raise ValueError("what stands there are no metrics of a service of this kit")
    return counted


def _judge(counted: dict[str, float], before: dict[str, float], seconds: float) -> dict[str, Any]:
    """What the counters' growth says; one that has fallen was set to zero by a restart, as Prometheus takes it."""
    grown = {
        name: value - (was if (was := before.get(name, 0.0)) <= value else 0.0)
        for name, value in counted.items()
    }
    restarted = any(counted.get(name, 0.0) < was for name, was in before.items())

    def total(*parts: str) -> float:
        return sum(value for name, value in grown.items() if all(part in name for part in parts))

    requests = round(total("lepton_requests_total", ROUTE))
    found: dict[str, Any] = {"seconds": seconds, "requests": requests, "restarted": restarted}
    found |= {"rate": requests / seconds, "busy": total("lepton_request_seconds_sum") / seconds}
    reasons = []
    if requests:
        for name, status, word in (("errors", "5", "failed"), ("refusals", "4", "were refused")):
            share = wilson(
                round(total("lepton_requests_total", ROUTE, f'status="{status}')), requests
            )
            found[name] = list(share)
            if share[1] > limits()[f"{name}:ratio"]:
                reasons.append(
                    f"{share[0]:.1%} of {requests} requests {word}, certainly more than the limit"
                )
    steps = sorted(
        (float(re.findall('le="([^"]+)"', name)[0].replace("+Inf", "inf")), value)
        for name, value in grown.items()
        if "_bucket" in name and ROUTE in name
    )
    if steps and steps[-1][1] > 0:
        found |= {name: _quantile(steps, share) for name, share in (("p50", 0.5), ("p99", 0.99))}
        limit, timed = limits()["seconds:p99"], round(steps[-1][1])
        slow = timed - round(max((value for edge, value in steps if edge <= limit), default=0.0))
        if timed >= MIN_ROWS and wilson(slow, timed)[1] > 0.01:
            reasons.append(f"{slow / timed:.1%} of {timed} requests took longer than {limit:g} s")
    if found["busy"] > limits()["busy:rate"]:
        reasons.append(
            f"{found['busy']:.2f} requests were at work at a time: the service is about to be saturated"
        )
    if total("lepton_releases_refused_total"):
        reasons.append("a promoted release could not be verified; the one before goes on answering")
    if requests >= MIN_ROWS and not total("lepton_predictions_total"):
        reasons.append("requests come in, and no prediction is kept")
    return found | {"reasons": reasons}


def _quantile(steps: list[tuple[float, float]], share: float) -> float:
    """A histogram's quantile, straight between two edges, as Prometheus's ``histogram_quantile`` has it."""
    wanted = share * steps[-1][1]
    for (low, below), (high, upto) in pairwise([(0.0, 0.0), *steps]):
        if upto >= wanted:
            return (
                low
                if high == float("inf")
                else low + (high - low) * (wanted - below) / (upto - below)
            )
    raise AssertionError("the last step holds all requests")
