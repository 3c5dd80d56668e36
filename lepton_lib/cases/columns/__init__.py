"""The kinds of columns, each with its one rule: what it accepts and how that becomes numbers.

Cleaning, the request schema, the check of a record, the encoding for the model and the drift report
all ask the column. pandas is imported where a table comes in: the service reads records without it.
"""

from typing import Annotated

from pydantic import Field

from lepton_lib.cases.columns.base import (
    TARGET,
    ColumnBase,
    Identifier,
    InputField,
    Section,
    TextColumn,
)
from lepton_lib.cases.columns.category import CategoryColumn
from lepton_lib.cases.columns.number import LARGEST, NumberColumn
from lepton_lib.cases.columns.timestamp import PARTS, TimestampColumn, parse_moment

InputColumn = NumberColumn | CategoryColumn | TimestampColumn
Column = Annotated[InputColumn | TextColumn, Field(discriminator="kind")]

__all__ = [
    "LARGEST",
    "PARTS",
    "TARGET",
    "CategoryColumn",
    "Column",
    "ColumnBase",
    "Identifier",
    "InputColumn",
    "InputField",
    "NumberColumn",
    "Section",
    "TextColumn",
    "TimestampColumn",
    "parse_moment",
]
