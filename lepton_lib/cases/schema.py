"""What may stand in a case.toml, and how it is read."""

from __future__ import annotations

import codecs
import os
import tomllib
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator
from pydantic import Field as Key

from lepton_lib.cases.expressions import Expression
from lepton_lib.errors import CaseError
from lepton_lib.utils import course_folders, sha256_of

if TYPE_CHECKING:
    from lepton_lib.cases.records import Reader

Task = Literal["binary", "multiclass", "regression"]
Metric = Literal[
    "auc",
    "accuracy",
    "log_loss",
    "calibration_error",
    "mean_absolute_error",
    "cost",
    "group_gap",
    "latency_ms",
    "drift_psi",
]
PARTS: dict[str, int] = {"hour": 24, "weekday": 7, "month": 12}  # of a timestamp: how many values each has
TARGET = "target"  # the column of the cleaned tables that holds the class index, or the number to predict


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


FileName = Annotated[str, AfterValidator(_inside)]
Identifier = Annotated[str, Key(pattern=r"^[a-z_][a-z0-9_]*$")]
Sha256 = Annotated[str, Key(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Key(gt=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Source(_Section):
    """Where the data came from and under which terms."""

    origin: str
    licence: str
    citation: str


class Data(_Section):
    """The table: one row an example."""

    file: FileName
    sha256: Sha256
    row: str  # what one row is: "one loan application"
    delimiter: str = Key(default=",", min_length=1, max_length=1)
    encoding: Annotated[str, AfterValidator(_known)] = "utf-8"
    skip_rows: int = Key(default=0, ge=0)  # lines between the header and the first row
    duplicates: Literal["error", "drop"] = "error"
    unique: tuple[str, ...] = ()  # columns whose values tell two rows apart; later rows with the same are dropped


class Records(_Section):
    """The same rows as nested JSON lines; ``paths`` says where each column lies: ``age = "applicant.age"``."""

    file: FileName
    sha256: Sha256
    paths: dict[str, str]

    @model_validator(mode="after")
    def _paths_are_apart(self) -> Self:
        paths = [tuple(path.split(".")) for path in self.paths.values()]
        for path in paths:
            if "" in path or sum(other[: len(path)] == path for other in paths) > 1:
                raise ValueError(f"paths of which none is empty or leads through another; got {'.'.join(path)!r}")
        return self


class Column(_Section):
    """One column of the table.

    A value that breaks its column's rule (not a number, out of range, not one of the categories) is an error, or
    becomes missing where ``on_invalid`` says so. A row with a missing value in a column that isn't ``nullable`` is
    dropped. Both are counted.
    """

    name: Identifier
    kind: Literal["number", "category", "timestamp", "text"]  # text only to be ignored
    meaning: str
    source: str | None = None  # the header in the file, where it isn't the name
    unit: str = ""
    min: float | None = None
    max: float | None = None
    categories: tuple[str, ...] = ()
    parts: tuple[Literal["hour", "weekday", "month"], ...] = ()  # what the model sees of a timestamp
    missing: tuple[str, ...] = ()  # marks that mean "missing", besides the empty cell
    nullable: bool = False
    on_invalid: Literal["error", "missing"] = "error"
    sensitive: bool = False
    cuts: tuple[float, ...] = ()  # bounds that make groups of a sensitive number
    role: Literal["input", "ignored"] = "input"

    @property
    def header(self) -> str:
        """The column's name in the file."""
        return self.name if self.source is None else self.source

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Self:
        if self.name == TARGET:
            raise ValueError(f"a name other than {TARGET!r}, which the cleaned tables use for the label")
        if self.kind == "category" and (not self.categories or len(set(self.categories)) != len(self.categories)):
            raise ValueError("a category column with its categories listed, each once")
        if self.kind == "text" and self.role == "input":
            raise ValueError("role 'ignored' on a text column: no model here reads text")
        if self.sensitive and self.kind not in ("number", "category"):
            raise ValueError(f"a number or a category where groups are compared; got sensitive on a {self.kind}")
        if self.kind != "category" and self.categories:
            raise ValueError(f"no categories on a {self.kind} column")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min no greater than max")
        if self.kind == "timestamp" and self.role == "input" and not self.parts:
            raise ValueError('parts of the timestamp that the model may see, such as ["hour", "weekday"]')
        if self.kind == "number" and self.sensitive and not self.cuts:
            raise ValueError("cuts that make groups of a sensitive number, such as [30, 50]")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("cuts in rising order")
        return self


class TargetClass(_Section):
    """One class and the values of the target column that stand for it."""

    name: str
    values: tuple[str, ...] = Key(min_length=1)


class Target(_Section):
    """What is predicted. For two classes the second is the *positive* one, whose probability is reported."""

    column: str  # the header in the file
    meaning: str
    unit: str = ""
    classes: tuple[TargetClass, ...] = ()
    min: float | None = None
    max: float | None = None


class Feature(_Section):
    """A number computed from number columns; it is part of the model's graph, so nobody has to send it."""

    name: Identifier
    expression: Annotated[str, AfterValidator(_number_formula)]
    meaning: str
    unit: str = ""

    @cached_property
    def formula(self) -> Expression:
        """The parsed expression."""
        return Expression(self.expression, arithmetic=True)


class Rule(_Section):
    """Rows that must not be learnt from, and why."""

    drop: Annotated[str, AfterValidator(_condition)]
    why: str

    @cached_property
    def formula(self) -> Expression:
        """The parsed condition."""
        return Expression(self.drop)


class Split(_Section):
    """How the rows are divided.

    ``stratified`` draws rows at random with the classes' shares kept; ``time`` cuts at points in time (``column``) and
    never shuffles; ``given`` takes the parts that ``column`` names (``train`` and ``test``).
    """

    method: Literal["stratified", "time", "given"]
    column: str = ""
    validation: Share = 0.2
    test: Share = 0.2

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test below 1, so that rows are left to train on")
        if self.method != "stratified" and not self.column:
            raise ValueError(f"the column that a {self.method!r} split goes by")
        return self


class Costs(_Section):
    """What a decision costs, ``matrix[truth][decision]``, both named by class."""

    unit: str
    matrix: dict[str, dict[str, float]]
    decisions: dict[str, str] = {}  # what is done when a class is decided on: bad = "refuse"


class Bands(_Section):
    """Names for stretches of the positive class's probability; ``limits`` are the bounds between them."""

    names: tuple[str, ...]
    limits: tuple[Share, ...]

    @model_validator(mode="after")
    def _one_more_name_than_limits(self) -> Self:
        if len(self.names) != len(self.limits) + 1 or list(self.limits) != sorted(set(self.limits)):
            raise ValueError("rising limits, and one more name than limits")
        return self


class Criterion(_Section):
    """A bound that was agreed before any work."""

    at_least: float | None = None
    at_most: float | None = None
    why: str

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("either at_least or at_most")
        return self


class Charter(_Section):
    """The acceptance criteria, what would make us stop, and the risks that we know of."""

    criteria: dict[Metric, Criterion]
    stop: tuple[str, ...]
    risks: tuple[str, ...]

    @model_validator(mode="after")
    def _bounds_point_the_right_way(self) -> Self:
        for metric, criterion in self.criteria.items():
            bound = "at_least" if metric in ("auc", "accuracy") else "at_most"
            if getattr(criterion, bound) is None:
                raise ValueError(f"{bound} for {metric}, not its opposite")
        return self


class Policy(_Section):
    """When monitoring acts: what `lepton_lib.monitoring.judge` goes by. A case without it has these defaults."""

    min_rows: int = Key(default=100, ge=30)  # served rows in a window; fewer wait for the next
    min_labels: int = Key(default=50, ge=30)  # labels that have come in, before a loss is judged
    patience: int = Key(default=2, ge=1)  # windows in a row with an alarm, before anything is trained
    cool_down_hours: float = Key(default=24.0, ge=0)  # after an action, before the next training
    shadow_windows: int = Key(default=1, ge=1)  # in which a challenger answers unseen, before it may be promoted
    max_broken: Share = 0.01  # of a column's values, before the source is to be mended
    level: Share = 0.05  # chance of any false alarm among a window's tests


class Field(NamedTuple):
    """One column of the model's raw input matrix."""

    name: str
    kind: Literal["number", "category"]
    n_categories: int  # 0 for a number


class Case(_Section):
    """A whole case.toml."""

    name: Identifier
    title: str
    question: str
    task: Task
    source: Source
    data: Data
    records: Records | None = None
    target: Target
    split: Split
    columns: tuple[Column, ...]
    features: tuple[Feature, ...] = ()
    rules: tuple[Rule, ...] = ()
    costs: Costs | None = None
    bands: Bands | None = None
    charter: Charter
    policy: Policy = Policy()

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Where the case lies."""
        return self._folder

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes' names; empty for regression."""
        return tuple(entry.name for entry in self.target.classes)

    @property
    def n_outputs(self) -> int:
        """Width of the model's output: 1 for two classes and for regression, else the number of classes."""
        return len(self.classes) if self.task == "multiclass" else 1

    @cached_property
    def inputs(self) -> tuple[Column, ...]:
        """The columns that the model sees."""
        return tuple(column for column in self.columns if column.role == "input")

    @cached_property
    def sensitive(self) -> tuple[Column, ...]:
        """The columns whose groups are compared."""
        return tuple(column for column in self.columns if column.sensitive)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The raw input matrix ``(n, len(fields))``, column by column.

        A number stands as it is, a category as its index in ``categories``, a timestamp as one index for each of its
        parts. NaN means missing.
        """
        fields: list[Field] = []
        for column in self.inputs:
            if column.kind == "number":
                fields.append(Field(column.name, "number", 0))
            elif column.kind == "category":
                fields.append(Field(column.name, "category", len(column.categories)))
            else:
                fields += [Field(f"{column.name}.{part}", "category", PARTS[part]) for part in column.parts]
        return tuple(fields)

    @cached_property
    def reader(self) -> Reader:
        """What reads many records at once."""
        from lepton_lib.cases.records import Reader

        return Reader(self)

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def path(self, file: str) -> Path:
        """A file of this case."""
        return self._folder / file

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        names = [column.name for column in self.columns]
        headers = [column.header for column in self.columns]
        if len(set(names)) != len(names) or len(set(headers)) != len(headers):
            raise ValueError("every column named once")
        if not self.inputs:
            raise ValueError("at least one column with role 'input'")
        wanted = {"binary": "two", "multiclass": "three or more", "regression": "no"}[self.task]
        n_classes = len(self.target.classes)
        if (self.task == "regression") != (n_classes == 0) or (self.task == "binary") != (n_classes == 2):
            raise ValueError(f"{wanted} classes in [[target.classes]] for a {self.task} task; got {n_classes}")
        if len(set(self.classes)) != n_classes:
            raise ValueError("every class named once")
        values = [value for entry in self.target.classes for value in entry.values]
        if len(set(values)) != len(values):
            raise ValueError("every value of the target in one class only")
        if self.target.column in headers:
            raise ValueError(f"the target column {self.target.column!r} in [target] only, not among the columns")
        numbers = {column.name for column in self.inputs if column.kind == "number"}
        for position, feature in enumerate(self.features):
            if feature.name in (*names, *(earlier.name for earlier in self.features[:position])):
                raise ValueError(f"a feature name that nothing else has; got {feature.name!r}")
            if unknown := set(feature.formula.names) - numbers:
                raise ValueError(f"feature {feature.name!r} to use number inputs only; got {sorted(unknown)}")
        for rule in self.rules:
            if unknown := set(rule.formula.names) - set(names) - {TARGET}:
                raise ValueError(f"rule {rule.drop!r} to use known columns only; got {sorted(unknown)}")
        for where, used in (("data.unique", self.data.unique), ("split.column", (self.split.column,))):
            if unknown := set(filter(None, used)) - set(names):
                raise ValueError(f"{where} to name known columns; got {sorted(unknown)}")
        if self.split.method != "stratified":
            by = self.column(self.split.column)
            if (
                by.nullable
                or by.kind not in {"time": ("timestamp", "number"), "given": ("category",)}[self.split.method]
            ):
                wanted = {"time": "timestamp or number", "given": "category"}[self.split.method]
                raise ValueError(f"split.column to be a {wanted} that isn't nullable")
            if self.split.method == "given" and set(by.categories) != {"train", "test"}:
                raise ValueError("the categories 'train' and 'test' in the column of a 'given' split")
        if self.records and set(self.records.paths) != set(names) | {TARGET}:
            odd = sorted(set(self.records.paths) ^ (set(names) | {TARGET}))
            raise ValueError(f"records.paths to name every column and {TARGET!r} once; at fault: {odd}")
        needs = dict.fromkeys(("auc", "accuracy", "log_loss", "calibration_error", "group_gap"), n_classes > 0)
        needs |= {"mean_absolute_error": n_classes == 0, "cost": self.costs is not None}
        for metric in self.charter.criteria:
            if not needs.get(metric, True) or (metric == "group_gap" and not self.sensitive):
                raise ValueError(f"criteria that this case can be judged by; got {metric!r}")
        if self.bands and self.task != "binary":
            raise ValueError("bands on a binary task only")
        if self.costs:
            for named in (list(self.costs.matrix), *map(list, self.costs.matrix.values())):
                if set(named) != set(self.classes):
                    raise ValueError(f"costs.matrix to name the classes {list(self.classes)}; got {sorted(named)}")
            if unknown := set(self.costs.decisions) - set(self.classes):
                raise ValueError(f"costs.decisions to name the classes {list(self.classes)}; got {sorted(unknown)}")
        return self


def _search_path() -> list[Path]:
    """Folders that may hold cases: LEPTON_DATASETS, then datasets/ here, above, and beside the library."""
    places = [Path(entry) for entry in os.environ.get("LEPTON_DATASETS", "").split(os.pathsep) if entry]
    places += course_folders("datasets")
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def list_cases() -> list[str]:
    """The names of the cases that can be loaded by name."""
    return sorted({toml.parent.name for place in _search_path() for toml in place.glob("*/case.toml")})


def load_case(name: str | Path, *, verify: bool = True) -> Case:
    """Read, validate and verify a case.

    Args:
        name: A case's name, such as ``"credit"``, or the path of a folder that holds a case.toml.
        verify: Compare the data files with their hashes. Only a step that makes such a file has reason not to.

    Raises:
        CaseError: No such case; or the file, a key of it, a data file or a hash is wrong: which, got, expected, remedy.
    """
    folder = _find(name)
    file = folder / "case.toml"
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CaseError(
            str(file), got=f"text that is not TOML ({error})", expected="a TOML file in UTF-8", remedy="Mend that line."
        ) from error
    try:
        case = Case.model_validate(_tuples(raw))
    except ValidationError as error:
        raise _explain(file, error) from error
    if case.name != folder.resolve().name:
        raise CaseError(
            f"{file}, key 'name'",
            got=repr(case.name),
            expected=f"the folder's name, {folder.resolve().name!r}",
            remedy="Rename one of them.",
        )
    case._folder = folder
    for key, part in (("data", case.data), ("records", case.records)):
        if part is not None and verify:
            _verify(file, key, case.path(part.file), part.sha256)
    return case


def _find(name: str | Path) -> Path:
    if isinstance(name, Path) or os.sep in name:
        if (Path(name) / "case.toml").is_file():
            return Path(name)
    else:
        for place in _search_path():
            if (place / name / "case.toml").is_file():
                return place / name
    raise CaseError(
        f"case {str(name)!r}",
        got="no such case",
        expected=f"one of {list_cases()}, or a folder that holds a case.toml",
        remedy="Check the name, or make one with `lepton new-case FILE --target COLUMN`.",
    )


def _tuples(value: Any) -> Any:
    """Strict pydantic takes no list for a tuple; TOML has only lists."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def _explain(file: Path, error: ValidationError) -> CaseError:
    problems = error.errors()
    first, others = problems[0], len(problems) - 1
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]]
    key = "".join(parts).lstrip(".") or "(whole file)"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    got = "a contradiction" if isinstance(first["input"], dict) else repr(first["input"])
    remedy = "Mend that key."
    if first["type"] == "extra_forbidden":
        message, remedy = "no key of that name", "Check its spelling, or take it out."
    if first["type"] == "missing":
        got, message = "nothing", "a value"
    if others:
        remedy += f" ({others} more problem{'s' if others > 1 else ''} after this one.)"
    return CaseError(f"{file}, key '{key}'", got=got, expected=message, remedy=remedy)


def _verify(file: Path, key: str, path: Path, sha256: str) -> None:
    if not path.is_file():
        raise CaseError(
            f"{file}, key '{key}.file'",
            got=f"no file {path.name!r}",
            expected="a file in the case's folder",
            remedy="Put it there, or correct the name.",
        )
    if not path.resolve().is_relative_to(file.parent.resolve()):
        raise CaseError(
            f"{file}, key '{key}.file'",
            got=f"{path.name!r}, a link that leaves the folder",
            expected="a file in the case's folder",
            remedy="Copy the file into it.",
        )
    if (actual := sha256_of(path)) != sha256:
        raise CaseError(
            f"{file}, key '{key}.sha256'",
            got=f"{sha256[:12]}…",
            expected=f"{actual[:12]}…, the hash of {path.name!r} as it lies there",
            remedy=f'If the change is wanted, set {key}.sha256 = "{actual}"; if not, bring the file back.',
        )
