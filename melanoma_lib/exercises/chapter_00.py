"""The exercises of chapter 00: finding the way around, and stating the problem."""

import re

import pandas as pd

from melanoma_lib.core.files import PROJECT
from melanoma_lib.data.classes import CLASS_NAMES, DIAGNOSES, MELANOMA


def position_of_melanoma(answer: int) -> str | None:
    if answer == CLASS_NAMES.index(MELANOMA) + 1:
        return "Python counts from 0."
    return None if answer == CLASS_NAMES.index(MELANOMA) else "Look at the order in the table."


def malignant_fraction(answer: float, table: pd.DataFrame) -> str | None:
    malignant = [diagnosis.code for diagnosis in DIAGNOSES if diagnosis.malignant]
    right = table["dx"].isin(malignant).mean()
    if abs(answer - right) < 0.005:
        return None
    if abs(answer - 100 * right) < 0.5:
        return "Right as a percentage; give it as a fraction, from 0 to 1."
    if abs(answer - (table["dx"] == MELANOMA).mean()) < 0.005:
        return "Melanoma is one of several malignant diagnoses."
    return "Divide the number of images with a malignant diagnosis by the number of all images."


def file_of_predictions(answer: str) -> str | None:
    name = str(answer).rpartition("/")[2]
    if name == "predictions.parquet":
        return None
    if "safetensors" in name or "checkpoint" in name:
        return "Those are weights. Which file is left once the images have gone through them?"
    return "Look at the cell under 'What has been run', or into a run's folder."


def message(answer: str) -> str | None:
    if not isinstance(answer, str):
        return "Give the text of the error: str(error)."
    if "\n" in answer:
        return "An error of this library is one line."
    missing = [text for text in ("no-such-folder", "--data-dir") if text not in answer]
    return f"The message should contain {missing[0]!r}." if missing else None


# What a problem statement must mention, and words that judge instead of measuring.
REQUIRED = {
    "what dermoscopy is": r"derm(at)?oscop",
    "the data": r"ham10000",
    "a quantity by which success is measured": r"\bauc\b|sensitivity|specificity|accuracy",
    "the split: which lesions are tested on": r"split|test (part|lesion|set)|not seen|unseen",
}
PRAISE = r"novel|powerful|state.of.the.art|cutting.edge|groundbreaking|revolution\w*|promising"


def problem_statement(answer: str) -> str | None:
    count, text = len(answer.split()), answer.lower()
    if not 80 <= count <= 200:
        return f"It has {count} words; 200 are allowed, and fewer than 80 leave something out."
    missing = [what for what, pattern in REQUIRED.items() if not re.search(pattern, text)]
    if missing:
        return f"It does not say {missing[0]}."
    if praise := re.search(PRAISE, text):
        return f"{praise[0]!r} praises; say what is measured instead."
    bibliography = (PROJECT / "docs" / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{(\w+),", bibliography, re.MULTILINE))
    if not keys & set(re.findall(r"\w+", text)):
        return "The gap needs a source: name it by its key in docs/references.bib."
    return None


CHECKS = {
    "00.1": position_of_melanoma,
    "00.2": malignant_fraction,
    "00.3": file_of_predictions,
    "00.4": message,
    "00.6": problem_statement,
}
