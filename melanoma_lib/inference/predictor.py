"""A trained model for single images: class probabilities, a decision on melanoma, a heat map.

Used by `melanoma predict` and by the web page.
"""

import math
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from melanoma_lib.config import basis_note
from melanoma_lib.core.errors import MelanomaError, describe_error, printable, summarize_items
from melanoma_lib.core.files import atomic_path
from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.data.images import list_pictures, read_image
from melanoma_lib.evaluation.abstention import Referral, is_referred, referral_estimates
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.model_metrics import validation_auc
from melanoma_lib.evaluation.operating_points import operating_point_estimates
from melanoma_lib.evaluation.predictions import softmax
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.explanation.gradcam import cam_layer, has_heat_maps, heat_maps
from melanoma_lib.models.build import normalise, to_input
from melanoma_lib.models.bundle import find_bundles, load_bundle
from melanoma_lib.models.out_of_distribution import capture_features, load_reference_set

NEAR_ODDS_RATIO = 2.0  # probabilities whose odds differ by no more than this factor are near
BATCH_SIZE = 16
MAX_FILE_BYTES = 20_000_000  # of an image file: ten times a dermoscopic photograph


def best_bundle(folder: Path | str) -> Path:
    """The bundle in a run folder with the highest melanoma AUC on the validation split.

    `folder` may also be a bundle itself. Among several only models whose training is finished
    count, and a line on stderr says which is chosen. Raises `MelanomaError` when there is none.
    """
    found = find_bundles(folder)
    if len(found) == 1:
        return found[0]
    aucs, problems = {}, []
    for candidate in found:
        try:
            aucs[candidate] = validation_auc(load_trained_run(candidate))
        except MelanomaError as error:
            problems.append(str(error))
    if not aucs:
        raise MelanomaError(f"no model in {folder} can be used: {'; '.join(problems)}")
    best = max(aucs, key=aucs.__getitem__)
    reason = f"the highest melanoma AUC on validation, {aucs[best]:.3f}, of {len(aucs)} models"
    left_out = f", {len(problems)} left out ({'; '.join(problems)})" if problems else ""
    print(f"melanoma: using {best}: {reason}{left_out}", file=sys.stderr)
    return best


def load_predictors(folder: Path | str) -> list["Predictor"]:
    """The models in a run folder, that of `best_bundle` first, or the one in a bundle's folder.

    What is not a finished training is left out. Raises `MelanomaError` when there is none.
    """
    best = best_bundle(folder)
    predictors = [Predictor(best)]
    for other in find_bundles(folder):
        if other != best:
            with suppress(MelanomaError):
                predictors.append(Predictor(other))
    return predictors


