"""Two hours of requests at 50 a second, compressed: how much the memory grows."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import psutil

from lepton_lib import serving
from lepton_lib.cases import example_record, load_case
from tests.benchmarks.serving import loop, write_script
from tests.benchmarks.timing import Row

REQUESTS = 7_200 * 50
TIMEOUT = 280  # seconds


def rows() -> list[Row]:
    """Memory after a tenth of the requests and after all; every answer is a 200 in the log."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = loop(Path(folder))
        case = load_case("credit", verify=False)
        body = json.dumps({"records": [example_record(case)]}).encode()
        with serving.start(run_dir) as service:
            process, done, spent, sizes = psutil.Process(service._process.pid), 0, 0.0, []
            while done < REQUESTS and spent < TIMEOUT:
                script = write_script(Path(folder), {"content-type": "application/json"}, body)
                command = [
                    "wrk",
                    "-t1",
                    "-c32",
                    "-d10s",
                    "-s",
                    str(script),
                    f"{service.url}/v1/predict",
                ]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                assert "Non-2xx" not in output, output
                done += int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
                spent += 10
                sizes.append((done, process.memory_info().rss / 1e6))
        after = next(size for count, size in sizes if count >= done / 10)
        growth = f"{sizes[-1][1] - after:.1f} MB"
        return [
            (
                f"{done:,} requests in {spent:.0f} s: memory growth after the first tenth",
                growth,
                "<= 10 MB",
            )
        ]
