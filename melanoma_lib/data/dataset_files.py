"""The dataset folder: its table is read and checked, its images and masks are found."""

import hashlib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import digest
from melanoma_lib.data.layouts import COLUMNS, HAM10000, Layout
from melanoma_lib.data.picture_files import list_files, sort_pictures, without_copies
from melanoma_lib.data.tables import RawTable, find_tables, missing_column, read_table

OLDEST = 120  # years; tables write missing ages as -1, 999 or infinity


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

    def rows_of(self, image_ids: Iterable[str]) -> list[int]:
        """The row numbers of images, in the order of their ids."""
        row_of = {name: row for row, name in enumerate(self.metadata["image_id"])}
        return [row_of[name] for name in image_ids]

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
        raise missing_column(table.path, metadata, missing, ", ".join(COLUMNS))
    if metadata.empty:
        raise MelanomaError(f"{path}: the table has no rows")
    unknown = sorted(set(metadata["dx"].fillna("(empty)")) - set(table.layout.codes))
    if unknown:
        raise MelanomaError(
            f"{path}: unknown diagnosis {summarize_items(unknown)}; known are "
            f"{', '.join(table.layout.codes)}"
        )
    for column in ("image_id", "lesion_id"):  # ids become file names
        ids = metadata[column].fillna("(empty)")
        unsafe = [name for name in ids if not re.fullmatch(r"\w[\w.-]*", name)]
        if unsafe:
            raise MelanomaError(f"{path}: empty or unsafe {column}: {summarize_items(unsafe)}")
    repeated = metadata["image_id"][metadata["image_id"].duplicated()].unique()
    if len(repeated):
        raise MelanomaError(f"{path}: image_id listed more than once: {summarize_items(repeated)}")
    wrong = set(metadata["age"][_ages(table).isna()].dropna()) - {"unknown"}
    if wrong:
        raise MelanomaError(f"{path}: age is not a number: {summarize_items(sorted(wrong))}")
    return metadata.assign(age=_ages(table).where(~implausible_ages(table)))


def _ages(table: RawTable) -> pd.Series:
    return pd.to_numeric(table.rows["age"], errors="coerce")


def implausible_ages(table: RawTable) -> pd.Series:
    """Where the age is a number and nobody's, such as -1 or 999, which `validate_table` drops."""
    return (_ages(table) < 0) | (_ages(table) > OLDEST)


@dataclass(frozen=True)
class LocatedFiles:
    """What lies in a dataset's folders, before its table is checked.

    images, masks: all files of an image id that are not copies of each other; other_tables: those
    that were passed over; unreadable: why others cannot be read; root: the folder of the images.
    """

    table: RawTable
    images: dict[str, list[Path]]
    masks: dict[str, list[Path]]
    other_tables: list[Path]
    unreadable: list[str]
    root: Path

    def problems(self) -> list[str]:
        """What stops a run: images of the table that are absent, ids with different files."""
        names = self.table.rows["image_id"]
        problems = []
        absent = [name for name in names if name not in self.images]
        if absent and self.table.images is None:
            as_mask = sum(name in (path.stem for path in self.masks[name])
                          for name in absent if name in self.masks)  # fmt: skip
            problems.append(
                f"{len(absent)} of the {len(names)} images in {self.table.path} are not below "
                f"{self.root}: {summarize_items(absent)}"
                + f" ({as_mask} lie in folders whose names speak of masks)" * bool(as_mask)
            )
        hint = "one of them must go, or into a folder called masks if it is one"
        for kind, found in (("image", self.images), ("mask", self.masks)):
            several = [
                f"{name} ({summarize_items(found[name])})"
                for name in names if len(found.get(name, ())) > 1
            ]  # fmt: skip
            if several:
                problems.append(
                    f"{len(several)} image ids have different files as their {kind}; {hint}: "
                    f"{summarize_items(several, 3)}"
                )
        return problems

    def remarks(self) -> list[str]:
        """What does not stop a run and should be known: tables passed over, ages dropped, …."""
        remarks = list(self.unreadable)
        if self.other_tables:
            others = summarize_items(self.other_tables)
            remarks.append(f"the table is {self.table.path}; passed over: {others}")
        if "age" in self.table.rows:
            ages = self.table.rows["age"][implausible_ages(self.table)]
            if len(ages):
                remarks.append(
                    f"{self.table.path}: {len(ages)} ages below 0 or above {OLDEST} count as "
                    f"missing: {summarize_items(ages.unique())}"
                )
        return remarks