@dataclass(frozen=True)
class Prediction:
    """A model's output for one image, before any decision.

    image: uint8 (side, side, 3), as given to the model; probabilities: calibrated, by class code;
    distance: to the reference set of `models.out_of_distribution`, and whether that is beyond its
    limit.
    """

    image: np.ndarray
    probabilities: dict[str, float]
    distance: float
    out_of_distribution: bool

    @property
    def melanoma_probability(self) -> float:
        """The calibrated probability of melanoma."""
        return self.probabilities[MELANOMA]

    @property
    def predicted_class(self) -> str:
        """The code of the most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class Decision:
    """A probability of melanoma compared with the threshold of an operating point.

    operating_point: name, criterion, target, threshold, and `test`, its estimates on the test
    split; near_threshold: whether the odds are within a factor `NEAR_ODDS_RATIO` of those at the
    threshold; fraction_below: of the validation split's melanomas (`mel`) and other images
    (`other`), those with a lower probability; referred: whether the model is too unsure of the
    image to answer, which only one is whose bundle refers images (`melanoma refer`).
    """

    operating_point: dict
    predicted_positive: bool
    near_threshold: bool
    fraction_below: dict[str, float]
    referred: bool = False


class Predictor:
    """A trained model, loaded from the folder of its bundle, that predicts single images.

    The estimates of the operating points and the validation scores are computed from the
    predictions in the same folder. Thread-safe. Raises `MelanomaError` when the folder holds no
    complete bundle.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.model, self.bundle = load_bundle(self.folder)
        self.reference_set = load_reference_set(self.folder, self.bundle)
        training = load_trained_run(self.folder)
        record, predictions = training.record, training.predictions
        temperature = self.bundle["temperature"]
        val, test = predictions.split("val"), predictions.split("test")
        scores, positive = val.melanoma_probability(temperature), val.is_melanoma
        self.name = record["name"]
        self.note = basis_note(self.bundle["generated"], record["config"]["split"])
        self.validation_scores = {
            MELANOMA: np.sort(scores[positive]), "other": np.sort(scores[~positive])
        }  # fmt: skip
        weights = bootstrap_weights(test.lesion_ids)
        self.operating_points = {
            point["name"]: point
            | {"test": operating_point_estimates(test, temperature, point["threshold"], weights)}
            for point in self.bundle["operating_points"]
        }
        self.referral = self.bundle.get("referral")
        if self.referral:
            referred = is_referred(test.probabilities(temperature), self.referral)
            for point in self.operating_points.values():
                case = Referral(training, point["threshold"], referred)
                point["referral"] = referral_estimates([case], weights)
        self._lock = threading.Lock()  # hooks are registered on the model: one thread at a time
        shape = 1, self.image_size, self.image_size, 3
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        noise = self._to_inputs(noise)
        self._cam_layer = cam_layer(self.model, noise) if has_heat_maps(self.model, noise) else ""
        if not self._cam_layer:
            self.note = "; ".join(filter(None, [self.note, "no heat maps of this network"]))

    @property
    def image_size(self) -> int:
        """Side of the square that every image is resized to, in pixels."""
        return self.bundle["image_size"]

    def load_image(self, path: Path | str) -> np.ndarray:
        """Reads an image file as the model needs it, uint8 (side, side, 3).

        Raises `MelanomaError` for a file that is too large or cannot be decoded.
        """
        try:
            size = Path(path).stat().st_size
        except OSError as error:
            raise MelanomaError(f"{printable(path)} cannot be read ({error.strerror})") from None
        if size > MAX_FILE_BYTES:
            raise MelanomaError(
                f"{printable(path)} has {size / 1e6:.0f} MB; an image may have "
                f"{MAX_FILE_BYTES / 1e6:.0f}"
            )
        return read_image(path, self.image_size)

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Class probabilities and out-of-distribution distances of images from `load_image`."""
        with self._lock, capture_features(self.model) as features, torch.inference_mode():
            logits = self.model(self._to_inputs(np.stack(images)))
        probabilities = softmax(logits.numpy(), self.bundle["temperature"])
        distances = self.reference_set.distance(features[0].numpy())
        return [
            Prediction(
                image,
                dict(zip(self.bundle["class_names"], row.tolist(), strict=True)),
                float(distance),
                bool(distance > self.reference_set.limit),
            )
            for image, row, distance in zip(images, probabilities, distances, strict=True)
        ]

    def operating_point(self, name: str = "") -> dict:
        """An operating point by its name, by default the first; `MelanomaError` if unknown."""
        if name and name not in self.operating_points:
            raise MelanomaError(
                f"{self.folder} has no operating point {name!r}; it has "
                f"{summarize_items(self.operating_points)}"
            )
        return self.operating_points[name or next(iter(self.operating_points))]

    def decide(self, prediction: Prediction, operating_point: str = "") -> Decision:
        """Predicts melanoma if its probability is at or above the operating point's threshold."""
        point, probability = self.operating_point(operating_point), prediction.melanoma_probability
        log_odds_ratio = log_odds(probability) - log_odds(point["threshold"])
        probabilities = np.array([list(prediction.probabilities.values())])
        return Decision(
            point,
            predicted_positive=probability >= point["threshold"],
            near_threshold=abs(log_odds_ratio) <= math.log(NEAR_ODDS_RATIO),
            fraction_below={
                kind: float(np.searchsorted(scores, probability) / len(scores))
                for kind, scores in self.validation_scores.items()
            },
            referred=bool(self.referral and is_referred(probabilities, self.referral)[0]),
        )

    def heat_maps(self, images: Sequence[np.ndarray], codes: Sequence[str]) -> np.ndarray:
        """Grad-CAM for one class code an image, (n, side, side) in [0, 1].

        All zero for a network without a feature map.
        """
        if not self._cam_layer:
            return np.zeros((len(images), self.image_size, self.image_size), np.float32)
        classes = [self.bundle["class_names"].index(code) for code in codes]
        inputs = self._to_inputs(np.stack(images))
        with self._lock:
            return heat_maps(self.model, inputs, classes, self._cam_layer)

    def _to_inputs(self, images: np.ndarray) -> torch.Tensor:
        inputs = to_input(torch.from_numpy(images).permute(0, 3, 1, 2))
        return normalise(inputs, self.bundle["mean"], self.bundle["std"])


