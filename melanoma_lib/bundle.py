"""The bundle: a trained model with everything needed to use it, in one folder."""

from pathlib import Path

from torch import nn

from melanoma_lib.artifacts import MelanomaError, read_json, sha256, write_json
from melanoma_lib.models import build_model
from melanoma_lib.training import load_weights

SCHEMA = 1


def save_bundle(folder: Path, **facts: object) -> None:
    """Writes bundle.json beside model.safetensors.

    `facts`: architecture, class_names, image_size, mean, std, temperature, operating_points,
    generated (whether the model knows only generated pictures).
    """
    weights = sha256(folder / "model.safetensors")
    write_json(folder / "bundle.json", {"schema": SCHEMA, "weights_sha256": weights, **facts})


def load_bundle(folder: Path | str) -> tuple[nn.Module, dict]:
    """The trained model, ready to predict, and its facts.

    Raises `MelanomaError` when the folder holds no bundle, one of another schema, or weights
    that are not those the bundle was written with.
    """
    folder = Path(folder)
    facts = read_json(folder / "bundle.json")
    if facts.get("schema") != SCHEMA:
        raise MelanomaError(f"{folder} holds a bundle of another version; train again")
    if sha256(folder / "model.safetensors") != facts["weights_sha256"]:
        raise MelanomaError(f"{folder}: model.safetensors is not the file of its bundle.json")
    model = build_model(facts["architecture"], len(facts["class_names"]), facts["image_size"])
    load_weights(model, folder)
    return model.eval(), facts
