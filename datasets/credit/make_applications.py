"""Write the table's applicants as nested records and print the hash that case.toml must name."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lepton_lib.cases import Case, NumberColumn, load_case
from lepton_lib.data import read_table
from lepton_lib.utils import sha256_of, write_atomic

_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def applications(case: Case) -> bytes:
    """The applicants of ``case`` as JSON lines, in the table's order."""
    return "".join(line + "\n" for line in nest_records(read_table(case), case)).encode()


def nest_records(raw: pd.DataFrame, case: Case) -> Iterator[str]:
    """Write rows as nested JSON lines, as an application would post them: undoes `read_records`.

    Args:
        raw: A raw frame.
        case: The case; its ``[records.paths]`` say where each column goes.

    Yields:
        One JSON object a row. Missing values become null, numbers numbers; what is neither stays
        the text it was.
    """
    assert case.records is not None
    numbers = {column.name for column in case.columns if isinstance(column, NumberColumn)}
    marks = {column.name: {"", *column.missing} for column in case.columns}
    for row in raw.to_dict("records"):
        nested: dict[str, Any] = {}
        for name, where in case.records.paths.items():
            *parents, leaf = where.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            text = row[name].strip()
            is_number = name in numbers and _JSON_NUMBER.fullmatch(text)
            missing = text in marks.get(name, {""})
            place[leaf] = None if missing else json.loads(text) if is_number else text
        yield json.dumps(nested, ensure_ascii=False)


if __name__ == "__main__":
    case = load_case(Path(__file__).parent, verify=False)  # the file may not be there yet
    assert case.records is not None
    target = case.path(case.records.file)
    # mtime 0, so that the same rows give the same bytes
    write_atomic(target, gzip.compress(applications(case), compresslevel=9, mtime=0))
    print(f'sha256 = "{sha256_of(target)}"')
