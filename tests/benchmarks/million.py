"""A million rows at once: scored by `lepton predict`, judged in one look by `lepton monitor`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from lepton_lib import serving
from lepton_lib.cases import encode_records, load_case
from lepton_lib.data import to_records
from lepton_lib.serving.log import make_entry
from tests.benchmarks.serving import loop
from tests.benchmarks.timing import Row

ROWS, PART = 1_000_000, 4096


def rows() -> list[Row]:
    """Rates, seconds and peak memory, each of a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_dir = loop(folder)
        result: list[Row] = []
        for count in (ROWS // 10, ROWS):
            table = _write_table(folder / "in.csv", count)
            seconds, cpu, peak = _measure("predict", run_dir, table, "--out", folder / "out.csv")
            figures = f"{seconds:.0f} s ({cpu:.0f} CPU s), {count / cpu:,.0f} rows a CPU second"
            figures += f", at most {peak:.0f} MB"
            result.append((f"lepton predict, a CSV of {count:,} rows", figures, "<= 1000 MB"))
        _fill_log(run_dir)
        seconds, cpu, peak = _measure("monitor", run_dir)
        figures = f"{seconds:.0f} s ({cpu:.0f} CPU s), at most {peak:.0f} MB"
        what = f"lepton monitor, {ROWS:,} new rows in one look, 100,000 of them judged"
        return [*result, (what, figures, "")]


def _write_table(path: Path, count: int) -> Path:
    """The credit table again and again."""
    header, *lines = load_case("credit").path("credit_data.csv").read_text().splitlines()
    with path.open("w") as file:
        file.write(header + "\n")
        file.writelines(f"{lines[i % len(lines)]}\n" for i in range(count))
    return path


def _fill_log(run_dir: Path) -> None:
    """What the service stores of a million rows in requests of 4,096."""
    case, scorer = load_case("credit", verify=False), serving.Scorer(run_dir / "service")
    test = to_records(pd.read_parquet(run_dir / "data" / "test.parquet"), case)
    records = (test * (PART // len(test) + 1))[:PART]
    outputs = scorer.answer(encode_records(case, records)).astype("<f4").tobytes()
    log = serving.PredictionLog(run_dir / "service" / "predictions.sqlite")
    stored = {"form": scorer.codec.form, "outputs": outputs}
    for _ in range(ROWS // PART + 1):
        log._write([make_entry("bench", scorer.version, records, [], **stored)], 1.0)
    log.close()


def _measure(*words: object) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak memory in MB of a command."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "lepton_lib.cli", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
