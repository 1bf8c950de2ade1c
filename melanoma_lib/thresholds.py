"""Operating points: a melanoma threshold chosen on one part and reported on another."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from melanoma_lib.artifacts import MelanomaError

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


def choose_operating_points(
    positive: np.ndarray,
    scores: np.ndarray,
    criteria: Sequence[tuple[str, float]] = CRITERIA,
) -> list[dict]:
    """All operating points: name (`specificity_95`), criterion, target and threshold."""
    return [
        {
            "name": f"{criterion}_{target * 100:.4g}",
            "criterion": criterion,
            "target": target,
            "threshold": choose_threshold(positive, scores, criterion, target),
        }
        for criterion, target in criteria
    ]
