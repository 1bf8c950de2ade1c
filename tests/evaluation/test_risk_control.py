"""Thresholds with a promise: the exact tail, what is refused, and how often promises are kept."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from melanoma_lib.evaluation.operating_points import choose_threshold
from melanoma_lib.evaluation.risk_control import (
    allowed_errors,
    controlled_threshold,
    fraction_meeting_target,
    least_lesions,
)


def test_fifty_nine_lesions_without_an_error_show_95_percent():
    """The rule of three: 0.95 to the power of 59 is the first below 0.05."""
    assert least_lesions(0.95) == 59
    assert allowed_errors(58, 0.95) is None and allowed_errors(59, 0.95) == 0
    assert allowed_errors(0, 0.95) is None
    assert least_lesions(1) is None and allowed_errors(10_000, 1) is None


@pytest.mark.parametrize("lesions", [10, 60, 100, 717])
@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_the_allowed_errors_are_those_of_the_exact_interval(lesions, target):
    """Clopper and Pearson's lower bound of the rate, one-sided, is at the target or above."""
    lower = [beta.ppf(0.05, lesions - k, k + 1) if k < lesions else 0 for k in range(lesions + 1)]
    shown = [k for k, bound in enumerate(lower) if bound >= target]
    assert allowed_errors(lesions, target) == (max(shown) if shown else None)


@pytest.mark.parametrize("criterion", ["sensitivity", "specificity"])
def test_the_promise_holds_for_new_lesions(criterion):
    """Over 2,000 validation splits from a known distribution: it fails as often as it may."""
    rng, target = np.random.default_rng(0), 0.9
    positive = np.resize([True, False], 200)
    failed = {"plain": 0, "controlled": 0}
    for _ in range(2000):
        scores = rng.random(200)  # so that the sensitivity at t is 1 - t, the specificity t
        thresholds = {
            "plain": choose_threshold(positive, scores, criterion, target),
            "controlled": controlled_threshold(positive, scores, criterion, target),
        }
        for name, threshold in thresholds.items():
            reached = 1 - threshold if criterion == "sensitivity" else threshold
            failed[name] += reached < target
    errors = allowed_errors(100, target)
    expected = binom.cdf(errors, 100, 1 - target)  # at most 5%, as errors are whole
    assert failed["controlled"] / 2000 == pytest.approx(expected, abs=0.015) and expected <= 0.05
    assert failed["plain"] / 2000 > 0.4


def test_a_threshold_that_nothing_shows_is_none():
    positive = np.arange(40) < 20
    assert controlled_threshold(positive, np.arange(40.0), "sensitivity", 0.95) is None
    assert controlled_threshold(positive, np.arange(40.0), "sensitivity", 0.8) is not None


@pytest.mark.parametrize("criterion", ["sensitivity", "specificity"])
def test_how_often_a_promise_is_kept_is_what_thresholds_chosen_one_by_one_do(criterion):
    """With equal scores, as networks that are sure of everything have them."""
    rng = np.random.default_rng(1)
    positive = np.resize([True, False, False], 300)
    scores = (0.6 * rng.random(300) + 0.3 * positive).round(2)
    point = {"criterion": criterion, "target": 0.9}
    found = fraction_meeting_target(positive, scores, point, (70, 80), draws=1000)
    truth = np.arange(150) < 70
    kind = positive if criterion == "sensitivity" else ~positive
    choosers = {"plain": choose_threshold, "controlled": controlled_threshold}
    for name, choose in choosers.items():
        kept = 0
        for _ in range(400):
            drawn = np.append(rng.choice(scores[positive], 70), rng.choice(scores[~positive], 80))
            threshold = choose(truth, drawn, criterion, 0.9)
            above = scores[kind] >= threshold
            kept += (above if criterion == "sensitivity" else ~above).mean() >= 0.9 - 1e-12
        assert found[name]["kept"]["value"] == pytest.approx(kept / 400, abs=0.08)
    assert found["controlled"]["kept"]["low"] > 0.93
    assert found["plain"]["other_rate"] > found["controlled"]["other_rate"]


def test_with_too_few_lesions_only_the_plain_threshold_exists():
    positive, scores = np.arange(40) < 20, np.arange(40) / 40
    point = {"criterion": "sensitivity", "target": 0.95}
    found = fraction_meeting_target(positive, scores, point, (20, 20))
    assert found["controlled"] is None and found["plain"]["kept"]["value"] < 1
