"""Judging live rows: have they moved away from the reference, is something broken in them, and what is to be done?

Knows cases and data frames; doesn't know services, logs or run folders. *Reference* rows are those that the model was
trained on, *current* rows those that it is asked about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lepton_lib.cases import Case, Column
from lepton_lib.cases.schema import PARTS
from lepton_lib.data.tables import timestamp_part
from lepton_lib.errors import DataError

SMOOTHING = 0.5  # added to every bin's count (Jeffreys): an empty bin has a small share, and its logarithm is finite
MIN_ROWS = 30  # a window of fewer rows is not judged: one odd row would decide
EXACT_ROWS = 10_000  # up to this many rows the Kolmogorov-Smirnov p-value is exact, as in SciPy
SPARSE = 5.0  # expected counts below this spoil the chi-square distribution (Cochran's rule)
DRAWS = 4_999  # of a sparse table: the smallest p is 1 / 5000
DEFAULT_LIMIT = 0.2  # for the PSI, where the charter sets none

Verdict = Literal["none", "drift"]
Interval = tuple[float, float, float]  # an estimate, the lower and the upper end of its 95 % interval


def psi(reference: Any, current: Any, *, n_bins: int = 10) -> float:
    """Population stability index: the sum over bins of (q - p) ln(q / p), with shares p and q of the two samples.

    Numbers are cut at the reference's quantiles; a value that fills a quantile by itself gets a bin of its own.
    Categories stand as they are. Missing values are one more bin. To each count `SMOOTHING` is added.

    With no drift at all it is about ``(filled bins - 1) * (1 / n + 1 / m)``, see `psi_by_chance`: never compare it with
    a limit without a look at the number of rows.

    Args:
        reference: ``(n,)`` numbers, or categories as text; NaN or None where missing.
        current: ``(m,)`` of the same kind.
        n_bins: Quantile bins of numbers.
    """
    return _psi(*bin_counts(reference, current, n_bins=n_bins))


def _psi(reference: np.ndarray, current: np.ndarray) -> float:
    """The index of two rows of counts; 0 where one of them is empty, for nothing can be said."""
    if not reference.sum() or not current.sum():
        return 0.0
    p, q = ((counts + SMOOTHING) / (counts + SMOOTHING).sum() for counts in (reference, current))
    return float(((q - p) * np.log(q / p)).sum())


def psi_by_chance(reference: np.ndarray, current: np.ndarray) -> float:
    """What the PSI of two rows of counts is on average when nothing has drifted: (k - 1) (1 / n + 1 / m).

    The index is, to second order, the chi-square statistic of the two samples times (1 / n + 1 / m) (Yurdakul,
    Statistical Properties of Population Stability Index, 2018), and that statistic's mean is k - 1.
    """
    n, m = reference.sum(), current.sum()
    return float((len(reference) - 1) * (1 / n + 1 / m)) if n and m else 0.0


def bin_counts(reference: Any, current: Any, *, n_bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Count two samples in the same bins, as `psi` says; bins that are empty in both are left out.

    Returns:
        Two int64 arrays of ``k`` counts, the missing values first.
    """
    a, b = pd.Series(reference), pd.Series(current)
    if pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b):
        x, y = a.to_numpy(dtype=np.float64, na_value=np.nan), b.to_numpy(dtype=np.float64, na_value=np.nan)
        present = x[~np.isnan(x)]
        cuts = np.quantile(present, np.linspace(0, 1, n_bins + 1)[1:-1]) if present.size else np.zeros(0)
        edges, repeats = np.unique(cuts, return_counts=True)
        spikes = edges[repeats > 1]

        def place(values: np.ndarray) -> np.ndarray:
            index = 1 + np.searchsorted(edges, values, side="left") + np.searchsorted(spikes, values, side="right")
            return np.where(np.isnan(values), 0, index)

        first, second = place(x), place(y)
    elif isinstance(a.dtype, pd.CategoricalDtype) and a.dtype == b.dtype:
        first, second = (values.cat.codes.to_numpy(dtype=np.int64) + 1 for values in (a, b))
    else:
        codes, _ = pd.factorize(pd.concat([a.astype(object), b.astype(object)]).map(str, na_action="ignore"), sort=True)
        first, second = codes[: len(a)] + 1, codes[len(a) :] + 1
    width = int(max(first.max(initial=0), second.max(initial=0))) + 1
    counts = np.stack([np.bincount(index, minlength=width) for index in (first, second)])
    counts = counts[:, counts.any(0)]
    return counts[0], counts[1]


