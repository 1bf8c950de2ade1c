"""The commands `predict` and `serve`."""

import argparse
import json
import sys
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.files import csv_writer
from melanoma_lib.core.progress import progress


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the two commands to the parser."""
    one = commands.add_parser("predict", help="predict pictures with a trained model")
    one.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures, folders of them, or - for stdin"
    )
    one.add_argument("--json", action="store_true", help="one document for programs, at the end")
    one.add_argument("--csv", metavar="FILE", help="a table too")
    one.add_argument("--overlay-dir", metavar="DIR", help="Grad-CAM heat maps as pictures too")
    one.set_defaults(command=predict)
    page = commands.add_parser("serve", help="the same as a web page")
    page.add_argument(
        "--host", default="127.0.0.1", help="any but this machine's own needs MELANOMA_USER and "
        "MELANOMA_PASSWORD in the environment; default: %(default)s"
    )
    page.add_argument("--port", type=int, default=7860, help="default: %(default)s")
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
    """`melanoma predict`: a line an image, when it is ready; returns 1 if some cannot be read."""
    from tqdm import tqdm

    from melanoma_lib.inference import Predictor, best_bundle, list_images, predict_files, wording

    predictor = Predictor(best_bundle(options.bundle))
    point = predictor.operating_point(options.operating_point)
    paths, unreadable = list_images(options.images)
    overlay_dir = Path(options.overlay_dir) if options.overlay_dir else None
    if overlay_dir:
        overlay_dir.mkdir(parents=True, exist_ok=True)
    failed = [{"image": "", "error": problem} for problem in unreadable]
    results = chain(failed, predict_files(predictor, paths, point["name"], overlay_dir))
    columns = wording.CSV_COLUMNS
    table = csv_writer(options.csv, columns) if options.csv else nullcontext(lambda row: None)
    rows, stopped = [], None
    with table as write_row:
        try:
            if not options.json:
                print(wording.model_text(predictor, point), flush=True)
            for row in progress(results, "predicting", total=len(paths)):
                rows.append(row)
                write_row(wording.csv_row(row))
                if "error" in row:
                    tqdm.write(f"melanoma: {row['error']}", sys.stderr)
                elif not options.json:
                    tqdm.write(wording.prediction_text(row))  # above the progress bar
                    sys.stdout.flush()
        except (KeyboardInterrupt, BrokenPipeError) as error:
            stopped = error  # and the table keeps what is done
    if options.json:
        document = wording.json_document(predictor, point, rows)
        print(json.dumps(document, indent=2, allow_nan=False))
    if stopped:
        kept = f"; {options.csv} holds them" if options.csv else ""
        print(f"melanoma: {len(rows)} of {len(paths)} images are done{kept}", file=sys.stderr)
        raise stopped
    return int(any("error" in row for row in rows))


def serve(options: argparse.Namespace) -> None:
    """`melanoma serve`: the web page. Address and password are checked before a model is loaded."""
    from melanoma_lib.inference import security

    host = options.host.strip("[]")  # around an address of IPv6
    login = security.credentials(host)
    with security.listen(host, options.port) as listener:
        from melanoma_lib.inference import app, load_predictors

        predictors = load_predictors(options.bundle)
        site = app.WebPage(predictors, options.operating_point, login and security.Login(*login))
        app.serve(site, listener)
