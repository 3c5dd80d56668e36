"""Drift: right numbers, honest false alarms, enough power, and a verdict for every odd window."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lepton_lib import monitoring
from lepton_lib.cases import load_case
from lepton_lib.data import clean, read_table
from lepton_lib.errors import DataError
from lepton_lib.monitoring import distances
from lepton_lib.utils import sha256_of, to_json

LEVEL = 0.05
# three standard deviations of a rate over 1,000 draws
MARGIN = 3 * np.sqrt(LEVEL * (1 - LEVEL) / 1000)

TOML = """
name = "shop"
title = "Will it sell?"
question = "Will it sell?"
task = "binary"
[source]
origin = "made up"
licence = "none"
citation = "none"
[data]
file = "shop.csv"
sha256 = "{sha256}"
row = "one item"
[target]
column = "sold"
meaning = "whether it sold"
classes = [{{ name = "no", values = ["0"] }}, {{ name = "yes", values = ["1"] }}]
[split]
method = "stratified"
[[columns]]
name = "price"
kind = "number"
unit = "euros"
min = 0
max = 100
nullable = true
meaning = "price"
[[columns]]
name = "weight"
kind = "number"
unit = "kg"
min = 0
meaning = "weight"
[[columns]]
name = "colour"
kind = "category"
categories = ["red", "green", "blue"]
meaning = "colour"
[[columns]]
name = "seen"
kind = "timestamp"
parts = ["weekday"]
meaning = "first day on the shelf"
[charter]
stop = []
risks = []
criteria = {{ drift_psi = {{ at_most = 0.2, why = "agreed" }} }}
"""


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.csv").write_text("price,weight,colour,seen,sold\n")
    (folder / "case.toml").write_text(TOML.format(sha256=sha256_of(folder / "shop.csv")))
    return load_case(folder)


def rows(n, *, seed, price=0.0):
    """Items whose price has moved by that many standard deviations."""
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "price": (50 + 10 * (generator.normal(size=n) + price)).clip(0, 100),
            "weight": generator.exponential(size=n),
            "colour": pd.Categorical(
                generator.choice(["red", "green", "blue"], size=n, p=[0.5, 0.3, 0.2])
            ),
            "seen": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(generator.integers(0, 364, size=n), unit="D"),
        }
    )


@pytest.fixture(scope="module")
def undrifted():
    """P-values of 1,000 undrifted windows: three numbers, one rounded, and a sparse category."""
    generator = np.random.default_rng(0)
    p_values = np.empty((1000, 4))
    for draw in p_values:
        numbers = generator.normal(size=(360, 3))
        numbers[:, 2] = numbers[:, 2].round()
        draw[:3] = [
            monitoring.kolmogorov_smirnov(column[:300], column[300:])[1] for column in numbers.T
        ]
        counts = generator.multinomial([300, 60], [0.6, 0.37, 0.03])
        draw[3] = monitoring.chi_square(*counts)[1]
    return p_values


@pytest.mark.no_cover
def test_each_test_alone_keeps_its_level(undrifted):
    """Of 1,000 undrifted draws no single test rejects more often than its level says."""
    assert ((undrifted <= LEVEL).mean(0) <= LEVEL + MARGIN).all()


def test_tests_are_not_idle(undrifted):
    """The continuous columns' and sparse table's false alarms come near the level."""
    assert ((undrifted <= LEVEL).mean(0)[[0, 1, 3]] > LEVEL / 2).all()


def test_without_correction_four_tests_ring_far_more_often(undrifted):
    """Uncorrected, any of four tests rings at over twice the level; corrected, at the level."""
    uncorrected = (undrifted.min(1) <= LEVEL).mean()
    corrected = np.mean([monitoring.holm(draw).min() <= LEVEL for draw in undrifted])
    assert uncorrected > 2 * LEVEL
    assert LEVEL / 3 < corrected <= LEVEL + MARGIN


@pytest.mark.no_cover
def test_report_rings_rarely_without_drift(shop):
    """On 60 undrifted windows of each size the verdict is drift no oftener than the level says."""
    reference = rows(400, seed=1)
    for size in (30, 200):
        alarms = [
            monitoring.drift_report(reference, rows(size, seed=s), shop).verdict
            for s in range(100, 160)
        ]
        assert alarms.count("drift") <= 3 + 3 * np.sqrt(3)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("size", "shift", "least"), [(50, 1.0, 0.95), (200, 0.6, 0.95), (50, 0.6, 0.4)]
)
def test_stated_shifts_are_found(shop, size, shift, least):
    """A shift of one number by that share of its deviation is found at least that often."""
    reference = rows(1000, seed=1)
    reports = [
        monitoring.drift_report(reference, rows(size, seed=s, price=shift), shop)
        for s in range(100, 160)
    ]
    assert np.mean(["price" in report.drifted for report in reports]) >= least


def test_small_certain_shift_is_no_drift(shop):
    """A tiny shift that many rows make certain stays below the charter's limit and is no drift."""
    report = monitoring.drift_report(rows(20_000, seed=1), rows(20_000, seed=2, price=0.1), shop)
    price = report.to_frame().loc["price"]
    assert price["p_holm"] < 1e-6
    assert (price["verdict"], price["why"]) == ("none", "not by chance, but not far")


