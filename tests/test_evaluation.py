"""Judgement: intervals, temperature, decisions, bands, groups and the gate."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import softmax

from lepton_lib.cases import CategoryColumn, NumberColumn, load_case
from lepton_lib.errors import MetricError
from lepton_lib.evaluation import (
    Interval,
    band,
    baseline_answers,
    baseline_gain,
    baselines,
    bootstrap_interval,
    calibrate,
    case_metric,
    conformal_margin,
    cost_matrix,
    cost_threshold,
    covered,
    decide,
    fit_isotonic,
    fit_temperature,
    gate,
    group_errors,
    group_gap,
    group_labels,
    group_table,
    metric_interval,
    paired_difference,
    shift_prior,
)
from lepton_lib.intervals import (
    auc_difference,
    auc_interval,
    calibration_interval,
    mean_interval,
)
from lepton_lib.metrics import (
    accuracy,
    area_under_curve,
    calibration_bins,
    calibration_error,
    log_loss,
    mean_absolute_error,
    mean_decision_cost,
)


@pytest.fixture(scope="module")
def credit():
    return load_case("credit")


def scores(seed, n=900, shift=1.4):
    """Labels and scores whose true area under the curve is known."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.3).astype(np.int64)
    return labels, generator.normal(size=n) + shift * labels


def with_charter(case, **changes):
    return case.model_copy(update={"charter": case.charter.model_copy(update=changes)})


def two_columns(positive):
    return np.column_stack([1 - positive, positive])


# Intervals


@pytest.mark.no_cover
def test_interval_covers_the_mean():
    """A 95 % interval holds the true mean in about 95 of 100 simulated samples."""
    hits = 0
    for seed in range(300):
        sample = np.random.default_rng(seed).normal(2.0, 1.0, size=100)
        interval = bootstrap_interval(np.mean, sample, n=300, seed=seed)
        hits += interval.low <= 2.0 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


@pytest.mark.no_cover
def test_interval_covers_the_area():
    """A stratified 90 % interval of the AUC holds the true area in about 90 of 100 samples."""
    truth = 0.5 * (1 + math.erf(1.4 / 2))  # P(N(1.4, 2) > 0)
    hits = 0
    for seed in range(200):
        labels, values = scores(seed, n=200)
        interval = bootstrap_interval(
            area_under_curve, labels, values, n=200, level=0.9, seed=seed, stratify=labels
        )
        hits += interval.low <= truth <= interval.high
    assert 0.84 <= hits / 200 <= 0.95


def test_interval_value_is_the_metric():
    """The value is the metric on the rows as they are, and lies between the ends."""
    labels, values = scores(0)
    interval = bootstrap_interval(area_under_curve, labels, values, n=200, seed=0, stratify=labels)
    assert interval.value == area_under_curve(labels, values)
    assert interval.low < interval.value < interval.high


