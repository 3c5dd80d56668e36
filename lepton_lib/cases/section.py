"""What every section of a case.toml is made of."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the file: every key known, every type exact, unchanged once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _identifier(name: str) -> str:
    # Python reads names in formulas as NFKC, so only such a name finds its column.
    if not name.isidentifier() or name != unicodedata.normalize("NFKC", name).lower():
        raise ValueError("small letters of any alphabet, digits and underscores, no digit first")
    return name


Identifier = Annotated[str, AfterValidator(_identifier)]