def test_psi_of_a_small_window_is_large_by_chance():
    """Without drift the mean PSI is near (k - 1)(1/n + 1/m), above 0.2 for a window of 30 rows."""
    generator = np.random.default_rng(0)
    for n, m in ((3000, 30), (3000, 300), (500, 100)):
        samples = [(generator.normal(size=n), generator.normal(size=m)) for _ in range(300)]
        measured = np.mean([monitoring.psi(*pair) for pair in samples])
        expected = 9 * (1 / n + 1 / m)
        assert measured == pytest.approx(expected, rel=0.2)
        assert (measured > 0.2) == (m == 30)


def test_chance_is_what_the_report_says(shop):
    """The report's chance column is (k - 1)(1/n + 1/m) with the bins that are filled."""
    frame = monitoring.drift_report(rows(600, seed=1), rows(60, seed=2), shop).to_frame()
    assert frame.loc["price", "chance"] == pytest.approx(9 * (1 / 600 + 1 / 60))
    assert frame.loc["colour", "chance"] == pytest.approx(2 * (1 / 600 + 1 / 60))


SIZES = [(1, 1), (1, 50), (7, 5), (30, 900), (2600, 300), (12_000, 300), (30_000, 9_000)]
SEVERAL_CHUNKS = [(size, distances.CHUNK + 5_000) for size in (distances.CHUNK + 5_000, 100_000)]


@pytest.mark.parametrize("sizes", SIZES + SEVERAL_CHUNKS)
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.7, 40.0])
@pytest.mark.parametrize("decimals", [12, 0])
def test_kolmogorov_smirnov_and_wasserstein_are_scipys(sizes, shift, decimals):
    """Statistic, p-value and distance equal SciPy's within 1e-12, with ties and without."""
    generator = np.random.default_rng(7)
    a, b = (generator.normal(size=size).round(decimals) for size in sizes)
    b = b + shift
    expected = stats.ks_2samp(a, b)
    assert monitoring.kolmogorov_smirnov(a, b) == pytest.approx(
        (expected.statistic, expected.pvalue), abs=1e-12
    )
    assert monitoring.wasserstein(a, b) == pytest.approx(
        stats.wasserstein_distance(a, b), abs=1e-12
    )


@pytest.mark.parametrize("levels", [2, 5, 30])
def test_chi_square_is_scipys(levels):
    """Where every expected count is large, statistic and p-value equal SciPy's within 1e-12."""
    generator = np.random.default_rng(levels)
    counts = generator.multinomial([9000, 4000], generator.dirichlet(np.full(levels, 9.0)))
    expected = stats.chi2_contingency(counts, correction=False)
    assert monitoring.chi_square(*counts) == pytest.approx(
        (expected.statistic, expected.pvalue), abs=1e-12
    )


