"""Distances of validation and test images to the reference set, in feature space."""

from pathlib import Path

import numpy as np

from melanoma_lib.core.environment import pick_device
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.evaluation.predictions import load_predictions, predict_with_features
from melanoma_lib.models.bundle import load_bundle
from melanoma_lib.models.out_of_distribution import load_reference_set


def reference_set_distances(
    folder: Path, files: DatasetFiles, device: str = "auto", batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the reference set: of its own images, (n,), and of the test images, (m,).

    Its own are images of validation, each compared with those of other lesions; they are in the
    order of `ReferenceSet.features`. `folder` is that of an architecture in a run that was trained
    on these files.
    """
    model, bundle = load_bundle(folder)
    model.to(pick_device(device))
    predictions = load_predictions(folder / "predictions.parquet")
    reference, test = load_reference_set(folder, bundle), predictions.split("test")
    pixels = decode(files, bundle["image_size"])[files.rows_of(test.image_ids)]
    images = HAM10000Dataset(pixels, test.labels, np.arange(len(pixels)))
    _, features = predict_with_features(model, images, batch_size, (bundle["mean"], bundle["std"]))
    known = reference.distances_to_other_lesions(predictions.split("val").lesion_ids)
    return known, reference.distance(features)
