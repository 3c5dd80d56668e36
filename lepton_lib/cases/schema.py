"""A whole case.toml: its sections, what follows from them, and whether they agree with each other."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import PrivateAttr, model_validator

from lepton_lib.cases.sections import (
    PARTS,
    TARGET,
    Bands,
    Charter,
    Column,
    Costs,
    Data,
    Feature,
    Identifier,
    Policy,
    Records,
    Rule,
    Section,
    Source,
    Split,
    Target,
    Task,
)

if TYPE_CHECKING:
    from lepton_lib.cases.records import Reader


class Field(NamedTuple):
    """One column of the model's raw input matrix."""

    name: str
    kind: Literal["number", "category"]
    n_categories: int  # 0 for a number


class Case(Section):
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

        A number stands as it is, a category as its index in ``categories``, a timestamp as one
        index for each of its parts. NaN means missing.
        """
        fields: list[Field] = []
        for column in self.inputs:
            if column.kind == "number":
                fields.append(Field(column.name, "number", 0))
            elif column.kind == "category":
                fields.append(Field(column.name, "category", len(column.categories)))
            else:
                fields += [
                    Field(f"{column.name}.{part}", "category", PARTS[part]) for part in column.parts
                ]
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
        if (self.task == "regression") != (n_classes == 0) or (self.task == "binary") != (
            n_classes == 2
        ):
            raise ValueError(
                f"{wanted} classes in [[target.classes]] for a {self.task} task; got {n_classes}"
            )
        if len(set(self.classes)) != n_classes:
            raise ValueError("every class named once")
        values = [value for entry in self.target.classes for value in entry.values]
        if len(set(values)) != len(values):
            raise ValueError("every value of the target in one class only")
        if self.target.column in headers:
            raise ValueError(
                f"the target column {self.target.column!r} in [target] only, not among the columns"
            )
        numbers = {column.name for column in self.inputs if column.kind == "number"}
        for position, feature in enumerate(self.features):
            if feature.name in (*names, *(earlier.name for earlier in self.features[:position])):
                raise ValueError(f"a feature name that nothing else has; got {feature.name!r}")
            if unknown := set(feature.formula.names) - numbers:
                raise ValueError(
                    f"feature {feature.name!r} to use number inputs only; got {sorted(unknown)}"
                )
        for rule in self.rules:
            if unknown := set(rule.formula.names) - set(names) - {TARGET}:
                raise ValueError(
                    f"rule {rule.drop!r} to use known columns only; got {sorted(unknown)}"
                )
            # a number never equals a word, which nobody would notice
            for name, value in rule.formula.compared:
                number = n_classes == 0 if name == TARGET else self.column(name).kind == "number"
                if isinstance(value, str) == number:
                    raise ValueError(
                        f"rule {rule.drop!r} to compare {name!r} with a {'number' if number else 'word'}"
                    )
        for where, used in (
            ("data.unique", self.data.unique),
            ("split.column", (self.split.column,)),
        ):
            if unknown := set(filter(None, used)) - set(names):
                raise ValueError(f"{where} to name known columns; got {sorted(unknown)}")
        if self.split.method != "stratified":
            by = self.column(self.split.column)
            if (
                by.nullable
                or by.kind
                not in {"time": ("timestamp", "number"), "given": ("category",)}[self.split.method]
            ):
                wanted = {"time": "timestamp or number", "given": "category"}[self.split.method]
                raise ValueError(f"split.column to be a {wanted} that isn't nullable")
            if self.split.method == "given" and set(by.categories) != {"train", "test"}:
                raise ValueError(
                    "the categories 'train' and 'test' in the column of a 'given' split"
                )
        if self.records and set(self.records.paths) != set(names) | {TARGET}:
            odd = sorted(set(self.records.paths) ^ (set(names) | {TARGET}))
            raise ValueError(
                f"records.paths to name every column and {TARGET!r} once; at fault: {odd}"
            )
        needs = dict.fromkeys(
            ("auc", "accuracy", "log_loss", "calibration_error", "group_gap"), n_classes > 0
        )
        needs |= {"mean_absolute_error": n_classes == 0, "cost": self.costs is not None}
        for metric in self.charter.criteria:
            if not needs.get(metric, True) or (metric == "group_gap" and not self.sensitive):
                raise ValueError(f"criteria that this case can be judged by; got {metric!r}")
        if self.bands and self.task != "binary":
            raise ValueError("bands on a binary task only")
        if self.costs:
            for named in (list(self.costs.matrix), *map(list, self.costs.matrix.values())):
                if set(named) != set(self.classes):
                    raise ValueError(
                        f"costs.matrix to name the classes {list(self.classes)}; got {sorted(named)}"
                    )
            if unknown := set(self.costs.decisions) - set(self.classes):
                raise ValueError(
                    f"costs.decisions to name the classes {list(self.classes)}; got {sorted(unknown)}"
                )
        return self
