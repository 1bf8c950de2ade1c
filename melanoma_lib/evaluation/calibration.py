"""Calibration: one temperature fitted on validation, and reliability before and after."""

import numpy as np
import pandas as pd

from melanoma_lib.evaluation.bootstrap import exact_interval
from melanoma_lib.evaluation.metrics import ECE_BINS, bin_of, nll
from melanoma_lib.evaluation.predictions import softmax

BOUNDS = (0.05, 20.0)  # temperatures outside these mean that something else is wrong


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T > 0 for which softmax(logits / T) has the least negative log-likelihood.

    Bounded search on log T, where the likelihood has one minimum. Dividing by T changes no
    decision, only how sure it sounds (Guo et al., 2017). The likelihood on the images given is
    never worse than at T = 1. A class that is missing from the labels is no error.
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


def reliability(confidence: np.ndarray, hit: np.ndarray) -> pd.DataFrame:
    """Confidence against accuracy in the equal-width bins of the ECE, one row a bin.

    `confidence` (n,) in [0, 1] is a stated probability and `hit`, boolean (n,), whether it came
    true: those of the top class (`metrics.top_class`), or melanoma's own. Columns low, high,
    count, confidence, accuracy (the share of hits), accuracy_low and accuracy_high, the exact
    interval for independent images (`intervals.exact_interval`). Empty bins are NaN.
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
