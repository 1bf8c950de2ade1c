"""Uncertainty: intervals by resampling lesions, so that images of one lesion move together."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


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


def estimate(
    metric: Callable[..., np.ndarray], *data: object, weights: np.ndarray
) -> dict[str, float | None]:
    """A metric's value with its percentile interval: `value`, `low`, `high`.

    `metric(*data, w)` is called once with no weights and once with all resamples. None stands
    for a figure that is not defined, for example a sensitivity without any melanoma.
    """
    value = float(metric(*data, None))
    resampled = metric(*data, weights)
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return {"value": None, "low": None, "high": None}
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}
