"""The command `export`: a trained model as a file that needs neither this project nor PyTorch."""

import argparse
from pathlib import Path

from melanoma_lib.cli.options import add_dataset_options


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("export", help="a trained model as one ONNX file")
    parser.add_argument("file", metavar="FILE", help="what is written, for example model.onnx")
    parser.add_argument(
        "--bundle", required=True, metavar="DIR",
        help="a trained model's folder, or a run's, whose model with the best validation melanoma "
        "AUC is used",
    )  # fmt: skip
    add_dataset_options(parser, "; default: where the run had it")
    parser.set_defaults(command=export)


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
