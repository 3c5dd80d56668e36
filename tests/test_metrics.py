"""Metrics: exact where a definition is, loud where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from lepton_lib.errors import MetricError
from lepton_lib.metrics import (
    AUC,
    accuracy,
    area_under_curve,
    average_precision,
    brier_score,
    calibration_error,
    confusion_matrix,
    log_loss,
    mean_absolute_error,
    mean_decision_cost,
    reliability,
)


def draw(seed, n=400, k=2):
    """Labels of ``k`` classes and probabilities that know something of them."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), generator.integers(k, size=n - k)])
    logits = generator.normal(size=(n, k)) + 1.2 * np.eye(k)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("levels", [1, 2, 7, 10_000])
@pytest.mark.parametrize("share", [0.003, 0.3, 0.97])
def test_area_agrees_with_scikit_learn(levels, share):
    """The area agrees with scikit-learn to 1e-12, with no ties, heavy ties and nothing but ties."""
    generator = np.random.default_rng(levels)
    labels = (generator.random(5000) < share).astype(int)
    scores = generator.integers(levels, size=5000) + 0.3 * levels * labels * generator.integers(
        2, size=5000
    )
    assert abs(area_under_curve(labels, scores) - sklearn.roc_auc_score(labels, scores)) < 1e-12


def test_area_by_hand():
    """Two positives against two negatives, one tie: three and a half pairs of four."""
    assert area_under_curve([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]) == 3.5 / 4


def test_infinite_scores_are_ranked():
    """Infinite scores rank above and below all others."""
    assert area_under_curve([0, 1, 1], [-np.inf, 3.0, np.inf]) == 1


def test_pooled_over_ordered_batches():
    """On sorted data, batches say far less than all rows together; average() uses all rows."""
    labels, probabilities = draw(0, n=2000)
    order = probabilities[:, 1].argsort()
    auc, means = AUC(), []
    for rows in np.split(order, 10):
        auc.add(probabilities[rows, 1], labels[rows])
        means.append(area_under_curve(labels[rows], probabilities[rows, 1]))
    whole = sklearn.roc_auc_score(labels, probabilities[:, 1])
    assert abs(auc.average() - whole) < 1e-12
    assert np.mean(means) < whole - 0.1


@pytest.mark.parametrize("batch", [1, 7, 400])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_logits_in_batches(k, batch):
    """Logits in batches of any size give the area of their probabilities."""
    labels, probabilities = draw(k, k=k)
    logits = torch.tensor(np.log(probabilities) + 3)
    auc = AUC()
    for rows in torch.arange(400).split(batch):
        auc.add(logits[rows], torch.tensor(labels)[rows])
    if k == 2:
        expected = sklearn.roc_auc_score(labels, probabilities[:, 1])
    else:
        expected = sklearn.roc_auc_score(labels, probabilities, multi_class="ovr")
    assert abs(auc.average() - expected) < 1e-12
    assert len(auc.per_class()) == (1 if k == 2 else k)


@pytest.mark.parametrize("k", [2, 3])
def test_probabilities_are_taken_as_they_are(k):
    """Columns that already are probabilities aren't turned into probabilities again."""
    labels, probabilities = draw(k, k=k)
    auc = AUC()
    auc.add(probabilities, labels)
    areas = [sklearn.roc_auc_score(labels == c, probabilities[:, c]) for c in range(k)]
    assert auc.per_class() == pytest.approx(areas[1:] if k == 2 else areas, abs=1e-12)


def test_confident_logits_keep_their_order():
    """Logits so large that their probabilities round to one are still ranked."""
    auc = AUC()
    auc.add(torch.tensor([[0.0, 50.0], [0.0, 60.0]]), torch.tensor([0, 1]))
    assert auc.average() == 1


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_score_a_row(shape):
    """Scores of the positive class may be a vector or one column, with gradients or without."""
    labels, probabilities = draw(1)
    auc = AUC()
    auc.add(
        torch.tensor(probabilities[:, 1], requires_grad=True).reshape(shape), torch.tensor(labels)
    )
    assert auc.average() == pytest.approx(
        sklearn.roc_auc_score(labels, probabilities[:, 1]), abs=1e-12
    )


def test_single_class_batches_may_be_added():
    """Batches of one class each are fine, as long as all rows together hold both."""
    auc = AUC()
    auc.add([0.2, 0.4], [0, 0])
    auc.add([0.3, 0.9], [1, 1])
    assert auc.average() == 0.75


