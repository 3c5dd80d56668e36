"""The service against its peers, on loopback, with wrk: rate, CPU of a request, 99th percentile.

Rounds are interleaved, so that noise hits all alike; every ratio is the median of the rounds' own
ratios. Also: 100 times kill -9 under load.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil

from lepton_lib import serving
from lepton_lib.cases import encode_records, load_case
from lepton_lib.data import to_records
from lepton_lib.serving import api_keys
from lepton_lib.utils import free_port
from tests.benchmarks.environments import ROOT, environment
from tests.benchmarks.peers import KEY
from tests.benchmarks.timing import Row

ROUNDS, SECONDS = 5, 4
KILLS = 100


def rows() -> list[Row]:
    """Ratios to bare FastAPI + torch and to FastAPI with the same guards; kills."""
    if shutil.which("wrk") is None:
        return [("serving against its peers", "not measured: wrk is missing (apt install wrk)", "")]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = loop(Path(folder))
        return [*_ratios(run_dir, Path(folder)), _kills(run_dir)]


def loop(folder: Path) -> Path:
    """A run folder of the credit case, with a packaged model."""
    command = [sys.executable, "-m", "lepton_lib.cli", "run", "loop", "--case", "credit", "--out"]
    subprocess.run([*command, str(folder / "credit")], check=True, capture_output=True)
    return folder / "credit"


def _ratios(run_dir: Path, folder: Path) -> list[Row]:
    case = load_case("credit", verify=False)
    records = to_records(pd.read_parquet(run_dir / "data" / "test.parquet"), case)[:256]
    key = api_keys.add_key(api_keys.keys_file(run_dir), "bench", rate=1e9)
    bodies = {
        "one": json.dumps({"records": records[:1]}).encode(),
        "256": json.dumps({"records": records}).encode(),
    }
    heads = {"content-type": "application/json", "x-api-key": KEY}
    ours = heads | {"x-api-key": key}
    pythons = dict.fromkeys(("bare", "frame", "stock"), sys.executable)
    result: list[Row] = []
    for peer in ("litserve", "bentoml"):
        python, why = environment(peer)
        if python is None:
            result.append((f"{peer}, 1 row, to bare", f"not installed: {why}", ""))
        else:
            pythons[peer] = str(python)
    with contextlib.ExitStack() as stack:
        services = {"ours": stack.enter_context(_service(run_dir))}
        for peer, command in pythons.items():
            services[peer] = stack.enter_context(_peer(peer, run_dir, command))
        probabilities = {
            name: _answers(url, ours if name == "ours" else heads, bodies["256"])
            for name, (url, _) in services.items()
        }
        for name, answers in probabilities.items():
            assert np.abs(answers - probabilities["ours"]).max() < 1e-5, f"{name} answers otherwise"
        tried = {
            (name, size): (heads if name != "ours" else ours, bodies[size])
            for name in services
            for size in bodies
        }
        measured: dict[tuple[str, str], list[dict[str, float]]] = {what: [] for what in tried}
        for _ in range(ROUNDS):
            for (name, size), (headers, body) in tried.items():
                figures = _wrk(
                    services[name], headers, body, folder, connections=32 if size == "one" else 4
                )
                measured[name, size].append(figures)

    def ratio(of: tuple[str, str], to: tuple[str, str], figure: str) -> str:
        pairs = zip(measured[of], measured[to], strict=True)
        return f"{statistics.median(one[figure] / other[figure] for one, other in pairs):.2f}"

    best = max(measured["ours", "one"], key=lambda figures: figures["rate"])
    result += [
        (
            "guarded and durable, 1 row, 32 connections: to bare FastAPI + torch",
            ratio(("ours", "one"), ("bare", "one"), "rate"),
            ">= 4.5",
        ),
        (
            "the same, to FastAPI with the same guards",
            ratio(("ours", "one"), ("stock", "one"), "rate"),
            ">= 5",
        ),
        ("CPU per request, to bare", ratio(("ours", "one"), ("bare", "one"), "cpu"), "<= 0.28"),
        ("99th percentile, to bare", ratio(("ours", "one"), ("bare", "one"), "p99"), "<= 0.45"),
        ("256 rows as JSON, to bare", ratio(("ours", "256"), ("bare", "256"), "rate"), ">= 3"),
        (
            "requests a second, CPU of one, p99",
            f"{best['rate']:.0f}/s, {1e3 * best['cpu']:.3f} ms, {best['p99']:.1f} ms",
            "",
        ),
    ]
    model_cpu = _model_cpu(run_dir, encode_records(case, records))
    part = model_cpu / statistics.median(figures["cpu"] for figures in measured["ours", "256"])
    what = "256 rows: the model's own part of the CPU, which no service can save"
    result.append((what, f"{part:.2f}", ""))
    for size, what in (("one", "1 row"), ("256", "256 rows")):
        value = ratio(("ours", size), ("frame", size), "rate")
        result.append((f"{what}, to bare FastAPI with records through a DataFrame", value, ""))
    for peer in list(pythons)[1:]:
        result.append(
            (f"{peer}, 1 row, to bare", ratio((peer, "one"), ("bare", "one"), "rate"), "")
        )
    return result


def _model_cpu(run_dir: Path, inputs: np.ndarray) -> float:
    """CPU seconds of one run of the model, the best of many."""
    scorer, taken = serving.Scorer(run_dir / "service"), []
    for _ in range(200):
        begun = time.process_time()
        scorer.probabilities(inputs)
        taken.append(time.process_time() - begun)
    return min(taken)


def _answers(url: str, headers: dict[str, str], body: bytes) -> np.ndarray:
    """Probabilities ``(n, 2)``: all must have the same before any is timed."""
    reply = httpx.post(
        f"{url}/v1/predict", headers=headers, content=body, trust_env=False, timeout=60
    )
    given = reply.raise_for_status().json()["predictions"]
    return np.array(
        [list(row["probabilities"].values()) if isinstance(row, dict) else row for row in given]
    )


@contextlib.contextmanager
def _service(run_dir: Path) -> Iterator[tuple[str, int]]:
    with serving.start(run_dir) as service:
        yield service.url, service._process.pid


@contextlib.contextmanager
def _peer(name: str, run_dir: Path, python: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    command = [python, "-m", "tests.benchmarks.peers", name, str(run_dir), str(port)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=quiet, stderr=quiet)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url, trust_env=False)
                break
            assert process.poll() is None, f"{name} ended"
            assert time.monotonic() < deadline, f"{name} doesn't answer"
            time.sleep(0.1)
        yield url, process.pid
    finally:
        # where it has ended by itself, the assertion says so
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.terminate()
        process.terminate()
        process.wait()


def _cpu(pid: int) -> float:
    own = psutil.Process(pid)
    return sum(sum(process.cpu_times()[:2]) for process in [own, *own.children(recursive=True)])


def _wrk(
    service: tuple[str, int],
    headers: dict[str, str],
    body: bytes,
    folder: Path,
    *,
    connections: int,
) -> dict[str, float]:
    """Requests a second, CPU seconds a request, 99th percentile in ms; all must be a 200."""
    url, pid = service
    reply = httpx.post(f"{url}/v1/predict", headers=headers, content=body, trust_env=False)
    assert reply.status_code == 200, (url, reply.text[:500])
    script = write_script(folder, headers, body)
    before = _cpu(pid)
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{SECONDS}s",
        "--latency",
        "-s",
        str(script),
        f"{url}/v1/predict",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in output, output
    count = int(re.search(r"(\d+) requests in", output)[1])
    late, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", output).groups()
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    return {
        "rate": rate,
        "cpu": (_cpu(pid) - before) / count,
        "p99": float(late) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit],
    }


def write_script(folder: Path, headers: dict[str, str], body: bytes) -> Path:
    """What wrk is to send, as the Lua that it reads."""
    (folder / "body").write_bytes(body)
    lines = [
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()
    ]
    lines = [
        'wrk.method = "POST"',
        f'local f = io.open("{folder}/body", "rb")',
        'wrk.body = f:read("*a")',
        *lines,
    ]
    (folder / "ask.lua").write_text("\n".join(lines))
    return folder / "ask.lua"


def _kills(run_dir: Path) -> Row:
    """Kill workers under load; how many acknowledged predictions are missing."""
    acknowledged: list[str] = []
    stop, random = threading.Event(), np.random.default_rng(0)
    api_keys.keys_file(run_dir).unlink(missing_ok=True)
    record = to_records(
        pd.read_parquet(run_dir / "data" / "test.parquet").head(1),
        load_case("credit", verify=False),
    )[0]

    def load() -> None:
        while not stop.is_set():
            with (
                contextlib.suppress(httpx.TransportError),
                httpx.Client(base_url=service.url, trust_env=False) as client,
            ):
                while not stop.is_set():
                    reply = (
                        client.post("/v1/predict", json={"records": [record]})
                        .raise_for_status()
                        .json()
                    )
                    acknowledged.append(reply["predictions"][0]["id"])

    killed = 0
    with serving.start(run_dir, workers=2) as service:
        clients = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for client in clients:
            client.start()
        while killed < KILLS:
            before = len(acknowledged)
            while len(acknowledged) < before + 20:
                time.sleep(0.005)
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):  # or a zombie
                children = psutil.Process(service._process.pid).children()
                workers = [child.pid for child in children if "spawn_main" in str(child.cmdline())]
                os.kill(int(random.choice(workers)), signal.SIGKILL)
                killed += 1
        stop.set()
        for client in clients:
            client.join()
    log = serving.read_log(
        run_dir / "service" / "predictions.sqlite", load_case("credit", verify=False)
    )
    missing = len(set(acknowledged) - set(log.index))
    return (
        f"{killed} times kill -9 under load: acknowledged predictions missing",
        f"{missing} of {len(acknowledged)}",
        "0",
    )
