"""The exercises of chapter 01: counts, leakage, the ABCDE rule by eye, and a split."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.data.split import SPLITS, is_leaked, lesion_groups, make_split
from melanoma_lib.exercises import exercise, number, require, require_close

CRITERIA = {"A": "asymmetry", "B": "border", "C": "colours", "D": "diameter"}
# The colours that the ABCD rule of dermoscopy counts (Nachbar et al., 1994), as red, green, blue.
PALETTE = {
    "white": (255, 255, 255), "red": (205, 50, 50), "light brown": (190, 135, 90),
    "dark brown": (95, 55, 35), "blue-grey": (100, 125, 150), "black": (20, 15, 15),
}  # fmt: skip


def pick_quiz_lesions(measured: pd.DataFrame) -> pd.DataFrame:
    """Four lesions, numbered 1 to 4, with image_id and the criterion in which each leads the four.

    measured: a row per lesion with image_id and the columns of `CRITERIA`. Empty without those, or
    with fewer than four lesions that have all of them.
    """
    measures = list(CRITERIA.values())
    complete = measured.dropna(subset=measures) if set(measures) <= set(measured) else []
    if len(complete) < len(measures):  # for example, the dataset has no masks
        return pd.DataFrame(columns=["image_id", "criterion"])
    ranks = complete[measures].rank(pct=True).to_numpy()  # (lesions, criteria)
    # A few that are far ahead in one criterion and not in the others; of these, the clearest four.
    ahead = 2 * ranks - (ranks.sum(1, keepdims=True) - ranks) / (len(measures) - 1)
    candidates = np.argsort(-ahead, axis=0, kind="stable")[:8].T
    fours = [four for four in itertools.product(*candidates) if len(set(four)) == len(measures)]
    clearest = max(fours, key=lambda four: _clearness(ranks, four))
    quiz = complete.iloc[list(clearest)][["image_id"]].assign(criterion=list(CRITERIA))
    return quiz.sort_values("image_id").set_axis(range(1, len(quiz) + 1))


def _clearness(ranks: np.ndarray, four: Sequence[int]) -> tuple[bool, float]:
    """Whether lesion i of the four leads in criterion i, for all i, and by how much in sum."""
    values = ranks[list(four)]
    others = np.where(np.eye(len(four), dtype=bool), -np.inf, values)
    leads = values.diagonal() - others.max(axis=0)
    return bool(leads.min() > 0), float(leads.sum())


@exercise("01.1", "a whole number")
def melanoma_lesions(answer: int, table: pd.DataFrame) -> None:
    melanomas = table[table["dx"] == MELANOMA]
    images = "That is the number of images; a lesion with three images is one lesion."
    hint = "Take the rows of melanoma, then count different lesion_ids."
    require_close(answer, melanomas["lesion_id"].nunique(), hint, {images: len(melanomas)})


@exercise("01.2", "a list of ten fractions from 0 to 1")
def leakage_of_ten_seeds(answer: list[float], table: pd.DataFrame) -> None:
    require(len(answer) == 10, f"Give ten numbers, one for each seed, and not {len(answer)}.")
    for seed, fraction in enumerate(answer):
        right = is_leaked(make_split(table, "image", seed)).mean()
        hint = (
            f"The fraction for seed {seed} is wrong: count the held-out images whose lesion is "
            "in train, and divide by all held-out images."
        )
        require_close(fraction, right, hint, atol=5e-4)


@exercise("01.3", "four letters, such as 'ABCD'")
def abcd_criteria(answer: str, measured: pd.DataFrame) -> None:
    right = pick_quiz_lesions(measured)["criterion"]
    hint = "Give one letter for each picture, in order; each of A, B, C, D occurs once."
    require(sorted(answer) == sorted(right), hint)
    wrong = [str(number) for number, letter in right.items() if answer[number - 1] != letter]
    require(not wrong, f"Look again at picture {' and '.join(wrong)}.")


@exercise("01.4", "a function of (image, mask) that returns a whole number")
def number_of_colours(answer: Callable[[np.ndarray, np.ndarray], int]) -> None:
    image = np.full((20, 50, 3), PALETTE["light brown"], np.uint8)  # 1,000 pixels
    mask = np.ones((20, 50), bool)

    def require_count(right: int, hint: str) -> None:
        require(number(answer(image, mask)) == right, hint)

    require_count(1, "A lesion that is light brown all over has 1 colour.")
    image[:, :25] = np.array(PALETTE["black"]) + 9
    require_count(2, "Half nearly black, half light brown: 2 colours. Take the nearest of the six.")
    image[0, -29:] = PALETTE["red"]
    require_count(2, "A red speck of 2.9% of the lesion does not count.")
    image[0, -31:] = PALETTE["red"]
    require_count(3, "A red speck of 3.1% of the lesion counts.")
    mask[0] = False
    require_count(2, "Only pixels inside the mask count.")


@exercise("01.5", "a function of (table, seed) that returns the split of each row")
def own_split(answer: Callable[[pd.DataFrame, int], pd.Series], table: pd.DataFrame) -> None:
    def split_of(seed: int) -> pd.Series:
        return pd.Series(np.asarray(answer(table, seed)), table.index)

    split = split_of(1)
    require(set(split) == set(SPLITS), f"Every image needs one of {', '.join(SPLITS)}.")
    for name, lesion in (("lesion_id", table["lesion_id"]), ("lesion", lesion_groups(table))):
        divided = (split.groupby(lesion).nunique() > 1).sum()
        require(divided == 0, f"{divided} times, images of one {name} are in different splits.")
    lesions = pd.DataFrame({"split": split, "dx": table["dx"]})[~lesion_groups(table).duplicated()]
    for dx, splits in lesions.groupby("dx")["split"]:
        for name, fraction in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
            count = (splits == name).sum()
            hint = f"{name} has {count} of {len(splits)} lesions of {dx}: not {fraction:.0%}."
            require(abs(count - fraction * len(splits)) <= 2, hint)
    require(split.equals(split_of(1)), "The same seed gives another split the second time.")
    require(not split.equals(split_of(2)), "Another seed gives the same split.")
