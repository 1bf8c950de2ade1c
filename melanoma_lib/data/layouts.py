"""Tables as others publish them, read into the columns and the seven diagnoses of HAM10000."""

from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json
from melanoma_lib.data.classes import CLASS_NAMES

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
# Other names of our columns, and of our diagnoses.
SYNONYMS = {
    "image": "image_id", "isic_id": "image_id", "diagnosis": "dx", "age_approx": "age",
    "anatom_site_general": "localization", "diagnosis_confirm_type": "dx_type",
}  # fmt: skip
CODES = {code: code for code in CLASS_NAMES} | {"ak": "akiec"}
# Columns of the challenges that are diagnoses and none of ours. SCC, squamous cell carcinoma,
# grows into the depth; what akiec holds of it has not done so yet (Bowen's disease), and no model
# trained on HAM10000 has seen the other kind. UNK is anything else.
FOREIGN = ("scc", "unk")
# Images that are no photographs of a patient: the official test set holds one.
SYNTHETIC = ("ISIC_0035068",)


@dataclass(frozen=True)
class Layout:
    """How a publisher lays a dataset out; patterns of file names may match none.

    `table`: the diagnoses, as CSV or npz; `beside`: what stands for GroundTruth in the name of
    the table of further columns; `arrays`: what an npz calls the pictures and the labels, which
    count the diagnoses in our order; `overlap`: what to know of images that are HAM10000's own
    though their names do not show it.
    """

    name: str
    table: str
    beside: str = ""
    arrays: tuple[str, str] = ("", "")
    overlap: str = ""


LAYOUTS = (
    Layout("HAM10000", "HAM10000_metadata*"),
    Layout("ISIC 2018 test set", "ISIC2018_Task3_Test_GroundTruth*"),
    Layout("ISIC 2019", "ISIC_2019_*GroundTruth*.csv", beside="Metadata"),
    Layout(
        "DermaMNIST", "dermamnist*.npz", arrays=("test_images", "test_labels"),
        overlap="DermaMNIST is made of the images of HAM10000, without their names: a model "
        "trained on HAM10000 has seen most of them",
    ),
)  # fmt: skip
HAM10000 = LAYOUTS[0]


@dataclass(frozen=True)
class Table:
    """A table as read: rows of `COLUMNS` and more, its layout, and what was left out of it.

    `left_out` counts rows by reason; `pictures` are those of an npz, uint8, row by row.
    """

    path: Path
    rows: pd.DataFrame
    layout: Layout
    left_out: dict[str, int] = field(default_factory=dict)
    pictures: np.ndarray | None = None

    @property
    def generated(self) -> bool:
        """Whether the marker of a generated sample lies beside the table."""
        return bool(read_json(self.path.with_name("sample.json"), {}).get("generated"))


def find_table(folder: Path) -> Path:
    """The table in a folder, or in one of its folders; raises `MelanomaError` without one."""
    for layout in LAYOUTS:
        for pattern in (layout.table, f"*/{layout.table}"):
            if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
                return found[0]
    raise MelanomaError(
        f"{folder} holds no HAM10000_metadata table, nor another that is known "
        f"({', '.join(layout.table for layout in LAYOUTS[1:])}); name the folder with --data-dir, "
        "or the table with --metadata"
    )


def layout_of(path: Path) -> Layout:
    """The layout of a table by its name; that of HAM10000 for any other name."""
    return next((layout for layout in LAYOUTS if fnmatch(path.name, layout.table)), HAM10000)


def read_table(path: Path) -> Table:
    """Reads a table in any known layout; nothing in it is checked beyond what reading needs.

    That of HAM10000 is left as it is. In others, an image without a lesion id is a lesion of its
    own, other missing columns are unknown, and rows of no diagnosis of ours are counted and left
    out. Raises `MelanomaError` for what cannot be read.
    """
    layout = layout_of(path)
    if layout.arrays[0]:
        return _read_arrays(path, layout)
    rows = read_csv(path)
    if layout is HAM10000:
        return Table(path, rows, layout)
    rows, left_out = _mapped(path, _beside(path, layout, _ours(path, rows)))
    return Table(path, _filled(rows), layout, left_out)


