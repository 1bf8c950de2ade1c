"""The dataset folder: read and check its table, find its files, split it by lesion or by image."""

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
from melanoma_lib.data.layouts import COLUMNS, HAM10000, Layout, Table, find_table, read_table

SUFFIXES = (".jpg", ".jpeg", ".png")  # of pictures

@dataclass(frozen=True)
class DatasetFiles:
    """A checked dataset: its table, one image a row, and the masks that exist by image id.

    An image is a path, or a picture (h, w, 3) where the dataset is one npz. `left_out` counts
    the rows of a foreign table that are not here, by reason.
    """

    metadata: pd.DataFrame
    images: list[Path] | np.ndarray
    masks: dict[str, Path]
    fingerprint: str
    generated: bool
    layout: Layout = HAM10000
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def contents(self) -> str:
        """Identifies the masks, on which figures depend and no training does."""
        return digest([(name, path.stat().st_size) for name, path in sorted(self.masks.items())])

    @property
    def name(self) -> str:
        return "generated sample" if self.generated else self.layout.name


def read_metadata(path: Path | str) -> pd.DataFrame:
    """Reads the table of lesions and images, one row an image, ages in years.

    Further columns are kept. Raises `MelanomaError` for a missing column, an unknown
    diagnosis, a repeated or unsafe image id, an age that is no number, or no rows.
    """
    return checked(read_table(Path(path)))


def checked(read: Table) -> pd.DataFrame:
    """The rows of a table, ages as numbers; raises `MelanomaError` as `read_metadata` says."""
    path, table = read.path, read.rows
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise MelanomaError(
            f"{path}: missing column {summarize_items(missing)}; "
            f"the table needs {', '.join(COLUMNS)}"
        )
    if table.empty:
        raise MelanomaError(f"{path}: the table has no rows")
    unknown = sorted(set(table["dx"].fillna("(empty)")) - set(CLASS_NAMES))
    if unknown:
        raise MelanomaError(
            f"{path}: unknown diagnosis {summarize_items(unknown)}; known are "
            f"{', '.join(CLASS_NAMES)}"
        )
    for column in ("image_id", "lesion_id"):  # ids become file names
        ids = table[column].fillna("(empty)")
        unsafe = [name for name in ids if not re.fullmatch(r"\w[\w.-]*", name)]
        if unsafe:
            raise MelanomaError(f"{path}: empty or unsafe {column}: {summarize_items(unsafe)}")
    repeated = table["image_id"][table["image_id"].duplicated()].unique()
    if len(repeated):
        raise MelanomaError(f"{path}: image_id listed more than once: {summarize_items(repeated)}")
    age = pd.to_numeric(table["age"], errors="coerce")
    wrong = table["age"][age.isna() & table["age"].notna() & (table["age"] != "unknown")]
    if len(wrong):
        raise MelanomaError(f"{path}: age is not a number: {summarize_items(wrong.unique())}")
    return table.assign(age=age)


def open_dataset(
    data_dir: Path | str = "",
    metadata: Path | str = "",
    img_dir: Path | str = "",
    external: bool = False,
) -> DatasetFiles:
    """Opens a dataset by its folder, or by table and image folder, and checks it.

    The folder has the published layout: a table named HAM10000_metadata*, images named by
    their id in one folder or several, and optionally masks named `<id>_segmentation.png`; if it
    is `external`, another layout of `layouts.LAYOUTS` will do. Raises `MelanomaError` when the
    table is wrong or an image it lists is absent.
    """
    read, images, masks = locate(data_dir, metadata, img_dir)
    if read.layout is not HAM10000 and not external:
        raise MelanomaError(
            f"{read.path} is a table of {read.layout.name}; a run needs HAM10000's own layout, and "
            "melanoma evaluate tests a trained run on this one"
        )
    table = checked(read)
    paths = read.pictures
    if paths is None:
        absent = [name for name in table["image_id"] if name not in images]
        if absent:
            raise MelanomaError(
                f"{len(absent)} of the {len(table)} images in {read.path} are not below "
                f"{img_dir or data_dir or '.'}: {summarize_items(absent)}"
            )
        paths = [images[name] for name in table["image_id"]]
    return DatasetFiles(
        metadata=table,
        images=paths,
        masks={name: masks[name] for name in table["image_id"] if name in masks},
        fingerprint=_fingerprint(read.path, [] if read.pictures is not None else paths),
        generated=read.generated,
        layout=read.layout,
        left_out=read.left_out,
    )


def locate(
    data_dir: Path | str = "", metadata: Path | str = "", img_dir: Path | str = ""
) -> tuple[Table, dict[str, Path], dict[str, Path]]:
    """The table as it is, unchecked, and all images and all masks by image id."""
    root = Path(img_dir or data_dir or ".")
    if not root.is_dir():
        raise MelanomaError(
            f"the dataset folder {root} does not exist; name it with --data-dir (melanoma data "
            "download fetches HAM10000)"
        )
    read = read_table(Path(metadata) if metadata else find_table(Path(data_dir or ".")))
    images, masks = index_files(root)
    if data_dir and img_dir:
        masks |= index_files(Path(data_dir))[1]
    return read, images, masks


def index_files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """All images and all masks below a folder by image id; the first of equal names counts."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    seen = set()  # real folders: a link may lead round in a circle
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        # macOS archives hold a shadow "._name" of every file
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(("__", ".")))
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - ten times faster than Path
            if name.startswith(".") or suffix.lower() not in SUFFIXES:
                continue
            found, key = (masks, stem[:-13]) if stem.endswith("_segmentation") else (images, stem)
            found.setdefault(key, Path(folder, name))
    return images, masks


def _fingerprint(table: Path, images: list[Path]) -> str:
    """Identifies a dataset by its table's content and its images' names and sizes in bytes."""
    with table.open("rb") as file:
        state = hashlib.file_digest(file, "sha256")
    for path in images:
        try:
            state.update(f"{path.name} {path.stat().st_size}\n".encode())
        except OSError as error:  # a link to nowhere
            raise MelanomaError(f"{path} cannot be read ({error.strerror})") from None
    return state.hexdigest()[:16]
