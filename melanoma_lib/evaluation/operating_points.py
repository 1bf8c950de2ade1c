"""Operating points: a melanoma threshold chosen on one part and reported on another, its worth."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.evaluation.bootstrap import (
    MIN_LESIONS,
    interval,
    resample,
    varies,
)
from melanoma_lib.evaluation.metrics import (
    sensitivity,
    specificity,
)
from melanoma_lib.evaluation.predictions import Predictions

# What a chosen threshold must reach on the part that chooses it.
CRITERIA = (("specificity", 0.95), ("specificity", 0.90), ("sensitivity", 0.95))


def operating_curve(positive: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Every distinct decision "melanoma if score >= threshold", from all to none called melanoma.

    Columns threshold, sensitivity, specificity; the last threshold is just above the highest
    score. Raises `MelanomaError` when there are no positives or no negatives.
    """
    if positive.all() or not positive.any():
        raise MelanomaError("a threshold needs both melanomas and other images to be chosen on")
    thresholds = np.append(np.unique(scores), np.nextafter(scores.max(), np.inf))
    melanomas, others = np.sort(scores[positive]), np.sort(scores[~positive])
    missed = np.searchsorted(melanomas, thresholds, "left") / len(melanomas)
    spared = np.searchsorted(others, thresholds, "left") / len(others)
    return pd.DataFrame(
        {"threshold": thresholds, "sensitivity": 1 - missed, "specificity": spared}
    )


def choose_threshold(
    positive: np.ndarray, scores: np.ndarray, criterion: str, target: float
) -> float:
    """The threshold that meets the target and costs least of the other figure.

    For `specificity` the lowest threshold with specificity >= target, for `sensitivity` the
    highest with sensitivity >= target, both on the images given: the target is met, never
    merely approached. Equal scores are decided alike.
    """
    curve = operating_curve(positive, scores)
    # A share that should equal the target may differ from it in the last bit.
    meets = curve[curve[criterion] >= target - 1e-12]
    return float(meets["threshold"].iloc[0 if criterion == "specificity" else -1])


def choose_operating_points(positive: np.ndarray, scores: np.ndarray) -> list[dict]:
    """Those of `CRITERIA`: name (`specificity_95`), criterion, target and threshold."""
    return [
        {
            "name": f"{criterion}_{target * 100:.4g}",
            "criterion": criterion,
            "target": target,
            "threshold": choose_threshold(positive, scores, criterion, target),
        }
        for criterion, target in CRITERIA
    ]


def predictive_values(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative predictive value where melanoma is as common as `prevalence` says.

    The share of melanomas among the lesions called, and of others among those not called, by
    Bayes' rule (Altman and Bland, 1994). Scalars or arrays in [0, 1]; NaN where nothing is
    called, or everything.
    """
    found, missed = prevalence * sensitivity, prevalence * (1 - sensitivity)
    spared, alarms = (1 - prevalence) * specificity, (1 - prevalence) * (1 - specificity)
    with np.errstate(invalid="ignore"):
        return np.divide(found, found + alarms), np.divide(spared, spared + missed)


def per_thousand(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Missed melanomas and false alarms among 1,000 lesions, of which `prevalence` are melanomas.

    Scalars or arrays, all three in [0, 1].
    """
    return 1000 * prevalence * (1 - sensitivity), 1000 * (1 - prevalence) * (1 - specificity)


def net_benefit(positive: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    """Melanomas found an image, less the false alarms at the rate the threshold itself implies.

    Who acts on a probability of `threshold` holds one melanoma found to be worth
    (1 - threshold) / threshold false alarms (Vickers and Elkin, 2006). `scores` must therefore
    be calibrated probabilities. At most the prevalence; 0 when nothing is called. Raises
    `MelanomaError` unless 0 <= threshold < 1.
    """
    if not 0 <= threshold < 1:
        raise MelanomaError(f"a threshold probability lies in [0, 1), not {threshold}")
    gain = np.where(positive, 1, -threshold / (1 - threshold))
    return float(np.where(scores >= threshold, gain, 0).mean())


def decision_curve(
    positive: np.ndarray, scores: np.ndarray, thresholds: Sequence[float]
) -> pd.DataFrame:
    """Net benefit of the model and of calling every image, by threshold; of calling none it is 0.

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
    """Sensitivity and specificity of one part at a threshold, as plain numbers."""
    scored = predictions.is_melanoma, predictions.melanoma_score(temperature), threshold
    return {metric.__name__: float(metric(*scored)) for metric in (sensitivity, specificity)}


def operating_point_estimates(
    test: Predictions,
    temperature: float,
    threshold: float,
    weights: np.ndarray,
    prevalence: float | None = None,
) -> dict[str, dict]:
    """The figures of one operating point: sensitivity, specificity, and what they mean in use.

    Both are shares of images. `ppv` and `npv` (shares), `missed` melanomas and `false_alarms` per
    1,000 are of lesions with one image each, where melanoma is as common as `prevalence` says;
    without it, as among the lesions of the part.
    """
    positive = test.is_melanoma
    scored = positive, test.melanoma_score(temperature), threshold
    melanomas, others = test.count_lesions(positive), test.count_lesions(~positive)
    if prevalence is None:
        prevalence = melanomas / test.count_lesions()
    drawn = [
        (*resample(rate, *scored, weights=weights), lesions)
        for rate, lesions in ((sensitivity, melanomas), (specificity, others))
    ]
    rates = [interval(*rate, share=True) for rate in drawn]
    return {
        "sensitivity": rates[0],
        "specificity": rates[1],
        **_predictive_figures(drawn, rates, prevalence),
        "missed": _falling(rates[0], lambda rate: per_thousand(rate, rate, prevalence)[0]),
        "false_alarms": _falling(rates[1], lambda rate: per_thousand(rate, rate, prevalence)[1]),
    }


def _predictive_figures(drawn: list[tuple], rates: list[dict], prevalence: float) -> dict:
    """`ppv` and `npv` from sensitivity and specificity, as drawn and as figures.

    Where the resamples of either rate tell nothing, both rates are taken at their low ends, and
    at their high ends: both values rise with them, and such an interval is too wide if anything.
    """
    values, draws, lesions = zip(*drawn, strict=True)
    value, resampled = (predictive_values(*pair, prevalence) for pair in (values, draws))
    told = min(lesions) >= MIN_LESIONS and all(varies(each) for each in draws)
    figures = {}
    for index, name in enumerate(("ppv", "npv")):
        figures[name] = interval(value[index], resampled[index])
        if figures[name]["value"] is not None and not told:
            for end in ("low", "high"):
                pair = (rate[end] for rate in rates)
                figures[name][end] = float(predictive_values(*pair, prevalence)[index])
    return figures


def _falling(figure: dict, function: Callable[[float], float]) -> dict:
    """A figure carried through a function that falls, so that the interval's ends change places."""
    if figure["value"] is None:
        return figure
    ends = {"value": "value", "low": "high", "high": "low"}
    return {name: float(function(figure[other])) for name, other in ends.items()}
