"""The exercises of chapter 00: finding the way around, and stating the problem."""

import re

import pandas as pd

from melanoma_lib.core.files import PROJECT
from melanoma_lib.data.classes import CLASS_NAMES, DIAGNOSES, MELANOMA
from melanoma_lib.exercises import exercise, require, require_close


@exercise("00.1", "a number from 0 to 6")
def position_of_melanoma(answer: int) -> None:
    right = CLASS_NAMES.index(MELANOMA)
    hint = "Look at the order in the table."
    require_close(answer, right, hint, {"Python counts from 0.": right + 1})


@exercise("00.2", "a fraction from 0 to 1")
def malignant_fraction(answer: float, table: pd.DataFrame) -> None:
    malignant = [diagnosis.code for diagnosis in DIAGNOSES if diagnosis.malignant]
    melanoma = (table["dx"] == MELANOMA).mean()
    hint = "Divide the number of images with a malignant diagnosis by the number of all images."
    mistakes = {"Melanoma is one of several malignant diagnoses.": melanoma}
    require_close(answer, table["dx"].isin(malignant).mean(), hint, mistakes, atol=0.005)


@exercise("00.3", "the name of a file")
def predictions_file(answer: str) -> None:
    name = answer.rpartition("/")[2]
    weights = "safetensors" in name or "checkpoint" in name
    hint = "Those are weights. Which file is left once the images have gone through them?"
    require(not weights, hint)
    require(name == "predictions.parquet", "Look at the cell under 'What has been run'.")


@exercise("00.4", "the text of the error, str(error)")
def error_message(answer: str) -> None:
    require(len(answer.splitlines()) == 1, "An error of this library is one line.")
    for text in ("no-such-folder", "--data-dir"):
        require(text in answer, f"The message should contain {text!r}.")


# What a problem statement must mention, and words that judge instead of measuring.
REQUIRED = {
    "what dermoscopy is": r"derm(at)?oscop",
    "the data": r"ham10000",
    "a quantity by which success is measured": r"\bauc\b|sensitivity|specificity|accuracy",
    "the split: which lesions are tested on": r"split|test (part|lesion|set)|not seen|unseen",
}
PRAISE = r"novel|powerful|state.of.the.art|cutting.edge|groundbreaking|revolution\w*|promising"


@exercise("00.6", "your text, a string")
def problem_statement(answer: str) -> None:
    count, text = len(answer.split()), answer.lower()
    require(80 <= count <= 200, f"It has {count} words; 80 to 200 are asked for.")
    for what, pattern in REQUIRED.items():
        require(re.search(pattern, text), f"It does not say {what}.")
    praise = ", ".join(re.findall(PRAISE, text))
    require(not praise, f"{praise!r} praises; say what is measured instead.")
    bibliography = (PROJECT / "docs" / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{(\w+),", bibliography, re.MULTILINE))
    cited = keys & set(re.findall(r"\w+", text))
    require(cited, "The gap needs a source: name it by its key in docs/references.bib.")
