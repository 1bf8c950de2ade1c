"""The exercises of chapter 01: counts, leaks, the ABCDE rule by eye, a split of one's own."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.data.split import PARTS, leaked, lesion_groups, make_split

CRITERIA = {"A": "asymmetry", "B": "border", "C": "colours", "D": "diameter"}
# The colours that the ABCD rule of dermoscopy counts (Nachbar et al., 1994), as red, green, blue.
PALETTE = {
    "white": (255, 255, 255), "red": (205, 50, 50), "light brown": (190, 135, 90),
    "dark brown": (95, 55, 35), "blue-grey": (100, 125, 150), "black": (20, 15, 15),
}  # fmt: skip


def standouts(measured: pd.DataFrame) -> pd.DataFrame:
    """Four lesions, pictures 1 to 4, and for each the one criterion that stands out in it."""
    if not set(CRITERIA.values()) <= set(measured):  # there were no masks
        return pd.DataFrame(columns=["image_id", "criterion"])
    ranks = measured[list(CRITERIA.values())].rank(pct=True)
    chosen: dict = {}
    for letter, measure in CRITERIA.items():
        lead = 2 * ranks[measure] - ranks.drop(columns=measure).max(axis=1)
        chosen[lead.drop(list(chosen)).idxmax()] = letter
    quiz = measured.loc[list(chosen), ["image_id"]].assign(criterion=chosen.values())
    return quiz.sort_values("image_id").set_axis(range(1, len(quiz) + 1))


def melanoma_lesions(answer: int, table: pd.DataFrame) -> str | None:
    melanomas = table[table["dx"] == MELANOMA]
    if answer == melanomas["lesion_id"].nunique():
        return None
    if answer == len(melanomas):
        return "That is the number of images; a lesion with three images is one lesion."
    return "Take the rows of melanoma, then count different lesion_ids."


def leaks_of_ten_seeds(answer: list[float], table: pd.DataFrame) -> str | None:
    if len(answer) != 10:
        return f"Ten numbers are asked for, one a seed from 0 to 9, and not {len(answer)}."
    for seed, share in enumerate(answer):
        right = leaked(make_split(table, "image", seed)).mean()
        if not np.isclose(share, right, atol=5e-4):
            if np.isclose(share, 100 * right, atol=0.05):
                return "Right as percentages; give shares, from 0 to 1."
            return (
                f"The leak of seed {seed} is another: held-out images whose lesion is in "
                "training, divided by all held-out images."
            )
    return None


def abcd_by_eye(answer: str, measured: pd.DataFrame) -> str | None:
    quiz = standouts(measured)
    if sorted(answer) != sorted(quiz["criterion"]):
        return "Give one letter a picture, in their order; each of A, B, C, D stands out once."
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
        return "A red speck of 2.9 % of the lesion does not count."
    image[0, -31:] = PALETTE["red"]
    if answer(image, mask) != 3:
        return "A red speck of 3.1 % of the lesion counts."
    mask[0] = False
    if answer(image, mask) != 2:
        return "Only pixels inside the mask count."
    return None


def own_split(answer: Callable[[pd.DataFrame, int], pd.Series], table: pd.DataFrame) -> str | None:
    part = pd.Series(np.asarray(answer(table, 1)), table.index)
    if set(part) != set(PARTS):
        return f"Every image needs one of the parts {', '.join(PARTS)}."
    for name, lesion in (("lesion_id", table["lesion_id"]), ("lesion", lesion_groups(table))):
        torn = part.groupby(lesion).nunique() > 1
        if torn.any():
            return f"{torn.sum()} times, images of one {name} are in different parts."
    lesions = pd.DataFrame({"part": part, "dx": table["dx"]})[~lesion_groups(table).duplicated()]
    for dx, parts in lesions.groupby("dx")["part"]:
        for name, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
            found = (parts == name).sum()
            if abs(found - share * len(parts)) > 2:
                return f"{name} holds {found} of {len(parts)} lesions of {dx}: not {share:.0%}."
    if not part.equals(pd.Series(np.asarray(answer(table, 1)), table.index)):
        return "The same seed gives another split the second time."
    if part.equals(pd.Series(np.asarray(answer(table, 2)), table.index)):
        return "Another seed gives the same split."
    return None


CHECKS = {
    "01.1": melanoma_lesions,
    "01.2": leaks_of_ten_seeds,
    "01.3": abcd_by_eye,
    "01.4": number_of_colours,
    "01.5": own_split,
}
