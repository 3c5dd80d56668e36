"""Numbers with a unit and a range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
import numpy as np
from pydantic import Field, model_validator

from lepton_lib.cases.columns.base import ColumnBase, group_by_name

if TYPE_CHECKING:
    import pandas as pd

LARGEST = float(np.finfo(np.float32).max)  # model inputs are float32: beyond lies infinity


class NumberColumn(ColumnBase):
    """A quantity, with its unit and the range that is allowed."""

    kind: Literal["number"]
    min: float | None = None
    max: float | None = None
    cuts: tuple[float, ...] = Field(
        default=(), description="bounds that make groups of it, if sensitive"
    )

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
        """``a number from 18 to 99 (years)``."""
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
        """A number between ``minimum`` and ``maximum``."""
        low, high = self.limits
        return super().json_schema() | {"minimum": low, "maximum": high}

    def _checked(self, value: Any) -> Any:
        low, high = self.limits  # compared before an integer is rounded to a float
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise ValueError
        return float(value)

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:
        """The numbers themselves."""
        return [[math.nan if cell is None else cell for cell in cells] if self.nullable else cells]

    def parse(self, text: pd.Series) -> pd.Series:
        """float64; missing where it is no number or out of range."""
        import pandas as pd

        numbers = pd.to_numeric(text, errors="coerce").astype("float64")
        return numbers.where(numbers.between(*self.limits))

    def encode(self, values: pd.Series) -> list[np.ndarray]:
        """The numbers themselves."""
        return [values.to_numpy(dtype="float64")]

    def from_json(self, values: Sequence[Any]) -> Any:
        """float64."""
        import pandas as pd

        return pd.Series(values, dtype="float64")

    def to_text(self, values: pd.Series) -> pd.Series:
        """The shortest text that reads back as the same number."""
        return values.map(repr, na_action="ignore")

    @staticmethod
    def _finite(values: pd.Series) -> np.ndarray:
        """float64 ``(n,)``, NaN where there is no finite number."""
        import pandas as pd

        numbers = pd.to_numeric(values, errors="coerce")
        array = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(array), array, np.nan)

    def find_unknown(self, values: pd.Series) -> pd.Series:
        """What is no number, or not a finite one."""
        unknown: pd.Series = values.notna() & np.isnan(self._finite(values))
        return unknown

    def find_outside(self, values: pd.Series) -> pd.Series:
        """What lies beyond ``min`` or ``max``."""
        low, high = self.limits
        numbers = self._finite(values)
        return values.notna() & ((numbers < low) | (numbers > high))

    def views(self, values: pd.Series) -> dict[str, Callable[[], Any]]:
        """The numbers, NaN where there is no finite one."""
        return {self.name: lambda: self._finite(values)}

    def groups(self, values: pd.Series) -> pd.Series:
        """The intervals between the cuts."""
        edges = [f"{cut:.15g}" for cut in self.cuts]
        between = [f"{low} to below {high}" for low, high in pairwise(edges)]
        names = [f"below {edges[0]}", *between, f"{edges[-1]} and above"]
        places = np.searchsorted(self.cuts, values.to_numpy(dtype="float64"), side="right")
        return group_by_name(values, np.array(names, dtype=object)[places], names)

    @model_validator(mode="after")
    def _bounds_and_cuts_rise(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min no greater than max")
        if self.sensitive and not self.cuts:
            raise ValueError("cuts that make groups of a sensitive number, such as [30, 50]")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("cuts in rising order")
        return self
