"""The exercises of chapter 08: intervals and tests by hand, and an ensemble."""

from collections.abc import Callable, Sequence

import numpy as np

from melanoma_lib.evaluation.bootstrap import bootstrap_weights, estimate
from melanoma_lib.evaluation.metrics import weighted_mean
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.significance import holm, mcnemar


def how_many_more(answer: float) -> str | None:
    near = {
        2: "Twice as many make it narrower by a factor of 1.4: the square root.",
        3: "How far is the estimate from the bound that must pass zero?",
        16: "The bound must just reach zero; the interval need not shrink to a quarter.",
    }
    if answer in near:
        return near[answer]
    return None if abs(answer - 4) < 0.05 else "By which factor must half the width shrink?"


def holm_by_hand(answer: Sequence[float]) -> str | None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    given, right = np.asarray(answer, float), holm(p)
    if given.shape != right.shape:
        return "Give four numbers."
    if np.allclose(given, right, atol=1e-4):
        return None
    if np.allclose(given, 4 * p, atol=1e-4):
        return "That multiplies each by 4 (Bonferroni); only the smallest is, then by less."
    if np.allclose(given, p * [3, 1, 2, 4], atol=1e-4):
        return "Nearly: one of them is smaller than its predecessor in the sorted order."
    if np.allclose(np.sort(given), np.sort(right), atol=1e-4):
        return "The numbers are right; give them in the order of the question."
    return "Sort them first: the smallest is multiplied by 4, the next by 3."


def twelve_to_four(answer: float) -> str | None:
    right = mcnemar(np.arange(16) < 12, np.arange(16) >= 12)["p"]
    if abs(answer - right) < 0.0005:
        return None
    if abs(answer - right / 2) < 0.0005:
        return "That is one-sided; the other model could have been the luckier one as well."
    return "How often do 16 tosses of a coin fall as unevenly as 4 to 12? The others do not matter."


def own_bootstrap(answer: Callable[..., tuple[float, float]]) -> str | None:
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(80), rng.integers(1, 6, 80))
    values = ((rng.random(80) < 0.7)[lesions] ^ (rng.random(len(lesions)) < 0.05)).astype(float)
    low, high = answer(values, lesions, 1000, 1)
    if tuple(answer(values, lesions, 1000, 1)) != (low, high):
        return "The same seed gives another interval the second time."
    right = estimate(weighted_mean, values, weights=bootstrap_weights(lesions))
    naive = estimate(weighted_mean, values, weights=bootstrap_weights(np.arange(len(values))))
    width, ours, narrow = (e["high"] - e["low"] for e in ({"high": high, "low": low}, right, naive))
    if not low < values.mean() < high:
        return f"The mean is {values.mean():.3f}, and your interval [{low:.3f}, {high:.3f}]."
    if abs(width - narrow) < 0.15 * narrow:
        return "You resample single images; resample lesions, with all their images."
    if abs(width - ours) > 0.15 * ours:
        return f"It is {width:.3f} wide, not about {ours:.3f}: is it the middle 95% of resamples?"
    if abs(low - right["low"]) + abs(high - right["high"]) > 0.2 * ours:
        return "Its width is right, its position is not: what is computed on each resample?"
    return None


def ensemble(
    answer: Callable[..., np.ndarray], members: Sequence[Predictions], temperatures: Sequence[float]
) -> str | None:
    doubled = [2 * t for t in temperatures]  # so that a forgotten temperature shows
    result = np.asarray(answer(members, doubled))
    pairs = list(zip(members, doubled, strict=True))
    right = np.mean([member.probabilities(t) for member, t in pairs], axis=0)
    if result.shape != right.shape:
        return f"The shape should be {right.shape}, one row for each image, and is {result.shape}."
    if np.allclose(result, right, atol=1e-6):
        return None
    if np.allclose(result, np.mean([m.probabilities() for m in members], axis=0), atol=1e-6):
        return "Those are the probabilities before calibration."
    if not np.allclose(result.sum(1), 1, atol=1e-4):
        return "The probabilities of an image should add up to 1."
    return "Average the probabilities, each at its own temperature, and not the logits."


CHECKS = {
    "08.1": how_many_more,
    "08.2": holm_by_hand,
    "08.3": twelve_to_four,
    "08.4": own_bootstrap,
    "08.7": ensemble,
}
