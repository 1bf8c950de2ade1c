"""Numbers from probabilities, in NumPy alone.

Every metric takes optional image weights of shape (..., n) and returns shape (...): with none
it is the ordinary figure, with a row of weights a resample it is all resamples at once. One
definition serves the value and its interval (see `intervals`).
"""

from collections.abc import Callable

import numpy as np

ECE_BINS = 15  # equal-width bins of the top class's probability (Guo et al., 2017)


def _weights(labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(len(labels)) if weights is None else weights


def _one_hot(index: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size)[index]


def confusion_matrix(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weight of images by true class (rows) and predicted class (columns), (..., c, c)."""
    classes = probabilities.shape[1]
    cells = _one_hot(labels * classes + probabilities.argmax(1), classes**2)
    table = _weights(labels, weights) @ cells
    return table.reshape(*table.shape[:-1], classes, classes)


def accuracy(labels, probabilities, weights=None) -> np.ndarray:
    """Share of images whose most probable class is the true one."""
    matrix = confusion_matrix(labels, probabilities, weights)
    return np.trace(matrix, axis1=-2, axis2=-1) / matrix.sum((-2, -1))


def balanced_accuracy(labels, probabilities, weights=None) -> np.ndarray:
    """Mean over the classes that occur of the share found (recall)."""
    matrix = confusion_matrix(labels, probabilities, weights)
    with np.errstate(invalid="ignore"):
        recall = np.diagonal(matrix, axis1=-2, axis2=-1) / matrix.sum(-1)
    return np.nanmean(recall, -1)


def macro_f1(labels, probabilities, weights=None) -> np.ndarray:
    """Mean over classes of the harmonic mean of precision and recall.

    Classes that neither occur nor are predicted are left out, as scikit-learn does.
    """
    matrix = confusion_matrix(labels, probabilities, weights)
    with np.errstate(invalid="ignore"):
        found = 2 * np.diagonal(matrix, axis1=-2, axis2=-1)
        f1 = found / (matrix.sum(-1) + matrix.sum(-2))
    return np.nanmean(f1, -1)


def auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Chance that a positive image scores above a negative one, ties counting half.

    `positive` boolean (n,), `scores` (n,). NaN where one of the two kinds is absent.
    """
    weights = _weights(positive, weights)
    order = np.argsort(scores, kind="stable")
    scores, weights, positive = scores[order], weights[..., order], positive[order]
    negative_below = np.cumsum(np.where(positive, 0, weights), -1)
    negative_below = np.concatenate(
        [np.zeros_like(negative_below[..., :1]), negative_below], axis=-1
    )
    first = np.searchsorted(scores, scores, "left")  # of the images with an equal score
    after = np.searchsorted(scores, scores, "right")
    wins = (negative_below[..., first] + negative_below[..., after]) / 2
    positives = np.where(positive, weights, 0)
    with np.errstate(invalid="ignore"):
        return (positives * wins).sum(-1) / (positives.sum(-1) * negative_below[..., -1])


def average_precision(positive, scores, weights=None) -> np.ndarray:
    """Precision averaged over recall, without interpolation, as in scikit-learn."""
    weights = _weights(positive, weights)
    order = np.argsort(-scores, kind="stable")
    scores, weights, positive = scores[order], weights[..., order], positive[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of each equal score
    found = np.cumsum(np.where(positive, weights, 0), -1)[..., last]
    taken = np.cumsum(weights, -1)[..., last]
    steps = np.diff(found, axis=-1, prepend=0)
    with np.errstate(invalid="ignore"):
        precision = np.where(taken > 0, found / taken, 0)
        return (steps * precision).sum(-1) / found[..., -1]


def macro_auc(labels, probabilities, weights=None) -> np.ndarray:
    """Mean one-vs-rest AUC over the classes that occur."""
    per_class = [
        auc(labels == column, probabilities[:, column], weights)
        for column in range(probabilities.shape[1])
    ]
    return np.nanmean(per_class, axis=0)


def ece(labels, probabilities, weights=None) -> np.ndarray:
    """Expected calibration error: mean distance of confidence from accuracy, by bin.

    15 equal-width bins of the top class's probability, each weighted by its images
    (Naeini et al., 2015; Guo et al., 2017).
    """
    confidence = probabilities.max(1)
    gap = (probabilities.argmax(1) == labels) - confidence
    bins = _one_hot(bin_of(confidence), ECE_BINS)
    weights = _weights(labels, weights)
    return np.abs((weights * gap) @ bins).sum(-1) / weights.sum(-1)


def bin_of(probability: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
    """The equal-width bin each probability falls into; a bin includes its upper edge."""
    return np.clip(np.ceil(probability * bins).astype(int) - 1, 0, bins - 1)


def brier(labels, probabilities, weights=None) -> np.ndarray:
    """Squared distance of the probabilities from the truth, summed over classes (Brier, 1950)."""
    distance = ((probabilities - _one_hot(labels, probabilities.shape[1])) ** 2).sum(1)
    return _mean(distance, _weights(labels, weights))


def nll(labels, probabilities, weights=None) -> np.ndarray:
    """Negative log-likelihood: the mean of -log p(true class), in nats."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return _mean(-np.log(np.maximum(chosen, np.finfo(float).tiny)), _weights(labels, weights))


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(-1)


def sensitivity(positive, scores, threshold: float, weights=None) -> np.ndarray:
    """Share of the positive images that score at or above the threshold."""
    weights = np.where(positive, _weights(positive, weights), 0)
    return _share(scores >= threshold, weights)


def specificity(positive, scores, threshold: float, weights=None) -> np.ndarray:
    """Share of the negative images that score below the threshold."""
    weights = np.where(positive, 0, _weights(positive, weights))
    return _share(scores < threshold, weights)


def _share(hit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return weights @ hit.astype(float) / weights.sum(-1)


def table_metrics(melanoma: int) -> dict[str, Callable]:
    """The figures of the results table by name, each a function of labels, probabilities, weights.

    `melanoma` is melanoma's column.
    """
    return {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "macro_auc": macro_auc,
        "melanoma_auc": lambda y, p, w=None: auc(y == melanoma, p[:, melanoma], w),
        "melanoma_average_precision": lambda y, p, w=None: average_precision(
            y == melanoma, p[:, melanoma], w
        ),
        "ece": ece,
        "brier": brier,
        "nll": nll,
    }
