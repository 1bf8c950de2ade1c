"""The exercises of chapter 06: the confusion matrix, and choosing a threshold by a criterion."""

from collections.abc import Callable

import numpy as np

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation import metrics
from melanoma_lib.evaluation.operating_points import choose_threshold, operating_curve
from melanoma_lib.exercises import exercise, number, require, require_close


@exercise("06.1", "two fractions from 0 to 1, sensitivity and specificity")
def rates_from_confusion_matrix(answer: tuple[float, float], matrix: np.ndarray) -> None:
    sensitivity, specificity = answer
    row = CLASS_NAMES.index(MELANOMA)
    true_positives, melanomas = matrix[row, row], matrix[row].sum()
    predicted_positives = matrix[:, row].sum()
    others = matrix.sum() - melanomas
    right = (others - (predicted_positives - true_positives)) / others  # the specificity
    ppv = "That is the positive predictive value; divide by the number of melanomas."
    mistakes = {"Sensitivity comes first.": right, ppv: true_positives / predicted_positives}
    hint = "Sensitivity needs one row only: what fraction of the melanomas is predicted so?"
    require_close(sensitivity, true_positives / melanomas, hint, mistakes, atol=0.0005)
    confused = "A wrong diagnosis other than melanoma is not a false positive."
    mistakes = {confused: (matrix.trace() - true_positives) / others}
    hint = "Specificity needs the six other rows: what fraction is not in melanoma's column?"
    require_close(specificity, right, hint, mistakes, atol=0.0005)


@exercise("06.2", "a threshold, one number")
def lowest_threshold(answer: float) -> None:
    reached = (np.array([0.1, 0.3, 0.3, 0.4, 0.9]) < number(answer)).mean()
    require(reached >= 0.8, f"At {answer} the specificity is {reached:.0%}: count again.")
    require(reached == 0.8, f"{reached:.0%} is more than needed; go lower.")


@exercise("06.3", "two numbers of lesions, at a specificity of 95% and of 90%")
def predicted_positives(answer: tuple[float, float]) -> None:
    for given, specificity in zip(answer, (0.95, 0.90), strict=True):
        alarms = (10_000 - 50) * (1 - specificity)
        of_all = 10_000 * (1 - specificity)
        mistakes = {
            "Those are the false positives; add the true positives.": alarms,
            "Not every melanoma is a true positive.": alarms + 50,
            "False positives come from those who have no melanoma.": of_all + 40,
        }
        hint = f"At {specificity:.0%}: how many of 9,950 are predicted positive, and of 50?"
        require_close(given, alarms + 40, hint, mistakes, atol=2)


@exercise("06.4", "a function of (positive, scores, target) that returns a threshold")
def own_threshold(answer: Callable[..., float]) -> None:
    rng = np.random.default_rng(0)
    for digits in (6, 1):  # the second has many equal scores
        positive = np.resize([True, False, False, False], 200)
        scores = (rng.random(200) * 0.7 + 0.3 * positive).round(digits)
        for target in (0.95, 0.81, 1.0):
            mine = number(answer(positive, scores, target))
            reached = metrics.sensitivity(positive, scores, mine)
            hint = f"For a target of {target:.0%}, it reaches {reached:.1%} on its own images."
            require(reached >= target - 1e-12, hint)
            best = choose_threshold(positive, scores, "sensitivity", target)
            lost = metrics.specificity(positive, scores, best)
            lost -= metrics.specificity(positive, scores, mine)
            hint = f"For {target:.0%}, it needlessly gives up {lost:.1%} of specificity."
            require(lost <= 1e-12, hint)


@exercise("06.5", "three things, criterion, target and threshold")
def chosen_operating_point(
    answer: tuple[str, float, float], positive: np.ndarray, scores: np.ndarray
) -> None:
    criterion, target, threshold = answer
    names = ["sensitivity", "specificity"]
    require(criterion in names, f"The criterion is one of {', '.join(names)}.")
    require(0 < target <= 1, "The target is a fraction, above 0 and up to 1.")
    threshold = number(threshold)
    measured = getattr(metrics, criterion)(positive, scores, threshold)
    hint = f"On validation the {criterion} is {measured:.2%}: the target is missed."
    require(measured >= target - 1e-12, hint)
    other = names[1 - names.index(criterion)]
    best = choose_threshold(positive, scores, criterion, target)
    lost = getattr(metrics, other)(positive, scores, best)
    lost -= getattr(metrics, other)(positive, scores, threshold)
    require(lost <= 1e-9, f"The target is met, but {lost:.1%} of {other} are given up.")


@exercise("06.6", "a function of (positive, scores, price) that returns a threshold")
def lowest_cost_threshold(answer: Callable[..., float]) -> None:
    rng = np.random.default_rng(0)
    positive = np.resize([True, False, False, False], 200)
    scores = (rng.random(200) * 0.7 + 0.3 * positive).round(2)

    def cost(threshold: float, price: float) -> float:
        predicted = scores >= threshold
        return price * (positive & ~predicted).sum() + (~positive & predicted).sum()

    for price in (1, 5, 1000):
        mine = cost(number(answer(positive, scores, price)), price)
        best = min(cost(t, price) for t in operating_curve(positive, scores)["threshold"])
        require(mine <= best, f"At a price of {price} yours costs {mine:g}; {best:g} is possible.")
    positive, scores = np.array([False, False, True]), np.array([0.8, 0.9, 0.1])
    hint = "A threshold above all scores must be possible too."
    require(number(answer(positive, scores, 1)) > scores.max(), hint)
