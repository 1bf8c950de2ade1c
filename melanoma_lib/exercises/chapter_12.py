"""The exercises of chapter 12: schedule, class weights, prevalence, what may be tuned on what."""

from collections.abc import Callable, Mapping

import numpy as np

from melanoma_lib.data.torch_dataset import undersampled_counts
from melanoma_lib.exercises import call, exercise, number, require, require_close
from melanoma_lib.training.recipe import one_cycle


@exercise("12.1", "a function of the progress, from 0 to 1, that returns a fraction of the peak")
def own_schedule(answer: Callable[[float], float]) -> None:
    ends = {"It begins at 0.": 0.0, "It ends at 0.": 1.0}
    for hint, progress in ends.items():
        require(abs(number(answer(progress))) < 1e-6, hint)
    require(abs(number(answer(0.2)) - 1) < 1e-6, "After a fifth it is at its peak, 1.")
    for progress in (0.05, 0.1, 0.4, 0.6, 0.9):
        given, straight = number(answer(progress)), np.interp(progress, [0, 0.2, 1], [0, 1, 0])
        mistakes = {"That is a straight line; use half a wave of the cosine.": straight}
        hint = f"After {progress:.0%} of the training it is not {given:.3f}."
        require_close(given, one_cycle(progress), hint, mistakes, atol=1e-4)


@exercise("12.2", "three numbers, the gradient for each logit")
def weighted_gradient(answer: tuple[float, float, float]) -> None:
    gradient = np.array([0.7, 0.2, 0.1 - 1])
    one = "The weight is that of the image, so it multiplies all three numbers."
    mistakes = {
        "That is the gradient without the weight.": gradient,
        "Its sign is that of the step; the gradient points uphill.": -5 * gradient,
        one: gradient * [1, 1, 5],
    }
    hint = "Without a weight it is probability minus truth; the weight multiplies the loss."
    require_close(answer, 5 * gradient, hint, mistakes)


@exercise("12.3", "the code of a diagnosis, such as 'nv'")
def balanced_decision(answer: str) -> None:
    require(answer != "nv", "That is the most probable one; divide by how frequent each is.")
    require(answer != "mel", "Nearly: one of the others exceeds its frequency by more.")
    require(answer == "bcc", "Divide each probability by its frequency and take the largest.")


@exercise("12.4", "a probability")
def corrected_probability(answer: float) -> None:
    odds = 0.8 / 0.2 * 0.1 / 0.9
    mistakes = {
        "Those are the odds; the probability is odds / (1 + odds).": odds,
        "Both classes change: the two products must add up to 1.": 0.8 * 0.1 / 0.5,
        "The wrong way round: melanoma is rarer here than in training.": 36 / 37,
    }
    hint = "Multiply the odds of 4 to 1 by how much rarer melanoma is here, relative to nevi."
    require_close(answer, odds / (1 + odds), hint, mistakes, atol=0.002)


@exercise("12.5", "a function of (counts, fraction) that returns as many counts")
def own_undersampling(answer: Callable[[np.ndarray, float], np.ndarray]) -> None:
    for counts in ([80, 12, 8], [3, 9, 100, 3], [5, 5, 5]):
        for fraction in (0.2, 0.5, 0.9):
            given = np.asarray(call(answer, np.array(counts), fraction))
            kept = np.array(counts)
            kept[kept.argmax()] *= fraction
            mistakes = {"It should be that fraction of the epoch, not of the class.": kept}
            hint = f"For {counts} and {fraction} you return {given.tolist()}."
            right = undersampled_counts(np.array(counts), fraction)
            require_close(given, right, hint, mistakes, atol=1)


@exercise("12.6", "a dictionary with 'train', 'val' or 'test' for each decision")
def chosen_on(answer: Mapping[str, str]) -> None:
    right = {"weights": "train", "learning rate": "val", "temperature": "val", "recipe": "val",
             "threshold": "val", "the number in the abstract": "test"}  # fmt: skip
    require(set(answer) == set(right), f"The decisions are: {', '.join(right)}.")
    for decision, split in right.items():
        given = answer[decision]
        tuned = f"If test chooses the {decision}, nothing is left that could judge it."
        require(given == split or given != "test" or split == "test", tuned)
        learned = f"On training images every {decision} looks better than it is."
        require(given == split or given != "train", learned)
        require(given == split, f"Look at {decision!r} again.")