def test_interval_is_seeded():
    """The same seed gives the same interval, and NumPy's global generator stays as it was."""
    labels, values = scores(0)
    state = np.random.get_state()[1].copy()
    first, again, other = (
        bootstrap_interval(area_under_curve, labels, values, n=50, seed=seed, stratify=labels)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert (np.random.get_state()[1] == state).all()


def test_stratified_draws_keep_the_counts():
    """Every stratified draw holds each label as often as the rows do: no rare class is lost."""
    labels = np.array([1] + [0] * 99)
    counts = set()
    bootstrap_interval(
        lambda drawn: counts.add(int(drawn.sum())) or 0.0, labels, n=50, seed=0, stratify=labels
    )
    assert counts == {1}


def test_draws_keep_rows_together():
    """All arrays are drawn with the same rows."""
    rows = np.arange(50)
    bootstrap_interval(lambda a, b: float((a * 2 != b).sum()), rows, rows * 2, n=20, seed=0)
    assert (
        bootstrap_interval(
            lambda a, b: float((a * 2 != b).sum()), rows, rows * 2, n=20, seed=0
        ).high
        == 0
    )


def test_blocks_are_stretches():
    """With blocks the drawn rows follow one another within each block, around the end."""
    seen = []
    rows = np.arange(103)
    bootstrap_interval(lambda drawn: seen.append(drawn) or 0.0, rows, n=20, seed=0, block=10)
    for drawn in seen[:-1]:
        assert len(drawn) == 103
        steps = np.diff(drawn) % 103
        assert all(step == 1 for i, step in enumerate(steps) if (i + 1) % 10)


def test_blocks_widen_the_interval_of_a_slow_series():
    """Where neighbours resemble each other, blocks give a wider interval with better coverage."""
    without_blocks, blocks, wider = 0, 0, 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(size=620)
        # mean 0, neighbours alike
        series = np.convolve(noise, np.ones(21) / np.sqrt(21), mode="valid")
        plain = bootstrap_interval(np.mean, series, n=100, seed=seed)
        wide = bootstrap_interval(np.mean, series, n=100, seed=seed, block=60)
        wider += wide.high - wide.low > plain.high - plain.low
        without_blocks += plain.low <= 0 <= plain.high
        blocks += wide.low <= 0 <= wide.high
    assert wider > 95
    assert without_blocks < 60
    assert blocks > 70


def test_blocks_as_long_as_the_sample_still_give_an_interval():
    """A block of all rows, or of all rows of a label, is shortened: the interval isn't a point."""
    values, labels = np.random.default_rng(0).normal(size=100), np.arange(100) % 2
    for options in ({"block": 100}, {"block": 168}, {"block": 50, "stratify": labels}):
        interval = bootstrap_interval(np.mean, values, n=100, seed=0, **options)
        assert interval.high - interval.low > 0.1


def test_interval_is_fast_enough_for_a_lesson():
    """A thousand draws of the AUC of 900 rows take processor time too short to wait for."""
    labels, values = scores(0)
    begun = time.process_time()
    bootstrap_interval(area_under_curve, labels, values, n=1000, seed=0, stratify=labels)
    assert time.process_time() - begun < 5  # about 0.2 s on an idle core


@pytest.mark.parametrize(
    ("arrays", "options"),
    [
        (([],), {}),
        (([1.0, 2.0], [1.0]), {}),
        (([1.0],), {"n": 0}),
        (([1.0],), {"level": 1.0}),
        (([1.0],), {"block": 0}),
        (([1.0],), {"stratify": [0, 1]}),
    ],
)
def test_interval_refuses_what_it_cannot_draw_from(arrays, options):
    """No rows, other lengths or a setting out of range raise an error that names what was got."""
    with pytest.raises(MetricError, match="arrays of length"):
        bootstrap_interval(lambda *_: 0.0, *arrays, seed=0, **options)


def test_paired_difference_is_a_minus_b():
    """The value is the metric of a minus that of b, its interval narrower than an unpaired one."""
    labels, a = scores(0)
    b = a + np.random.default_rng(1).normal(size=len(a)) * 0.2
    options = {"n": 300, "stratify": labels}
    paired = paired_difference(area_under_curve, labels, a, b, seed=0, **options)
    unpaired = bootstrap_interval(area_under_curve, labels, a, seed=0, **options)
    assert paired.value == area_under_curve(labels, a) - area_under_curve(labels, b)
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)
    swapped = paired_difference(area_under_curve, labels, b, a, seed=0, **options)
    assert swapped == pytest.approx((-paired.value, -paired.high, -paired.low))


def test_paired_difference_of_a_model_with_itself_is_zero():
    """A model doesn't differ from itself in any draw."""
    labels, a = scores(0)
    assert paired_difference(area_under_curve, labels, a, a, seed=0, n=20, stratify=labels) == (
        0.0,
        0.0,
        0.0,
    )


# The case's metric and baselines


def test_case_metric_by_task(credit):
    """Classification is judged by AUC, pooled or one-vs-rest, regression by absolute error."""
    labels, values = scores(0)
    probabilities = two_columns(1 / (1 + np.exp(-values)))
    name, metric = case_metric(credit)
    assert (name, metric(labels, probabilities)) == ("auc", area_under_curve(labels, values))
    name, metric = case_metric(load_case("credit_tiers"))
    assert name == "auc"
    assert metric(np.array([0, 1, 2]), np.eye(3)) == 1.0
    assert case_metric(load_case("traffic")) == ("mean_absolute_error", mean_absolute_error)


def test_constant_decisions_cost_what_the_base_rate_says(credit):
    """Deciding the same for everybody costs the other class's share times its cost."""
    rows = np.zeros((4, 1)), np.array([0, 0, 0, 1])
    case = with_charter(credit, baseline=())
    assert baselines(case, rows, rows) == {"always grant": 0.25 * 5, "always refuse": 0.75 * 1}


def test_regression_baselines_use_training_rows_only():
    """Medians are those of training rows; an unknown hour gets the median of them all."""
    case = load_case("traffic")
    names = [field.name for field in case.fields]

    def inputs(*clock):
        rows = np.zeros((len(clock), len(names)), dtype=np.float32)
        rows[:, [names.index("date_time.hour"), names.index("date_time.weekday")]] = clock
        return rows

    train = inputs((8, 0), (8, 0), (8, 0), (9, 0)), np.array([10.0, 26.0, 36.0, 100.0])
    test = inputs((8, 0), (3, 1)), np.array([25.0, 0.0], dtype=np.float32)
    found = baselines(case, train, test)
    assert found["training median"] == (6 + 31) / 2
    assert found["medians by hour, weekday"] == (1 + 31) / 2
    assert list(found)[-1] == "medians by hour, weekday, month"


