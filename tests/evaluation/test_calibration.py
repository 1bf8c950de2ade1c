import numpy as np
import pytest
import sklearn.calibration
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.evaluation.bootstrap import exact_interval
from melanoma_lib.evaluation.calibration import fit_temperature, reliability, temperature_note
from melanoma_lib.evaluation.metrics import ece, nll, top_class
from melanoma_lib.evaluation.predictions import softmax


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


def test_it_agrees_with_scikit_learn():
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
    fitted = sklearn.calibration.CalibratedClassifierCV(
        FrozenEstimator(Logits().fit(logits, labels)), method="temperature"
    ).fit(logits, labels)
    (theirs,) = (each.calibrators[0].beta_ for each in fitted.calibrated_classifiers_)
    assert fit_temperature(logits, labels) == pytest.approx(1 / theirs, rel=1e-5)


def test_a_class_that_is_missing_from_validation_is_no_error():
    logits = np.random.default_rng(4).normal(size=(100, 7))
    present = (labels := labels_at(logits, 1.5)) != 6
    logits, labels = logits[present], labels[present]
    fitted = fit_temperature(logits, labels)
    losses = [float(nll(labels, softmax(logits, fitted * step))) for step in (0.99, 1, 1.01)]
    assert losses[1] == min(losses)  # a minimum inside the bounds, with a column nobody has


def test_a_search_that_ends_worse_than_it_began_changes_nothing(monkeypatch):
    lost = type("Result", (), {"x": np.log(7.0)})
    monkeypatch.setattr("scipy.optimize.minimize_scalar", lambda *_, **__: lost)
    logits = np.random.default_rng(4).normal(scale=3, size=(200, 7))
    assert fit_temperature(logits, labels_at(logits, 1.0)) == 1


def test_images_that_are_all_right_or_all_wrong_have_a_temperature_and_it_is_said():
    logits = np.random.default_rng(4).normal(scale=3, size=(50, 7))
    for labels, end in ((logits.argmax(1), 0.05), (logits.argmin(1), 20)):
        temperature = fit_temperature(logits, labels)
        assert temperature == pytest.approx(end, rel=0.01)
        assert f"{temperature:.2f} is at the end of its range" in temperature_note(temperature)
    assert not any(map(temperature_note, (0.06, 1.0, 19.0)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_a_temperature_never_worsens_the_part_it_is_fitted_on(seed, temperature):
    logits = np.random.default_rng(seed).normal(scale=2, size=(60, 4)).astype(np.float32)
    labels = labels_at(logits, temperature, seed)
    fitted = fit_temperature(logits, labels)
    assert nll(labels, softmax(logits, fitted)) <= nll(labels, softmax(logits))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(-240, 240), min_size=7, max_size=7), min_size=1),
    st.floats(0.05, 20),
)
def test_scaling_keeps_every_diagnosis(rows, temperature):
    logits = np.array(rows) / 8  # apart by an eighth at least, or equal
    assert np.array_equal(softmax(logits, temperature).argmax(1), logits.argmax(1))


def test_the_reliability_table_holds_the_ece():
    logits = np.random.default_rng(6).normal(scale=2, size=(400, 7))
    labels, probabilities = labels_at(logits, 2.0), softmax(logits)
    table = reliability(*top_class(labels, probabilities))
    assert table["count"].sum() == 400 and len(table) == 15
    gap = (table["accuracy"] - table["confidence"]).abs()
    assert np.nansum(gap * table["count"]) / 400 == pytest.approx(float(ece(labels, probabilities)))
    used = table[table["count"] > 0]
    assert (used["accuracy_low"] <= used["accuracy"]).all()
    assert (used["accuracy"] <= used["accuracy_high"]).all()
    empty = table.loc[table["count"] == 0, ["confidence", "accuracy", "accuracy_low"]]
    assert len(empty) and empty.isna().to_numpy().all()


def test_bins_worked_out_by_hand():
    """Stated at 0.1, found at 1 of 20; stated at 0.9, found at 4 of 5."""
    table = reliability(np.repeat([0.1, 0.9], [20, 5]), np.isin(np.arange(25), [0, 20, 21, 22, 23]))
    filled = table[table["count"] > 0]
    assert filled["count"].tolist() == [20, 5]
    assert filled["confidence"].tolist() == pytest.approx([0.1, 0.9])
    assert filled["accuracy"].tolist() == [1 / 20, 4 / 5]
    ends = filled[["accuracy_low", "accuracy_high"]].to_numpy().tolist()
    assert ends == [list(exact_interval(1, 20)), list(exact_interval(4, 5))]
    assert filled[["low", "high"]].to_numpy().tolist() == [[1 / 15, 2 / 15], [13 / 15, 14 / 15]]


@pytest.mark.parametrize("seed", range(3))
def test_the_bins_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    stated = rng.beta(1, 3, 300)
    hit = rng.random(300) < stated
    filled = reliability(stated, hit).query("count > 0")
    share, mean = sklearn.calibration.calibration_curve(hit, stated, n_bins=15)
    assert filled["accuracy"].to_numpy() == pytest.approx(share)
    assert filled["confidence"].to_numpy() == pytest.approx(mean)
