"""The journal of a sweep: a line of JSON for each run that has ended.

Knows lines and records; makes no runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from lepton_lib.errors import wrap_os_errors
from lepton_lib.runs.parameters import Value

JOURNAL = "runs.jsonl"
Metric = bool | int | float | str | None


class RunRecord(msgspec.Struct, frozen=True):
    """One run that has ended."""

    name: str  # of its folder
    parameters: dict[str, Value]  # those that the sweep set
    status: Literal["done", "failed"]
    seconds: float
    metrics: dict[str, Metric]
    attempts: int = 1
    reason: str = ""  # why it failed, or failed before it was tried again
    packages: dict[str, str] = {}
    data: dict[str, str] = {}  # SHA-256 of the files that 01 made
    commit: str = ""
    fingerprint: str = ""  # of notebooks, case and code: whether the run is still good


def append_record(folder: Path, record: RunRecord) -> None:
    """Add a line to the journal, and wait until it's on disk.

    It begins with a line break, too: the line before may have been cut off.
    """
    with (
        wrap_os_errors(folder, remedy="Make room, and go on by --resume."),
        open(folder / JOURNAL, "ab") as file,
    ):
        file.write(b"\n" + msgspec.json.encode(record) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_records(folder: Path) -> dict[str, RunRecord]:
    """The last record of each run by its name; a line that was cut off is left out."""
    try:
        lines = (folder / JOURNAL).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    records, decoder = {}, msgspec.json.Decoder(RunRecord)
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            record = decoder.decode(line)
            records[record.name] = record
    return records


def by_name(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """A step's metrics, the charter's under its own name with its interval."""
    rest = {key: metrics[key] for key in metrics if key not in ("metric", "value", "low", "high")}
    if (name := metrics.get("metric")) is None:
        return dict(metrics)
    ends = {f"{name}_{end}": metrics.get(end) for end in ("low", "high")}
    return {str(name): metrics.get("value"), **ends, **rest}