def test_a_number_that_predicts_is_grouped_by_fifths():
    """A baseline for regression may name a number: its medians are by fifths of training rows."""
    case = with_charter(load_case("traffic"), baseline=("temp",))
    place = [field.name for field in case.fields].index("temp")
    rows = np.zeros((100, len(case.fields)), dtype=np.float32)
    rows[:, place] = np.arange(100)
    answers = baseline_answers(case, (rows, rows[:, place]), rows[[3, 97]])["medians by temp"]
    assert answers.ravel() == pytest.approx([9.5, 89.5], abs=1)


def test_the_gain_is_over_the_best_baseline():
    """A model that repeats the named column gains nothing over it; one that knows more, much."""
    case = with_charter(load_case("heart"), baseline=("thal", "age"))
    generator = np.random.default_rng(0)
    rows = np.zeros((600, len(case.fields)), dtype=np.float32)
    thal, age = ([field.name for field in case.fields].index(name) for name in ("thal", "age"))
    rows[:, thal], rows[:, age] = generator.integers(3, size=600), generator.normal(50, 9, 600)
    rows[::7, thal], rows[::11, age] = np.nan, np.nan
    hidden = generator.normal(size=600)
    odds = np.where(rows[:, thal] == 2, 1.0, 0.0) + 2 * hidden
    labels = (generator.random(600) < 1 / (1 + np.exp(-odds))).astype(int)
    answers = baseline_answers(case, (rows[:300], labels[:300]), rows[300:])
    assert area_under_curve(labels[300:], answers["class shares"][:, 1]) == 0.5
    linear = answers["linear model of age, thal"]
    same = baseline_gain(case, labels[300:], linear, answers, seed=0)
    assert same == (0, 0, 0)
    knowing = two_columns(1 / (1 + np.exp(-2 * hidden[300:])))
    value, low, _ = baseline_gain(case, labels[300:], knowing, answers, seed=0)
    expected = area_under_curve(labels[300:], knowing[:, 1])
    assert value == pytest.approx(expected - area_under_curve(labels[300:], linear[:, 1]))
    assert low > 0.1


def test_a_model_no_better_than_its_baseline_stays_out():
    """The gate holds the gain's lower end against the bound, for errors as for areas."""
    why = {"at_least": 0.0, "why": "a table does as well"}
    case = load_case("traffic")
    criteria = {"baseline_gain": type(case.charter.criteria["latency_ms"])(**why)}
    case = with_charter(case, criteria=criteria)
    generator = np.random.default_rng(0)
    truth = generator.normal(100, 10, size=400)
    table = {"medians": truth[:, None] + generator.normal(size=(400, 1))}
    for noise, opens in ((1.0, False), (0.5, True)):
        outputs = truth[:, None] + noise * generator.normal(size=(400, 1))
        gain = baseline_gain(case, truth, outputs, table, seed=0, n=200)
        assert gate(case, {"baseline_gain": gain}).passed is opens


# DeLong's interval


def test_delong_is_its_definition():
    """The interval follows from placements counted pair by pair, ties half, on the logit scale."""
    labels, values = scores(0, n=60)
    values = values.round(1)
    positive, negative = values[labels == 1], values[labels == 0]
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    m, n = pairs.shape
    variance = pairs.mean(1).var(ddof=1) / m + pairs.mean(0).var(ddof=1) / n
    area = pairs.mean()
    margin = stats.t.ppf(0.975, min(m, n) - 1) * variance**0.5 / area / (1 - area)
    ends = [1 / (1 + (1 - area) / area * np.exp(-sign * margin)) for sign in (-1, 1)]
    assert auc_interval(labels, values) == pytest.approx((area, *ends))
    assert auc_interval(labels, values).value == area_under_curve(labels, values)


@pytest.mark.parametrize(("n", "share"), [(91, 0.45), (75, 0.2)])
def test_delong_lower_end_is_not_too_optimistic(n, share):
    """The truth lies below it in at most 2.5 % of 1,000 samples of 91 rows, or of 15 positives."""
    labels = (np.arange(n) < round(share * n)).astype(int)
    truth, generator, below, inside = stats.norm.cdf(1.2 / 2**0.5), np.random.default_rng(0), 0, 0
    for _ in range(1000):
        interval = auc_interval(labels, generator.normal(size=n) + 1.2 * labels)
        below += truth < interval.low
        inside += interval.low <= truth <= interval.high
    assert below / 1000 <= 0.025 + 3 * (0.025 * 0.975 / 1000) ** 0.5
    assert 0.93 <= inside / 1000 <= 0.985


