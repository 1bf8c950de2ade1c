"""The exercises of chapter 06: the confusion matrix, and choosing a threshold by a criterion."""

from collections.abc import Callable

import numpy as np

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation import metrics
from melanoma_lib.evaluation.operating_points import choose_threshold, operating_curve


def from_the_matrix(answer: tuple[float, float], matrix: np.ndarray) -> str | None:
    sensitivity, specificity = answer
    row = CLASS_NAMES.index(MELANOMA)
    true_positives, melanomas = matrix[row, row], matrix[row].sum()
    predicted_positives = matrix[:, row].sum()
    others = matrix.sum() - melanomas

    def near(value: float, right: float) -> bool:
        return abs(value - right) < 0.0005

    if max(answer) > 1:
        return "Give fractions, from 0 to 1."
    false_positives = predicted_positives - true_positives
    right = true_positives / melanomas, (others - false_positives) / others
    if near(sensitivity, right[0]) and near(specificity, right[1]):
        return None
    if near(sensitivity, right[1]) and near(specificity, right[0]):
        return "Sensitivity comes first."
    if not near(sensitivity, right[0]):
        if predicted_positives and near(sensitivity, true_positives / predicted_positives):
            return "That is the positive predictive value; divide by the number of melanomas."
        return "Sensitivity needs one row only: what fraction of the melanomas is predicted so?"
    if near(specificity, (matrix.trace() - true_positives) / others):
        return "A wrong diagnosis other than melanoma is not a false positive."
    return "Specificity needs the six other rows: what fraction is not in melanoma's column?"


def lowest_threshold(answer: float) -> str | None:
    others = np.array([0.1, 0.3, 0.3, 0.4, 0.9])
    reached = (others < answer).mean()
    if reached < 0.8:
        return f"At {answer} the specificity is {reached:.0%}: which scores are below it?"
    return None if reached == 0.8 else f"{reached:.0%} is more than needed; go lower."


def screening(answer: tuple[int, int]) -> str | None:
    at_95, at_90 = answer
    for given, specificity in ((at_95, 0.95), (at_90, 0.90)):
        alarms = (10_000 - 50) * (1 - specificity)
        if abs(given - alarms) < 2:
            return "Those are the false positives; add the true positives."
        if abs(given - alarms - 50) < 2:
            return "Not every melanoma is a true positive."
        if abs(given - 40 - 10_000 * (1 - specificity)) < 2:
            return "False positives come from those who have no melanoma."
        if abs(given - alarms - 40) > 2:
            return f"At {specificity:.0%}: how many of 9,950 are predicted positive, and of 50?"
    return None


def own_rule(answer: Callable[..., float]) -> str | None:
    rng = np.random.default_rng(0)
    for digits in (6, 1):  # the second has many equal scores
        positive = np.resize([True, False, False, False], 200)
        scores = (rng.random(200) * 0.7 + 0.3 * positive).round(digits)
        for target in (0.95, 0.81, 1.0):
            mine = answer(positive, scores, target)
            reached = metrics.sensitivity(positive, scores, mine)
            if reached < target - 1e-12:
                return f"For a target of {target:.0%}, it reaches {reached:.1%} on its own images."
            best = choose_threshold(positive, scores, "sensitivity", target)
            lost = metrics.specificity(positive, scores, best)
            lost -= metrics.specificity(positive, scores, mine)
            if lost > 1e-12:
                return f"For {target:.0%}, it needlessly gives up {lost:.1%} of specificity."
    return None


def chosen_operating_point(
    answer: tuple[str, float, float], positive: np.ndarray, scores: np.ndarray
) -> str | None:
    criterion, target, threshold = answer
    names = ["sensitivity", "specificity"]
    if criterion not in names:
        return f"The criterion is one of {', '.join(names)}."
    if not 0 < target <= 1:
        return "The target is a fraction, above 0 and up to 1."
    measured = getattr(metrics, criterion)(positive, scores, threshold)
    if measured < target - 1e-12:
        return f"On validation the {criterion} is {measured:.2%}: the target is missed."
    other = names[1 - names.index(criterion)]
    best = choose_threshold(positive, scores, criterion, target)
    lost = getattr(metrics, other)(positive, scores, best)
    lost -= getattr(metrics, other)(positive, scores, threshold)
    if lost > 1e-9:
        return f"The target is met, but {lost:.1%} of {other} are given up."
    return None


def lowest_cost(answer: Callable[..., float]) -> str | None:
    rng = np.random.default_rng(0)
    positive = np.resize([True, False, False, False], 200)
    scores = (rng.random(200) * 0.7 + 0.3 * positive).round(2)

    def cost(threshold: float, price: float) -> float:
        predicted = scores >= threshold
        return price * (positive & ~predicted).sum() + (~positive & predicted).sum()

    for price in (1, 5, 1000):
        mine = cost(answer(positive, scores, price), price)
        best = min(cost(t, price) for t in operating_curve(positive, scores)["threshold"])
        if mine > best:
            return f"At a price of {price} your threshold costs {mine:g}; {best:g} is possible."
    only_high = np.array([False, False, True])
    predicted = np.array([0.8, 0.9, 0.1]) >= answer(only_high, np.array([0.8, 0.9, 0.1]), 1)
    return "A threshold above all scores must be possible too." if predicted.any() else None


CHECKS = {
    "06.1": from_the_matrix,
    "06.2": lowest_threshold,
    "06.3": screening,
    "06.4": own_rule,
    "06.5": chosen_operating_point,
    "06.6": lowest_cost,
}
