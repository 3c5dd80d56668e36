"""The shipped rules in a real Prometheus: well formed, and one fires when the service fails."""

import json
import re
import shutil
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from importlib.resources import files

import pytest

from lepton_lib import serving
from lepton_lib.utils import free_port

RULES = files("lepton_lib.operations").joinpath("rules.yml").read_text(encoding="utf-8")
CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: lepton
    static_configs: [{{targets: ["{target}"]}}]
"""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
RECORD = {"age": 42.125, "income": None, "colour": "red", "when": "2018-03-01T08:00:00"}


def hastened(rules):
    """The same rules over seconds, so that a test needn't wait for minutes."""
    return re.sub(r"for: \d+m", "for: 1s", re.sub(r"\[\d+m\]", "[4s]", rules))


def fetch(url):
    with OPENER.open(url, timeout=5) as answer:
        return json.loads(answer.read())


def ask(url):
    """One prediction; the status of the answer."""
    body = json.dumps({"records": [RECORD]}).encode()
    request = urllib.request.Request(
        f"{url}/v1/predict", body, {"content-type": "application/json"}
    )
    try:
        with OPENER.open(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_for(found, *, seconds, meanwhile):
    """Wait until ``found`` gives something; asks the service in between."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        meanwhile()
        try:
            if result := found():
                return result
        except OSError:  # Prometheus is about to start
            pass
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} s")


@pytest.fixture
def watched(run, tmp_path):
    """A running service, and a Prometheus that scrapes it with the shipped rules."""
    port = free_port()
    with serving.start(run) as service:
        (tmp_path / "rules.yml").write_text(hastened(RULES))
        (tmp_path / "prometheus.yml").write_text(
            CONFIG.format(target=service.url.removeprefix("http://"))
        )
        command = [
            str(shutil.which("prometheus")),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=tsdb",
        ]
        with open(tmp_path / "log", "w") as log:
            process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{port}"],
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
        try:
            yield service, f"http://127.0.0.1:{port}", run
        finally:
            process.terminate()
            process.wait(10)


def test_the_rules_are_well_formed(tmp_path):
    """Promtool accepts every shipped rule, and each alert says what is wrong and what to do."""
    (tmp_path / "rules.yml").write_text(RULES)
    command = [str(shutil.which("promtool")), "check", "rules", str(tmp_path / "rules.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "14 rules found" in done.stdout + done.stderr
    assert (
        len(re.findall("alert:", RULES))
        == len(re.findall("summary:", RULES))
        == len(re.findall("todo:", RULES))
        == 7
    )


def test_an_alert_fires_when_predictions_cannot_be_kept(watched):
    """Prometheus records the service's rate and latency, and an alert fires once requests fail."""
    service, prometheus, folder = watched

    def value(name):
        result = fetch(f"{prometheus}/api/v1/query?query={name}")["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def firing():
        alerts = fetch(f"{prometheus}/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def well():
        assert ask(service.url) == 200

    wait_for(lambda: value("lepton:requests:rate5m"), seconds=20, meanwhile=well)
    wait_for(lambda: value("lepton:predictions:rate5m"), seconds=5, meanwhile=well)
    assert value("lepton:errors:ratio5m") == 0
    assert 0 < value("lepton:seconds:p50_5m") <= value("lepton:seconds:p99_5m")
    assert not firing() - {"LeptonSlow", "LeptonSaturated"}  # a busy machine may be slow
    with sqlite3.connect(folder / "service" / "predictions.sqlite", isolation_level=None) as locked:
        locked.execute("BEGIN EXCLUSIVE")
        assert ask(service.url) == 503
        wait_for(lambda: "LeptonErrors" in firing(), seconds=25, meanwhile=lambda: ask(service.url))
        locked.execute("ROLLBACK")
    locked.close()
    wait_for(lambda: "LeptonErrors" not in firing(), seconds=20, meanwhile=lambda: ask(service.url))
