"""The commands `export`, `card` and `push`: a trained model for others."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from melanoma_lib.cli.options import add_dataset_options


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the three commands to the parser."""
    file = commands.add_parser("export", help="a trained model as one ONNX file")
    file.add_argument("file", metavar="FILE", help="what is written, for example model.onnx")
    file.set_defaults(command=export)
    page = commands.add_parser("card", help="the model card of a trained model")
    page.add_argument("--output-dir", metavar="DIR", help="default: the model's folder")
    page.set_defaults(command=card)
    upload = commands.add_parser("push", help="a trained model to the Hugging Face Hub")
    upload.add_argument("repository", metavar="OWNER/NAME", help="on the hub")
    upload.add_argument("--public", action="store_true", help="for everybody; default: private")
    upload.add_argument("--yes", action="store_true", help="do not ask before it becomes public")
    upload.set_defaults(command=push, resumes=True)
    for parser in (file, page, upload):
        parser.add_argument(
            "--bundle", required=True, metavar="DIR",
            help="a trained model's folder, or a run's, whose model with the best validation "
            "melanoma AUC is used",
        )  # fmt: skip
    for parser in (file, upload):
        add_dataset_options(parser, "; default: where the run had it")


def export(options: argparse.Namespace) -> None:
    """`melanoma export`: writes the file, and says how closely it agrees with the bundle."""
    from melanoma_lib.inference import best_bundle

    folder = best_bundle(options.bundle)
    difference = _export(folder, Path(options.file), options)
    print(f"{options.file}: probabilities as those of {folder}, within {difference:.1g} on test")


def card(options: argparse.Namespace) -> None:
    """`melanoma card`: writes README.md and two figures."""
    from melanoma_lib.inference import best_bundle
    from melanoma_lib.reporting.card import write_card

    folder = best_bundle(options.bundle)
    print(write_card(folder, Path(options.output_dir or folder)))


def push(options: argparse.Namespace) -> None:
    """`melanoma push`: uploads the bundle, an ONNX file, card, figures and split."""
    from melanoma_lib.inference import best_bundle
    from melanoma_lib.models.hub import upload

    folder = best_bundle(options.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        _gather(folder, Path(scratch), options)
        print(upload(Path(scratch), options.repository, options.public,
                     lambda name: options.yes or _confirm(name)))  # fmt: skip


def _export(folder: Path, file: Path, options: argparse.Namespace) -> float:
    """Exports a trained model, compared on the dataset of its run or the one that is named."""
    from melanoma_lib.config import Config
    from melanoma_lib.core.files import read_json
    from melanoma_lib.data.dataset_files import open_dataset
    from melanoma_lib.inference.export import export_onnx

    config = Config.from_json(read_json(folder / "run.json")["config"])
    places = [getattr(options, name) or "" for name in ("data_dir", "metadata", "img_dir")]
    if not any(places):
        places = [config.data_dir, config.metadata, config.img_dir]
    return export_onnx(folder, file, open_dataset(*places))


def _gather(folder: Path, target: Path, options: argparse.Namespace) -> None:
    """What is uploaded, as a run's folder with one model; no image of a patient is among it."""
    from melanoma_lib.config import Config
    from melanoma_lib.core.files import read_json
    from melanoma_lib.models.hub import BUNDLE_FILES
    from melanoma_lib.reporting.card import write_card
    from melanoma_lib.reporting.figures import PLOTS

    (target / folder.name).mkdir()
    write_card(folder, target)
    _export(folder, target / "model.onnx", options)
    for name in BUNDLE_FILES:
        shutil.copy(folder / name, target / folder.name)
    shutil.copy(folder.parent / "split.csv", target)
    drawn = Config.from_json(read_json(folder / "run.json")["config"]).figures
    (target / "figures").mkdir()
    for name in PLOTS:  # those that are drawn from numbers alone
        for figure in drawn.glob(f"{name}*.png"):
            shutil.copy(figure, target / "figures")


def _confirm(repository: str) -> bool:
    """Asks on the terminal; where there is none, the answer is no."""
    if not sys.stdin.isatty():
        print(f"melanoma: {repository} would be public; say so with --yes", file=sys.stderr)
        return False
    return input(f"Everybody will be able to read {repository}. Type its name: ") == repository