def kolmogorov_smirnov(reference: Any, current: Any) -> tuple[float, float]:
    """The largest distance between two empirical distribution functions, and its p-value: SciPy's, to 1e-12.

    Exact up to 10,000 rows a sample, beyond them by the asymptotic distribution. Ties make it cautious: the p-value is
    then an upper bound. An empty sample says nothing: statistic 0, p 1.

    Args:
        reference: ``(n,)`` numbers; NaN is left out.
        current: ``(m,)`` numbers; NaN is left out.
    """
    a, b = _sorted(reference), _sorted(current)
    n, m = len(a), len(b)
    if not n or not m:
        return 0.0, 1.0
    # F - G is largest just before a step of G, G - F just after one: so only the points of one sample are looked at.
    after = np.searchsorted(b, b, side="right") / m - np.searchsorted(a, b, side="right") / n
    before = np.searchsorted(a, b, side="left") / n - np.searchsorted(b, b, side="left") / m
    statistic = float(max(after.max(), before.max(), 0.0))
    rows = n * m / (n + m)
    bound = math.exp(1 - 2 * rows * statistic**2)  # Wei and Dudley, 2012: holds for every n and m
    if max(n, m) <= EXACT_ROWS and bound > 1e-13:
        from scipy.stats import ks_2samp

        return statistic, float(ks_2samp(a, b, method="exact").pvalue)
    from scipy.stats import kstwo

    return statistic, float(np.clip(kstwo.sf(statistic, np.round(rows)), 0.0, 1.0))


def wasserstein(reference: Any, current: Any) -> float:
    """The area between two empirical distribution functions: how far the values moved on average, in their own unit.

    0 where one of the samples has no finite value.
    """
    a, b = (values[np.isfinite(values)] for values in (_sorted(reference), _sorted(current)))
    if not len(a) or not len(b):
        return 0.0
    both = np.concatenate([a, b])
    both.sort(kind="stable")  # two sorted runs: one merge
    gap = np.searchsorted(a, both[:-1], side="right") / len(a) - np.searchsorted(b, both[:-1], side="right") / len(b)
    return float((np.abs(gap) * np.diff(both)).sum())


def _sorted(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).ravel()
    return np.sort(array[~np.isnan(array)])


def chi_square(reference: Any, current: Any, *, seed: int = 0) -> tuple[float, float]:
    """Pearson's test that two rows of counts come from the same shares; SciPy's without correction, to 1e-12.

    Where an expected count is below 5 the chi-square distribution no longer fits. The p-value is then the share of
    `DRAWS` random tables with the same sums whose statistic is no smaller, counting the table itself.

    Args:
        reference: ``(k,)`` counts, from `bin_counts`.
        current: ``(k,)`` counts of the same categories.
        seed: Of the random tables.

    Returns:
        Statistic and p-value; 0 and 1 where there is nothing to compare.
    """
    table = np.stack([np.asarray(reference, dtype=np.int64), np.asarray(current, dtype=np.int64)])
    table = table[:, table.any(0)]
    n, m = table.sum(1)
    if table.shape[1] < 2 or not n or not m:
        return 0.0, 1.0
    expected = table.sum(0) * m / (n + m)
    # Both rows miss their expected counts by the same amounts: one row's misses say all.
    statistic = float(((table[1] - expected) ** 2 / expected).sum() * (n + m) / n)
    if min(expected.min(), expected.min() * n / m) >= SPARSE:
        from scipy.special import chdtrc

        return statistic, float(chdtrc(table.shape[1] - 1, statistic))
    draws = np.random.default_rng(seed).multivariate_hypergeometric(table.sum(0), m, size=DRAWS, method="marginals")
    statistics = ((draws - expected) ** 2 / expected).sum(1) * (n + m) / n
    return statistic, float((1 + (statistics >= statistic * (1 - 1e-9)).sum()) / (1 + DRAWS))


