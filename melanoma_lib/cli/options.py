"""Options that several commands have, and the configuration they ask for."""

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path

from melanoma_lib.config import (
    PATHS,
    PRECISIONS,
    PRESETS,
    PROTOCOLS,
    SAMPLE_DIR,
    Config,
    parse_operating_points,
    preset,
)
from melanoma_lib.core.errors import MelanomaError


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Where the dataset lies."""
    group = parser.add_argument_group("dataset")
    group.add_argument("--data-dir", metavar="DIR", help="folder with the table and the images")
    group.add_argument("--metadata", metavar="FILE", help="the table, if it lies elsewhere")
    group.add_argument("--img-dir", metavar="DIR", help="the images, if they lie elsewhere")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Everything that `configuration` reads."""
    parser.add_argument(
        "--preset", choices=PRESETS, default="thesis",
        help="thesis (default): HAM10000 and the full recipe; sample: generated pictures, minutes",
    )
    add_dataset_options(parser)
    group = parser.add_argument_group("run")
    group.add_argument("--output-dir", metavar="DIR", help="the run's folder")
    group.add_argument("--figures-dir", metavar="DIR", help="default: figures/<name of the run>")
    group.add_argument("--architectures", nargs="+", metavar="NAME", help="ours, or any of timm's")
    group.add_argument("--split", choices=PROTOCOLS, help="lesion (default) or image (optimistic)")
    group.add_argument(
        "--other-split", metavar="DIR",
        help="a run on the other split; chapter 08 then shows the price of leakage",
    )
    group.add_argument("--epochs", type=int)
    group.add_argument("--batch-size", type=int)
    group.add_argument("--image-size", type=int, metavar="PIXELS")
    group.add_argument("--learning-rate", type=float)
    group.add_argument("--seed", type=int)
    group.add_argument(
        "--weights", action="append", default=[], metavar="NAME=FILE",
        help="ImageNet weights of an architecture from a file instead of timm's hub",
    )
    group.add_argument(
        "--no-pretrained", dest="pretrained", action="store_false", default=None,
        help="start from random weights",
    )
    group.add_argument(
        "--operating-points", nargs="+", metavar="RATE=TARGET",
        help="what melanoma thresholds must reach on validation, for example specificity=0.95",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one")
    group.add_argument(
        "--precision", choices=PRECISIONS,
        help="of training; auto (default) is bfloat16 where the device computes in it natively",
    )


def configuration(options: argparse.Namespace) -> Config:
    """The configuration that the arguments ask for."""
    given = {name: getattr(options, name, None) for name in Config.__dataclass_fields__}
    for name in PATHS:
        if given[name]:
            given[name] = str(Path(given[name]).expanduser().resolve())
    if given["architectures"]:
        names = [name for text in given["architectures"] for name in text.split(",") if name]
        given["architectures"] = tuple(dict.fromkeys(names))
    if given["operating_points"]:
        given["operating_points"] = parse_operating_points(given["operating_points"])
    weights = parse_name_values(given["weights"], "--weights")
    given["weights"] = {
        name: str(Path(file).expanduser().resolve()) for name, file in weights.items()
    }
    if given["img_dir"] and given["metadata"] and not given["data_dir"]:
        given["data_dir"] = ""
    return preset(options.preset, **given)


def parse_name_values(texts: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary; raises `MelanomaError` for anything else."""
    pairs = dict(text.partition("=")[::2] for text in texts)
    if not all(pairs) or not all(pairs.values()):
        raise MelanomaError(f"{flag} wants NAME=VALUE, not {' '.join(texts)}")
    return pairs


def notebook_parameters(options: argparse.Namespace) -> dict[str, object]:
    """What `-p` sets, each value as a number or another literal if it is one."""
    given = parse_name_values(options.parameter, "-p")
    return {name: _scalar(text) for name, text in given.items()}


def _scalar(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError):
        return text


def open_configured_dataset(config: Config):
    """Opens and checks the dataset of a run; generates the sample if it is asked for."""
    from melanoma_lib.data.dataset_files import open_dataset
    from melanoma_lib.data.synthetic import generate_sample

    if config.data_dir == str(SAMPLE_DIR):
        generate_sample(SAMPLE_DIR)  # returns at once where it is complete
    return open_dataset(config.data_dir, config.metadata, config.img_dir)
