"""Performance with labels and before them, groups, and the policy over every mix of signals."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lepton_lib.cases import load_case
from lepton_lib.cases.sections import Policy
from lepton_lib.errors import CaseError, RunError
from lepton_lib.intervals import wilson
from lepton_lib.metrics import area_under_curve, mean_decision_cost
from lepton_lib.monitoring import (
    Signals,
    State,
    bin_counts,
    confidence_sequence,
    estimate_performance,
    group_performance,
    judge,
    moments,
    performance,
    row_losses,
)
from lepton_lib.monitoring.sequential import pool
from lepton_lib.operations import Journal
from lepton_lib.operations.labels import _parse_label

COSTS = {"unit": "losses", "matrix": {"no": {"no": 0, "yes": 1}, "yes": {"no": 4, "yes": 0}}}
WORSE, SAME, BETTER = (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), (-0.2, -0.3, -0.1)
NOW, HOUR = 1_700_000_000.0, 3600.0


@pytest.fixture
def shop(make_case):
    columns = [
        {"name": "x", "kind": "number", "min": 0, "max": 100, "meaning": "a number"},
        {
            "name": "colour",
            "kind": "category",
            "categories": ["red", "blue", "green"],
            "meaning": "a word",
            "sensitive": True,
        },
    ]
    return load_case(make_case(columns=columns, costs=COSTS))


def answered(n, *, seed, shift=0.0, concept=0.0):
    """Inputs, calibrated probabilities and labels; ``concept`` adds to the true log odds alone."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n) + shift
    p, true = (1 / (1 + np.exp(-2 * x - odds)) for odds in (0.0, concept))
    return np.column_stack([1 - p, p]), (generator.random(n) < true).astype(int)


def test_performance_says_what_the_metrics_say(shop):
    """Late labels give the metrics' own values, each inside its interval."""
    answers, labels = answered(800, seed=0)
    found = performance(shop, labels, answers, seed=0)
    assert set(found) == {"auc", "accuracy", "calibration_error", "log_loss", "cost"}
    assert found["auc"][0] == area_under_curve(labels, answers[:, 1])
    decided = (answers[:, 1] > 0.2).astype(int)  # 1 / (1 + 4)
    assert found["cost"][0] == pytest.approx(mean_decision_cost(labels, decided, [[0, 1], [4, 0]]))
    assert found["log_loss"][0] == pytest.approx(row_losses(shop, labels, answers).mean())
    assert all(
        low <= value <= high
        for name, (value, low, high) in found.items()
        if name != "calibration_error"
    )


def test_performance_leaves_out_what_the_rows_cannot_tell(shop):
    """Without rows nothing is said, and with one class only no AUC."""
    answers, labels = answered(60, seed=0)
    assert performance(shop, [], answers[:0], seed=0) == {}
    assert "auc" not in performance(shop, labels * 0, answers, seed=0)
    assert "accuracy" in performance(shop, labels[:1], answers[:1], seed=0)


def test_a_number_has_its_absolute_error_and_no_estimate(make_case):
    """For regression the error is measured once labels come, and nothing is estimated before."""
    case = load_case(make_case(task="regression", target={"classes": []}, charter={"criteria": {}}))
    outputs = np.array([[1.0], [3.0], [6.0]])
    held = performance(case, [1.0, 2.0, 4.0], outputs, seed=0, margin=1.0)
    assert held["coverage"].value == 2 / 3
    found = performance(case, [1.0, 2.0, 4.0], outputs, seed=0)
    assert found["mean_absolute_error"][0] == 1.0
    assert estimate_performance(case, np.array([[1.0], [3.0]]), seed=0) == {}


@pytest.mark.no_cover
def test_the_estimate_follows_a_shift_of_the_inputs(shop):
    """With true probabilities the estimate's interval holds the later value in 95 % of windows."""
    inside, moved = 0, []
    for seed in range(60):
        answers, labels = answered(300, seed=seed, shift=0.8)
        expected = estimate_performance(shop, answers, seed=seed, n=150)
        truth = performance(shop, labels, answers, seed=0, n=1)
        inside += sum(
            expected[name][1] <= truth[name][0] <= expected[name][2]
            for name in ("auc", "accuracy", "cost")
        )
        moved.append(expected["cost"][0])
    assert inside / 180 == pytest.approx(0.95, abs=0.05)
    unmoved = estimate_performance(shop, answered(3000, seed=1)[0], seed=0, n=50)["cost"][0]
    assert abs(np.mean(moved) - unmoved) > 0.03


def test_the_estimate_cannot_see_another_meaning(shop):
    """When only P(y | x) changes, the estimate stays and the truth leaves its interval."""
    answers, labels = answered(2000, seed=3, concept=-2.0)
    same, _ = answered(2000, seed=3)
    expected = estimate_performance(shop, answers, seed=0, n=100)
    assert expected == estimate_performance(shop, same, seed=0, n=100)
    truth = performance(shop, labels, answers, seed=0, n=1)["accuracy"][0]
    assert not expected["accuracy"][1] <= truth <= expected["accuracy"][2]


