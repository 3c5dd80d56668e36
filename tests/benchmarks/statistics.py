"""Stated level beside measured level of every interval, test and decision, simulated.

A rate of n runs has a standard error of sqrt(p (1 - p) / n): with 1,000 runs 0.5 points at 2.5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from lepton_lib import monitoring
from lepton_lib.calibration import conformal_margin
from lepton_lib.evaluation import fit_temperature, paired_difference
from lepton_lib.explanation import shapley_values
from lepton_lib.intervals import auc_interval, bootstrap_interval, calibration_interval
from lepton_lib.metrics import calibration_bins, log_loss
from tests.benchmarks.timing import Row

Draw = Callable[[np.random.Generator], bool]


def rows() -> list[Row]:
    """What is promised, how often it happened, and the promise."""
    result: list[Row] = []
    for what, stated, n, draw in _rates():
        generator = np.random.default_rng(0)
        rate = sum(draw(generator) for _ in range(n)) / n
        result.append((f"{what} ({n} runs)", f"{rate:.1%}", stated))
    result.append(_shapley())
    return result


def _rates() -> Iterator[tuple[str, str, int, Draw]]:
    for n, positives in ((91, 41), (75, 15), (1000, 20)):
        what = f"AUC, {n} rows, {positives} positives: truth below the interval's lower end"
        yield f"{what}, DeLong", "2.5 %", 3000, _auc_below(n, positives)
    yield (
        "the same, 75 rows, 15 positives, percentile bootstrap",
        "2.5 %",
        300,
        _auc_below(75, 15, bootstrap=True),
    )
    yield "mean of 100 rows, bootstrap: interval holds the truth", "95 %", 500, _mean
    yield "mean of a dependent series in blocks: holds the truth", "95 %", 300, _block_mean
    yield "log loss of a against b, paired: equal models differ certainly", "5 %", 300, _paired
    for n in (120, 400):
        what = f"calibration error of {n} calibrated rows: interval holds the truth"
        yield what, ">= 95 %", 500, _calibration(n, 1.0)
    yield "the same, 400 rows twice too sure", ">= 95 %", 500, _calibration(400, 2.0)
    yield "temperature of 200 calibrated rows is not 1", "5 %", 1000, _temperature
    yield "change of a mean, independent rows: certainly higher", "2.5 %", 3000, _change(1, 1)
    yield "the same, dependent rows in blocks", "2.5 %", 1000, _change(24, 168)
    yield "the same, dependent rows taken for independent", "2.5 %", 1000, _change(24, 1)
    yield "an equal predecessor: rolled back within 12 windows", "2.5 %", 1000, _roll_back(12, 0.4)
    yield "the same within 52 windows", "2.5 %", 1000, _roll_back(52, 0.4)
    yield (
        "a model with twice the noise: rolled back within 12 windows",
        "",
        500,
        _roll_back(12, 0.8),
    )
    yield "estimate before labels: interval holds the later accuracy", "95 %", 300, _estimate
    yield "Wilson's interval of a share of 5 % in 60 rows holds it", "95 %", 3000, _wilson
    for alone, taken in ((False, "clusters"), (True, "independent rows")):
        what = f"AUC of 40 clusters of 8 rows, as {taken}: truth below the lower end"
        yield what, "2.5 %", 1000, _clustered_auc(alone=alone)
    yield "mean of 40 clusters of 8 rows, bootstrap: holds the truth", "95 %", 400, _clustered_mean
    yield "gain over the better of two equal baselines: certainly above 0", "2.5 %", 1000, _gain
    for n in (50, 500):
        what = f"conformal margin of {n} rows: a new target lies within"
        yield what, "90 %", 5000, _conformal(n)
    yield "Kolmogorov-Smirnov at 5 %, 300 and 60 rows: rejects", "5 %", 1000, _kolmogorov_smirnov
    yield "chi-square at 5 %, sparse table: rejects", "5 %", 500, _chi_square
    yield "Holm over 20 tests: any false alarm", "5 %", 300, _holm


def _two(positive: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - positive, positive])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _auc_below(n: int, positives: int, *, bootstrap: bool = False) -> Draw:
    from scipy.stats import norm

    from lepton_lib.metrics import area_under_curve

    labels, truth = (np.arange(n) < positives).astype(int), norm.cdf(1.5 / 2**0.5)

    def draw(generator: np.random.Generator) -> bool:
        scores = generator.normal(size=n) + 1.5 * labels
        if not bootstrap:
            return bool(truth < auc_interval(labels, scores).low)
        options = {"stratify": labels, "n": 300, "seed": int(generator.integers(2**31))}
        return bool(truth < bootstrap_interval(area_under_curve, labels, scores, **options).low)

    return draw


def _mean(generator: np.random.Generator) -> bool:
    sample = generator.normal(2.0, size=100)
    interval = bootstrap_interval(np.mean, sample, n=300, seed=int(generator.integers(2**31)))
    return interval.low <= 2.0 <= interval.high


def _clustered(generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Labels, scores and cluster of 320 rows: a cluster shares its label and most of its score."""
    cluster = np.repeat(np.arange(40), 8)
    labels = np.arange(40) % 2
    scores = 1.5 * labels + 0.9 * generator.normal(size=40)
    noise = 0.19**0.5 * generator.normal(size=320)
    return labels[cluster], scores[cluster] + noise, cluster


