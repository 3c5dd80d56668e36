"""From signals to an action, with its reasons.

Knows reports and intervals; doesn't know services or run folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import pandas as pd

from lepton_lib.cases.sections import Policy
from lepton_lib.intervals import Interval
from lepton_lib.monitoring.drift import DriftReport

_ASK_FOR_LABELS = "no labels yet: whether it does harm can't be said; ask for them"


@dataclass(frozen=True, repr=False)
class Decision:
    """What to do, and why, in words for the person who answers for it."""

    action: Literal["nothing", "watch", "retrain", "roll back", "promote", "keep"]
    reasons: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n- ".join([self.action, *self.reasons])

    def _repr_html_(self) -> str:
        reasons = "".join(f"<li>{reason}</li>" for reason in self.reasons)
        return f"<b>{self.action}</b><ul>{reasons}</ul>"


@dataclass(frozen=True)
class Signals:
    """One window's signals, as far as the policy asks."""

    rows: int  # served
    broken: tuple[str, ...] = ()  # columns with too many broken values, or that aren't there
    drifted: tuple[str, ...] = ()  # columns, the strongest first
    # Mean loss of the labelled rows minus the reference's; None with too few labels.
    loss_change: Interval | None = None
    # The current model's loss minus its predecessor's, on the same labelled rows; None without one.
    # It is judged in every window: give a `confidence_sequence` of all windows since the promotion.
    versus_previous: Interval | None = None

    @classmethod
    def from_reports(
        cls,
        report: DriftReport,
        problems: pd.DataFrame | None = None,
        *,
        max_broken: float = 0.01,
        loss_change: Interval | None = None,
        versus_previous: Interval | None = None,
    ) -> Self:
        """From the results of `drift_report` and `count_problems`."""
        broken = []
        if problems is not None:
            broken = problems.loc[problems["broken"] > max_broken, "column"].tolist()
        broken += [c.column for c in report.columns if c.verdict == "drift" and not c.test]
        columns = tuple(dict.fromkeys(broken))
        rows, drifted = report.n_current, report.drifted
        return cls(rows, columns, drifted, loss_change, versus_previous)

    @property
    def worse(self) -> bool:
        """Whether the loss is certainly higher than on the reference rows."""
        return self.loss_change is not None and self.loss_change[1] > 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """What there is to say of drift and loss."""
        reasons = [f"drift in {', '.join(self.drifted)}"] if self.drifted else []
        if self.loss_change is not None:
            state = "not certainly different from"
            if self.worse:
                state = "higher than"
            elif self.loss_change[2] < 0:
                state = "lower than"
            change = _signed(self.loss_change)
            reasons.append(
                f"the loss on labelled rows is {state} that on the reference rows ({change})"
            )
        return tuple(reasons)


class State(NamedTuple):
    """What the policy remembers from window to window."""

    alarms: int = 0  # in a row
    acted: float | None = None  # POSIX seconds of the last action


def judge(state: State, signals: Signals, policy: Policy, now: float) -> tuple[State, Decision]:
    """The policy over time: patience before an action, a pause after it. A pure function.

    A model that is certainly worse than its predecessor is rolled back at once. Broken data are to
    be fixed at their source, and with too few rows we wait: neither counts for or against an alarm.
    An alarm is drift, or a loss that is certainly higher; after ``patience`` windows in a row, with
    labels to learn from and the pause over, a challenger is trained. A clock that was set back
    restarts the pause, so that it never lasts longer than one pause.

    Args:
        state: After the window before.
        signals: This window's.
        policy: The case's.
        now: POSIX seconds.

    Returns:
        The state after this window, and what to do.
    """
    if state.acted is not None and now < state.acted:
        state = state._replace(acted=now)
    if signals.versus_previous is not None and signals.versus_previous[1] > 0:
        reason = "the model at work is certainly worse than its predecessor on the same rows"
        reason = f"{reason} ({_signed(signals.versus_previous)})"
        return State(0, now), Decision("roll back", (reason,))
    if signals.broken:
        return state, _fix_source(signals)
    if signals.rows < policy.min_rows:
        reason = f"{signals.rows} of {policy.min_rows} rows: too few to judge"
        return state, Decision("watch", (reason,))
    if not (signals.drifted or signals.worse):
        return state._replace(alarms=0), _calm(signals)
    state = state._replace(alarms=state.alarms + 1)
    if reason := _reason_to_wait(state, signals, policy, now):
        return state, Decision("watch", (*signals.reasons, reason))
    reason = f"{state.alarms} alarms in a row, and labels"
    return State(0, now), Decision("retrain", (*signals.reasons, reason))