def test_many_rows_are_estimated_from_a_sample(shop):
    """More rows than are drawn give the same estimate with a narrower interval."""
    answers, _ = answered(40_000, seed=0)
    wide, narrow = (
        estimate_performance(shop, answers[:n], seed=0, n=60)["accuracy"] for n in (5_000, 40_000)
    )
    assert wide[0] == pytest.approx(narrow[0], abs=0.01)
    assert (narrow[2] - narrow[1]) < 0.6 * (wide[2] - wide[1])


def test_a_group_that_is_served_worse_is_named(shop):
    """A group whose labels were shuffled lies behind for certain; a small one isn't judged."""
    answers, labels = answered(1200, seed=0)
    colour = np.array(["red"] * 590 + ["blue"] * 590 + ["green"] * 20)
    blue = colour == "blue"
    labels[blue] = np.random.default_rng(1).permutation(labels[blue])
    table = group_performance(
        pd.DataFrame({"colour": colour}), shop, answers, labels, seed=0
    ).set_index("group")
    assert (table.loc["blue", "gap_low"] > 0.05, table.loc["red", "gap_high"] < 0) == (True, True)
    assert table["judged"].to_dict() == {"red": True, "blue": True, "green": False}
    assert np.isnan(table.loc["green", "gap"])


def test_groups_have_a_rate_before_any_label(shop):
    """Without labels each group has its rate of positive decisions with an interval, and no gap."""
    answers, _ = answered(300, seed=0)
    frame = pd.DataFrame({"colour": ["red", "blue", None] * 100})
    table = group_performance(frame, shop, answers, seed=0).set_index("group")
    assert table.loc["red", "rate"] == pytest.approx((answers[::3, 1] > 0.2).mean())
    assert (table["rate_low"] < table["rate"]).all()
    assert not table["judged"].any()
    assert wilson(0, 10)[1] == 0 < wilson(0, 10)[2] < 0.35


def gaps(generator, n, noise, other_noise):
    """Loss of one model minus another's, row by row: the same log odds, noisier or less so."""
    odds = generator.normal(size=n) * 1.5
    sign = np.where(generator.random(n) < 1 / (1 + np.exp(-odds)), -1, 1)
    one, other = (odds + generator.normal(size=n) * scale for scale in (noise, other_noise))
    return np.logaddexp(0, sign * one) - np.logaddexp(0, sign * other)


def test_looking_at_every_window_rolls_back_no_equal_model():
    """In 300 runs of 52 windows 2.5 % ever look certainly worse; window by window, half."""
    generator, ever, naive = np.random.default_rng(0), 0, 0
    for _ in range(300):
        windows = [moments(values) for values in gaps(generator, 5200, 0.4, 0.4).reshape(52, 100)]
        lows = [confidence_sequence(windows[: k + 1]).low for k in range(52)]
        ever += max(lows) > 0
        naive += any(w.mean > 1.96 * (w.variance / w.rows) ** 0.5 for w in windows)
    assert ever / 300 <= 0.025 + 3 * (0.025 * 0.975 / 300) ** 0.5
    assert naive / 300 > 0.5


def test_a_worse_model_is_found_in_time():
    """A model with twice the noise in its log odds is certainly worse within 20 windows, mostly."""
    generator, found = np.random.default_rng(0), 0
    for _ in range(100):
        windows = [moments(values) for values in gaps(generator, 2000, 0.8, 0.4).reshape(20, 100)]
        found += any(confidence_sequence(windows[: k + 1]).low > 0 for k in range(20))
    assert found / 100 > 0.8


def test_pooled_windows_are_one_sample():
    """Moments of windows, put together, are those of all rows; dependence lessens their number."""
    values = np.random.default_rng(0).normal(size=600)
    parts = [moments(part) for part in (values[:100], values[100:350], values[350:])]
    assert pool(parts)[:3] == pytest.approx(moments(values)[:3])
    whole, once = moments(values), confidence_sequence([moments(values)])
    wider = confidence_sequence([whole._replace(inflation=4.0)])
    assert once.value == wider.value
    assert wider.high - wider.value == pytest.approx(2 * (once.high - once.value))
    assert confidence_sequence([moments([1.0])]) == (1.0, -np.inf, np.inf)


POLICY = Policy(min_rows=50, patience=2, cool_down_hours=24.0)
MIXES = list(
    itertools.product(
        (0, 1, 5),  # alarms before
        (None, NOW - 30 * HOUR, NOW - HOUR, NOW + HOUR),  # acted
        (49, 50),  # rows
        ((), ("x",)),  # broken
        ((), ("colour",)),  # drifted
        (None, WORSE, SAME, BETTER),  # loss change
        (None, WORSE, SAME, BETTER),  # versus the predecessor
    )
)


