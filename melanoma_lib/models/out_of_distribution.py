"""Whether a picture resembles those a model was made for: its distance to known pictures.

A network gives every picture one of its classes, a cat too. Features from three quarters of the
way through it still tell a cat from skin: there, a picture is described by the mean of every
channel, and compared with the pictures of the validation part. What is farther from its nearest
neighbours than nearly all of those are from theirs is foreign (after Sun et al., 2022, who take
the last features).
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path, sha256
from melanoma_lib.models.features import as_map

FILE = "known.safetensors"
NEIGHBOURS = 5
FALSE_WARNINGS = 0.01  # share of the known pictures that would be called foreign
MOST = 2000  # known pictures that are kept; more would only take longer


@dataclass(frozen=True)
class ReferenceSet:
    """Images a model is known to serve: their standardised features (n, channels), a row each.

    A picture is foreign when its distance exceeds `limit`.
    """

    features: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    limit: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Distance of pictures (n, channels), to the fifth nearest known one, (n,)."""
        return _distances((features - self.mean) / self.scale, self.features)


@contextlib.contextmanager
def capture_features(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """A list that grows by the features (n, channels) of every batch the model sees in the block.

    By a hook, because not every model of every timm has `forward_intermediates`. One thread at a
    time: the hook is on the model.
    """
    stage = math.ceil(3 * len(model.feature_info) / 4) - 1
    features = []
    hook = model.get_submodule(model.feature_info[stage]["module"]).register_forward_hook(
        lambda *call: features.append(as_map(model, call[2]).float().mean((2, 3)))
    )
    try:
        yield features
    finally:
        hook.remove()


def fit_reference_set(features: np.ndarray, lesion_ids: np.ndarray) -> ReferenceSet:
    """What is known from the features (n, channels) of pictures the weights never saw.

    The limit is what all but `FALSE_WARNINGS` of them keep, each measured against pictures of
    other lesions.
    """
    chosen = np.random.default_rng(0).permutation(len(features))[:MOST]
    features, lesion_ids = np.float32(features[chosen]), lesion_ids[chosen]
    mean, scale = features.mean(0), features.std(0) + 1e-6
    features = (features - mean) / scale
    own = lesion_ids[:, None] == lesion_ids[None]
    limit = float(np.quantile(_distances(features, features, own), 1 - FALSE_WARNINGS))
    return ReferenceSet(features, mean, scale, limit)


def _distances(
    features: np.ndarray, known: np.ndarray, left_out: np.ndarray | None = None
) -> np.ndarray:
    """Euclidean distance to the k-th nearest known picture, a channel, (n,)."""
    squares = (features**2).sum(1)[:, None] + (known**2).sum(1) - 2 * features @ known.T
    if left_out is not None:
        squares[left_out] = np.inf
    place = min(NEIGHBOURS, len(known)) - 1
    nearest = np.partition(squares, place, axis=1)[:, place]
    return np.sqrt(np.maximum(nearest, 0) / features.shape[1])


def save_reference_set(folder: Path, known: ReferenceSet) -> dict:
    """Writes what is known beside a model; returns the facts for its bundle."""
    with atomic_path(folder / FILE) as temporary:
        arrays = {name: np.float32(getattr(known, name)) for name in ("mean", "scale")}
        save_file(arrays | {"features": np.float16(known.features)}, temporary)
    return {"known_limit": known.limit, "known_sha256": sha256(folder / FILE)}


def load_reference_set(folder: Path, facts: dict) -> ReferenceSet:
    """Reads it; raises `MelanomaError` when the file is not the one of the bundle."""
    if sha256(folder / FILE) != facts["known_sha256"]:
        raise MelanomaError(f"{folder}: {FILE} is not the file of its bundle.json")
    arrays = {name: np.float32(array) for name, array in load_file(folder / FILE).items()}
    return ReferenceSet(**arrays, limit=facts["known_limit"])
