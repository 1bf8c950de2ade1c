"""Explanations: Grad-CAM heat maps, and how much of the heat lies on the lesion."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from melanoma_lib.artifacts import MelanomaError


def grad_cam(
    model: nn.Module, inputs: torch.Tensor, classes: Sequence[int], layer: str = ""
) -> np.ndarray:
    """Grad-CAM heat as a share of each map's maximum, (n, height, width), for one class an image.

    `inputs` are normalised images (n, 3, height, width). A map in which nothing speaks for the
    class is all zero. `layer` is what `cam_layer` finds, if that is known already; raises
    `MelanomaError` as that does (Selvaraju et al., 2017).
    """
    layer = layer or cam_layer(model, inputs)
    ((features, gradient),) = class_gradients(model, [layer], inputs, classes).values()
    features, gradient = as_map(model, features), as_map(model, gradient)
    weights = gradient.mean((2, 3), keepdim=True)  # how much each feature speaks for the class
    heat = F.relu((weights * features).sum(1, keepdim=True))  # (n, 1, places, places)
    heat = F.interpolate(heat, inputs.shape[-2:], mode="bilinear")[:, 0]
    peak = heat.amax((1, 2), keepdim=True)
    return (heat / torch.where(peak > 0, peak, 1)).cpu().numpy()


def cam_layer(model: nn.Module, inputs: torch.Tensor) -> str:
    """The name of the layer Grad-CAM reads: the last with places on which the logits depend.

    Found by sending the first of `inputs` through the model, so that it serves any model of
    timm. In a network of convolutions it is the last map before pooling; in a transformer with
    a class token the input of the last attention, because behind it the other tokens count no
    more. Raises `MelanomaError` where there is none.
    """
    names = [name for name, _ in model.named_modules() if name]
    found = []
    for name, (_, gradient) in class_gradients(model, names, inputs[:1], [0]).items():
        places = as_map(model, gradient)
        if places is not None and places.any():
            found.append((places.shape[2] > 1, len(found), name))  # one place is no map
    if not found:
        raise MelanomaError(f"{type(model).__name__} has no layer for Grad-CAM: no map of features")
    return max(found)[2]


def class_gradients(
    model: nn.Module, layers: Iterable[str], inputs: torch.Tensor, classes: Sequence[int]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By layer, in the order they last run, its output and the gradient of a logit by it.

    The logit is that of one class an image. The model may be frozen, in training or on any
    device and stays as it is; the arithmetic is float32.
    """
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str, output: object) -> None:
        outputs.pop(name, None)  # a layer that runs twice counts where it runs last
        if isinstance(output, torch.Tensor) and output.requires_grad:
            outputs[name] = output

    hooks = [
        model.get_submodule(name).register_forward_hook(lambda *call, of=name: keep(of, call[2]))
        for name in layers
    ]
    training = model.training
    try:
        with torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
            # Gradients start from the inputs, so that frozen weights are no obstacle.
            logits = model.eval()(inputs.detach().float().requires_grad_())
            score = logits[range(len(inputs)), [int(index) for index in classes]].sum()
            gradients = torch.autograd.grad(score, list(outputs.values()), materialize_grads=True)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {
        name: (output.detach(), gradient)
        for (name, output), gradient in zip(outputs.items(), gradients, strict=True)
    }


def as_map(model: nn.Module, features: torch.Tensor) -> torch.Tensor | None:
    """Features as (n, channels, side, side), or None where they are no map of the model's features.

    Takes maps with channels first or last, and tokens (n, tokens, channels) in rows, without
    the class token and its like, which belong to no place.
    """
    channels = model.num_features
    if features.ndim == 4 and features.shape[2] == features.shape[3]:
        return features if features.shape[1] == channels else None
    if features.ndim == 4 and features.shape[1] == features.shape[2]:
        return features.permute(0, 3, 1, 2) if features.shape[3] == channels else None
    if features.ndim != 3 or features.shape[2] != channels:
        return None
    tokens = features.shape[1]
    prefix = getattr(model, "num_prefix_tokens", 0)
    for patches in (tokens - prefix, tokens - 1):  # some models do not tell of their class token
        side = math.isqrt(max(patches, 0))
        if side and side**2 == patches:
            return features[:, -patches:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return None


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