def test_the_policy_over_every_mix():
    """Each of 1,536 mixes of state and signals leads to the action that the rules name."""
    for alarms, acted, rows, broken, drifted, change, versus in MIXES:
        signals = Signals(rows, broken, drifted, change, versus)
        state, decision = judge(State(alarms, acted), signals, POLICY, NOW)
        alarm, resting = (
            bool(drifted) or change == WORSE,
            acted is not None and acted > NOW - 24 * HOUR,
        )
        if versus == WORSE:
            expected, after = "roll back", State(0, NOW)
        elif broken or rows < 50:
            expected, after = "watch", State(alarms, acted)
        elif not alarm:
            expected, after = "nothing", State(0, acted)
        elif alarms + 1 < 2 or resting or change is None:
            expected, after = "watch", State(alarms + 1, acted)
        else:
            expected, after = "retrain", State(0, NOW)
        if acted == NOW + HOUR and expected not in ("roll back", "retrain"):
            after = after._replace(acted=NOW)  # the clock was put back
        assert (decision.action, state) == (expected, after), (alarms, acted, signals)
        assert decision.reasons
        assert all(decision.reasons)


@pytest.mark.parametrize(("patience", "calls"), [(1, 1), (2, 2), (4, 4)])
def test_patience_counts_windows_in_a_row(patience, calls):
    """Retraining comes with the stated number of alarms in a row; a calm window resets it."""
    policy, state, taken = Policy(patience=patience, cool_down_hours=0), State(), []
    alarm, calm = Signals(500, (), ("x",), SAME), Signals(500, (), (), SAME)
    for signals in [alarm] * (patience - 1) + [calm] + [alarm] * calls:
        state, decision = judge(state, signals, policy, NOW)
        taken.append(decision.action)
    assert taken.count("retrain") == 1
    assert taken[-1] == "retrain"


def test_a_clock_put_back_prolongs_the_pause_by_one_pause_at_most():
    """After a jump years ahead and back, the pause lasts one pause from then on, not years."""
    alarm, state = Signals(500, (), ("x",), WORSE), State(5, NOW + 10 * 365 * 24 * HOUR)
    state, decision = judge(state, alarm, POLICY, NOW)
    assert (decision.action, state.acted) == ("watch", NOW)
    assert judge(state, alarm, POLICY, NOW + 23.9 * HOUR)[1].action == "watch"
    assert judge(state, alarm, POLICY, NOW + 24 * HOUR)[1].action == "retrain"


def test_a_case_without_a_policy_has_one(make_case):
    """[policy] may be left out, and then its defaults hold."""
    assert load_case(make_case()).policy == Policy()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patience": 0}, ["policy.patience", "got 0", "greater than or equal to 1"]),
        ({"min_rows": 5}, ["policy.min_rows", "got 5", "30"]),
        ({"cool_down_hours": -1.0}, ["policy.cool_down_hours", "got -1.0"]),
        ({"level": 1.5}, ["policy.level", "got 1.5"]),
        ({"patients": 2}, ["policy.patients", "no key of that name"]),
        ({"min_labels": "many"}, ["policy.min_labels", "'many'"]),
    ],
)
def test_a_wrong_policy_is_named(make_case, change, words):
    """A wrong key of [policy] is an error with the file, the key, what was got and expected."""
    with pytest.raises(CaseError) as error:
        load_case(make_case(policy=change))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "name", ["credit", "credit_tiers", "heart", "process_faults", "retail", "traffic"]
)
def test_every_shipped_case_states_its_policy(name):
    """The six cases say in case.toml when to act."""
    assert "policy" in load_case(name).model_fields_set


def test_numbers_against_words_are_compared_as_words():
    """Where one sample holds numbers and the other words, both are counted as text."""
    counts = bin_counts([1.0, 2.0, np.nan], ["1.0", "b", None])
    assert [part.tolist() for part in counts] == [[1, 1, 1, 0], [1, 1, 0, 1]]


def test_a_number_is_labelled_by_a_number(make_case):
    """For regression a label is any finite number, and nothing else."""
    case = load_case(make_case(task="regression", target={"classes": []}, charter={"criteria": {}}))
    assert _parse_label("3.5", case.classes) == 3.5
    assert [_parse_label(text, case.classes) for text in ("much", "inf")] == [None, None]


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    """A file that is no journal is an error that names it."""
    (tmp_path / "monitoring").mkdir()
    (tmp_path / "monitoring" / "journal.sqlite").write_text(
        "no journal, and long enough to be read as one " * 30
    )
    with pytest.raises(RunError, match=r"journal\.sqlite"):
        Journal(tmp_path)
