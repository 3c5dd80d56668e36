"""Which columns have moved away from the reference, and which values break their case's rules.

*Reference* rows are those that the model was trained on, *current* rows those that it is asked
about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from lepton_lib.cases import Case
from lepton_lib.errors import DataError
from lepton_lib.monitoring.distances import (
    Summary,
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
        frame = pd.DataFrame(
            [asdict(entry) for entry in self.columns], columns=list(ColumnDrift.__annotations__)
        )
        return frame.sort_values(
            ["verdict", "psi"], ascending=[True, False], kind="stable"
        ).set_index("column")

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>" + str(self._rounded().to_html())

    def __str__(self) -> str:
        rows = f"{self.n_current:,} current against {self.n_reference:,} reference rows"
        words = f"Verdict {self.verdict}: {rows}; limit of the PSI {self.limit:g}, level {self.level:g}."
        rest = len(self.columns) - len(self._rounded())
        return (
            words
            + (f" Of {rest} more columns none has drifted." if rest else "")
            + f" {self.note}".rstrip()
        )

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
    for all columns, rejects at ``level``. The first alone rings at every small window, for chance
    alone makes a large PSI there; the second alone rings at every large one, for no two populations
    are quite equal. In the Kolmogorov-Smirnov test a missing number stands below all others, so
    that a gap is a drift, too.

    Args:
        reference: Clean rows, with the case's columns; or what was stored of them, whose rows
            aren't read again.
        current: Rows of the same columns; may be empty, hold unknown categories, or lack a column
            (which is a drift).
        case: The case.
        predictions: The model's answers to reference and to current rows, each ``(n,)`` or ``(n,
            k)``. The reference ones must be of rows that the model has not learnt from: it is surer
            of those that it has. A stored reference holds its own: then the first of the two isn't
            looked at.
        level: Chance of any false alarm among all tests.
        min_rows: A window of fewer rows is not judged.

    Raises:
        DataError: The reference lacks a column of the case, or has no rows.
    """
    given, answered = predictions if predictions is not None else (None, None)
    if isinstance(reference, pd.DataFrame):
        reference = Reference.of(reference, case, given)
    now = Reference.of(current, case, answered, lenient=True)
    criterion = case.charter.criteria.get("drift_psi")
    limit = criterion.at_most if criterion and criterion.at_most is not None else DEFAULT_LIMIT
    few = len(current) < min_rows
    names = [
        name for name in reference.names if name not in reference.answers or predictions is not None
    ]
    if absent := [name for name in now.names if name not in names]:
        raise DataError(
            "reference",
            f"nothing of {absent[0]!r}",
            "a summary of every input of the case",
            "Make it again, from data/train.parquet of the same run.",
        )
    found = {
        name: _compare(reference.summary(name), now.summary(name))
        for name in names
        if name in now.names
    }
    corrected = dict(zip(found, holm([entry["p"] for entry in found.values()]), strict=True))
    columns = []
    for name in names:
        if name not in found:
            verdict: Verdict = "none" if current.empty else "drift"
            columns.append(
                ColumnDrift(
                    name,
                    0.0,
                    0.0,
                    "",
                    0.0,
                    1.0,
                    1.0,
                    None,
                    1.0,
                    verdict,
                    "no such column in the current rows",
                )
            )
            continue
        entry, p = found[name], float(corrected[name])
        moved, certain = entry["psi"] > limit, p <= level
        why = "too few rows" if few else _reason(moved, certain)
        columns.append(
            ColumnDrift(
                name,
                **entry,
                p_holm=p,
                verdict="drift" if moved and certain and not few else "none",
                why=why,
            )
        )
    note = f"Fewer than {min_rows} rows: too few to judge." if few else ""
    return DriftReport(tuple(columns), reference.rows, len(current), limit, level, note)


def _reason(moved: bool, certain: bool) -> str:
    match moved, certain:
        case True, True:
            return "far, and not by chance"
        case True, False:
            return "far, but chance could do it"
        case False, True:
            return "not by chance, but not far"
    return "neither far nor unlikely"


def _compare(reference: Summary, current: Summary) -> dict[str, Any]:
    counts = bin_counts(reference, current)
    entry: dict[str, Any] = {"psi": psi_of_counts(*counts), "chance": psi_by_chance(*counts)}
    entry["missing"] = current.missing / current.rows if current.rows else 0.0
    if reference.values is None:
        entry["test"], (entry["statistic"], entry["p"]) = "chi-square", chi_square(*counts)
        return entry | {"moved": None}
    entry["test"], (entry["statistic"], entry["p"]) = "KS", kolmogorov_smirnov(reference, current)
    return entry | {"moved": wasserstein(reference, current)}


def count_problems(current: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Count what is broken in current rows, column by column, against case.toml.

    Returns:
        One line a column: ``missing``, ``out_of_range`` and ``unknown`` (no number, no moment, or
        not among the categories), as counts; ``broken``: their share of the rows, missing values
        counted where none are allowed; ``remark``: a column that isn't there, or isn't described.
    """
    lines: list[tuple[str, int, int, int, float, str]] = []
    rows = max(len(current), 1)
    for column in case.inputs:
        if column.name not in current:
            lines.append(
                (column.name, len(current), 0, 0, float(len(current) > 0), "no such column")
            )
            continue
        values = current[column.name]
        gone = values.isna()
        unknown, outside = column.find_unknown(values), column.find_outside(values)
        broken = outside | unknown | (gone & (not column.nullable))
        missing, far, odd = (int(mask.sum()) for mask in (gone, outside, unknown))
        lines.append((column.name, missing, far, odd, float(broken.sum()) / rows, ""))
    known = {column.name for column in case.columns} | {"target"}
    lines += [
        (str(name), 0, 0, 0, 0.0, "not in case.toml") for name in current if name not in known
    ]
    return pd.DataFrame(
        lines, columns=["column", "missing", "out_of_range", "unknown", "broken", "remark"]
    )
