"""Judging live rows: have they drifted from the reference, is something broken, and what to do?

Knows cases and data frames; doesn't know services, logs or run folders.
"""

from lepton_lib.intervals import Interval
from lepton_lib.monitoring.distances import (
    DRAWS,
    ColumnSummary,
    Moments,
    bin_counts,
    change_in_mean,
    chi_square,
    holm,
    kolmogorov_smirnov,
    moments,
    psi,
    psi_by_chance,
    summarise,
    wasserstein,
)
from lepton_lib.monitoring.drift import (
    MIN_ROWS,
    ColumnDrift,
    DriftReport,
    count_problems,
    drift_report,
)
from lepton_lib.monitoring.performance import (
    estimate_performance,
    group_performance,
    performance,
    row_losses,
)
from lepton_lib.monitoring.policy import Decision, Signals, State, advise, choose_model, judge
from lepton_lib.monitoring.reference import Reference
from lepton_lib.monitoring.sequential import confidence_sequence

__all__ = [
    "DRAWS",
    "MIN_ROWS",
    "ColumnDrift",
    "ColumnSummary",
    "Decision",
    "DriftReport",
    "Interval",
    "Moments",
    "Reference",
    "Signals",
    "State",
    "advise",
    "bin_counts",
    "change_in_mean",
    "chi_square",
    "choose_model",
    "confidence_sequence",
    "count_problems",
    "drift_report",
    "estimate_performance",
    "group_performance",
    "holm",
    "judge",
    "kolmogorov_smirnov",
    "moments",
    "performance",
    "psi",
    "psi_by_chance",
    "row_losses",
    "summarise",
    "wasserstein",
]
