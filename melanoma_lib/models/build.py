"""Architectures: a table of the four that are compared, and one way to build any timm model."""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

from melanoma_lib.core.errors import MelanomaError, summarize_items


@dataclass(frozen=True)
class Architecture:
    """A network family: its key, its name in print, and timm's name."""

    key: str
    name: str
    timm_name: str


# The tag after the dot names the ImageNet weights; timm changes its defaults now and then.
ARCHITECTURES = {
    entry.key: entry
    for entry in (
        Architecture("resnet50", "ResNet-50", "resnet50.a1_in1k"),
        Architecture("efficientnet_b3", "EfficientNet-B3", "efficientnet_b3.ra2_in1k"),
        Architecture("densenet121", "DenseNet-121", "densenet121.ra_in1k"),
        Architecture("vit_b_16", "ViT-B/16", "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    )
}


def architecture(key: str) -> Architecture:
    """Looks up one of the four, or any model name of timm; raises `MelanomaError` otherwise."""
    if key in ARCHITECTURES:
        return ARCHITECTURES[key]
    if timm.is_model(key) and timm.is_model_pretrained(key) >= ("." in key):
        return Architecture(key, key, key)
    near = difflib.get_close_matches(key, dict.fromkeys([*ARCHITECTURES, *timm.list_models()]), n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "timm.list_models() lists all"
    raise MelanomaError(
        f"unknown architecture {key!r}; {hint}? Ours are {', '.join(ARCHITECTURES)}"
    )


def build_model(
    key: str, classes: int, image_size: int, pretrained: bool = False, weights: str = ""
) -> nn.Module:
    """Builds a network with a fresh output layer of `classes` logits.

    `weights` is a file of ImageNet weights (safetensors, or a PyTorch state dict) used instead
    of timm's hub; with `pretrained=False` and no file the weights are random. Raises
    `MelanomaError` when the hub cannot be reached or the file does not fit.
    """
    entry = architecture(key)
    cfg = timm.get_pretrained_cfg(entry.timm_name)
    options: dict = {"num_classes": classes}
    if cfg is not None and cfg.fixed_input_size:
        options["img_size"] = image_size  # transformers build their position table for one size
    if pretrained and not weights:
        weights = _hub_file(key, cfg)
    if weights:
        if not Path(weights).is_file():
            raise MelanomaError(f"the weights file {weights} for {key} does not exist")
        options["pretrained_cfg_overlay"] = {"file": str(Path(weights).resolve())}
    missing: list[str] = []
    try:
        with _missing_weights(missing):
            model = timm.create_model(entry.timm_name, pretrained=bool(weights), **options)
        head = model.pretrained_cfg["classifier"] or ()  # one name or several: new in any case
        head = (head,) if isinstance(head, str) else tuple(head)
        absent = [name for name in missing if not name.startswith(head)]
        if absent:
            named = summarize_items(absent, 3)
            raise ValueError(f"{len(absent)} of its weights are missing: {named}")
        _soften_head(model)
        # Convolutions are faster with the colours of a pixel side by side; results are the same.
        return model.to(memory_format=torch.channels_last)
    except Exception as error:  # timm raises a dozen unrelated types
        what = f"{weights} does not fit {key}" if weights else f"{key} cannot be built"
        raise MelanomaError(f"{what} at {image_size} px: {' '.join(str(error).split())[:300]}") \
            from error


@contextlib.contextmanager
def _missing_weights(names: list[str]) -> Iterator[None]:
    """Adds to `names` what a file lacks that timm loads meanwhile; timm passes over it silently."""
    load = nn.Module.load_state_dict

    def loaded(model: nn.Module, *arguments, **options):
        result = load(model, *arguments, **options)
        names.extend(result.missing_keys)
        return result

    nn.Module.load_state_dict = loaded
    try:
        yield
    finally:
        nn.Module.load_state_dict = load


def _soften_head(model: nn.Module) -> None:
    """Starts the new output layer near zero, so that all classes begin about equally likely.

    timm scales EfficientNet's output layer by the number of classes; with seven, the first
    losses are three times those of guessing, and training from random weights suffers.
    """
    head = model.get_classifier()
    if isinstance(head, nn.Linear):
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)


def _hub_file(key: str, cfg) -> str:
    """The file of ImageNet weights from the local cache, or else fetched from timm's hub."""
    import huggingface_hub

    ways_out = (
        f"name a local file with --weights {key}=FILE, or train from random weights with "
        "--no-pretrained"
    )
    if cfg is None or not cfg.hf_hub_id:
        raise MelanomaError(f"timm has no ImageNet weights for {key}; {ways_out}")
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
            f"the ImageNet weights of {key} cannot be fetched from timm's hub ({reason}); "
            f"{ways_out}"
        ) from error


def normalisation(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of red, green and blue that the model's weights expect."""
    data_config = timm.data.resolve_model_data_config(model)
    return tuple(data_config["mean"]), tuple(data_config["std"])


def to_input(images: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """Moves uint8 images (n, 3, height, width) to the device as float32 in [0, 1]."""
    return images.to(device, non_blocking=True).float() / 255


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Centres and scales float images (n, 3, height, width) in [0, 1], channel by channel.

    `mean` and `std` may be tensors on the images' device: making them there would stop a GPU.
    """
    centre, scale = (
        torch.as_tensor(values, dtype=images.dtype, device=images.device)[:, None, None]
        for values in (mean, std)
    )
    return (images - centre) / scale