def holm(p_values: Any) -> np.ndarray:
    """Correct the p-values of many tests, so that a level of 5 % holds for *any false alarm among them*.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979. It holds however the columns hang together, and
    they do: a price and a loan move as one. Benjamini and Hochberg's correction is milder, but promises only a share of
    false names among the named columns; one false name is enough to call people from their beds.

    Args:
        p_values: ``(n,)``.

    Returns:
        ``(n,)`` corrected p-values, to be compared with the level itself.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


@dataclass(frozen=True)
class ColumnDrift:
    """What was found in one column.

    Attributes:
        column: Its name; a timestamp's parts stand one by one.
        psi: Its PSI.
        chance: What the PSI would be on average without drift.
        test: ``"KS"``, ``"chi-square"``, or nothing where the column isn't there.
        statistic: Of the test.
        p: The test's p-value.
        p_holm: The p-value corrected for all columns.
        moved: Wasserstein distance in the column's unit; None for categories.
        missing: Share of missing values in the current rows.
        verdict: ``"drift"`` where both the PSI and the test say so.
        why: The verdict's reason in words.
    """

    column: str
    psi: float
    chance: float
    test: str
    statistic: float
    p: float
    p_holm: float
    moved: float | None
    missing: float
    verdict: Verdict
    why: str


@dataclass(frozen=True, repr=False)
class DriftReport:
    """Every column's finding, and one verdict.

    Attributes:
        columns: The findings.
        n_reference: Reference rows.
        n_current: Current rows.
        limit: Of the PSI, from the charter.
        level: Chance of any false alarm among all tests.
        note: What to know before reading the verdict; empty where there is nothing.
    """

    columns: tuple[ColumnDrift, ...]
    n_reference: int
    n_current: int
    limit: float
    level: float
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """``"drift"`` if any column drifted."""
        return "drift" if self.drifted else "none"

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of the columns that drifted, the strongest first."""
        found = [entry for entry in self.columns if entry.verdict == "drift"]
        return tuple(entry.column for entry in sorted(found, key=lambda entry: -entry.psi))

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"verdict": self.verdict, "drifted": list(self.drifted)} | asdict(self)

    def to_frame(self) -> pd.DataFrame:
        """One line a column: those that drifted first, then by PSI."""
        frame = pd.DataFrame([asdict(entry) for entry in self.columns], columns=list(ColumnDrift.__annotations__))
        return frame.sort_values(["verdict", "psi"], ascending=[True, False], kind="stable").set_index("column")

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>" + str(self._rounded().to_html())

    def __str__(self) -> str:
        rows = f"{self.n_current:,} current against {self.n_reference:,} reference rows"
        words = f"Verdict {self.verdict}: {rows}; limit of the PSI {self.limit:g}, level {self.level:g}."
        rest = len(self.columns) - len(self._rounded())
        return words + (f" Of {rest} more columns none has drifted." if rest else "") + f" {self.note}".rstrip()

    def __repr__(self) -> str:
        return f"{self}\n{self._rounded().to_string()}"

    def _rounded(self) -> pd.DataFrame:
        """The strongest lines, for reading."""
        frame = self.to_frame().head(max(12, len(self.drifted)))
        shown = {name: frame[name].map("{:.3f}".format) for name in ("psi", "chance")}
        p = ["<0.001" if value < 0.001 else f"{value:.3f}" for value in frame["p_holm"]]
        moved = ["" if pd.isna(value) else f"{value:.3g}" for value in frame["moved"]]
        missing = [f"{value:.1%}" for value in frame["missing"]]
        columns = {"test": frame["test"], "p_holm": p, "moved": moved, "missing": missing}
        return pd.DataFrame(shown | columns | {"verdict": frame["verdict"], "why": frame["why"]})


def drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    case: Case,
    *,
    predictions: tuple[Any, Any] | None = None,
    level: float = 0.05,
    min_rows: int = MIN_ROWS,
) -> DriftReport:
    """Compare current rows with reference rows, column by column.

    A column has drifted when its PSI is above the charter's ``drift_psi`` *and* its test, corrected for all columns,
    rejects at ``level``. The first alone rings at every small window, for chance alone makes a large PSI there; the
    second alone rings at every large one, for no two populations are quite equal. In the Kolmogorov-Smirnov test a
    missing number stands below all others, so that a gap is a drift, too.

    Args:
        reference: Clean rows, with the case's columns.
        current: Rows of the same columns; may be empty, hold unknown categories, or lack a column (which is a drift).
        case: The case.
        predictions: The model's answers to reference and to current rows, each ``(n,)`` or ``(n, k)``. The reference
            ones must be of rows that the model has not learnt from: it is surer of those that it has.
        level: Chance of any false alarm among all tests.
        min_rows: A window of fewer rows is not judged.

    Raises:
        DataError: The reference lacks a column of the case, or has no rows.
    """
    for column in case.inputs:
        if column.name not in reference or reference.empty:
            raise DataError(
                "reference rows",
                got="no rows" if reference.empty else f"no column {column.name!r}",
                expected="the clean training rows of the case",
                remedy="Read data/train.parquet of the same run.",
            )
    criterion = case.charter.criteria.get("drift_psi")
    limit = criterion.at_most if criterion and criterion.at_most is not None else DEFAULT_LIMIT
    few = len(current) < min_rows
    pairs: dict[str, tuple[Any, Any] | None] = {}
    for column in case.inputs:
        pairs |= _parts(column, reference, current)
    if predictions is not None:
        pairs |= _answers(case, *predictions)
    found = {name: _compare(*pair) for name, pair in pairs.items() if pair is not None}
    corrected = dict(zip(found, holm([entry["p"] for entry in found.values()]), strict=True))
    columns = []
    for name in pairs:
        if name not in found:
            verdict: Verdict = "none" if current.empty else "drift"
            columns.append(
                ColumnDrift(name, 0.0, 0.0, "", 0.0, 1.0, 1.0, None, 1.0, verdict, "no such column in the current rows")
            )
            continue
        entry, p = found[name], float(corrected[name])
        moved, certain = entry["psi"] > limit, p <= level
        why = "too few rows" if few else _reason(moved, certain)
        columns.append(
            ColumnDrift(name, **entry, p_holm=p, verdict="drift" if moved and certain and not few else "none", why=why)
        )
    note = f"Fewer than {min_rows} rows: too few to judge." if few else ""
    return DriftReport(tuple(columns), len(reference), len(current), limit, level, note)


def _reason(moved: bool, certain: bool) -> str:
    match moved, certain:
        case True, True:
            return "far, and not by chance"
        case True, False:
            return "far, but chance could do it"
        case False, True:
            return "not by chance, but not far"
    return "neither far nor unlikely"


def _parts(column: Column, reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, tuple[Any, Any] | None]:
    """The column's values in both frames, as numbers or text; None where the current rows don't have it."""
    names = [f"{column.name}.{part}" for part in column.parts] or [column.name]
    if column.name not in current:
        return dict.fromkeys(names)
    pair = reference[column.name], current[column.name]
    if column.kind == "number":
        return {column.name: (_numbers(pair[0]), _numbers(pair[1]))}
    if column.kind == "category":
        return {column.name: pair}
    moments = [pd.to_datetime(values, errors="coerce") for values in pair]
    parts: dict[str, tuple[Any, Any] | None] = {}
    for name, part in zip(names, column.parts, strict=True):
        values = [timestamp_part(moment, part) for moment in moments]
        parts[name] = (pd.Categorical(values[0], range(PARTS[part])), pd.Categorical(values[1], range(PARTS[part])))
    return parts


