"""The answers of the notebooks 00 to 05."""

import hashlib
import json

import numpy as np
import pandas as pd
import scipy.stats
import sklearn.metrics
import torch

from tests.answers import derives, right_options

right_options(
    q00_q1="the splits",
    q00_q2="no reminder has been sent",
    q00_q3="02 and all after it",
    q01_q1="drawn at random",
    q01_q2="weights of opposite sign",
    q02_q2="low or high",
    q02_q1="measured with dropout on",
    q03_q1="The log loss, and which rows lie above a threshold of one sixth",
    q03_q2="picked it as the worst",
    q03_q3="most of it cancels",
    q04_q1="Ask for the weights as `safetensors`",
    q04_q2="keeps running",
    q05_q1="chance alone",
    q05_q2="what it said before, and the loss is higher",
)


@derives("00.1")
def _(task):
    bad, good = task.names["bad_scores"], task.names["good_scores"]
    return sklearn.metrics.roc_auc_score([1] * len(bad) + [0] * len(good), bad + good)


@derives("00.2")
def _(n_rows, n_epochs, seed):
    random = np.random.Generator(np.random.PCG64(seed))
    orders = [np.arange(n_rows) for _ in range(n_epochs)]
    for order in orders:
        random.shuffle(order)
    return orders


@derives("00.3")
def _(measured, criteria):
    def is_met(name):
        sign = {"at least": 1, "at most": -1}[criteria[name][0]]
        return name in measured and sign * (measured[name] - criteria[name][1]) >= 0

    return [name for name in criteria if not is_met(name)]


@derives("00.4")
def _(task):
    return "hold", task.letter("who agreed on it can move it")


@derives("01.1")
def _(_):
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.random((400_000, 10)))
    return len(table[table > 1 / 20].dropna()) / len(table)


@derives("01.2")
def _(owners, training, held_out):
    pairs = [(owners[a], owners[b]) for a in training for b in held_out]
    return sorted({a for a, b in pairs if a == b})


@derives("01.3")
def _(training, new):
    middle = pd.Series(training).median()
    return pd.Series(new).fillna(middle).tolist(), pd.Series(new).isna().tolist()


@derives("01.4")
def _(_):
    table = pd.DataFrame({"group": ["alone"] + ["x"] * 8, "bad": [1, 1, 1] + [0] * 6})
    shares = table.groupby("group").bad.mean()
    others = table.iloc[1:]
    crossed = others.groupby("group").bad.mean().get("alone", others.bad.mean())
    return shares["alone"], crossed


@derives("01.5")
def _(task):
    """Asked of each: is it known for a new row, and is it made of training rows alone?"""
    known = {
        "debt": ("that the applicant states", True, True),
        "street": ("over all rows", True, False),
        "calls": ("debt collectors have called", False, True),
        "copies": ("rows are split after that", True, False),
    }
    for name, (words, *_) in known.items():
        assert f"`{name}`" in next(line for line in task.text.splitlines() if words in line)
    verdicts = {(True, True): "use", (True, False): "fix"}
    return {name: verdicts.get((day, rows), "refuse") for name, (_, day, rows) in known.items()}


@derives("02.1")
def _(X, y, w):
    w = w.clone().requires_grad_()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(X @ w, y)
    return torch.autograd.grad(loss, w)[0]


@derives("02.5")
def _(_):
    return torch.nn.CrossEntropyLoss()(torch.zeros(6, 3), torch.arange(6) % 3).item()


