"""Networks on shifted images: their predictions, and their distances to known images."""

import dataclasses
from pathlib import Path

import numpy as np

from melanoma_lib.core.environment import pick_device
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode
from melanoma_lib.data.shifts import SHIFTS
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.evaluation.predictions import predict_with_features
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.models.bundle import load_bundle
from melanoma_lib.models.out_of_distribution import load_reference_set
from melanoma_lib.reporting.abstention import ForwardPasses


def forward_passes(
    folder: Path, files: DatasetFiles, device: str = "auto", batch_size: int = 32
) -> ForwardPasses:
    """What one trained network makes of the test images as they are, and shifted.

    `folder` is that of an architecture in a run that was trained on these files.
    """
    model, bundle = load_bundle(folder)
    model.to(pick_device(device))
    predictions = load_trained_run(folder).predictions
    pixels = decode(files, bundle["image_size"])

    test = predictions.split("test")
    images = pixels[files.rows_of(test.image_ids)]

    def passed(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        held_out = HAM10000Dataset(images, test.labels, np.arange(len(images)), test.image_ids)
        return predict_with_features(model, held_out, batch_size, (bundle["mean"], bundle["std"]))

    reference, lesion_ids = load_reference_set(folder, bundle), predictions.split("val").lesion_ids
    return ForwardPasses(
        (
            reference.distances_to_other_lesions(lesion_ids),
            reference.distance(passed(images)[1]),
        ),
        {
            name: dataclasses.replace(test, logits=passed(change(images))[0])
            for name, (change, _) in SHIFTS.items()
        },
    )
