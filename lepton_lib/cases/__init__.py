"""The description of a case: reads and validates ``datasets/<case>/case.toml``.

Knows what a column, a class, a cost and a charter are; doesn't know tables, models or runs.
"""

from lepton_lib.cases.expressions import Expression
from lepton_lib.cases.loading import list_cases, load_case
from lepton_lib.cases.records import describe, encode_records, example_record
from lepton_lib.cases.schema import Case, Field
from lepton_lib.cases.sections import Column, Criterion, Feature

__all__ = [
    "Case",
    "Column",
    "Criterion",
    "Expression",
    "Feature",
    "Field",
    "describe",
    "encode_records",
    "example_record",
    "list_cases",
    "load_case",
]
