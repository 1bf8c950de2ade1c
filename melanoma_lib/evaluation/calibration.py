"""Calibration: temperature scaling, and the bins of a reliability diagram."""

import numpy as np
import pandas as pd

from melanoma_lib.evaluation.bootstrap import exact_interval
from melanoma_lib.evaluation.metrics import ECE_BINS, bin_of, nll
from melanoma_lib.evaluation.predictions import softmax

BOUNDS = (0.05, 20.0)  # a temperature outside means that something else is wrong


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T > 0 that minimises the negative log-likelihood of softmax(logits / T).

    `logits` (n, classes), `labels` (n,). Bounded search over log T, in which the likelihood has
    one minimum; the result is never worse than T = 1. Scaling changes confidences and no
    predicted class. A class may be missing from the labels (Guo et al., 2017).
    """
    from scipy.optimize import minimize_scalar  # slow to import

    def loss(temperature: float) -> float:
        return float(nll(labels, softmax(logits, temperature)))

    result = minimize_scalar(
        lambda log_t: loss(np.exp(log_t)),
        bounds=np.log(BOUNDS),
        method="bounded",
        options={"xatol": 1e-9},
    )
    fitted = float(np.exp(result.x))
    return fitted if loss(fitted) <= loss(1.0) else 1.0


def temperature_note(temperature: float) -> str:
    """A sentence about a temperature at an end of `BOUNDS`; "" for any other."""
    if not np.isclose(temperature, BOUNDS, rtol=0.001).any():
        return ""
    return (
        f"The temperature {temperature:.2f} is at the end of its range ({BOUNDS[0]:g} to "
        f"{BOUNDS[1]:g}): these logits cannot be calibrated by scaling."
    )


def reliability(confidence: np.ndarray, hit: np.ndarray) -> pd.DataFrame:
    """Confidence and accuracy in the equal-width bins of the ECE, one row a bin.

    `confidence` (n,) in [0, 1] and `hit` boolean (n,): a predicted probability and whether the
    event occurred, for the top class (`metrics.top_class`) or for melanoma. Columns low, high
    (the bin's edges), count, confidence, accuracy (the fraction of hits), accuracy_low and
    accuracy_high, its exact 95% interval for independent images. Empty bins are NaN.
    """
    bins = bin_of(confidence)
    count = np.bincount(bins, minlength=ECE_BINS)
    hits = np.bincount(bins, hit, ECE_BINS)
    low, high = exact_interval(hits, count)
    edges = np.linspace(0, 1, ECE_BINS + 1)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "low": edges[:-1],
                "high": edges[1:],
                "count": count,
                "confidence": np.bincount(bins, confidence, ECE_BINS) / count,
                "accuracy": hits / count,
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
