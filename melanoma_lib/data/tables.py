"""A dataset's table: found, read, and converted to the columns and diagnoses of HAM10000."""

import filecmp
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from glob import escape
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.layouts import (
    COLUMN_SYNONYMS,
    COLUMNS,
    DERMAMNIST_TEST,
    DIAGNOSIS_CODES,
    DX_TYPES,
    HAM10000,
    LAYOUTS,
    NPZ,
    OTHER_DIAGNOSES,
    SYNTHETIC,
    Layout,
    layout_named,
    layout_of,
    published_name,
)
from melanoma_lib.data.picture_files import list_files


@dataclass(frozen=True)
class RawTable:
    """A dataset's table as it was read; it has at least `COLUMNS`, unless it is HAM10000's own.

    excluded: how many rows were dropped, by reason. images: those of an npz, uint8
    (n, height, width, 3), else None. second: the table with further columns.
    """

    path: Path
    rows: pd.DataFrame
    layout: Layout
    excluded: dict[str, int] = field(default_factory=dict)
    images: np.ndarray | None = None
    second: Path | None = None

    @property
    def sources(self) -> list[Path]:
        """The files that the table was read from."""
        return [self.path, self.second] if self.second else [self.path]

    @property
    def generated(self) -> bool:
        """Whether this is the table of a generated sample, which has a sample.json beside it."""
        return bool(read_json(self.path.with_name("sample.json"), {}).get("generated"))


def find_tables(folder: Path) -> list[Path]:
    """The tables below a folder, first the one to read, then those that were passed over.

    A published name goes before one like it, such as "HAM10000_metadata (1).csv", a higher folder
    before a lower one, HAM10000's table before others, the larger npz before a smaller one. Raises
    `MelanomaError` when there is none, or when different tables come first.
    """
    files, unreadable = list_files(folder)
    named = {path: layout for path in files if (layout := layout_named(path))}
    ranks = {
        path: (not re.fullmatch(layout.pattern, path.stem), len(path.parts), layout is not HAM10000)
        for path, layout in named.items()
        if path.suffix.lower() in layout.suffixes and path.is_file()
    }  # fmt: skip
    if not ranks:
        others = [f"{path} is not a table that can be read" for path in named]
        layouts = ", ".join(layout.name for layout in LAYOUTS if not layout.trainable)
        raise MelanomaError(
            f"{folder} holds no HAM10000_metadata table, nor one of {layouts}; name the folder "
            f"with --data-dir, or the table with --metadata{'; '.join(['', *others, *unreadable])}"
        )
    best = [path for path, rank in ranks.items() if rank == min(ranks.values())]
    if all(named[path] is NPZ for path in best):  # of pictures in several sizes
        best.sort(key=lambda path: -path.stat().st_size)
        del best[1:]
    differ = [path for path in ranks if not filecmp.cmp(best[0], path, shallow=False)]
    if equal := [path for path in best if path in differ]:
        raise MelanomaError(
            f"{folder} holds several tables: {summarize_items([best[0], *equal])}; name one with "
            "--metadata, or its folder with --data-dir"
        )
    return [best[0], *differ]


def read_table(path: Path) -> RawTable:
    """Reads a table in any of `LAYOUTS` without checking its values.

    HAM10000's is left as it is. In others, an image without a lesion id counts as a lesion of
    its own, other missing columns are "unknown", and rows with a diagnosis that HAM10000 does
    not have are excluded. Raises `MelanomaError` when the file cannot be read, has no images or
    diagnoses, or is HAM10000's without the lesions.
    """
    layout = layout_of(path)
    if layout is NPZ:
        return _read_npz(path)
    rows = read_csv(path)
    if layout is HAM10000:
        return RawTable(path, rows, layout)
    rows = _standardize_columns(path, rows)
    second = None
    if layout.second_table:
        name = published_name(path, layout).replace("GroundTruth", layout.second_table) + ".csv"
        second = _find_near(path.parent, name)
        rows = _join(rows, second) if second else rows
        if layout.trainable and "lesion_id" not in rows:
            raise MelanomaError(
                f"{path} does not say which images show one lesion; put {name} of the same "
                "challenge beside it"
            )
    rows, excluded = _map_diagnoses(path, rows)
    return RawTable(path, _fill_missing(rows, layout), layout, excluded, second=second)


