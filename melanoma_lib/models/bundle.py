"""The bundle: a trained model with everything needed to use it, in one folder."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import read_json, sha256, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.models.build import build_model
from melanoma_lib.models.out_of_distribution import ReferenceSet, save_reference_set

SCHEMA = 2
FACTS = {  # what must be in bundle.json, and what must be true of it
    "architecture": lambda value: isinstance(value, str),
    "class_names": lambda value: value == list(CLASS_NAMES),
    "image_size": lambda value: isinstance(value, int) and value > 0,
    "mean": lambda value: isinstance(value, list) and len(value) == 3,
    "std": lambda value: isinstance(value, list) and len(value) == 3 and min(value) > 0,
    "temperature": lambda value: isinstance(value, float | int) and value > 0,
    "operating_points": lambda value: isinstance(value, list),
    "weights_sha256": lambda value: isinstance(value, str),
    "known_limit": lambda value: isinstance(value, float | int) and value > 0,
    "known_sha256": lambda value: isinstance(value, str),
}


def save_bundle(folder: Path, known: ReferenceSet, **facts: object) -> None:
    """Writes bundle.json and what the model knows (see `familiar`) beside model.safetensors.

    `facts`: architecture, class_names, image_size, mean, std, temperature, operating_points,
    generated (whether the model knows only generated pictures).
    """
    weights = sha256(folder / "model.safetensors")
    own = {"schema": SCHEMA, "weights_sha256": weights, **save_reference_set(folder, known)}
    write_json(folder / "bundle.json", own | facts)


def load_bundle(folder: Path | str) -> tuple[nn.Module, dict]:
    """The trained model, ready to predict, and its facts.

    Raises `MelanomaError` when the folder holds no bundle, one of another schema, or weights
    that are not those the bundle was written with.
    """
    folder = Path(folder)
    facts = read_json(folder / "bundle.json")
    if facts.get("schema") != SCHEMA:
        raise MelanomaError(
            f"{folder} holds a bundle of another version; train again: the same "
            "command keeps the weights and renews the bundle"
        )
    wrong = [name for name, holds in FACTS.items() if not holds(facts.get(name))]
    if wrong:
        raise MelanomaError(f"{folder / 'bundle.json'}: missing or wrong: {summarize_items(wrong)}")
    if sha256(folder / "model.safetensors") != facts["weights_sha256"]:
        raise MelanomaError(f"{folder}: model.safetensors is not the file of its bundle.json")
    network = facts["architecture"], len(facts["class_names"]), facts["image_size"]
    with torch.device("meta"):  # without memory: no weights are drawn that the file replaces
        model = build_model(*network)
    if {name for name, _ in model.named_buffers()} - set(model.state_dict()):
        model = build_model(*network)  # what no file holds has to be computed
    load_weights(model, folder, assign=True)
    return model.to(memory_format=torch.channels_last).eval(), facts


def find_bundles(folder: Path | str) -> list[Path]:
    """The folder itself if it holds a bundle, or else those in it that do.

    Raises `MelanomaError` that says what to run when there are none.
    """
    folder = Path(folder)
    if (folder / "bundle.json").exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/bundle.json"))
    if not found:
        raise MelanomaError(
            f"there is no trained model in {folder}; train first, on HAM10000 with `melanoma run` "
            "or on generated pictures with `melanoma run --preset sample`, and name the folder of "
            "the run, or one in it, with --bundle, for example runs/sample/resnet50"
        )
    return found


def find_bundle(folder: Path | str) -> Path:
    """The only one of `find_bundles`. Raises `MelanomaError` naming them when there are more."""
    found = find_bundles(folder)
    if len(found) > 1:
        raise MelanomaError(f"--bundle must name one of {summarize_items(found)}")
    return found[0]


def load_weights(model: nn.Module, folder: Path, assign: bool = False) -> None:
    """Reads model.safetensors into the model, or makes the file's own tensors its weights.

    Raises `MelanomaError` when they do not fit.
    """
    path = folder / "model.safetensors"
    try:
        model.load_state_dict(load_file(path), assign=assign)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MelanomaError(
            f"{path} cannot be loaded: {reason}; move {folder} away to train again"
        ) from None
