"""How publishers lay datasets out: names of tables, columns and diagnoses."""

import re
from dataclasses import dataclass
from pathlib import Path

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA, NO_MELANOMA

LICENCE = "CC BY-NC 4.0"  # of HAM10000, and so of what is learned from it
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
# What other publishers call these columns.
COLUMN_SYNONYMS = {
    "image": "image_id", "isic_id": "image_id", "image_name": "image_id",
    "bcn_filename": "image_id", "img_id": "image_id", "derm": "image_id",
    "diagnosis": "dx", "diagnostic": "dx", "diagnosis_confirm_type": "dx_type",
    "age_approx": "age", "gender": "sex",
    "anatom_site_general": "localization", "anatom_site_general_challenge": "localization",
    "region": "localization", "location": "localization", "site": "localization",
}  # fmt: skip
# The diagnosis in the hierarchy of the ISIC archive, the most specific name first.
DIAGNOSIS_LEVELS = tuple(f"diagnosis_{level}" for level in (5, 4, 3, 2, 1))
# What publishers call the diagnoses of HAM10000, besides its own codes, in small letters. In the
# hierarchy of the ISIC archive a name stands for everything below it. Sources: data/README.md.
DIAGNOSIS_NAMES = {
    "akiec": (
        "ak", "ack", "actinic keratosis", "solar or actinic keratosis",
        "squamous cell carcinoma in situ",
    ),
    "bcc": ("basal cell carcinoma",),
    "bkl": (
        "sek", "seborrheic keratosis", "solar lentigo", "lichenoid keratosis",
        "lichen planus like keratosis", "pigmented benign keratosis",
    ),
    "df": ("dermatofibroma",),
    "mel": (
        "melanoma", "melanoma (in situ)", "melanoma (less than 0.76 mm)",
        "melanoma (0.76 to 1.5 mm)", "melanoma (more than 1.5 mm)",
        "malignant melanocytic proliferations (melanoma)",
    ),
    "nv": (
        "nev", "nevus", "blue nevus", "clark nevus", "combined nevus", "congenital nevus",
        "dermal nevus", "nevus spilus", "recurrent nevus", "reed or spitz nevus",
    ),
    "vasc": (
        "vascular lesion", "angioma", "angiokeratoma", "pyogenic granuloma",
        "benign soft tissue proliferations - vascular", "hemorrhagic lesions",
    ),
}  # fmt: skip
DIAGNOSIS_CODES = {
    name: code for code in CLASS_NAMES for name in (code, *DIAGNOSIS_NAMES[code])
}
# Diagnoses that HAM10000 does not have, and that are columns of a challenge or stand below one
# that it has; any other name is left out, too. SCC is invasive squamous cell carcinoma (akiec
# holds only carcinoma in situ, Bowen's disease); UNK is anything else.
OTHER_DIAGNOSES = ("scc", "sccka", "unk", "ben_oth", "mal_oth", "inf", "melanoma metastasis")
DERMOSCOPIC = "dermoscopic"  # the image_type that is read
# What other publishers call the ways in which a diagnosis was confirmed.
DX_TYPES = {
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}
# Images that do not show a patient: the official test set holds one.
SYNTHETIC = ("ISIC_0035068",)
# Images a class in the test split of DermaMNIST, in the order of `CLASS_NAMES`.
DERMAMNIST_TEST = (66, 103, 220, 23, 223, 1_341, 29)
OF_DIAGNOSIS = "of diagnosis "  # begins the reason of rows that are excluded for their diagnosis
NAMED = 8  # such reasons that are named in a text; an export of the archive can have a hundred


