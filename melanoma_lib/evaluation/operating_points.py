"""Operating points: melanoma thresholds chosen on validation, and what they mean on test."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.evaluation.bootstrap import MIN_LESIONS, transform_decreasing, varies
from melanoma_lib.evaluation.metrics import sensitivity, specificity
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.trainings import (
    Resampled,
    estimate_of_trainings,
    resample_trainings,
)

AtThreshold = tuple[Predictions, float, float]  # of one training, its temperature, its threshold


def operating_curve(positive: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Sensitivity and specificity at every distinct threshold, in ascending order.

    An image is predicted positive if its score is at or above the threshold. Columns threshold,
    sensitivity, specificity; the last threshold is just above the highest score. Raises
    `MelanomaError` when there are no positives or no negatives.
    """
    if positive.all() or not positive.any():
        raise MelanomaError("a threshold needs both melanomas and other images to be chosen on")
    thresholds = np.append(np.unique(scores), np.nextafter(scores.max(), np.inf))
    below = [
        np.searchsorted(np.sort(scores[kind]), thresholds, "left") / kind.sum()
        for kind in (positive, ~positive)
    ]
    return pd.DataFrame(
        {"threshold": thresholds, "sensitivity": 1 - below[0], "specificity": below[1]}
    )


def choose_threshold(
    positive: np.ndarray, scores: np.ndarray, criterion: str, target: float
) -> float:
    """The threshold that reaches the target of one rate at the least cost to the other.

    For `specificity` the lowest threshold with specificity >= target, for `sensitivity` the
    highest with sensitivity >= target, both on the images given: the target is reached, never
    merely approximated. Images with equal scores get equal decisions.
    """
    curve = operating_curve(positive, scores)
    # A fraction that should equal the target may differ from it in the last bit.
    meets = curve[curve[criterion] >= target - 1e-12]
    return float(meets["threshold"].iloc[0 if criterion == "specificity" else -1])


def choose_operating_points(
    positive: np.ndarray, scores: np.ndarray, criteria: Iterable[tuple[str, float]]
) -> list[dict]:
    """One operating point a criterion, such as ("specificity", 0.95), chosen on the images given.

    Fields: name (`specificity_95`), criterion, target and threshold.
    """
    return [
        {
            "name": f"{criterion}_{target * 100:.4g}",
            "criterion": criterion,
            "target": target,
            "threshold": choose_threshold(positive, scores, criterion, target),
        }
        for criterion, target in criteria
    ]


def predictive_values(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative predictive value at a given prevalence of melanoma, by Bayes' rule.

    Scalars or arrays in [0, 1]; NaN where nothing, or everything, is predicted positive (Altman
    and Bland, 1994).
    """
    true_positive, false_negative = prevalence * sensitivity, prevalence * (1 - sensitivity)
    true_negative = (1 - prevalence) * specificity
    false_positive = (1 - prevalence) * (1 - specificity)
    with np.errstate(invalid="ignore"):
        ppv = np.divide(true_positive, true_positive + false_positive)
        return ppv, np.divide(true_negative, true_negative + false_negative)


def per_thousand(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Missed melanomas and false alarms among 1,000 lesions, of which `prevalence` are melanomas.

    Scalars or arrays, all three in [0, 1].
    """
    return 1000 * prevalence * (1 - sensitivity), 1000 * (1 - prevalence) * (1 - specificity)


def net_benefit(positive: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    """Net benefit per image: true positives minus false positives weighted by the threshold's odds.

    Acting at a probability of `threshold` means that one melanoma found is worth
    (1 - threshold) / threshold false positives (Vickers and Elkin, 2006). `scores` must therefore
    be calibrated probabilities. At most the prevalence; 0 when nothing is predicted positive.
    Raises `MelanomaError` unless 0 <= threshold < 1.
    """
    if not 0 <= threshold < 1:
        raise MelanomaError(f"a threshold probability lies in [0, 1), not {threshold}")
    gain = np.where(positive, 1, -threshold / (1 - threshold))
    return float(np.where(scores >= threshold, gain, 0).mean())


def decision_curve(
    positive: np.ndarray, scores: np.ndarray, thresholds: Sequence[float]
) -> pd.DataFrame:
    """Net benefit by threshold of the model and of treating all; treating none has 0.

    Columns threshold, model, treat_all; values and errors as in `net_benefit`.
    """
    everything = np.ones(len(positive))
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "model": [net_benefit(positive, scores, t) for t in thresholds],
            "treat_all": [net_benefit(positive, everything, t) for t in thresholds],
        }
    )


