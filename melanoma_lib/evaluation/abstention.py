"""Abstention (selective prediction): images above an uncertainty threshold go to a doctor.

The threshold is chosen on validation; estimates on the test split say what the answers on the rest
are worth.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.trained_run import TrainedRun
from melanoma_lib.evaluation.trainings import estimate_fractions

# The orders in which images may be referred, the least certain first; in words.
ORDERS = {
    "confidence": "confidence",
    "margin": "margin",
    "entropy": "entropy",
    "ensemble_entropy": "entropy of the ensemble",
    "distance": "distance to the reference set",
}


def uncertainties(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """How uncertain a network is of each image, in three ways, (n,) each; higher is less certain.

    `probabilities` (n, classes). `confidence`: 1 minus the highest probability; `margin`: 1 minus
    the distance of the two highest (both in [0, 1]); `entropy`, in nats (Hendrycks and Gimpel,
    2017).
    """
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    logarithms = np.log(np.maximum(probabilities, np.finfo(float).tiny))
    return {
        "confidence": 1 - first,
        "margin": 1 - (first - second),
        "entropy": -(probabilities * logarithms).sum(1),
    }


def risk_coverage_curve(uncertainty: np.ndarray, wrong: np.ndarray) -> pd.DataFrame:
    """The fraction of errors among the most certain images, for every number of them.

    `uncertainty` (n,), `wrong` boolean (n,). Columns coverage, the fraction of images that are
    answered, and risk, the fraction of errors among these. Equally uncertain images are answered
    together or not at all (El-Yaniv and Wiener, 2010).
    """
    order = np.argsort(uncertainty, kind="stable")
    ordered, answered = uncertainty[order], np.arange(1, len(order) + 1)
    last = np.append(np.flatnonzero(np.diff(ordered)), len(order) - 1)  # of equally uncertain ones
    errors = np.cumsum(wrong[order])
    return pd.DataFrame(
        {"coverage": answered[last] / len(order), "risk": errors[last] / answered[last]}
    )


def area_under_risk_coverage(
    uncertainty: np.ndarray, wrong: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """The mean risk over all coverages, in [0, 1]; less is better.

    For each image the fraction of errors among those at most as uncertain, averaged over images.
    An order without information has the overall fraction of errors. `weights` as in `metrics`
    (Geifman et al., 2019).
    """
    weights = np.ones(len(wrong)) if weights is None else weights
    order = np.argsort(uncertainty, kind="stable")
    ordered = uncertainty[order]
    last = np.searchsorted(ordered, ordered, "right") - 1  # of those that are equally uncertain
    images = np.moveaxis(weights, -1, 0)[order]  # images first, as in `metrics.auc`
    errors = np.cumsum(images * wrong[order].reshape(-1, *[1] * (images.ndim - 1)), 0)[last]
    answered = np.cumsum(images, 0)[last]
    # Where none is answered, the image itself has no weight either.
    risk = np.divide(errors, answered, out=np.zeros_like(errors), where=answered > 0)
    return (images * risk).sum(0) / images.sum(0)


def referral_threshold(uncertainty: np.ndarray, fraction: float) -> float:
    """The lowest uncertainty above which lie at most a fraction of the images, in (0, 1).

    Raises `MelanomaError` for another fraction.
    """
    if not 0 < fraction < 1:
        raise MelanomaError(f"a fraction to refer lies between 0 and 1, not at {fraction}")
    answered = int(np.ceil((1 - fraction) * len(uncertainty) - 1e-9))
    return float(np.sort(uncertainty)[answered - 1])


def choose_referral(
    validation: Predictions, temperature: float, order: str, fraction: float
) -> dict[str, object]:
    """The referral rule of a network: `order`, `fraction` and `threshold`, as a bundle holds them.

    The least certain `fraction` of the validation split, by one of `uncertainties`. Raises
    `MelanomaError` for another order or fraction.
    """
    uncertainty = _uncertainty(validation.probabilities(temperature), order)
    threshold = referral_threshold(uncertainty, fraction)
    return {"order": order, "fraction": fraction, "threshold": threshold}


def is_referred(probabilities: np.ndarray, referral: Mapping) -> np.ndarray:
    """Whether each image is referred, boolean (n,); `referral` as of `choose_referral`."""
    return _uncertainty(probabilities, referral["order"]) > referral["threshold"]


def _uncertainty(probabilities: np.ndarray, order: str) -> np.ndarray:
    known = uncertainties(probabilities)
    if order not in known:
        raise MelanomaError(f"no order {order!r}; images are ordered by {', '.join(known)}")
    return known[order]


class Referral(NamedTuple):
    """One training, its melanoma threshold, and which images of its test split are referred."""

    training: TrainedRun
    threshold: float
    referred: np.ndarray  # boolean (n,)


def referral_estimates(
    trainings: Sequence[Referral], weights: np.ndarray, base: np.ndarray | None = None
) -> dict[str, dict]:
    """Estimates of what a referral does on the test split, means over a model's trainings.

    Fractions: `referred` of all images; among the rest, `accuracy`, and at the melanoma threshold
    `sensitivity` and `specificity`; of the melanomas those `melanomas_referred`, and those
    `found_or_referred`, predicted positive or referred. `weights` are those of the bootstrap,
    `base` as in `resample_fractions`.
    """
    cases: dict[str, list] = {}
    for training, threshold, referred in trainings:
        test = training.predictions.split("test")
        right = training.predicted_classes("test") == test.labels
        positive = test.melanoma_probability(training.bundle["temperature"]) >= threshold
        melanoma, rest = test.is_melanoma, ~referred
        everything = np.ones(len(rest), bool)
        found = {
            "referred": (referred, everything),
            "accuracy": (right, rest),
            "sensitivity": (positive, melanoma & rest),
            "specificity": (~positive, ~melanoma & rest),
            "melanomas_referred": (referred, melanoma),
            "found_or_referred": (positive | referred, melanoma),
        }
        for name, case in found.items():
            cases.setdefault(name, []).append(case)
    return estimate_fractions(cases, test.lesion_ids, weights, base)