@dataclass(frozen=True)
class Layout:
    """How a publisher lays a dataset out.

    pattern: a regular expression of the published name, without suffix, of the file with the
    diagnoses. columns: regular expressions of columns that tell its table from others of that name.
    second_table: what replaces GroundTruth in the name of the table with further columns.
    trainable: whether it is HAM10000, which runs are trained on. melanoma: the column that is 1 for
    melanoma and 0 for anything else, where the table says no more. arrays: the keys of images and
    labels in an npz, whose labels are indices of `CLASS_NAMES`. overlap: a warning about images of
    HAM10000 that their names do not give away. modality: what the images are, unless dermoscopic.
    """

    name: str
    pattern: str
    columns: tuple[str, ...] = ()
    second_table: str = ""
    trainable: bool = False
    melanoma: str = ""
    arrays: tuple[str, str] = ("", "")
    overlap: str = ""
    modality: str = ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those that the file with the diagnoses may have."""
        return (".npz",) if self.arrays[0] else (".csv", ".tsv", ".tab", ".txt", "")

    @property
    def codes(self) -> tuple[str, ...]:
        """Those that the column dx may hold once a table is read."""
        return (MELANOMA, NO_MELANOMA) if self.melanoma else CLASS_NAMES

    @property
    def warnings(self) -> list[str]:
        """What to know before reading results on such images."""
        other = f"the images are {self.modality}; the model knows dermoscopic images only"
        return [*filter(None, [self.overlap]), *[other] * bool(self.modality)]


LAYOUTS = (
    # Before HAM10000, because an export of that collection may be named after it.
    Layout("ISIC archive", "metadata", columns=("isic_id", "diagnosis(_1)?")),
    Layout("HAM10000", "HAM10000_metadata", trainable=True),
    Layout(
        "HAM10000", "ISIC2018_Task3_Training_GroundTruth", second_table="LesionGroupings",
        trainable=True,
    ),
    Layout("ISIC 2018 validation set", "ISIC2018_Task3_Validation_GroundTruth"),
    Layout("ISIC 2018 test set", "ISIC2018_Task3_Test_GroundTruth"),
    Layout("ISIC 2019", r"ISIC_2019_\w*GroundTruth", second_table="Metadata"),
    Layout(
        "ISIC 2020", r"ISIC_2020_Training_GroundTruth(_v2)?|train", melanoma="target",
        columns=("image_name", "target"),
    ),
    Layout("BCN20000", "bcn_20k_train"),
    Layout("MILK10k", "MILK10k_Training_GroundTruth", second_table="Metadata"),
    Layout(
        "PAD-UFES-20", "metadata", columns=("img_id", "diagnostic"),
        modality="clinical photographs by smartphones",
    ),
    Layout("Derm7pt", "meta", columns=("diagnosis", "derm")),
    Layout(
        "DermaMNIST", r"dermamnist(_\d+)?", arrays=("test_images", "test_labels"),
        overlap="DermaMNIST is made of the images of HAM10000, without their names: a model "
        "trained on HAM10000 has seen most of them",
    ),
)  # fmt: skip
HAM10000 = next(layout for layout in LAYOUTS if layout.trainable)
NPZ = LAYOUTS[-1]


def layout_named(path: Path) -> Layout | None:
    """The layout with a pattern in a file's name, in capitals or not, and columns in its header.

    None if there is none.
    """
    named = (layout for layout in LAYOUTS if published_name(path, layout))
    return next((layout for layout in named if _has_columns(path, layout)), None)


def published_name(path: Path, layout: Layout) -> str:
    """What in a file's name matches the layout's pattern, "" if nothing does."""
    found = re.search(layout.pattern, path.name, re.IGNORECASE)
    return found[0] if found else ""


def _has_columns(path: Path, layout: Layout) -> bool:
    """Whether the first line of a table has the columns of a layout; True if it names none."""
    if not layout.columns:
        return True
    if path.suffix.lower() not in layout.suffixes:
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline(10_000)
    except (OSError, ValueError):
        return False
    names = [name.strip().strip('"') for name in re.split(r"[,;\t]", header)]
    return all(any(re.fullmatch(column, name) for name in names) for column in layout.columns)


def layout_of(path: Path) -> Layout:
    """The layout of a table by its name, else by its columns, else HAM10000's."""
    if path.suffix.lower() == ".npz":
        return NPZ
    by_columns = (each for each in LAYOUTS if each.columns and _has_columns(path, each))
    return layout_named(path) or next(by_columns, HAM10000)


def describe_excluded(excluded: dict[str, int]) -> str:
    """The excluded rows as text, such as "2 of diagnosis scc, 1 synthetic".

    Of many diagnoses, the most frequent are named.
    """
    diagnoses = [reason for reason in excluded if reason.startswith(OF_DIAGNOSIS)]
    rare = diagnoses[NAMED:] if len(diagnoses) > NAMED + 1 else []
    texts = [f"{count:,} {reason}" for reason, count in excluded.items() if reason not in rare]
    if rare:
        count = sum(excluded[reason] for reason in rare)
        texts.append(f"{count:,} of {len(rare)} other diagnoses")
    return ", ".join(texts)


def diagnoses_markdown() -> str:
    """The names of the diagnoses as a table in Markdown, which stands in data/README.md."""
    rows = [f"| {code} | {'; '.join(names)} |" for code, names in DIAGNOSIS_NAMES.items()]
    left_out = f"| left out | {'; '.join(OTHER_DIAGNOSES)}; and every other name |"
    return "\n".join(["| code | names, besides the code |", "| --- | --- |", *rows, left_out])