@derives("02.6")
def _(model, optimizer, data_loader):
    """Descend by hand, and take the mean over all rows in the end."""
    losses = []
    for inputs, labels in data_loader:
        surprise = -model(inputs).log_softmax(1)[range(len(labels)), labels]
        slopes = torch.autograd.grad(surprise.mean(), list(model.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(model.parameters(), slopes, strict=True):
                parameter.sub_(optimizer.param_groups[0]["lr"] * slope)
        losses += surprise.tolist()
    return np.mean(losses)


@derives("02.2")
def _(task):
    losses = pd.Series(task.names["validation_losses"], index=range(1, 11))
    since_best = [epoch - losses[:epoch].idxmin() for epoch in losses.index]
    n_epochs = 1 + since_best.index(3)
    return n_epochs, losses[:n_epochs].idxmin()


@derives("02.3")
def _(task):
    """The share of each bin that lies below the value, by counting a fine grid."""
    assert "$b = (0, 2, 5, 10)$" in task.text
    assert "$x = 3$" in task.text
    grid = np.linspace(0, 10, 1_000_001)
    return [
        np.mean(grid[(low < grid) & (grid < high)] < 3) for low, high in ((0, 2), (2, 5), (5, 10))
    ]


@derives("02.4")
def _(task):
    a, b = (task.names[name] for name in ("loss_a", "loss_b"))
    assert scipy.stats.ttest_rel(a, b).pvalue < 0.01
    return "b" if np.mean(b) < np.mean(a) else "a", task.letter("many of its standard errors")


@derives("03.1")
def _(_):
    """The widths of many bootstrap intervals of a mean."""
    random = np.random.default_rng(0)

    def width(n, resamples):
        values = random.normal(size=(300, n))
        draws = [random.choice(row, (resamples, n)).mean(axis=1) for row in values]
        return np.mean(np.diff(np.quantile(draws, [0.025, 0.975], axis=1), axis=0))

    ours = width(50, 400)
    return width(200, 400) / ours, width(50, 1600) / ours


@derives("03.2")
def _(task):
    hits = 1000 * task.names["recall"]
    false_alarms = (
        1000 * task.names["negatives_beside_each_positive"] * task.names["false_alarm_rate"]
    )
    y = [1] * int(hits) + [0] * round(false_alarms)
    return sklearn.metrics.precision_score(y, np.ones(len(y)))


@derives("03.3")
def _(probabilities, costs):
    def expected(row, decision):
        return sum(row[truth] * costs[truth][decision] for truth in range(len(row)))

    decisions = range(np.shape(costs)[1])
    return [min(decisions, key=lambda d, row=row: expected(row, d)) for row in probabilities]


@derives("03.4")
def _(validation_losses, test_losses):
    _, best, honest = min(zip(validation_losses, range(99), test_losses, strict=False))
    return best, honest


@derives("03.5")
def _(task):
    bound, auc = task.names["asked_for"], task.names["measured_auc"]
    assert auc["low"] < bound < auc["high"]
    return "closed", task.letter("don't show that the model is good enough")


@derives("04.1")
def _(contents, hashes):
    here = {(name, hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    return sorted(name for name, _ in set(hashes.items()) - here)


@derives("04.2")
def _(task):
    here, there = (
        scipy.stats.norm(task.names[f"{office}_mean"], task.names[f"{office}_sd"])
        for office in ("branch", "training")
    )
    return there.ppf(here.cdf(task.names["age"]))


@derives("04.3")
def _(value, low, high):
    """JSON writes a number with digits; no other value begins so."""
    text = json.dumps(value)
    return text.lstrip("-")[0].isdigit() and min(max(value, low), high) == value


@derives("04.4")
def _(task):
    return "refusal", task.letter("that no one can trace")


@derives("04.5")
def _(task):
    assert "fifty applicants" in task.text
    assert "99th percentile" in task.text
    return scipy.stats.binom(50, 0.01).sf(0)


@derives("05.1")
def _(predictions, labels):
    known = dict(labels)
    target = [float(known.get(key, np.nan)) for key in predictions.index]
    return pd.concat([predictions, pd.Series(target, predictions.index, name="target")], axis=1)


@derives("05.2")
def _(reference, current):
    edges = [-np.inf, *np.percentile(reference, range(10, 100, 10)), np.inf]
    p, q = (np.histogram(one, edges)[0] + 0.5 for one in (reference, current))
    p, q = p / p.sum(), q / q.sum()
    return scipy.stats.entropy(p, q) + scipy.stats.entropy(q, p)


@derives("05.3")
def _(_):
    incomes = np.random.default_rng(0).lognormal(7, 0.5, 100_000)
    moved = np.where(incomes > np.quantile(incomes, 0.9), 100 * incomes, incomes)
    edges = [-np.inf, *np.percentile(incomes, range(10, 100, 10)), np.inf]
    shares = [np.histogram(one, edges)[0] for one in (incomes, moved)]
    psi = np.sum((shares[1] - shares[0]) / len(incomes) * np.log(shares[1] / shares[0]))
    return psi, scipy.stats.ks_2samp(incomes, moved).statistic


@derives("05.4")
def _(p_values):
    """The least level at which the step-down test of Holm rejects each hypothesis."""
    m = len(p_values)
    smallest_first = sorted(p_values)
    paid = [(m - k) * p for k, p in enumerate(smallest_first)]
    return [min(1, max(paid[: smallest_first.index(p) + 1])) for p in p_values]


@derives("05.5")
def _(task):
    """By the signs of the intervals' ends."""
    better, not_better = "certainly better on the new rows, and", "not certainly better on the new"
    worse = "certainly worse on rows that the champion handled well"
    verdicts = {}
    for name, trial in task.names["trials"].items():
        if trial["new rows"][1] <= 0:
            verdicts[name] = ("keep", task.letter(not_better))
        elif trial["validation"][2] < 0:
            verdicts[name] = ("keep", task.letter(worse))
        else:
            verdicts[name] = ("promote", task.letter(better))
    return verdicts
