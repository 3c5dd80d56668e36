"""The service's own signals, read from its metrics: shares, latency, saturation, restarts, and one that is gone."""

import re
from importlib.resources import files

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from lepton_lib.errors import RunError
from lepton_lib.operations.service import KEY, limits, read_service

NOW = 1_700_000_000.0
PREDICT = "/v1/predict"


class Counted:
    """The service's counters, without a service."""

    def __init__(self):
        self.registry = CollectorRegistry()
        options = {"registry": self.registry}
        self.requests = Counter("lepton_requests", "Requests", ["route", "status"], **options)
        self.seconds = Histogram("lepton_request_seconds", "Time to answer", ["route"], **options)
        self.predictions = Counter(
            "lepton_predictions", "Predictions kept", ["decision"], **options
        )

    def ask(self, n, *, status="200", seconds=0.004):
        """So many requests to predict; the metrics after them."""
        for _ in range(n):
            self.requests.labels(PREDICT, status).inc()
            self.seconds.labels(PREDICT).observe(seconds)
            if status == "200":
                self.predictions.labels("yes").inc()
        return generate_latest(self.registry)


def readings(metrics_page, *contents, every=60.0):
    """A reading of each content, a minute apart; the last."""
    reading = None
    for i, content in enumerate(contents):
        metrics_page.content = content
        reading = read_service(metrics_page.url, reading, NOW + i * every)
    return reading


def test_the_limits_are_those_of_the_alert_rules():
    """Every alert with a number is found in rules.yml, so that monitor and Prometheus can't disagree."""
    rules = files("lepton_lib.operations").joinpath("rules.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"expr: lepton:\S+ > (0\.\d+)", rules)
    assert sorted(limits().values()) == sorted(map(float, alerts))
    assert set(limits()) == {"errors:ratio", "seconds:p99", "busy:rate", "refusals:ratio"}


def test_the_growth_between_two_readings_is_judged(metrics_page):
    """Rate, shares, quantiles and work at a time count what came since the reading before, not since the start."""
    service = Counted()
    before = service.ask(500, status="503", seconds=2.0)
    service.ask(6, status="422")
    reading = readings(metrics_page, before, service.ask(114, seconds=0.03))
    assert metrics_page.paths == ["/metrics"] * 2
    assert (reading["requests"], reading["rate"], reading["reasons"]) == (120, 2.0, [])
    assert (reading["errors"][0], reading["refusals"][0]) == (0.0, 0.05)
    # straight within the bucket that holds it
    assert 0.025 < reading["p50"] < 0.05 >= reading["p99"] > reading["p50"]
    assert reading["busy"] == pytest.approx((6 * 0.004 + 114 * 0.03) / 60)


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"status": "503"}, "100.0% of 40 requests failed"),
        ({"status": "422"}, "100.0% of 40 requests were refused"),
        ({"seconds": 0.3}, "100.0% of 40 requests took longer than 0.25 s"),
        ({"seconds": 2.0}, "1.33 requests were at work at a time"),
        ({"status": "400"}, "no prediction is kept"),
    ],
)
def test_what_is_wrong_is_named(metrics_page, asked, word):
    """Failures, refusals, slow answers, saturation and lost predictions each give a reason in words."""
    service = Counted()
    reading = readings(metrics_page, service.ask(10), service.ask(40, **asked))
    assert word in " / ".join(reading["reasons"])


def test_one_odd_request_is_no_alarm(metrics_page):
    """One failure among few hundred, and one slow answer among few, prove nothing."""
    service = Counted()
    before = service.ask(10)
    service.ask(1, status="500")
    reading = readings(metrics_page, before, service.ask(300))
    assert reading["reasons"] == []
    assert readings(metrics_page, before, service.ask(1, seconds=0.9))["requests"] == 302
    again = Counted()
    assert readings(metrics_page, again.ask(1), again.ask(1, seconds=0.9))["reasons"] == []


def test_a_restart_sets_the_counters_to_zero(metrics_page):
    """Counters that have fallen began anew: what they hold is what came since, and the restart is noted."""
    reading = readings(metrics_page, Counted().ask(500), Counted().ask(45))
    assert (reading["restarted"], reading["requests"], reading["reasons"]) == (True, 45, [])


def test_a_service_that_is_gone_is_a_finding(metrics_page):
    """No answer, a refusal and a page without metrics are reasons; the counters outlast them."""
    service = Counted()
    reading = readings(metrics_page, service.ask(40))
    for content, word in (
        (None, f"401; put a key into {KEY}"),
        (b"<html>", "Prometheus|can't be read"),
        (b"", "no metrics"),
    ):
        metrics_page.content = content
        reading = read_service(metrics_page.url, reading, NOW + 60)
        assert re.search(word, reading["reasons"][0]), reading["reasons"]
        assert "requests" not in reading
    gone = read_service("http://127.0.0.1:1", reading, NOW + 90)
    assert re.search("can't be read: .*refused", gone["reasons"][0])
    metrics_page.content = service.ask(80)
    back = read_service(f"{metrics_page.url}/metrics", gone, NOW + 120)
    assert (back["requests"], back["seconds"], back["reasons"]) == (80, 120.0, [])
    assert "requests" not in read_service(metrics_page.url, back, NOW), "the clock was put back"
    with pytest.raises(RunError, match="no address"):
        read_service("localhost:8000", None, NOW)


def test_a_key_opens_the_metrics(metrics_page, monkeypatch):
    """Where the service asks for a key, it is taken from the environment."""
    monkeypatch.setenv(KEY, "a key")
    metrics_page.content = None
    assert read_service(metrics_page.url, None, NOW)["reasons"] == []
