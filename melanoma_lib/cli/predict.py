"""The commands `predict` and `serve`."""

import argparse
import json
import sys
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.files import write_csv
from melanoma_lib.core.progress import progress


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the two commands to the parser."""
    one = commands.add_parser("predict", help="what a trained model makes of pictures")
    one.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, or folders of them")
    one.add_argument("--json", action="store_true", help="for programs")
    one.add_argument("--csv", metavar="FILE", help="a table too")
    one.add_argument("--overlay-dir", metavar="DIR", help="Grad-CAM heat maps as pictures too")
    one.set_defaults(command=predict)
    page = commands.add_parser("serve", help="the same as a web page")
    page.add_argument(
        "--host", default="127.0.0.1", help="default: this machine; any other needs "
        "MELANOMA_USER and MELANOMA_PASSWORD in the environment"
    )
    page.add_argument("--port", type=int, default=7860)
    page.set_defaults(command=serve)
    for parser in (one, page):
        parser.add_argument(
            "--bundle", metavar="DIR", default=Config().output_dir,
            help="a trained model's folder, or a run's, whose model with the best validation "
            "melanoma AUC is used; default: runs/thesis",
        )
        parser.add_argument("--operating-point", metavar="NAME", default="",
                            help="for example sensitivity_95; default: specificity_95")


def predict(options: argparse.Namespace) -> int:
    """`melanoma predict`: a line for each image; returns 1 if some could not be read."""
    from melanoma_lib.inference import Predictor, best_bundle, list_images, predict_files, wording

    predictor = Predictor(best_bundle(options.bundle))
    point, paths = predictor.operating_point(options.operating_point), list_images(options.images)
    overlay_dir = Path(options.overlay_dir) if options.overlay_dir else None
    results = predict_files(predictor, paths, point["name"], overlay_dir)
    rows = list(progress(results, "predicting", total=len(paths)))
    good, bad = ([row for row in rows if ("error" in row) == failed] for failed in (False, True))
    if options.csv:
        write_csv(options.csv, [wording.csv_row(row) for row in rows], wording.CSV_COLUMNS)
    if options.json:
        model = {"model": predictor.name, "bundle": str(predictor.folder), "note": predictor.note}
        document = model | {"notice": wording.DISCLAIMER, "operating_point": point, "images": rows}
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        lines = [wording.model_text(predictor, point), *map(wording.prediction_text, good)]
        print("\n".join(lines))
    for row in bad:
        print(f"melanoma: {row['error']}", file=sys.stderr)
    return 1 if bad else 0


def serve(options: argparse.Namespace) -> None:
    """`melanoma serve`: the web page."""
    from melanoma_lib.inference import Predictor, best_bundle

    predictor = Predictor(best_bundle(options.bundle))
    from melanoma_lib.inference import app  # slow to import: not before a bundle is found

    app.serve(predictor, options.host, options.port, options.operating_point)
