"""Explanations: heat maps by Grad-CAM and its kind, and their scores against a lesion mask."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.models.features import as_map

# The scored methods, by the package's class: those that need only features and gradients. Where
# pooling and one linear layer follow, its HiResCAM is the same map as Grad-CAM.
METHODS = {"grad_cam": "GradCAM", "layer_cam": "LayerCAM"}


def heat_maps(
    model: nn.Module,
    inputs: torch.Tensor,
    classes: Sequence[int],
    layer: str = "",
    method: str = "grad_cam",
) -> np.ndarray:
    """Heat as a share of each map's maximum, (n, height, width), for one class an image.

    `inputs` are normalised images (n, 3, height, width) on the model's device. A map in which
    nothing speaks for the class is all zero. `layer` is what `cam_layer` finds, or any other
    with a map of features; raises `MelanomaError` for one without (Selvaraju et al., 2017;
    LayerCAM: Jiang et al., 2021).
    """
    layer = layer or cam_layer(model, inputs)
    found = class_gradients(model, [layer], inputs, classes).get(layer)
    if found is None or as_map(model, found[0]) is None:
        raise MelanomaError(
            f"layer {layer} has no map of features; {cam_layer(model, inputs)} is the last one"
        )
    return heat_from(model, *found, inputs.shape[-1], method)


def heat_from(
    model: nn.Module, features: torch.Tensor, gradient: torch.Tensor, size: int, method: str
) -> np.ndarray:
    """The map of a method, stretched to `size`, from what `class_gradients` gives of a layer.

    Only the formula is the package's. Its hooks would read frozen weights and inference mode
    wrongly, and it moves each map's minimum to zero, which makes heat of almost nothing.
    """
    import pytorch_grad_cam  # slow to import

    formula = getattr(pytorch_grad_cam, METHODS[method])(nn.PReLU(), [])  # no layers: no hooks
    arrays = [as_map(model, values).cpu().numpy() for values in (features, gradient)]
    signed = formula.get_cam_image(None, None, None, *arrays, False)  # (n, places, places)
    heat = F.relu(torch.from_numpy(signed).to(features.device))[:, None]
    heat = F.interpolate(heat, (size, size), mode="bilinear")[:, 0]
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
        if places is not None and places.shape[1] == model.num_features and places.any():
            found.append((places.shape[2] > 1, len(found), name))  # one place is no map
    if not found:
        raise MelanomaError(f"{type(model).__name__} has no layer for Grad-CAM: no map of features")
    return max(found)[2]


def class_gradients(
    model: nn.Module, layers: Iterable[str], inputs: torch.Tensor, *classes: Sequence[int]
) -> dict[str, tuple[torch.Tensor, ...]]:
    """By layer, in the order they last run, its output and the gradient of a logit by it.

    The logit is that of one class an image; a gradient for each of the `classes`. The model may be
    frozen, in training or on any device and stays as it is; the arithmetic is float32. Raises
    `MelanomaError` for a layer that is not there. One thread at a time: the hooks are on the model.
    """
    modules, outputs = dict(model.named_modules()), {}
    absent = [name for name in layers if name not in modules]
    if absent:
        raise MelanomaError(
            f"{type(model).__name__} has no layer {summarize_items(absent)}; leave it empty to "
            "have it found, or print the model to see its layers"
        )

    def keep(name: str, output: object) -> None:
        outputs.pop(name, None)  # a layer that runs twice counts where it runs last
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
            # Gradients start from the inputs, so that frozen weights are no obstacle.
            logits = model.eval()(inputs.detach().clone().float().requires_grad_())
            gradients = [
                torch.autograd.grad(
                    logits[range(len(inputs)), [int(index) for index in wanted]].sum(),
                    list(outputs.values()), retain_graph=True, materialize_grads=True,
                )
                for wanted in classes
            ]  # fmt: skip
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {
        name: (output.detach(), *(by_layer[index] for by_layer in gradients))
        for index, (name, output) in enumerate(outputs.items())
    }
