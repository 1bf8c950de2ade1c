import numpy as np
import pytest
import scipy.stats

from melanoma_lib.evaluation.bootstrap import (
    bootstrap_weights,
    difference,
    estimate,
    exact_interval,
    format_estimate,
    interval,
    p_value,
    resample,
)
from melanoma_lib.evaluation.metrics import accuracy, auc, sensitivity, weighted_mean


def test_images_of_a_lesion_move_together():
    weights = bootstrap_weights(np.array(["a", "b", "a", "c"]), 50)
    assert weights.shape == (50, 4)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    lesions = weights[:, [0, 1, 3]]
    assert (lesions.sum(1) == 3).all()  # as many lesions are drawn as there are


def test_resamples_are_the_same_for_every_model():
    ids = np.array(list("aabbcd"))
    assert np.array_equal(bootstrap_weights(ids, 20), bootstrap_weights(ids, 20))
    assert not np.array_equal(bootstrap_weights(ids, 20), bootstrap_weights(ids, 20, seed=1))


def test_single_image_lesions_give_the_interval_of_scipys_bootstrap():
    values = np.random.default_rng(4).exponential(size=120)  # skewed: the ends are not alike
    figure = estimate(weighted_mean, values, weights=bootstrap_weights(np.arange(120), 20_000))
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=0
    ).confidence_interval
    assert figure["value"] == pytest.approx(values.mean())
    assert (figure["low"], figure["high"]) == pytest.approx(tuple(theirs), abs=0.01)


def test_repeated_photographs_add_no_certainty():
    """Each lesion four times over: by image the interval would halve, by lesion it stays."""
    values = np.random.default_rng(0).normal(size=200)
    once = estimate(weighted_mean, values, weights=bootstrap_weights(np.arange(200)))
    ids = np.repeat(np.arange(200), 4)
    four = estimate(weighted_mean, values[ids], weights=bootstrap_weights(ids))
    by_image = estimate(weighted_mean, values[ids], weights=bootstrap_weights(np.arange(800)))
    width = {"once": once["high"] - once["low"], "four": four["high"] - four["low"]}
    assert width["four"] == pytest.approx(width["once"])
    assert by_image["high"] - by_image["low"] < 0.6 * width["once"]


def test_a_figure_that_is_not_defined_is_none():
    for sizes in ((), (0, 1)):
        nothing = interval(np.nan, np.full(10, np.nan), *sizes)
        assert nothing == {"value": None, "low": None, "high": None}


def test_exact_intervals_are_clopper_and_pearsons():
    """7 of 10: 0.348 to 0.933 (published tables); 0 of 30 leaves room up to 0.116."""
    assert np.round(exact_interval(7, 10), 3).tolist() == [0.348, 0.933]
    low, high = exact_interval(np.array([0, 30, 0]), np.array([30, 30, 0]))
    assert low[0] == 0 and high[0] == pytest.approx(1 - 0.025 ** (1 / 30))
    assert high[1] == 1 and low[1] == pytest.approx(0.025 ** (1 / 30))
    assert np.isnan([low[2], high[2]]).all()
    for hits in range(13):
        theirs = scipy.stats.binomtest(hits, 12).proportion_ci(0.95, "exact")
        assert exact_interval(hits, 12) == pytest.approx((theirs.low, theirs.high))


def test_a_fraction_without_errors_is_not_certain():
    """Six lesions of two images, all found: six lesions, not twelve images, speak for it."""
    positive, ids = np.ones(12, bool), np.repeat(np.arange(6), 2)
    weights = bootstrap_weights(ids, 100)

    def found(scores, w):
        return sensitivity(positive, scores, 0.5, w)

    for scores, value in ((np.ones(12), 1), (np.zeros(12), 0)):
        low, high = exact_interval(6 * value, 6)
        honest = estimate(found, scores, weights=weights, n_clusters=6, n_images=12)
        assert honest == {"value": value, "low": low, "high": high}


def test_single_image_lesions_give_a_fraction_the_exact_interval():
    positive, weights = np.ones(46, bool), bootstrap_weights(np.arange(46), 20_000)
    scores = np.arange(46) > 0  # one is missed
    found = sensitivity, positive, scores, 0.5
    figure = estimate(*found, weights=weights, n_clusters=46, n_images=46)
    low, high = map(float, exact_interval(45, 46))
    assert (figure["low"], figure["high"]) == pytest.approx((low, high), abs=0.005)


def test_a_fraction_near_one_is_covered():
    """46 lesions of one to three images, 95 % found: percentiles would cover about 90 %."""
    rng = np.random.default_rng(1)
    ids = np.repeat(np.arange(46), rng.integers(1, 4, 46))
    positive, weights, covered = np.ones(len(ids), bool), bootstrap_weights(ids, 400), 0
    for _ in range(500):
        scores = rng.random(len(ids)) < rng.beta(9.5, 0.5, 46)[ids]
        drawn = resample(sensitivity, positive, scores, 0.5, weights=weights)
        figure = interval(*drawn, n_clusters=46, n_images=len(ids))
        covered += figure["low"] <= 0.95 <= figure["high"]
    assert covered / 500 >= 0.93


