"""The split of a dataset into train, val and test, by lesion or by image, or with leakage."""

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import DatasetFiles

SPLITS = ("train", "val", "test")
UNUSED = "unused"  # images that a split with leakage leaves out
HELD_OUT_FRACTION = 0.15  # of val and of test each, or of both in one
# Pairs of images that show one lesion under two lesion ids (Abhishek et al., Sci Data 12:196,
# 2025, "Investigating the quality of DermaMNIST and Fitzpatrick17k").
SAME_LESION = tuple(
    (f"ISIC_00{first}", f"ISIC_00{second}")
    for first, second in (
        (33481, 33421), (33556, 32634), (29152, 33173), (29036, 27027), (27820, 28209),
        (27689, 32647), (30906, 24879), (33391, 34186), (25226, 30074), (26087, 25664),
        (24736, 29748), (24770, 27811), (27162, 29061), (24602, 32283), (29625, 24629),
        (30000, 31392), (24437, 31299), (33374, 33417),
    )
)


def lesion_groups(metadata: pd.DataFrame) -> pd.Series:
    """The lesion id of each image, where lesions of `SAME_LESION` share the id of the first."""
    groups = metadata["lesion_id"].copy()
    lesion_of = dict(zip(metadata["image_id"], metadata["lesion_id"], strict=True))
    for first, second in SAME_LESION:
        if first in lesion_of and second in lesion_of:
            keep, drop = (groups[metadata["image_id"] == name].iloc[0] for name in (first, second))
            groups[groups == drop] = keep
    return groups


def make_split(
    metadata: pd.DataFrame, protocol: str, seed: int, leaked_fraction: float | None = None
) -> pd.DataFrame:
    """Assigns every image to a split, stratified by diagnosis.

    protocol: "lesion" divides lesions 70 / 15 / 15 into train, val and test; "image" holds out
    int(15%) of the images as `val+test`, which serves as both. With `leaked_fraction`, the split
    by lesion becomes a `leakage_split`, in which as large a fraction of the test images can leak as
    leaks when this dataset is split by image. Returns the columns image_id, lesion_id (see
    `lesion_groups`), dx and part, the split's name. Raises `MelanomaError` when there are too few
    of a diagnosis, or for more leakage than is possible.
    """
    from sklearn.model_selection import train_test_split

    split = metadata[["image_id", "lesion_id", "dx"]].assign(lesion_id=lesion_groups(metadata))
    rows = split if protocol == "image" else split.drop_duplicates("lesion_id")
    held_out = int(HELD_OUT_FRACTION * len(rows))

    def hold_out(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        return train_test_split(rows, test_size=held_out, stratify=rows["dx"], random_state=seed)

    try:
        train_val, test = hold_out(rows)
        if protocol == "image":
            names = pd.Series("train", split.index)
            names[test.index] = "val+test"
        else:
            name_of = dict.fromkeys(test["lesion_id"], "test")
            name_of |= dict.fromkeys(hold_out(train_val)[1]["lesion_id"], "val")
            names = split["lesion_id"].map(name_of).fillna("train")
    except ValueError as error:  # a diagnosis with one lesion, or hardly any rows at all
        raise MelanomaError(
            f"{len(rows)} {protocol}s are too few to split by diagnosis: {error}"
        ) from None
    split = split.assign(part=names).reset_index(drop=True)
    if leaked_fraction is None:
        return split
    leak_of_images = is_leaked(make_split(metadata, "image", seed)).mean()
    return leakage_split(split, leak_of_images, seed, leaked_fraction)


def leakage_split(
    split: pd.DataFrame, leakable: float, seed: int, fraction: float
) -> pd.DataFrame:
    """A split by lesion with one image a test lesion, where other images of some are in training.

    `fraction` of the test images leak: all other images of their lesions take the places of
    training images of the same diagnosis; 0 leaves the training split as it is. Those of a smaller
    fraction leak in a larger one too. The test images depend on `seed` alone: an image of each
    lesion with several, which can leak, and of so many lesions with one image that a fraction
    `leakable` of all can leak. Validation stays. The other images are `UNUSED`.

    Raises `MelanomaError` when more is to leak than can, or a fraction of no lesion.
    """
    rng = np.random.default_rng(seed)
    shuffled = split.sample(frac=1, random_state=rng)  # everything is drawn by taking the first
    test = shuffled[shuffled["part"] == "test"]
    kept = test.drop_duplicates("lesion_id").sample(frac=1, random_state=rng)
    siblings = test.drop(kept.index)
    has_siblings = kept["lesion_id"].isin(siblings["lesion_id"])
    several, single = kept[has_siblings], kept[~has_siblings]
    if several.empty or not leakable:
        raise MelanomaError("no lesion of the test split has several images, so none can leak")
    single = single[: round(len(several) * (1 - leakable) / leakable)]
    count = _count_leaking(fraction, len(several), len(several) + len(single))

    leaked = siblings[siblings["lesion_id"].isin(several["lesion_id"][:count])]
    train = shuffled[shuffled["part"] == "train"]
    needed = train["dx"].map(leaked["dx"].value_counts()).fillna(0)
    replaced = train[train.groupby("dx").cumcount() < needed]
    if len(replaced) < len(leaked):
        raise MelanomaError("a diagnosis has too few training images to replace by leaked ones")
    names = split["part"].copy()
    names[test.index] = names[replaced.index] = UNUSED
    names[[*several.index, *single.index]] = "test"
    names[leaked.index] = "train"
    return split.assign(part=names)


def _count_leaking(fraction: float, can_leak: int, images: int) -> int:
    """How many of so many test images leak; raises `MelanomaError` for none, or more than can."""
    count = round(fraction * images)
    if count > can_leak:
        raise MelanomaError(
            f"the leaked fraction {fraction:g} is more than can leak in this test set; the largest "
            f"possible is {round(can_leak / images, 4):g}"
        )
    if fraction and not count:
        raise MelanomaError(
            f"a leaked fraction of {fraction:g} is not one of {images} test images; the smallest "
            f"possible is {1 / images:.2g}"
        )
    return count


def largest_leaked_fraction(metadata: pd.DataFrame, seed: int) -> float:
    """The largest `leaked_fraction` that `make_split` takes, to four digits, in (0, 1]."""
    clean = make_split(metadata, "lesion", seed, 0.0)
    unused = clean["lesion_id"][clean["part"] == UNUSED]
    can_leak = clean["lesion_id"][clean["part"] == "test"].isin(unused)
    return round(float(can_leak.mean()), 4)


def split_rows(split: pd.DataFrame, name: str) -> np.ndarray:
    """The row numbers of the images in `train`, `val` or `test`, (n,)."""
    return np.flatnonzero([name in part.split("+") for part in split["part"]])


def is_leaked(split: pd.DataFrame) -> pd.Series:
    """Whether the lesion of each held-out image is in train too; indexed by diagnosis."""
    train = split["part"] == "train"
    held_out = split[~train & (split["part"] != UNUSED)]
    leaked = held_out["lesion_id"].isin(split["lesion_id"][train])
    return pd.Series(leaked.to_numpy(), index=held_out["dx"].to_numpy())


def describe_split(files: DatasetFiles, split: pd.DataFrame) -> dict:
    """A record of the dataset and its split: name, fingerprint, and numbers of images."""
    return {
        "name": files.name,
        "generated": files.generated,
        "fingerprint": files.fingerprint,
        "images": len(split),
        "lesions": int(split["lesion_id"].nunique()),
        "parts": split["part"].value_counts().to_dict(),
    }
