"""From files to batches: tables are read, cleaned, split and encoded as their case says; a loader slices them.

Knows cases, pandas and tensors; doesn't know models.
"""

from lepton_lib.data.loading import DataLoader, Dataset
from lepton_lib.data.tables import (
    Cleaning,
    clean,
    encode,
    find_problems,
    nest_records,
    read_records,
    read_table,
    split,
    to_records,
)

__all__ = [
    "Cleaning",
    "DataLoader",
    "Dataset",
    "clean",
    "encode",
    "find_problems",
    "nest_records",
    "read_records",
    "read_table",
    "split",
    "to_records",
]
