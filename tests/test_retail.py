"""The case retail: how its rows are made of invoices, and where they are cut."""

import runpy

import pandas as pd
import pytest

from lepton_lib.cases import load_case
from lepton_lib.data import clean, read_table, split


@pytest.fixture(scope="module")
def case():
    return load_case("retail")


def test_no_outcome_that_was_open_when_the_test_began_is_learnt(case):
    """The parts are cut where the card says, sixty days between training and test rows."""
    parts = split(clean(read_table(case), case)[0], case, seed=0)
    days = {name: (rows["day"].min(), rows["day"].max()) for name, rows in parts.items()}
    assert days["train"][1] < pd.Timestamp("2011-03-01") <= days["validation"][0]
    assert days["test"][0] - days["validation"][1] > pd.Timedelta(days=60)


def test_an_order_knows_its_past_alone(case):
    """Orders are counted from lines, without repeats and postage, and only up to each row's day."""
    made = runpy.run_path(str(case.folder / "make_orders.py"))
    lines = pd.DataFrame(
        [
            ("1", "22222", 1, "2010-01-01 09:00", 2.0, 8, "France"),
            ("2", "11111", 3, "2010-07-01 10:00", 2.0, 7, "United Kingdom"),
            ("2", "11111", 3, "2010-07-01 10:00", 2.0, 7, "United Kingdom"),
            ("2", "POST", 1, "2010-07-01 10:00", 9.0, 7, "United Kingdom"),
            ("C3", "11111", -1, "2010-07-11 10:00", 2.0, 7, "United Kingdom"),
            ("4", "22222", 1, "2010-07-11 10:00", 5.0, 7, "United Kingdom"),
            ("5", "22222", 1, "2010-09-20 10:00", 5.0, 7, "United Kingdom"),
            ("6", "22222", 1, "2010-12-31 10:00", 5.0, 8, "France"),
        ],
        columns=[
            "Invoice",
            "StockCode",
            "Quantity",
            "InvoiceDate",
            "Price",
            "Customer ID",
            "Country",
        ],
    )
    table = made["orders_of"](made["days_of"](lines))
    shown = table.drop(columns=["day", "customer", "domestic", "part"]).astype(object)
    assert shown.where(shown.notna(), None).to_numpy().tolist() == [
        [6.0, 1, None, 0, 0, 0.0, 0, "again"],
        [5.0, 1, 10, 1, 1, 6.0, 0, "quiet"],
        [5.0, 1, 71, 0, 2, 11.0, 1, "quiet"],
    ]
