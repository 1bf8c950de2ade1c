"""A report on a dataset folder: its numbers beside the published ones, and what is wrong."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.config import PROTOCOLS, Config
from melanoma_lib.core.errors import MelanomaError, printable, summarize_items
from melanoma_lib.data import layouts
from melanoma_lib.data.classes import DISPLAY_NAMES
from melanoma_lib.data.dataset_files import LocatedFiles, locate_files, validate_table
from melanoma_lib.data.images import looks_like_mask, map_images, read_image
from melanoma_lib.data.split import lesion_groups, make_split
from melanoma_lib.data.tables import RawTable

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
    files = locate_files(data_dir, metadata, img_dir)
    table = files.table
    try:
        rows = validate_table(table)
    except MelanomaError as error:
        counts = f"{len(files.images):,} images, {len(files.masks):,} masks"
        return f"{table.path.parent}: {counts}, and a table that cannot be used", [str(error)]
    names = list(rows["image_id"])
    images = {name: files.images[name][0] for name in names if name in files.images}
    if table.images is not None:
        images = dict(zip(names, table.images, strict=True))
    masks = {name: files.masks[name][0] for name in names if name in files.masks}
    looks, unreadable = map_images(_look_at, images.values(), "reading images")
    mask_looks, unreadable_masks = map_images(_look_at, masks.values(), "reading masks")
    hashes = {name: look and look[0] for name, look in zip(images, looks, strict=True)}
    swapped = [name for name, look in zip(images, looks, strict=True) if look and look[1]]
    not_masks = [name for name, look in zip(masks, mask_looks, strict=True) if look and not look[1]]
    faults = {
        "images cannot be read": unreadable,
        "masks cannot be read": unreadable_masks,
        "images are masks, of two values of grey": swapped,
    }
    problems = files.problems()
    problems += [f"{len(f):,} {kind}: {summarize_items(f)}" for kind, f in faults.items() if f]
    lines = [*_chosen(files, images, masks), *_counts(table, rows, masks)]
    lines += _oddities(files, rows, hashes, masks, not_masks)
    if table.layout.trainable:
        for protocol in PROTOCOLS:
            try:
                sizes = make_split(rows, protocol, Config().seed)["part"].value_counts()
            except MelanomaError as error:
                problems.append(str(error))
            else:
                line = ", ".join(f"{n:,} {name}" for name, n in sizes.items())
                lines.append(f"split by {protocol}: {line}")
    return "\n".join(lines), problems


def _chosen(files: LocatedFiles, images: Mapping, masks: Mapping) -> list[str]:
    """The heading, and which table and which folders of images and masks would be used."""
    table = files.table
    name = "generated sample" if table.generated else table.layout.name
    lesions = table.rows["lesion_id"].nunique()
    lines = [f"{name}: {len(table.rows):,} images of {lesions:,} lesions, {len(masks):,} masks"]
    lines += [f"table: {printable(path)}" for path in table.sources]
    for label, chosen in (("images", images), ("masks", masks)):
        folders = Counter(path.parent for path in chosen.values() if isinstance(path, Path))
        lines += [f"{label}: {printable(folder)} ({count:,})" for folder, count in folders.items()]
    return [*lines, *files.remarks(), ""]


def _look_at(image: Path | np.ndarray) -> tuple[str, bool]:
    """A hash of the pixels, and whether they look like a mask."""
    pixels = read_image(image)
    text = pixels.tobytes() + str(pixels.shape).encode()
    return hashlib.sha256(text).hexdigest(), looks_like_mask(pixels)


def _counts(table: RawTable, rows: pd.DataFrame, masks: Mapping) -> list[str]:
    """A line for each number, beside the published one for HAM10000."""
    lesions = rows["lesion_id"].value_counts()
    counts = {
        "images": len(rows), "lesions": len(lesions),
        "lesions with several images": int((lesions > 1).sum()), "masks": len(masks),
        "ages missing": int(rows["age"].isna().sum()),
        **{code: int((rows["dx"] == code).sum()) for code in table.layout.codes},
    }  # fmt: skip
    compared = table.layout.trainable and not table.generated
    lines = [f"{'':42}{'here':>8}" + f"{'published':>12}" * compared]
    for key, count in counts.items():
        label = f"{key:6}{DISPLAY_NAMES[key]}" if key in DISPLAY_NAMES else key
        line = f"{label:42}{count:8,}"
        if compared:
            line += f"{PUBLISHED[key]:12,}" + "   differs" * (count != PUBLISHED[key])
        lines.append(line)
    return [*lines, ""]


def _oddities(
    files: LocatedFiles,
    rows: pd.DataFrame,
    hashes: Mapping,
    masks: Mapping,
    not_masks: Sequence[str],
) -> list[str]:
    """A line for each oddity that does not stop a run."""
    table = files.table
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
        "images that are not in the table": sorted(set(files.images) - set(rows["image_id"])),
        "images without a mask": unmasked if masks else [],
        "masks that do not look like masks": not_masks,
    }
    lines = [
        f"{label:42}{len(items):8,}" + f"   {summarize_items(items, 3)}" * bool(items)
        for label, items in oddities.items()
    ]
    lines.append(f"{'lesions known under two ids, joined':42}{joined:8,}")
    if table.excluded:
        lines.append(f"left out of the table: {layouts.describe_excluded(table.excluded)}")
    return [*lines, *table.layout.warnings, ""]