def list_images(paths: Sequence[Path | str]) -> tuple[list[Path], list[str]]:
    """Files as given, `-` as standard input, of a folder all pictures except masks; and what fails.

    The second list says why folders, and pipes in them, cannot be read. Raises `MelanomaError` for
    a folder without images.
    """
    found: list[Path] = []
    unreadable: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            found.append(Path("/dev/stdin" if str(path) == "-" else path))
            continue
        images, problems = list_pictures(path)
        if not images and not problems:
            raise MelanomaError(f"{path} holds no images")
        found += images
        unreadable += problems
    return found, unreadable


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    operating_point: str = "",
    overlay_dir: Path | None = None,
) -> Iterator[dict]:
    """Predicts image files, in batches; a row an image, ready for JSON, or its `error`.

    Heat maps of the predicted class are written to `overlay_dir` as `<name>-<class>.png`. Raises
    `MelanomaError` for an unknown operating point.
    """
    predictor.operating_point(operating_point)
    written: Counter[str] = Counter()  # images of two folders may have the same name
    for start in range(0, len(paths), BATCH_SIZE):
        rows: list[dict] = [{"image": str(path)} for path in paths[start : start + BATCH_SIZE]]
        images: list[np.ndarray] = []
        for row in rows:
            with _reported_in(row):
                images.append(predictor.load_image(row["image"]))
        readable = [row for row in rows if "error" not in row]
        predictions = predictor.predict(images) if images else []
        for row, prediction in zip(readable, predictions, strict=True):
            row |= result_row(prediction, predictor.decide(prediction, operating_point))
        if overlay_dir and images:
            heats = predictor.heat_maps(images, [row["predicted"] for row in readable])
            for row, image, heat in zip(readable, images, heats, strict=True):
                stem = f"{Path(row['image']).stem}-{row['predicted']}"
                written[stem] += 1
                stem += f"-{written[stem]}" if written[stem] > 1 else ""
                with _reported_in(row), atomic_path(overlay_dir / f"{stem}.png") as temporary:
                    overlay(image, heat).save(temporary)
                    row["overlay"] = str(overlay_dir / f"{stem}.png")
        yield from rows


@contextmanager
def _reported_in(row: dict) -> Iterator[None]:
    """Makes any exception inside the block the row's `error`; what follows the block goes on."""
    try:
        yield
    except MelanomaError as error:
        row["error"] = str(error)
    except Exception as error:  # of a decoder: of any type
        row["error"] = f"{printable(row['image'])}: {describe_error(error)}"


def result_row(prediction: Prediction, decision: Decision) -> dict:
    """An image's result, ready for JSON; of an out-of-distribution image without the decision."""
    judged = not prediction.out_of_distribution
    return {
        "predicted": prediction.predicted_class,
        "probabilities": prediction.probabilities,
        "called_melanoma": decision.predicted_positive if judged else None,
        "near_threshold": decision.near_threshold if judged else None,
        "referred": decision.referred,
        "below": decision.fraction_below,
        "foreign": prediction.out_of_distribution,
        "distance": prediction.distance,
    }


def log_odds(probability: float) -> float:
    """log(p / (1 - p)) for p in [0, 1], clipped to [1e-6, 1 - 1e-6]."""
    probability = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(probability / (1 - probability))


def heat_to_rgba(heat: np.ndarray) -> Image.Image:
    """A heat map (side, side) in [0, 1] in colours, the more transparent the lower its value."""
    from matplotlib import colormaps

    colours = colormaps["viridis"](heat, bytes=True)  # as in figure 07-1
    colours[..., 3] = np.uint8(255 * np.clip(heat, 0, 1))
    return Image.fromarray(colours, "RGBA")


def overlay(image: np.ndarray, heat: np.ndarray) -> Image.Image:
    """An image, uint8 (side, side, 3), below its heat map, whose opacity is 60% where heat is 1."""
    layer = heat_to_rgba(heat)
    layer.putalpha(layer.getchannel("A").point(lambda alpha: round(alpha * 0.6)))
    return Image.alpha_composite(Image.fromarray(image).convert("RGBA"), layer).convert("RGB")