def _numbers(values: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _answers(case: Case, reference: Any, current: Any) -> dict[str, tuple[Any, Any] | None]:
    first, second = (np.asarray(values, dtype=np.float64) for values in (reference, current))
    first, second = (values.reshape(len(values), -1) if values.size else values for values in (first, second))
    second = second if second.size else np.zeros((0, first.shape[1]))
    if case.task == "regression" or first.shape[1] == 1:
        return {"prediction": (first[:, 0], second[:, 0])}
    # Of two classes one says all: the other is what it lacks to 1.
    start = 1 if len(case.classes) == 2 else 0
    return {f"p_{name}": (first[:, k], second[:, k]) for k, name in enumerate(case.classes) if k >= start}


def _compare(reference: Any, current: Any) -> dict[str, Any]:
    counts = bin_counts(reference, current)
    entry: dict[str, Any] = {"psi": _psi(*counts), "chance": psi_by_chance(*counts)}
    missing = pd.isna(current)
    entry["missing"] = float(missing.mean()) if len(missing) else 0.0
    if isinstance(reference, np.ndarray):
        low = [np.where(np.isnan(values), -np.inf, values) for values in (reference, current)]
        entry["test"], (entry["statistic"], entry["p"]) = "KS", kolmogorov_smirnov(*low)
        return entry | {"moved": wasserstein(reference, current)}
    entry["test"], (entry["statistic"], entry["p"]) = "chi-square", chi_square(*counts)
    return entry | {"moved": None}


def count_problems(current: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Count what is broken in current rows, column by column, against case.toml.

    Returns:
        One line a column: ``missing``, ``out_of_range`` and ``unknown`` (no number, no moment, or not among the
        categories), as counts; ``broken``: their share of the rows, missing values counted where none are allowed;
        ``remark``: a column that isn't there, or isn't described.
    """
    lines: list[tuple[str, int, int, int, float, str]] = []
    rows = max(len(current), 1)
    for column in case.inputs:
        if column.name not in current:
            lines.append((column.name, len(current), 0, 0, float(len(current) > 0), "no such column"))
            continue
        values = current[column.name]
        gone, outside, unknown = values.isna(), pd.Series(False, index=values.index), values.isna() & False
        if column.kind == "number":
            numbers = pd.to_numeric(values, errors="coerce")
            unknown = ~gone & ~np.isfinite(numbers.astype("float64"))
            low = -np.inf if column.min is None else column.min
            high = np.inf if column.max is None else column.max
            outside = ~gone & ~unknown & ~numbers.between(low, high)
        elif column.kind == "category":
            unknown = ~gone & ~values.isin(column.categories)
        else:
            unknown = ~gone & pd.to_datetime(values, errors="coerce").isna()
        broken = outside | unknown | (gone & (not column.nullable))
        missing, far, odd = (int(mask.sum()) for mask in (gone, outside, unknown))
        lines.append((column.name, missing, far, odd, float(broken.sum()) / rows, ""))
    known = {column.name for column in case.columns} | {"target"}
    lines += [(str(name), 0, 0, 0, 0.0, "not in case.toml") for name in current if name not in known]
    return pd.DataFrame(lines, columns=["column", "missing", "out_of_range", "unknown", "broken", "remark"])


@dataclass(frozen=True, repr=False)
class Decision:
    """What to do, and why, in words for the person who has to answer for it."""

    action: Literal["nothing", "watch", "retrain", "promote", "keep"]
    reasons: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n- ".join([self.action, *self.reasons])

    def _repr_html_(self) -> str:
        return f"<b>{self.action}</b><ul>" + "".join(f"<li>{reason}</li>" for reason in self.reasons) + "</ul>"


def change_in_mean(reference: Any, current: Any) -> Interval:
    """How much higher the mean of ``current`` ``(m,)`` is than that of ``reference`` ``(n,)``, rows independent.

    The interval is Welch's at 95 %, by the normal distribution; without two values on either side it is unbounded.
    """
    a, b = (np.asarray(values, dtype=np.float64).ravel() for values in (reference, current))
    if min(len(a), len(b)) < 2:
        return float(b.mean() - a.mean()) if len(a) and len(b) else 0.0, -math.inf, math.inf
    value = float(b.mean() - a.mean())
    margin = 1.959964 * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return value, value - margin, value + margin


def advise(
    report: DriftReport,
    *,
    problems: pd.DataFrame | None = None,
    loss_change: Interval | None = None,
    max_broken: float = 0.01,
) -> Decision:
    """The policy: from signals to one action.

    Broken data are mended at their source, never learnt from. Without labels nothing can be learnt, so drift alone asks
    for labels. With labels, drift or a higher loss asks for a challenger; whether it is promoted is `choose_model`'s
    question, so training one in vain costs minutes only.

    Args:
        report: From `drift_report`.
        problems: From `count_problems`.
        loss_change: Mean loss of the current labelled rows minus the reference's, once labels are there.
        max_broken: Greatest share of broken values in a column.
    """
    broken = [] if problems is None else problems.loc[problems["broken"] > max_broken, "column"].tolist()
    absent = [entry.column for entry in report.columns if entry.verdict == "drift" and not entry.test]
    if broken or absent:
        names = ", ".join(dict.fromkeys([*broken, *absent]))
        return Decision("watch", (f"broken at the source: {names}; mend it there before anything is learnt from it",))
    if report.note:
        return Decision("watch", (f"{report.n_current} rows: too few to judge; wait for more",))
    reasons = []
    if report.drifted:
        reasons.append(f"drift in {', '.join(report.drifted)}")
    worse = loss_change is not None and loss_change[1] > 0
    if loss_change is not None:
        state = "higher than" if worse else "lower than" if loss_change[2] < 0 else "not certainly different from"
        reasons.append(f"the loss on labelled rows is {state} that on the reference rows ({_signed(loss_change)})")
    if worse or (report.drifted and loss_change is not None):
        return Decision("retrain", (*reasons, "labels are there to learn from"))
    if report.drifted:
        return Decision("watch", (*reasons, "no labels yet: whether it does harm can't be said; ask for them"))
    return Decision("nothing", (*(reasons or ["no labels yet"]), "no column has drifted"))


def choose_model(differences: Mapping[str, Interval], *, deciding: str) -> Decision:
    """Champion or challenger, both judged on the same rows.

    The challenger is promoted if it is certainly better on the deciding rows and certainly worse on none: the burden of
    proof lies with the newcomer, for every change of a model costs trust.

    Args:
        differences: Champion's mean loss minus challenger's, by set of rows: above zero, the challenger is better.
        deciding: The set that decides.
    """
    main = differences[deciding]
    worse = [name for name, entry in differences.items() if entry[2] < 0]
    reasons = [f"{name}: the challenger's loss is {_compared(entry)}" for name, entry in differences.items()]
    better = main[1] > 0
    if better and not worse:
        return Decision("promote", (*reasons, f"certainly better on {deciding}, certainly worse nowhere"))
    last = f"certainly worse on {', '.join(worse)}" if worse else f"not certainly better on {deciding}"
    return Decision("keep", (*reasons, last))


def _compared(entry: Interval) -> str:
    word = "lower" if entry[0] >= 0 else "higher"
    return f"{abs(entry[0]):.3g} {word} (champion minus challenger {_signed(entry)})"


def _signed(entry: Interval) -> str:
    value, low, high = entry
    return f"{value:+.3g}, 95 % interval {low:+.3g} to {high:+.3g}"
