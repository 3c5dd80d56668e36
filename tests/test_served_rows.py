"""Served rows as rows to learn from: a case of their own, beside the case's rows."""

import pandas as pd
import pytest

from lepton_lib.cases import load_case
from lepton_lib.data import clean, read_table
from lepton_lib.operations import acting


@pytest.mark.parametrize("name", ["heart", "process_faults", "traffic"])
def test_served_rows_join_every_kind_of_case(tmp_path, name):
    """The enlarged case reads and cleans as the case itself does, with the served rows in it."""
    case = load_case(name)
    before = clean(read_table(case), case)[0]
    served = before.tail(40).copy()
    if "date_time" in served:
        served["date_time"] += pd.Timedelta(days=400)
    number = next(column.name for column in case.inputs if column.kind == "number")
    served[number] = served[number].fillna(1.0) + 0.015625  # so that none repeats a row
    acting._gather(case, served, tmp_path, "a version")
    after, _ = clean(read_table(load_case(tmp_path / name)), load_case(tmp_path / name))
    assert len(after) == len(before) + 40
    inputs = [column.name for column in case.inputs]
    pd.testing.assert_frame_equal(after[[*inputs, "target"]].tail(40).reset_index(drop=True),
                                  served[[*inputs, "target"]].reset_index(drop=True))  # fmt: skip
