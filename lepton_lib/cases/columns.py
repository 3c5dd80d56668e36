"""The kinds of columns, each with its one rule: what it accepts and how that becomes numbers.

Cleaning, the request schema, the check of a record, the encoding for the model and the drift report
all ask the column. `ColumnBase` says what each method does; a kind says only what it does
differently. pandas is imported where a table comes in: the service reads records without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import msgspec
import numpy as np
from pydantic import Field, model_validator

from lepton_lib.cases import moments
from lepton_lib.cases.formats import MomentFormat, NumberFormat
from lepton_lib.cases.section import Identifier, Section
from lepton_lib.cases.sections import TARGET

if TYPE_CHECKING:
    import pandas as pd

LARGEST = float(np.finfo(np.float32).max)  # model inputs are float32: beyond lies infinity


class InputField(NamedTuple):
    """One column of the model's raw input matrix."""

    name: str
    kind: Literal["number", "category"]
    n_categories: int  # 0 for a number


class ColumnBase(Section):
    """What the columns of every kind have in common.

    A value that breaks its column's rule (not a number, out of range, not one of the categories) is
    an error, or becomes missing where ``on_invalid`` says so. A row with a missing value in a
    column that isn't ``nullable`` is dropped. Both are counted.
    """

    name: Identifier
    meaning: str
    source: str | None = Field(default=None, description="header in the file, if another")
    unit: str = ""
    missing: tuple[str, ...] = Field(default=(), description="marks besides the empty cell")
    nullable: bool = False
    on_invalid: Literal["error", "missing"] = "error"
    sensitive: bool = Field(False, description="groups by this column are compared")
    role: Literal["input", "ignored"] = "input"

    @property
    def header(self) -> str:
        """The column's name in the file."""
        return self.name if self.source is None else self.source

    @property
    def fields(self) -> tuple[InputField, ...]:
        """The columns of the raw input matrix that this column fills."""
        return (InputField(self.name, "number", 0),)

    @property
    def json_type(self) -> Any:
        """The type of a JSON value, as msgspec checks it."""
        return str

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:  # noqa: ARG002
        """Values of `json_type` as raw inputs, a sequence for each of ``fields``, or ValueError."""
        return []

    def encode_value(self, value: Any) -> list[float]:
        """Any value of a record as raw inputs: one for each of ``fields``.

        Raises:
            ValueError: The column doesn't accept it; the message says what was got.
        """
        if value is None and not self.nullable:
            raise ValueError("nothing")
        try:
            cell = value if value is None else self._checked(value)
            return [numbers[0] for numbers in self.encode_cells([cell])]
        except (msgspec.ValidationError, ValueError):
            raise ValueError(repr(value)[:80]) from None

    def _checked(self, value: Any) -> Any:
        return msgspec.convert(value, self.json_type)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of a value."""
        kind = "number" if self.fields and self.fields[0].kind == "number" else "string"
        schema = {"type": [kind, "null"] if self.nullable else kind}
        schema["description"] = f"{self.meaning}: {self.describe()}"
        return schema | ({"x-unit": self.unit} if self.unit else {})

    def describe(self) -> str:
        """What the column accepts, in words."""
        return "text"

    def parse(self, text: pd.Series) -> pd.Series:
        """Cells of a file as values; missing where the column doesn't accept them."""
        return text

    def to_text(self, values: pd.Series) -> pd.Series:
        """Parsed values as cells of a file; missing ones stay missing."""
        return values.map(str, na_action="ignore")

    def to_json(self, values: pd.Series) -> list[Any]:
        """Parsed values as JSON has them; None where missing."""
        return list(values.astype(object).where(values.notna(), None))

    def find_outside(self, values: pd.Series) -> pd.Series:
        """Which values are of this kind and out of range: bool ``(n,)``."""
        return values.isna() & False

    @model_validator(mode="after")
    def _name_and_groups(self) -> Self:
        if self.name == TARGET:
            raise ValueError(f"a name other than {TARGET!r}, the label's in the cleaned tables")
        if self.sensitive and not hasattr(self, "groups"):
            kind = type(self).__name__.removesuffix("Column").lower()
            raise ValueError(f"groups of a number or category; got sensitive on a {kind}")
        return self


