"""The four architectures that are compared, and one way to build any model of timm."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from torch import nn

from melanoma_lib.core.errors import MelanomaError


@dataclass(frozen=True)
class Architecture:
    """A network architecture: its name in commands and folders, in print, and in timm.

    options: arguments of `timm.create_model`, where timm has only a larger network of its kind.
    """

    name: str
    display_name: str
    timm_name: str
    options: Mapping[str, object] = field(default_factory=dict)


# The tag after the dot names the ImageNet weights; timm changes its defaults now and then.
ARCHITECTURES = {
    entry.name: entry
    for entry in (
        Architecture("resnet50", "ResNet-50", "resnet50.a1_in1k"),
        Architecture("efficientnet_b3", "EfficientNet-B3", "efficientnet_b3.ra2_in1k"),
        Architecture("densenet121", "DenseNet-121", "densenet121.ra_in1k"),
        Architecture("vit_b_16", "ViT-B/16", "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
        # A small sibling of each, which learns the generated sample on two cores in minutes.
        Architecture("resnet10t", "ResNet-10-T", "resnet10t"),
        Architecture("efficientnet_lite0", "EfficientNet-Lite0", "tf_efficientnet_lite0.in1k"),
        # 52 layers: 2 for each of 24 in the blocks, 2 between blocks, the first and the last.
        Architecture(
            "densenet52", "DenseNet-52", "densenet121",
            {"growth_rate": 16, "block_config": (4, 8, 12)},
        ),
        Architecture("vit_ti_16_6", "ViT-Ti/16 (6 blocks)", "vit_tiny_patch16_224", {"depth": 6}),
    )
}


def get_architecture(name: str) -> Architecture:
    """One of `ARCHITECTURES`, or any model of timm, by name; raises `MelanomaError` otherwise."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if timm.is_model(name) and timm.is_model_pretrained(name) >= ("." in name):
        return Architecture(name, name, name)
    names = dict.fromkeys([*ARCHITECTURES, *timm.list_models()])
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "timm.list_models() lists all"
    raise MelanomaError(
        f"unknown architecture {name!r}; {hint}? Ours are {', '.join(ARCHITECTURES)}"
    )


def build_model(
    architecture: str, classes: int, image_size: int, pretrained: bool = False, weights: str = ""
) -> nn.Module:
    """Builds a network with a new output layer of `classes` logits.

    image_size: pixels a side. weights: a file of ImageNet weights (safetensors, or a PyTorch
    state dict) instead of that of timm's hub; without it and `pretrained`, weights are random.
    Raises `MelanomaError` when the hub cannot be reached, or when the file lacks weights or has
    others than the network's.
    """
    entry = get_architecture(architecture)
    cfg = timm.get_pretrained_cfg(entry.timm_name)
    # Transformers have position embeddings for one image size.
    options = dict(entry.options)
    if cfg.fixed_input_size:
        options["img_size"] = image_size
    if pretrained and not weights:
        weights = _hub_file(architecture, cfg)
    if weights and not Path(weights).is_file():
        raise MelanomaError(f"the weights file {weights} for {architecture} does not exist")
    try:
        if weights:
            model = timm.create_model(entry.timm_name, **options)
            state = _with_timm_names(timm.models.load_state_dict(weights), model.state_dict())
            # timm refuses weights that lack some only if the output layers are alike, too.
            overlay = {"state_dict": state, **_classes_of(state, cfg)}
            options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
            model = timm.create_model(entry.timm_name, **options)
            del model.pretrained_cfg["state_dict"]  # or every copy of the model would copy them
            model.reset_classifier(classes)
        else:
            model = timm.create_model(entry.timm_name, num_classes=classes, **options)
        _init_classifier(model, classes)
        return to_fast_layout(model)
    except Exception as error:  # timm raises a dozen unrelated types
        fault = f"{weights} does not fit" if weights else "timm cannot build"
        reason = " ".join(str(error).split())[:300]
        raise MelanomaError(f"{fault} {architecture} at {image_size} px: {reason}") from error


