"""How numbers and moments are written in a file: decimal marks, unit signs, date formats.

pandas is imported where a table comes in: the service reads JSON, which knows one way of writing.
"""

from __future__ import annotations

import math
import re
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from lepton_lib.cases import moments
from lepton_lib.cases.section import Section

if TYPE_CHECKING:
    import pandas as pd

# Text processors write these for a plain space and a plain apostrophe.
_ALIKE = {" ": "[ \u00a0\u2009\u202f]", "'": "['\u2019]", "": "(?!)"}
_ZONE = r"(?<=\d)\s*(?:[Zz]|UTC|[-+]\d{2}:?\d{2})$"
MINUS = "\u2212"  # a typographic minus is one in every format


class NumberFormat(Section):
    """The way in which a column's numbers are written."""

    decimal: Literal[".", ","] = Field(".", description="the mark before the decimals")
    thousands: Literal["", ".", ",", " ", "'"] = Field("", description="between thousands")
    signs: tuple[str, ...] = Field(default=(), description="unit signs beside a number: $, %, kg")
    accounting: bool = Field(False, description="parentheses for a minus: (12) is -12")

    def read_numbers(self, cells: pd.Series) -> pd.Series:
        """Cells as float64 ``(n,)``, NaN where no number stands as this format writes it.

        What isn't text, as in the service's log, is a number already.
        """
        import pandas as pd

        if isinstance(cells.dtype, pd.StringDtype):
            if self.decimal == "," or self.thousands or self.signs or self.accounting:
                return cells.map(self._read, na_action="ignore").astype("float64")
            cells = cells.str.replace(MINUS, "-", regex=False)
        return pd.to_numeric(cells, errors="coerce").astype("float64")

    def write_numbers(self, values: pd.Series) -> pd.Series:
        """The shortest text that reads back as the same number; missing ones stay missing."""
        text = values.map(repr, na_action="ignore")
        return text if self.decimal == "." else text.str.replace(".", self.decimal, regex=False)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        group = _ALIKE.get(self.thousands, re.escape(self.thousands))
        sign = "|".join([*map(re.escape, self.signs), "(?!)"])
        whole = rf"[1-9]\d{{0,2}}(?:{group}\d{{2,3}})*{group}\d{{3}}|\d+"
        number = rf"(?:{whole})(?:{re.escape(self.decimal)}\d*)?|{re.escape(self.decimal)}\d+"
        before, after = rf"([-+]?)\s*(?:{sign})?\s*([-+]?)", rf"\s*(?:{sign})?"
        return re.compile(rf"(\()?{before}((?:{number})(?:[eE][-+]?\d+)?){after}(?(1)\))")

    def _read(self, cell: str) -> float:
        match = self._pattern.fullmatch(cell.replace(MINUS, "-"))
        if match is None or (match[1] and not self.accounting) or (match[2] and match[3]):
            return math.nan
        digits = re.sub(_ALIKE.get(self.thousands, re.escape(self.thousands)), "", match[4])
        number = float(digits.replace(self.decimal, "."))
        return -number if match[1] or "-" in (match[2], match[3]) else number

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError("two characters for decimal and thousands")
        return self


class MomentFormat(Section):
    """The way in which a column's moments are written, if not in ISO 8601."""

    formats: tuple[str, ...] = Field(default=(), description="as strptime has them: %d.%m.%Y")
    offset: Literal["error", "drop"] = Field("error", description="a time zone behind the moment")

    def read_moments(self, cells: pd.Series) -> pd.Series:
        """Cells as datetimes ``(n,)`` on the clock where they were noted; NaT where there is none.

        With ``offset = "drop"`` a ``Z`` or ``+02:00`` is cut off: the hour stays the one written.
        """
        import pandas as pd

        if self.offset == "drop" and isinstance(cells.dtype, pd.StringDtype):
            cells = cells.str.replace(_ZONE, "", regex=True)
        values = pd.to_datetime(cells.map(moments.parse_moment, na_action="ignore"))
        for form in self.formats:
            values = values.fillna(pd.to_datetime(cells, format=form, errors="coerce"))
        return values

    @model_validator(mode="after")
    def _formats_have_a_day_and_no_zone(self) -> Self:
        if any("%d" not in form or "%z" in form.lower() for form in self.formats):
            raise ValueError("formats with a day (%d) and without a zone, such as '%d.%m.%Y'")
        return self
