"""Which columns have drifted from the reference, and which values break their case's rules.

*Reference* rows are those that the model was trained on, *current* rows those that it is asked
about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import pandas as pd

from lepton_lib.cases import TARGET, Case
from lepton_lib.errors import DataError
from lepton_lib.monitoring.distances import (
    ColumnSummary,
    bin_counts,
    chi_square,
    holm,
    kolmogorov_smirnov,
    psi_by_chance,
    psi_of_counts,
    wasserstein,
)
from lepton_lib.monitoring.reference import Reference

MIN_ROWS = 30  # a window of fewer rows is not judged: one odd row would decide
DEFAULT_LIMIT = 0.2  # for the PSI, where the charter sets none

Verdict = Literal["none", "drift"]


@dataclass(frozen=True)
class ColumnDrift:
    """One column's drift."""

    column: str  # its name; a timestamp's parts stand one by one
    psi: float = 0.0
    chance: float = 0.0  # the mean PSI without drift
    test: str = ""  # "KS" or "chi-square"; empty where the column isn't there
    statistic: float = 0.0
    p: float = 1.0
    p_holm: float = 1.0  # corrected for all columns
    moved: float | None = None  # Wasserstein distance in the column's unit; None for categories
    missing: float = 0.0  # share of the current rows
    verdict: Verdict = "none"  # "drift" where both the PSI and the test say so
    why: str = ""  # the verdict's reason in words


