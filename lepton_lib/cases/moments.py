"""Moments in ISO 8601 without a time zone, for the hour of another zone is another hour."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PARTS: dict[str, int] = {"hour": 24, "weekday": 7, "month": 12}  # how many values each part has
PART_OF: Mapping[str, Callable[[datetime], int]] = {
    "hour": lambda moment: moment.hour,
    "weekday": lambda moment: moment.weekday(),
    "month": lambda moment: moment.month - 1,
}
_DAY = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
_DAY += "02-(?:0[1-9]|1[0-9]|2[0-8]))"
MOMENT_PATTERN = f"^[1-9][0-9]{{3}}-{_DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"
EXAMPLE_MOMENT = "2018-03-01T08:00:00"
ISO = "%Y-%m-%dT%H:%M:%S"


def parse_moment(text: str) -> datetime | None:
    """A moment in ISO 8601 without a time zone; None if it is none."""
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else None
    return None


def count_part(times: pd.Series, part: str) -> pd.Series:
    """The hour, weekday or month of each moment, counted from 0; missing where the moment is."""
    numbers: pd.Series = getattr(times.dt, "day_of_week" if part == "weekday" else part)
    return numbers - 1 if part == "month" else numbers