def test_sparse_table_agrees_with_fishers_exact_test():
    """With few expected counts the p-value is near Fisher's exact one, not the chi-square one."""
    table = np.array([[300, 4], [26, 4]])
    exact = stats.fisher_exact(table).pvalue
    asymptotic = stats.chi2_contingency(table, correction=False).pvalue
    simulated = monitoring.chi_square(*table)[1]
    assert simulated == pytest.approx(exact, rel=0.3)
    assert asymptotic < exact / 5


def test_sparse_p_value_is_never_zero():
    """However odd a sparse table is, its p-value is at least one in the number of tables."""
    assert monitoring.chi_square([1000, 0], [0, 9])[1] == 1 / (1 + monitoring.DRAWS)


def test_holm_agrees_with_the_definition():
    """Corrected p-values follow Holm's steps, whatever the order of the tests."""
    assert monitoring.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert monitoring.holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert monitoring.holm([]).shape == (0,)


def test_psi_is_zero_on_identical_samples():
    """The same sample twice has a PSI of exactly 0, numbers and categories, gaps included."""
    numbers = np.array([1.0, 2, 2, 2, 3, np.nan])
    assert monitoring.psi(numbers, numbers) == 0.0
    assert monitoring.psi(["a", "b", None], ["a", "b", None]) == 0.0


def test_psi_by_hand():
    """Two categories give the sum of (q - p) ln(q / p) with half a row added to each count."""
    p, q = np.array([8.5, 2.5]) / 11, np.array([5.5, 5.5]) / 11
    expected = ((q - p) * np.log(q / p)).sum()
    assert monitoring.psi(["a"] * 8 + ["b"] * 2, ["a"] * 5 + ["b"] * 5) == pytest.approx(expected)


def test_categories_count_alike_as_text_and_as_codes():
    """Categorical columns, counted by their codes, give the counts of the same values as text."""
    pair = [pd.Series(["a", None, "c", "c"]), pd.Series(["c", "b", None])]
    coded = [values.astype(pd.CategoricalDtype(["a", "b", "c", "d"])) for values in pair]
    expected = [[1, 1, 0, 2], [1, 0, 1, 1]]
    assert [counts.tolist() for counts in monitoring.bin_counts(*pair)] == expected
    assert [counts.tolist() for counts in monitoring.bin_counts(*coded)] == expected


@pytest.mark.parametrize("odd", [0.0, 1.0, 2.0])
def test_constant_reference_tells_below_from_above(odd):
    """A constant column's bins are below, at and above it: leaving it either way is seen."""
    counts = monitoring.bin_counts(np.ones(50), np.full(40, odd))
    assert (len(counts[0]), monitoring.psi(np.ones(50), np.full(40, odd)) > 0.2) == (
        (1, False),
        (2, True),
    )[odd != 1.0]


def test_missing_values_are_a_drift():
    """Gaps that the reference doesn't have move the PSI."""
    reference = np.random.default_rng(0).normal(size=500)
    current = reference.copy()
    current[:200] = np.nan
    assert monitoring.psi(reference, current) > 0.2


def test_row_order_does_not_matter(shop):
    """Shuffling the rows of either side leaves the report as it was."""
    reference, current = rows(300, seed=1), rows(90, seed=2, price=0.5)
    first = monitoring.drift_report(reference, current, shop)
    second = monitoring.drift_report(
        reference.sample(frac=1, random_state=0), current.iloc[::-1], shop
    )
    pd.testing.assert_frame_equal(first.to_frame(), second.to_frame(), rtol=1e-12)


