"""From signals to an action, with its reasons. Knows reports and intervals; doesn't know services or run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import pandas as pd

from lepton_lib.cases.sections import Policy
from lepton_lib.monitoring.distances import Interval
from lepton_lib.monitoring.drift import DriftReport


@dataclass(frozen=True, repr=False)
class Decision:
    """What to do, and why, in words for the person who has to answer for it."""

    action: Literal["nothing", "watch", "retrain", "roll back", "promote", "keep"]
    reasons: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n- ".join([self.action, *self.reasons])

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.action}</b><ul>"
            + "".join(f"<li>{reason}</li>" for reason in self.reasons)
            + "</ul>"
        )


@dataclass(frozen=True)
class Signals:
    """What one window tells, as far as the policy asks.

    Attributes:
        rows: Served rows.
        broken: Columns with too many broken values, or that aren't there.
        drifted: Columns that drifted, the strongest first.
        loss_change: Mean loss of the labelled rows minus the reference's; None without labels
            enough.
        versus_previous: On the same labelled rows the loss of the model at work minus its
            predecessor's; None where there is no predecessor, or no labels enough.
    """

    rows: int
    broken: tuple[str, ...] = ()
    drifted: tuple[str, ...] = ()
    loss_change: Interval | None = None
    versus_previous: Interval | None = None

    @classmethod
    def of(
        cls,
        report: DriftReport,
        problems: pd.DataFrame | None = None,
        *,
        max_broken: float = 0.01,
        loss_change: Interval | None = None,
        versus_previous: Interval | None = None,
    ) -> Self:
        """From `drift_report`'s and `count_problems`' findings."""
        broken = (
            []
            if problems is None
            else problems.loc[problems["broken"] > max_broken, "column"].tolist()
        )
        absent = [
            entry.column for entry in report.columns if entry.verdict == "drift" and not entry.test
        ]
        columns = tuple(dict.fromkeys([*broken, *absent]))
        return cls(report.n_current, columns, report.drifted, loss_change, versus_previous)

    @property
    def worse(self) -> bool:
        """Whether the loss is certainly higher than on the reference rows."""
        return self.loss_change is not None and self.loss_change[1] > 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """What there is to say of drift and loss."""
        reasons = [f"drift in {', '.join(self.drifted)}"] if self.drifted else []
        if (change := self.loss_change) is not None:
            state = (
                "higher than"
                if self.worse
                else "lower than"
                if change[2] < 0
                else "not certainly different from"
            )
            reasons.append(
                f"the loss on labelled rows is {state} that on the reference rows ({_signed(change)})"
            )
        return tuple(reasons)


class State(NamedTuple):
    """What the policy remembers from window to window: alarms in a row, and when it last acted (POSIX seconds)."""

    alarms: int = 0
    acted: float | None = None


def judge(state: State, signals: Signals, policy: Policy, now: float) -> tuple[State, Decision]:
    """The policy over time: patience before an action, a pause after it. It depends on its arguments alone.

    A model that is certainly worse than its predecessor is rolled back at once. What is broken is
    mended at its source, and too few rows are waited out: neither counts for or against an alarm.
    An alarm is drift, or a loss that is certainly higher; after ``patience`` windows in a row, with
    labels to learn from and the pause over, a challenger is trained. A clock that was put back
    makes the pause begin again, so that it never lasts longer than one pause.

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
        return State(0, now), Decision(
            "roll back", (f"{reason} ({_signed(signals.versus_previous)})",)
        )
    if signals.broken:
        return state, _mend(signals)
    if signals.rows < policy.min_rows:
        return state, Decision(
            "watch", (f"{signals.rows} of {policy.min_rows} rows: too few to judge",)
        )
    if not (signals.drifted or signals.worse):
        return state._replace(alarms=0), _calm(signals)
    state = state._replace(alarms=state.alarms + 1)
    if state.alarms < policy.patience:
        patience = f"alarm {state.alarms} of {policy.patience} in a row"
        return state, Decision(
            "watch", (*signals.reasons, f"{patience}: one odd window is no reason to act")
        )
    if state.acted is not None and now - state.acted < policy.cool_down_hours * 3600:
        left = policy.cool_down_hours - (now - state.acted) / 3600
        return state, Decision(
            "watch", (*signals.reasons, f"the pause after the last action lasts {left:.1f} h more")
        )
    if signals.loss_change is None:
        return state, Decision("watch", (*signals.reasons, _ASK))
    return State(0, now), Decision(
        "retrain", (*signals.reasons, f"{state.alarms} alarms in a row, and labels")
    )


_ASK = "no labels yet: whether it does harm can't be said; ask for them"


def _mend(signals: Signals) -> Decision:
    names = ", ".join(signals.broken)
    return Decision(
        "watch",
        (f"broken at the source: {names}; mend it there before anything is learnt from it",),
    )


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

    Broken data are mended at their source, never learnt from. Without labels nothing can be learnt,
    so drift alone asks for labels. With labels, drift or a higher loss asks for a challenger;
    whether it is promoted is `choose_model`'s question, so training one in vain costs minutes only.

    Args:
        report: From `drift_report`.
        problems: From `count_problems`.
        loss_change: Mean loss of the current labelled rows minus the reference's, once labels are
            there.
        max_broken: Greatest share of broken values in a column.
    """
    signals = Signals.of(report, problems, max_broken=max_broken, loss_change=loss_change)
    if signals.broken:
        return _mend(signals)
    if report.note:
        return Decision("watch", (f"{report.n_current} rows: too few to judge; wait for more",))
    if signals.worse or (signals.drifted and loss_change is not None):
        return Decision("retrain", (*signals.reasons, "labels are there to learn from"))
    return Decision("watch", (*signals.reasons, _ASK)) if signals.drifted else _calm(signals)


def choose_model(differences: Mapping[str, Interval], *, deciding: str) -> Decision:
    """Champion or challenger, both judged on the same rows.

    The challenger is promoted if it is certainly better on the deciding rows and certainly worse on
    none: the burden of proof lies with the newcomer, for every change of a model costs trust.

    Args:
        differences: Champion's mean loss minus challenger's, by set of rows: above zero, the
            challenger is better.
        deciding: The set that decides.
    """
    main = differences[deciding]
    worse = [name for name, entry in differences.items() if entry[2] < 0]
    reasons = [
        f"{name}: the challenger's loss is {_compared(entry)}"
        for name, entry in differences.items()
    ]
    better = main[1] > 0
    if better and not worse:
        return Decision(
            "promote", (*reasons, f"certainly better on {deciding}, certainly worse nowhere")
        )
    last = (
        f"certainly worse on {', '.join(worse)}" if worse else f"not certainly better on {deciding}"
    )
    return Decision("keep", (*reasons, last))


def _compared(entry: Interval) -> str:
    word = "lower" if entry[0] >= 0 else "higher"
    return f"{abs(entry[0]):.3g} {word} (champion minus challenger {_signed(entry)})"


def _signed(entry: Interval) -> str:
    value, low, high = entry
    return f"{value:+.3g}, 95 % interval {low:+.3g} to {high:+.3g}"
