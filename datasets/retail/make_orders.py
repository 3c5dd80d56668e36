"""Write orders.csv.gz from the lines of invoices; prints the hash that case.toml must name.

``python datasets/retail/make_orders.py online_retail_ii_quarter.csv.gz``
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lepton_lib.utils import sha256_of, write_atomic

HISTORY = pd.Timedelta(days=180)  # how far the inputs look back
HORIZON = pd.Timedelta(days=60)  # how far the label looks ahead
TEST = pd.Timestamp("2011-07-01")
GAP = pd.Timestamp("2011-05-01")  # whose sixty days may reach into the test part


def days_of(lines: pd.DataFrame) -> pd.DataFrame:
    """Sum what each customer ordered and cancelled per day: goods only, duplicates dropped.

    Args:
        lines: Invoice lines with the UCI repository's column names. The number of a cancelled
            invoice begins with C.

    Returns:
        Columns customer, day, cancelled, pounds, products (distinct ones) and domestic, sorted by
        day, then customer.
    """
    lines = lines.drop_duplicates()
    cancelled = lines["Invoice"].astype(str).str.startswith("C")
    goods = lines["StockCode"].astype(str).str.match(r"\d{5}") & (lines["Price"] > 0)
    table = pd.DataFrame({
        "customer": lines["Customer ID"],
        "day": pd.to_datetime(lines["InvoiceDate"]).dt.normalize(),
        "cancelled": cancelled,
        "pounds": (lines["Quantity"] * lines["Price"]).abs(),
        "product": lines["StockCode"],
        "domestic": (lines["Country"] == "United Kingdom").map({True: "yes", False: "no"}),
    })[goods & (cancelled | (lines["Quantity"] > 0))]  # fmt: skip
    days = table.groupby(["day", "customer", "cancelled"], as_index=False)
    return days.agg(
        pounds=("pounds", "sum"), products=("product", "nunique"), domestic=("domestic", "first")
    )


def orders_of(days: pd.DataFrame) -> pd.DataFrame:
    """Return one row per customer and order day, with what was known then and what came next.

    The label says whether the customer ordered again within `HORIZON`. Only days with a whole
    `HISTORY` before them and a whole `HORIZON` after them are kept.
    """
    bought, back = days[~days["cancelled"]], days[days["cancelled"]].groupby("customer")["day"]
    returns = {customer: moments.to_numpy() for customer, moments in back}
    rows = []
    for customer, orders in bought.groupby("customer"):
        moments = orders["day"].to_numpy()
        for place, order in enumerate(orders.itertuples()):
            ago = (moments[place] - moments[:place]) / np.timedelta64(1, "D")
            known, later = ago <= HISTORY.days, moments[place + 1 : place + 2]
            returned = (moments[place] - returns.get(customer, moments[:0])) / np.timedelta64(
                1, "D"
            )
            rows.append({
                "day": order.day,
                "customer": customer,
                "pounds": order.pounds,
                "products": order.products,
                "domestic": order.domestic,
                "days_since": ago[-1] if known.any() else np.nan,
                "orders_30": (ago <= 30).sum(),
                "orders_180": known.sum(),
                "pounds_180": orders["pounds"].to_numpy()[:place][known].sum(),
                "cancellations_180": ((returned > 0) & (returned <= HISTORY.days)).sum(),
                "outcome": "again" if (later - moments[place] <= HORIZON).any() else "quiet",
            })  # fmt: skip
    table = pd.DataFrame(rows).sort_values(["day", "customer"])
    whole = table["day"].between(days["day"].min() + HISTORY, days["day"].max() - HORIZON)
    part = np.select([table["day"] < GAP, table["day"] < TEST], ["learn", "gap"], "test")
    table = table.assign(part=part).astype({"days_since": "Int64"})
    return table.round({"pounds": 2, "pounds_180": 2})[whole]


if __name__ == "__main__":
    target = Path(__file__).with_name("orders.csv.gz")
    text = orders_of(days_of(pd.read_csv(sys.argv[1]))).to_csv(index=False, lineterminator="\n")
    # mtime 0, so that the same rows give the same bytes
    write_atomic(target, gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f'sha256 = "{sha256_of(target)}"')