def test_one_class_overall_raises_with_the_counts():
    """One class in all rows has no area; the error says how many rows each class has."""
    auc = AUC()
    auc.add([0.2, 0.4, 0.6], [1, 1, 1])
    with pytest.raises(MetricError, match="3 positive and 0 negative"):
        auc.average()
    several = AUC()
    several.add(np.eye(3)[[0, 1, 1]], [0, 1, 1])
    with pytest.raises(MetricError, match=r"\[1, 2, 0\] examples by class"):
        several.average()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_nan_scores_raise(k):
    """A NaN among the scores is an error and never a rank."""
    outputs = np.zeros((6, k))
    outputs[4, 0] = np.nan
    auc = AUC()
    auc.add(outputs, [0, 1, 2, 0, 1, 2] if k == 3 else [0, 1] * 3)
    with pytest.raises(MetricError, match="NaN"):
        auc.average()


@pytest.mark.parametrize(
    ("labels", "scores", "got"),
    [
        ([0, 1, 1], [0.1, 0.2], "3 labels and 2 scores"),
        ([0, 2], [0.1, 0.2], "labels other than 0 and 1"),
        ([-1, 1], [0.1, 0.2], "labels other than 0 and 1"),
        ([], [], "0 positive and 0 negative"),
    ],
)
def test_area_refuses(labels, scores, got):
    """Lengths that differ, foreign labels and no rows at all are refused."""
    with pytest.raises(MetricError, match=got):
        area_under_curve(labels, scores)


@pytest.mark.parametrize("wrong", [-1, 3, 0.5])
def test_several_classes_refuse_foreign_labels(wrong):
    """With several classes a label that is no class index is refused, too."""
    auc = AUC()
    auc.add(np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, wrong])
    with pytest.raises(MetricError, match="no class index"):
        auc.average()


@pytest.mark.parametrize("outputs", [np.zeros((2, 3)), np.zeros((4, 3, 1)), np.zeros(())])
def test_add_refuses_other_shapes(outputs):
    """Outputs that don't fit the labels are refused, an ensemble's training outputs among them."""
    with pytest.raises((MetricError), match=r"AUC\.add: got outputs of shape"):
        AUC().add(np.atleast_1d(outputs) if outputs.ndim else np.zeros((1, 1, 1)), [0, 1, 0])


def test_nothing_added_has_no_average():
    """Before anything was added there is no average."""
    with pytest.raises(MetricError, match="no batch"):
        AUC().average()


@pytest.mark.parametrize("k", [2, 4])
def test_losses_agree_with_scikit_learn(k):
    """Log loss, Brier score, accuracy and average precision agree with scikit-learn's."""
    labels, probabilities = draw(3, k=k)
    probabilities[0] = np.eye(k)[1]  # certain, and wrong: the label is 0
    assert log_loss(labels, probabilities) == pytest.approx(
        sklearn.log_loss(labels, probabilities), rel=1e-12
    )
    squares = ((probabilities - np.eye(k)[labels]) ** 2).sum(1).mean()
    assert brier_score(torch.tensor(labels), torch.tensor(probabilities)) == pytest.approx(squares)
    assert accuracy(labels, probabilities) == sklearn.accuracy_score(
        labels, probabilities.argmax(1)
    )
    if k == 2:
        expected = sklearn.average_precision_score(labels, probabilities[:, 1])
        assert average_precision(labels, torch.tensor(probabilities[:, 1])) == pytest.approx(
            expected
        )


def test_calibration_error_by_hand():
    """Two bins of two rows: said 0.2 and happened 0.5, said 0.8 and happened 1: 0.25 apart."""
    positive = np.array([0.1, 0.3, 0.7, 0.9])
    probabilities = np.column_stack([1 - positive, positive])
    for bins in ("width", "mass"):
        assert calibration_error([0, 1, 1, 1], probabilities, n_bins=2, bins=bins) == pytest.approx(
            0.25
        )


def test_calibration_of_several_classes_by_hand():
    """With three classes the top probability is held against being right."""
    probabilities = [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2]]
    assert calibration_error([0, 2], probabilities, n_bins=10, bins="width") == pytest.approx(0.1)


def test_a_perfect_forecast_is_calibrated():
    """Certain and right predictions have no calibration error, even in the last equal-width bin."""
    assert calibration_error([0, 1], np.eye(2), bins="width") == 0


