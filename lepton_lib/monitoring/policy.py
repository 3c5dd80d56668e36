"""From signals to an action, with its reasons. Knows reports and intervals; doesn't know services or run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from lepton_lib.monitoring.distances import Interval
from lepton_lib.monitoring.drift import DriftReport


@dataclass(frozen=True, repr=False)
class Decision:
    """What to do, and why, in words for the person who has to answer for it."""

    action: Literal["nothing", "watch", "retrain", "promote", "keep"]
    reasons: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n- ".join([self.action, *self.reasons])

    def _repr_html_(self) -> str:
        return f"<b>{self.action}</b><ul>" + "".join(f"<li>{reason}</li>" for reason in self.reasons) + "</ul>"


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
