"""The split of a dataset into training, validation and test, by lesion or by image."""

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import DatasetFiles

SPLITS = ("train", "val", "test")
HELD_OUT = 0.15  # share of each held-out part, in both protocols
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
    """The lesion each image shows, with the pairs known to be one lesion joined."""
    groups = metadata["lesion_id"].copy()
    lesion_of = dict(zip(metadata["image_id"], metadata["lesion_id"], strict=True))
    for first, second in SAME_LESION:
        if first in lesion_of and second in lesion_of:
            keep, drop = (groups[metadata["image_id"] == name].iloc[0] for name in (first, second))
            groups[groups == drop] = keep
    return groups


def make_split(metadata: pd.DataFrame, protocol: str, seed: int) -> pd.DataFrame:
    """Assigns every image to a part: columns image_id, lesion_id (groups joined), dx, part.

    `"lesion"`: 70 / 15 / 15 by lesion, stratified by diagnosis; parts train, val, test.
    `"image"`: int(15 %) of the images held out, stratified; parts train and `val+test`,
    because the one held-out part plays both roles. Raises `MelanomaError` when there are too
    few of a diagnosis to be split.
    """
    from sklearn.model_selection import train_test_split

    split = metadata[["image_id", "lesion_id", "dx"]].assign(lesion_id=lesion_groups(metadata))
    rows = split if protocol == "image" else split.drop_duplicates("lesion_id")
    held_out = int(HELD_OUT * len(rows))

    def hold_out(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        return train_test_split(rows, test_size=held_out, stratify=rows["dx"], random_state=seed)

    try:
        rest, held = hold_out(rows)
        if protocol == "image":
            parts = pd.Series("train", split.index)
            parts[held.index] = "val+test"
        else:
            part_of = dict.fromkeys(held["lesion_id"], "test")
            part_of |= dict.fromkeys(hold_out(rest)[1]["lesion_id"], "val")
            parts = split["lesion_id"].map(part_of).fillna("train")
    except ValueError as error:  # a diagnosis with one lesion, or hardly any rows at all
        raise MelanomaError(
            f"{len(rows)} {protocol}s are too few to split by diagnosis: {error}"
        ) from None
    return split.assign(part=parts).reset_index(drop=True)


def split_rows(split: pd.DataFrame, part: str) -> np.ndarray:
    """Row numbers of the images that play the part `train`, `val` or `test`."""
    return np.flatnonzero([part in name.split("+") for name in split["part"]])


def leaked(split: pd.DataFrame) -> pd.Series:
    """For each held-out image (index: its diagnosis), whether training shows its lesion too."""
    train = split["part"] == "train"
    held = split[~train]
    seen = held["lesion_id"].isin(split["lesion_id"][train])
    return pd.Series(seen.to_numpy(), index=held["dx"].to_numpy())


def describe_split(files: DatasetFiles, split: pd.DataFrame) -> dict:
    """The images of a split in numbers: name, fingerprint, images, lesions, images by part."""
    return {
        "name": files.name,
        "generated": files.generated,
        "fingerprint": files.fingerprint,
        "images": len(split),
        "lesions": int(split["lesion_id"].nunique()),
        "parts": split["part"].value_counts().to_dict(),
    }