def test_a_window_of_few_rows_is_not_judged(shop):
    """Fewer than 30 rows are not called drift, however far they lie, and the report says why."""
    report = monitoring.drift_report(rows(1000, seed=1), rows(29, seed=2, price=4.0), shop)
    assert (report.verdict, report.to_frame().loc["price", "why"]) == ("none", "too few rows")
    assert "too few to judge" in str(report)
    assert monitoring.drift_report(
        rows(1000, seed=1), rows(30, seed=2, price=4.0), shop
    ).drifted == ("price",)


def test_one_column_moved_is_the_one_named(shop):
    """The report names the column that moved, says how far in its unit, and clears the others."""
    report = monitoring.drift_report(rows(1000, seed=1), rows(200, seed=2, price=1.0), shop)
    assert (report.verdict, report.drifted) == ("drift", ("price",))
    assert report.to_frame().loc["price", "moved"] == pytest.approx(10, rel=0.2)
    assert "price" in report._repr_html_()
    assert repr(report).startswith("Verdict drift: 200 current against 1,000 reference rows")


def test_only_what_is_below_a_thousandth_is_shown_as_below_it(shop):
    """A p-value of exactly one thousandth is shown as it is."""
    report = monitoring.drift_report(rows(1000, seed=1), rows(200, seed=2, price=1.0), shop)
    for p, shown in ((0.001, " 0.001 "), (0.000999, "<0.001")):
        assert shown in repr(replace(report, columns=(replace(report.columns[0], p_holm=p),)))


def test_unseen_category_is_a_drift(shop):
    """A category that the reference never had is a drift, and counted as unknown."""
    current = rows(60, seed=2).astype({"colour": object})
    current.loc[:29, "colour"] = "pink"
    assert monitoring.drift_report(rows(1000, seed=1), current, shop).drifted == ("colour",)
    assert (
        monitoring.count_problems(current, shop).set_index("column").loc["colour", "unknown"] == 30
    )


def test_timestamps_are_judged_by_their_parts(shop):
    """A window of Mondays alone drifts in the weekday."""
    current = rows(80, seed=2)
    current["seen"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        7 * (np.arange(80) % 52), unit="D"
    )
    assert monitoring.drift_report(rows(1000, seed=1), current, shop).drifted == ("seen.weekday",)


def test_predictions_are_judged_as_columns_are(shop):
    """Outputs that moved are a drift, too; of two classes only the positive one is tested."""
    generator = np.random.default_rng(0)
    old, new = generator.beta(2, 5, size=400), generator.beta(5, 2, size=100)
    answers = tuple(np.column_stack([1 - p, p]) for p in (old, new))
    report = monitoring.drift_report(
        rows(1000, seed=1), rows(100, seed=2), shop, predictions=answers
    )
    assert report.drifted == ("p_yes",)
    assert "p_no" not in report.to_frame().index


@pytest.mark.parametrize(
    ("window", "verdict", "note"),
    [
        (lambda frame: frame[:0], "none", True),
        (lambda frame: frame[:1], "none", True),
        (lambda frame: frame[:0].drop(columns="price"), "none", True),
        (lambda frame: frame.iloc[:0, :0], "none", True),
        (lambda frame: frame.assign(price=50.0), "drift", False),
        (lambda frame: frame.assign(price=np.nan), "drift", False),
        (lambda frame: frame.assign(colour=None), "drift", False),
        (lambda frame: frame.assign(seen=pd.NaT), "drift", False),
        (lambda frame: frame.assign(price="cheap"), "drift", False),
        (lambda frame: frame.assign(price=np.inf), "drift", False),
        (lambda frame: frame.drop(columns="price"), "drift", False),
        (lambda frame: frame.rename(columns={"price": "cost"}), "drift", False),
        (lambda frame: frame.assign(extra=1), "none", False),
    ],
)
def test_odd_windows_get_a_clear_verdict(shop, window, verdict, note):
    """Empty, one-row, constant, missing, unreadable, renamed and new columns get a verdict."""
    current = window(rows(100, seed=2))
    empty = np.zeros((len(current), 2)), np.zeros((len(current), 2))
    report = monitoring.drift_report(rows(1000, seed=1), current, shop, predictions=empty)
    assert (report.verdict, bool(report.note)) == (verdict, note)
    assert all(entry.why for entry in report.columns)
    assert json.loads(to_json(report.to_dict()))["verdict"] == verdict
    assert monitoring.advise(report, problems=monitoring.count_problems(current, shop)).reasons
    assert report.verdict in report._repr_html_()


