"""Uncertainty: intervals by resampling lesions, so that images of one lesion move together."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import betaincinv

from melanoma_lib.metrics import BINNED

RESAMPLES = 2000
SEED = 42
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2  # the share left out on either side


def lesion_weights(
    lesion_ids: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """How often each image is drawn when lesions are drawn with replacement, (resamples, n).

    The same ids in the same order give the same resamples, so that differences between models
    are paired (cluster bootstrap; Field and Welsh, 2007).
    """
    lesions, lesion_of_image = np.unique(lesion_ids, return_inverse=True)
    generator = np.random.default_rng(seed)
    share = np.full(len(lesions), 1 / len(lesions))
    drawn = generator.multinomial(len(lesions), share, size=resamples)
    return drawn[:, lesion_of_image].astype(float)


def exact_interval(hits: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high end of the exact interval of a share, `hits` of `count` independent trials.

    Scalars or arrays; both ends in [0, 1], NaN where the count is 0 (Clopper and Pearson, 1934).
    """
    hits, count = np.asarray(hits, float), np.asarray(count, float)
    low = np.where(hits > 0, betaincinv(hits, count - hits + 1, TAIL), 0)
    high = np.where(hits < count, betaincinv(hits + 1, count - hits, 1 - TAIL), 1)
    return np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan)


def resample(
    metric: Callable[..., np.ndarray], *data: object, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """A metric's value, and its values on all resamples, (resamples,).

    `metric(*data, w)` is called once with no weights and once with all of them. A calibration
    error in bins grows when images are drawn repeatedly; its resamples are moved back so that
    their median is the value, and tell how far it moves.
    """
    value, resampled = float(metric(*data, None)), metric(*data, weights)
    if metric in BINNED:
        resampled = np.maximum(resampled + value - np.nanmedian(resampled), 0)
    return value, resampled


def interval(
    value: float, resampled: np.ndarray, lesions: int | None = None
) -> dict[str, float | None]:
    """A figure: `value` with the percentile interval of its resamples, `low` and `high`.

    None stands for a figure that is not defined, for example a sensitivity without any melanoma.
    `lesions` is for a share such as a sensitivity: how many lesions it is a share of. Near 0 and
    1 the percentiles of a share are too narrow, and at 0 or 1 they claim certainty. A share has
    the exact interval for as many independent lesions as would vary like its resamples (Korn and
    Graubard, 1998); where nothing varies, for `lesions` of them. Any other figure that no
    resample changes, an AUC of 1 or the difference of a model and itself, has no interval.
    """
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return {"value": None, "low": None, "high": None}
    varies = np.ptp(resampled) > 1e-12
    if not lesions and not varies:
        return {"value": float(value), "low": None, "high": None}
    if lesions:
        known = 0 < value < 1 and varies
        effective = value * (1 - value) / resampled.var() if known else lesions
        low, high = exact_interval(value * effective, effective)
    else:
        low, high = np.quantile(resampled, [TAIL, 1 - TAIL])
    return {"value": float(value), "low": float(low), "high": float(high)}


def estimate(
    metric: Callable[..., np.ndarray], *data: object, weights: np.ndarray,
    lesions: int | None = None,
) -> dict[str, float | None]:
    """A metric's figure; see `resample` and `interval`."""
    return interval(*resample(metric, *data, weights=weights), lesions=lesions)


def interval_text(figure: Mapping) -> str:
    """`0.892 [0.874, 0.909]`, or `9.1 [0.0, 34.8]` for a count; a dash for what is not defined."""
    numbers = [figure[end] for end in ("value", "low", "high")]
    if numbers[0] is None:
        return "–"
    digits = 3 if max(abs(number or 0) for number in numbers) < 10 else 1
    value, low, high = ("–" if number is None else f"{number:.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def p_value(differences: np.ndarray) -> float | None:
    """Two-sided p of no difference, from the resampled differences of two models, (resamples,).

    Twice the share of resamples on the far side of zero, never below 2 / (resamples + 1); None
    where no difference is defined (Davison and Hinkley, 1997).
    """
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, float(2 * (1 + tail) / (1 + len(differences))))
