import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from melanoma_lib.calibration import fit_temperature, reliability
from melanoma_lib.metrics import ece, nll
from melanoma_lib.predictions import softmax


def labels_at(logits, temperature, seed=0):
    """Labels drawn from softmax(logits / temperature)."""
    cumulative = softmax(logits / temperature).cumsum(1)
    return (np.random.default_rng(seed).random((len(logits), 1)) > cumulative).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    logits = np.random.default_rng(1).normal(scale=3, size=(20_000, 7))
    assert fit_temperature(logits, labels_at(logits, temperature)) == pytest.approx(
        temperature, rel=0.05
    )


def test_the_fit_agrees_with_an_independent_search():
    logits = np.random.default_rng(2).normal(scale=3, size=(500, 7))
    labels = labels_at(logits, 1.7)
    rows = np.arange(len(labels))

    def cross_entropy(temperature):
        scaled = logits / temperature
        return np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[rows, labels])

    other = minimize_scalar(cross_entropy, bracket=(0.5, 1, 5))
    assert fit_temperature(logits, labels) == pytest.approx(other.x, rel=1e-5)


def test_it_agrees_with_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.frozen import FrozenEstimator

    class Logits(ClassifierMixin, BaseEstimator):
        """A classifier whose decision function is its input."""

        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x):
            return x

        def predict(self, x):
            return self.classes_[x.argmax(1)]

    logits = np.random.default_rng(3).normal(scale=3, size=(800, 7))
    labels = labels_at(logits, 2.0)
    fitted = calibration.CalibratedClassifierCV(
        FrozenEstimator(Logits().fit(logits, labels)), method="temperature"
    ).fit(logits, labels)
    theirs = fitted.predict_proba(logits)
    ours = softmax(logits / fit_temperature(logits, labels))
    assert np.abs(theirs - ours).max() < 1e-4


def test_a_class_that_is_missing_from_validation_is_no_error():
    logits = np.random.default_rng(4).normal(size=(100, 7))
    labels = labels_at(logits, 1.5) % 6
    assert 0.05 <= fit_temperature(logits, labels) <= 20


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_a_temperature_never_worsens_the_part_it_is_fitted_on(seed, temperature):
    logits = np.random.default_rng(seed).normal(scale=2, size=(60, 4))
    labels = labels_at(logits, temperature, seed)
    fitted = fit_temperature(logits, labels)
    assert nll(labels, softmax(logits / fitted)) <= nll(labels, softmax(logits)) + 1e-9
    assert np.array_equal((logits / fitted).argmax(1), logits.argmax(1))


def test_the_reliability_table_holds_the_ece():
    logits = np.random.default_rng(6).normal(scale=2, size=(400, 7))
    labels, probabilities = labels_at(logits, 2.0), softmax(logits)
    table = reliability(labels, probabilities)
    assert table["count"].sum() == 400 and len(table) == 15
    gap = (table["accuracy"] - table["confidence"]).abs()
    assert np.nansum(gap * table["count"]) / 400 == pytest.approx(float(ece(labels, probabilities)))
    used = table[table["count"] > 0]
    assert (used["accuracy_low"] <= used["accuracy"]).all()
    assert (used["accuracy"] <= used["accuracy_high"]).all()
    empty = table.loc[table["count"] == 0, ["confidence", "accuracy", "accuracy_low"]]
    assert len(empty) and empty.isna().to_numpy().all()


def test_the_interval_of_a_bin_is_clopper_and_pearsons():
    """7 of 10 right: the exact 95 % interval is 0.348 to 0.933 (published tables)."""
    table = reliability(np.array([0] * 7 + [1] * 3), np.tile([0.8, 0.2], (10, 1)))
    row = table[table["count"] == 10].iloc[0]
    assert (round(row["accuracy_low"], 3), round(row["accuracy_high"], 3)) == (0.348, 0.933)
