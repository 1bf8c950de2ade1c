"""Options that several commands have, and the configuration they ask for."""

import argparse
import ast
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from melanoma_lib.config import (
    PATHS,
    PRECISIONS,
    PRESETS,
    PROTOCOLS,
    RECIPES,
    SAMPLE_DIR,
    Config,
    format_operating_points,
    parse_operating_points,
    preset,
)
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the known word that is nearest to a wrong one."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        wrong = re.search(r"(?:choice: '|unrecognized arguments: )([^\s'=]+)", message)
        known = re.findall(r"[\w-]+", message.partition("choose from")[2] + self.format_usage())
        near = wrong and difflib.get_close_matches(wrong[1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; {hint}\n")

    def parse_known_args(self, *arguments, **options) -> tuple[argparse.Namespace, list[str]]:
        """Refuses what is unknown here, where it is known which command it was given to."""
        namespace, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown


def add_dataset_options(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Where the dataset lies; `default` is what the help says of the folder's default."""
    group = parser.add_argument_group("dataset")
    group.add_argument(
        "--data-dir", metavar="DIR", help="folder with the table and the images" + default
    )
    group.add_argument("--metadata", metavar="FILE", help="the table, if it lies elsewhere")
    group.add_argument("--img-dir", metavar="DIR", help="the images, if they lie elsewhere")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Everything that `configuration` reads."""
    parser.add_argument(
        "--preset", choices=PRESETS, default="thesis",
        help="thesis: HAM10000 and the full recipe; sample: generated pictures, minutes; "
        "default: %(default)s",
    )
    add_dataset_options(parser, _default_of("data_dir"))
    group = parser.add_argument_group("run")
    for name, settings in RUN_OPTIONS.items():
        action = group.add_argument(f"--{name.replace('_', '-')}", **settings)
        action.help += _default_of(name)
    group.add_argument(
        "--no-pretrained", dest="pretrained", action="store_false", default=None,
        help="start from random weights instead of ImageNet's",
    )


def add_parameter_option(parser: argparse.ArgumentParser) -> None:
    """What `notebook_parameters` reads."""
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE",
        help="another notebook parameter, for every notebook that has it",
    )


RUN_OPTIONS = {  # fields of Config
    "output_dir": {"metavar": "DIR", "help": "the run's folder"},
    "figures_dir": {"metavar": "DIR", "help": "of its figures; default: figures/<name of the run>"},
    "architectures": {"nargs": "+", "metavar": "NAME", "help": "of the recipe, or any of timm's"},
    "split": {"choices": PROTOCOLS, "help": "by lesion, or by image, which is optimistic"},
    "other_split": {
        "metavar": "DIR",
        "help": "a run on the other split; chapter 08 then shows the price of leakage",
    },
    "recipe": {
        "choices": RECIPES,
        "help": "how weights are found: the thesis's way, or a faster one (chapter 12)",
    },
    "epochs": {"type": int, "metavar": "N", "help": "passes through the training split"},
    "batch_size": {"type": int, "metavar": "N", "help": "images in a step of training"},
    "image_size": {"type": int, "metavar": "PIXELS", "help": "side of the images"},
    "learning_rate": {"type": float, "metavar": "RATE", "help": "of Adam or AdamW, at its highest"},
    "seed": {"type": int, "metavar": "N", "help": "of the split"},
    "training_seed": {"type": int, "metavar": "N", "help": "of the first training"},
    "trainings": {
        "type": int, "metavar": "K",
        "help": "of each architecture, with consecutive training seeds",
    },
    "weights": {
        "action": "append", "default": [], "metavar": "NAME=FILE",
        "help": "ImageNet weights of an architecture from a file instead of timm's hub",
    },
    "operating_points": {
        "nargs": "+", "metavar": "RATE=TARGET",
        "help": "what melanoma thresholds must reach on validation",
    },
    "device": {"help": "cpu, cuda, cuda:1 or auto, a GPU if there is one"},
    "precision": {
        "choices": PRECISIONS,
        "help": "of training; auto is bfloat16 where the device computes in it natively",
    },
}  # fmt: skip


def _default_of(name: str) -> str:
    """What a help text says of the default of a field of Config, which may differ by preset."""
    values = [getattr(Config(**changes), name) for changes in PRESETS.values()]
    if name == "operating_points":
        values = [format_operating_points(value).split(",") for value in values]
    usual, sample = (
        " ".join(value) if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value).removeprefix(f"{PROJECT}/")
        for value in values
    )  # fmt: skip
    other = f" ({sample} with --preset sample)" if sample != usual else ""
    return f"; default: {usual}{other}" if values[0] else ""


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
