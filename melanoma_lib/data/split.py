"""The split of a dataset into train, val and test, by lesion or by image."""

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import DatasetFiles

SPLITS = ("train", "val", "test")
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


def make_split(metadata: pd.DataFrame, protocol: str, seed: int) -> pd.DataFrame:
    """Assigns every image to a split, stratified by diagnosis.

    protocol: "lesion" divides lesions 70 / 15 / 15 into train, val and test; "image" holds out
    int(15%) of the images as `val+test`, which serves as both. Returns the columns image_id,
    lesion_id (see `lesion_groups`), dx and part, the split's name. Raises `MelanomaError` when
    there are too few of a diagnosis.
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
    return split.assign(part=names).reset_index(drop=True)


def split_rows(split: pd.DataFrame, name: str) -> np.ndarray:
    """The row numbers of the images in `train`, `val` or `test`, (n,)."""
    return np.flatnonzero([name in part.split("+") for part in split["part"]])


def is_leaked(split: pd.DataFrame) -> pd.Series:
    """Whether the lesion of each held-out image is in train too; indexed by diagnosis."""
    train = split["part"] == "train"
    held_out = split[~train]
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
