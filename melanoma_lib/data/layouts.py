"""Tables of other publishers, converted to the columns and the seven diagnoses of HAM10000."""

from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json
from melanoma_lib.data.classes import CLASS_NAMES

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
# What other publishers call these columns, and the diagnoses.
COLUMN_SYNONYMS = {
    "image": "image_id", "isic_id": "image_id", "diagnosis": "dx", "age_approx": "age",
    "anatom_site_general": "localization", "diagnosis_confirm_type": "dx_type",
}  # fmt: skip
DIAGNOSIS_CODES = {code: code for code in CLASS_NAMES} | {"ak": "akiec"}
# Diagnoses of the challenges that HAM10000 does not have. SCC is invasive squamous cell
# carcinoma (akiec holds only carcinoma in situ, Bowen's disease); UNK is anything else.
OTHER_DIAGNOSES = ("scc", "unk")
# Images that do not show a patient: the official test set holds one.
SYNTHETIC = ("ISIC_0035068",)


@dataclass(frozen=True)
class Layout:
    """How a publisher lays a dataset out.

    pattern: of the name of the file with the diagnoses, CSV or npz; it need not match any.
    metadata: what replaces GroundTruth in the name of the table with further columns.
    arrays: the keys of images and labels in an npz, whose labels are indices of `CLASS_NAMES`.
    overlap: a warning about images of HAM10000 that their names do not give away.
    """

    name: str
    pattern: str
    metadata: str = ""
    arrays: tuple[str, str] = ("", "")
    overlap: str = ""


LAYOUTS = (
    Layout("HAM10000", "HAM10000_metadata*"),
    Layout("ISIC 2018 test set", "ISIC2018_Task3_Test_GroundTruth*"),
    Layout("ISIC 2019", "ISIC_2019_*GroundTruth*.csv", metadata="Metadata"),
    Layout(
        "DermaMNIST", "dermamnist*.npz", arrays=("test_images", "test_labels"),
        overlap="DermaMNIST is made of the images of HAM10000, without their names: a model "
        "trained on HAM10000 has seen most of them",
    ),
)  # fmt: skip
HAM10000 = LAYOUTS[0]


@dataclass(frozen=True)
class RawTable:
    """A dataset's table as it was read; it has at least `COLUMNS`, unless it is HAM10000's own.

    excluded: how many rows were dropped, by reason. images: those of an npz, uint8
    (n, height, width, 3), else None.
    """

    path: Path
    rows: pd.DataFrame
    layout: Layout
    excluded: dict[str, int] = field(default_factory=dict)
    images: np.ndarray | None = None

    @property
    def generated(self) -> bool:
        """Whether this is the table of a generated sample, which has a sample.json beside it."""
        return bool(read_json(self.path.with_name("sample.json"), {}).get("generated"))


def find_table(folder: Path) -> Path:
    """The table in a folder or in a subfolder of it; raises `MelanomaError` when there is none."""
    for layout in LAYOUTS:
        for pattern in (layout.pattern, f"*/{layout.pattern}"):
            if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
                return found[0]
    raise MelanomaError(
        f"{folder} holds no HAM10000_metadata table, nor another that is known "
        f"({', '.join(layout.pattern for layout in LAYOUTS[1:])}); name the folder with "
        "--data-dir, or the table with --metadata"
    )


def layout_of(path: Path) -> Layout:
    """The layout of a table by its file name; HAM10000's for a name that matches none."""
    return next((layout for layout in LAYOUTS if fnmatch(path.name, layout.pattern)), HAM10000)


def read_table(path: Path) -> RawTable:
    """Reads a table in any of `LAYOUTS` without checking its values.

    HAM10000's is left as it is. In others, an image without a lesion id counts as a lesion of
    its own, other missing columns are "unknown", and rows with a diagnosis that HAM10000 does
    not have are excluded. Raises `MelanomaError` when the file cannot be read or has no images
    or diagnoses.
    """
    layout = layout_of(path)
    if layout.arrays[0]:
        return _read_npz(path, layout)
    rows = read_csv(path)
    if layout is HAM10000:
        return RawTable(path, rows, layout)
    rows = _join_metadata(path, layout, _standardize_columns(path, rows))
    rows, excluded = _map_diagnoses(path, rows)
    return RawTable(path, _fill_missing(rows), layout, excluded)


def read_csv(path: Path) -> pd.DataFrame:
    """Reads a CSV or TSV file, all columns as strings; raises `MelanomaError` when it cannot."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = "\t" if "\t" in file.readline() else ","
        return pd.read_csv(path, sep=separator, encoding="utf-8-sig", dtype=str)
    except FileNotFoundError:
        raise MelanomaError(f"the table {path} does not exist; name it with --metadata") from None
    except (OSError, ValueError) as error:
        raise MelanomaError(f"the table {path} cannot be read: {error}") from None


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
        raise MelanomaError(
            f"{path}: missing column {summarize_items(missing)}; the table needs one row per "
            "image and its diagnosis, in a column dx or one-hot"
        )
    return rows


def _join_metadata(path: Path, layout: Layout, rows: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns of the layout's second table, where that lies in a folder near by."""
    name = path.name.replace("GroundTruth", layout.metadata)
    folder = path.parent
    candidates = [folder / name, *folder.glob(f"*/{name}"), *folder.parent.glob(f"*/{name}")]
    for second in [file for file in candidates if layout.metadata and file.is_file()][:1]:
        metadata = read_csv(second).rename(columns=COLUMN_SYNONYMS)
        if "image_id" in metadata:
            new = ["image_id", *metadata.columns.difference(rows.columns)]
            rows = rows.merge(metadata[new].drop_duplicates("image_id"), "left", "image_id")
    return rows


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


def _fill_missing(rows: pd.DataFrame) -> pd.DataFrame:
    lesions = rows["lesion_id"] if "lesion_id" in rows else pd.Series(None, rows.index, str)
    rows = rows.assign(lesion_id=lesions.fillna(rows["image_id"]))
    for name in COLUMNS:
        if name not in rows:
            rows[name] = np.nan if name == "age" else "unknown"
    texts = ["sex", "localization", "dx_type"]
    return rows.assign(**rows[texts].fillna("unknown"))


def _read_npz(path: Path, layout: Layout) -> RawTable:
    """The test split of a MedMNIST file (Yang et al., 2023): its images and their labels."""
    try:
        with np.load(path) as file:
            images, labels = (file[name] for name in layout.arrays)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise MelanomaError(f"{path} cannot be read as {layout.name}: {error}") from None
    labels = labels.reshape(-1)
    shapes = images.ndim == 4 and images.shape[3] == 3 and len(images) == len(labels) > 0
    classes = np.isin(labels, range(len(CLASS_NAMES))).all()
    if not shapes or images.dtype != np.uint8 or not classes:
        raise MelanomaError(
            f"{path} is not laid out as {layout.name}: images {images.shape} {images.dtype}, "
            f"labels {labels.shape} {np.unique(labels)[:10]}"
        )
    split = layout.arrays[0].partition("_")[0]
    names = [f"{split}-{number:05d}" for number in range(len(labels))]
    rows = pd.DataFrame({"image_id": names, "dx": np.array(CLASS_NAMES)[labels.astype(int)]})
    return RawTable(path, _fill_missing(rows), layout, images=images)


def describe_excluded(excluded: dict[str, int]) -> str:
    """The excluded rows as text, such as "2 of diagnosis scc, 1 synthetic"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in excluded.items())