def _clustered_auc(*, alone: bool) -> Draw:
    from scipy.stats import norm

    def draw(generator: np.random.Generator) -> bool:
        labels, scores, cluster = _clustered(generator)
        found = auc_interval(labels, scores, clusters=None if alone else cluster)
        return bool(norm.cdf(1.5 / 2**0.5) < found.low)

    return draw


def _clustered_mean(generator: np.random.Generator) -> bool:
    labels, scores, cluster = _clustered(generator)
    seed = int(generator.integers(2**31))
    interval = bootstrap_interval(
        np.mean, scores - 1.5 * labels, n=300, seed=seed, clusters=cluster
    )
    return interval.low <= 0.0 <= interval.high


def _gain(generator: np.random.Generator) -> bool:
    from lepton_lib.cases import load_case
    from lepton_lib.evaluation import baseline_gain

    labels, (odds, *others) = _models(generator, 200, 0.4, 0.4, 0.4)
    answers = {f"baseline {k}": _two(_sigmoid(other)) for k, other in enumerate(others)}
    return baseline_gain(load_case("heart"), labels, _two(_sigmoid(odds)), answers, seed=0).low > 0


def _conformal(n: int) -> Draw:
    def draw(generator: np.random.Generator) -> bool:
        errors = generator.standard_t(3, size=n + 1)
        return bool(abs(errors[-1]) <= conformal_margin(errors[:-1], np.zeros(n)))

    return draw


def _series(generator: np.random.Generator, n: int, memory: int) -> np.ndarray:
    noise = np.cumsum(np.concatenate([[0.0], generator.normal(size=n + memory - 1)]))
    return noise[memory:] - noise[:-memory]


def _block_mean(generator: np.random.Generator) -> bool:
    series = _series(generator, 3000, 24)
    options = {"n": 200, "seed": int(generator.integers(2**31)), "block": 168}
    interval = bootstrap_interval(np.mean, series, **options)
    return interval.low <= 0 <= interval.high


