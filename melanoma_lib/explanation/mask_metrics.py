"""Metrics of heat maps against lesion masks: heat inside, pointing game, intersection over union.

Throughout, `heat` is non-negative (n, height, width) and `masks` boolean of the same shape, True
on the lesion.
"""

import numpy as np

# Fractions of a map's maximum at which it may be binarised for the intersection over union.
THRESHOLDS = np.arange(1, 20, dtype=np.float32) / 20


def heat_inside(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Fraction of each map's heat inside the mask, (n,) in [0, 1]; NaN for a map of zeros.

    A uniform map scores the lesion's fraction of the area, the baseline to report beside it. Also
    called energy-based pointing game (Wang et al., 2020).
    """
    with np.errstate(invalid="ignore"):
        return (heat * masks).sum((1, 2)) / heat.sum((1, 2))


def pointing_game(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether each map's maximum lies inside the mask, (n,) in [0, 1]; NaN for a map of zeros.

    If several pixels share the maximum, the fraction of them inside, so that a uniform map scores
    the lesion's fraction of the area. Without the original's tolerance of 15 pixels (Zhang et
    al., 2016).
    """
    peak = heat.max((1, 2), keepdims=True)
    hottest = (heat == peak) & (peak > 0)
    with np.errstate(invalid="ignore"):
        return (hottest & masks).sum((1, 2)) / hottest.sum((1, 2))


def iou_at_thresholds(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of the mask and each map binarised at `THRESHOLDS`.

    (n, thresholds) in [0, 1]; NaN for a map of zeros. `heat` must have maximum 1 in each map; a
    pixel is hot if it is at or above the threshold.
    """
    hot, hot_inside = [], []  # pixels by threshold and map
    for threshold in THRESHOLDS:
        binary = heat >= threshold
        hot.append(_count(binary))
        hot_inside.append(_count(binary & masks))
    hot, hot_inside = np.transpose(hot), np.transpose(hot_inside)
    with np.errstate(invalid="ignore"):
        iou = hot_inside / (hot + masks.sum((1, 2))[:, None] - hot_inside)
    return np.where(heat.any((1, 2))[:, None], iou, np.nan)


def _count(binary: np.ndarray) -> list[int]:
    return [np.count_nonzero(image) for image in binary]  # several times faster than sum((1, 2))


def centre_prior(size: int) -> np.ndarray:
    """A Gaussian in the middle of the image, (size, size) in (0, 1], the same for every image.

    A baseline: lesions are photographed in the middle. Its standard deviation is a quarter of
    the side.
    """
    axis = (np.arange(size) + 0.5) / size - 0.5
    return np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 0.25**2))
