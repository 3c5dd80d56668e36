"""What a sweep has found: its table and page, the best run, and how two runs differ.

Knows records of runs; doesn't make any.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lepton_lib.artefacts import Run
from lepton_lib.errors import RunError
from lepton_lib.runs.records import JOURNAL, RunRecord, read_records
from lepton_lib.runs.summary import metric_name, number, read_steps
from lepton_lib.utils import render, write_atomic

if TYPE_CHECKING:
    import pandas as pd

SMALLER_IS_BETTER = ("loss", "error", "gap", "latency", "brier", "seconds")  # parts of names
DRAWN = 1000  # runs, at most, in the page's plots
SEED = "seed"


def to_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """A row for each run: parameters, metrics, status, duration, versions and data.

    A metric with the name of a parameter is called ``NAME (metric)``.
    """
    import pandas as pd

    parameters = {name for record in records for name in record.parameters}
    rows = []
    for record in records:
        row: dict[str, Any] = {"run": record.name, "status": record.status, **record.parameters}
        for name, value in record.metrics.items():
            row[f"{name} (metric)" if name in parameters else name] = value
        row |= {"seconds": record.seconds, "attempts": record.attempts, "reason": record.reason}
        row |= {"commit": record.commit, "fingerprint": record.fingerprint}
        row |= {f"version of {name}": text for name, text in record.packages.items()}
        rows.append(row | {f"SHA-256 of {name}": text for name, text in record.data.items()})
    return pd.DataFrame(rows)


def write_results(folder: Path, records: Sequence[RunRecord], *, title: str) -> Path:
    """Write ``runs.parquet`` and ``index.html``, a page that stands alone; returns the page."""
    buffer = io.BytesIO()
    to_table(records).to_parquet(buffer)
    write_atomic(folder / "runs.parquet", buffer.getvalue())
    parameters = _varied(records)
    metrics = list(dict.fromkeys(name for record in records for name in record.metrics))
    drawn = [record for record in records if record.status == "done"]
    drawn = drawn[:: -(-len(drawn) // DRAWN) or 1]
    axes = [axis for axis in (_axis(drawn, "parameters", name) for name in parameters) if axis]
    goals = [axis for axis in (_axis(drawn, "metrics", name) for name in metrics) if axis]
    page = render(
        "runs/templates/sweep.html",
        title=title,
        records=records,
        parameters=parameters,
        metrics=metrics,
        axes=axes,
        goals=goals,
        n_failed=sum(record.status == "failed" for record in records),
        number=number,
        metric_name=metric_name,
    )
    write_atomic(folder / "index.html", page)
    return folder / "index.html"


class Axis(NamedTuple):
    """Values of one parameter or metric, each placed between 0 and 1."""

    name: str
    places: list[float | None]
    low: str
    high: str


def _axis(records: Sequence[RunRecord], kind: str, name: str) -> Axis | None:
    """The axis of a name; None if its values are all the same."""
    values = [getattr(record, kind).get(name) for record in records]
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    if all(isinstance(value, int | float) for value in known):
        low, high = min(known), max(known)
        places = [None if value is None else (value - low) / (high - low) for value in values]
        return Axis(name, places, number(low), number(high))
    ordered = sorted({str(value) for value in known})
    steps = {text: place / (len(ordered) - 1) for place, text in enumerate(ordered)}
    return Axis(name, [steps.get(str(value)) for value in values], ordered[0], ordered[-1])


def _varied(records: Sequence[RunRecord]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record.parameters))


def to_junit(records: Sequence[RunRecord], name: str) -> str:
    """A JUnit report, for CI: each run is a test."""
    from xml.etree import ElementTree

    counts = {"tests": len(records), "failures": sum(r.status == "failed" for r in records)}
    attributes = {key: str(value) for key, value in counts.items()}
    suite = ElementTree.Element("testsuite", {"name": name, **attributes})
    for record in records:
        attributes = {"name": record.name, "classname": name, "time": str(record.seconds)}
        test = ElementTree.SubElement(suite, "testcase", attributes)
        if record.status == "failed":
            ElementTree.SubElement(test, "failure", {"message": record.reason})
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


class Best(NamedTuple):
    """The best parameters of a sweep, and how far their lead is luck."""

    parameters: Mapping[str, object]
    runs: list[str]  # one for each seed
    by: str
    value: float  # the mean over seeds
    n_sets: int
    noise: float | None  # standard error of one set's value
    luck: float | None  # what the best of so many equal sets leads by
    corrected: float | None

    def to_text(self) -> str:
        """For a terminal."""
        given = ", ".join(f"{name} = {value}" for name, value in self.parameters.items())
        lines = [f"{given or 'the only set'}: {metric_name(self.by)} {number(self.value)}"]
        lines += [f"  {name}" for name in self.runs]
        if self.n_sets == 1:
            return "\n".join(lines)
        flattery = f"The best of {self.n_sets} sets looks better than it is"
        if self.luck is None:
            return "\n".join(
                [*lines, f"{flattery}. Repeat seeds (-p seed=0..4) to see by how much."]
            )
        lines += [f"{flattery}: if all were equal, the best would lead by {number(self.luck)}."]
        if self.corrected is not None:
            lines += [f"Shrunk towards the mean of all: {number(self.corrected)}."]
        return "\n".join([*lines, "Judge it on rows that have chosen nothing."])


def best(records: Sequence[RunRecord], by: str, *, lowest: bool | None = None) -> Best:
    """The parameter set with the best mean over its seeds.

    The correction shrinks the sets' values towards their mean (Efron and Morris, 1975, *Data
    analysis using Stein's estimator and its generalizations*, equation 1.5; from four sets on). The
    noise is the seeds' where they repeat, else that of the metric's own interval.

    Args:
        records: A sweep's.
        by: A metric.
        lowest: Whether less is better; guessed from the metric's name if None.

    Raises:
        RunError: No run that is done has the metric.
    """
    import numpy as np

    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if isinstance(record.metrics.get(by), int | float):
            groups.setdefault(str(_without_seed(record)), []).append(record)
    if not groups:
        known = sorted({name for record in records for name in record.metrics})
        remedy = "Choose one of these, or sweep a later step."
        raise RunError("the sweep", f"no run with {by!r}", f"one of: {', '.join(known)}", remedy)
    values = [np.array([float(_number(r, by)) for r in group]) for group in groups.values()]
    means = np.array([entry.mean() for entry in values])
    sign = -1 if (_smaller(by) if lowest is None else lowest) else 1
    place = int(np.argmax(sign * means))
    chosen = list(groups.values())[place]
    noise = _noise(values, [record for group in groups.values() for record in group], by)
    luck = None if noise is None else noise * _expected_maximum(len(means))
    corrected = None
    if noise is not None and len(means) >= 4:
        spread = float(((means - means.mean()) ** 2).sum())
        factor = max(0.0, 1 - (len(means) - 3) * noise**2 / spread) if spread else 0.0
        corrected = float(means.mean() + factor * (means[place] - means.mean()))
    names = [record.name for record in chosen]
    parameters = _without_seed(chosen[0])
    return Best(parameters, names, by, float(means[place]), len(means), noise, luck, corrected)


def _without_seed(record: RunRecord) -> dict[str, object]:
    return {name: value for name, value in record.parameters.items() if name != SEED}


def _number(record: RunRecord, name: str) -> float:
    value = record.metrics[name]
    assert isinstance(value, int | float)
    return float(value)


def _smaller(name: str) -> bool:
    return any(part in name for part in SMALLER_IS_BETTER)


def _noise(values: Sequence[Any], records: Sequence[RunRecord], by: str) -> float | None:
    """The standard error of one set's mean; None where nothing tells it."""
    import numpy as np

    repeated = [entry for entry in values if len(entry) > 1]
    if repeated:
        free = sum(len(entry) - 1 for entry in repeated)
        variance = sum(float(((entry - entry.mean()) ** 2).sum()) for entry in repeated) / free
        return float(np.sqrt(variance / np.mean([len(entry) for entry in values])))
    ends = [(r.metrics.get(f"{by}_low"), r.metrics.get(f"{by}_high")) for r in records]
    widths = [
        high - low for low, high in ends if isinstance(low, float) and isinstance(high, float)
    ]
    return float(np.mean(widths)) / (2 * 1.96) if widths else None