def test_constant_on_both_sides_is_no_drift(shop):
    """A column that is the same single value, or nothing at all, on both sides has not drifted."""
    for value in (1.0, np.nan):
        pair = rows(100, seed=1).assign(weight=value), rows(100, seed=2).assign(weight=value)
        assert monitoring.drift_report(*pair, shop).verdict == "none"


def test_reference_without_a_column_is_refused(shop):
    """A reference that lacks a column, or has no rows, is an error that names it."""
    with pytest.raises(DataError, match="no column 'price'"):
        monitoring.drift_report(rows(50, seed=1).drop(columns="price"), rows(50, seed=2), shop)
    with pytest.raises(DataError, match="no rows"):
        monitoring.drift_report(rows(50, seed=1)[:0], rows(50, seed=2), shop)


def test_problems_are_counted_by_kind(shop):
    """Missing, out of range, unknown, absent and undescribed values are counted apart."""
    current = rows(10, seed=1).astype({"colour": object, "price": object, "seen": object})
    current.loc[0, ["price", "colour"]] = [None, None]
    current.loc[1, ["price", "colour", "seen"]] = [-5.0, "pink", "soon"]
    current.loc[2, "price"] = "cheap"
    problems = monitoring.count_problems(
        current.drop(columns="weight").assign(extra=1), shop
    ).set_index("column")
    counts = problems[["missing", "out_of_range", "unknown"]]
    assert counts.loc["price"].tolist() == [1, 1, 1]
    assert counts.loc["colour"].tolist() == [1, 0, 1]
    assert counts.loc["seen"].tolist() == [0, 0, 1]
    assert problems["broken"].round(3).to_dict() == {
        "price": 0.2,
        "weight": 1.0,
        "colour": 0.2,
        "seen": 0.1,
        "extra": 0,
    }
    assert problems.loc[["weight", "extra"], "remark"].tolist() == [
        "no such column",
        "not in case.toml",
    ]


@pytest.fixture
def reports(shop):
    reference = rows(1000, seed=1)
    return {
        "calm": monitoring.drift_report(reference, rows(100, seed=2), shop),
        "moved": monitoring.drift_report(reference, rows(100, seed=2, price=1.5), shop),
        "few": monitoring.drift_report(reference, rows(5, seed=2, price=1.5), shop),
        "renamed": monitoring.drift_report(
            reference, rows(100, seed=2).drop(columns="price"), shop
        ),
    }


@pytest.mark.parametrize(
    ("name", "change", "action", "reason"),
    [
        ("calm", None, "nothing", "no labels yet"),
        ("calm", (0.01, -0.02, 0.04), "nothing", "not certainly different"),
        ("calm", (0.2, 0.1, 0.3), "retrain", "higher"),
        ("moved", None, "watch", "ask for them"),
        ("moved", (-0.2, -0.3, -0.1), "retrain", "drift in price"),
        ("few", (0.2, 0.1, 0.3), "watch", "too few"),
        ("renamed", (0.2, 0.1, 0.3), "watch", "broken at the source: price"),
    ],
)
def test_policy_says_what_and_why(reports, name, change, action, reason):
    """Each mix of signals leads to its action, with the reason that decided."""
    decision = monitoring.advise(reports[name], loss_change=change)
    assert decision.action == action
    assert reason in " / ".join(decision.reasons)
    assert action in decision._repr_html_()


