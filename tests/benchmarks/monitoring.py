"""Compare a drift report of 2 x 1,000,000 rows and 20 columns with Evidently's and SciPy's.

Evidently pins an older pandas, so it lives in a virtual environment of its own, made under build/,
and runs as a program; where it can't be installed, its rows say so. Both do the same tests:
Kolmogorov-Smirnov on 16 numbers, chi-square on 4 categories; ours works out PSI, Holm's correction
and Wasserstein distances besides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.environments import ROOT, environment
from tests.benchmarks.timing import Row

N = 1_000_000
NUMBERS = [f"x{i:02}" for i in range(16)]
CATEGORIES = [f"c{i}" for i in range(4)]
LEVELS = list("abcdefgh")

OURS = """
import ctypes, json, resource, sys, threading, time
import numpy as np, pandas as pd
from pathlib import Path
from lepton_lib import monitoring
from tests.benchmarks.monitoring import case, tables
from scipy.stats import ks_2samp, chi2_contingency, kstwo
reference, current = tables()
shop = case()
monitoring.drift_report(reference[:2000], current[:2000], shop)  # imports
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
ctypes.CDLL(None).malloc_trim(0)  # what making the tables has left free would hide what is used
peak, done, base = [0.0], threading.Event(), resident()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], resident())
watcher = threading.Thread(target=watch)
watcher.start()
report = monitoring.drift_report(reference, current, shop)
done.set(); watcher.join()
best = {"fresh": 1e9, "stored": 1e9}
stored = Path(sys.argv[1])
monitoring.Reference.from_frame(reference, shop).save(stored)
for _ in range(3):
    begun = time.process_time(); monitoring.drift_report(reference, current, shop)
    best["fresh"] = min(best["fresh"], time.process_time() - begun)
    begun = time.process_time()
    again = monitoring.drift_report(monitoring.Reference.load(stored), current, shop)
    best["stored"] = min(best["stored"], time.process_time() - begun)
assert again == report, "a stored reference gives another report"
gap = 0.0
for entry in report.columns:
    a, b = reference[entry.column], current[entry.column]
    if entry.test == "KS":
        theirs = ks_2samp(a, b, method="asymp")
        pair = theirs.statistic, theirs.pvalue
    else:
        counts = np.stack([a.value_counts(sort=False), b.value_counts(sort=False)])
        theirs = chi2_contingency(counts, correction=False)
        pair = theirs.statistic, theirs.pvalue
    gap = max(gap, abs(entry.statistic - pair[0]) / max(1, pair[0]), abs(entry.p - pair[1]))
print(json.dumps(best | {"memory": peak[0] - base, "gap": gap, "drifted": report.drifted}))
"""

THEIRS = """
import json, sys, time
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
tables = [pd.read_parquet(path) for path in sys.argv[1:3]]
numbers = [name for name in tables[0] if name.startswith("x")]
categories = [name for name in tables[0] if name not in numbers]
definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
options = {"num_method": "ks", "cat_method": "chisquare"} if sys.argv[3] == "same" else {}
def judge(first, second):
    sets = [Dataset.from_pandas(table, data_definition=definition) for table in (first, second)]
    report = Report([DataDriftPreset(**options)])
    return report.run(current_data=sets[1], reference_data=sets[0]).dict()
judge(*(table[:2000] for table in tables))
begun = time.process_time()
judge(*tables)
print(json.dumps(time.process_time() - begun))
"""


def tables() -> list[pd.DataFrame]:
    """Draw two tables of continuous and rounded numbers and categories; the second has drifted."""
    generator, made = np.random.default_rng(0), []
    for part in range(2):
        columns: dict[str, object] = {}
        for i, name in enumerate(NUMBERS):
            values = generator.normal(size=N) + 0.001 * part * i
            columns[name] = values.round(1) if i >= 12 else values
        for name in CATEGORIES:
            columns[name] = pd.Categorical(generator.choice(LEVELS, N), categories=LEVELS)
        made.append(pd.DataFrame(columns))
    return made


def case() -> object:
    """A case with these columns."""
    from lepton_lib.cases import load_case
    from tests.conftest import write_case

    numbers = [{"name": name, "kind": "number", "meaning": "made up"} for name in NUMBERS]
    words = [
        {"name": name, "kind": "category", "categories": LEVELS, "meaning": "made up"}
        for name in CATEGORIES
    ]
    with tempfile.TemporaryDirectory() as folder:
        return load_case(write_case(Path(folder) / "wide", columns=numbers + words))


def rows() -> list[Row]:
    """Speed against Evidently, memory above the data, and distance to SciPy."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ours = json.loads(_run(sys.executable, OURS, str(place / "reference.parquet")))
        what = f"drift of {N:,} + {N:,} rows x 20"
        result: list[Row] = [
            (
                f"{what}: greatest distance of statistics and p-values to SciPy",
                f"{ours['gap']:.1e}",
                "<= 1e-12",
            ),
            (f"{what}: memory above the data", f"{ours['memory']:.0f} MB", "<= 100 MB"),
            (f"{what}: CPU seconds", f"{ours['fresh']:.2f}", ""),
            (f"{what}, reference stored: CPU seconds", f"{ours['stored']:.2f}", ""),
        ]
        python, why = environment("evidently")
        if python is None:
            return [*result, (f"{what}: Evidently", f"not installed: {why}", "")]
        paths = [place / f"{part}.parquet" for part in ("reference", "current")]
        for path, table in zip(paths, tables(), strict=True):
            table.to_parquet(path)
        for kind, name in (("same", "KS and chi-square"), ("default", "its default tests")):
            seconds = json.loads(_run(str(python), THEIRS, *map(str, paths), kind))
            ratio = seconds / ours["fresh"]
            target = ">= 25" if kind == "same" else ""
            result.append(
                (
                    f"{what}: speed relative to Evidently, {name} ({seconds:.0f} s)",
                    f"{ratio:.0f}",
                    target,
                )
            )
    return result


def _run(python: str, program: str, *arguments: str) -> str:
    variables = os.environ | {
        "PYTHONPATH": str(ROOT) if python == sys.executable else "",
        "PYTHONWARNINGS": "ignore",
    }
    variables |= {"DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", program, *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]
