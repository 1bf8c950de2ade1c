"""The exercises of chapter 00: finding one's way."""

import pandas as pd

from melanoma_lib.data.classes import CLASS_NAMES, DIAGNOSES, MELANOMA


def position_of_melanoma(answer: int) -> str | None:
    if answer == CLASS_NAMES.index(MELANOMA) + 1:
        return "Python counts from 0."
    return None if answer == CLASS_NAMES.index(MELANOMA) else "Look at the order in the table."


def malignant_share(answer: float, table: pd.DataFrame) -> str | None:
    malignant = [diagnosis.code for diagnosis in DIAGNOSES if diagnosis.malignant]
    right = table["dx"].isin(malignant).mean()
    if abs(answer - right) < 0.005:
        return None
    if abs(answer - 100 * right) < 0.5:
        return "Right as a percentage; give it as a share, from 0 to 1."
    if abs(answer - (table["dx"] == MELANOMA).mean()) < 0.005:
        return "Melanoma is one of several malignant diagnoses."
    return "Divide the number of images with a malignant diagnosis by the number of all images."


def narrow_place(answer: str) -> str | None:
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
    missing = [part for part in ("no-such-folder", "--data-dir") if part not in answer]
    return f"The message should hold {missing[0]!r}." if missing else None


CHECKS = {
    "00.1": position_of_melanoma,
    "00.2": malignant_share,
    "00.3": narrow_place,
    "00.4": message,
}
