"""Intervals that cover new lesions and new trainings, from several trainings of an architecture.

Lesions and trainings are crossed random factors: every training is judged on the same lesions.
That is the multi-reader multi-case design of radiology with trainings as readers (Obuchowski and
Rockette, 1995; Hillis, 2007). Trainings are nested in architectures: training 1 of one and training
1 of another share a number and nothing else, so no two of them make a pair (readers nested in
tests; Hillis, 2014).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtr, stdtr, stdtrit

from melanoma_lib.evaluation.bootstrap import (
    SEED,
    TAIL,
    UNDEFINED,
    difference,
    interval,
    p_value,
    resample,
)

DRAWS = 4000  # behind the interval of a probability of outperforming
MANY = 1e6  # degrees of freedom: a normal distribution
TINY = 1e-12  # a standard error that is rounding


class Resampled(NamedTuple):
    """A metric of the K trainings of one model, and its bootstrap over lesions.

    values: (K,); resamples: (resamples, K), the same resamples of lesions in every column and for
    every model; n_clusters: as in `bootstrap.interval`.
    """

    values: np.ndarray
    resamples: np.ndarray
    n_clusters: int | None = None


def resample_trainings(
    metric: Callable[..., np.ndarray], data: Iterable[tuple], weights: np.ndarray,
    n_clusters: int | None = None,
) -> Resampled:  # fmt: skip
    """A metric from the data of each training: the arguments of `metric`; see `resample`."""
    values, columns = zip(*(resample(metric, *each, weights=weights) for each in data), strict=True)
    return Resampled(np.array(values), np.stack(columns, 1), n_clusters)


def estimate_of_trainings(trainings: Resampled, n_images: float | None = None) -> dict:
    """The mean of a metric over trainings, with a 95% interval for new lesions and new trainings.

    Fields: value, low, high, `trainings` (K), `variance` (see `variance_components`) and
    `fraction_trainings`, the part of the variance of the mean that more trainings would remove, in
    [0, 1]. The variance is Obuchowski and Rockette's, the degrees of freedom are Hillis's (2007).
    Where all values are in [0, 1] the interval is symmetric on the scale of log odds, so that its
    ends are, too (Pepe, 2003). It is never narrower than the interval of the lesions alone.
    `n_images` as in `bootstrap.interval`.

    One training cannot say how another would differ: its estimate is that of `bootstrap.interval`,
    for new lesions alone.
    """
    ((values, resampled, n_clusters),) = _finite(trainings)
    mean = values.mean()
    ends = interval(mean, resampled.mean(1), n_clusters, n_images)
    if len(values) < 2 or ends["value"] is None:
        return ends
    error, freedom, found = _variance_of_mean(values, resampled)
    if error > TINY:  # otherwise nothing varies, and the interval is what the lesions allow
        low, high = _student_interval(mean, error, freedom, values)
        if ends["low"] is not None:
            low, high = min(low, ends["low"]), max(high, ends["high"])
        ends |= {"low": float(low), "high": float(high)}
    return ends | found


def estimate_metric(
    metric: Callable[..., np.ndarray], data: Iterable[tuple], weights: np.ndarray,
    n_clusters: int | None = None, n_images: float | None = None,
) -> dict:  # fmt: skip
    """The `estimate_of_trainings` of a metric, from what `resample_trainings` takes."""
    return estimate_of_trainings(resample_trainings(metric, data, weights, n_clusters), n_images)


def resample_fractions(
    cases: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    lesion_ids: np.ndarray,
    weights: np.ndarray,
    base: np.ndarray | None = None,
) -> dict[str, tuple[Resampled, int]]:
    """By name, for each training the fraction of some images of which something holds; `n_images`.

    Of each training the event and the images among which it is counted, both boolean (n,).
    `base` (n,) counts images other than equally, for example by 1 / the images of their lesion;
    what is counted are lesions then. `weights` are those of the bootstrap, (resamples, n).
    """
    pairs = [case for of_trainings in cases.values() for case in of_trainings]
    among = np.stack([among for _, among in pairs], 1)  # (n, names and trainings)
    counted = among * (np.ones(len(among)) if base is None else base)[:, None]
    happened = counted * np.stack([event for event, _ in pairs], 1)
    both = np.hstack([happened, counted])
    sums = both.sum(0), weights @ both  # one product of matrices is many times faster than several
    with np.errstate(invalid="ignore"):
        values, resampled = (np.divide(*np.split(each, 2, -1)) for each in sums)
    found, start = {}, 0
    for name, of_trainings in cases.items():
        columns = slice(start, start := start + len(of_trainings))
        lesions = min(len(np.unique(lesion_ids[rows])) for _, rows in of_trainings)
        n_images = lesions if base is not None else int(among[:, columns].sum(0).min())
        found[name] = Resampled(values[columns], resampled[:, columns], lesions), n_images
    return found


def estimate_fractions(
    cases: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    lesion_ids: np.ndarray,
    weights: np.ndarray,
    base: np.ndarray | None = None,
) -> dict[str, dict]:
    """The estimates of fractions of images, or of lesions with `base`, over trainings.

    Arguments as of `resample_fractions`; by name, results as of `estimate_of_trainings`.
    """
    found = resample_fractions(cases, lesion_ids, weights, base)
    return {name: estimate_of_trainings(*resampled) for name, resampled in found.items()}


def paired_difference(first: Resampled, second: Resampled) -> dict:
    """The mean of `first` minus that of `second`, where training n of the two are a pair.

    For the same trainings judged in two ways, or for trainings that share all but one thing, as
    with and without leakage. The K differences are analysed as the values of K trainings are
    in `estimate_of_trainings`, but an interval is not held above 0 where all of them are. Fields:
    value, low, high, `p` (two-sided, of no difference); with K of 2 and more `trainings`
    (K), and `variance` and `fraction_trainings` of the differences. The interval and p of one pair
    are those of the bootstrap and cover lesions alone.
    """
    both = _finite(first, second)
    values, resampled = (one - other for one, other in zip(both[0][:2], both[1][:2], strict=True))
    means = [(values.mean(), resampled.mean(1), clusters) for values, resampled, clusters in both]
    ends = difference(*means) | {"p": p_value(resampled.mean(1))}
    if len(values) < 2 or ends["value"] is None:
        return ends
    error, freedom, found = _variance_of_mean(values, resampled)
    return ends | _student_test(ends["value"], error, freedom) | found


def difference_of_trainings(first: Resampled, second: Resampled) -> dict:
    """The mean of `first` minus that of `second`, with an interval for new lesions and trainings.

    Fields: value, low, high, `p` (two-sided, of no difference), `trainings` (K of either) and
    `fraction_trainings` as in `estimate_of_trainings`. Readers nested in tests (Hillis, 2014),
    but the mean squares of the two are not pooled, because architectures may differ in the number
    of their trainings and in how much these vary (Welch, 1947). If either was trained once, the
    interval and p are those of the bootstrap and cover lesions alone.
    """
    both = _finite(first, second)
    counts = [len(values) for values, *_ in both]
    means = [(values.mean(), resampled.mean(1), clusters) for values, resampled, clusters in both]
    ends = difference(*means) | {"p": p_value(means[0][1] - means[1][1])}
    if min(counts) < 2 or ends["value"] is None:
        return ends
    of_trainings, of_lesions = _variance_of_difference(both)
    error, freedom = _satterthwaite(of_lesions, of_trainings, counts)
    return ends | _student_test(ends["value"], error, freedom) | {
        "trainings": counts,
        "fraction_trainings": _fraction(sum(of_trainings), of_lesions),
    }


def probability_of_outperforming(
    first: Resampled, second: Resampled, more_is_better: bool = True
) -> dict[str, float | None]:
    """The probability that a new training of `first` beats a new training of `second`.

    Each is trained once more and both are judged on the same new lesions, as many as here: every
    source of variance varies (Bouthillier et al., 2021). The value is that of normal distributions
    with the means and variances found. The interval is the percentiles of the probability over
    means and variances drawn around them, as much as K trainings and the lesions leave them
    uncertain (Weerahandi and Johnson, 1992). Value, low and high in [0, 1]; None where an
    architecture was trained once, or where nothing varies.
    """
    both = _finite(first, second)
    counts = np.array([len(values) for values, *_ in both])
    better = (both[0][0].mean() - both[1][0].mean()) * (1 if more_is_better else -1)
    if counts.min() < 2 or not np.isfinite(better) or len(both[0][1]) < 2:
        return dict(UNDEFINED)
    of_trainings, of_lesions = _variance_of_difference(both)
    of_one = np.array(of_trainings) * counts  # the variance of single trainings
    if of_one.sum() + of_lesions <= TINY**2:
        return dict(UNDEFINED)
    generator = np.random.default_rng(SEED)
    drawn = of_one * (counts - 1) / generator.chisquare(counts - 1, size=(DRAWS, 2))
    error = np.sqrt((drawn / counts).sum(1) + of_lesions)
    means = better + error * generator.normal(size=DRAWS)
    low, high = np.quantile(ndtr(means / np.sqrt(drawn.sum(1) + of_lesions)), [TAIL, 1 - TAIL])
    value = ndtr(better / np.sqrt(of_one.sum() + of_lesions))
    return {"value": float(value), "low": float(low), "high": float(high)}


def variance_components(values: np.ndarray, covariance: np.ndarray) -> dict[str, float]:
    """The variance of one training's metric on a test split like this one, in three parts.

    `values` (K,) with K at least 2, `covariance` (K, K) of their resamples. In the metric's units
    squared, none below 0 (an estimate below 0 counts as 0):

    - `lesions`: what all trainings share, the covariance of two trainings over the resamples;
    - `interaction`: what they do not share of their variance over the resamples;
    - `trainings`: by how much the trainings vary beyond the interaction.

    The mean of K trainings has the variance lesions + (trainings + interaction) / K. Obuchowski and
    Rockette (1995) call them Cov2, Var - Cov2, and MS(R) - Var + Cov2.
    """
    count = len(values)
    of_one = np.trace(covariance) / count
    shared = (covariance.sum() - np.trace(covariance)) / (count * (count - 1))
    lesions = max(float(shared), 0.0)
    interaction = max(float(of_one) - lesions, 0.0)
    trainings = max(float(values.var(ddof=1)) - interaction, 0.0)
    return {"lesions": lesions, "interaction": interaction, "trainings": trainings}


def interval_half_width(
    variance: dict[str, float], trainings: int, lesion_multiple: float = 1.0
) -> float:
    """Half the width of the interval that so many trainings and test lesions would give.

    `variance` as of `variance_components`; `trainings`, at least 2; `lesion_multiple`, of the test
    lesions there are: what varies with the lesions shrinks with their number. In the metric's
    units.
    """
    of_lesions = variance["lesions"] / lesion_multiple
    of_trainings = (variance["trainings"] + variance["interaction"] / lesion_multiple) / trainings
    error, freedom = _satterthwaite(of_lesions, [of_trainings], [trainings])
    return float(error * stdtrit(freedom, 1 - TAIL))


def _finite(*trainings: Resampled) -> list[Resampled]:
    """As arrays, with the resamples on which the metric is defined for every training."""
    arrays = []
    for values, resampled, clusters in trainings:
        values = np.atleast_1d(np.asarray(values, float))
        arrays.append((values, np.asarray(resampled, float).reshape(-1, len(values)), clusters))
    defined = np.isfinite(np.hstack([resampled for _, resampled, _ in arrays])).all(1)
    return [(values, resampled[defined], clusters) for values, resampled, clusters in arrays]


def _variance_of_mean(values: np.ndarray, resampled: np.ndarray) -> tuple[float, float, dict]:
    """Standard error and degrees of freedom of a mean over trainings, and what is told of them."""
    variance = variance_components(values, np.cov(resampled, rowvar=False))
    of_trainings = (variance["trainings"] + variance["interaction"]) / len(values)
    error, freedom = _satterthwaite(variance["lesions"], [of_trainings], [len(values)])
    fraction = _fraction(of_trainings, variance["lesions"])
    found = {"trainings": len(values), "variance": variance, "fraction_trainings": fraction}
    return error, freedom, found


def _student_test(difference: float, error: float, freedom: float) -> dict[str, float]:
    """Student's interval and two-sided p of a difference; {} where nothing varies."""
    if error <= TINY:
        return {}
    low, high = difference + error * stdtrit(freedom, [TAIL, 1 - TAIL])
    p = 2 * stdtr(freedom, -abs(difference) / error)
    return {"low": float(low), "high": float(high), "p": float(p)}


