import numpy as np
import pytest

from melanoma_lib.intervals import estimate, lesion_weights
from melanoma_lib.metrics import accuracy


def mean_of(values, weights=None):
    weights = np.ones(len(values)) if weights is None else weights
    return weights @ values / weights.sum(-1)


def test_images_of_a_lesion_move_together():
    weights = lesion_weights(np.array(["a", "b", "a", "c"]), 50)
    assert weights.shape == (50, 4)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    lesions = weights[:, [0, 1, 3]]
    assert (lesions.sum(1) == 3).all()  # as many lesions are drawn as there are


def test_resamples_are_the_same_for_every_model():
    ids = np.array(list("aabbcd"))
    assert np.array_equal(lesion_weights(ids, 20), lesion_weights(ids, 20))
    assert not np.array_equal(lesion_weights(ids, 20), lesion_weights(ids, 20, seed=1))


def test_single_image_lesions_give_the_textbook_interval():
    values = np.random.default_rng(0).normal(size=400)
    figure = estimate(mean_of, values, weights=lesion_weights(np.arange(400)))
    error = values.std() / 20
    assert figure["value"] == pytest.approx(values.mean())
    assert figure["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert figure["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_repeated_photographs_add_no_certainty():
    """Each lesion four times over: by image the interval would halve, by lesion it stays."""
    values = np.random.default_rng(0).normal(size=200)
    once = estimate(mean_of, values, weights=lesion_weights(np.arange(200)))
    ids = np.repeat(np.arange(200), 4)
    four = estimate(mean_of, values[ids], weights=lesion_weights(ids))
    by_image = estimate(mean_of, values[ids], weights=lesion_weights(np.arange(800)))
    width = {"once": once["high"] - once["low"], "four": four["high"] - four["low"]}
    assert width["four"] == pytest.approx(width["once"])
    assert by_image["high"] - by_image["low"] < 0.6 * width["once"]


def test_a_figure_that_is_not_defined_is_none():
    weights = lesion_weights(np.arange(3), 10)
    nothing = estimate(lambda v, w: np.nan * mean_of(v, w), np.ones(3), weights=weights)
    assert nothing == {"value": None, "low": None, "high": None}


def test_coverage_of_the_nominal_95_percent():
    """Lesions with one to three correlated images: the interval covers the truth 90 to 99 %."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        ids = np.repeat(np.arange(120), rng.integers(1, 4, 120))
        skill = rng.beta(4, 1, 120)  # of each lesion; the mean is 0.8
        labels = (rng.random(len(ids)) > skill[ids]).astype(int)  # class 0 is always predicted
        probabilities = np.tile([0.9, 0.1], (len(ids), 1))
        figure = estimate(accuracy, labels, probabilities, weights=lesion_weights(ids, 300))
        covered += figure["low"] <= 0.8 <= figure["high"]
    assert 0.90 <= covered / 200 <= 0.99
