"""The commands `data download`, `data sample` and `data check`."""

import argparse
from pathlib import Path

from melanoma_lib.cli.options import add_dataset_options
from melanoma_lib.config import SAMPLE_DIR
from melanoma_lib.core.errors import MelanomaError


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its three actions to the parser."""
    data = commands.add_parser("data", help="fetch, make or check a dataset")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("download", help="fetch and unpack the official files")
    fetch.add_argument("folder", nargs="?", metavar="DIR", help="default: data/ham10000")
    fetch.add_argument(
        "--parts", nargs="+", choices=("table", "images", "masks"), metavar="PART",
        default=("table", "images", "masks"), help="of table, images, masks; default: all",
    )
    fetch.add_argument(
        "--test", action="store_true",
        help="the test set of ISIC 2018 task 3 instead, into data/isic2018_test",
    )
    fetch.add_argument(
        "--from", dest="by_hand", default="", metavar="DIR", help="files fetched by hand lie here"
    )
    fetch.set_defaults(command=download, resumes=True)
    made = actions.add_parser("sample", help="generate the sample dataset")
    made.add_argument("folder", nargs="?", metavar="DIR", default=str(SAMPLE_DIR),
                      help="default: data/sample")
    made.add_argument("--seed", type=int, metavar="N", default=42, help="default: %(default)s")
    made.add_argument(
        "--shortcut", metavar="WHAT", default="",
        help="ruler, hairs, dark_corners or ink: melanomas show it in training and validation, and "
        "half of all images in the test split",
    )
    made.set_defaults(command=generate)
    checked = actions.add_parser("check", help="check a dataset and count what is in it")
    checked.add_argument("folder", nargs="?", metavar="DIR", help="the same as --data-dir")
    add_dataset_options(checked)
    checked.set_defaults(command=check)


def generate(options: argparse.Namespace) -> None:
    """`melanoma data sample`: generates the sample dataset."""
    from melanoma_lib.data.synthetic import generate_sample

    print(generate_sample(options.folder, options.seed, options.shortcut))


def download(options: argparse.Namespace) -> None:
    """`melanoma data download`: the official files."""
    from melanoma_lib.data import download

    dataset = "isic2018_test" if options.test else "ham10000"
    folder = Path(options.folder or SAMPLE_DIR.with_name(dataset))
    download.download(folder, dataset, options.parts, options.by_hand)
    print(folder)


def check(options: argparse.Namespace) -> None:
    """`melanoma data check`: counts what is there and lists what is wrong."""
    from melanoma_lib.data.validate import validate_dataset

    folder = options.folder or options.data_dir
    folder = folder or ("" if options.img_dir and options.metadata else ".")
    report, problems = validate_dataset(folder, options.metadata or "", options.img_dir or "")
    print(report)
    if problems:
        raise MelanomaError(f"this would stop a run: {'; '.join(problems)}")
