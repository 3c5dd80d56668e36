"""A whole case.toml: its sections, what follows from them, and whether they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import PlainValidator, PrivateAttr, WithJsonSchema, model_validator

from lepton_lib.cases.columns import (
    CategoryColumn,
    Column,
    InputColumn,
    InputField,
    NumberColumn,
    TextColumn,
    TimestampColumn,
)
from lepton_lib.cases.reader import RecordReader
from lepton_lib.cases.section import Section
from lepton_lib.cases.sections import (
    TARGET,
    Bands,
    CaseName,
    Charter,
    Costs,
    Data,
    Feature,
    Policy,
    Records,
    Rule,
    Source,
    Split,
    Target,
)
from lepton_lib.cases.tasks import TASKS, Task, find_task


class Case(Section):
    """A whole case.toml."""

    name: CaseName
    title: str
    question: str
    task: Annotated[Task, PlainValidator(find_task), WithJsonSchema({"enum": list(TASKS)})]
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
        """Width of the model's output: 1 for two classes and for regression, else one per class."""
        return self.task.n_outputs(len(self.classes))

    @cached_property
    def inputs(self) -> tuple[InputColumn, ...]:
        """The columns that the model sees."""
        chosen = (column for column in self.columns if column.role == "input")
        return tuple(column for column in chosen if not isinstance(column, TextColumn))

    @cached_property
    def sensitive(self) -> tuple[NumberColumn | CategoryColumn, ...]:
        """The columns whose groups are compared."""
        groups = (NumberColumn, CategoryColumn)
        return tuple(c for c in self.columns if c.sensitive and isinstance(c, groups))

    @cached_property
    def fields(self) -> tuple[InputField, ...]:
        """The raw input matrix ``(n, len(fields))``, column by column.

        A number stands as it is, a category as its index in ``categories``, a timestamp as an
        index for each of its parts. NaN means missing.
        """
        return tuple(field for column in self.inputs for field in column.fields)

    @cached_property
    def reader(self) -> RecordReader:
        """Reads many records at once."""
        return RecordReader(self.inputs)

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def path(self, file: str) -> Path:
        """A file of this case."""
        return self._folder / file

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for check in _CHECKS:
            if problem := check(self):
                raise ValueError(problem)
        return self


def _check_columns(case: Case) -> str | None:
    names, headers = _names(case), [column.header for column in case.columns]
    if _repeated(names) or _repeated(headers):
        return "every column named once"
    if not case.inputs:
        return "at least one column with role 'input'"
    if case.target.column in headers:
        return f"the target column {case.target.column!r} in [target] only, not among the columns"
    return None


def _check_target(case: Case) -> str | None:
    n_classes = len(case.classes)
    if not case.task.accepts(n_classes):
        expected = f"{case.task.n_classes} classes in [[target.classes]] for a {case.task} task"
        return f"{expected}; got {n_classes}"
    if _repeated(case.classes):
        return "every class named once"
    if _repeated(value for entry in case.target.classes for value in entry.values):
        return "every value of the target in one class only"
    return None


def _check_features(case: Case) -> str | None:
    numbers = {column.name for column in case.inputs if isinstance(column, NumberColumn)}
    names = [*_names(case), *(feature.name for feature in case.features)]
    for feature in case.features:
        if names.count(feature.name) > 1:
            return f"a feature name that nothing else has; got {feature.name!r}"
        if unknown := set(feature.formula.names) - numbers:
            return f"feature {feature.name!r} to use number inputs only; got {sorted(unknown)}"
    return None


def _check_rules(case: Case) -> str | None:
    for rule in case.rules:
        if unknown := set(rule.formula.names) - {*_names(case), TARGET}:
            return f"rule {rule.drop!r} to use known columns only; got {sorted(unknown)}"
        for name, value in rule.formula.compared:  # a number never equals a word
            number = not case.classes if name == TARGET else _is(case, name, NumberColumn)
            if isinstance(value, str) == number:
                expected = "number" if number else "word"
                return f"rule {rule.drop!r} to compare {name!r} with a {expected}"
    return None


def _check_split(case: Case) -> str | None:
    for where, used in (
        ("data.unique", case.data.unique),
        ("split.column", (case.split.column,)),
        ("split.group", (case.split.group,)),
    ):
        if unknown := set(filter(None, used)) - set(_names(case)):
            return f"{where} to name known columns; got {sorted(unknown)}"
    if case.split.method == "stratified":
        return None
    column = case.column(case.split.column)
    by_time = case.split.method == "time"
    kinds = (TimestampColumn, NumberColumn) if by_time else (CategoryColumn,)
    if column.nullable or not isinstance(column, kinds):
        expected = "timestamp or number" if by_time else "category"
        return f"split.column to be a {expected} that isn't nullable"
    if isinstance(column, CategoryColumn) and set(column.categories) != {"train", "test"}:
        return "the categories 'train' and 'test' in the column of a 'given' split"
    return None


def _check_records(case: Case) -> str | None:
    expected = {*_names(case), TARGET}
    if case.records and (odd := sorted(set(case.records.paths) ^ expected)):
        return f"records.paths to name every column and {TARGET!r} once; at fault: {odd}"
    return None


def _check_charter(case: Case) -> str | None:
    classified = bool(case.classes)
    measurable = dict.fromkeys(("auc", "accuracy", "log_loss", "calibration_error"), classified)
    measurable["group_gap"] = classified and bool(case.sensitive)
    measurable |= {"mean_absolute_error": not classified, "cost": case.costs is not None}
    if unknown := set(case.charter.baseline) - {column.name for column in case.inputs}:
        return f"charter.baseline to name inputs; got {sorted(unknown)}"
    for metric in case.charter.criteria:
        if not measurable.get(metric, True):
            return f"criteria that this case can be judged by; got {metric!r}"
    return None


def _check_decisions(case: Case) -> str | None:
    if case.bands and case.task != "binary":
        return "bands on a binary task only"
    if case.costs is None:
        return None
    for named in (list(case.costs.matrix), *map(list, case.costs.matrix.values())):
        if set(named) != set(case.classes):
            return f"costs.matrix to name the classes {list(case.classes)}; got {sorted(named)}"
    if unknown := set(case.costs.decisions) - set(case.classes):
        return f"costs.decisions to name the classes {list(case.classes)}; got {sorted(unknown)}"
    return None


_CHECKS: tuple[Callable[[Case], str | None], ...] = (
    _check_columns,
    _check_target,
    _check_features,
    _check_rules,
    _check_split,
    _check_records,
    _check_charter,
    _check_decisions,
)


def _names(case: Case) -> list[str]:
    return [column.name for column in case.columns]


def _is(case: Case, name: str, kind: type[Section]) -> bool:
    return isinstance(case.column(name), kind)


def _repeated(names: Iterable[str]) -> bool:
    return max(Counter(names).values(), default=0) > 1
