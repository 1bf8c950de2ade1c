"""Heat maps against lesion masks: heat inside, the pointing game, intersection over union."""

import numpy as np

SHARES = np.arange(1, 20, dtype=np.float32) / 20  # of a map's maximum: where it may be cut


def heat_inside(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each map's heat that lies inside the lesion mask, (n,); NaN for a map of zeros.

    A map that knows nothing scores the lesion's share of the area: report it beside this.
    """
    with np.errstate(invalid="ignore"):
        return (heat * masks).sum((1, 2)) / heat.sum((1, 2))


def pointing_game(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether each map's hottest pixel lies inside the mask, 0 or 1 (n,); NaN for a map of zeros.

    Of several hottest pixels the share that does, so that a uniform map scores the lesion's
    share of the area. Without the tolerance of 15 pixels of the original (Zhang et al., 2016).
    """
    peak = heat.max((1, 2), keepdims=True)
    hottest = (heat == peak) & (peak > 0)
    with np.errstate(invalid="ignore"):
        return (hottest & masks).sum((1, 2)) / hottest.sum((1, 2))


def overlaps(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of the mask and the map cut at each of `SHARES`, (n, shares).

    `heat` is a share of each map's maximum; what reaches the cut belongs to it. NaN for a map
    of zeros.
    """
    cut, inside = [], []  # pixels at or above each share
    for share in SHARES:
        reached = heat >= share
        cut.append(_count(reached))
        inside.append(_count(reached & masks))
    cut, inside = np.transpose(cut), np.transpose(inside)
    with np.errstate(invalid="ignore"):
        iou = inside / (cut + masks.sum((1, 2))[:, None] - inside)
    return np.where(heat.any((1, 2))[:, None], iou, np.nan)


def _count(flags: np.ndarray) -> list[int]:
    return [np.count_nonzero(one) for one in flags]  # several times as fast as a sum along axes


def centre_prior(size: int) -> np.ndarray:
    """A map that only knows that lesions lie in the middle: a Gaussian of a quarter of the side."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    return np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 0.25**2))
