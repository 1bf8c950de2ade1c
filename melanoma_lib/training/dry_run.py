"""A dry run: everything that comes in a training and after it, once, before the first epoch.

A network of timm may refuse an image size, or have no map of features, and a library may compute
wrongly in one memory layout. Without a dry run that is found after hours of training, or never.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional as F

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.explanation.gradcam import has_heat_maps
from melanoma_lib.models.build import build_model, get_architecture, has_fragile_convolution
from melanoma_lib.models.bundle import load_bundle, save_bundle
from melanoma_lib.models.out_of_distribution import capture_features, fit_reference_set
from melanoma_lib.training.checkpoint import save_results
from melanoma_lib.training.precision import ComputeSettings

IMAGES = 2
SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384)  # tried where one is refused
# A wrong gradient of a layer is one that differs by more than this fraction, beyond what bfloat16
# costs anyway. Over a network of every file of timm, the layout alone costs 0.008 at most.
TOLERANCE = 0.1
PLAIN_LAYOUT = "contiguous"


def dry_run(
    architecture: str, image_size: int, settings: ComputeSettings, device: torch.device
) -> ComputeSettings:
    """Takes a network with random weights once through all that a training will need of it.

    A training step, features, a bundle written and read, Grad-CAM. Returns `settings`, with the
    plain memory layout where on this CPU theirs gives another loss or other gradients, or may do
    so; a line is printed about that, and about what the network cannot have. Raises `MelanomaError`
    for a network that cannot be trained; it names image sizes that it takes if the size is why.
    """
    get_architecture(architecture)  # an unknown name is an error of its own
    images = torch.rand(IMAGES, 3, image_size, image_size, device=device)
    try:
        model = build_model(architecture, len(CLASS_NAMES), image_size).to(device)
        loss_and_gradients(model.train(), ComputeSettings(layout=PLAIN_LAYOUT), images)
        _use_as_bundle(architecture, model.eval(), images)
        if not has_heat_maps(model, images):
            print(f"{architecture} has no feature map: there will be no heat maps", flush=True)
    except Exception as error:  # of timm, of any kind
        raise MelanomaError(_refusal(architecture, image_size, error)) from error
    if device.type != "cpu":
        return settings  # GPUs round to TF32 in ways that depend on the layout
    # The gradient of such a convolution may kill the process, so that it is not tried.
    right = not has_fragile_convolution(model) and is_layout_right(model, settings, images)
    if not right:
        print(f"{architecture} may get wrong gradients in {settings.layout}: not used", flush=True)
    return settings if right else dataclasses.replace(settings, layout=PLAIN_LAYOUT)


def loss_and_gradients(
    model: nn.Module, settings: ComputeSettings, images: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The loss of images (n, 3, size, size), and its gradients by parameter."""
    network, weights = settings.wrap(model), dict(model.named_parameters())
    with settings.use_threads():
        loss = F.cross_entropy(network(images), torch.arange(len(images), device=images.device))
        gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    return dict(zip(weights, gradients, strict=True)) | {"loss": loss.detach()}


def is_layout_right(model: nn.Module, settings: ComputeSettings, images: torch.Tensor) -> bool:
    """Whether loss and gradients are those of the plain memory layout, but for rounding.

    In evaluation mode: with batch statistics of two images, rounding alone can change a gradient
    as much as a fault does.
    """
    plain = dataclasses.replace(settings, layout=PLAIN_LAYOUT)
    exact = dataclasses.replace(plain, precision="float32")
    found = {
        each: loss_and_gradients(model.eval(), each, images) for each in {exact, plain, settings}
    }
    rounding = relative_error(found[exact], found[plain])
    return relative_error(found[exact], found[settings]) <= 2 * rounding + TOLERANCE


def relative_error(exact: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of one tensor, as a fraction of its norm.

    A gradient of less than a hundredth of the largest, as of a bias before a normalisation, is
    measured against that: it may be nothing but rounding.
    """
    floor = max(float(exact[name].norm()) for name in exact if name != "loss") / 100
    errors = [
        float((other[name] - value).norm()) / max(float(value.norm()), floor)
        for name, value in exact.items()
    ]
    return float(np.max(errors))  # NaN if one is


def _use_as_bundle(architecture: str, model: nn.Module, images: torch.Tensor) -> None:
    """Predicts with features, writes a bundle and reads it; raises an exception if that fails."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        with capture_features(model) as features:
            logits = model(images)
        reference = fit_reference_set(torch.cat(features).cpu().numpy(), np.arange(IMAGES))
        save_results(Path(folder), [], model.state_dict())
        save_bundle(
            Path(folder), reference, architecture=architecture, class_names=CLASS_NAMES,
            image_size=images.shape[-1], mean=[0.5] * 3, std=[0.5] * 3, temperature=1.0,
            operating_points=[],
        )  # fmt: skip
        again, _ = load_bundle(folder)
        if not torch.allclose(again.to(images.device)(images), logits, rtol=0.01, atol=0.01):
            raise ValueError("read from its file it gives other logits")


def _refusal(architecture: str, image_size: int, error: Exception) -> str:
    """Why a network cannot be trained: the image size, if it takes others, or else the error."""
    native = timm.get_pretrained_cfg(get_architecture(architecture).timm_name).input_size[-1]
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    taken = [size for size in sorted({*SIZES, native}) if _takes(architecture, size)]
    if image_size not in taken and taken:
        sizes = ", ".join(map(str, taken))
        return (
            f"{architecture} takes no images of {image_size} px ({reason}); it takes those of "
            f"{sizes} px; see --image-size"
        )
    return f"{architecture} cannot be trained on images of {image_size} px: {reason}"


def _takes(architecture: str, image_size: int) -> bool:
    """Whether a forward pass accepts an image size; without memory or arithmetic."""
    try:
        with torch.device("meta"), torch.no_grad():
            model = build_model(architecture, len(CLASS_NAMES), image_size).train()
            return model(torch.empty(2, 3, image_size, image_size)).shape == (2, len(CLASS_NAMES))
    except Exception:  # of timm, of any kind
        return False
