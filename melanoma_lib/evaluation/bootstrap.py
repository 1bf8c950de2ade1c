"""Confidence intervals by the cluster bootstrap: lesions are resampled, with all their images.

An estimate is a dictionary with `value`, `low` and `high`, None where they are not defined.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import betaincinv

from melanoma_lib.evaluation.metrics import BINNED

RESAMPLES = 2000
SEED = 42
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2  # probability beyond either end of an interval
MIN_LESIONS = 10  # with fewer, resamples say too little about how an estimate varies
UNDEFINED = dict.fromkeys(("value", "low", "high"))  # an estimate of nothing


def bootstrap_weights(
    lesion_ids: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """How often each image is drawn when lesions are drawn with replacement, (resamples, n).

    The same ids in the same order give the same resamples, so that differences between models
    are paired (cluster bootstrap; Field and Welsh, 2007).
    """
    lesions, lesion_of_image = np.unique(lesion_ids, return_inverse=True)
    generator = np.random.default_rng(seed)
    equal = np.full(len(lesions), 1 / len(lesions))
    drawn = generator.multinomial(len(lesions), equal, size=resamples)
    # An image's weights lie side by side in memory, because metrics pick and sort images.
    return np.ascontiguousarray(drawn.T, dtype=float)[lesion_of_image].T


def exact_interval(hits: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high end of the exact binomial interval for `hits` of `count` independent trials.

    Scalars or arrays; both ends in [0, 1], NaN where the count is 0 (Clopper and Pearson, 1934).
    """
    hits, count = np.asarray(hits, float), np.asarray(count, float)
    low = np.where(hits > 0, betaincinv(hits, count - hits + 1, TAIL), 0)
    high = np.where(hits < count, betaincinv(hits + 1, count - hits, 1 - TAIL), 1)
    return np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan)


def resample(
    metric: Callable[..., np.ndarray], *data: object, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """A metric's value on the images as they are, and on all resamples, (resamples,).

    `metric(*data, w)` is called once with w = None and once with all `weights` (resamples, n). A
    binned calibration error is biased upwards when images repeat: its resamples are shifted so
    that their median is the value.
    """
    value, resampled = float(metric(*data, None)), metric(*data, weights)
    if getattr(metric, "__wrapped__", metric) in BINNED:  # see `metrics.one_vs_rest`
        resampled = np.maximum(resampled + value - np.nanmedian(resampled), 0)
    return value, resampled


def interval(
    value: float,
    resampled: np.ndarray,
    n_clusters: int | None = None,
    n_images: float | None = None,
) -> dict[str, float | None]:
    """The estimate of a metric: its value with a 95% interval, in the metric's own units.

    The ends are percentiles of the resamples, but for two cases in which those are too narrow:

    - A fraction of `n_images`, such as a sensitivity, has the exact binomial interval at its
      effective sample size: the number of independent images that would vary like the resamples,
      at most `n_images` (Korn and Graubard, 1998). With fewer than `MIN_LESIONS` lesions, or
      where no resample differs, the effective sample size is `n_clusters`, the lesions these
      images show.
    - Any other metric that no resample changes, such as an AUC of 1, has the exact interval for
      `n_clusters` trials: the lesions of the smallest group it depends on. Without `n_clusters`
      it has no interval.
    """
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return dict(UNDEFINED)
    if n_clusters and (n_images or not varies(resampled)):
        effective = n_clusters
        if varies(resampled) and n_clusters >= MIN_LESIONS:
            effective = min(value * (1 - value) / resampled.var(), n_images)
        low, high = exact_interval(value * effective, effective)
    elif varies(resampled):
        low, high = np.quantile(resampled, [TAIL, 1 - TAIL])
    else:
        return {"value": float(value), "low": None, "high": None}
    return {"value": float(value), "low": float(low), "high": float(high)}


def varies(resampled: np.ndarray) -> bool:
    """Whether the finite resamples (resamples,) differ at all."""
    return np.nanmax(resampled) - np.nanmin(resampled) > 1e-12


def difference(first: tuple, second: tuple) -> dict[str, float | None]:
    """The estimate of `first` minus `second`, each value, resamples and `n_clusters`.

    Two models whose difference no resample changes may still differ on other lesions: by as much
    as the exact interval for 0 of `n_clusters` lesions allows.
    """
    estimated = interval(first[0] - second[0], first[1] - second[1])
    n_clusters = [bootstrapped[2] for bootstrapped in (first, second)]
    if estimated["value"] is not None and estimated["low"] is None and all(n_clusters):
        margin = float(exact_interval(0, min(n_clusters))[1])
        low, high = estimated["value"] - margin, estimated["value"] + margin
        estimated |= {"low": max(low, -1.0), "high": min(high, 1.0)}
    return estimated


def estimate(
    metric: Callable[..., np.ndarray], *data: object, weights: np.ndarray,
    n_clusters: int | None = None, n_images: int | None = None,
) -> dict[str, float | None]:
    """The estimate of a metric on some data; see `resample` and `interval`."""
    return interval(*resample(metric, *data, weights=weights), n_clusters, n_images)


def transform_decreasing(estimated: Mapping, function: Callable[[float], float]) -> dict:
    """An estimate transformed by a decreasing function, which swaps the ends of its interval."""
    if estimated["value"] is None:
        return dict(estimated)
    ends = {"value": "value", "low": "high", "high": "low"}
    return {name: float(function(estimated[other])) for name, other in ends.items()}


def format_estimate(estimated: Mapping) -> str:
    """`0.892 [0.874, 0.909]`, or `9.1 [0.0, 34.8]` for a count; a dash for what is not defined."""
    numbers = [estimated[name] for name in ("value", "low", "high")]
    if numbers[0] is None:
        return "–"
    digits = 3 if max(abs(number or 0) for number in numbers) < 10 else 1
    value, low, high = ("–" if number is None else f"{number:.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def format_value(value: object) -> str:
    """An estimate as `0.892 [0.874, 0.909]`, a number with three decimals, a text unchanged."""
    if isinstance(value, dict):
        return format_estimate(value)
    if value is None:
        return "–"
    if isinstance(value, float):
        return "<0.001" if 0 < value < 0.001 else f"{value:.3f}"
    return str(value)


def format_estimates(value: object) -> object:
    """Results, dictionaries and lists in each other, in which every estimate is its text."""
    if isinstance(value, Mapping):
        is_estimate = value.keys() >= UNDEFINED.keys()
        return (format_estimate(value) if is_estimate
                else {name: format_estimates(inner) for name, inner in value.items()})  # fmt: skip
    return [format_estimates(inner) for inner in value] if isinstance(value, list) else value


def p_value(differences: np.ndarray) -> float | None:
    """Two-sided p-value of no difference, from two models' resampled differences, (resamples,).

    Twice the fraction of resamples on the far side of zero, never below 2 / (resamples + 1); None
    where no difference is defined (Davison and Hinkley, 1997).
    """
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, float(2 * (1 + tail) / (1 + len(differences))))