def _expected_maximum(n: int) -> float:
    """Of ``n`` standard normal numbers."""
    import numpy as np
    from scipy.stats import norm

    x = np.linspace(-8, 8, 4001)
    return float(np.trapezoid(x * n * norm.pdf(x) * norm.cdf(x) ** (n - 1), x))


def compare(first: Path, second: Path) -> pd.DataFrame:
    """What differs between two runs: parameters, data, code, versions and metrics.

    Where both are of one sweep with repeated seeds, a metric's difference is the mean over the
    seeds that both have, with its 95 % interval (Student's t, paired).

    Raises:
        RunError: A folder holds no run.
    """
    import pandas as pd

    a, b = _record_of(first), _record_of(second)
    rows = []
    for kind in ("parameters", "data", "packages", "metrics"):
        ours, theirs = getattr(a, kind), getattr(b, kind)
        for name in sorted({*ours, *theirs}):
            mine, other = ours.get(name), theirs.get(name)
            if mine != other:
                row = (kind, name, mine, other)
                rows.append(
                    (*row, _difference(first, second, a, b, name) if kind == "metrics" else "")
                )
    if (a.commit, a.fingerprint) != (b.commit, b.fingerprint):
        rows.append(("code", "commit", a.commit[:12], b.commit[:12], ""))
    return pd.DataFrame(rows, columns=["what", "name", first.name, second.name, "difference"])


