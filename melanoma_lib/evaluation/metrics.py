"""Metrics of predicted probabilities, in NumPy alone.

Every metric takes optional image weights of shape (..., n) and returns shape (...): without
weights the ordinary metric, with a row of weights per bootstrap resample its value on all
resamples at once. One definition serves the value and its interval (see `bootstrap`). `labels`
(n,) are class indices and `probabilities` (n, classes); of two classes, `positive` is boolean (n,)
and `scores` (n,), higher for positives.
"""

import functools
from collections.abc import Callable

import numpy as np

ECE_BINS = 15  # of confidence, in every calibration error (Guo et al., 2017)


def _weights(labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(len(labels)) if weights is None else weights


def _one_hot(index: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size)[index]


def confusion_matrix(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Number of images by true class (rows) and predicted class (columns), (..., c, c)."""
    classes = probabilities.shape[1]
    cells = _one_hot(labels * classes + probabilities.argmax(1), classes**2)
    table = _weights(labels, weights) @ cells
    return table.reshape(*table.shape[:-1], classes, classes)


def accuracy(labels, probabilities, weights=None) -> np.ndarray:
    """Fraction of images whose most probable class is the true one."""
    return weighted_mean(top_class(labels, probabilities)[1], weights)


def balanced_accuracy(labels, probabilities, weights=None) -> np.ndarray:
    """Mean recall over the classes that occur."""
    matrix = confusion_matrix(labels, probabilities, weights)
    with np.errstate(invalid="ignore"):
        recall = np.diagonal(matrix, axis1=-2, axis2=-1) / matrix.sum(-1)
    return np.nanmean(recall, -1)


def macro_f1(labels, probabilities, weights=None) -> np.ndarray:
    """Mean F1 score over classes, F1 being the harmonic mean of precision and recall.

    Classes that neither occur nor are predicted are left out, as scikit-learn does.
    """
    matrix = confusion_matrix(labels, probabilities, weights)
    with np.errstate(invalid="ignore"):
        found = 2 * np.diagonal(matrix, axis1=-2, axis2=-1)
        f1 = found / (matrix.sum(-1) + matrix.sum(-2))
    return np.nanmean(f1, -1)


def auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive image scores above a negative one.

    Ties count half. `positive` boolean (n,), `scores` (n,). NaN where positives or negatives are
    absent (Hanley and McNeil, 1982).
    """
    # Images first: the rows that are picked below are then whole rows of memory.
    weights = np.moveaxis(_weights(positive, weights), -1, 0)
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives])]
    below = np.cumsum(weights[negatives], 0)  # weight of the negatives up to each one
    below = np.concatenate([np.zeros_like(weights[:1]), below])
    first = np.searchsorted(scores[negatives], scores[positive], "left")
    after = np.searchsorted(scores[negatives], scores[positive], "right")
    wins = (below[first] + below[after]) / 2
    positives = weights[positive]
    with np.errstate(invalid="ignore"):
        return (positives * wins).sum(0) / (positives.sum(0) * below[-1])


def average_precision(positive, scores, weights=None) -> np.ndarray:
    """Precision averaged over recall, without interpolation, as in scikit-learn.

    NaN where positives are absent.
    """
    order = np.argsort(-scores, kind="stable")
    weights = np.moveaxis(_weights(positive, weights), -1, 0)[order]  # images first, as in `auc`
    scores, positive = scores[order], positive[order]
    if not positive.any():
        return np.full(weights.shape[1:], np.nan)
    # Images with equal scores are predicted positive together: look at the last of them.
    last = np.searchsorted(-scores, -scores[positive], "right") - 1
    positives = weights[positive]
    so_far = np.cumsum(positive)[last] - 1  # the last positive image at each score
    true_positive = np.cumsum(positives, 0)[so_far]
    predicted_positive = np.cumsum(weights, 0)[last]
    with np.errstate(invalid="ignore"):
        precision = np.where(predicted_positive > 0, true_positive / predicted_positive, 0)
        return (positives * precision).sum(0) / positives.sum(0)


def macro_auc(labels, probabilities, weights=None) -> np.ndarray:
    """Mean one-vs-rest AUC over the classes that occur."""
    per_class = [
        auc(labels == column, probabilities[:, column], weights)
        for column in range(probabilities.shape[1])
    ]
    return np.nanmean(per_class, axis=0)


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """The bin of equal width, 0 to 14, of each confidence; a bin includes its upper edge."""
    return np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)


def equal_mass_bin_of(confidence: np.ndarray) -> np.ndarray:
    """The bin, 0 to 14, of each confidence when the bins hold equal numbers of images.

    Images with equal confidence fall into one bin, so that ties can make a bin larger and the
    next one smaller.
    """
    below = np.searchsorted(np.sort(confidence), confidence, "left")
    return below * ECE_BINS // len(confidence)


