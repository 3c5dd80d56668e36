"""What may stand in each section of a case.toml."""

from __future__ import annotations

import codecs
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lepton_lib.cases.expressions import Expression
from lepton_lib.cases.formats import NumberFormat
from lepton_lib.cases.section import Identifier, Section

# the column of the cleaned tables that holds the class index, or the number to predict
TARGET = "target"
Metric = Literal[
    "auc",
    "accuracy",
    "log_loss",
    "calibration_error",
    "mean_absolute_error",
    "baseline_gain",
    "cost",
    "group_gap",
    "latency_ms",
    "drift_psi",
]
_SHARES = ("auc", "accuracy", "calibration_error", "group_gap")
_RANGE = ("of at least 0", "from 0 to 1")


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError("a path inside the case's own folder")
    return name


def _known(encoding: str) -> str:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ValueError("an encoding that Python knows, such as 'utf-8' or 'gb18030'") from None
    return encoding


def _number_formula(text: str) -> str:
    return Expression(text, arithmetic=True).text


def _condition(text: str) -> str:
    return Expression(text).text


CaseName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]
FileName = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(gt=0, lt=1)]


class Source(Section):
    """Where the data came from and under which terms."""

    origin: str
    licence: str
    citation: str


class Data(Section):
    """The table: one row an example."""

    file: FileName
    sha256: Sha256
    row: str  # what one row is: "one loan application"
    delimiter: str = Field(",", min_length=1, max_length=1)
    encoding: Annotated[str, AfterValidator(_known)] = "utf-8"
    header_line: int = Field(1, ge=1)  # titles and "sep=;" may stand above it
    skip_rows: int = Field(0, ge=0)  # lines between the header and the first row
    duplicates: Literal["error", "drop", "keep"] = "error"  # keep: equal rows are different things
    # columns whose values tell two rows apart; later rows with the same are dropped
    unique: tuple[str, ...] = ()


class Records(Section):
    """The same rows as nested JSON lines; ``paths`` finds a column: ``age = "applicant.age"``."""

    file: FileName
    sha256: Sha256
    paths: dict[str, str]

    @model_validator(mode="after")
    def _paths_are_apart(self) -> Self:
        paths = [tuple(path.split(".")) for path in self.paths.values()]
        for path in paths:
            if "" in path or sum(other[: len(path)] == path for other in paths) > 1:
                raise ValueError(
                    f"paths of which none is empty or leads through another; got {'.'.join(path)!r}"
                )
        return self


class TargetClass(Section):
    """One class and the values of the target column that stand for it."""

    name: str
    values: tuple[str, ...] = Field(min_length=1)


class Target(NumberFormat):
    """What is predicted. Of two classes the second is *positive*: its probability is reported."""

    column: str  # the header in the file
    meaning: str
    unit: str = ""
    classes: tuple[TargetClass, ...] = ()
    missing: tuple[str, ...] = ()  # marks that mean "missing", besides the empty cell
    min: float | None = None
    max: float | None = None


class Feature(Section):
    """A number computed from number columns inside the model's graph, so clients don't send it."""

    name: Identifier
    expression: Annotated[str, AfterValidator(_number_formula)]
    meaning: str
    unit: str = ""

    @cached_property
    def formula(self) -> Expression:
        """The parsed expression."""
        return Expression(self.expression, arithmetic=True)


class Rule(Section):
    """Rows that must not be learnt from, and why."""

    drop: Annotated[str, AfterValidator(_condition)]
    why: str

    @cached_property
    def formula(self) -> Expression:
        """The parsed condition."""
        return Expression(self.drop)


class Split(Section):
    """How the rows are divided.

    ``stratified`` draws rows at random with the classes' shares kept; ``time`` cuts at points in
    time (``column``) and never shuffles; ``given`` takes the parts that ``column`` names (``train``
    and ``test``). ``group`` is what several rows come from, such as a customer: a stratified split
    keeps each on one side, and every interval draws its rows together.
    """

    method: Literal["stratified", "time", "given"]
    column: str = ""
    group: str = ""
    validation: Share = 0.2
    test: Share = 0.2

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test below 1, so that rows are left to train on")
        if self.method != "stratified" and not self.column:
            raise ValueError(f"the column that a {self.method!r} split goes by")
        return self


class Costs(Section):
    """What a decision costs, ``matrix[truth][decision]``, both named by class."""

    unit: str
    matrix: dict[str, dict[str, Annotated[float, Field(ge=0)]]]
    decisions: dict[str, str] = Field(
        default={}
    )  # what is done when a class is decided on: bad = "refuse"


class Bands(Section):
    """Names for ranges of the positive class's probability; ``limits`` are the bounds between."""

    names: tuple[str, ...]
    limits: tuple[Share, ...]

    @model_validator(mode="after")
    def _one_more_name_than_limits(self) -> Self:
        if len(self.names) != len(self.limits) + 1 or list(self.limits) != sorted(set(self.limits)):
            raise ValueError("rising limits, and one more name than limits")
        return self


class Criterion(Section):
    """A bound that was agreed before any work."""

    at_least: float | None = None
    at_most: float | None = None
    why: str

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("either at_least or at_most")
        return self


class Charter(Section):
    """The acceptance criteria, what would make us stop, and the risks that we know of.

    One that ``lepton new-case`` drafted is not ``agreed``: the gate measures and doesn't judge.
    ``baseline`` names the inputs that a simple rival of the model knows, for ``baseline_gain``.
    """

    criteria: dict[Metric, Criterion]
    stop: tuple[str, ...]
    risks: tuple[str, ...]
    baseline: tuple[str, ...] = ()
    agreed: bool = Field(True, exclude_if=bool)  # written where it is news

    @model_validator(mode="after")
    def _bounds_point_the_right_way(self) -> Self:
        for metric, criterion in self.criteria.items():
            bound = "at_least" if metric in ("auc", "accuracy", "baseline_gain") else "at_most"
            if (value := getattr(criterion, bound)) is None:
                raise ValueError(f"{bound} for {metric}, not its opposite")
            if value < 0 or (metric in _SHARES and value > 1):
                raise ValueError(f"{bound} of {metric} {_RANGE[metric in _SHARES]}; got {value:g}")
        return self


class Policy(Section):
    """When monitoring acts, for `lepton_lib.monitoring.judge`; these are the defaults."""

    min_rows: int = Field(100, ge=30)  # served rows in a window; fewer wait for the next
    min_labels: int = Field(50, ge=30)  # labels that have come in, before a loss is judged
    # windows in a row with an alarm, before anything is trained
    patience: int = Field(2, ge=1)
    cool_down_hours: float = Field(24.0, ge=0)  # after an action, before the next training
    # in which a challenger answers unseen, before it may be promoted
    shadow_windows: int = Field(1, ge=1)
    max_broken: Share = 0.01  # of a column's values, before its source must be fixed
    level: Share = 0.05  # chance of any false alarm among a window's tests
