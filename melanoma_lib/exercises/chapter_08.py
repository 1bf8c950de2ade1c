"""The exercises of chapter 08: intervals and tests by hand, and an ensemble."""

from collections.abc import Callable, Sequence

import numpy as np

from melanoma_lib.evaluation.bootstrap import bootstrap_weights, estimate
from melanoma_lib.evaluation.metrics import weighted_mean
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.significance import holm, mcnemar
from melanoma_lib.exercises import exercise, number, numbers, require, require_close


@exercise("08.1", "a number")
def sample_size_ratio(answer: float) -> None:
    mistakes = {
        "Twice as many make it narrower by a factor of 1.4: the square root.": 2,
        "How far is the estimate from the bound that must pass zero?": 3,
        "The bound must just reach zero; the interval need not shrink to a quarter.": 16,
    }
    require_close(answer, 4, "By which factor must half the width shrink?", mistakes, atol=0.05)


@exercise("08.2", "four p-values")
def holm_adjustment(answer: Sequence[float]) -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    right = holm(p)
    bonferroni = "That multiplies each by 4 (Bonferroni); only the smallest is, then by less."
    order = "Nearly: one of them is smaller than its predecessor in the sorted order."
    hint = "Sort them first: the smallest is multiplied by 4, the next by 3."
    if np.allclose(np.sort(numbers(answer)), np.sort(right), atol=1e-4):
        hint = "The numbers are right; give them in the order of the question."
    require_close(answer, right, hint, {bonferroni: 4 * p, order: p * [3, 1, 2, 4]}, atol=1e-4)


@exercise("08.3", "a p-value")
def mcnemar_p_value(answer: float) -> None:
    right = mcnemar(np.arange(16) < 12, np.arange(16) >= 12)["p"]
    one_sided = "That is one-sided; the other model could have been the luckier one as well."
    hint = "How often do 16 tosses of a coin fall as unevenly as 4 to 12? The others do not matter."
    require_close(answer, right, hint, {one_sided: right / 2}, atol=0.0005)


@exercise("08.4", "a function of (values, lesions, resamples, seed) that returns two numbers")
def own_bootstrap(answer: Callable[..., tuple[float, float]]) -> None:
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(80), rng.integers(1, 6, 80))
    values = ((rng.random(80) < 0.7)[lesions] ^ (rng.random(len(lesions)) < 0.05)).astype(float)
    low, high = map(number, answer(values, lesions, 1000, 1))
    same = tuple(answer(values, lesions, 1000, 1)) == (low, high)
    require(same, "The same seed gives another interval the second time.")
    right = estimate(weighted_mean, values, weights=bootstrap_weights(lesions))
    naive = estimate(weighted_mean, values, weights=bootstrap_weights(np.arange(len(values))))
    width, ours, narrow = (e["high"] - e["low"] for e in ({"high": high, "low": low}, right, naive))
    hint = f"The mean is {values.mean():.3f}, and your interval [{low:.3f}, {high:.3f}]."
    require(low < values.mean() < high, hint)
    hint = "You resample single images; resample lesions, with all their images."
    require(abs(width - narrow) >= 0.15 * narrow, hint)
    hint = f"It is {width:.3f} wide, not about {ours:.3f}: is it the middle 95% of resamples?"
    require(abs(width - ours) <= 0.15 * ours, hint)
    hint = "Its width is right, its position is not: what is computed on each resample?"
    require(abs(low - right["low"]) + abs(high - right["high"]) <= 0.2 * ours, hint)


@exercise("08.7", "a function of (members, temperatures) that returns probabilities")
def ensemble(
    answer: Callable[..., np.ndarray], members: Sequence[Predictions], temperatures: Sequence[float]
) -> None:
    doubled = [2 * t for t in temperatures]  # so that a forgotten temperature shows
    result = numbers(answer(members, doubled))
    pairs = list(zip(members, doubled, strict=True))
    right = np.mean([member.probabilities(t) for member, t in pairs], axis=0)
    uncalibrated = np.mean([member.probabilities() for member in members], axis=0)
    hint = "Average the probabilities, each at its own temperature, and not the logits."
    if not np.allclose(result.sum(-1), 1, atol=1e-4):
        hint = "The probabilities of an image should add up to 1."
    mistakes = {"Those are the probabilities before calibration.": uncalibrated}
    require_close(result, right, hint, mistakes, atol=1e-6)


@exercise("08.8", "a function of (values, covariance) that returns a variance and a fraction")
def variance_of_mean(answer: Callable[..., tuple[float, float]]) -> None:
    values = np.array([0.81, 0.84, 0.80, 0.86])
    covariance = np.full((4, 4), 2e-4) + 1e-4 * np.eye(4)
    lesions, of_one, k = 2e-4, float(values.var(ddof=1)), len(values)
    right = lesions + of_one / k, of_one / k / (lesions + of_one / k)
    undivided = lesions + of_one, of_one / (lesions + of_one)
    population = float(values.var()) / k
    biased = lesions + population, population / (lesions + population)
    mistakes = {
        "That is the variance of one training; of the mean, a part is divided by K.": undivided,
        "The variance of the values has K - 1 below the fraction.": biased,
    }
    hint = "What do two trainings share over the resamples? Only the rest shrinks with K."
    require_close(numbers(answer(values, covariance)), right, hint, mistakes, atol=1e-9)
