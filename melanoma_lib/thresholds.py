"""Operating points: a melanoma threshold chosen on one part and reported on another, its worth."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError

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