def top_class(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, the probability of the most probable class, and whether that class is true.

    Both (n,): floats in [0, 1], and booleans.
    """
    return probabilities.max(1), probabilities.argmax(1) == labels


def _bin_gaps(
    confidence: np.ndarray, hit: np.ndarray, bins: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Absolute gap between hits and summed confidence, and number of images, by bin, (..., 15)."""
    member = _one_hot(bins, ECE_BINS)
    weights = _weights(hit, weights)
    return np.abs(weights @ (member * (hit - confidence)[:, None])), weights @ member


def _expected_gap(confidence, hit, bins, weights) -> np.ndarray:
    gaps, images = _bin_gaps(confidence, hit, bins, weights)
    return gaps.sum(-1) / images.sum(-1)


def ece(labels, probabilities, weights=None) -> np.ndarray:
    """Expected calibration error: the mean gap between confidence and accuracy over bins.

    15 equal-width bins of the top class's probability, each weighted by its images. In [0, 1]
    (Naeini et al., 2015; Guo et al., 2017).
    """
    confidence, hit = top_class(labels, probabilities)
    return _expected_gap(confidence, hit, bin_of(confidence), weights)


def ece_equal_mass(labels, probabilities, weights=None) -> np.ndarray:
    """Expected calibration error with bins that hold equal numbers of images, in [0, 1].

    No bin rests on a handful of images (Nixon et al., 2019). The edges are those of the
    unweighted images.
    """
    confidence, hit = top_class(labels, probabilities)
    return _expected_gap(confidence, hit, equal_mass_bin_of(confidence), weights)


def classwise_ece(labels, probabilities, weights=None) -> np.ndarray:
    """Mean over all classes of the calibration error of that class's own probability, in [0, 1].

    Each class against the rest, in equal-width bins (Nixon et al., 2019; Kull et al., 2019).
    """
    per_class = [
        class_ece(labels == column, probability, weights)
        for column, probability in enumerate(probabilities.T)
    ]
    return np.mean(per_class, axis=0)


def class_ece(positive, probability, weights=None) -> np.ndarray:
    """Expected calibration error of one class's own probability (n,), in equal-width bins.

    `positive` boolean (n,): whether an image has the class. In [0, 1].
    """
    return _expected_gap(probability, positive, bin_of(probability), weights)


def class_brier(positive, probability, weights=None) -> np.ndarray:
    """Squared error of one class's own probability (n,), in [0, 1]."""
    return weighted_mean((probability - positive) ** 2, weights)


def calibration_in_the_large(positive, probability, weights=None) -> np.ndarray:
    """Mean probability of one class, (n,), minus its frequency (Van Calster et al., 2019)."""
    return weighted_mean(probability - positive, weights)


def mce(labels, probabilities, weights=None) -> np.ndarray:
    """Maximum calibration error: the gap between confidence and accuracy in the worst bin.

    The bins are those of `ece`; empty bins do not count. In [0, 1]; noisy, because the worst bin
    may hold a single image (Naeini et al., 2015).
    """
    confidence, hit = top_class(labels, probabilities)
    gaps, images = _bin_gaps(confidence, hit, bin_of(confidence), weights)
    with np.errstate(invalid="ignore"):
        return np.fmax.reduce(gaps / images, -1)  # fmax passes over the NaN of an empty bin


# Biased upwards on resamples, which repeat images: see `bootstrap.resample`.
BINNED = (ece, ece_equal_mass, class_ece, classwise_ece, mce)


def brier(labels, probabilities, weights=None) -> np.ndarray:
    """Squared error of the probabilities, summed over classes, in [0, 2] (Brier, 1950)."""
    distance = ((probabilities - _one_hot(labels, probabilities.shape[1])) ** 2).sum(1)
    return weighted_mean(distance, weights)


def nll(labels, probabilities, weights=None) -> np.ndarray:
    """Negative log-likelihood: the mean of -log p(true class), in nats."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return weighted_mean(-np.log(np.maximum(chosen, np.finfo(float).tiny)), weights)


def weighted_mean(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean of one value an image, (n,), over the images or over each row of weights.

    NaN where all weights are 0, as when a resample holds no image of a small subgroup.
    """
    weights = _weights(values, weights)
    with np.errstate(invalid="ignore"):
        return weights @ values / weights.sum(-1)


def sensitivity(positive, scores, threshold: float, weights=None) -> np.ndarray:
    """Fraction of the positive images that score at or above the threshold."""
    return weighted_mean(scores >= threshold, _weights(positive, weights) * positive)


def specificity(positive, scores, threshold: float, weights=None) -> np.ndarray:
    """Fraction of the negative images that score below the threshold."""
    return weighted_mean(scores < threshold, _weights(positive, weights) * ~positive)


def one_vs_rest(metric: Callable, column: int) -> Callable:
    """A metric of two classes as one of several: the class of a column against all others."""

    @functools.wraps(metric)
    def of_several(labels, probabilities, weights=None):
        return metric(labels == column, probabilities[:, column], weights)

    return of_several


def table_metrics(melanoma: int) -> dict[str, Callable]:
    """The metrics of the results by name, each a function of labels, probabilities, weights.

    `melanoma` is the index of melanoma's column.
    """
    return {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "macro_auc": macro_auc,
        "melanoma_auc": one_vs_rest(auc, melanoma),
        "melanoma_average_precision": one_vs_rest(average_precision, melanoma),
        "ece": ece,
        "ece_equal_mass": ece_equal_mass,
        "classwise_ece": classwise_ece,
        "mce": mce,
        "brier": brier,
        "nll": nll,
    }
