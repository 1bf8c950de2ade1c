"""Explanations: Grad-CAM heat maps, and how much of the heat lies on the lesion."""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from melanoma_lib.artifacts import MelanomaError
from melanoma_lib.models import architecture


def cam_layer(model: nn.Module, key: str) -> nn.Module:
    """The layer Grad-CAM reads: the table's, or the input of the model's global pooling.

    Raises `MelanomaError` for a model in which none is found.
    """
    path = architecture(key).cam_layer
    if path:
        return model.get_submodule(path)
    layers = dict(model.named_modules())
    for name in ("blocks.{last}.norm1", "bn2", "layer4.{last}", "norm", "conv_head"):
        if "{last}" in name:
            count = len(layers.get(name.split(".")[0], ()))
            name = name.format(last=count - 1)
        if name in layers:
            return layers[name]
    convolutions = [layer for layer in layers.values() if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        raise MelanomaError(f"no layer for Grad-CAM found in {key}")
    return convolutions[-1]


def grad_cam(
    model: nn.Module, key: str, inputs: torch.Tensor, classes: Sequence[int]
) -> np.ndarray:
    """Grad-CAM heat in [0, 1] for one class an image, (n, height, width) (Selvaraju et al., 2017).

    `inputs` are normalised images (n, 3, height, width). Computed in float32 on a copy of the
    model whose weights take gradients, so that the caller's model stays as it is.
    """
    # Imported here: the package brings OpenCV along and takes seconds.
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = copy.deepcopy(model).float().eval().requires_grad_(True)
    targets = [ClassifierOutputTarget(int(index)) for index in classes]
    with GradCAM(model, [cam_layer(model, key)], reshape_transform=_as_map(model)) as cam:
        return cam(input_tensor=inputs.float(), targets=targets)


def _as_map(model: nn.Module):
    """How grad-cam must reshape the model's features; None where they are maps already."""
    if not hasattr(model, "num_prefix_tokens"):
        return None
    return lambda tokens: tokens_to_map(tokens, model.num_prefix_tokens)


def tokens_to_map(tokens: torch.Tensor, prefix: int) -> torch.Tensor:
    """Lays a transformer's patch tokens (n, tokens, channels) out as (n, channels, side, side).

    `prefix` tokens at the front (the class token, registers) belong to no place and are dropped.
    """
    patches = tokens[:, prefix:]
    side = math.isqrt(patches.shape[1])
    return patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def heat_inside(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each map's heat that lies inside the lesion mask, (n,); NaN for a map of zeros.

    A map that knows nothing scores the lesion's share of the area: report it beside this.
    """
    with np.errstate(invalid="ignore"):
        return (heat * masks).sum((1, 2)) / heat.sum((1, 2))


def centre_prior(size: int) -> np.ndarray:
    """A map that only knows that lesions lie in the middle: a Gaussian of a quarter of the side."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    return np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 0.25**2))
