"""A report on a dataset folder: its numbers beside the published ones, and what is wrong."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.config import PROTOCOLS, Config
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.data import layouts
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES
from melanoma_lib.data.dataset_files import locate_files, validate_table
from melanoma_lib.data.images import map_images, read_image
from melanoma_lib.data.layouts import RawTable
from melanoma_lib.data.split import lesion_groups, make_split

# HAM10000 as it was published (Tschandl et al., 2018; masks: Tschandl et al., 2020).
PUBLISHED = {
    "images": 10_015, "lesions": 7_470, "lesions with several images": 1_956, "masks": 10_015,
    "ages missing": 57, "akiec": 327, "bcc": 514, "bkl": 1_099, "df": 115, "mel": 1_113,
    "nv": 6_705, "vasc": 142,
}  # fmt: skip


def validate_dataset(
    data_dir: Path | str = "", metadata: Path | str = "", img_dir: Path | str = ""
) -> tuple[str, list[str]]:
    """The report on a dataset in any of `layouts.LAYOUTS`, and the problems that stop a run.

    Reads every image and every mask. Raises `MelanomaError` when there is no table.
    """
    table, image_paths, mask_paths = locate_files(data_dir, metadata, img_dir)
    try:
        rows = validate_table(table)
    except MelanomaError as error:
        counts = f"{len(image_paths):,} images, {len(mask_paths):,} masks"
        return f"{table.path.parent}: {counts}, and a table that cannot be used", [str(error)]
    names = list(rows["image_id"])
    images = {name: image_paths[name] for name in names if name in image_paths}
    if table.images is not None:
        images = dict(zip(names, table.images, strict=True))
    masks = {name: mask_paths[name] for name in names if name in mask_paths}
    hashes, unreadable = map_images(_pixel_hash, images.values(), "reading images")
    _, unreadable_masks = map_images(_pixel_hash, masks.values(), "reading masks")
    faults = {
        "images are in the table and not in the folder": [n for n in names if n not in images],
        "images cannot be read": unreadable,
        "masks cannot be read": unreadable_masks,
    }
    problems = [f"{len(f):,} {kind}: {summarize_items(f)}" for kind, f in faults.items() if f]
    lines = _counts(table, rows, masks)
    unlisted = set(image_paths) - set(names)
    lines += _oddities(table, rows, dict(zip(images, hashes, strict=True)), unlisted, masks)
    if table.layout is layouts.HAM10000:
        for protocol in PROTOCOLS:
            try:
                sizes = make_split(rows, protocol, Config().seed)["part"].value_counts()
            except MelanomaError as error:
                problems.append(str(error))
            else:
                line = ", ".join(f"{n:,} {name}" for name, n in sizes.items())
                lines.append(f"split by {protocol}: {line}")
    return "\n".join(lines), problems


def _pixel_hash(image: Path | np.ndarray) -> str:
    pixels = read_image(image)
    return hashlib.sha256(pixels.tobytes() + str(pixels.shape).encode()).hexdigest()


def _counts(table: RawTable, rows: pd.DataFrame, masks: Mapping) -> list[str]:
    """The heading, and a line for each number, beside the published one for HAM10000."""
    lesions = rows["lesion_id"].value_counts()
    counts = {
        "images": len(rows), "lesions": len(lesions),
        "lesions with several images": int((lesions > 1).sum()), "masks": len(masks),
        "ages missing": int(rows["age"].isna().sum()),
        **{code: int((rows["dx"] == code).sum()) for code in CLASS_NAMES},
    }  # fmt: skip
    name = "generated sample" if table.generated else table.layout.name
    compared = table.layout is layouts.HAM10000 and not table.generated
    lines = [
        f"{name}: {len(rows):,} images of {len(lesions):,} lesions, {len(masks):,} masks",
        "",
        f"{'':42}{'here':>8}" + f"{'published':>12}" * compared,
    ]
    for key, count in counts.items():
        label = f"{key:6}{DISPLAY_NAMES[key]}" if key in DISPLAY_NAMES else key
        line = f"{label:42}{count:8,}"
        if compared:
            line += f"{PUBLISHED[key]:12,}" + "   differs" * (count != PUBLISHED[key])
        lines.append(line)
    return [*lines, ""]


def _oddities(
    table: RawTable, rows: pd.DataFrame, hashes: Mapping, unlisted: set[str], masks: Mapping
) -> list[str]:
    """A line for each oddity that does not stop a run."""
    names_of = defaultdict(list)
    for name, value in hashes.items():
        names_of[value].append(name)
    names_of.pop(None, None)  # images that cannot be read
    duplicates = [sorted(names) for names in names_of.values() if len(names) > 1]
    lesion_of = dict(zip(rows["image_id"], lesion_groups(rows), strict=True))
    across = [names for names in duplicates if len({lesion_of[name] for name in names}) > 1]
    joined = rows["lesion_id"].nunique() - len(set(lesion_of.values()))
    diagnoses = rows.groupby("lesion_id")["dx"].nunique()
    unmasked = [name for name in rows["image_id"] if name not in masks]
    oddities = {
        "same pixels under several image ids": [" = ".join(names) for names in duplicates],
        "of these, in different lesions": [" = ".join(names) for names in across],
        "lesions with several diagnoses": list(diagnoses.index[diagnoses > 1]),
        "images that are not in the table": sorted(unlisted),
        "images without a mask": unmasked if masks else [],
    }
    lines = [
        f"{label:42}{len(items):8,}" + f"   {summarize_items(items, 3)}" * bool(items)
        for label, items in oddities.items()
    ]
    lines.append(f"{'lesions known under two ids, joined':42}{joined:8,}")
    if table.excluded:
        lines.append(f"left out of the table: {layouts.describe_excluded(table.excluded)}")
    if table.layout.overlap:
        lines.append(table.layout.overlap)
    return [*lines, ""]
