"""From files to batches: tables are read, cleaned, split and encoded as their case says.

Knows cases, pandas and tensors; doesn't know models.
"""

from lepton_lib.data.loading import DataLoader, Dataset
from lepton_lib.data.reading import read_records, read_table
from lepton_lib.data.tables import (
    Cleaning,
    clean,
    dry_run,
    encode,
    find_problems,
    split,
    to_records,
)

__all__ = [
    "Cleaning",
    "DataLoader",
    "Dataset",
    "clean",
    "dry_run",
    "encode",
    "find_problems",
    "read_records",
    "read_table",
    "split",
    "to_records",
]
