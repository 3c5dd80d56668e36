"""What the journal holds and the report shows, as typed records. Knows no run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct, field, to_builtins

from lepton_lib.monitoring.distances import Moments
from lepton_lib.monitoring.drift import ColumnDrift, Verdict
from lepton_lib.monitoring.policy import Decision, State
from lepton_lib.utils import to_json

FORM = 2  # of the JSON that is written; a change that its readers would notice raises it
# what report.json says of every window
HISTORY = (
    *("window", "time", "rows", "labels", "model_version", "decision"),
    *("performance", "estimate", "groups", "psi"),
)

# a value and the ends of its 95 % interval; JSON has no infinity, so None is an end without bound
Span = tuple[float | None, float | None, float | None]


class Drift(Struct, frozen=True):
    """A `lepton_lib.monitoring.DriftReport`, with its verdict."""

    verdict: Verdict
    drifted: tuple[str, ...]
    columns: tuple[ColumnDrift, ...]
    n_reference: int
    n_current: int
    limit: float
    level: float
    note: str


class WindowSignals(Struct, frozen=True):
    """A window's `lepton_lib.monitoring.Signals`."""

    rows: int
    broken: tuple[str, ...]
    drifted: tuple[str, ...]
    loss_change: Span | None
    versus_previous: Span | None


class GapToPrevious(Struct, frozen=True):
    """A window's labelled rows: the version's losses minus its predecessor's."""

    version: str  # the predecessor
    moments: Moments


class Group(Struct, frozen=True):
    """A group of a sensitive column: rates among the new rows, the gap among the labelled ones."""

    column: str
    group: str
    rows: int
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    labelled: int | float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    judged: bool | None = None


class Distribution(Struct, frozen=True):
    """A column's shares among reference and current rows, in the same bins; ``missing`` of both."""

    column: str
    kind: str  # "number" or "category"
    bins: list[float | str]  # of a number its least and greatest edge
    reference: list[float]
    current: list[float]
    missing: tuple[float, float]


class Window(Struct, frozen=True, kw_only=True):
    """A window as it was judged; ``first`` and ``last`` are the times of its rows."""

    form: Annotated[int, Meta(ge=1, le=FORM)] = FORM
    window: int
    time: str
    first: str
    last: str
    rows: int
    of_rows: int | None = None  # that had come: the rows are these, or evenly spaced ones of them
    labels: int
    model_version: str
    decision: Decision
    state: State
    signals: WindowSignals
    gap_to_previous: GapToPrevious | None = None
    drift: Drift
    problems: list[dict[Any, Any]]  # a line of `count_problems` for each column
    performance: Mapping[str, Span]
    estimate: Mapping[str, Span]
    groups: list[Group]
    distributions: list[Distribution]

    @property
    def psi(self) -> float:
        """The PSI of the column that moved most."""
        return max((entry.psi for entry in self.drift.columns), default=0.0)


class Progress(Struct, frozen=True, omit_defaults=True):
    """What an act has left so far; each stage adds to it."""

    champion: str = ""  # the version at work when rows were gathered
    rows: int = 0  # the case's own
    served: int = 0  # labelled rows that were added to them
    filled: list[str] | None = None  # columns that no request has, with their most frequent value
    challenger: str = ""  # the version that retraining made
    gate: bool | None = None  # whether it passed
    differences: Mapping[str, Span] | None = None  # champion's mean loss minus challenger's
    reasons: Sequence[str] | None = None  # why the act went on as it did
    shadowed: int | None = None  # rows that the challenger answered beside the champion
    apart: float | None = None  # mean absolute difference of their answers
    from_version: str = field(name="from", default="")  # that was rolled back
    to: str = ""  # the version that answers again


class Act(Struct, frozen=True):
    """Something that was decided on in a window: ``stage`` is the last one that is done."""

    window: int
    action: str
    stage: str
    content: Progress

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.stage in ("promoted", "kept", "rolled back")


class Light(Struct, frozen=True):
    """A signal's state, and a sentence for it."""

    signal: str
    light: str  # "good", "watch", "act" or, where nothing is known, "none"
    text: str


class Report(Struct, frozen=True, kw_only=True):
    """The content of report.json; ``waiting`` are rows that make no window yet."""

    form: int = FORM
    case: str
    next: str
    waiting: int
    lights: list[Light]
    latest: Window | None
    windows: list[dict[str, Any]]  # the `HISTORY` of each
    acts: list[Act]


def dump(record: Struct) -> str:
    """A record as JSON."""
    return to_json(to_builtins(record, enc_hook=lambda value: value.tolist()))
