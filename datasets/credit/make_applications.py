"""Write the table's applicants as nested records and print the hash that case.toml must name."""

import gzip
from pathlib import Path

from lepton_lib.cases import Case, load_case
from lepton_lib.data import nest_records, read_table
from lepton_lib.utils import sha256_of, write_atomic


def applications(case: Case) -> bytes:
    """The applicants of ``case`` as JSON lines, in the table's order."""
    return "".join(line + "\n" for line in nest_records(read_table(case), case)).encode()


if __name__ == "__main__":
    case = load_case(Path(__file__).parent, verify=False)  # the file may not be there yet
    assert case.records is not None
    target = case.path(case.records.file)
    # mtime 0, so that the same rows give the same bytes
    write_atomic(target, gzip.compress(applications(case), compresslevel=9, mtime=0))
    print(f'sha256 = "{sha256_of(target)}"')
