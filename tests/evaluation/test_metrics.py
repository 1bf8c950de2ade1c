"""Golden numbers worked out by hand, scikit-learn and torchmetrics as oracles, properties."""

import numpy as np
import pytest
import sklearn.metrics as sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from melanoma_lib.evaluation import metrics
from melanoma_lib.evaluation.predictions import softmax


@pytest.fixture(params=[0, 1, 2])
def data(request):
    """Labels and probabilities of 300 images; but for the first, many images score alike.

    No probability lies on the edge of a bin, where libraries differ.
    """
    rng = np.random.default_rng(request.param)
    likely = rng.integers(0, 7, 300)
    probabilities = softmax(rng.normal(size=(300, 7)) + 2 * np.eye(7)[likely])
    rows = rng.integers(0, 80, 300) if request.param else np.arange(300)
    labels = np.where(rng.random(300) < 0.7, likely[rows], rng.integers(0, 7, 300))
    return labels, probabilities[rows]


def calibration_error(norm):
    return lambda y, p: multiclass_calibration_error(
        torch.tensor(p), torch.tensor(y), num_classes=7, n_bins=15, norm=norm
    ).item()


def equal_mass_error(labels, probabilities):
    """Bin by bin; an image's bin follows from the number of images that are less sure."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.floor((rankdata(sure, "min") - 1) / len(sure) * 15)
    return sum(
        (bins == b).mean() * abs(right[bins == b].mean() - sure[bins == b].mean())
        for b in np.unique(bins)
    )


ORACLES = {
    "accuracy": lambda y, p: sklearn.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: sklearn.balanced_accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda y, p: sklearn.f1_score(y, p.argmax(1), average="macro"),
    "macro_auc": lambda y, p: np.mean([sklearn.roc_auc_score(y == c, p[:, c]) for c in range(7)]),
    "melanoma_auc": lambda y, p: sklearn.roc_auc_score(y == 4, p[:, 4]),
    "melanoma_average_precision": lambda y, p: sklearn.average_precision_score(y == 4, p[:, 4]),
    "ece": calibration_error("l1"),
    "ece_equal_mass": equal_mass_error,
    "classwise_ece": lambda y, p: np.mean([
        binary_calibration_error(torch.tensor(p[:, c]), torch.tensor(y == c).int(), n_bins=15)
        for c in range(7)
    ]),
    "mce": calibration_error("max"),
    "brier": lambda y, p: sklearn.brier_score_loss(y, p, labels=range(7), scale_by_half=False),
    "nll": lambda y, p: sklearn.log_loss(y, p, labels=range(7)),
}


def test_every_metric_of_the_table_has_an_oracle():
    assert set(ORACLES) == set(metrics.table_metrics(4))


@pytest.mark.parametrize("name", ORACLES)
def test_metrics_agree_with_independent_libraries(name, data):
    labels, probabilities = data
    ours = metrics.table_metrics(4)[name](labels, probabilities)
    assert float(ours) == pytest.approx(ORACLES[name](labels, probabilities), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in ORACLES if name != "ece_equal_mass"])
def test_integer_weights_mean_repeated_images(name, data):
    """A resample given as weights must equal the metric of the repeated images."""
    labels, probabilities = data
    times = np.random.default_rng(9).integers(0, 3, (5, len(labels)))
    metric = metrics.table_metrics(4)[name]
    at_once = metric(labels, probabilities, times.astype(float))
    one_by_one = [
        float(metric(np.repeat(labels, t), np.repeat(probabilities, t, axis=0))) for t in times
    ]
    assert at_once == pytest.approx(one_by_one, abs=1e-9)


def test_errors_of_bins_worked_out_by_hand():
    """Four images at 0.9, three right: gap 0.15; two at 0.6, none right: gap 0.6.

    ECE = 4/6 x 0.15 + 2/6 x 0.6 = 0.3. Averaging class indices instead of hits would differ.
    Class 0 is stated at 0.9 (four images, three of class 0) and at 0.4 (two, both of class 0):
    the same gaps; class 1 is its mirror image.
    """
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels = np.array([0, 0, 0, 1, 0, 0])
    assert float(metrics.ece(labels, probabilities)) == pytest.approx(0.3)
    assert float(metrics.classwise_ece(labels, probabilities)) == pytest.approx(0.3)
    assert float(metrics.mce(labels, probabilities)) == pytest.approx(0.6)
    without = np.array([1.0, 1, 1, 1, 0, 0])  # the bin at 0.6 is empty and does not count
    assert float(metrics.mce(labels, probabilities, without)) == pytest.approx(0.15)


def test_weights_leave_the_bins_of_equal_mass_where_they_are():
    rng = np.random.default_rng(3)
    confidence, right = rng.uniform(0.5, 1, 90), rng.random(90) < 0.7
    probabilities = np.column_stack([confidence, 1 - confidence])
    weights = rng.integers(0, 4, 90)
    bins = np.array_split(np.argsort(confidence), 15)  # six images each
    gaps = [abs(weights[b] @ (right[b] - confidence[b])) for b in bins]
    ours = metrics.ece_equal_mass((~right).astype(int), probabilities, weights.astype(float))
    assert float(ours) == pytest.approx(sum(gaps) / weights.sum())


def test_bins_of_equal_mass_do_not_depend_on_the_order_of_the_images():
    confidence = np.repeat([0.6, 0.9, 0.7, 0.8], [30, 20, 5, 5])
    bins = metrics.equal_mass_bin_of(confidence)
    # 30, 5, 5 and 20 images in rising order: 0, 30, 35 and 40 of 60 lie below.
    assert set(zip(confidence, bins, strict=True)) == {(0.6, 0), (0.7, 7), (0.8, 8), (0.9, 10)}
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(metrics.equal_mass_bin_of(confidence[order]), bins[order])
    assert np.bincount(metrics.equal_mass_bin_of(np.random.default_rng(0).random(45))).tolist() == (
        [3] * 15
    )


def test_a_bin_holds_its_upper_edge():
    assert metrics.bin_of(np.array([0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]
    # torchmetrics gives an edge to the bin above: here 0.6 would join 0.65, and their gaps cancel.
    probabilities, labels = np.array([[0.6, 0.4], [0.65, 0.35]]), np.array([0, 1])
    assert float(metrics.ece(labels, probabilities)) == pytest.approx((0.4 + 0.65) / 2)
    theirs = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(labels), 2)
    assert theirs.item() == pytest.approx((0.65 - 0.4) / 2)


def test_auc_by_hand_and_when_it_is_not_defined():
    positive, scores = np.array([True, False, True, False]), np.array([0.8, 0.8, 0.3, 0.1])
    assert float(metrics.auc(positive, scores)) == (0.5 + 1 + 0 + 1) / 4
    assert np.isnan(metrics.auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_sensitivity_and_specificity_by_hand():
    positive, scores = np.array([True, True, False, False]), np.array([0.5, 0.4, 0.5, 0.1])
    assert float(metrics.sensitivity(positive, scores, 0.5)) == 0.5  # at the threshold: positive
    assert float(metrics.specificity(positive, scores, 0.5)) == 0.5
    assert float(metrics.specificity(positive, scores, 0.51)) == 1


@pytest.mark.parametrize("threshold", [0.02, 0.2, 0.6])
def test_sensitivity_and_specificity_agree_with_scikit_learn(data, threshold):
    """With weights too, as repeated images and as the library's sample weights."""
    labels, probabilities = data
    positive, scores, called = labels == 4, probabilities[:, 4], probabilities[:, 4] >= threshold
    times = np.random.default_rng(1).integers(0, 4, len(labels)).astype(float)
    for metric, kind in ((metrics.sensitivity, True), (metrics.specificity, False)):
        for weights in (None, times):
            theirs = sklearn.recall_score(positive, called, pos_label=kind, sample_weight=weights)
            assert float(metric(positive, scores, threshold, weights)) == pytest.approx(theirs)


def test_confusion_matrix_has_true_classes_in_rows(data):
    labels, probabilities = data
    assert np.array_equal(
        metrics.confusion_matrix(labels, probabilities),
        sklearn.confusion_matrix(labels, probabilities.argmax(1), labels=range(7)),
    )


def test_absent_classes_do_not_count():
    labels, probabilities = np.array([0, 1]), np.eye(7)[[0, 1]]
    assert float(metrics.balanced_accuracy(labels, probabilities)) == 1
    assert float(metrics.macro_f1(labels, probabilities)) == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60).filter(
        lambda rows: len({positive for positive, _ in rows}) == 2
    )
)
def test_auc_depends_on_the_order_of_scores_only(rows):
    positive, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], float)
    value = float(metrics.auc(positive, scores))
    for monotone in (np.exp(scores / 3) - 5, 7 * scores, scores**3, np.arctan(scores)):
        assert value == float(metrics.auc(positive, monotone))
    assert value == pytest.approx(1 - float(metrics.auc(positive, -scores)))
    assert value == pytest.approx(sklearn.roc_auc_score(positive, scores))
