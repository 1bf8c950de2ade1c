"""A trained architecture read from its run folder: record, bundle and predictions."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from melanoma_lib.config import TRAININGS
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation.predictions import Predictions, load_predictions

# What a comparison takes over from run.json.
RECORDED = (
    "name", "timm_name", "parameters", "epochs", "best_epoch", "train_seconds", "device"
)  # fmt: skip


WITH_FLIPS = "predictions_flips.parquet"  # means over each image and its three mirror images


class TrainedRun(NamedTuple):
    """One trained architecture: the contents of run.json and bundle.json, and its predictions."""

    record: dict
    bundle: dict
    predictions: Predictions

    def decision_scores(self, split: str) -> np.ndarray:
        """Scores of the images of a split, (n, classes), of which the highest is the diagnosis.

        The calibrated probabilities; with a recipe that decides for balanced recall, each divided
        by the class's prevalence in training (logit adjustment after training, Menon et al., 2021).
        """
        probabilities = self.predictions.split(split).probabilities(self.bundle["temperature"])
        return probabilities / np.array(self.bundle.get("decision_priors", 1.0))

    def predicted_classes(self, split: str) -> np.ndarray:
        """The diagnoses of the images of a split, by `decision_scores`, (n,) class indices."""
        return self.decision_scores(split).argmax(1)


def load_trained_run(folder: Path) -> TrainedRun:
    """Reads a trained architecture from its folder in a run.

    Raises `MelanomaError` when training has not finished, or when the classes are not those of
    HAM10000.
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
    return TrainedRun(record, read_json(folder / "bundle.json"), predictions)


def load_reference_distances(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the images of validation and of test to the network's reference set, (n,) each.

    In the order of its predictions. Raises `MelanomaError` for a training of an earlier version.
    """
    path = folder / "predictions.parquet"
    table = pd.read_parquet(path)
    if "distance" not in table:
        raise MelanomaError(
            f"{path} has no distances; train again: the same command keeps the weights"
        )
    split_of = dict(iter(table.groupby("part")["distance"]))
    return split_of["val"].to_numpy(), split_of["test"].to_numpy()


def training_folders(run_dir: Path, key: str, count: int) -> list[Path]:
    """The folders of the first `count` trainings of an architecture; see `Config.training`."""
    further = (run_dir / TRAININGS / str(number) / key for number in range(2, count + 1))
    return [run_dir / key, *further]


def load_trainings(run_dir: Path, key: str, count: int) -> list[TrainedRun]:
    """The first `count` trainings of an architecture of a run.

    Raises `MelanomaError` as `load_trained_run` does, and for trainings that differ in more than
    their seed.
    """
    folders = training_folders(run_dir, key, count)
    trained = [load_trained_run(folder) for folder in folders]
    recipes = [[training.record.get(name) for name in ("recipe", "epochs")] for training in trained]
    for folder, recipe in zip(folders, recipes, strict=True):
        if recipe != recipes[0]:
            raise MelanomaError(
                f"{folder} was trained otherwise than {folders[0]}; train both again"
            )
    return trained


def load_flipped(run_dir: Path, key: str, count: int) -> list[Predictions]:
    """What the same trainings predict with mirror images; [] where a training has none."""
    files = [folder / WITH_FLIPS for folder in training_folders(run_dir, key, count)]
    return [load_predictions(file) for file in files] if all(f.exists() for f in files) else []
