"""Words out of a list."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from lepton_lib.cases.columns.base import ColumnBase, InputField, group_by_name

if TYPE_CHECKING:
    import pandas as pd


class CategoryColumn(ColumnBase):
    """One of a list of words, in the order in which the model numbers them."""

    kind: Literal["category"]
    categories: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[InputField, ...]:
        """The category's index."""
        return (InputField(self.name, "category", len(self.categories)),)

    @property
    def json_type(self) -> Any:
        """One of the words."""
        return Literal[self.categories]

    def describe(self) -> str:
        """``one of 'owner', 'rent'``."""
        return "one of " + ", ".join(map(repr, self.categories))

    def example(self) -> str:
        """The first word."""
        return self.categories[0]

    def json_schema(self) -> dict[str, Any]:
        """A string out of an ``enum``."""
        return super().json_schema() | {"enum": [*self.categories, *[None] * self.nullable]}

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:
        """The index of each word."""
        codes: dict[str | None, float] = {None: math.nan}
        codes |= {name: float(place) for place, name in enumerate(self.categories)}
        return [[codes[cell] for cell in cells]]

    def parse(self, text: pd.Series) -> pd.Series:
        """Categorical; missing where it is none of the words."""
        import pandas as pd

        known = text.where(text.isin(self.categories))
        return pd.Series(self._categorical(known), index=text.index)

    def encode(self, values: pd.Series) -> list[np.ndarray]:
        """The index of each category."""
        codes = self._categorical(values).codes
        return [np.where(codes < 0, np.nan, codes)]

    def from_json(self, values: Sequence[Any]) -> Any:
        """Categorical, in the case's order."""
        return self._categorical(values)

    def _categorical(self, values: Any) -> Any:
        import pandas as pd

        return pd.Categorical(values, categories=list(self.categories))

    def find_unknown(self, values: pd.Series) -> pd.Series:
        """What is none of the words."""
        return values.notna() & ~values.isin(self.categories)

    def views(self, values: pd.Series) -> dict[str, Callable[[], Any]]:
        """The words as they came, unknown ones too."""
        return {self.name: lambda: values if hasattr(values, "cat") else values.astype(object)}

    def groups(self, values: pd.Series) -> pd.Series:
        """The categories."""
        return group_by_name(values, values, self.categories)

    @model_validator(mode="after")
    def _each_category_once(self) -> Self:
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise ValueError("a category column with its categories listed, each once")
        return self
