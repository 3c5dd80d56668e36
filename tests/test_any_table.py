"""Tables drawn at random: what new-case accepts goes through reading, cleaning, encoding, a fit."""
# ruff: noqa: ARG005  # a kind of cell may not need its row

from __future__ import annotations

import csv
import io
import random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lepton_lib.cases import encode_records, example_record, load_case
from lepton_lib.data import clean, encode, read_table, split
from lepton_lib.data.tables import to_records
from lepton_lib.drafting import draft_case
from lepton_lib.errors import LeptonError
from lepton_lib.trainer import fit_model

KINDS = {
    "word": lambda draw, i: draw.choice("abc"),
    "many words": lambda draw, i: f"w{int(abs(draw.gauss(0, 25)))}",
    "number": lambda draw, i: f"{draw.gauss(0, 9):.2f}",
    "comma": lambda draw, i: f"{draw.gauss(5000, 900):,.2f}".translate({44: ".", 46: ","}),
    "money": lambda draw, i: f"${draw.gauss(5000, 900):,.0f}",
    "huge": lambda draw, i: f"{draw.gauss(0, 1)}e{draw.randrange(40)}",
    "flag": lambda draw, i: str(draw.randrange(2)),
    "gaps": lambda draw, i: draw.choice(["", "n/a", "1.5", "2", "#N/A"]),
    "day": lambda draw, i: f"{i % 28 + 1:02}.{i // 28 % 12 + 1:02}.2023",
    "moment": lambda draw, i: f"2024-01-{31 - i // 24 % 31:02}T{i % 24:02}:30:00Z",
    "id": lambda draw, i: str(10**17 + 7 * i),
    "note": lambda draw, i: f"{draw.random()} said",
    "constant": lambda draw, i: "ES",
    "empty": lambda draw, i: "",
}
TARGETS = {
    "yes": lambda draw, i: draw.choice(["Yes", "yes", "no"]),
    "rare": lambda draw, i: "ill" if i % 8 == 0 else "well",
    "tiers": lambda draw, i: draw.choice("123"),
    "quantity": lambda draw, i: f"{draw.lognormvariate(3, 2):.3f}",
    "wild": lambda draw, i: "1e12" if i % 50 == 7 else f"{draw.gauss(0, 1):.4f}",
    "count": lambda draw, i: str(draw.randrange(40)),
}


class Table(NamedTuple):
    """What is drawn: the columns' kinds and headers, the target, how many rows."""

    kinds: list[str]
    target: str
    headers: list[str]
    rows: int
    seed: int = 0

    def write(self, path):
        """A CSV of those columns and a target ``y``."""
        draw, out = random.Random(self.seed), io.StringIO()
        writer = csv.writer(out, delimiter=";" if "comma" in self.kinds else ",")
        names = [f"{header}{number}" for number, header in enumerate(self.headers)]
        writer.writerow([*names[: len(self.kinds)], "y"])
        for i in range(self.rows):
            cells = [KINDS[kind](draw, i) for kind in self.kinds]
            writer.writerow([*cells, TARGETS[self.target](draw, i)])
        path.write_text(out.getvalue(), encoding="utf-8")


def accepts(folder, table):
    """Whether a case is drafted; one that is goes all the way to a model."""
    table.write(folder / "t.csv")
    try:
        draft = draft_case(folder / "t.csv", target="y", folder=folder / "case")
    except LeptonError:
        return False
    assert len(draft.columns) == len(table.kinds) + 1
    left_out = draft.columns[draft.columns["taken for"].str.startswith("left out")]
    assert (left_out["remark"] != "").all()
    case = load_case(draft.path.parent)
    assert not case.charter.agreed
    frame, _ = clean(read_table(case), case)
    parts = split(frame, case, seed=0)
    inputs = {name: encode(part, case) for name, part in parts.items()}
    records = to_records(parts["test"], case)
    np.testing.assert_array_equal(encode_records(case, records), inputs["test"][0])
    assert encode_records(case, [example_record(case)]).shape == (1, len(case.fields))
    options = {"seed": 0, "kind": "linear", "epochs": 1, "progress": False}
    model, _ = fit_model(case, inputs["train"], inputs["validation"], **options)
    assert model is not None
    return True


@settings(
    max_examples=20,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.builds(
        Table,
        kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=7),
        target=st.sampled_from(sorted(TARGETS)),
        headers=st.lists(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9),
            min_size=7,
            max_size=7,
        ),
        rows=st.integers(25, 160),
        seed=st.integers(0, 9),
    )
)
@example(Table(["word", "word", "many words"], "yes", ["a"] * 3, 120))
@example(Table(["number"], "quantity", ["a"], 60))
@example(Table(["number"] * 300, "tiers", ["a"] * 300, 90))
@example(Table(["day", "gaps", "huge"], "rare", ["年龄", "class", "3 x"], 160))
def test_a_table_that_is_accepted_can_be_learnt_from(tmp_path_factory, table):
    """Every drawn table is refused in a sentence, or drafted, read, encoded and fitted."""
    accepts(tmp_path_factory.mktemp("drawn"), table)


@pytest.mark.parametrize("kind", ["word", "many words", "number", "comma", "money", "day"])
@pytest.mark.parametrize("target", ["yes", "rare", "quantity", "wild"])
def test_a_column_with_something_to_learn_from_is_enough(tmp_path, kind, target):
    """A table of one such column is accepted, whatever its target is."""
    assert accepts(tmp_path, Table([kind], target, ["x"], 160, 1))
