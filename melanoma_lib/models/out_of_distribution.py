"""Out-of-distribution detection by the distance to reference images, in feature space.

A network assigns one of its classes to any image, also to one of a cat. But features from three
quarters of its depth tell a cat from skin. There, an image is described by the mean of every
channel, and its distance to the k-th nearest of the reference images (the validation split) is
measured (after Sun et al., 2022, who take the last features).

A network hardly notices what a picture lacks: plain colour is near to skin. So the same distance is
measured between textures, too, how strongly neighbouring pixels differ, and the larger one counts.
Rates on foreign pictures: docs/out_of_distribution.md.
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
TEXTURE_SCALES = (1, 2, 4)  # pixels: sides of the squares whose means are compared
TEXTURE_QUANTILES = (0.1, 0.5, 0.9)  # of the differences in an image
N_TEXTURE = len(TEXTURE_SCALES) * len(TEXTURE_QUANTILES)
MAX_IMAGES = 2000  # of a reference set; more would only take longer


@dataclass(frozen=True)
class ReferenceSet:
    """In-distribution images by their standardised features (n, columns).

    mean, scale: (columns,), of the standardisation. The last `n_texture` columns are textures. An
    image whose `distance` exceeds `limit` is out-of-distribution.
    """

    features: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    limit: float
    n_texture: int = 0

    def distance(self, features: np.ndarray, excluded: np.ndarray | None = None) -> np.ndarray:
        """The distance of images (m, columns) to their k-th nearest reference image, (m,).

        k is `N_NEIGHBOURS`. The larger one of the distances between features and between textures,
        each the root mean square over its columns. A reference set without textures, of an earlier
        version, compares the features alone. excluded: reference images that do not count, boolean
        (m, n).
        """
        given = (features[:, : len(self.mean)] - self.mean) / self.scale
        parts = zip(*(_split(each, self.n_texture) for each in (given, self.features)), strict=True)
        return np.max([_kth_distances(*pair, excluded) for pair in parts], axis=0)

    def distance_to_other_lesions(
        self, features: np.ndarray, lesion_ids: np.ndarray, reference_lesion_ids: np.ndarray
    ) -> np.ndarray:
        """The `distance` of images to reference images of other lesions than their own, (m,).

        `lesion_ids` (m,) are those of the images, `reference_lesion_ids` those of all images that
        the set was fitted to, in their order.
        """
        known = reference_lesion_ids[_chosen(len(reference_lesion_ids))]
        return self.distance(features, lesion_ids[:, None] == known)


@contextlib.contextmanager
def capture_features(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Yields a list to which every forward pass adds its features (n, channels + `N_TEXTURE`).

    By forward hooks on the model, since not every model has timm's `forward_intermediates`;
    two threads must not use the model at once. Of a model that does not say where its stages are,
    the features are what its classifier gets. The last columns are `textures` of its inputs.
    """
    features, modules, stages = [], dict(model.named_modules()), model.feature_info
    found: list[torch.Tensor] = []  # of the pass that is going on
    stage = modules.get(stages[math.ceil(3 * len(stages) / 4) - 1]["module"])
    if stage and not isinstance(stage, nn.ModuleList):  # which is only iterated over
        hook = stage.register_forward_hook(lambda *call: found.append(_means(model, call[2])))
    else:
        hook = model.get_classifier().register_forward_pre_hook(
            lambda _, inputs: found.append(inputs[0].float())
        )

    def finish(_model: nn.Module, inputs: tuple, _logits: object) -> None:
        features.append(torch.cat([found[-1], textures(inputs[0])], dim=1))
        found.clear()

    end = model.register_forward_hook(finish)
    try:
        yield features
    finally:
        hook.remove()
        end.remove()