def test_delong_of_several_classes_is_the_mean_area():
    """Three classes: the mean one-vs-rest area, its interval near the bootstrap's."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(600, 3)) * 1.5
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    by_delong = auc_interval(labels, p)
    by_bootstrap = metric_interval(load_case("credit_tiers"), labels, p, seed=0, n=400, block=2)
    assert by_delong.value == by_bootstrap.value
    widths = [interval.high - interval.low for interval in (by_delong, by_bootstrap)]
    assert widths[0] == pytest.approx(widths[1], rel=0.15)


def test_delong_without_a_mistake_is_still_uncertain():
    """Perfect ranking of 15 positives has the lower end of 15 hits in 15, 0.025 ** (1 / 15)."""
    labels = np.repeat([0, 1], [40, 15])
    assert auc_interval(labels, labels) == pytest.approx((1.0, 0.025 ** (1 / 15), 1.0))
    assert auc_interval(labels, -labels) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 15)))
    assert auc_interval([0, 0, 1], [0.1, 0.3, 0.2]) == (0.5, 0.0, 1.0)  # one row says nothing
    assert auc_interval(labels, np.zeros(55)) == (0.5, 0.5, 0.5)  # a constant ranks nothing


# Calibration


def test_calibration_interval_holds_the_true_error():
    """Of 300 samples, calibrated or too sure, 95 % of intervals hold the bins' true error."""
    generator, held = np.random.default_rng(0), {1.0: 0, 2.0: 0}
    for seed in range(300):
        for sharpening in held:
            logits = generator.normal(size=400) * 1.5
            true, stated = (1 / (1 + np.exp(-z)) for z in (logits, sharpening * logits))
            labels, p = (generator.random(400) < true).astype(int), two_columns(stated)
            bins = calibration_bins(labels, p)[0]
            error = np.abs(np.bincount(bins, true - stated)).sum() / 400
            interval = calibration_interval(labels, p, seed=seed, n=100)
            assert interval.value == pytest.approx(calibration_error(labels, p))
            held[sharpening] += interval.low <= error + 1e-12 and error <= interval.high
    assert min(held.values()) / 300 >= 0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_temperature_recovers_a_known_one(truth):
    """Labels drawn from softened logits give that temperature back, for two and four classes."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(40_000, 4)) * 2
    noise = generator.gumbel(size=logits.shape)
    assert fit_temperature(logits, (logits / truth + noise).argmax(1)) == pytest.approx(
        truth, rel=0.04
    )
    single = generator.normal(size=40_000) * 2
    labels = generator.random(len(single)) < 1 / (1 + np.exp(-single / truth))
    assert fit_temperature(single, labels) == pytest.approx(truth, rel=0.06)
    assert fit_temperature(single[:, None], labels) == fit_temperature(single, labels)


def test_calibration_takes_probabilities_of_any_number_of_classes():
    """Probabilities that were made twice too sure come back, with the temperature that did it."""
    generator = np.random.default_rng(0)
    for k in (2, 4):
        logits = generator.normal(size=(40_000, k)) * 2
        labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)
        temperature, calibrated = calibrate(softmax(2 * logits, axis=1), labels)
        assert temperature == pytest.approx(2, rel=0.06)
        np.testing.assert_allclose(calibrated, softmax(2 * logits / temperature, axis=1))


def test_temperature_stays_at_one_without_clear_gain():
    """Two rows that are right say nothing; calibrated logits keep T = 1 in 95 % of samples."""
    assert fit_temperature(np.array([-5.0, 5.0]), np.array([0, 1])) == 1.0
    generator, kept = np.random.default_rng(0), 0
    for _ in range(300):
        logits = generator.normal(size=200) * 2
        labels = generator.random(200) < 1 / (1 + np.exp(-logits))
        kept += fit_temperature(logits, labels) == 1.0
    assert kept / 300 >= 0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5


def test_temperature_of_separable_rows_does_no_harm():
    """Thirty validation rows, all right, of calibrated logits: test rows lose next to nothing."""
    generator, before, after = np.random.default_rng(0), 0.0, 0.0

    def rows(n):  # of two normal distributions 4 apart the log odds are 4 times the value
        labels = generator.random(n) < 0.5
        return 4 * (generator.normal(size=n) + np.where(labels, 2, -2)), labels.astype(int)

    for _ in range(50):
        logits, labels = rows(2000)
        p = 1 / (1 + np.exp(-logits / fit_temperature(*rows(30))))
        after += log_loss(labels, two_columns(p)) / 50
        before += log_loss(labels, two_columns(1 / (1 + np.exp(-logits)))) / 50
    assert after == pytest.approx(before, rel=0.03)
    timid, right = np.repeat([-0.5, 0.5], 50), np.repeat([0, 1], 50)
    assert 0.1 < fit_temperature(timid, right) < 0.5  # far too timid: that is clear


@pytest.mark.parametrize("logits", [np.array([]), np.array([np.nan, 1.0]), np.array([1.0])])
def test_temperature_refuses_what_is_no_logit(logits):
    """No rows, NaN or another number of labels raise an error."""
    with pytest.raises(MetricError, match="fit_temperature"):
        fit_temperature(logits, np.zeros(2 if len(logits) else 0))


# Decisions


@pytest.mark.parametrize("costs", [[[0, 1], [5, 0]], [[-1, 2], [3, 1]], [[0, 0.3], [0.1, 0]]])
def test_threshold_agrees_with_least_expected_cost(costs):
    """For two classes the closed form and the least expected cost decide alike everywhere."""
    positive = np.linspace(0, 1, 1002)
    threshold = cost_threshold(costs)
    apart = np.abs(positive - threshold) > 1e-9
    assert (decide(two_columns(positive), costs) == (positive > threshold))[apart].all()


def test_threshold_is_the_cheapest_of_all():
    """On calibrated probabilities no threshold costs noticeably less than the closed form's."""
    generator = np.random.default_rng(0)
    positive = generator.random(200_000)
    labels = (generator.random(len(positive)) < positive).astype(np.int64)
    costs = [[0, 1], [5, 0]]
    grid = np.linspace(0.01, 0.99, 99)
    paid = [mean_decision_cost(labels, positive > t, costs) for t in grid]
    assert grid[np.argmin(paid)] == pytest.approx(cost_threshold(costs), abs=0.03)


