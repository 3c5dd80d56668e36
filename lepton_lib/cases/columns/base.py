"""What columns of every kind have in common, and the kind that no model reads: text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import pandas as pd

Identifier = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]
# the column of the cleaned tables that holds the class index, or the number to predict
TARGET = "target"


class InputField(NamedTuple):
    """One column of the model's raw input matrix."""

    name: str
    kind: Literal["number", "category"]
    n_categories: int  # 0 for a number


class Section(BaseModel):
    """A table of the file: every key known, every type exact, unchanged once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ColumnBase(Section):
    """What the columns of every kind have in common.

    A value that breaks its column's rule (not a number, out of range, not one of the categories) is
    an error, or becomes missing where ``on_invalid`` says so. A row with a missing value in a
    column that isn't ``nullable`` is dropped. Both are counted.
    """

    name: Identifier
    meaning: str
    source: str | None = Field(
        default=None, description="the header in the file, where it isn't the name"
    )
    unit: str = ""
    missing: tuple[str, ...] = Field(
        default=(), description='marks for "missing", besides the empty cell'
    )
    nullable: bool = False
    on_invalid: Literal["error", "missing"] = "error"
    sensitive: bool = Field(default=False, description="groups by this column are compared")
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

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:  # noqa: ARG002  # overridden
        """Values of `json_type` as raw inputs: a sequence for each of ``fields``, NaN where None.

        Raises:
            ValueError: A value that `json_type` alone can't refuse.
        """
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

    def contract(self) -> dict[str, Any]:
        """What a packaged model relies on in this column; the same keys for every kind."""
        keys = ("name", "kind", "unit", "min", "max", "categories", "parts", "nullable")
        empty = {"categories": (), "parts": ()}
        return {key: getattr(self, key, empty.get(key)) for key in keys}

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
            raise ValueError(
                f"a number or category where groups are compared; got sensitive on a {kind}"
            )
        return self


class TextColumn(ColumnBase):
    """Free text, at most ``max_length`` characters. No tabular model reads it: it is ignored."""

    kind: Literal["text"]
    max_length: int = Field(default=131_072, ge=1)  # the csv module's own limit

    @property
    def fields(self) -> tuple[InputField, ...]:
        """None: the raw input matrix holds numbers."""
        return ()

    def parse(self, text: pd.Series) -> pd.Series:
        """The text itself."""
        return text.where(text.str.len() <= self.max_length)

    @model_validator(mode="after")
    def _is_ignored(self) -> Self:
        if self.role == "input":
            raise ValueError("role 'ignored' on a text column: no model here reads text")
        return self


def group_by_name(values: pd.Series, names: Any, order: Sequence[str]) -> pd.Series:
    """Group names ``(n,)`` as a categorical in that order, ``"missing"`` last where a value is."""
    import pandas as pd

    text = pd.Series(names, index=values.index).astype(object).where(values.notna(), "missing")
    return text.astype(pd.CategoricalDtype(list(dict.fromkeys([*order, "missing"]))))
