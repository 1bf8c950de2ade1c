"""Heat maps of the evidence for a class in an image: Grad-CAM and LayerCAM."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.models.features import feature_map

# By name, the class in pytorch_grad_cam. Only methods that need nothing but features and
# gradients. HiResCAM is left out: before pooling and one linear layer it equals Grad-CAM.
METHODS = {"grad_cam": "GradCAM", "layer_cam": "LayerCAM"}


def heat_maps(
    model: nn.Module,
    inputs: torch.Tensor,
    classes: Sequence[int],
    layer: str = "",
    method: str = "grad_cam",
) -> np.ndarray:
    """A heat map for one class an image, (n, height, width) in [0, 1], each with maximum 1.

    `inputs` are normalised images (n, 3, height, width) on the model's device. A map is all zero
    where nothing in the layer speaks for the class. `layer` is a module's name, by default that
    of `cam_layer`. Raises `MelanomaError` for a layer without feature maps (Grad-CAM: Selvaraju
    et al., 2017; LayerCAM: Jiang et al., 2021).
    """
    layer = layer or cam_layer(model, inputs)
    found = class_gradients(model, [layer], inputs, classes).get(layer)
    if found is None or feature_map(model, found[0]) is None:
        raise MelanomaError(
            f"layer {layer} has no feature map; the last that has one is {cam_layer(model, inputs)}"
        )
    return compute_cam(model, *found, inputs.shape[-1], method)


def compute_cam(
    model: nn.Module, features: torch.Tensor, gradient: torch.Tensor, size: int, method: str
) -> np.ndarray:
    """Heat maps from a layer's output and the gradient of a logit, as `class_gradients` gives them.

    `features` and `gradient` are (n, channels, side, side) or, of a transformer, (n, tokens,
    channels). (n, size, size) in [0, 1], each with maximum 1 or all zero; bilinear interpolation.
    """
    import pytorch_grad_cam  # slow to import

    # Of the package only the formula is used. Called as a whole, it fails on frozen weights and
    # in inference mode, and it subtracts each map's minimum, so that an almost uniform map comes
    # out in full contrast. Its constructor wants any module with a parameter; given no layers, it
    # registers no hooks.
    formula = getattr(pytorch_grad_cam, METHODS[method])(nn.PReLU(), [])
    arrays = [feature_map(model, values).cpu().numpy() for values in (features, gradient)]
    signed = formula.get_cam_image(None, None, None, *arrays, False)  # (n, cells, cells)
    heat = F.relu(torch.from_numpy(signed).to(features.device))[:, None]
    heat = F.interpolate(heat, (size, size), mode="bilinear")[:, 0]
    peak = heat.amax((1, 2), keepdim=True)
    return (heat / torch.where(peak > 0, peak, 1)).cpu().numpy()


def cam_layer(model: nn.Module, inputs: torch.Tensor) -> str:
    """The name of the module for Grad-CAM: the last whose feature map the logits depend on.

    Found with one forward and backward pass of the first of `inputs` (n, 3, height, width), so
    that it works for any timm model. In a convolutional network it is the last map before
    pooling; in a transformer with a class token the input of the last attention block, behind
    which the logits depend on the class token alone. Maps with as many channels as the network
    says to have features are preferred. Raises `MelanomaError` if there is none.
    """
    names = [name for name, _ in model.named_modules() if name]
    found = []
    for name, (_, gradient) in class_gradients(model, names, inputs[:1], [0]).items():
        cells = feature_map(model, gradient)
        if cells is not None and cells.any():
            last = cells.shape[1] == model.num_features
            found.append((last, cells.shape[2] > 1, len(found), name))  # 1 x 1 if nothing else
    if not found:
        raise MelanomaError(f"{type(model).__name__} has no layer for Grad-CAM: no feature map")
    return max(found)[-1]


def has_heat_maps(model: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether `cam_layer` finds a layer; some networks have no map of features."""
    try:
        return bool(cam_layer(model, inputs))
    except MelanomaError:
        return False


def class_gradients(
    model: nn.Module, layers: Iterable[str], inputs: torch.Tensor, *classes: Sequence[int]
) -> dict[str, tuple[torch.Tensor, ...]]:
    """Each layer's output and, for each of `classes`, the gradient of the logits by it.

    `classes` are sequences of one class an image, (n,); all gradients come from one forward pass
    of `inputs` (n, 3, height, width), in float32. Layers are in the order in which they last
    ran; those the logits do not depend on have gradient 0. The model may be frozen or in training
    mode and is left unchanged. Raises `MelanomaError` for a layer that does not exist. Not
    thread-safe: hooks are registered on the model.
    """
    modules, outputs = dict(model.named_modules()), {}
    absent = [name for name in layers if name not in modules]
    if absent:
        raise MelanomaError(
            f"{type(model).__name__} has no layer {summarize_items(absent)}; leave it empty to "
            "have it found, or print the model to see its layers"
        )

    def keep(name: str, output: object) -> None:
        outputs.pop(name, None)  # of a layer that runs twice, the last run counts
        if isinstance(output, torch.Tensor) and output.requires_grad:
            outputs[name] = output

    hooks = [
        modules[name].register_forward_hook(lambda *call, of=name: keep(of, call[2]))
        for name in layers
    ]
    training = model.training
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(inputs.device.type, enabled=False),
        ):
            # The inputs require gradients, so that those of frozen weights are not needed.
            logits = model.eval()(inputs.detach().clone().float().requires_grad_())
            gradients = [
                torch.autograd.grad(
                    logits[range(len(inputs)), [int(index) for index in one_each]].sum(),
                    list(outputs.values()), retain_graph=True, materialize_grads=True,
                )
                for one_each in classes
            ]  # fmt: skip
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {
        name: (output.detach(), *(by_layer[index] for by_layer in gradients))
        for index, (name, output) in enumerate(outputs.items())
    }