def test_reliability_bins():
    """Bins of equal width, bins of equal mass, and empty ones left out."""
    labels, probabilities = draw(5)
    stated, happened, counts = reliability(labels, probabilities, bins="mass", n_bins=8)
    assert counts.tolist() == [50] * 8
    assert (np.diff(stated) > 0).all()
    assert (counts * happened).sum() == pytest.approx(labels.sum())
    tied = np.full((10, 2), 0.5)
    assert [part.tolist() for part in reliability([0, 1] * 5, tied)] == [[0.5], [0.5], [10]]
    stated, _, counts = reliability(labels, probabilities, bins="width", n_bins=5)
    assert (
        counts.tolist() == np.histogram(probabilities[:, 1], bins=np.linspace(0, 1, 6))[0].tolist()
    )


@pytest.mark.parametrize("metric", [log_loss, brier_score, accuracy, calibration_error])
@pytest.mark.parametrize(
    ("labels", "probabilities", "got"),
    [
        ([0, 1], np.full((3, 2), 0.5), r"\(2,\) and probabilities of shape \(3, 2\)"),
        ([0, 1], np.full(2, 0.5), r"probabilities of shape \(2,\)"),
        ([0, 1], np.full((2, 1), 0.5), r"probabilities of shape \(2, 1\)"),
        ([], np.zeros((0, 2)), r"labels of shape \(0,\)"),
        ([[0], [1]], np.full((2, 2), 0.5), r"labels of shape \(2, 1\)"),
        ([0, 2], np.full((2, 2), 0.5), "no class index"),
        ([0, -1], np.full((2, 2), 0.5), "no class index"),
        ([0, 1], np.array([[0.5, 0.5], [np.nan, 0.5]]), "NaN"),
    ],
)
def test_what_has_no_loss_is_refused(metric, labels, probabilities, got):
    """Shapes that don't agree, foreign labels and NaN raise; nothing is broadcast or averaged."""
    with pytest.raises(MetricError, match=got):
        metric(labels, probabilities)


def test_counts_errors_and_costs():
    """The confusion matrix has the truth in its rows; costs are looked up as truth, decision."""
    labels, decisions = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0])
    assert confusion_matrix(labels, decisions, n_classes=3).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [1, 0, 0],
    ]
    assert mean_decision_cost([0, 0, 1], [1, 0, 0], [[0, 1], [5, 0]]) == 2
    assert mean_absolute_error([1.0, 2.0], torch.tensor([[2.0], [4.0]])) == 1.5


@pytest.mark.parametrize(
    ("labels", "decisions"), [([0, 1], [3, 1]), ([-1, 1], [0, 1]), ([0, 1], [0.5, 1])]
)
def test_counts_refuse_foreign_classes(labels, decisions):
    """A label or decision that is none of the classes isn't counted as another pair."""
    with pytest.raises(MetricError, match="expected 0 to 2, of 3 classes"):
        confusion_matrix(labels, decisions, n_classes=3)


@pytest.mark.parametrize("metric", [log_loss, brier_score, calibration_error])
@pytest.mark.parametrize(
    "outputs",
    [
        [[0.5, 0.5], [-2.0, 3.0]],  # logits that sum to 1
        [[0.5, 0.5], [1.2, 0.8]],
        [[0.5, 0.5], [0.45, 0.45]],
        [[0.5, 0.5], [0.2, np.inf]],
    ],
)
def test_what_is_no_probability_is_refused(metric, outputs):
    """Logits and rows that don't sum to one raise with the row; rounded to float16 they pass."""
    with pytest.raises(MetricError, match=r"row 1 with .* expected probabilities"):
        metric([0, 1], np.array(outputs))
    assert metric([0, 1], np.array([[0.7, 0.3], [0.1, 0.9]], dtype=np.float16)) >= 0


@pytest.mark.parametrize(
    ("targets", "predictions"),
    [
        ([1.0, 2.0], [1.0]),
        ([], []),
        (np.arange(4.0), np.arange(4.0).reshape(2, 2)),
        (np.zeros((2, 1)), np.zeros((2, 1))),
        (np.zeros(2), np.zeros((1, 2))),
    ],
)
def test_absolute_error_wants_pairs(targets, predictions):
    """Targets and predictions come in pairs: none is spread over others, or reshaped."""
    with pytest.raises(MetricError, match=r"targets of shape .* and predictions of shape"):
        mean_absolute_error(targets, predictions)