@dataclass(frozen=True, repr=False)
class DriftReport:
    """Every column's drift, and one verdict."""

    columns: tuple[ColumnDrift, ...]
    n_reference: int  # rows
    n_current: int
    limit: float  # of the PSI, from the charter
    level: float  # chance of any false alarm among all tests
    note: str = ""  # what to know before reading the verdict

    @property
    def verdict(self) -> Verdict:
        """``"drift"`` if any column drifted."""
        return "drift" if self.drifted else "none"

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of the columns that drifted, the strongest first."""
        drifted = [entry for entry in self.columns if entry.verdict == "drift"]
        return tuple(entry.column for entry in sorted(drifted, key=lambda entry: -entry.psi))

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"verdict": self.verdict, "drifted": list(self.drifted)} | asdict(self)

    def to_frame(self) -> pd.DataFrame:
        """One line a column: those that drifted first, then by PSI."""
        header = [field.name for field in fields(ColumnDrift)]
        frame = pd.DataFrame([asdict(entry) for entry in self.columns], columns=header)
        frame = frame.sort_values(["verdict", "psi"], ascending=[True, False], kind="stable")
        return frame.set_index("column")

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>" + str(self._rounded().to_html())

    def __str__(self) -> str:
        rows = f"{self.n_current:,} current against {self.n_reference:,} reference rows"
        limits = f"limit of the PSI {self.limit:g}, level {self.level:g}."
        parts = [f"Verdict {self.verdict}: {rows}; {limits}"]
        if rest := len(self.columns) - len(self._rounded()):
            parts.append(f"Of {rest} more columns none has drifted.")
        return " ".join([*parts, self.note]).rstrip()

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
    reference: pd.DataFrame | Reference,
    current: pd.DataFrame,
    case: Case,
    *,
    predictions: tuple[Any, Any] | None = None,
    level: float = 0.05,
    min_rows: int = MIN_ROWS,
) -> DriftReport:
    """Compare current rows with reference rows, column by column.

    A column has drifted when its PSI is above the charter's ``drift_psi`` *and* its test, corrected
    for all columns, rejects at ``level``. The first alone alarms at every small window, where
    chance makes the PSI large; the second alone at every large one, because no two populations are
    quite equal. In the Kolmogorov-Smirnov test a missing number stands below all others, so that
    more gaps are a drift, too.

    Args:
        reference: Clean rows, with the case's columns; or their stored summaries.
        current: Rows of the same columns; may be empty, hold unknown categories, or lack a column
            (which is a drift).
        case: The case.
        predictions: The model's outputs for reference and for current rows, each ``(n,)`` or
            ``(n, k)``. The reference ones must be of rows that the model has not learnt from: it is
            surer of those that it has. A stored reference holds its own; the first is then ignored.
        level: Chance of any false alarm among all tests.
        min_rows: A window of fewer rows is not judged.

    Raises:
        DataError: The reference lacks a column of the case, or has no rows.
    """
    of_reference, of_current = predictions or (None, None)
    if isinstance(reference, pd.DataFrame):
        reference = Reference.from_frame(reference, case, of_reference)
    now = Reference.from_frame(current, case, of_current, complete=False)
    criterion = case.charter.criteria.get("drift_psi")
    limit = criterion.at_most if criterion and criterion.at_most is not None else DEFAULT_LIMIT
    names = [name for name in reference.names if predictions or name not in reference.outputs]
    if unknown := [name for name in now.names if name not in names]:
        expected = "a summary of every input of the case"
        remedy = "Make it from data/train.parquet."
        raise DataError("reference", f"nothing of {unknown[0]!r}", expected, remedy)
    both = [name for name in names if name in now.names]
    compared = [_compare(name, reference.summary(name), now.summary(name)) for name in both]
    few = len(current) < min_rows
    corrected = holm([entry.p for entry in compared])
    verdict: Verdict = "none" if current.empty else "drift"
    absent: Any = {"missing": 1.0, "verdict": verdict, "why": "no such column in the current rows"}
    columns = {name: ColumnDrift(name, **absent) for name in names}
    for entry, p in zip(compared, corrected, strict=True):
        columns[entry.column] = _with_verdict(entry, float(p), limit, level, few)
    note = f"Fewer than {min_rows} rows: too few to judge." if few else ""
    counts = reference.rows, len(current)
    return DriftReport(tuple(columns.values()), *counts, limit, level, note)


def _compare(name: str, reference: ColumnSummary, current: ColumnSummary) -> ColumnDrift:
    """The column's distances and test; the verdict comes with all columns' p-values."""
    counts = bin_counts(reference, current)
    size = psi_of_counts(*counts), psi_by_chance(*counts)
    missing = current.missing / current.rows if current.rows else 0.0
    if reference.values is None:
        return ColumnDrift(name, *size, "chi-square", *chi_square(*counts), missing=missing)
    test, moved = kolmogorov_smirnov(reference, current), wasserstein(reference, current)
    return ColumnDrift(name, *size, "KS", *test, moved=moved, missing=missing)


def _with_verdict(
    entry: ColumnDrift, p: float, limit: float, level: float, few: bool
) -> ColumnDrift:
    moved, certain = entry.psi > limit, p <= level
    verdict: Verdict = "drift" if moved and certain and not few else "none"
    why = "too few rows" if few else _REASONS[moved, certain]
    return replace(entry, p_holm=p, verdict=verdict, why=why)


_REASONS = {
    (True, True): "far, and not by chance",
    (True, False): "far, but chance could do it",
    (False, True): "not by chance, but not far",
    (False, False): "neither far nor unlikely",
}


def count_problems(current: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Count what is broken in current rows, column by column, against case.toml.

    Returns:
        One line a column: ``missing``, ``out_of_range`` and ``unknown`` (no number, no moment, or
        not among the categories), as counts; ``broken``: their share of the rows, missing values
        counted where none are allowed; ``remark``: a column that isn't there, or isn't described.
    """
    lines: list[tuple[str, int, int, int, float, str]] = []
    n = len(current)
    for column in case.inputs:
        if column.name not in current:
            lines.append((column.name, n, 0, 0, float(n > 0), "no such column"))
            continue
        values = current[column.name]
        missing = values.isna()
        outside, unknown = column.find_outside(values), column.find_unknown(values)
        broken = outside | unknown | (missing & (not column.nullable))
        counts = int(missing.sum()), int(outside.sum()), int(unknown.sum())
        lines.append((column.name, *counts, float(broken.sum()) / max(n, 1), ""))
    described = {column.name for column in case.columns} | {TARGET}
    unknown_names = [str(name) for name in current if name not in described]
    lines += [(name, 0, 0, 0, 0.0, "not in case.toml") for name in unknown_names]
    header = ["column", "missing", "out_of_range", "unknown", "broken", "remark"]
    return pd.DataFrame(lines, columns=header)