def read_csv(path: Path) -> pd.DataFrame:
    """Reads a table whose columns are parted by commas, semicolons or tabs, all as strings.

    Blanks around names and values are dropped. Raises `MelanomaError` when it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        rows = pd.read_csv(
            path, sep=separator, encoding="utf-8-sig", dtype=str, skipinitialspace=True,
            index_col=False,  # or a separator at the end of each row would shift the columns
        )  # fmt: skip
    except FileNotFoundError:
        raise MelanomaError(f"the table {path} does not exist; name it with --metadata") from None
    except Exception as error:
        raise MelanomaError(f"the table {path} cannot be read: {error}") from None
    return pd.DataFrame({name.strip(): rows[name].str.strip() for name in rows})


def missing_column(
    path: Path, rows: pd.DataFrame, missing: Iterable[str], needed: str
) -> MelanomaError:
    """The error for a table without some columns, which shows those that it has."""
    heads = summarize_items(name[:40] for name in rows)
    return MelanomaError(
        f"{path}: missing column {summarize_items(missing)}; the table needs {needed}, and its "
        f"first line reads {heads}"
    )


def _standardize_columns(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Renames columns to `COLUMNS`, and turns one-hot columns of diagnoses into the column dx."""
    rows = rows.rename(columns={k: v for k, v in COLUMN_SYNONYMS.items() if v not in rows})
    if "dx" not in rows:
        classes = [name for name in rows if name.lower() in (*DIAGNOSIS_CODES, *OTHER_DIAGNOSES)]
        one_hot = rows[classes].apply(pd.to_numeric, errors="coerce").to_numpy(float)
        if classes and "image_id" in rows:
            ambiguous = rows["image_id"][(one_hot == 1).sum(1) != 1]
            if len(ambiguous):
                names = summarize_items(ambiguous)
                raise MelanomaError(f"{path}: not exactly one diagnosis: {names}")
            rows["dx"] = np.array(classes)[one_hot.argmax(1)]
    missing = [name for name in ("image_id", "dx") if name not in rows]
    if missing:
        needed = "one row per image and its diagnosis, in a column dx or one-hot"
        raise missing_column(path, rows, missing, needed)
    return rows


def _find_near(folder: Path, name: str) -> Path | None:
    """A file in a folder, in the one above, or in a folder of either."""
    patterns = (escape(name), f"*/{escape(name)}")
    near = (place.glob(pattern) for place in (folder, folder.parent) for pattern in patterns)
    return next((path for path in chain.from_iterable(near) if path.is_file()), None)


def _join(rows: pd.DataFrame, second: Path) -> pd.DataFrame:
    """Adds the columns of a second table, by image id."""
    further = read_csv(second).rename(columns=COLUMN_SYNONYMS)
    if "image_id" not in further:
        return rows
    new = ["image_id", *further.columns.difference(rows.columns)]
    return rows.merge(further[new].drop_duplicates("image_id"), "left", "image_id")


def _map_diagnoses(path: Path, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows with a diagnosis of HAM10000, and how many were excluded by reason."""
    synthetic = rows["image_id"].isin(SYNTHETIC)
    codes = rows["dx"].fillna("(empty)").str.lower()
    others = codes[~codes.isin(DIAGNOSIS_CODES) & ~synthetic]
    excluded = {f"of diagnosis {code}": int(n) for code, n in others.value_counts().items()}
    if synthetic.any():
        excluded["synthetic"] = int(synthetic.sum())
    rows = rows.assign(dx=codes.map(DIAGNOSIS_CODES))[~synthetic & codes.isin(DIAGNOSIS_CODES)]
    if rows.empty:
        raise MelanomaError(f"{path}: no row has one of the diagnoses {', '.join(CLASS_NAMES)}")
    return rows.reset_index(drop=True), excluded


def _fill_missing(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    if not layout.trainable:  # there, images of one lesion would be split apart
        lesions = rows["lesion_id"] if "lesion_id" in rows else pd.Series(None, rows.index, str)
        rows = rows.assign(lesion_id=lesions.fillna(rows["image_id"]))
    for name in COLUMNS:
        if name not in rows:
            rows[name] = np.nan if name == "age" else "unknown"
    rows["dx_type"] = rows["dx_type"].replace(DX_TYPES)
    texts = ["sex", "localization", "dx_type"]
    return rows.assign(**rows[texts].fillna("unknown"))


def _read_npz(path: Path) -> RawTable:
    """The test split of a MedMNIST file (Yang et al., 2023): its images and their labels."""
    try:
        with np.load(path) as file:
            images, labels = (file[name] for name in NPZ.arrays)
    except Exception as error:  # of zipfile, zlib or numpy, depending on where it is damaged
        raise MelanomaError(f"{path} cannot be read as {NPZ.name}: {error}") from None
    labels = labels.reshape(-1)
    shapes = images.ndim == 4 and images.shape[3] == 3 and len(images) == len(labels) > 0
    classes = np.isin(labels, range(len(CLASS_NAMES))).all()
    if not shapes or images.dtype != np.uint8 or not classes:
        raise MelanomaError(
            f"{path} is not laid out as {NPZ.name}: images {images.shape} {images.dtype}, "
            f"labels {labels.shape} {np.unique(labels)[:10]}"
        )
    layout = NPZ
    if tuple(np.bincount(labels.astype(int), minlength=len(CLASS_NAMES))) != DERMAMNIST_TEST:
        layout = replace(NPZ, name="a file laid out as DermaMNIST", overlap="")
    split = layout.arrays[0].partition("_")[0]
    names = [f"{split}-{number:05d}" for number in range(len(labels))]
    rows = pd.DataFrame({"image_id": names, "dx": np.array(CLASS_NAMES)[labels.astype(int)]})
    return RawTable(path, _fill_missing(rows, layout), layout, images=images)
