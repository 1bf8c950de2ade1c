"""Out-of-distribution detection by the distance to reference images, in feature space.

A network assigns one of its classes to any image, also to one of a cat. But features from three
quarters of its depth tell a cat from skin. There, an image is described by the mean of every
channel, and its distance to the k-th nearest of the reference images (the validation split) is
measured (after Sun et al., 2022, who take the last features).
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path, sha256
from melanoma_lib.models.features import feature_map

FILE = "known.safetensors"
N_NEIGHBOURS = 5
FALSE_POSITIVE_RATE = 0.01  # fraction of the reference images beyond the limit
MAX_IMAGES = 2000  # of a reference set; more would only take longer


@dataclass(frozen=True)
class ReferenceSet:
    """In-distribution images by their standardised features (n, channels).

    mean, scale: (channels,), of the standardisation. An image whose `distance` exceeds `limit`
    is out-of-distribution.
    """

    features: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    limit: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """The root mean square distance of images (m, channels) to their fifth neighbour, (m,)."""
        return _kth_distances((features - self.mean) / self.scale, self.features)

    def distances_to_other_lesions(self, lesion_ids: np.ndarray) -> np.ndarray:
        """The distances of the reference images themselves to those of other lesions, (n,).

        lesion_ids: of all images that the set was fitted to, in their order. These are what the
        distance of a new lesion's image is to be compared with.
        """
        lesion_ids = lesion_ids[_chosen(len(lesion_ids))]
        same_lesion = lesion_ids[:, None] == lesion_ids[None]
        return _kth_distances(self.features, self.features, same_lesion)


@contextlib.contextmanager
def capture_features(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Yields a list to which every forward pass in the block adds its features (n, channels).

    By a forward hook on the model, since not every model has timm's `forward_intermediates`;
    two threads must not use the model at once. Of a model that does not say where its stages are,
    the features are what its classifier gets.
    """
    features, modules, stages = [], dict(model.named_modules()), model.feature_info
    stage = modules.get(stages[math.ceil(3 * len(stages) / 4) - 1]["module"])
    if stage and not isinstance(stage, nn.ModuleList):  # which is only iterated over
        hook = stage.register_forward_hook(lambda *call: features.append(_means(model, call[2])))
    else:
        hook = model.get_classifier().register_forward_pre_hook(
            lambda _, inputs: features.append(inputs[0].float())
        )
    try:
        yield features
    finally:
        hook.remove()


def _means(model: nn.Module, output: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of each channel over all positions, (n, channels); of several tensors, the last."""
    output = output if isinstance(output, torch.Tensor) else output[-1]
    cells = feature_map(model, output)
    return output.float().mean(1) if cells is None else cells.float().mean((2, 3))


def fit_reference_set(features: np.ndarray, lesion_ids: np.ndarray) -> ReferenceSet:
    """The reference set of images that the weights were not trained on.

    features: (n, channels); lesion_ids: (n,). The limit is the 1 - `FALSE_POSITIVE_RATE`
    quantile of the images' distances to those of other lesions.
    """
    chosen = _chosen(len(features))
    features, lesion_ids = np.float32(features[chosen]), lesion_ids[chosen]
    mean, scale = features.mean(0), features.std(0) + 1e-6
    features = (features - mean) / scale
    same_lesion = lesion_ids[:, None] == lesion_ids[None]
    distances = _kth_distances(features, features, same_lesion)
    limit = float(np.quantile(distances, 1 - FALSE_POSITIVE_RATE))
    return ReferenceSet(features, mean, scale, limit)


def _chosen(count: int) -> np.ndarray:
    """Which of `count` images are in the reference set, and in which order."""
    return np.random.default_rng(0).permutation(count)[:MAX_IMAGES]


def _kth_distances(
    features: np.ndarray, reference: np.ndarray, excluded: np.ndarray | None = None
) -> np.ndarray:
    """Root mean square distance over channels to the k-th nearest reference image, (n,)."""
    squares = (features**2).sum(1)[:, None] + (reference**2).sum(1) - 2 * features @ reference.T
    available = len(reference)
    if excluded is not None:
        squares[excluded] = np.inf
        available -= excluded.sum(1).max()
    k = min(N_NEIGHBOURS, available)
    nearest = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return np.sqrt(np.maximum(nearest, 0) / features.shape[1])


def save_reference_set(folder: Path, reference: ReferenceSet) -> dict:
    """Writes the reference set into a model's folder; returns its metadata for bundle.json."""
    with atomic_path(folder / FILE) as temporary:
        arrays = {name: np.float32(getattr(reference, name)) for name in ("mean", "scale")}
        save_file(arrays | {"features": np.float16(reference.features)}, temporary)
    return {"known_limit": reference.limit, "known_sha256": sha256(folder / FILE)}


def load_reference_set(folder: Path, metadata: dict) -> ReferenceSet:
    """Reads a model's reference set; raises `MelanomaError` when it is not that of the bundle."""
    if sha256(folder / FILE) != metadata["known_sha256"]:
        raise MelanomaError(f"{folder}: {FILE} is not the file of its bundle.json")
    arrays = {name: np.float32(array) for name, array in load_file(folder / FILE).items()}
    return ReferenceSet(**arrays, limit=metadata["known_limit"])