def test_three_classes_decided_as_by_brute_force():
    """With three classes the decision has the least expected cost, summed by hand."""
    case = load_case("credit_tiers")
    costs = cost_matrix(case)
    assert costs[2, 0] == case.costs.matrix["high"]["low"]  # truth, then decision
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=200)
    for row, decision in zip(probabilities, decide(probabilities, costs), strict=True):
        expected = [sum(row[truth] * costs[truth, k] for truth in range(3)) for k in range(3)]
        assert decision == min(range(3), key=expected.__getitem__)


def test_equal_costs_decide_for_the_most_probable():
    """With every mistake costing the same the decision is the most probable class."""
    probabilities = np.random.default_rng(0).dirichlet([1] * 5, size=50)
    assert (decide(probabilities, 1 - np.eye(5)) == probabilities.argmax(1)).all()


@pytest.mark.parametrize("costs", [np.zeros((2, 2)), [[0, -1], [5, 0]], 1 - np.eye(3)])
def test_threshold_refuses_costs_without_one(costs):
    """Costs under which mistakes don't cost, or of more classes, have no threshold."""
    with pytest.raises(MetricError, match="cost_threshold"):
        cost_threshold(costs)


def test_bands_begin_at_their_limits(credit):
    """A probability on a limit belongs to the band above it."""
    assert band([0.0, 0.1499, 0.15, 0.399, 0.4, 1.0], credit.bands).tolist() == [
        "low",
        "low",
        "medium",
        "medium",
        "high",
        "high",
    ]


# Groups


@pytest.fixture(scope="module")
def people(credit):
    generator = np.random.default_rng(0)
    n = 600
    frame = pd.DataFrame({"age": generator.integers(18, 80, n).astype(float)})
    for name in ("home", "marital"):
        frame[name] = pd.Categorical(generator.choice(list(credit.column(name).categories), n))
    frame.loc[:19, "home"] = None
    labels, values = scores(0, n=n)
    return frame, labels, two_columns(1 / (1 + np.exp(-values)))


def test_groups_of_a_number_lie_between_its_cuts(credit):
    """A number's groups are below, between and above its cuts; a cut belongs to the group above."""
    frame = pd.DataFrame({"age": [18, 29.9, 30, 44, 45, 90, np.nan]})
    assert group_labels(frame, credit.column("age")).tolist() == [
        "below 30",
        "below 30",
        "30 to below 45",
        "30 to below 45",
        "45 and above",
        "45 and above",
        "missing",
    ]


def test_groups_that_could_be_confused_have_distinct_names():
    """A category called missing takes the rows without a value; close cuts stay distinct."""
    word = CategoryColumn(name="a", kind="category", categories=("x", "missing"), meaning="")
    assert group_labels(pd.DataFrame({"a": ["x", "missing", None]}), word).tolist() == [
        "x",
        "missing",
        "missing",
    ]
    number = NumberColumn(
        name="a", kind="number", cuts=(1234567.0, 1234568.0, 1234569.0), meaning=""
    )
    between = group_labels(pd.DataFrame({"a": [1234567.5, 1234568.5]}), number)
    assert between.tolist() == ["1234567 to below 1234568", "1234568 to below 1234569"]