class NumberColumn(NumberFormat, ColumnBase):
    """A quantity, with its unit and the range that is allowed."""

    kind: Literal["number"] = "number"
    min: float | None = None
    max: float | None = None
    cuts: tuple[float, ...] = Field(default=(), description="bounds between groups, if sensitive")

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest number that the column accepts."""
        low = -LARGEST if self.min is None else self.min
        return low, LARGEST if self.max is None else self.max

    @property
    def json_type(self) -> Any:
        """A float within the limits."""
        low, high = self.limits
        return Annotated[float, msgspec.Meta(ge=low, le=high)]

    def describe(self) -> str:
        match self.min, self.max:
            case None, None:
                text = "a finite number"
            case low, None:
                text = f"a number of at least {low:.15g}"
            case None, high:
                text = f"a number of at most {high:.15g}"
            case low, high:
                text = f"a number from {low:.15g} to {high:.15g}"
        return f"{text} ({self.unit})" if self.unit else text

    def example(self) -> float:
        """The middle of the range."""
        bounds = [bound for bound in (self.min, self.max) if bound is not None]
        return sum(bounds) / len(bounds) if bounds else 0.0

    def json_schema(self) -> dict[str, Any]:
        low, high = self.limits
        return super().json_schema() | {"minimum": low, "maximum": high}

    def _checked(self, value: Any) -> Any:
        low, high = self.limits  # compared before an integer is rounded to a float
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ValueError
        return float(value)

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:
        return [[math.nan if cell is None else cell for cell in cells] if self.nullable else cells]

    def parse(self, text: pd.Series) -> pd.Series:
        numbers = self.read_numbers(text)
        return numbers.where(numbers.between(*self.limits))

    def encode(self, values: pd.Series) -> list[np.ndarray]:
        return [values.to_numpy(dtype="float64")]

    def to_text(self, values: pd.Series) -> pd.Series:
        return self.write_numbers(values)

    @staticmethod
    def _finite(values: pd.Series) -> np.ndarray:
        """float64 ``(n,)``, NaN where there is no finite number."""
        import pandas as pd

        numbers = pd.to_numeric(values, errors="coerce")
        array = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(array), array, np.nan)

    def find_unknown(self, values: pd.Series) -> pd.Series:
        unknown: pd.Series = values.notna() & np.isnan(self._finite(values))
        return unknown

    def find_outside(self, values: pd.Series) -> pd.Series:
        """What lies beyond ``min`` or ``max``."""
        low, high = self.limits
        numbers = self._finite(values)
        return values.notna() & ((numbers < low) | (numbers > high))

    def views(self, values: pd.Series) -> dict[str, Callable[[], Any]]:
        return {self.name: lambda: self._finite(values)}

    def groups(self, values: pd.Series) -> pd.Series:
        """The intervals between the cuts."""
        edges = [f"{cut:.15g}" for cut in self.cuts]
        between = [f"{low} to below {high}" for low, high in pairwise(edges)]
        names = [f"below {edges[0]}", *between, f"{edges[-1]} and above"]
        places = np.searchsorted(self.cuts, values.to_numpy(dtype="float64"), side="right")
        return _group_by_name(values, np.array(names, dtype=object)[places], names)

    @model_validator(mode="after")
    def _bounds_and_cuts_rise(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min no greater than max")
        if self.sensitive and not self.cuts:
            raise ValueError("cuts that make groups of a sensitive number, such as [30, 50]")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("cuts in rising order")
        return self


class CategoryColumn(ColumnBase):
    """One of a list of words, in the order in which the model numbers them."""

    kind: Literal["category"] = "category"
    categories: tuple[str, ...] = ()
    other: str = Field("", description="the category that takes in every word not listed")

    @property
    def fields(self) -> tuple[InputField, ...]:
        return (InputField(self.name, "category", len(self.categories)),)

    @property
    def json_type(self) -> Any:
        return str if self.other else Literal[self.categories]

    def describe(self) -> str:
        words = "one of " + ", ".join(map(repr, self.categories))
        return f"{words}; any other word counts as {self.other!r}" if self.other else words

    def example(self) -> str:
        return self.categories[0]

    def json_schema(self) -> dict[str, Any]:
        enum = {} if self.other else {"enum": [*self.categories, *[None] * self.nullable]}
        return super().json_schema() | enum

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:
        codes: dict[str | None, float] = {None: math.nan}
        codes |= {name: float(place) for place, name in enumerate(self.categories)}
        if not self.other:
            return [[codes[cell] for cell in cells]]
        return [[codes.get(cell, codes[self.other]) for cell in cells]]

    def parse(self, text: pd.Series) -> pd.Series:
        import pandas as pd

        return pd.Series(self._categorical(text), index=text.index)

    def encode(self, values: pd.Series) -> list[np.ndarray]:
        codes = self._categorical(values).codes
        return [np.where(codes < 0, np.nan, codes)]

    def _categorical(self, values: Any) -> Any:
        import pandas as pd

        if hasattr(values, "cat"):
            values = values.astype(object)
        unknown = values.notna() & ~values.isin(self.categories)
        known = values.mask(unknown, self.other or None)
        return pd.Categorical(known, categories=list(self.categories))

    def find_unknown(self, values: pd.Series) -> pd.Series:
        return values.notna() & ~values.isin(self.categories) & (not self.other)

    def views(self, values: pd.Series) -> dict[str, Callable[[], Any]]:
        """The words as they came, unknown ones too."""
        return {self.name: lambda: values if hasattr(values, "cat") else values.astype(object)}

    def groups(self, values: pd.Series) -> pd.Series:
        return _group_by_name(values, self._categorical(values), self.categories)

    @model_validator(mode="after")
    def _each_category_once(self) -> Self:
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise ValueError("a category column with its categories listed, each once")
        if self.other and self.other not in self.categories:
            raise ValueError("other to be one of the categories")
        return self


class TimestampColumn(MomentFormat, ColumnBase):
    """A moment on the clock where it was noted; the model sees some of its parts."""

    kind: Literal["timestamp"] = "timestamp"
    parts: tuple[Literal["hour", "weekday", "month"], ...] = Field(
        default=(), description="what the model sees"
    )

    @property
    def fields(self) -> tuple[InputField, ...]:
        return tuple(
            InputField(f"{self.name}.{part}", "category", moments.PARTS[part])
            for part in self.parts
        )

    def describe(self) -> str:
        """ISO 8601 without a time zone: the hour of another zone is another hour."""
        return f"a moment in ISO 8601 without a time zone, such as {moments.EXAMPLE_MOMENT!r}"

    def example(self) -> str:
        return moments.EXAMPLE_MOMENT

    def json_schema(self) -> dict[str, Any]:
        """A string with a pattern: the format ``date-time`` would demand a time zone."""
        return super().json_schema() | {"pattern": moments.MOMENT_PATTERN, "maxLength": 19}

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:
        times = [None if cell is None else datetime.fromisoformat(cell) for cell in cells]
        if any(time is not None and time.tzinfo is not None for time in times):
            raise ValueError("a time zone")
        reads = [moments.PART_OF[part] for part in self.parts]
        return [[math.nan if time is None else read(time) for time in times] for read in reads]

    def parse(self, text: pd.Series) -> pd.Series:
        return self.read_moments(text)

    def encode(self, values: pd.Series) -> list[np.ndarray]:
        """The parts of each moment, counted from 0."""
        return [moments.count_part(values, part).to_numpy(dtype="float64") for part in self.parts]

    def to_json(self, values: pd.Series) -> list[Any]:
        return super().to_json(values.dt.strftime(moments.ISO))

    def to_text(self, values: pd.Series) -> pd.Series:
        text: pd.Series = values.dt.strftime(max(self.formats, key=len, default=moments.ISO))
        return text

    def find_unknown(self, values: pd.Series) -> pd.Series:
        import pandas as pd

        return values.notna() & pd.to_datetime(values, errors="coerce").isna()

    def views(self, values: pd.Series) -> dict[str, Callable[[], Any]]:
        def part_of(part: str) -> Any:
            import pandas as pd

            times = pd.to_datetime(values, errors="coerce")
            return pd.Categorical(moments.count_part(times, part), range(moments.PARTS[part]))

        return {f"{self.name}.{part}": partial(part_of, part) for part in self.parts}

    @model_validator(mode="after")
    def _model_sees_a_part(self) -> Self:
        if self.role == "input" and not self.parts:
            raise ValueError('parts of the timestamp for the model, such as ["hour", "weekday"]')
        return self


class TextColumn(ColumnBase):
    """Free text, at most ``max_length`` characters. No tabular model reads it: it is ignored."""

    kind: Literal["text"] = "text"
    max_length: int = Field(131_072, ge=1)  # the csv module's own limit

    @property
    def fields(self) -> tuple[InputField, ...]:
        return ()

    def parse(self, text: pd.Series) -> pd.Series:
        return text.where(text.str.len() <= self.max_length)

    @model_validator(mode="after")
    def _is_ignored(self) -> Self:
        if self.role == "input":
            raise ValueError("role 'ignored' on a text column: no model here reads text")
        return self


InputColumn = NumberColumn | CategoryColumn | TimestampColumn
Column = Annotated[InputColumn | TextColumn, Field(discriminator="kind")]


def _group_by_name(values: pd.Series, names: Any, order: Sequence[str]) -> pd.Series:
    """Group names ``(n,)`` as a categorical in that order, ``"missing"`` last where a value is."""
    import pandas as pd

    text = pd.Series(names, index=values.index).astype(object).where(values.notna(), "missing")
    return text.astype(pd.CategoricalDtype(list(dict.fromkeys([*order, "missing"]))))