def test_the_effective_number_of_lesions_is_at_most_that_of_the_images():
    """Found and missed in nearly every lesion: the resamples hardly vary, 40 images stay 40."""
    ids = np.repeat(np.arange(20), 2)
    scores = np.tile([1.0, 0.0], 20)
    scores[1] = 1
    found = sensitivity, np.ones(40, bool), scores, 0.5
    weights = bootstrap_weights(ids, 400)
    low, high = map(float, exact_interval(21, 40))
    honest = estimate(*found, weights=weights, n_clusters=20, n_images=40)
    assert (honest["low"], honest["high"]) == pytest.approx((low, high))
    by_percentiles = estimate(*found, weights=weights)
    assert by_percentiles["high"] - by_percentiles["low"] < (high - low) / 3


def coverage(skills, ids, weights, rng, trials=500):
    """How often the interval of the accuracy holds the skill its lesions have on average."""
    covered = 0
    for _ in range(trials):
        skill = rng.beta(*skills, ids.max() + 1)  # the chance to be right, of each lesion
        labels = (rng.random(len(ids)) > skill[ids]).astype(int)  # class 0 is always predicted
        probabilities = np.tile([0.9, 0.1], (len(ids), 1))
        figure = estimate(accuracy, labels, probabilities, weights=weights)
        covered += figure["low"] <= skills[0] / sum(skills) <= figure["high"]
    return covered / trials


def test_lesions_make_the_interval_cover_and_images_do_not():
    """Nominal 95 %, one to six images a lesion that are often right or wrong together."""
    rng = np.random.default_rng(5)
    ids = np.repeat(np.arange(150), rng.integers(1, 7, 150))
    by_lesion, by_image = (bootstrap_weights(units, 600) for units in (ids, np.arange(len(ids))))
    assert 0.92 <= coverage((1.6, 0.4), ids, by_lesion, rng) <= 0.98
    assert coverage((1.6, 0.4), ids, by_image, rng) < 0.90


def test_a_figure_that_no_resample_changes_has_what_its_lesions_allow():
    weights = bootstrap_weights(np.arange(4), 20)
    assert estimate(weighted_mean, np.ones(4), weights=weights) == {
        "value": 1, "low": None, "high": None
    }
    low = 0.025 ** (1 / 4)  # four of four: Clopper and Pearson's lower end
    assert estimate(weighted_mean, np.ones(4), weights=weights, n_clusters=4) == {
        "value": 1, "low": pytest.approx(low), "high": 1
    }


def test_models_that_never_differ_may_differ_on_other_lesions():
    """None of 30 lesions tells them apart: at most 11.6 % of all lesions do (the same tables)."""
    always, room = np.full(50, 0.9), 1 - 0.025 ** (1 / 30)
    same = difference((0.9, always, 30), (0.9, always, 40))
    assert same == {"value": 0, "low": pytest.approx(-room), "high": pytest.approx(room)}
    assert round(room, 3) == 0.116
    one = difference((1.0, always, 3), (0.2, always - 0.8, 3))
    assert one["high"] == 1 and one["low"] == pytest.approx(0.8 - (1 - 0.025 ** (1 / 3)))
    assert difference((0.1, always, None), (0.1, always, None))["low"] is None


def test_an_auc_of_one_rules_out_only_what_would_hardly_show_it():
    """Five melanomas and five others of a true AUC at the low end show 1 in less than 2.5 %."""
    rng, positive, (low, _) = np.random.default_rng(0), np.arange(10) < 5, exact_interval(5, 5)
    apart = np.sqrt(2) * scipy.stats.norm.ppf(low)
    samples = rng.normal(size=(4000, 10)) + apart * positive
    assert np.mean([auc(positive, scores) == 1 for scores in samples]) < 0.025


def test_the_p_value_of_a_difference_by_hand():
    assert p_value(np.array([0.1, 0.2, 0.3, -0.1, np.nan])) == pytest.approx(2 * (1 + 1) / 5)
    assert p_value(np.full(999, 0.5)) == pytest.approx(2 / 1000)  # never nothing
    assert p_value(np.zeros(9)) == 1 and p_value(np.array([np.nan])) is None


def test_p_values_of_no_difference_are_spread_evenly():
    """Two models alike: p below 5 % in about 5 % of the worlds."""
    generator = np.random.default_rng(0)
    weights = bootstrap_weights(np.arange(100), 400)
    p = [p_value(weighted_mean(generator.normal(size=100), weights)) for _ in range(300)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_figures_in_words():
    assert format_estimate({"value": None, "low": None, "high": None}) == "–"
    three = {"value": 0.8916, "low": 0.8742, "high": 0.909}
    assert format_estimate(three) == "0.892 [0.874, 0.909]"
    assert format_estimate({"value": 1.0, "low": None, "high": None}) == "1.000 [–, –]"
    assert format_estimate({"value": 9.09, "low": 0.0, "high": 34.83}) == "9.1 [0.0, 34.8]"
