"""The command `refer`: whether trained models refer the images that they are least certain of."""

import argparse
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import write_json


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "refer", help="let models refer their least certain images to a doctor"
    )
    parser.add_argument(
        "--bundle", metavar="DIR", default=Config().output_dir,
        help="a trained model's folder, or a run's with all its models; default: runs/thesis",
    )
    parser.add_argument(
        "--fraction", type=float, default=0.2, metavar="X",
        help="how much of the validation split to refer, the least certain first; 0: refer nobody; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--order", default="confidence", metavar="NAME",
        help="measure of uncertainty: confidence, margin or entropy; default: %(default)s",
    )
    parser.set_defaults(command=refer)


def refer(options: argparse.Namespace) -> None:
    """`melanoma refer`: writes the threshold into bundle.json, and says what it does on test."""
    from melanoma_lib.evaluation.abstention import choose_referral
    from melanoma_lib.evaluation.trained_run import load_trained_run
    from melanoma_lib.inference import Predictor, wording
    from melanoma_lib.models.bundle import find_bundles
    from melanoma_lib.models.hub import PREFIX

    if options.bundle.startswith(PREFIX):
        raise MelanomaError("a model of the hub cannot be changed; copy its folder first")
    folders = find_bundles(options.bundle)
    chosen = {}
    for folder in folders:  # all of them before any is written
        _, bundle, predictions = load_trained_run(folder)
        chosen[folder] = {name: value for name, value in bundle.items() if name != "referral"}
        if options.fraction:
            referral = choose_referral(
                predictions.split("val"), bundle["temperature"], options.order, options.fraction
            )
            chosen[folder]["referral"] = referral
    for folder, bundle in chosen.items():
        write_json(Path(folder) / "bundle.json", bundle)
        predictor = Predictor(folder)
        text = wording.referral_text(predictor.operating_point())
        print(f"{predictor.name}: {text or 'refers no image.'}", flush=True)
