"""A report on a dataset folder: what is in it, what was published, and what is wrong with it."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.config import PROTOCOLS, Config
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.progress import progress
from melanoma_lib.data import layouts
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES
from melanoma_lib.data.dataset_files import checked, locate
from melanoma_lib.data.images import read_image, read_mask
from melanoma_lib.data.layouts import Table
from melanoma_lib.data.split import lesion_groups, make_split

# HAM10000 as it was published (Tschandl et al., 2018; masks: Tschandl et al., 2020).
PUBLISHED = {
    "images": 10_015, "lesions": 7_470, "lesions with several images": 1_956, "masks": 10_015,
    "ages missing": 57, "akiec": 327, "bcc": 514, "bkl": 1_099, "df": 115, "mel": 1_113,
    "nv": 6_705, "vasc": 142,
}  # fmt: skip


def check(
    data_dir: Path | str = "", metadata: Path | str = "", img_dir: Path | str = ""
) -> tuple[str, list[str]]:
    """The report on a dataset in any known layout, and what in it would stop a run.

    Reads every picture and every mask. Raises `MelanomaError` where there is no table to begin
    with.
    """
    read, images, masks = locate(data_dir, metadata, img_dir)
    try:
        table = checked(read)
    except MelanomaError as error:
        found = f"{read.path.parent}: {len(images):,} images, {len(masks):,} masks"
        return f"{found}, and a table that cannot be used", [str(error)]
    names = list(table["image_id"])
    there = {name: images[name] for name in names if name in images}
    if read.pictures is not None:
        there = dict(zip(names, read.pictures, strict=True))
    masks_there = {name: masks[name] for name in names if name in masks}
    hashes, unreadable = _read_all(there, read_image)
    _, broken_masks = _read_all(masks_there, read_mask)
    problems = _problems({
        "images are in the table and not in the folder": [n for n in names if n not in there],
        "images cannot be read": unreadable,
        "masks cannot be read": broken_masks,
    })  # fmt: skip
    lines = _counts(read, table, masks_there)
    lines += _findings(read, table, hashes, set(images) - set(names), masks_there)
    if read.layout is layouts.HAM10000:
        for protocol in PROTOCOLS:
            try:
                parts = make_split(table, protocol, Config().seed)["part"].value_counts()
            except MelanomaError as error:
                problems.append(str(error))
            else:
                line = ", ".join(f"{n:,} {part}" for part, n in parts.items())
                lines.append(f"split by {protocol}: {line}")
    return "\n".join(lines), problems


def _problems(found: Mapping[str, list[str]]) -> list[str]:
    return [
        f"{len(items):,} {kind}: {summarize_items(items)}" for kind, items in found.items() if items
    ]


def _read_all(
    pictures: Mapping[str, Path | np.ndarray], read: Callable
) -> tuple[dict[str, str], list[str]]:
    """A hash of every picture's pixels by id, and what is wrong with those that have none."""

    def hash_of(name: str) -> tuple[str, str, str]:
        try:
            pixels = read(pictures[name])
        except MelanomaError as error:
            return name, "", str(error)
        return name, hashlib.sha256(pixels.tobytes() + bytes(str(pixels.shape), "ascii")
                                    ).hexdigest(), ""  # fmt: skip

    # Pillow decodes without holding Python's lock, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(progress(pool.map(hash_of, pictures), "reading", total=len(pictures)))
    return {name: h for name, h, _ in done if h}, [error for _, _, error in done if error]


def _counts(read: Table, table: pd.DataFrame, masks: Mapping) -> list[str]:
    """The headline, and the numbers beside the published ones."""
    lesions = table["lesion_id"].value_counts()
    here = {
        "images": len(table), "lesions": len(lesions),
        "lesions with several images": int((lesions > 1).sum()), "masks": len(masks),
        "ages missing": int(table["age"].isna().sum()),
        **{code: int((table["dx"] == code).sum()) for code in CLASS_NAMES},
    }  # fmt: skip
    name = "generated sample" if read.generated else read.layout.name
    compared = read.layout is layouts.HAM10000 and not read.generated
    lines = [
        f"{name}: {len(table):,} images of {len(lesions):,} lesions, {len(masks):,} masks",
        "",
        f"{'':42}{'here':>8}" + f"{'published':>12}" * compared,
    ]
    for key, count in here.items():
        head = f"{key:6}{DISPLAY_NAMES[key]}" if key in DISPLAY_NAMES else key
        line = f"{head:42}{count:8,}"
        if compared:
            line += f"{PUBLISHED[key]:12,}" + "   differs" * (count != PUBLISHED[key])
        lines.append(line)
    return [*lines, ""]


def _findings(
    read: Table, table: pd.DataFrame, hashes: Mapping[str, str], extra: set[str], masks: Mapping
) -> list[str]:
    """What is worth knowing and stops nothing, a line each."""
    of_hash = defaultdict(list)
    for name, value in hashes.items():
        of_hash[value].append(name)
    twins = [sorted(names) for names in of_hash.values() if len(names) > 1]
    lesion_of = dict(zip(table["image_id"], lesion_groups(table), strict=True))
    apart = [names for names in twins if len({lesion_of[name] for name in names}) > 1]
    joined = table["lesion_id"].nunique() - len(set(lesion_of.values()))
    diagnoses = table.groupby("lesion_id")["dx"].nunique()
    unmasked = [name for name in table["image_id"] if name not in masks]
    findings = {
        "same pixels under several image ids": [" = ".join(names) for names in twins],
        "of these, in different lesions": [" = ".join(names) for names in apart],
        "lesions with several diagnoses": list(diagnoses.index[diagnoses > 1]),
        "images that are not in the table": sorted(extra),
        "images without a mask": unmasked if masks else [],
    }
    lines = [
        f"{head:42}{f'{len(what):8,}   {summarize_items(what, 3)}' if what else f'{0:8}'}".rstrip()
        for head, what in findings.items()
    ]
    lines.append(f"{'lesions known under two ids, joined':42}{joined:8,}")
    if read.left_out:
        lines.append(f"left out of the table: {layouts.left_out_text(read.left_out)}")
    if read.layout.overlap:
        lines.append(read.layout.overlap)
    return [*lines, ""]
