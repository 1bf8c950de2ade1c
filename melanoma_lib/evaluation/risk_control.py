"""Thresholds with a guarantee: a rate reaches its target on new lesions with stated confidence.

A threshold that reaches 95% on validation reaches it there; on new lesions it falls short about
every second time. Learn then test (Angelopoulos et al., 2021) asks for more on validation: so few
errors that, were the rate below its target, they would have been unlikely. Units are lesions, one
image each, because images of a lesion are not independent.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import bdtr

from melanoma_lib.evaluation.bootstrap import LEVEL, SEED, exact_interval
from melanoma_lib.evaluation.operating_points import choose_threshold

DRAWS = 2000  # of validation lesions, to see how often a target is reached


def allowed_errors(lesions: int, target: float) -> int | None:
    """How many errors on so many lesions still show that the rate is at least the target.

    The largest k for which k errors or fewer have at most the probability 1 - LEVEL while
    the rate is below its target (exact binomial tail); None where even no error shows it.
    """
    tails = bdtr(np.arange(lesions + 1), lesions, 1 - target)
    shown = np.count_nonzero(tails <= 1 - LEVEL + 1e-12)  # tails grow with the errors
    return shown - 1 if shown and lesions else None


def least_lesions(target: float) -> int | None:
    """With how many lesions, none of them an error, a rate is shown to be at least the target.

    None for a target of 1, which no number of lesions shows.
    """
    if target == 1:
        return None
    return math.ceil(math.log(1 - LEVEL) / math.log(target) - 1e-9)


def controlled_threshold(
    positive: np.ndarray, scores: np.ndarray, criterion: str, target: float
) -> float | None:
    """The threshold whose `criterion` reaches the target on new lesions with confidence `LEVEL`.

    `positive` boolean (n,) and `scores` (n,) of independent lesions, which nothing else was fitted
    to. Of the thresholds for which that is shown, the one that costs the other rate least; None
    where no threshold is. As thresholds are tested in order, from the one without errors on, up
    to the first that fails, none needs a correction for their number (Angelopoulos et al., 2021).
    """
    lesions = int((positive if criterion == "sensitivity" else ~positive).sum())
    errors = allowed_errors(lesions, target)
    if errors is None:
        return None
    return choose_threshold(positive, scores, criterion, (lesions - errors) / lesions)


def fraction_meeting_target(
    positive: np.ndarray,
    scores: np.ndarray,
    point: Mapping,
    lesions: tuple[int, int],
    draws: int = DRAWS,
) -> dict[str, dict]:
    """How often a threshold that is chosen on some lesions reaches its target on all of them.

    The lesions given stand for all that there are. As many melanomas and others as `lesions` says
    are drawn of them with replacement, as validation would be; the threshold of the operating
    `point` is chosen on the draw and judged on all. By `plain` (the target reached on the draw) and
    `controlled` (as `controlled_threshold`; None where so few lesions show nothing): `kept`, the
    fraction of draws whose threshold reaches the target, with the exact interval for so many
    draws, and `other_rate`, the mean of the rate that pays for it.
    """
    generator = np.random.default_rng(SEED)
    by_sensitivity = point["criterion"] == "sensitivity"
    kinds = (positive, ~positive) if by_sensitivity else (~positive, positive)
    counts = lesions if by_sensitivity else lesions[::-1]
    population, others = (np.sort(scores[kind]) for kind in kinds)
    drawn, of_others = (
        np.sort(generator.choice(group, (draws, count)), axis=1)
        for group, count in zip((population, others), counts, strict=True)
    )
    errors = {
        "plain": math.floor((1 - point["target"]) * counts[0] + 1e-9),
        "controlled": allowed_errors(counts[0], point["target"]),
    }
    found: dict = {}
    for name, allowed in errors.items():
        found[name] = None
        if allowed is None:
            continue
        if by_sensitivity:
            thresholds = drawn[:, allowed]
        else:
            thresholds = _next_score(drawn[:, counts[0] - 1 - allowed], drawn, of_others)
        below = [np.searchsorted(each, thresholds) / len(each) for each in (population, others)]
        reached, other = (1 - below[0], below[1]) if by_sensitivity else (below[0], 1 - below[1])
        meeting = int((reached >= point["target"] - 1e-12).sum())
        low, high = (float(end) for end in exact_interval(meeting, draws))
        found[name] = {
            "kept": {"value": meeting / draws, "low": low, "high": high},
            "other_rate": float(other.mean()),
        }
    return found


def _next_score(scores: np.ndarray, *drawn: np.ndarray) -> np.ndarray:
    """The lowest of each draw's scores, rows of (draws, n), above a score of it, (draws,).

    Just above the score where none is higher: a threshold as `choose_threshold` finds it.
    """
    higher = [np.where(each > scores[:, None], each, np.inf).min(1) for each in drawn]
    found = np.minimum(*higher)
    return np.where(np.isfinite(found), found, np.nextafter(scores, np.inf))
