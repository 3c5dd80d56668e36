"""Moments, of which a model sees the hour, the weekday or the month."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from lepton_lib.cases.columns.base import ColumnBase, InputField

if TYPE_CHECKING:
    import pandas as pd

PARTS: dict[str, int] = {"hour": 24, "weekday": 7, "month": 12}  # how many values each part has
_PART_OF: Mapping[str, Callable[[datetime], int]] = {
    "hour": lambda moment: moment.hour,
    "weekday": lambda moment: moment.weekday(),
    "month": lambda moment: moment.month - 1,
}
_DAY = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
_DAY += "02-(?:0[1-9]|1[0-9]|2[0-8]))"
_MOMENT = f"^[1-9][0-9]{{3}}-{_DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"
_EXAMPLE_MOMENT = "2018-03-01T08:00:00"


class TimestampColumn(ColumnBase):
    """A moment on the clock where it was noted; the model sees some of its parts."""

    kind: Literal["timestamp"]
    parts: tuple[Literal["hour", "weekday", "month"], ...] = Field(
        default=(), description="what the model sees of it"
    )

    @property
    def fields(self) -> tuple[InputField, ...]:
        """An index for each part."""
        return tuple(
            InputField(f"{self.name}.{part}", "category", PARTS[part]) for part in self.parts
        )

    def describe(self) -> str:
        """ISO 8601 without a time zone: the hour of another zone is another hour."""
        return f"a moment in ISO 8601 without a time zone, such as {_EXAMPLE_MOMENT!r}"

    def example(self) -> str:
        """A Thursday morning."""
        return _EXAMPLE_MOMENT

    def json_schema(self) -> dict[str, Any]:
        """A string with a pattern: the format ``date-time`` would demand a time zone."""
        return super().json_schema() | {"pattern": _MOMENT, "maxLength": 19}

    def encode_cells(self, cells: Sequence[Any]) -> list[Sequence[float]]:
        """The parts of each moment."""
        moments = [None if cell is None else datetime.fromisoformat(cell) for cell in cells]
        if any(moment is not None and moment.tzinfo is not None for moment in moments):
            raise ValueError("a time zone")
        return [
            [math.nan if moment is None else _PART_OF[part](moment) for moment in moments]
            for part in self.parts
        ]

    def parse(self, text: pd.Series) -> pd.Series:
        """datetime64; missing where it is no such moment."""
        import pandas as pd

        return pd.to_datetime(text.map(parse_moment, na_action="ignore"))

    def encode(self, values: pd.Series) -> list[np.ndarray]:
        """The parts of each moment, counted from 0."""
        return [self._part(values, part).to_numpy(dtype="float64") for part in self.parts]

    @staticmethod
    def _part(moments: pd.Series, part: str) -> pd.Series:
        numbers: pd.Series = getattr(moments.dt, "day_of_week" if part == "weekday" else part)
        return numbers - 1 if part == "month" else numbers

    def from_json(self, values: Sequence[Any]) -> Any:
        """datetime64 on the clock where each moment was noted."""
        import pandas as pd

        moments = [
            datetime.fromisoformat(value).replace(tzinfo=None) if value else None
            for value in values
        ]
        return pd.Series(moments, dtype="datetime64[us]")

    def to_json(self, values: pd.Series) -> list[Any]:
        """ISO 8601 to the second."""
        return super().to_json(self.to_text(values))

    def to_text(self, values: pd.Series) -> pd.Series:
        """ISO 8601 to the second."""
        text: pd.Series = values.dt.strftime("%Y-%m-%dT%H:%M:%S")
        return text

    def find_unknown(self, values: pd.Series) -> pd.Series:
        """What is no moment."""
        import pandas as pd

        return values.notna() & pd.to_datetime(values, errors="coerce").isna()

    def views(self, values: pd.Series) -> dict[str, Callable[[], Any]]:
        """Each part, categorical."""
        import pandas as pd

        def part_of(part: str) -> Callable[[], Any]:
            def categories() -> pd.Categorical:
                moments = pd.to_datetime(values, errors="coerce")
                return pd.Categorical(self._part(moments, part), range(PARTS[part]))

            return categories

        return {f"{self.name}.{part}": part_of(part) for part in self.parts}

    @model_validator(mode="after")
    def _model_sees_a_part(self) -> Self:
        if self.role == "input" and not self.parts:
            raise ValueError('parts of the timestamp for the model, such as ["hour", "weekday"]')
        return self


def parse_moment(text: str) -> datetime | None:
    """A moment in ISO 8601 without a time zone; None if it is none."""
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else None
    return None
