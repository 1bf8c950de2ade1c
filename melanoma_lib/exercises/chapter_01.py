"""The exercises of chapter 01: counts, leakage, the ABCDE rule by eye, and a split."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.data.split import SPLITS, is_leaked, lesion_groups, make_split

CRITERIA = {"A": "asymmetry", "B": "border", "C": "colours", "D": "diameter"}
# The colours that the ABCD rule of dermoscopy counts (Nachbar et al., 1994), as red, green, blue.
PALETTE = {
    "white": (255, 255, 255), "red": (205, 50, 50), "light brown": (190, 135, 90),
    "dark brown": (95, 55, 35), "blue-grey": (100, 125, 150), "black": (20, 15, 15),
}  # fmt: skip


def pick_quiz_lesions(measured: pd.DataFrame) -> pd.DataFrame:
    """Four lesions, numbered 1 to 4, with image_id and the criterion in which each is extreme.

    measured: a row per lesion with image_id and the columns of `CRITERIA`. Empty without those.
    """
    if not set(CRITERIA.values()) <= set(measured):  # the dataset has no masks
        return pd.DataFrame(columns=["image_id", "criterion"])
    ranks = measured[list(CRITERIA.values())].rank(pct=True)
    chosen: dict = {}
    for letter, measure in CRITERIA.items():
        margin = 2 * ranks[measure] - ranks.drop(columns=measure).max(axis=1)
        chosen[margin.drop(list(chosen)).idxmax()] = letter
    quiz = measured.loc[list(chosen), ["image_id"]].assign(criterion=chosen.values())
    return quiz.sort_values("image_id").set_axis(range(1, len(quiz) + 1))


def melanoma_lesions(answer: int, table: pd.DataFrame) -> str | None:
    melanomas = table[table["dx"] == MELANOMA]
    if answer == melanomas["lesion_id"].nunique():
        return None
    if answer == len(melanomas):
        return "That is the number of images; a lesion with three images is one lesion."
    return "Take the rows of melanoma, then count different lesion_ids."


def leakage_of_ten_seeds(answer: list[float], table: pd.DataFrame) -> str | None:
    if len(answer) != 10:
        return f"Give ten numbers, one for each seed from 0 to 9, and not {len(answer)}."
    for seed, fraction in enumerate(answer):
        right = is_leaked(make_split(table, "image", seed)).mean()
        if not np.isclose(fraction, right, atol=5e-4):
            if np.isclose(fraction, 100 * right, atol=0.05):
                return "Right as percentages; give fractions, from 0 to 1."
            return (
                f"The fraction for seed {seed} is wrong: count the held-out images whose lesion is "
                "in train, and divide by all held-out images."
            )
    return None


def abcd_by_eye(answer: str, measured: pd.DataFrame) -> str | None:
    quiz = pick_quiz_lesions(measured)
    if sorted(answer) != sorted(quiz["criterion"]):
        return "Give one letter for each picture, in order; each of A, B, C, D occurs once."
    wrong = [str(n) for n, right in quiz["criterion"].items() if answer[n - 1] != right]
    return f"Look again at picture {' and '.join(wrong)}." if wrong else None


def number_of_colours(answer: Callable[[np.ndarray, np.ndarray], int]) -> str | None:
    image = np.full((20, 50, 3), PALETTE["light brown"], np.uint8)  # 1,000 pixels
    mask = np.ones((20, 50), bool)
    if answer(image, mask) != 1:
        return "A lesion that is light brown all over has 1 colour."
    image[:, :25] = np.array(PALETTE["black"]) + 9
    if answer(image, mask) != 2:
        return "Half nearly black, half light brown: 2 colours. Take the nearest of the six."
    image[0, -29:] = PALETTE["red"]
    if answer(image, mask) != 2:
        return "A red speck of 2.9% of the lesion does not count."
    image[0, -31:] = PALETTE["red"]
    if answer(image, mask) != 3:
        return "A red speck of 3.1% of the lesion counts."
    mask[0] = False
    if answer(image, mask) != 2:
        return "Only pixels inside the mask count."
    return None


def own_split(answer: Callable[[pd.DataFrame, int], pd.Series], table: pd.DataFrame) -> str | None:
    split = pd.Series(np.asarray(answer(table, 1)), table.index)
    if set(split) != set(SPLITS):
        return f"Every image needs one of {', '.join(SPLITS)}."
    for name, lesion in (("lesion_id", table["lesion_id"]), ("lesion", lesion_groups(table))):
        divided = split.groupby(lesion).nunique() > 1
        if divided.any():
            return f"{divided.sum()} times, images of one {name} are in different splits."
    lesions = pd.DataFrame({"split": split, "dx": table["dx"]})[~lesion_groups(table).duplicated()]
    for dx, splits in lesions.groupby("dx")["split"]:
        for name, fraction in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
            count = (splits == name).sum()
            if abs(count - fraction * len(splits)) > 2:
                return f"{name} has {count} of {len(splits)} lesions of {dx}: not {fraction:.0%}."
    if not split.equals(pd.Series(np.asarray(answer(table, 1)), table.index)):
        return "The same seed gives another split the second time."
    if split.equals(pd.Series(np.asarray(answer(table, 2)), table.index)):
        return "Another seed gives the same split."
    return None


CHECKS = {
    "01.1": melanoma_lesions,
    "01.2": leakage_of_ten_seeds,
    "01.3": abcd_by_eye,
    "01.4": number_of_colours,
    "01.5": own_split,
}
