"""The commands `export` and `card`: a trained model for others."""

import argparse
from pathlib import Path

from melanoma_lib.cli.options import add_dataset_options


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the two commands to the parser."""
    file = commands.add_parser("export", help="a trained model as one ONNX file")
    file.add_argument("file", metavar="FILE", help="what is written, for example model.onnx")
    add_dataset_options(file, "; default: where the run had it")
    file.set_defaults(command=export)
    page = commands.add_parser("card", help="the model card of a trained model")
    page.add_argument("--output-dir", metavar="DIR", help="default: the model's folder")
    page.set_defaults(command=card)
    for parser in (file, page):
        parser.add_argument(
            "--bundle", required=True, metavar="DIR",
            help="a trained model's folder, or a run's, whose model with the best validation "
            "melanoma AUC is used",
        )  # fmt: skip


def export(options: argparse.Namespace) -> None:
    """`melanoma export`: writes the file, and says how closely it agrees with the bundle."""
    from melanoma_lib.config import Config
    from melanoma_lib.core.files import read_json
    from melanoma_lib.data.dataset_files import open_dataset
    from melanoma_lib.inference import best_bundle
    from melanoma_lib.inference.export import export_onnx

    folder = best_bundle(options.bundle)
    config = Config.from_json(read_json(folder / "run.json")["config"])
    places = (options.data_dir, options.metadata, options.img_dir)
    files = open_dataset(
        *(given or "" for given in places) if any(places)
        else (config.data_dir, config.metadata, config.img_dir)
    )  # fmt: skip
    difference = export_onnx(folder, Path(options.file), files)
    print(f"{options.file}: probabilities as those of {folder}, within {difference:.1g} on test")


def card(options: argparse.Namespace) -> None:
    """`melanoma card`: writes README.md and two figures."""
    from melanoma_lib.inference import best_bundle
    from melanoma_lib.reporting.card import write_card

    folder = best_bundle(options.bundle)
    print(write_card(folder, Path(options.output_dir or folder)))
