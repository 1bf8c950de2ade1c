"""The seven diagnoses of HAM10000: codes, names, malignancy, colours in figures, and order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """One diagnosis; `colour` is its fixed colour in every figure (Okabe and Ito, 2008)."""

    code: str
    name: str
    malignant: bool
    colour: str


# Alphabetical by code. This order is the order of every model's logits, and it is
# written beside every array of logits because published label orders differ.
DIAGNOSES = (
    # akiec also holds Bowen's disease: carcinoma in situ, counted as malignant.
    Diagnosis("akiec", "actinic keratosis", True, "#E69F00"),
    Diagnosis("bcc", "basal cell carcinoma", True, "#56B4E9"),
    Diagnosis("bkl", "benign keratosis", False, "#009E73"),
    Diagnosis("df", "dermatofibroma", False, "#8C6D31"),
    Diagnosis("mel", "melanoma", True, "#D55E00"),
    Diagnosis("nv", "melanocytic nevus", False, "#0072B2"),
    Diagnosis("vasc", "vascular lesion", False, "#CC79A7"),
)
CLASS_NAMES = tuple(diagnosis.code for diagnosis in DIAGNOSES)
DISPLAY_NAMES = {diagnosis.code: diagnosis.name for diagnosis in DIAGNOSES}
COLOURS = {diagnosis.code: diagnosis.colour for diagnosis in DIAGNOSES}
MELANOMA = "mel"
NO_MELANOMA = "no melanoma"  # in place of a code where no more is known of an image
