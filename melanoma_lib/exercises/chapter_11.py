"""The exercises of chapter 11: risk and coverage, a promise, and what sets are calibrated on."""

from collections.abc import Callable

import numpy as np

from melanoma_lib.evaluation.conformal import conformal_quantile
from melanoma_lib.exercises import exercise, number, numbers, require, require_close


@exercise("11.1", "a function of (uncertainty, wrong) that returns one risk an image")
def risk_coverage_curve(answer: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(2)
    uncertainty, wrong = rng.permutation(12) / 12, rng.random(12) < 0.4
    order = np.argsort(uncertainty)
    count = np.arange(1, 13)
    right = np.cumsum(wrong[order]) / count
    mistakes = {
        "The least certain come first; they should be the first to be left out.":
            np.cumsum(wrong[order[::-1]]) / count,
        "That is in the order of the images; sort them by uncertainty first.":
            np.cumsum(wrong) / count,
        "Divide by the number of images that are answered, not of all.":
            np.cumsum(wrong[order]) / 12,
        "That is the accuracy; risk is the fraction of errors.": 1 - right,
    }  # fmt: skip
    hint = "The k-th number is the fraction of errors among the k most certain images."
    require_close(answer(uncertainty, wrong), right, hint, mistakes)


@exercise("11.2", "a function of (scores, coverage) that returns one number")
def quantile(answer: Callable[..., float]) -> None:
    rng = np.random.default_rng(0)
    for count, coverage in ((99, 0.9), (25, 0.8), (40, 0.95)):
        scores = rng.random(count)
        ordered = np.sort(scores)
        given, right = number(answer(scores, coverage)), conformal_quantile(scores, coverage)
        rank = int(np.ceil(count * coverage - 1e-9))
        hint = f"Of {count} scores at {coverage:.0%}: sort them, and take which rank of n + 1?"
        mistakes = {"Where is the + 1? A new case is one more, whose rank counts too.":
                    ordered[rank - 1]}  # fmt: skip
        if ordered[rank - 1] == right:
            mistakes = {}
        require_close(given, right, hint, mistakes, atol=1e-9)
    few = number(answer(rng.random(8), 0.9))
    require(few == np.inf, "Of 8 scores none is high enough for 90%: then the answer is infinite.")


@exercise("11.3", "two numbers of lesions")
def lesions_of_a_promise(answer: tuple[float, float]) -> None:
    none, one = answer
    mistakes = {
        "That is the rule of three, which is nearly right; compute 0.95 to the power of n.": 60,
        "With so many the chance is still above 5%.": 58,
    }
    hint = "By which n are n lesions without an error less likely than 5%, at a rate of 95%?"
    require_close(none, 59, hint, mistakes)
    mistakes = {"One error may be any of the n lesions: that is n chances.": 59}
    hint = "Add the chance of none, 0.95^n, and of exactly one, n x 0.05 x 0.95^(n - 1)."
    require_close(one, 93, hint, mistakes)


@exercise("11.4", "a function of (lesion_ids, seed) that returns row numbers")
def calibration_rows(answer: Callable[..., np.ndarray]) -> None:
    lesion_ids = np.array(["c", "a", "b", "a", "c", "c", "d", "a"] * 4)
    lesion_ids = np.char.add(lesion_ids, np.repeat(list("0123"), 8))
    drawn = set()
    for seed in range(60):
        rows = numbers(answer(lesion_ids, seed))
        require(rows.ndim == 1, f"Row numbers have one dimension, not {rows.ndim}.")
        whole = np.isfinite(rows).all() and (rows == rows.round()).all()
        inside = whole and ((rows >= 0) & (rows < len(lesion_ids))).all()
        require(inside, f"Row numbers are whole, from 0 to {len(lesion_ids) - 1}.")
        rows = rows.astype(int)
        chosen = lesion_ids[rows]
        hint = "A lesion occurs more than once: its images are no independent cases."
        require(len(set(chosen)) == len(chosen), hint)
        hint = f"{len(chosen)} of {len(set(lesion_ids))} lesions are left; none need be lost."
        require(len(chosen) == len(set(lesion_ids)), hint)
        again = numbers(answer(lesion_ids, seed))
        require(np.array_equal(again, rows), "The same seed gives other rows the second time.")
        drawn |= set(rows)
    hint = "Some images are never drawn. The new patient's may be any of a lesion's, so draw one."
    require(drawn == set(range(len(lesion_ids))), hint)
