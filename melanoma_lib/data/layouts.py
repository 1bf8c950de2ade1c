"""How publishers lay datasets out: names of tables, columns and diagnoses."""

import re
from dataclasses import dataclass
from pathlib import Path

from melanoma_lib.data.classes import CLASS_NAMES

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
# What other publishers call these columns, the diagnoses, and how they were confirmed.
COLUMN_SYNONYMS = {
    "image": "image_id", "isic_id": "image_id", "diagnosis": "dx", "age_approx": "age",
    "anatom_site_general": "localization", "diagnosis_confirm_type": "dx_type",
}  # fmt: skip
DIAGNOSIS_CODES = {code: code for code in CLASS_NAMES} | {"ak": "akiec"}
DX_TYPES = {
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}
# Diagnoses of the challenges that HAM10000 does not have. SCC is invasive squamous cell
# carcinoma (akiec holds only carcinoma in situ, Bowen's disease); UNK is anything else.
OTHER_DIAGNOSES = ("scc", "unk")
# Images that do not show a patient: the official test set holds one.
SYNTHETIC = ("ISIC_0035068",)
# Images a class in the test split of DermaMNIST, in the order of `CLASS_NAMES`.
DERMAMNIST_TEST = (66, 103, 220, 23, 223, 1_341, 29)


@dataclass(frozen=True)
class Layout:
    """How a publisher lays a dataset out.

    pattern: a regular expression of the published name, without suffix, of the file with the
    diagnoses. second_table: what replaces GroundTruth in the name of the table with further
    columns. trainable: whether it is HAM10000, which runs are trained on. arrays: the keys of
    images and labels in an npz, whose labels are indices of `CLASS_NAMES`. overlap: a warning
    about images of HAM10000 that their names do not give away.
    """

    name: str
    pattern: str
    second_table: str = ""
    trainable: bool = False
    arrays: tuple[str, str] = ("", "")
    overlap: str = ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those that the file with the diagnoses may have."""
        return (".npz",) if self.arrays[0] else (".csv", ".tsv", ".tab", ".txt", "")


LAYOUTS = (
    Layout("HAM10000", "HAM10000_metadata", trainable=True),
    Layout(
        "HAM10000", "ISIC2018_Task3_Training_GroundTruth", second_table="LesionGroupings",
        trainable=True,
    ),
    Layout("ISIC 2018 validation set", "ISIC2018_Task3_Validation_GroundTruth"),
    Layout("ISIC 2018 test set", "ISIC2018_Task3_Test_GroundTruth"),
    Layout("ISIC 2019", r"ISIC_2019_\w*GroundTruth", second_table="Metadata"),
    Layout(
        "DermaMNIST", r"dermamnist(_\d+)?", arrays=("test_images", "test_labels"),
        overlap="DermaMNIST is made of the images of HAM10000, without their names: a model "
        "trained on HAM10000 has seen most of them",
    ),
)  # fmt: skip
HAM10000, NPZ = LAYOUTS[0], LAYOUTS[-1]


def layout_named(path: Path) -> Layout | None:
    """The layout whose pattern is in a file's name, in capitals or not; None if there is none."""
    return next((layout for layout in LAYOUTS if published_name(path, layout)), None)


def published_name(path: Path, layout: Layout) -> str:
    """What in a file's name matches the layout's pattern, "" if nothing does."""
    found = re.search(layout.pattern, path.name, re.IGNORECASE)
    return found[0] if found else ""


def layout_of(path: Path) -> Layout:
    """The layout of a table by its file name; HAM10000's for a name that matches none."""
    return NPZ if path.suffix.lower() == ".npz" else layout_named(path) or HAM10000


def describe_excluded(excluded: dict[str, int]) -> str:
    """The excluded rows as text, such as "2 of diagnosis scc, 1 synthetic"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in excluded.items())
