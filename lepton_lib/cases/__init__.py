"""The description of a case: reads and validates ``datasets/<case>/case.toml``.

Knows what a column, a class, a cost and a charter are; doesn't know models or runs.
"""

from lepton_lib.cases.columns import (
    CategoryColumn,
    Column,
    InputColumn,
    InputField,
    NumberColumn,
    TextColumn,
    TimestampColumn,
)
from lepton_lib.cases.expressions import Expression
from lepton_lib.cases.loading import list_cases, load_case
from lepton_lib.cases.records import describe, encode_records, example_record
from lepton_lib.cases.schema import Case
from lepton_lib.cases.sections import TARGET, Criterion, Feature
from lepton_lib.cases.tasks import Task

__all__ = [
    "TARGET",
    "Case",
    "CategoryColumn",
    "Column",
    "Criterion",
    "Expression",
    "Feature",
    "InputColumn",
    "InputField",
    "NumberColumn",
    "Task",
    "TextColumn",
    "TimestampColumn",
    "describe",
    "encode_records",
    "example_record",
    "list_cases",
    "load_case",
]