def _with_timm_names(state: Mapping, expected: Mapping) -> dict:
    """Weights under the names of timm, also those of another implementation of the same network.

    Such weights are known by having no name in common with timm's, and the same shapes in order.
    """
    shapes = [[tuple(value.shape) for value in weights.values()] for weights in (state, expected)]
    foreign = not set(state) & set(expected) and shapes[0] == shapes[1]
    return dict(zip(expected if foreign else state, state.values(), strict=True))


def _classes_of(state: Mapping, cfg) -> dict[str, int]:
    """The number of outputs in weights of a file, for timm's configuration; 0 without a layer."""
    head = cfg.classifier if isinstance(cfg.classifier, str) else (cfg.classifier or ("",))[0]
    if f"{head}.weight" in state:
        return {"num_classes": len(state[f"{head}.weight"])}
    named_otherwise = any(name.startswith(head.partition(".")[0]) for name in state)
    return {} if named_otherwise else {"num_classes": 0}


def to_fast_layout(model: nn.Module) -> nn.Module:
    """The model with channels_last weights, for which convolutions are faster, where that is safe.

    See `has_fragile_convolution`.
    """
    return model if has_fragile_convolution(model) else model.to(memory_format=torch.channels_last)


def has_fragile_convolution(model: nn.Module) -> bool:
    """Whether it has a 1 x 1 convolution with a stride and few input channels.

    Its gradient in channels_last is wrong on CPUs with AVX2, or kills the process (oneDNN issue
    6035, with fewer than 8 channels).
    """
    return any(
        isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        and module.stride != (1, 1) and module.in_channels < 16
        for module in model.modules()
    )  # fmt: skip


def _init_classifier(model: nn.Module, classes: int) -> None:
    """Initialises the output layer near zero, so that all classes begin about equally likely.

    timm scales EfficientNet's by the number of classes; with seven, the first losses are three
    times those of a uniform prediction, and training from random weights suffers. Where timm sets
    it to zero, no gradient would reach the layers before it.
    """
    heads = model.get_classifier()
    for layer in nn.ModuleList(heads if isinstance(heads, tuple) else [heads]).modules():
        if isinstance(layer, nn.Linear) and layer.out_features == classes:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


def _hub_file(architecture: str, cfg) -> str:
    """The file of ImageNet weights in the local cache, or else downloaded from timm's hub."""
    import huggingface_hub

    alternatives = (
        f"name a local file with --weights {architecture}=FILE, or train from random weights with "
        "--no-pretrained"
    )
    if not cfg.hf_hub_id:
        raise MelanomaError(f"timm has no ImageNet weights for {architecture}; {alternatives}")
    name = "model.safetensors"
    cached = huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, name)
    if isinstance(cached, str):
        return cached
    try:
        # The hub's own client retries for most of a minute where there is no internet.
        huggingface_hub.utils.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
        return huggingface_hub.hf_hub_download(cfg.hf_hub_id, name)
    except Exception as error:  # the client's transport decides the type
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MelanomaError(
            f"the ImageNet weights of {architecture} cannot be fetched from timm's hub ({reason}); "
            f"{alternatives}"
        ) from error


def normalisation(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of red, green and blue that the model's weights expect.

    Both are for images in [0, 1], see `normalise`.
    """
    data_config = timm.data.resolve_model_data_config(model)
    return tuple(data_config["mean"]), tuple(data_config["std"])


def to_input(images: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """Moves uint8 images (n, 3, height, width) to the device, as float32 in [0, 1]."""
    return images.to(device, non_blocking=True).float() / 255


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Subtracts the mean and divides by the standard deviation of each channel.

    images: float (n, 3, height, width) in [0, 1]; mean, std: (3,), also tensors on the images'
    device, which need not be copied there.
    """
    mean, std = (
        torch.as_tensor(values, dtype=images.dtype, device=images.device)[:, None, None]
        for values in (mean, std)
    )
    return (images - mean) / std