def _record_of(folder: Path) -> RunRecord:
    if record := read_records(folder.parent).get(folder.name):
        return record
    steps = read_steps(Run(folder))
    if not steps:
        remedy = "Name a run folder, such as runs/credit."
        raise RunError(str(folder), "no finished step", "a run", remedy)
    parameters: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for entry in steps.values():
        parameters |= entry.parameters
        metrics |= entry.metrics
    data = steps["01_data"].files if "01_data" in steps else {}
    packages, commit, seconds = entry.packages, entry.commit, entry.seconds
    return RunRecord(
        folder.name,
        parameters,
        "done",
        seconds,
        metrics,
        packages=packages,
        data=data,
        commit=commit,
    )


def _difference(first: Path, second: Path, a: RunRecord, b: RunRecord, name: str) -> str:
    """Of one metric; over all seeds where they repeat."""
    from scipy import stats

    pairs = []
    if first.resolve().parent == second.resolve().parent and (first.parent / JOURNAL).exists():
        by_seed: list[dict[Any, float]] = [{}, {}]
        for record in read_records(first.parent).values():
            for place, one in enumerate((a, b)):
                same = _without_seed(record) == _without_seed(one)
                if same and isinstance(record.metrics.get(name), int | float):
                    by_seed[place][record.parameters.get(SEED)] = _number(record, name)
        pairs = [by_seed[1][seed] - by_seed[0][seed] for seed in {*by_seed[0]} & {*by_seed[1]}]
    if len(pairs) > 1:
        mean, error = sum(pairs) / len(pairs), stats.sem(pairs)
        low, high = mean + error * stats.t.ppf([0.025, 0.975], len(pairs) - 1)
        return f"{mean:+.4f} ({low:+.4f} to {high:+.4f}, {len(pairs)} seeds)"
    mine, other = a.metrics.get(name), b.metrics.get(name)
    if isinstance(mine, int | float) and isinstance(other, int | float):
        return f"{other - mine:+.4g}"
    return ""