def test_broken_rows_are_not_learnt_from(reports, shop):
    """A column with more than the allowed share of broken values stops retraining, and is named."""
    problems = monitoring.count_problems(rows(100, seed=2).assign(price=500.0), shop)
    decision = monitoring.advise(reports["moved"], problems=problems, loss_change=(0.2, 0.1, 0.3))
    assert (decision.action, "price" in decision.reasons[0]) == ("watch", True)


@pytest.mark.parametrize(
    ("new", "old", "action", "last"),
    [
        ((0.1, 0.05, 0.15), (0.0, -0.1, 0.1), "promote", "certainly better on new"),
        ((0.1, -0.05, 0.25), (0.1, 0.05, 0.15), "keep", "not certainly better on new"),
        ((0.1, 0.0, 0.2), (0.1, 0.05, 0.15), "keep", "not certainly better on new"),
        ((0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), "keep", "certainly worse on old"),
        ((-0.1, -0.15, -0.05), (0.0, 0.0, 0.0), "keep", "certainly worse on new"),
    ],
)
def test_only_a_clearly_better_model_is_promoted(new, old, action, last):
    """The interval on the deciding rows must lie above zero, and no other set's below."""
    decision = monitoring.choose_model({"new": new, "old": old}, deciding="new")
    assert decision.action == action
    assert last in decision.reasons[-1]


def test_change_in_mean_covers_the_truth():
    """The interval holds the truth in about 95 % of draws, and is unbounded without two values."""
    generator = np.random.default_rng(0)
    found = [
        monitoring.change_in_mean(
            generator.exponential(size=200), 0.3 + generator.exponential(2, size=80)
        )
        for _ in range(500)
    ]
    assert np.mean([low <= 1.3 <= high for _, low, high in found]) == pytest.approx(0.95, abs=0.03)
    assert monitoring.change_in_mean([1.0], [2.0, 3.0]) == (1.5, -np.inf, np.inf)
    assert monitoring.change_in_mean([], []) == (0.0, -np.inf, np.inf)


def test_change_in_mean_allows_for_blocks():
    """Dependent windows against their past: 2.5 % certainly higher, not a fifth or more."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(300, 5000 + 168 + 23))
    series = np.apply_along_axis(np.convolve, 1, noise, np.ones(24), "valid")  # a day of memory
    higher = {1: 0, 168: 0}
    for values in series:
        for block in higher:
            interval = monitoring.change_in_mean(values[:5000], values[5000:], block=block)
            higher[block] += interval.low > 0
    assert higher[168] / 300 <= 0.025 + 3 * (0.025 * 0.975 / 300) ** 0.5
    assert higher[1] / 300 > 0.2


def test_dependence_is_measured():
    """Repeating each row k times inflates the mean's variance k times; independent rows by 1."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=4000)
    error = 3 * (2 / 400) ** 0.5  # of a variance of 400 blocks
    assert monitoring.moments(values, block=10).inflation == pytest.approx(1, abs=error)
    repeated = monitoring.moments(np.repeat(values, 5), block=50)
    assert repeated.inflation == pytest.approx(5, rel=error)
    assert (repeated.rows, repeated.blocks) == (20_000, 400)
    assert monitoring.moments(np.zeros(100), block=5) == (0.0, 0.0, 100, 1.0, 0)


@pytest.mark.parametrize("n", [5000, 5001, 9999, 300_000, 1_000_000])
@pytest.mark.parametrize("strength", [0.3, 1.1, 2.19, 2.2, 2.7, 9.0, 30.0])
def test_tail_of_the_asymptotic_distribution_is_scipys(n, strength):
    """The p-value of many rows equals SciPy's full sum, within 1e-12 and to nine digits."""
    distance = np.sqrt(strength / n)
    ours, theirs = distances._asymptotic(n, distance), stats.kstwo.sf(distance, n)
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=0)


