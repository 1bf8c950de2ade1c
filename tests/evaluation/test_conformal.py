"""Conformal sets: against MAPIE, by hand, and their coverage in simulations."""

import warnings

import numpy as np
import pytest

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.conformal import (
    METHODS,
    adaptive_scores,
    conformal_quantile,
    fit_limits,
    prediction_sets,
    set_estimates,
)
from melanoma_lib.evaluation.predictions import Predictions, softmax

CLASSES = len(CLASS_NAMES)


def draw(rng, n, skill=2.0):
    """Probabilities (n, 7) and labels (n,) of a network that is not calibrated."""
    labels = rng.choice(CLASSES, n, p=[0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.1])
    return softmax(rng.normal(size=(n, CLASSES)) + skill * np.eye(CLASSES)[labels], 0.5), labels


def test_the_quantile_has_its_plus_one():
    scores = np.arange(1, 20) / 20  # nineteen: the 18th of 20 ranks
    assert conformal_quantile(scores, 0.9) == 0.9
    assert conformal_quantile(scores[:9], 0.9) == scores[8]
    assert conformal_quantile(scores[:8], 0.9) == np.inf


def test_adaptive_scores_by_hand():
    probabilities = np.array([[0.2, 0.5, 0.3]])
    assert adaptive_scores(probabilities, np.array([1.0])) == pytest.approx(
        np.array([[1.0, 0.5, 0.8]])
    )
    assert adaptive_scores(probabilities, np.array([0.0])) == pytest.approx(
        np.array([[0.8, 0.0, 0.5]])
    )


@pytest.fixture(scope="module")
def simulated():
    rng = np.random.default_rng(0)
    return draw(rng, 300), draw(rng, 200)


class Given:
    """A classifier as MAPIE takes it: its features are the probabilities themselves."""

    def __init__(self):
        self.classes_ = np.arange(CLASSES)

    def fit(self, *_):
        return self

    def predict_proba(self, rows):
        return rows

    def predict(self, rows):
        return rows.argmax(1)

    def __sklearn_is_fitted__(self):
        return True


def mapies_sets(score, calibration, test, **params):
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    estimator = type("Classifier", (Given, ClassifierMixin, BaseEstimator), {})()
    with warnings.catch_warnings(action="ignore"):
        oracle = SplitConformalClassifier(estimator, 0.9, score, random_state=0)
        oracle.conformalize(*calibration)
        return oracle.predict_set(test[0], **params)[1][..., 0]


def test_marginal_sets_are_mapies(simulated):
    calibration, test = simulated
    sets = prediction_sets("marginal", fit_limits("marginal", *calibration), test[0])
    assert np.array_equal(sets, mapies_sets("lac", calibration, test))


def test_adaptive_sets_are_mapies(simulated):
    """Calibrated with its random numbers; its sets without any are ours, but never empty."""
    (probabilities, labels), test = simulated
    uniform = 1 - np.random.RandomState(0).uniform(size=len(labels))
    scores = adaptive_scores(probabilities, uniform)[np.arange(len(labels)), labels]
    limit = conformal_quantile(scores, 0.9)
    sets = adaptive_scores(test[0], np.ones(len(test[1]))) <= limit
    oracle = mapies_sets("aps", (probabilities, labels), test,
                         conformity_score_params={"include_last_label": False})  # fmt: skip
    some = sets.any(1)
    assert some.mean() > 0.5 and np.array_equal(sets[some], oracle[some])


@pytest.mark.parametrize("method", METHODS)
def test_coverage_is_the_promise_within_one_point(method):
    """On average over calibrations, as promised; class by class only where that is promised."""
    rng = np.random.default_rng(1)
    covered, labels_of = [], []
    for _ in range(150):
        limits = fit_limits(method, *draw(rng, 700))
        probabilities, labels = draw(rng, 1000)
        sets = prediction_sets(method, limits, probabilities)
        covered.append(sets[np.arange(len(labels)), labels])
        labels_of.append(labels)
    covered, labels = np.concatenate(covered), np.concatenate(labels_of)
    by_class = np.array([covered[labels == c].mean() for c in range(CLASSES)])
    if method == "class_conditional":  # the rank is rounded up: more where a class is rare
        assert (by_class > 0.89).all() and (by_class < 0.925).all()
    else:
        assert covered.mean() == pytest.approx(0.9, abs=0.01)


def test_all_images_of_a_lesion_are_no_calibration():
    """Lesions of many images are easy here: with all images, a new lesion's is missed too often."""
    rng, coverages = np.random.default_rng(2), {"all": [], "one": []}
    for _ in range(150):
        hard = rng.random(400) < 0.5
        images = np.where(hard, 1, 6)
        lesion = np.repeat(np.arange(400), images)
        level = rng.normal(size=400) + 2 * hard
        scores = level[lesion] + 0.1 * rng.normal(size=len(lesion))
        new_hard = rng.random(400) < 0.5
        new = rng.normal(size=400) + 2 * new_hard + 0.1 * rng.normal(size=400)
        predictions = Predictions(*[lesion.astype(str)] * 3, lesion, scores[:, None])
        one = predictions.one_image_per_lesion(0).logits[:, 0]
        assert len(one) == 400
        coverages["all"].append((new <= conformal_quantile(scores, 0.9)).mean())
        coverages["one"].append((new <= conformal_quantile(one, 0.9)).mean())
    assert np.mean(coverages["one"]) == pytest.approx(0.9, abs=0.01)
    assert np.mean(coverages["all"]) < 0.85


def test_a_class_with_few_lesions_is_in_every_set():
    probabilities, _ = draw(np.random.default_rng(3), 17)
    labels = np.repeat([0, 1], [8, 9])  # eight, and nine are needed
    limits = fit_limits("class_conditional", probabilities, labels)
    assert limits[0] == np.inf and np.isfinite(limits[1])
    assert prediction_sets("class_conditional", limits, probabilities)[:, 0].all()


def test_every_lesion_weighs_the_same_in_the_estimates():
    """A lesion of three images that are not covered, and three of one that are."""
    melanoma = CLASS_NAMES.index(MELANOMA)
    lesions = np.array(["a", "a", "a", "b", "c", "d"])
    test = Predictions(lesions, lesions, lesions, np.full(6, melanoma), np.zeros((6, CLASSES)))
    sets = np.zeros((6, CLASSES), bool)
    sets[:3, 0], sets[3:, melanoma], sets[5, 0] = True, True, True
    found = set_estimates([(test, sets)], bootstrap_weights(lesions, 100))
    values = {name: each["value"] for name, each in found.items()}
    assert values == pytest.approx({
        "coverage": 0.75, "melanoma_coverage": 0.75, "holds_melanoma": 0.75, "single": 0.75,
        "empty": 0, "size": (1 + 1 + 1 + 2) / 4,
    })  # fmt: skip
