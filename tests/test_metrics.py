"""Golden numbers worked out by hand, scikit-learn and torchmetrics as oracles, properties."""

import numpy as np
import pytest
import sklearn.metrics as sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from melanoma_lib import metrics
from melanoma_lib.predictions import softmax


@pytest.fixture(params=[0, 1, 2])
def data(request):
    rng = np.random.default_rng(request.param)
    labels = rng.integers(0, 7, 300)
    logits = rng.normal(size=(300, 7)) + 2 * np.eye(7)[labels]
    return labels, np.round(softmax(logits), 3) if request.param else softmax(logits)


ORACLES = {
    "accuracy": lambda y, p: sklearn.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: sklearn.balanced_accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda y, p: sklearn.f1_score(y, p.argmax(1), average="macro"),
    "macro_auc": lambda y, p: np.mean([sklearn.roc_auc_score(y == c, p[:, c]) for c in range(7)]),
    "melanoma_auc": lambda y, p: sklearn.roc_auc_score(y == 4, p[:, 4]),
    "melanoma_average_precision": lambda y, p: sklearn.average_precision_score(y == 4, p[:, 4]),
    "ece": lambda y, p: multiclass_calibration_error(
        torch.tensor(p), torch.tensor(y), num_classes=7, n_bins=15, norm="l1"
    ).item(),
    "brier": lambda y, p: np.mean(((p - np.eye(7)[y]) ** 2).sum(1)),
    "nll": lambda y, p: -np.mean(np.log(p[np.arange(len(y)), y])),
}


def test_every_metric_of_the_table_has_an_oracle():
    assert set(ORACLES) == set(metrics.table_metrics(4))


@pytest.mark.parametrize("name", ORACLES)
def test_metrics_agree_with_independent_libraries(name, data):
    labels, probabilities = data
    ours = metrics.table_metrics(4)[name](labels, probabilities)
    assert float(ours) == pytest.approx(ORACLES[name](labels, probabilities), abs=1e-6)


@pytest.mark.parametrize("name", ORACLES)
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


def test_ece_worked_out_by_hand():
    """Four images at 0.9, three right: gap 0.15; two at 0.6, none right: gap 0.6.

    ECE = 4/6 x 0.15 + 2/6 x 0.6 = 0.3. Averaging class indices instead of hits would differ.
    """
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels = np.array([0, 0, 0, 1, 0, 0])
    assert float(metrics.ece(labels, probabilities)) == pytest.approx(0.3)


def test_a_bin_holds_its_upper_edge():
    assert metrics.bin_of(np.array([0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]


def test_auc_by_hand_and_when_it_is_not_defined():
    positive, scores = np.array([True, False, True, False]), np.array([0.8, 0.8, 0.3, 0.1])
    assert float(metrics.auc(positive, scores)) == (0.5 + 1 + 0 + 1) / 4
    assert np.isnan(metrics.auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_sensitivity_and_specificity_by_hand():
    positive, scores = np.array([True, True, False, False]), np.array([0.5, 0.4, 0.5, 0.1])
    assert float(metrics.sensitivity(positive, scores, 0.5)) == 0.5  # at the threshold: positive
    assert float(metrics.specificity(positive, scores, 0.5)) == 0.5
    assert float(metrics.specificity(positive, scores, 0.51)) == 1


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
    assert value == pytest.approx(float(metrics.auc(positive, np.exp(scores / 3) - 5)))
    assert value == pytest.approx(1 - float(metrics.auc(positive, -scores)))
    assert value == pytest.approx(sklearn.roc_auc_score(positive, scores))
