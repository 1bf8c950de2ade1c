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
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA, NO_MELANOMA
from melanoma_lib.data.layouts import (
    COLUMN_SYNONYMS,
    COLUMNS,
    DERMAMNIST_TEST,
    DERMOSCOPIC,
    DIAGNOSIS_CODES,
    DIAGNOSIS_LEVELS,
    DX_TYPES,
    HAM10000,
    LAYOUTS,
    NPZ,
    OF_DIAGNOSIS,
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
    not have, or with an `image_type` other than dermoscopic, are excluded. Raises `MelanomaError`
    when the file cannot be read, has no images or diagnoses, or is HAM10000's without the lesions.
    """
    layout = layout_of(path)
    if layout is NPZ:
        return _read_npz(path)
    rows = read_csv(path)
    if layout is HAM10000:
        return RawTable(path, rows, layout)
    rows, second = _join_second(path, _rename(rows), layout)
    rows, other_types = _drop_other_types(rows)
    rows = _standardise_columns(path, rows, layout)
    rows, excluded = _map_diagnoses(path, rows, layout)
    return RawTable(
        path, _fill_missing(rows, layout), layout, other_types | excluded, second=second
    )


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


def _rename(rows: pd.DataFrame) -> pd.DataFrame:
    """Renames columns to `COLUMNS`; of several that mean the same, the first."""
    names: dict[str, str] = {}
    for name in rows:
        standard = COLUMN_SYNONYMS.get(name)
        if standard and standard not in rows and standard not in names.values():
            names[name] = standard
    return rows.rename(columns=names)


def _join_second(
    path: Path, rows: pd.DataFrame, layout: Layout
) -> tuple[pd.DataFrame, Path | None]:
    """Adds the columns of the layout's second table, by image or by lesion, and says its path.

    Raises `MelanomaError` where it is not there and the first does not say what it must.
    """
    if not layout.second_table:
        return rows, None
    name = published_name(path, layout).replace("GroundTruth", layout.second_table) + ".csv"
    second = _find_near(path.parent, name)
    if second:
        further = _rename(read_csv(second))
        common = [key for key in ("image_id", "lesion_id") if key in rows and key in further]
        if common and "image_id" in further:
            new = [common[0], *further.columns.difference(rows.columns)]
            further = further.drop_duplicates("image_id")[new]
            rows = rows.merge(further, "left", common[0])
    of_lesions = "lesion_id" in rows and "image_id" not in rows
    if of_lesions or (layout.trainable and "lesion_id" not in rows):
        raise MelanomaError(
            f"{path} does not say which images show one lesion; put {name} of the same "
            "challenge beside it"
        )
    return rows, second


def _find_near(folder: Path, name: str) -> Path | None:
    """A file in a folder, in the one above, or in a folder of either."""
    patterns = (escape(name), f"*/{escape(name)}")
    near = (place.glob(pattern) for place in (folder, folder.parent) for pattern in patterns)
    return next((path for path in chain.from_iterable(near) if path.is_file()), None)


def _drop_other_types(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of dermoscopic images, and how many of other types were dropped by type."""
    if "image_type" not in rows:
        return rows, {}
    types = rows["image_type"].fillna("(empty)")
    others = types[types != DERMOSCOPIC].value_counts()
    dropped = {f"of type {name}": int(count) for name, count in others.items()}
    return rows[types == DERMOSCOPIC], dropped


def _standardise_columns(path: Path, rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Makes the column dx of what says the diagnosis, and image ids of the names of files."""
    rows = rows.copy()
    levels = [name for name in DIAGNOSIS_LEVELS if name in rows]
    if layout.melanoma:
        says = pd.to_numeric(rows.get(layout.melanoma), errors="coerce")
        rows["dx"] = says.map({1: MELANOMA, 0: NO_MELANOMA})
    elif levels:
        rows["dx"] = _most_specific(rows[levels]).fillna(rows.get("dx", pd.Series(dtype=str)))
    elif "dx" not in rows and "image_id" in rows:
        rows = _from_one_hot(path, rows)
    missing = [name for name in ("image_id", "dx") if name not in rows]
    if missing:
        needed = "one row per image and its diagnosis, in a column dx or one-hot"
        raise missing_column(path, rows, missing, needed)
    file_name = r"^(?:[\w-]+/)?([^/]+)\.(?:jpe?g|png)$"  # in a folder or not
    ids = rows["image_id"].str.replace(file_name, r"\1", case=False, regex=True)
    return rows.assign(image_id=ids)


def _most_specific(levels: pd.DataFrame) -> pd.Series:
    """The name that decides on the diagnosis, of names (n, levels) with the most specific first.

    The first that stands in the tables of `layouts`, or the first of all.
    """
    names = levels.apply(lambda column: column.str.lower())
    known = names.where(names.isin([*DIAGNOSIS_CODES, *OTHER_DIAGNOSES]))
    return known.bfill(axis=1).iloc[:, 0].fillna(names.bfill(axis=1).iloc[:, 0])


def _from_one_hot(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Turns one-hot columns of diagnoses, if there are any, into the column dx."""
    classes = [name for name in rows if name.lower() in (*DIAGNOSIS_CODES, *OTHER_DIAGNOSES)]
    if not classes:
        return rows
    one_hot = rows[classes].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    ambiguous = rows["image_id"][(one_hot == 1).sum(1) != 1]
    if len(ambiguous):
        names = summarize_items(ambiguous)
        raise MelanomaError(f"{path}: not exactly one diagnosis: {names}")
    return rows.assign(dx=np.array(classes)[one_hot.argmax(1)])


def _map_diagnoses(
    path: Path, rows: pd.DataFrame, layout: Layout
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows with a diagnosis of the layout's codes, and how many were excluded by reason."""
    synthetic = rows["image_id"].isin(SYNTHETIC)
    if "image_manipulation" in rows:
        synthetic |= rows["image_manipulation"] == "synthetic"
    code_of = DIAGNOSIS_CODES | dict(zip(layout.codes, layout.codes, strict=True))
    names = rows["dx"].fillna("(empty)").str.lower()
    others = names[~names.isin(code_of) & ~synthetic]
    excluded = {OF_DIAGNOSIS + name: int(n) for name, n in others.value_counts().items()}
    if synthetic.any():
        excluded["synthetic"] = int(synthetic.sum())
    rows = rows.assign(dx=names.map(code_of))[~synthetic & names.isin(code_of)]
    if rows.empty:
        raise MelanomaError(f"{path}: no row has one of the diagnoses {', '.join(layout.codes)}")
    return rows.reset_index(drop=True), excluded


def _fill_missing(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    if not layout.trainable:  # there, images of one lesion would be split apart
        lesions = rows["lesion_id"] if "lesion_id" in rows else pd.Series(None, rows.index, str)
        rows = rows.assign(lesion_id=lesions.fillna(rows["image_id"]))
    for name in COLUMNS:
        if name not in rows:
            rows[name] = np.nan if name == "age" else "unknown"
    rows["dx_type"] = rows["dx_type"].replace(DX_TYPES)
    texts = rows[["sex", "localization", "dx_type"]].fillna("unknown")
    return rows.assign(**texts.apply(lambda column: column.str.lower()))


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