def open_dataset(
    data_dir: Path | str = "",
    metadata: Path | str = "",
    img_dir: Path | str = "",
    external: bool = False,
) -> DatasetFiles:
    """Opens and checks a dataset, by its folder or by the paths of its table and its images.

    The folder has the published layout: a table named HAM10000_metadata, images named by their id
    in one folder or several, and optionally masks, named `<id>_segmentation` or in a folder called
    masks. With `external`, any layout of `layouts.LAYOUTS` is accepted. What is odd is printed on
    stderr. Raises `MelanomaError` when the table is wrong, an image it lists is absent, or
    different files have one id.
    """
    files = locate_files(data_dir, metadata, img_dir)
    table = files.table
    if not (table.layout.trainable or external):
        raise MelanomaError(
            f"{table.path} is a table of {table.layout.name}; a run needs HAM10000, and melanoma "
            "evaluate tests a trained run on this one"
        )
    rows = validate_table(table)
    if problems := files.problems():
        raise MelanomaError("; ".join([*problems, *files.unreadable]))
    for remark in files.remarks():
        print(f"melanoma: {remark}", file=sys.stderr)
    names = rows["image_id"]
    images = table.images
    if images is None:
        images = [files.images[name][0] for name in names]
    return DatasetFiles(
        metadata=rows,
        images=images,
        masks={name: files.masks[name][0] for name in names if name in files.masks},
        fingerprint=_fingerprint(table.sources, [] if table.images is not None else images),
        generated=table.generated,
        layout=table.layout,
        excluded=table.excluded,
    )


def locate_files(
    data_dir: Path | str = "", metadata: Path | str = "", img_dir: Path | str = ""
) -> LocatedFiles:
    """The dataset's table, not yet checked, and all images and masks by image id.

    Raises `MelanomaError` when there is no folder or no table that can be read.
    """
    root = Path(img_dir or data_dir or ".")
    if not root.is_dir():
        raise MelanomaError(
            f"the dataset folder {root} does not exist; name it with --data-dir (melanoma data "
            "download fetches HAM10000)"
        )
    path, *others = [Path(metadata)] if metadata else find_tables(Path(data_dir or "."))
    table = read_table(path)
    ids = frozenset(table.rows.get("image_id", ()))
    files, unreadable = list_files(root)
    images, masks = sort_pictures(root, files, ids)
    if data_dir and img_dir:  # masks may lie beside the images or beside the table
        files, more = list_files(Path(data_dir))
        unreadable += more
        for name, paths in sort_pictures(Path(data_dir), files, ids)[1].items():
            masks[name] += paths
    for found in (images, masks):
        for name in [name for name, paths in found.items() if len(paths) > 1]:
            found[name] = without_copies(found[name])
    return LocatedFiles(table, dict(images), dict(masks), others, unreadable, root)


def _fingerprint(tables: Sequence[Path], images: list[Path]) -> str:
    """A digest of the tables' content and of the images' names and sizes in bytes."""
    checksum = hashlib.sha256()
    for table in tables:
        checksum.update(table.read_bytes())
    for path in images:
        try:
            checksum.update(f"{path.name} {path.stat().st_size}\n".encode())
        except OSError as error:  # a broken link
            raise MelanomaError(f"{path} cannot be read ({error.strerror})") from None
    return checksum.hexdigest()[:16]
