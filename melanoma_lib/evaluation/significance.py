"""Significance tests of a difference between two models, beside the intervals of `bootstrap`.

DeLong's and McNemar's tests treat images as independent. Several images may show one lesion,
which makes their p-values too small as a rule; the bootstrap over lesions accounts for that.
"""

import numpy as np
from scipy.special import bdtr, ndtr


def delong(
    positive: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray
) -> dict[str, float | None]:
    """DeLong's test that two models have the same AUC on the same images.

    `positive` boolean (n,), both scores (n,). Returns `auc_a`, `auc_b`, `difference` (a minus
    b), its `standard_error`, `z` and the two-sided `p`. The AUCs need one image of either kind,
    the rest two; without them they are None. Where nothing varies z is None, and p is 1 if the
    AUCs are equal, else 0. Images count as independent: see the head of this module (DeLong,
    DeLong and Clarke-Pearson, 1988; by midranks, Sun and Xu, 2014).
    """
    undefined = dict.fromkeys(("auc_a", "auc_b", "difference", "standard_error", "z", "p"))
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return undefined
    pairs = positives * negatives
    won_a, lost_a = _pairs_won(positive, scores_a)
    won_b, lost_b = _pairs_won(positive, scores_b)
    # Multiples of one half until here, so that equal models differ by exactly 0.
    difference = (won_a.sum() - won_b.sum()) / pairs
    results = undefined | {
        "auc_a": won_a.sum() / pairs, "auc_b": won_b.sum() / pairs, "difference": difference
    }
    if min(positives, negatives) > 1:
        variance = (won_a - won_b).var(ddof=1) / negatives**2 / positives
        variance += (lost_a - lost_b).var(ddof=1) / positives**2 / negatives
        results["standard_error"] = np.sqrt(variance)
        if variance > 0:
            results["z"] = difference / np.sqrt(variance)
            results["p"] = 2 * ndtr(-abs(results["z"]))
        else:
            results["p"] = float(difference == 0)
    return {name: None if value is None else float(value) for name, value in results.items()}


def _pairs_won(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many negatives each positive beats, and how many positives beat each negative.

    A tie counts half. An image's midrank among all, less that among its own kind, is the number
    of the other kind below it.
    """
    from scipy.stats import rankdata  # slow to import

    ranks = rankdata(scores)
    won = ranks[positive] - rankdata(scores[positive])
    below = ranks[~positive] - rankdata(scores[~positive])
    return won, positive.sum() - below


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, float]:
    """McNemar's exact test that two models are right equally often on the same images.

    Both boolean (n,). Returns `b`, the images that only the first model has right, `c`, those
    that only the second has, and the two-sided binomial `p`, which is 1 where they never
    differ. Images count as independent: see the head of this module (McNemar, 1947).
    """
    b = int((correct_a & ~correct_b).sum())
    c = int((~correct_a & correct_b).sum())
    return {"b": b, "c": c, "p": float(min(1, 2 * bdtr(min(b, c), b + c, 0.5)))}


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for multiple testing: controls the family-wise error rate.

    (k,) in, (k,) out in the same order, at most 1. NaN or None, a test that could not be made,
    stays NaN and does not count (Holm, 1979).
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)  # NaN comes last
    tests = np.isfinite(p_values).sum()
    steps = p_values[order] * (tests - np.arange(len(p_values)))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