def _reason_to_wait(state: State, signals: Signals, policy: Policy, now: float) -> str:
    """Why an alarm doesn't lead to retraining yet; empty where it does."""
    if state.alarms < policy.patience:
        count = f"alarm {state.alarms} of {policy.patience} in a row"
        return f"{count}: one odd window is no reason to act"
    if state.acted is not None and now - state.acted < policy.cool_down_hours * 3600:
        left = policy.cool_down_hours - (now - state.acted) / 3600
        return f"the pause after the last action lasts {left:.1f} h more"
    return _ASK_FOR_LABELS if signals.loss_change is None else ""


def _fix_source(signals: Signals) -> Decision:
    broken = ", ".join(signals.broken)
    reason = f"broken at the source: {broken}; fix it there before anything is learnt from it"
    return Decision("watch", (reason,))


def _calm(signals: Signals) -> Decision:
    return Decision("nothing", (*(signals.reasons or ["no labels yet"]), "no column has drifted"))


def advise(
    report: DriftReport,
    *,
    problems: pd.DataFrame | None = None,
    loss_change: Interval | None = None,
    max_broken: float = 0.01,
) -> Decision:
    """The policy for one window, without patience or pause: from signals to one action.

    Broken data are fixed at their source, never learnt from. Without labels nothing can be learnt,
    so drift alone asks for labels. With labels, drift or a higher loss asks for a challenger;
    `choose_model` says whether it is promoted, so training one in vain costs minutes only.

    Args:
        report: From `drift_report`.
        problems: From `count_problems`.
        loss_change: Mean loss of the current labelled rows minus the reference's, once labels are
            there.
        max_broken: Greatest share of broken values in a column.
    """
    signals = Signals.from_reports(report, problems, max_broken=max_broken, loss_change=loss_change)
    if signals.broken:
        return _fix_source(signals)
    if report.note:
        return Decision("watch", (f"{report.n_current} rows: too few to judge; wait for more",))
    if signals.worse or (signals.drifted and loss_change is not None):
        return Decision("retrain", (*signals.reasons, "labels are there to learn from"))
    if signals.drifted:
        return Decision("watch", (*signals.reasons, _ASK_FOR_LABELS))
    return _calm(signals)


def choose_model(differences: Mapping[str, Interval], *, deciding: str) -> Decision:
    """Champion or challenger, both judged on the same rows.

    The challenger is promoted if it is certainly better on the deciding rows and certainly worse on
    none. The burden of proof is the challenger's: every change of a model costs trust.

    Args:
        differences: Champion's mean loss minus challenger's, by set of rows: above zero, the
            challenger is better.
        deciding: The set that decides.
    """
    reasons = [f"{name}: {_compared(entry)}" for name, entry in differences.items()]
    worse = [name for name, entry in differences.items() if entry[2] < 0]
    if worse:
        return Decision("keep", (*reasons, f"certainly worse on {', '.join(worse)}"))
    if differences[deciding][1] > 0:
        reasons.append(f"certainly better on {deciding}, certainly worse nowhere")
        return Decision("promote", tuple(reasons))
    return Decision("keep", (*reasons, f"not certainly better on {deciding}"))


def _compared(entry: Interval) -> str:
    size = f"{abs(entry[0]):.3g} {'lower' if entry[0] >= 0 else 'higher'}"
    return f"the challenger's loss is {size} (champion minus challenger {_signed(entry)})"


def _signed(entry: Interval) -> str:
    value, low, high = entry
    return f"{value:+.3g}, 95 % interval {low:+.3g} to {high:+.3g}"