def _variance_of_difference(both: list[Resampled]) -> tuple[list[float], float]:
    """The variance of a difference of means: due to the trainings of either, and to the lesions."""
    parts = [
        variance_components(values, np.cov(resampled, rowvar=False))
        for values, resampled, _ in both
    ]
    of_trainings = [
        (part["trainings"] + part["interaction"]) / len(values)
        for part, (values, *_) in zip(parts, both, strict=True)
    ]
    across = np.cov(*(resampled.mean(1) for _, resampled, _ in both))[0, 1]  # Cov3 of Hillis
    return of_trainings, max(sum(part["lesions"] for part in parts) - 2 * float(across), 0.0)


def _student_interval(
    mean: float, error: float, freedom: float, values: np.ndarray
) -> tuple[float, float]:
    """The ends of Student's interval, on the scale of log odds for values in [0, 1]."""
    quantiles = stdtrit(freedom, [TAIL, 1 - TAIL])
    if values.min() >= 0 and values.max() <= 1 and 0 < mean < 1:
        return expit(logit(mean) + error / (mean * (1 - mean)) * quantiles)
    return mean + error * quantiles


def _satterthwaite(
    of_lesions: float, of_trainings: list[float], counts: list[int]
) -> tuple[float, float]:
    """Standard error, and degrees of freedom when the lesions' part is known (Hillis, 2007)."""
    variance = of_lesions + sum(of_trainings)
    uncertain = sum(part**2 / (k - 1) for part, k in zip(of_trainings, counts, strict=True))
    freedom = variance**2 / uncertain if uncertain > 0 else MANY
    return variance**0.5, min(freedom, MANY)


def _fraction(of_trainings: float, of_lesions: float) -> float | None:
    """How much of a variance is due to the trainings; None where nothing varies."""
    variance = of_trainings + of_lesions
    return float(of_trainings / variance) if variance > TINY**2 else None
