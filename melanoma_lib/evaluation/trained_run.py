"""A trained architecture as it lies in a run folder: its record, its bundle and its predictions."""

from pathlib import Path

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation.predictions import Predictions, load_predictions

# What a comparison takes over from run.json.
RECORDED = (
    "name", "timm_name", "parameters", "epochs", "best_epoch", "train_seconds", "device"
)  # fmt: skip


def load(folder: Path) -> tuple[dict, dict, Predictions]:
    """The record, the bundle's facts and the predictions of one trained architecture.

    Raises `MelanomaError` when it is not trained to the end, or for other classes than ours.
    """
    record = read_json(folder / "run.json")
    if not record.get("finished"):
        raise MelanomaError(f"not trained yet in {folder.parent}: {folder.name}")
    missing = [name for name in (*RECORDED, "dataset", "config") if name not in record]
    if missing:
        raise MelanomaError(f"{folder / 'run.json'} lacks {summarize_items(missing)}; train again")
    predictions = load_predictions(folder / "predictions.parquet")
    if predictions.class_names != CLASS_NAMES:
        names = summarize_items(predictions.class_names)
        raise MelanomaError(f"{folder} has other classes: {names}")
    return record, read_json(folder / "bundle.json"), predictions