def sensitivity_and_specificity(
    predictions: Predictions, temperature: float, threshold: float
) -> dict[str, float]:
    """Sensitivity and specificity of one split's predictions at a threshold, without intervals."""
    scored = predictions.is_melanoma, predictions.melanoma_probability(temperature), threshold
    return {metric.__name__: float(metric(*scored)) for metric in (sensitivity, specificity)}


def operating_point_estimates(
    test: Predictions,
    temperature: float,
    threshold: float,
    weights: np.ndarray,
    prevalence: float | None = None,
) -> dict[str, dict]:
    """Estimates at one threshold: sensitivity, specificity, ppv, npv, missed, false_alarms.

    See `mean_operating_point_estimates`, whose only training this is.
    """
    return mean_operating_point_estimates([(test, temperature, threshold)], weights, prevalence)


def mean_operating_point_estimates(
    trainings: Sequence[AtThreshold], weights: np.ndarray, prevalence: float | None = None
) -> dict[str, dict]:
    """Means over trainings, each at its own threshold, of what a threshold does on the test split.

    `sensitivity` and `specificity` are fractions of the test images. The other four describe
    lesions with one image each, of which a fraction `prevalence` are melanomas (by default as
    many as among the test lesions): predictive values in [0, 1], and missed melanomas and false
    alarms per 1,000 lesions. `weights` are those of the bootstrap, (resamples, n).
    """
    test = trainings[0][0]
    positive = test.is_melanoma
    scored = [
        (positive, each.melanoma_probability(temperature), threshold)
        for each, temperature, threshold in trainings
    ]
    kinds = positive, ~positive
    n_clusters = [test.count_lesions(kind) for kind in kinds]
    if prevalence is None:
        prevalence = n_clusters[0] / test.count_lesions()
    rates = sensitivity, specificity
    bootstrapped = [
        resample_trainings(rate, scored, weights, n)
        for rate, n in zip(rates, n_clusters, strict=True)
    ]
    estimates = [
        estimate_of_trainings(each, int(kind.sum()))
        for each, kind in zip(bootstrapped, kinds, strict=True)
    ]
    reliable = min(n_clusters) >= MIN_LESIONS
    reliable &= all(varies(each.resamples.mean(1)) for each in bootstrapped)
    missed, false_alarms = (
        transform_decreasing(each, lambda rate, row=row: per_thousand(rate, rate, prevalence)[row])
        for row, each in enumerate(estimates)
    )
    return {
        "sensitivity": estimates[0],
        "specificity": estimates[1],
        **_predictive_estimates(bootstrapped, estimates, prevalence, reliable),
        "missed": missed,
        "false_alarms": false_alarms,
    }


def _predictive_estimates(
    bootstrapped: list[Resampled], rates: list[dict], prevalence: float, reliable: bool
) -> dict[str, dict]:
    """Estimates of `ppv` and `npv`, from sensitivity and specificity with their resamples.

    Where the resamples of either rate are not `reliable`, the ends are those at the low ends and
    at the high ends of both rates: predictive values increase with both, so that such an interval
    is conservative.
    """
    values, resamples, _ = zip(*bootstrapped, strict=True)
    value, resampled = (predictive_values(*pair, prevalence) for pair in (values, resamples))
    estimates = {}
    for index, name in enumerate(("ppv", "npv")):
        estimates[name] = estimate_of_trainings(Resampled(value[index], resampled[index]))
        if estimates[name]["value"] is not None and not reliable:
            for end in ("low", "high"):
                pair = (rate[end] for rate in rates)
                estimates[name][end] = float(predictive_values(*pair, prevalence)[index])
    return estimates


def operating_point_label(operating_point: Mapping) -> str:
    """An operating point in words: `specificity of at least 95%`."""
    return f"{operating_point['criterion']} of at least {100 * operating_point['target']:.4g}%"