def _models(
    generator: np.random.Generator, n: int, *noise: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels, and for each noise a model's log odds ``(n,)``."""
    odds = generator.normal(size=n) * 1.5
    labels = (generator.random(n) < _sigmoid(odds)).astype(int)
    return labels, [odds + scale * generator.normal(size=n) for scale in noise]


def _paired(generator: np.random.Generator) -> bool:
    labels, odds = _models(generator, 400, 0.4, 0.4)
    a, b = (_two(_sigmoid(each)) for each in odds)
    options = {"n": 200, "seed": int(generator.integers(2**31))}
    interval = paired_difference(log_loss, labels, a, b, **options)
    return not interval.low <= 0 <= interval.high


def _calibration(n: int, sharpening: float) -> Draw:
    def draw(generator: np.random.Generator) -> bool:
        labels, (odds,) = _models(generator, n, 0.0)
        stated = _two(_sigmoid(sharpening * odds))
        bins, said, _ = calibration_bins(labels, stated)
        truth = np.abs(np.bincount(bins, _sigmoid(odds) - said)).sum() / n
        seed = int(generator.integers(2**31))
        interval = calibration_interval(labels, stated, n=200, seed=seed)
        return bool(interval.low <= truth + 1e-12 and truth <= interval.high)

    return draw


def _temperature(generator: np.random.Generator) -> bool:
    labels, (odds,) = _models(generator, 200, 0.0)
    return fit_temperature(odds, labels) != 1.0


def _change(memory: int, block: int) -> Draw:
    def draw(generator: np.random.Generator) -> bool:
        series = _series(generator, 5168, memory)
        return monitoring.change_in_mean(series[:5000], series[5000:], block=block).low > 0

    return draw


def _roll_back(n_windows: int, noise: float) -> Draw:
    def draw(generator: np.random.Generator) -> bool:
        labels, (current, previous) = _models(generator, 100 * n_windows, noise, 0.4)
        sign = np.where(labels == 1, -1, 1)
        gap = np.logaddexp(0, sign * current) - np.logaddexp(0, sign * previous)
        windows = [monitoring.moments(part) for part in gap.reshape(n_windows, 100)]
        return any(
            monitoring.confidence_sequence(windows[: k + 1]).low > 0 for k in range(n_windows)
        )

    return draw


def _estimate(generator: np.random.Generator) -> bool:
    from lepton_lib.cases import load_case

    labels, (odds,) = _models(generator, 300, 0.0)
    outputs, seed = _two(_sigmoid(odds)), int(generator.integers(2**31))
    found = monitoring.estimate_performance(load_case("heart"), outputs, seed=seed, n=100)
    _, low, high = found["accuracy"]
    return bool(low <= ((odds > 0) == labels).mean() <= high)


def _wilson(generator: np.random.Generator) -> bool:
    from lepton_lib.intervals import wilson

    interval = wilson(int(generator.binomial(60, 0.05)), 60)
    return interval.low <= 0.05 <= interval.high


def _kolmogorov_smirnov(generator: np.random.Generator) -> bool:
    pair = generator.normal(size=300), generator.normal(size=60)
    return monitoring.kolmogorov_smirnov(*pair)[1] <= 0.05


def _chi_square(generator: np.random.Generator) -> bool:
    counts = generator.multinomial([300, 60], [0.6, 0.37, 0.03])
    return monitoring.chi_square(*counts)[1] <= 0.05


def _holm(generator: np.random.Generator) -> bool:
    pairs = ((generator.normal(size=300), generator.normal(size=60)) for _ in range(20))
    p_values = [monitoring.kolmogorov_smirnov(*pair)[1] for pair in pairs]
    return bool(monitoring.holm(p_values).min() <= 0.05)


def _shapley() -> Row:
    generator = np.random.default_rng(0)
    one, background = generator.normal(size=(1, 4)), generator.normal(size=(40, 4))

    def predict(x: np.ndarray) -> np.ndarray:
        return _sigmoid(x[:, 0] * x[:, 1] + np.maximum(x[:, 2], 0) - x[:, 3])

    runs = [shapley_values(predict, one, background, rounds=2, seed=seed) for seed in range(300)]
    spread = np.std([run.contributions for run in runs], axis=0, ddof=1)
    stated = np.mean([run.errors**2 for run in runs], axis=0) ** 0.5
    ratio = float(np.mean(stated / spread))
    return "Shapley values: stated standard error to their spread (300 runs)", f"{ratio:.2f}", "1"
