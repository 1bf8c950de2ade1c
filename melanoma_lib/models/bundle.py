"""The bundle: a folder with a trained model's weights and all that is needed to use them."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json, sha256, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.models.build import build_model, to_fast_layout
from melanoma_lib.models.hub import PREFIX, fetch_run
from melanoma_lib.models.out_of_distribution import ReferenceSet, save_reference_set

SCHEMA = 2  # of bundle.json; raise it when that changes
REQUIRED_METADATA = {  # what bundle.json must contain, and when it is valid
    "architecture": lambda value: isinstance(value, str),
    "class_names": lambda value: value == list(CLASS_NAMES),
    "image_size": lambda value: isinstance(value, int) and value > 0,
    "mean": lambda value: isinstance(value, list) and len(value) == 3,
    "std": lambda value: isinstance(value, list) and len(value) == 3 and min(value) > 0,
    "temperature": lambda value: isinstance(value, float | int) and value > 0,
    "operating_points": lambda value: isinstance(value, list),
    "weights_sha256": lambda value: isinstance(value, str),
    "known_limit": lambda value: isinstance(value, float | int) and value >= 0,
    "known_sha256": lambda value: isinstance(value, str),
    # Whom the model refers, where it refers anybody: see `evaluation.abstention.choose_referral`.
    "referral": lambda value: value is None or _is_referral(value),
}


def _is_referral(value: object) -> bool:
    keys = {"order": str, "fraction": float, "threshold": float}
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) for name, kind in keys.items()
    )


def save_bundle(folder: Path, reference: ReferenceSet, **metadata: object) -> None:
    """Writes bundle.json and the reference set into a folder that has model.safetensors.

    metadata: architecture, class_names, image_size, mean, std, temperature, operating_points,
    and generated (whether the model was trained on generated images).
    """
    weights = sha256(folder / "model.safetensors")
    added = {"schema": SCHEMA, "weights_sha256": weights, **save_reference_set(folder, reference)}
    write_json(folder / "bundle.json", added | metadata)


def load_bundle(folder: Path | str) -> tuple[nn.Module, dict]:
    """The trained model in evaluation mode, on the CPU, and the metadata in bundle.json.

    Raises `MelanomaError` when the folder has no bundle, one of another schema, or weights that
    are not those of the bundle.
    """
    folder = Path(folder)
    metadata = read_json(folder / "bundle.json")
    if metadata.get("schema") != SCHEMA:
        raise MelanomaError(
            f"{folder} holds a bundle of another version; train again: the same "
            "command keeps the weights and renews the bundle"
        )
    wrong = [name for name, valid in REQUIRED_METADATA.items() if not valid(metadata.get(name))]
    if wrong:
        raise MelanomaError(f"{folder / 'bundle.json'}: missing or wrong: {summarize_items(wrong)}")
    if sha256(folder / "model.safetensors") != metadata["weights_sha256"]:
        raise MelanomaError(f"{folder}: model.safetensors is not the file of its bundle.json")
    network = metadata["architecture"], len(metadata["class_names"]), metadata["image_size"]
    with torch.device("meta"):  # no memory and no random weights, which the file would replace
        model = build_model(*network)
    if {name for name, _ in model.named_buffers()} - set(model.state_dict()):
        model = build_model(*network)  # buffers that no file has must be computed
    load_weights(model, folder, assign=True)
    return to_fast_layout(model).eval(), metadata


def find_bundles(folder: Path | str) -> list[Path]:
    """The folder itself if it has a bundle, or else its subfolders that have one, sorted.

    `folder` may also be an address of the Hugging Face Hub, `hf://owner/name@revision`. Raises
    `MelanomaError` when there is none.
    """
    is_remote = str(folder).startswith(PREFIX)
    folder = fetch_run(str(folder)) if is_remote else Path(folder).expanduser()
    if (folder / "bundle.json").exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/bundle.json"))
    if not found:
        raise MelanomaError(
            f"there is no trained model in {folder}; train first, on HAM10000 with `melanoma run` "
            "or on generated images with `melanoma run --preset sample`, and name the folder of "
            "the run, or one in it, with --bundle, for example runs/sample/resnet10t"
        )
    return found


def load_weights(model: nn.Module, folder: Path, assign: bool = False) -> None:
    """Loads model.safetensors into the model.

    assign: replace the model's parameters instead of copying into them, as PyTorch's
    `load_state_dict` does. Raises `MelanomaError` when the file cannot be read or does not fit.
    """
    path = folder / "model.safetensors"
    try:
        model.load_state_dict(load_file(path), assign=assign)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MelanomaError(
            f"{path} cannot be loaded: {reason}; move {folder} away to train again"
        ) from None