def test_group_counts_add_up(credit, people):
    """Every sensitive column's groups hold all rows once, missing ones too, in the case's order."""
    table = group_table(*people[:1], credit, *people[1:], seed=0, n=20)
    assert table.groupby("column", sort=False)["rows"].sum().to_dict() == {
        "home": 600,
        "age": 600,
        "marital": 600,
    }
    homes = table.loc[table["column"] == "home", "group"].tolist()
    assert homes == [*credit.column("home").categories, "missing"]


def test_group_numbers_are_those_of_its_rows(credit, people):
    """Rows, base rate, mean probability and AUC of a group come only from its rows."""
    frame, labels, probabilities = people
    table = group_table(frame, credit, labels, probabilities, seed=0, n=20).set_index("group")
    rows = (frame["age"] < 30).to_numpy()
    line = table.loc["below 30"]
    assert line["rows"] == rows.sum()
    assert line["observed"] == pytest.approx(labels[rows].mean())
    assert line["stated"] == pytest.approx(probabilities[rows, 1].mean())
    assert line["auc"] == area_under_curve(labels[rows], probabilities[rows, 1])
    assert line["low"] <= line["auc"] <= line["high"]


def test_small_groups_are_not_judged(credit, people):
    """A group that is small or holds one class only is listed, not judged, and has no gap."""
    frame, labels, probabilities = people
    labels = labels.copy()
    labels[:20] = 0  # the rows without a home
    table = group_table(frame, credit, labels, probabilities, seed=0, n=20).set_index("group")
    assert not table.loc["missing", "judged"]
    assert math.isnan(table.loc["missing", "auc"])
    assert table.loc["30 to below 45", "judged"]
    table.loc["missing", "auc"] = 0.0
    overall = area_under_curve(labels, probabilities[:, 1])
    judged = table.loc[table["judged"], "auc"]
    assert group_gap(table, overall) == pytest.approx(max(overall - judged.min(), 0))


def test_groups_with_few_of_a_class_are_not_judged(credit, people):
    """A large group isn't judged either where one class has hardly any row in it."""
    frame, labels, probabilities = people
    labels = labels.copy()
    old = np.flatnonzero(frame["age"] >= 45)
    labels[old], labels[old[:5]] = 0, 1
    table = group_table(frame, credit, labels, probabilities, seed=0, n=20).set_index("group")
    assert table.loc["45 and above", "rows"] > 50
    assert not table.loc["45 and above", "judged"]


def test_no_group_no_gap():
    """A case without sensitive columns has an empty table and no gap."""
    case = load_case("process_faults")
    table = group_table(pd.DataFrame(), case, np.zeros(0, int), np.zeros((0, 9)), seed=0)
    assert table.empty
    assert group_gap(table, 0.9) == 0.0


def test_groups_of_a_regression():
    """In regression the worst group is the one with the largest error."""
    case = load_case("traffic")
    hours = pd.Series(np.repeat([7, 8], 60))
    labels = np.zeros(120)
    predictions = np.where(hours == 8, 3.0, 1.0)[:, None]
    table = group_table(
        pd.DataFrame(), case, labels, predictions, seed=0, n=20, groups={"hour": hours}
    )
    assert table["mean_absolute_error"].tolist() == [1.0, 3.0]
    assert table["stated"].tolist() == [1.0, 3.0]
    assert group_gap(table, 2.0) == 1.0


def test_stretches_shrink_with_the_group():
    """A group with every tenth row of a series has stretches of a tenth of the rows."""
    case = load_case("traffic")
    noise = np.random.default_rng(0).normal(size=1000)
    hours = pd.Series(np.tile(np.arange(10), 100))
    options = {"seed": 0, "n": 30}
    table = group_table(
        pd.DataFrame(),
        case,
        noise,
        np.zeros((1000, 1)),
        groups={"hour": hours},
        block=70,
        **options,
    )
    some = noise[hours == 3]
    interval = bootstrap_interval(mean_absolute_error, some, np.zeros(100), block=7, **options)
    assert table.loc[3, ["low", "high"]].tolist() == [interval.low, interval.high]


# The gate


def test_gate_uses_the_worse_end(credit):
    """A least value is held against its interval's lower end, a greatest against the upper one."""
    opened = gate(credit, {"auc": (0.85, 0.80, 0.88), "cost": (0.5, 0.45, 0.55)})
    assert opened.passed
    assert [entry.judged for entry in opened.criteria] == [0.80, 0.55]
    assert not gate(credit, {"auc": (0.85, 0.77, 0.88)}).passed
    assert not gate(credit, {"cost": (0.5, 0.45, 0.61)}).passed


