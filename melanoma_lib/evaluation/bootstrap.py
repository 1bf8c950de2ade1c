"""Uncertainty: intervals by resampling lesions, so that images of one lesion move together."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import betaincinv

from melanoma_lib.evaluation.metrics import BINNED

RESAMPLES = 2000
SEED = 42
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2  # the share left out on either side
MIN_LESIONS = 10  # resamples of fewer lesions say too little of how a figure varies


def bootstrap_weights(
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
    value: float, resampled: np.ndarray, lesions: int | None = None, share: bool = False
) -> dict[str, float | None]:
    """A figure: `value` with the percentile interval of its resamples, `low` and `high`.

    None stands for a figure that is not defined, for example a sensitivity without any melanoma.
    Percentiles are too narrow for a `share`, such as a sensitivity, near 0 and 1. It has the
    exact interval for as many independent lesions as would vary like its resamples (Korn and
    Graubard, 1998); where these tell nothing, for the `lesions` it is a share of. Any other
    figure of 0 or 1 that no resample changes has the exact interval for the `lesions` that decide
    it at least; without them it has none.
    """
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return {"value": None, "low": None, "high": None}
    if lesions and (share or not varies(resampled)):
        known = varies(resampled) and lesions >= MIN_LESIONS
        effective = value * (1 - value) / resampled.var() if known else lesions
        low, high = exact_interval(value * effective, effective)
    elif varies(resampled):
        low, high = np.quantile(resampled, [TAIL, 1 - TAIL])
    else:
        return {"value": float(value), "low": None, "high": None}
    return {"value": float(value), "low": float(low), "high": float(high)}


def varies(resampled: np.ndarray) -> bool:
    """Whether resamples, those that are defined, differ at all."""
    return np.nanmax(resampled) - np.nanmin(resampled) > 1e-12


def difference(first: tuple, second: tuple) -> dict[str, float | None]:
    """The figure of `first` minus that of `second`, each what `interval` takes.

    Two figures that differ alike on every resample may still differ on other lesions: as far as
    the exact interval of 0 reaches, for the lesions that decide them.
    """
    figure = interval(first[0] - second[0], first[1] - second[1])
    lesions = [drawn[2] for drawn in (first, second)]
    if figure["value"] is not None and figure["low"] is None and all(lesions):
        room = float(exact_interval(0, min(lesions))[1])
        ends = figure["value"] - room, figure["value"] + room
        figure |= {"low": max(ends[0], -1.0), "high": min(ends[1], 1.0)}
    return figure


def estimate(
    metric: Callable[..., np.ndarray], *data: object, weights: np.ndarray,
    lesions: int | None = None, share: bool = False,
) -> dict[str, float | None]:
    """A metric's figure; see `resample` and `interval`."""
    return interval(*resample(metric, *data, weights=weights), lesions, share)


def format_estimate(figure: Mapping) -> str:
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
