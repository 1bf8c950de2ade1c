"""Calibration: one temperature fitted on validation, and reliability before and after."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from melanoma_lib.metrics import ECE_BINS, bin_of, nll
from melanoma_lib.predictions import softmax

BOUNDS = (0.05, 20.0)  # temperatures outside these mean that something else is wrong


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T > 0 for which softmax(logits / T) has the least negative log-likelihood.

    Bounded search on log T, where the likelihood has one minimum. Dividing by T changes no
    decision, only how sure it sounds (Guo et al., 2017). A class that is missing from the
    labels is no error.
    """
    result = minimize_scalar(
        lambda log_t: nll(labels, softmax(logits / np.exp(log_t))),
        bounds=np.log(BOUNDS),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(np.exp(result.x))


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Confidence against accuracy of the top class in equal-width bins, one row a bin.

    Columns low, high, count, confidence, accuracy, accuracy_low, accuracy_high; the interval
    is exact for independent images at 95 % (Clopper and Pearson, 1934). Empty bins are NaN.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bins = bin_of(confidence)
    count = np.bincount(bins, minlength=ECE_BINS)
    hits = np.bincount(bins, correct, ECE_BINS)
    edges = np.linspace(0, 1, ECE_BINS + 1)
    with np.errstate(invalid="ignore"):
        low = np.where(hits > 0, beta.ppf(0.025, hits, count - hits + 1), 0.0)
        high = np.where(hits < count, beta.ppf(0.975, hits + 1, count - hits), 1.0)
        table = pd.DataFrame(
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
    table.loc[count == 0, ["accuracy_low", "accuracy_high"]] = np.nan
    return table
