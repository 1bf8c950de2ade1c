"""One picture, one trained model: probabilities, the decision, the heat map, and a warning.

Behind `melanoma predict` and the web page alike.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from melanoma_lib.config import basis_note
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import atomic_path
from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.data.dataset_files import find_images_and_masks
from melanoma_lib.data.images import read_image
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.operating_points import operating_point_estimates
from melanoma_lib.evaluation.predictions import softmax
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.explanation.gradcam import cam_layer, heat_maps
from melanoma_lib.models.build import normalise, to_input
from melanoma_lib.models.bundle import load_bundle
from melanoma_lib.models.out_of_distribution import capture_features, load_reference_set

NEAR = 2.0  # odds of melanoma within this factor of the threshold's are near it
BATCH = 16  # pictures that go through the network together
MAX_FILE_BYTES = 20_000_000  # of a picture's file: ten times a dermoscopy photograph


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one picture, whatever is decided from it.

    picture: uint8 (side, side, 3), as the model saw it; probabilities: calibrated, by class
    code; distance: to the known pictures (see `familiar`); foreign: beyond the limit.
    """

    picture: np.ndarray
    probabilities: dict[str, float]
    distance: float
    foreign: bool

    @property
    def melanoma(self) -> float:
        """The calibrated probability of melanoma."""
        return self.probabilities[MELANOMA]

    @property
    def predicted(self) -> str:
        """The code of the most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class Decision:
    """What an operating point makes of a probability of melanoma.

    point: name, criterion, target, threshold and `test`, its figures on the test part; near:
    the threshold's odds are within `NEAR` of it; below: share of the validation part's
    melanomas (`mel`) and other images (`other`) that score lower.
    """

    point: dict
    called: bool
    near: bool
    below: dict[str, float]


class Predictor:
    """A trained model that reads single pictures; threads may share one.

    Everything it needs lies in the folder of its bundle: the figures of the operating points and
    the scores of the validation part come from the predictions there. Raises `MelanomaError`
    when the folder holds no whole bundle.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.model, self.bundle = load_bundle(self.folder)
        self.known = load_reference_set(self.folder, self.bundle)
        record, _, predictions = load_trained_run(self.folder)
        temperature = self.bundle["temperature"]
        validation, test = predictions.part("val"), predictions.part("test")
        scores, melanomas = validation.melanoma_score(temperature), validation.is_melanoma
        self.name = record["name"]
        self.note = basis_note(self.bundle["generated"], record["config"]["split"])
        self.scores = {MELANOMA: np.sort(scores[melanomas]), "other": np.sort(scores[~melanomas])}
        weights = bootstrap_weights(test.lesion_ids)
        self.points = {
            point["name"]: point
            | {"test": operating_point_estimates(test, temperature, point["threshold"], weights)}
            for point in self.bundle["operating_points"]
        }
        # Hooks on the one model belong to whoever set them: one map at a time.
        self._lock = threading.Lock()
        noise = np.random.default_rng(0).integers(0, 256, (1, self.size, self.size, 3), np.uint8)
        self._layer = cam_layer(self.model, self._inputs(noise))

    @property
    def size(self) -> int:
        """Side of the square that a picture is squeezed into, in pixels."""
        return self.bundle["image_size"]

    def open(self, path: Path | str) -> np.ndarray:
        """A picture as the model sees it; raises `MelanomaError` for what cannot be read."""
        try:
            size = Path(path).stat().st_size
        except OSError as error:
            raise MelanomaError(f"{path} cannot be read ({error.strerror})") from None
        if size > MAX_FILE_BYTES:
            raise MelanomaError(
                f"{path} has {size / 1e6:.0f} MB; a picture may have {MAX_FILE_BYTES / 1e6:.0f}"
            )
        return read_image(path, self.size)

    def read(self, pictures: Sequence[np.ndarray]) -> list[Prediction]:
        """Probabilities and familiarity of pictures as `open` gives them."""
        with self._lock, capture_features(self.model) as features, torch.inference_mode():
            logits = self.model(self._inputs(np.stack(pictures)))
        probabilities = softmax(logits.numpy(), self.bundle["temperature"])
        distances = self.known.distance(features[0].numpy())
        return [
            Prediction(
                picture,
                dict(zip(self.bundle["class_names"], row.tolist(), strict=True)),
                float(distance),
                bool(distance > self.known.limit),
            )
            for picture, row, distance in zip(pictures, probabilities, distances, strict=True)
        ]

    def point(self, name: str = "") -> dict:
        """An operating point by name, the first one without; raises `MelanomaError`."""
        if name and name not in self.points:
            raise MelanomaError(
                f"{self.folder} has no operating point {name!r}; it has "
                f"{summarize_items(self.points)}"
            )
        return self.points[name] if name else next(iter(self.points.values()))

    def decide(self, reading: Prediction, point: str = "") -> Decision:
        """The decision at an operating point: melanoma is called at its threshold and above."""
        chosen, score = self.point(point), reading.melanoma
        return Decision(
            chosen,
            called=score >= chosen["threshold"],
            near=abs(log_odds(score) - log_odds(chosen["threshold"])) <= math.log(NEAR),
            below={
                kind: float(np.searchsorted(scores, score) / len(scores))
                for kind, scores in self.scores.items()
            },
        )

    def heat(self, pictures: Sequence[np.ndarray], codes: Sequence[str]) -> np.ndarray:
        """Grad-CAM of one class a picture, (n, side, side) in [0, 1]."""
        classes = [self.bundle["class_names"].index(code) for code in codes]
        with self._lock:
            return heat_maps(self.model, self._inputs(np.stack(pictures)), classes, self._layer)

    def _inputs(self, pictures: np.ndarray) -> torch.Tensor:
        images = to_input(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        return normalise(images, self.bundle["mean"], self.bundle["std"])


def pictures(paths: Sequence[Path | str]) -> list[Path]:
    """The pictures that are meant: files as they are, and of a folder all images but masks.

    Raises `MelanomaError` for a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        images = sorted(find_images_and_masks(path)[0].values()) if path.is_dir() else [path]
        if not images:
            raise MelanomaError(f"{path} holds no images")
        found += images
    return found


def predict_files(
    reader: Predictor, paths: Sequence[Path], point: str = "", overlays: Path | None = None
) -> Iterator[dict]:
    """What the model makes of each picture, ready for JSON; of a bad one, its `error`.

    `overlays` is a folder for heat maps of the predicted class, `<name>-<class>.png`. Raises
    `MelanomaError` when there is no such operating point, or a heat map cannot be written.
    """
    reader.point(point)
    written: dict[str, int] = {}  # pictures of two folders may have one name
    for start in range(0, len(paths), BATCH):
        rows: list[dict] = []
        opened: list[np.ndarray] = []
        for path in paths[start : start + BATCH]:
            try:
                opened.append(reader.open(path))
                rows.append({"image": str(path)})
            except MelanomaError as error:
                rows.append({"image": str(path), "error": str(error)})
        readings = reader.read(opened) if opened else []
        whole = [row for row in rows if "error" not in row]
        for row, reading in zip(whole, readings, strict=True):
            row |= _facts(reading, reader.decide(reading, point))
        if overlays and whole:
            heats = reader.heat(opened, [reading.predicted for reading in readings])
            for row, picture, heat in zip(whole, opened, heats, strict=True):
                stem = f"{Path(row['image']).stem}-{row['predicted']}"
                written[stem] = written.get(stem, 0) + 1
                stem += f"-{written[stem]}" if written[stem] > 1 else ""
                with atomic_path(overlays / f"{stem}.png") as temporary:
                    overlay(picture, heat).save(temporary)
                row["overlay"] = str(overlays / f"{stem}.png")
        yield from rows


def _facts(reading: Prediction, decision: Decision) -> dict:
    return {
        "predicted": reading.predicted,
        "probabilities": reading.probabilities,
        "called_melanoma": decision.called,
        "near_threshold": decision.near,
        "below": decision.below,
        "foreign": reading.foreign,
        "distance": reading.distance,
    }


def log_odds(probability: float) -> float:
    """log(p / (1 - p)), for p from 0 to 1; what lies beyond a millionth counts as a millionth."""
    probability = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(probability / (1 - probability))


def heat_layer(heat: np.ndarray) -> Image.Image:
    """A heat map (side, side) in [0, 1] as colours to lay over a picture; where it is 0, clear."""
    from matplotlib import colormaps

    colours = colormaps["viridis"](heat, bytes=True)  # as in figure 07-1
    colours[..., 3] = np.uint8(255 * np.clip(heat, 0, 1))
    return Image.fromarray(colours, "RGBA")


def overlay(picture: np.ndarray, heat: np.ndarray) -> Image.Image:
    """A picture under its heat map, which hides three fifths of it where it is hot."""
    layer = heat_layer(heat)
    layer.putalpha(layer.getchannel("A").point(lambda alpha: round(alpha * 0.6)))
    return Image.alpha_composite(Image.fromarray(picture).convert("RGBA"), layer).convert("RGB")
