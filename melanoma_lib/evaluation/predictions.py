"""Predictions: one model's logits for the validation and test images.

Everything after training (calibration, operating points, intervals, tables) reads only these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path
from melanoma_lib.core.progress import progress
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA, NO_MELANOMA

LOGIT = "logit_"  # prefix of the logit columns; the class's code follows
# The columns of a submission to task 3 of the ISIC 2018 challenge: our codes in capitals.
ISIC_COLUMNS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


@dataclass(frozen=True)
class Predictions:
    """Logits (n, classes) of images outside training; `labels` (n,) index `class_names`.

    A label of -1 only says that the image shows no melanoma.
    """

    image_ids: np.ndarray
    lesion_ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    class_names: tuple[str, ...] = CLASS_NAMES

    def split(self, name: str) -> "Predictions":
        """The rows of one split, `val` or `test`."""
        return self.take(self.splits == name)

    def take(self, rows: np.ndarray) -> "Predictions":
        """Some rows, by a boolean for each or by their numbers."""
        columns = (self.image_ids, self.lesion_ids, self.splits, self.labels, self.logits)
        return Predictions(*(column[rows] for column in columns), self.class_names)

    def count_lesions(self, rows: np.ndarray | slice = slice(None)) -> int:
        """How many lesions the images show, or those in some rows; `rows` boolean (n,)."""
        return len(np.unique(self.lesion_ids[rows]))

    def one_image_per_lesion(self, seed: int) -> "Predictions":
        """One image of each lesion, drawn with a seed, so that the rows are exchangeable."""
        drawn = np.random.default_rng(seed).permutation(len(self.labels))
        _, first = np.unique(self.lesion_ids[drawn], return_index=True)
        return self.take(np.sort(drawn[first]))

    @property
    def lesion_weights(self) -> np.ndarray:
        """1 / the number of images of each image's lesion, (n,): every lesion weighs the same."""
        _, lesion_of_image, images = np.unique(
            self.lesion_ids, return_inverse=True, return_counts=True
        )
        return 1 / images[lesion_of_image]

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """Softmax of logits / temperature, float64, (n, classes)."""
        return softmax(self.logits, temperature)

    @property
    def is_melanoma(self) -> np.ndarray:
        """Whether each image is a melanoma, boolean (n,)."""
        return self.labels == self.class_names.index(MELANOMA)

    def melanoma_probability(self, temperature: float = 1.0) -> np.ndarray:
        """The melanoma probability of each image, (n,)."""
        return self.probabilities(temperature)[:, self.class_names.index(MELANOMA)]


def concatenate(predictions: Sequence[Predictions]) -> Predictions:
    """Predictions of the same classes, one below the other."""
    names = ("image_ids", "lesion_ids", "splits", "labels", "logits")
    columns = [np.concatenate([getattr(each, name) for each in predictions]) for name in names]
    return Predictions(*columns, predictions[0].class_names)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits / temperature along the last axis, float64, without overflow."""
    logits = np.asarray(logits, np.float64) / temperature
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def isic_submission(predictions: Predictions, temperature: float) -> pd.DataFrame:
    """Calibrated probabilities as a submission to ISIC 2018 task 3, one row an image.

    Columns image, then `ISIC_COLUMNS`, which sum to 1. Raises `MelanomaError` when the predictions
    have other classes (Codella et al., 2019).
    """
    columns = [name.upper() for name in predictions.class_names]
    if set(columns) != set(ISIC_COLUMNS):
        raise MelanomaError(f"the challenge has other classes than these: {columns}")
    table = pd.DataFrame(predictions.probabilities(temperature), columns=columns)
    table.insert(0, "image", predictions.image_ids)
    return table[["image", *ISIC_COLUMNS]]


def save_predictions(
    path: Path, predictions: Predictions, key: str = "", **more: np.ndarray
) -> None:
    """Writes predictions.parquet: image_id, lesion_id, part (val or test), label, logits, and more.

    A label is a code, or `NO_MELANOMA` where no more is known. `key` says what they were made of;
    `saved_key` reads it. `more` are further columns, (n,) each.
    """
    names = np.array([*predictions.class_names, NO_MELANOMA])  # which -1 picks
    table = pd.DataFrame(
        {
            "image_id": predictions.image_ids,
            "lesion_id": predictions.lesion_ids,
            "part": predictions.splits,
            "label": names[predictions.labels],
        }
    )
    for column, name in enumerate(predictions.class_names):
        table[LOGIT + name] = predictions.logits[:, column]
    table = table.assign(**more)
    table.attrs = {"key": key} if key else {}
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def saved_key(path: Path) -> str | None:
    """The key with which predictions were saved; None where there are none that can be read."""
    try:
        return pd.read_parquet(path).attrs.get("key")
    except (OSError, ValueError):
        return None


def load_predictions(path: Path) -> Predictions:
    """Reads predictions.parquet; raises `MelanomaError` where it is missing or not valid."""
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise MelanomaError(
            f"{path} does not exist; train first: melanoma train {path.parent.name}"
        ) from None
    except (OSError, ValueError) as error:
        raise MelanomaError(f"{path} cannot be read ({error}); train again") from None
    names = [column.removeprefix(LOGIT) for column in table if column.startswith(LOGIT)]
    needed = {"image_id", "lesion_id", "part", "label"}
    labels = {name: label for label, name in enumerate(names)} | {NO_MELANOMA: -1}
    if not needed <= set(table) or not set(table["label"]) <= set(labels):
        raise MelanomaError(f"{path} does not hold predictions: its columns are {list(table)}")
    if table.empty:
        raise MelanomaError(f"{path} holds no predictions; train again")
    logits = table[[LOGIT + name for name in names]].to_numpy(np.float32)
    if not np.isfinite(logits).all():
        raise MelanomaError(f"{path} holds logits that are not finite; train again")
    return Predictions(
        image_ids=table["image_id"].to_numpy(str),
        lesion_ids=table["lesion_id"].to_numpy(str),
        splits=table["part"].to_numpy(str),
        labels=table["label"].map(labels).to_numpy(int),
        logits=logits,
        class_names=tuple(names),
    )


def predict_logits(model, dataset, batch_size: int, normalisation: Sequence) -> np.ndarray:
    """The model's logits for every image of a dataset in order, float32 (n, classes).

    Without gradients there is room for larger batches: four times `batch_size` on a GPU, less
    where memory runs out.
    """
    import torch

    from melanoma_lib.data.torch_dataset import loader
    from melanoma_lib.models.build import normalise, to_input

    device = next(model.parameters()).device
    per_batch = batch_size * (4 if device.type == "cuda" else 1)
    model.eval()
    while True:
        try:
            with torch.inference_mode():
                batches = [
                    model(normalise(to_input(images, device), *normalisation)).float()
                    for images, _, _ in progress(loader(dataset, per_batch), "predicting")
                ]
            return torch.cat(batches).cpu().numpy()
        except torch.OutOfMemoryError:
            if per_batch == 1:
                raise
            per_batch //= 2


def predict_with_features(
    model, dataset, batch_size: int, normalisation: Sequence
) -> tuple[np.ndarray, np.ndarray]:
    """`predict_logits`, and what `capture_features` gives for every image, (n, columns)."""
    import torch

    from melanoma_lib.models.out_of_distribution import capture_features

    with capture_features(model) as features:
        logits = predict_logits(model, dataset, batch_size, normalisation)
    # After those of batches that were too large.
    return logits, torch.cat(features)[-len(dataset) :].cpu().numpy()