def read_csv(path: Path) -> pd.DataFrame:
    """Reads a table of texts, separated by commas or tabs."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = "\t" if "\t" in file.readline() else ","
        return pd.read_csv(path, sep=separator, encoding="utf-8-sig", dtype=str)
    except FileNotFoundError:
        raise MelanomaError(f"the table {path} does not exist; name it with --metadata") from None
    except (OSError, ValueError) as error:
        raise MelanomaError(f"the table {path} cannot be read: {error}") from None


def _ours(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Renames what we call otherwise; columns of one diagnosis each become the column dx."""
    rows = rows.rename(columns={k: v for k, v in SYNONYMS.items() if v not in rows})
    if "dx" not in rows:
        classes = [name for name in rows if name.lower() in (*CODES, *FOREIGN)]
        marks = rows[classes].apply(pd.to_numeric, errors="coerce").to_numpy(float)
        if classes and "image_id" in rows:
            unclear = rows["image_id"][(marks == 1).sum(1) != 1]
            if len(unclear):
                named = summarize_items(unclear)
                raise MelanomaError(f"{path}: not exactly one diagnosis: {named}")
            rows["dx"] = np.array(classes)[marks.argmax(1)]
    missing = [name for name in ("image_id", "dx") if name not in rows]
    if missing:
        raise MelanomaError(
            f"{path}: missing column {summarize_items(missing)}; the table needs an image a row "
            "and its diagnosis, in one column or in one column a diagnosis"
        )
    return rows


def _beside(path: Path, layout: Layout, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with further columns of the table that lies beside theirs, if there is one."""
    name = path.name.replace("GroundTruth", layout.beside)
    here = path.parent
    places = [here / name, *here.glob(f"*/{name}"), *here.parent.glob(f"*/{name}")]
    for other in [other for other in places if layout.beside and other.is_file()][:1]:
        further = read_csv(other).rename(columns=SYNONYMS)
        if "image_id" in further:
            new = ["image_id", *further.columns.difference(rows.columns)]
            rows = rows.merge(further[new].drop_duplicates("image_id"), "left", "image_id")
    return rows


def _mapped(path: Path, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of our diagnoses, and how many were left out by reason."""
    synthetic = rows["image_id"].isin(SYNTHETIC)
    codes = rows["dx"].fillna("(empty)").str.lower()
    foreign = codes[~codes.isin(CODES) & ~synthetic]
    left_out = {f"of diagnosis {code}": int(n) for code, n in foreign.value_counts().items()}
    if synthetic.any():
        left_out["synthetic"] = int(synthetic.sum())
    rows = rows.assign(dx=codes.map(CODES))[~synthetic & codes.isin(CODES)]
    if rows.empty:
        raise MelanomaError(f"{path}: no row has one of the diagnoses {', '.join(CLASS_NAMES)}")
    return rows.reset_index(drop=True), left_out


def _filled(rows: pd.DataFrame) -> pd.DataFrame:
    lesions = rows["lesion_id"] if "lesion_id" in rows else pd.Series(None, rows.index, str)
    rows = rows.assign(lesion_id=lesions.fillna(rows["image_id"]))
    for name in COLUMNS:
        if name not in rows:
            rows[name] = np.nan if name == "age" else "unknown"
    texts = ["sex", "localization", "dx_type"]
    return rows.assign(**rows[texts].fillna("unknown"))


def _read_arrays(path: Path, layout: Layout) -> Table:
    """The test part of an npz of MedMNIST (Yang et al., 2023): pictures (n, h, w, 3), labels."""
    try:
        with np.load(path) as file:
            pictures, labels = (file[name] for name in layout.arrays)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise MelanomaError(f"{path} cannot be read as {layout.name}: {error}") from None
    labels = labels.reshape(-1)
    shapes = pictures.ndim == 4 and pictures.shape[3] == 3 and len(pictures) == len(labels) > 0
    known = np.isin(labels, range(len(CLASS_NAMES))).all()
    if not shapes or pictures.dtype != np.uint8 or not known:
        raise MelanomaError(
            f"{path} is not laid out as {layout.name}: pictures {pictures.shape} {pictures.dtype}, "
            f"labels {labels.shape} {np.unique(labels)[:10]}"
        )
    part = layout.arrays[0].partition("_")[0]
    names = [f"{part}-{number:05d}" for number in range(len(labels))]
    rows = pd.DataFrame({"image_id": names, "dx": np.array(CLASS_NAMES)[labels.astype(int)]})
    return Table(path, _filled(rows), layout, pictures=pictures)


def left_out_text(left_out: dict[str, int]) -> str:
    """What was left out, in words."""
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