def test_gate_takes_values_without_interval(credit):
    """A value without an interval is held against the bound itself, and on the bound it passes."""
    bound = credit.charter.criteria["calibration_error"].at_most
    assert gate(credit, {"calibration_error": bound}).passed
    assert not gate(credit, {"calibration_error": bound + 1e-6}).passed


def test_gate_judges_only_what_was_measured(credit):
    """Criteria without a value wait for a later step; values without a criterion are left aside."""
    result = gate(credit, {"auc": 0.9, "accuracy": 0.1})
    assert [entry.name for entry in result.criteria] == ["auc"]
    assert result.passed


def test_gate_that_judged_nothing_is_closed(credit):
    """Nothing measured is nothing passed."""
    assert not gate(credit, {}).passed
    assert "nothing was judged" in repr(gate(credit, {}))


def test_gate_fails_on_what_is_no_number(credit):
    """A NaN doesn't pass, whichever way the bound points."""
    assert not any(gate(credit, {name: math.nan}).passed for name in ("auc", "cost"))


def test_one_failure_closes_the_gate(credit):
    """All criteria must hold: any one that fails closes the gate and is named."""
    names = ("auc", "calibration_error", "cost")
    good, bad = (0.9, 0.01, 0.1), (0.1, 0.9, 0.9)
    for which in itertools.product([True, False], repeat=3):
        values = {name: good[i] if which[i] else bad[i] for i, name in enumerate(names)}
        result = gate(credit, values)
        assert result.passed == all(which)
        assert all((name in str(result)) != ok for name, ok in zip(names, which, strict=True))


def test_gate_refuses_a_misspelt_metric(credit):
    """A name that no charter can hold is an error: in silence it would never be judged."""
    with pytest.raises(MetricError, match="acu"):
        gate(credit, {"acu": 0.9})


def test_gate_shows_and_stores_itself(credit):
    """A gate renders as a table and turns into plain JSON with bound, verdict and reason."""
    result = gate(credit, {"auc": (0.85, 0.80, 0.88)})
    assert result.to_dict() == {
        "passed": True,
        "criteria": [
            {
                "name": "auc",
                "value": 0.85,
                "judged": 0.80,
                "bound": "at_least 0.78",
                "passed": True,
                "why": credit.charter.criteria["auc"].why,
            }
        ],
    }
    assert result._repr_html_().count("<tr") == 2
    assert credit.charter.criteria["auc"].why in repr(result)
    assert "0x" not in repr(result)


def test_accuracy_fits_the_interval():
    """Metrics of whole probability tables can be drawn as well."""
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=100)
    labels = probabilities.argmax(1)
    assert bootstrap_interval(accuracy, labels, probabilities, n=20, seed=0) == (1.0, 1.0, 1.0)


def test_without_costs_and_clock_there_is_less_to_beat(make_case):
    """Without costs only the classes' shares are to beat; without a clock the training median."""
    rows = np.zeros((3, 2)), np.array([0, 1, 1])
    assert baselines(load_case(make_case()), rows, rows) == {"class shares": 0.5}
    rows = np.zeros((3, 2)), np.array([1.0, 2.0, 6.0])
    criteria = {"criteria": {"mean_absolute_error": {"at_most": 1, "why": ""}}}
    case = load_case(make_case(task="regression", target={"classes": []}, charter=criteria))
    assert baselines(case, rows, rows) == {"training median": pytest.approx(5 / 3)}


def test_an_interval_shows_three_digits():
    """An interval is read as its value with both ends."""
    assert str(Interval(0.84512, 0.8, 1234.5)) == "0.845 (0.8 to 1.23e+03)"


# Clusters


def repeated(generator, n_clusters=40, size=8):
    """Labels, scores and clusters: the rows of a cluster are copies, but for a little noise."""
    labels, values = scores(int(generator.integers(1 << 30)), n=n_clusters)
    own = np.repeat(np.arange(n_clusters), size)
    return labels[own], values[own] + 0.01 * generator.normal(size=len(own)), own


def test_copies_are_no_evidence():
    """Rows drawn by cluster are worth as much as one row of each: eight copies narrow nothing."""
    labels, values, own = repeated(np.random.default_rng(0), n_clusters=60)
    alone, together = (bootstrap_interval(np.mean, values, seed=0, clusters=c) for c in (None, own))
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(8**0.5, rel=0.15)
    one = auc_interval(labels[::8], values[::8])
    assert auc_interval(labels, values, clusters=own) == pytest.approx(one, abs=0.02)
    assert auc_interval(labels, values).low > one.low + 0.02
    probabilities = two_columns(1 / (1 + np.exp(-values)))
    narrow, wide = (
        calibration_interval(labels, probabilities, seed=0, clusters=c) for c in (None, own)
    )
    assert wide.high - wide.value > 1.5 * (narrow.high - narrow.value)