def textures(inputs: torch.Tensor) -> torch.Tensor:
    """Logarithms of how strongly neighbours differ in images (n, 3, side, side), (n, `N_TEXTURE`).

    At each of `TEXTURE_SCALES` some quantiles of the length of the colour gradient.
    """
    columns = []
    for scale in TEXTURE_SCALES:
        pixels = nn.functional.avg_pool2d(inputs.float(), scale)
        inner = pixels[:, :, 1:, 1:]
        squares = (inner - pixels[:, :, :-1, 1:]) ** 2 + (inner - pixels[:, :, 1:, :-1]) ** 2
        gradient = squares.sum(1).sqrt().flatten(1)
        for quantile in TEXTURE_QUANTILES:
            rank = 1 + round(quantile * (gradient.shape[1] - 1))
            columns.append(gradient.kthvalue(rank, dim=1).values)
    return torch.log(1e-3 + torch.stack(columns, dim=1))  # plain colour has no gradient at all


def _split(columns: np.ndarray, n_texture: int) -> list[np.ndarray]:
    """The columns of features and those of textures; without the latter, the former alone."""
    end = columns.shape[1] - n_texture
    return [columns[:, :end], columns[:, end:]] if n_texture else [columns]


def _means(model: nn.Module, output: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of each channel over all positions, (n, channels); of several tensors, the last."""
    output = output if isinstance(output, torch.Tensor) else output[-1]
    cells = feature_map(model, output)
    return output.float().mean(1) if cells is None else cells.float().mean((2, 3))


def fit_reference_set(
    features: np.ndarray, lesion_ids: np.ndarray, n_texture: int = N_TEXTURE
) -> ReferenceSet:
    """The reference set of images that the weights were not trained on.

    features: (n, columns), the last `n_texture` of them textures; lesion_ids: (n,). The limit is
    the 1 - `FALSE_POSITIVE_RATE` quantile of the images' distances to those of other lesions.
    Textures are scaled so that this quantile alone is the same for them as for the features.
    """
    chosen = _chosen(len(features))
    features, lesion_ids = np.float32(features[chosen]), lesion_ids[chosen]
    mean, scale = features.mean(0), features.std(0) + 1e-6
    same_lesion = lesion_ids[:, None] == lesion_ids[None]
    distances = [
        _kth_distances(columns, columns, same_lesion)
        for columns in _split((features - mean) / scale, n_texture)
    ]
    limits = [np.quantile(each, 1 - FALSE_POSITIVE_RATE) for each in distances]
    if n_texture and min(limits) > 0:
        factor = np.float32(limits[1] / limits[0])
        scale[-n_texture:] *= factor
        distances[1] /= factor
    limit = float(np.quantile(np.max(distances, axis=0), 1 - FALSE_POSITIVE_RATE))
    return ReferenceSet((features - mean) / scale, mean, scale, limit, n_texture)


def _chosen(count: int) -> np.ndarray:
    """Which of `count` images are in the reference set, and in which order."""
    return np.random.default_rng(0).permutation(count)[:MAX_IMAGES]


def _kth_distances(
    features: np.ndarray, reference: np.ndarray, excluded: np.ndarray | None = None
) -> np.ndarray:
    """Root mean square distance over columns to the k-th nearest reference image, (n,)."""
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
        arrays["features"] = np.float16(reference.features)
        save_file(arrays | {"n_texture": np.array([reference.n_texture])}, temporary)
    return {"known_limit": reference.limit, "known_sha256": sha256(folder / FILE)}


def load_reference_set(folder: Path, metadata: dict) -> ReferenceSet:
    """Reads a model's reference set; raises `MelanomaError` when it is not that of the bundle."""
    if sha256(folder / FILE) != metadata["known_sha256"]:
        raise MelanomaError(f"{folder}: {FILE} is not the file of its bundle.json")
    arrays = load_file(folder / FILE)
    (n_texture,) = arrays.pop("n_texture", [0])  # of an earlier version: features alone
    arrays = {name: np.float32(array) for name, array in arrays.items()}
    return ReferenceSet(**arrays, limit=metadata["known_limit"], n_texture=int(n_texture))