def test_gaps_stand_below_every_number():
    """In a summary a missing number counts as lower than all others, as minus infinity would."""
    generator = np.random.default_rng(3)
    pair = [generator.normal(size=size).round(1) for size in (80, 50)]
    pair[0][:9], pair[1][:30] = np.nan, np.nan
    low = [np.where(np.isnan(values), -np.inf, values) for values in pair]
    expected = stats.ks_2samp(*low)
    found = monitoring.kolmogorov_smirnov(*map(monitoring.summarise, pair))
    assert found == pytest.approx((expected.statistic, expected.pvalue), abs=1e-12)


def test_a_stored_reference_gives_the_same_report(shop, tmp_path):
    """Stored summaries give the report that the rows give, gaps, ties and outputs included."""
    frame, current = rows(1000, seed=1), rows(200, seed=2, price=0.7)
    frame.loc[:40, "price"], frame["weight"] = np.nan, frame["weight"].round(1)
    answers = [np.random.default_rng(s).random((n, 2)) for s, n in ((1, 300), (2, 200))]
    monitoring.Reference.from_frame(frame, shop, answers[0], version="abc").save(
        tmp_path / "reference.parquet"
    )
    stored = monitoring.Reference.load(tmp_path / "reference.parquet")
    assert (stored.rows, stored.about, stored.outputs) == (1000, {"version": "abc"}, ("p_yes",))
    given = {"predictions": (None, answers[1])}
    fresh = monitoring.drift_report(frame, current, shop, predictions=tuple(answers))
    assert monitoring.drift_report(stored, current, shop, **given) == fresh
    assert "p_yes" not in monitoring.drift_report(stored, current, shop).to_frame().index
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reference.parquet", "shop"]


def test_a_damaged_reference_is_refused(shop, tmp_path):
    """No file, another file and one flipped byte are errors, never another report."""
    path, current = tmp_path / "reference.parquet", rows(100, seed=2)
    with pytest.raises(DataError, match="no such file"):
        monitoring.Reference.load(path)
    path.write_bytes(b"PAR1 no table")
    with pytest.raises(DataError, match="can't be read"):
        monitoring.Reference.load(path)
    monitoring.Reference.from_frame(rows(500, seed=1), shop, note="of a test").save(path)
    content = path.read_bytes()
    sound = monitoring.drift_report(monitoring.Reference.load(path), current, shop)
    refused = 0
    for position in range(0, len(content), 97):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
        )
        try:
            report = monitoring.drift_report(monitoring.Reference.load(path), current, shop)
        except DataError:
            refused += 1
        else:
            assert report == sound, f"byte {position}"
    assert refused > 0.8 * len(content) / 97  # the others lie where nothing is read


def test_a_reference_of_another_case_is_refused(shop):
    """Summaries that lack a column of the case are an error that names it."""
    reference = monitoring.Reference.from_frame(rows(100, seed=1), shop)
    fewer = monitoring.Reference(
        {n: reference._columns[n] for n in reference.names if n != "colour"}, (), 100, {}
    )
    with pytest.raises(DataError, match="'colour'"):
        monitoring.drift_report(fewer, rows(100, seed=2), shop)


def test_of_the_retail_months_december_and_january_drift_and_no_other():
    """Against June to November, Christmas and January drift; the months' halves are alike."""
    shop = load_case("retail")
    table, _ = clean(read_table(shop), shop)
    month = table["day"].dt.to_period("M").astype(str)
    before = table[month.between("2010-06", "2010-11")]
    later = {
        name: monitoring.drift_report(before, rows, shop)
        for name, rows in table.groupby(month)
        if name > "2010-11"
    }
    assert len(later) == 9
    assert {name for name, report in later.items() if report.verdict == "drift"} == {
        "2010-12",
        "2011-01",
    }
    assert "days_since" in later["2010-12"].drifted
    assert later["2011-01"].drifted == ("days_since",)
    halves = (
        before[month.loc[before.index] <= "2010-08"],
        before[month.loc[before.index] > "2010-08"],
    )
    assert monitoring.drift_report(*halves, shop).verdict == "none"
