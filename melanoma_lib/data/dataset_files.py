"""The dataset folder: its table is read and checked, its images and masks are found."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import digest
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.layouts import COLUMNS, HAM10000, Layout, RawTable, find_table, read_table

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class DatasetFiles:
    """A checked dataset: its table with one row per image, the images, and masks by image id.

    images: a path for each row, or uint8 (n, height, width, 3) where the dataset is an npz file.
    excluded: how many rows of the published table were dropped, by reason (see `read_table`).
    """

    metadata: pd.DataFrame
    images: list[Path] | np.ndarray
    masks: dict[str, Path]
    fingerprint: str
    generated: bool
    layout: Layout = HAM10000
    excluded: dict[str, int] = field(default_factory=dict)

    @property
    def mask_fingerprint(self) -> str:
        """A digest of the masks' names and sizes; figures depend on masks, trainings do not."""
        return digest([(name, path.stat().st_size) for name, path in sorted(self.masks.items())])

    @property
    def name(self) -> str:
        """The dataset's name in tables and figures."""
        return "generated sample" if self.generated else self.layout.name


def read_metadata(path: Path | str) -> pd.DataFrame:
    """Reads and checks a dataset's table, one row per image, ages in years.

    Further columns are kept. Raises `MelanomaError` for a missing column, an unknown
    diagnosis, a repeated or unsafe image id, an age that is not a number, or no rows.
    """
    return validate_table(read_table(Path(path)))


def validate_table(table: RawTable) -> pd.DataFrame:
    """The rows of a table, ages as numbers; raises `MelanomaError` as `read_metadata` does."""
    path, metadata = table.path, table.rows
    missing = [column for column in COLUMNS if column not in metadata.columns]
    if missing:
        raise MelanomaError(
            f"{path}: missing column {summarize_items(missing)}; "
            f"the table needs {', '.join(COLUMNS)}"
        )
    if metadata.empty:
        raise MelanomaError(f"{path}: the table has no rows")
    unknown = sorted(set(metadata["dx"].fillna("(empty)")) - set(CLASS_NAMES))
    if unknown:
        raise MelanomaError(
            f"{path}: unknown diagnosis {summarize_items(unknown)}; known are "
            f"{', '.join(CLASS_NAMES)}"
        )
    for column in ("image_id", "lesion_id"):  # ids become file names
        ids = metadata[column].fillna("(empty)")
        unsafe = [name for name in ids if not re.fullmatch(r"\w[\w.-]*", name)]
        if unsafe:
            raise MelanomaError(f"{path}: empty or unsafe {column}: {summarize_items(unsafe)}")
    repeated = metadata["image_id"][metadata["image_id"].duplicated()].unique()
    if len(repeated):
        raise MelanomaError(f"{path}: image_id listed more than once: {summarize_items(repeated)}")
    age = pd.to_numeric(metadata["age"], errors="coerce")
    wrong = metadata["age"][age.isna() & metadata["age"].notna() & (metadata["age"] != "unknown")]
    if len(wrong):
        raise MelanomaError(f"{path}: age is not a number: {summarize_items(wrong.unique())}")
    return metadata.assign(age=age)


def open_dataset(
    data_dir: Path | str = "",
    metadata: Path | str = "",
    img_dir: Path | str = "",
    external: bool = False,
) -> DatasetFiles:
    """Opens and checks a dataset, by its folder or by the paths of its table and its images.

    The folder has the published layout: a table named HAM10000_metadata*, images named by
    their id in one folder or several, and optionally masks named `<id>_segmentation.png`. With
    `external`, any layout of `layouts.LAYOUTS` is accepted. Raises `MelanomaError` when the
    table is wrong or an image it lists is absent.
    """
    table, paths, masks = locate_files(data_dir, metadata, img_dir)
    if table.layout is not HAM10000 and not external:
        raise MelanomaError(
            f"{table.path} is a table of {table.layout.name}; a run needs HAM10000's own layout, "
            "and melanoma evaluate tests a trained run on this one"
        )
    rows = validate_table(table)
    images = table.images
    if images is None:
        absent = [name for name in rows["image_id"] if name not in paths]
        if absent:
            raise MelanomaError(
                f"{len(absent)} of the {len(rows)} images in {table.path} are not below "
                f"{img_dir or data_dir or '.'}: {summarize_items(absent)}"
            )
        images = [paths[name] for name in rows["image_id"]]
    return DatasetFiles(
        metadata=rows,
        images=images,
        masks={name: masks[name] for name in rows["image_id"] if name in masks},
        fingerprint=_fingerprint(table.path, [] if table.images is not None else images),
        generated=table.generated,
        layout=table.layout,
        excluded=table.excluded,
    )


def locate_files(
    data_dir: Path | str = "", metadata: Path | str = "", img_dir: Path | str = ""
) -> tuple[RawTable, dict[str, Path], dict[str, Path]]:
    """The dataset's table, not yet checked, and the paths of all images and masks by image id.

    Raises `MelanomaError` when there is no folder or no table that can be read.
    """
    root = Path(img_dir or data_dir or ".")
    if not root.is_dir():
        raise MelanomaError(
            f"the dataset folder {root} does not exist; name it with --data-dir (melanoma data "
            "download fetches HAM10000)"
        )
    table = read_table(Path(metadata) if metadata else find_table(Path(data_dir or ".")))
    images, masks = find_images_and_masks(root)
    if data_dir and img_dir:
        masks |= find_images_and_masks(Path(data_dir))[1]
    return table, images, masks


def find_images_and_masks(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The paths of all images and all masks below a folder by image id; the first of equal ids."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    seen = set()  # resolved folders: links may form a cycle
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        # macOS archives hold a shadow "._name" of every file
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(("__", ".")))
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - ten times faster than Path
            if name.startswith(".") or suffix.lower() not in IMAGE_SUFFIXES:
                continue
            found, key = (masks, stem[:-13]) if stem.endswith("_segmentation") else (images, stem)
            found.setdefault(key, Path(folder, name))
    return images, masks


def _fingerprint(table: Path, images: list[Path]) -> str:
    """A digest of the table's content and of the images' names and sizes in bytes."""
    with table.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256")
    for path in images:
        try:
            checksum.update(f"{path.name} {path.stat().st_size}\n".encode())
        except OSError as error:  # a broken link
            raise MelanomaError(f"{path} cannot be read ({error.strerror})") from None
    return checksum.hexdigest()[:16]
