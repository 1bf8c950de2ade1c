"""Uncertainty: intervals by resampling lesions, so that images of one lesion move together."""

from collections.abc import Callable

import numpy as np
from scipy.stats import beta

RESAMPLES = 2000
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2  # the share left out on either side


def lesion_weights(
    lesion_ids: np.ndarray, resamples: int = RESAMPLES, seed: int = 42
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
    low = np.where(hits > 0, beta.ppf(TAIL, hits, count - hits + 1), 0)
    high = np.where(hits < count, beta.ppf(1 - TAIL, hits + 1, count - hits), 1)
    return np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan)


def estimate(
    metric: Callable[..., np.ndarray],
    *data: object,
    weights: np.ndarray,
    lesions: int | None = None,
) -> dict[str, float | None]:
    """A metric's value with its percentile interval: `value`, `low`, `high`.

    `metric(*data, w)` is called once with no weights and once with all resamples. None stands
    for a figure that is not defined, for example a sensitivity without any melanoma.

    `lesions` is for a share such as a sensitivity: how many lesions it is a share of. When
    nothing was missed, or nothing found, no resample can show otherwise and the percentiles
    claim certainty; the interval of a share of 0 or 1 is therefore the exact one for that many
    independent lesions.
    """
    value = float(metric(*data, None))
    resampled = metric(*data, weights)
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return {"value": None, "low": None, "high": None}
    if lesions and value in (0, 1):
        low, high = exact_interval(value * lesions, lesions)
    else:
        low, high = np.quantile(resampled, [TAIL, 1 - TAIL])
    return {"value": value, "low": float(low), "high": float(high)}
