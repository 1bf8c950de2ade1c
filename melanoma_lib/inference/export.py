"""A trained model as one ONNX file: pixels of any size in, calibrated probabilities out."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from melanoma_lib.core.environment import require_packages
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path, read_json
from melanoma_lib.core.progress import progress
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import open_image, read_image
from melanoma_lib.data.layouts import LICENCE
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.inference.predictor import Predictor
from melanoma_lib.models.build import normalise

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4  # in probability, between the file and the bundle
OPSET = 18


def resize_weights(before: torch.Tensor, after: int) -> torch.Tensor:
    """How much each pixel of a line of `before` pixels adds to each of `after`, (after, before).

    Pillow's bicubic filter, which is wider when an image is reduced; every row adds up to 1.
    """
    scale = before / after
    stretch = torch.clamp(scale, min=1.0)
    centre = (torch.arange(after) + 0.5) * scale  # (after,)
    pixels = torch.arange(before)
    first = torch.clamp(centre - 2 * stretch + 0.5, min=0).floor()[:, None]
    last = torch.minimum((centre + 2 * stretch + 0.5).floor(), before)[:, None]
    x = ((pixels - centre[:, None] + 0.5) / stretch).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    weights = torch.where((pixels >= first) & (pixels < last), weights, 0.0)
    return weights / weights.sum(1, keepdim=True)


class DeployedNetwork(nn.Module):
    """A network with all that is done to a picture before and after it.

    Takes uint8 (n, height, width, 3), returns calibrated probabilities (n, classes).
    """

    def __init__(self, model: nn.Module, bundle: dict):
        super().__init__()
        self.model, self.size = model, bundle["image_size"]
        self.mean, self.std = bundle["mean"], bundle["std"]
        self.temperature = bundle["temperature"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        lines = images.permute(0, 3, 1, 2).float()  # (n, 3, height, width)
        # Across, then down, each rounded to whole grey values as Pillow does.
        for _ in range(2):
            weights = resize_weights(torch.scalar_tensor(lines.shape[3]), self.size)
            lines = (lines @ weights.mT).round().clamp(0, 255).mT
        logits = self.model(normalise(lines / 255, self.mean, self.std))
        return (logits / self.temperature).softmax(1)


def export_onnx(folder: Path, output: Path, files: DatasetFiles) -> float:
    """Writes a trained model as an ONNX file, once it has been shown to predict the same.

    Returns the largest difference in probability between the file and the bundle in `folder` on the
    test split of `files`, the dataset that it was trained on. The file's metadata are those of
    `onnx_metadata`. Raises `MelanomaError`, and leaves nothing, when the difference is above
    `TOLERANCE`, or when PyTorch cannot export the network.
    """
    require_packages("export", "onnx", "onnxruntime", "onnxscript")
    import onnx

    predictor = Predictor(folder)
    model = predictor.model.to(memory_format=torch.contiguous_format)
    proto = onnx_model(DeployedNetwork(model, predictor.bundle))
    onnx.helper.set_model_props(
        proto, {name: json.dumps(value) for name, value in onnx_metadata(predictor).items()}
    )
    with atomic_path(output) as temporary:
        onnx.save(proto, temporary)
        difference = largest_difference(temporary, predictor, files)
        if not difference <= TOLERANCE:
            raise MelanomaError(
                f"the exported file differs from {folder} by {difference:.2g} in probability, more "
                f"than {TOLERANCE:g}, so it is not kept"
            )
    return difference


def onnx_model(network: DeployedNetwork) -> "onnx.ModelProto":
    """The network in ONNX, for any number of images of any size.

    Raises `MelanomaError` when PyTorch cannot export it.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                network.eval(), (torch.zeros(2, 150, 200, 3, dtype=torch.uint8),),
                input_names=["images"], output_names=["probabilities"], opset_version=OPSET,
                dynamic_shapes={"images": dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)},
                dynamo=True, verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().partition("\n")[0]
        raise MelanomaError(f"PyTorch cannot export this network: {reason}") from None
    return program.model_proto


def onnx_metadata(predictor: Predictor) -> dict:
    """What a user of the file must know: classes, operating points, origin, licence."""
    record = read_json(predictor.folder / "run.json")
    return {
        "name": predictor.name,
        "class_names": predictor.bundle["class_names"],
        "image_size": predictor.image_size,
        "operating_points": list(predictor.operating_points.values()),
        "dataset": record["dataset"],
        "note": predictor.note,
        "licence": f"{LICENCE}, as the images of HAM10000: no commercial use",
        "notice": "For learning and research. Not a medical device.",
    }


def largest_difference(path: Path, predictor: Predictor, files: DatasetFiles) -> float:
    """Between the probabilities of an ONNX file and of its bundle, over the test split's files."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    test = load_trained_run(predictor.folder).predictions.split("test").image_ids
    largest = 0.0
    for row in progress(files.rows_of(test), "comparing"):
        image = files.images[row]
        pixels = image if isinstance(image, np.ndarray) else np.asarray(open_image(image))
        (found,) = session.run(None, {"images": pixels[None]})[0]
        (expected,) = predictor.predict([read_image(image, predictor.image_size)])
        largest = max(largest, float(np.abs(found - list(expected.probabilities.values())).max()))
    return largest