def test_every_row_its_own_cluster_is_none():
    """Clusters of one row each give DeLong's interval, and its difference, of independent rows."""
    labels, values = scores(3, n=80)
    other = values + np.random.default_rng(0).normal(size=80)
    rows = [f"id {i}" for i in range(80)]
    assert auc_interval(labels, values, clusters=rows) == pytest.approx(
        auc_interval(labels, values)
    )
    assert auc_difference(labels, values, other, clusters=rows) == pytest.approx(
        auc_difference(labels, values, other)
    )


def test_the_difference_of_areas_is_delongs():
    """Value and width of the difference are those of the covariance of both models' placements."""
    labels, values = scores(5, n=120)
    other = values + np.random.default_rng(1).normal(size=120)
    placements = []
    for score in (values, other):
        positive, negative = score[labels == 1], score[labels == 0]
        pairs = positive[:, None] > negative
        placements.append((pairs.mean(1), pairs.mean(0)))
    (a1, a0), (b1, b0) = placements
    error = math.sqrt((a1 - b1).var(ddof=1) / len(a1) + (a0 - b0).var(ddof=1) / len(a0))
    value, low, high = auc_difference(labels, values, other)
    assert value == pytest.approx(a1.mean() - b1.mean())
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, (labels == 1).sum() - 1) * error)


# Calibration beyond a temperature, margins and rates


def test_isotonic_curves_mend_what_no_temperature_can():
    """A model that squares its odds on one side only is put right, class by class."""
    generator = np.random.default_rng(0)
    true = generator.dirichlet([1, 1, 1], size=8000)
    labels = (true.cumsum(1) < generator.random((8000, 1))).sum(1)
    bent = true * np.where(true > 0.5, 3.0, 1.0)
    bent /= bent.sum(1, keepdims=True)
    corrected = fit_isotonic(labels[:4000], bent[:4000])(bent[4000:])
    assert corrected.sum(1) == pytest.approx(np.ones(4000))
    assert (corrected > 0).all()
    assert np.abs(corrected - true[4000:]).mean() < 0.5 * np.abs(bent[4000:] - true[4000:]).mean()


def test_a_prior_shift_is_bayes_rule():
    """With the classes' shares moved, the shifted probabilities are those of the new world."""
    density = stats.norm.pdf(np.linspace(-2, 3, 9)[:, None], [0, 1])
    learnt, expected = np.array([0.5, 0.5]), np.array([0.95, 0.05])
    before, after = (density * prior for prior in (learnt, expected))
    shifted = shift_prior(before / before.sum(1, keepdims=True), learnt, expected)
    assert shifted == pytest.approx(after / after.sum(1, keepdims=True))


def test_a_margin_is_the_right_order_statistic():
    """Of 19 errors the 18th holds 90 %; of 8 none does; the margin counts as within."""
    targets = np.arange(1.0, 20.0)
    assert conformal_margin(targets, np.zeros((19, 1))) == 18
    assert conformal_margin(targets[:8], np.zeros(8)) == math.inf
    assert covered(targets, np.zeros((19, 1)), 18) == 18 / 19


def test_error_rates_by_group_are_counts(credit):
    """False alarms and misses of each group are counted at the decision of least cost."""
    n = 200
    frame = pd.DataFrame({"home": ["owner", "rent"] * 100, "age": 50.0, "marital": "single"})
    labels = np.arange(n) % 4 // 2
    positive = np.where(frame["home"] == "rent", 0.5, np.where(labels == 1, 0.9, 0.1))
    table = group_errors(frame, credit, labels, two_columns(positive)).set_index("group")
    assert table.loc["owner", ["false_alarms", "misses"]].tolist() == [0, 0]
    assert table.loc["rent", ["false_alarms", "misses"]].tolist() == [1, 0]  # above one sixth
    assert table.loc["rent", "false_alarms_low"] < 0.95 < table.loc["rent", "false_alarms_high"]
    assert table.loc["owner", "stated_minus_observed"] == pytest.approx(0.0)


def test_the_mean_of_few_runs_has_an_interval_that_covers():
    """Of four normal runs each, 95 % of the intervals hold the true mean; one run has none."""
    draws = np.random.default_rng(0).normal(3, 2, (4000, 4))
    found = [mean_interval(runs) for runs in draws]
    covered_share = np.mean([interval.low <= 3 <= interval.high for interval in found])
    assert covered_share == pytest.approx(0.95, abs=0.012)
    expected = stats.t.interval(0.9, 3, draws[0].mean(), stats.sem(draws[0]))
    assert mean_interval(draws[0], level=0.9)[1:] == pytest.approx(expected)
    with pytest.raises(MetricError, match="Repeat with more seeds"):
        mean_interval([0.5])
