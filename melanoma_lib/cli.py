"""The command `melanoma`: reads arguments, calls the library, prints errors as one line."""

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from melanoma_lib import __version__
from melanoma_lib.config import (
    PRECISIONS,
    PRESETS,
    PROTOCOLS,
    SAMPLE_DIR,
    Config,
    parse_operating_points,
    preset,
)
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import write_csv
from melanoma_lib.core.progress import progress
from melanoma_lib.training.callbacks import TRACKERS, listening

ROOM_FOR_TWO = 30e9  # bytes of a GPU's memory: two notebooks were seen to take 29.3e9

# The library's modules are imported where they are used: torch takes seconds, --help none.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    0, 1 when some pictures could not be read, 2 for bad input, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except MelanomaError as error:
        print(f"melanoma: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder one may not write to
        print(f"melanoma: {error}; nothing that was finished is lost", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nmelanoma: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="melanoma", description="A thesis that can be run.")
    parser.add_argument("--version", action="version", version=f"melanoma {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute the notebooks in order: every figure and table")
    _add_configuration(run)
    run.add_argument(
        "--jobs", type=int, metavar="N",
        help="notebooks side by side; default: one for each of --devices, two on one large GPU, "
        "one on a small one, or else one a core, at most four",
    )
    run.add_argument(
        "--devices", metavar="N,N", help="GPUs by number; each architecture is trained on one"
    )
    run.set_defaults(command=_run)

    train = commands.add_parser("train", help="train one architecture, without the notebooks")
    train.add_argument("architecture", help="one of the four, or any timm model name")
    _add_configuration(train)
    train.set_defaults(command=_train)
    for parser_of_training in (run, train):
        group = parser_of_training.add_argument_group("listeners")
        group.add_argument("--track", choices=TRACKERS, help="metrics of every epoch there too")
        group.add_argument(
            "--notify", metavar="URL",
            help="tell an address of apprise of new bests, failure and the end; or MELANOMA_NOTIFY",
        )

    status = commands.add_parser(
        "status", help="what is done, what runs, how long it will take; without options, every run"
    )
    _add_configuration(status)
    status.add_argument("--thesis", action="store_true", help="by section of the thesis instead")
    for parser_of_batch in (run, status):
        parser_of_batch.add_argument(
            "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE",
            help="another notebook parameter, for every notebook that has it",
        )
    status.set_defaults(command=_status)

    _add_evaluate(commands)
    _add_pages(commands)
    _add_one_image(commands)
    _add_data(commands)
    return parser


def _add_pages(commands: argparse._SubParsersAction) -> None:
    page = commands.add_parser("figures", help="redraw a run for a document, without training")
    page.add_argument("--results", required=True, metavar="FILE", help="comparison_results.json")
    page.add_argument("--output-dir", required=True, metavar="DIR", help="figures, figures.tex")
    page.add_argument("--width", type=float, default=16, metavar="CM", help="default: 16")
    page.add_argument("--font-size", type=float, default=8, metavar="PT", help="default: 8")
    page.add_argument("--metadata", metavar="FILE", help="the dataset's table, for its figures")
    page.add_argument(
        "--figures-dir", metavar="DIR", help="the run's figures, for what needs images or models"
    )
    page.set_defaults(command=_figures)

    site = commands.add_parser("site", help="a run's executed notebooks as web pages")
    site.add_argument("--output-dir", default=Config().output_dir, metavar="DIR", help="the run")
    site.add_argument("--site-dir", metavar="DIR", help="default: the folder site in the run")
    site.set_defaults(command=_site)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    test = commands.add_parser("evaluate", help="a trained run on images from elsewhere")
    test.add_argument(
        "--bundle", required=True, metavar="DIR", help="a run's folder, or one architecture's in it"
    )
    _add_dataset(test)
    test.add_argument("--output-dir", metavar="DIR", help="default: external/<dataset> in the run")
    test.add_argument("--batch-size", type=int, default=Config().batch_size)
    test.add_argument("--device", default=Config().device)
    test.set_defaults(command=_evaluate)


def _add_one_image(commands: argparse._SubParsersAction) -> None:
    predict = commands.add_parser("predict", help="what a trained model makes of pictures")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, or folders of them")
    predict.add_argument("--json", action="store_true", help="for programs")
    predict.add_argument("--csv", metavar="FILE", help="a table too")
    predict.add_argument("--overlay-dir", metavar="DIR", help="Grad-CAM heat maps as pictures too")
    predict.set_defaults(command=_predict)
    serve = commands.add_parser("serve", help="the same as a web page")
    serve.add_argument(
        "--host", default="127.0.0.1", help="default: this machine; any other needs "
        "MELANOMA_USER and MELANOMA_PASSWORD in the environment"
    )
    serve.add_argument("--port", type=int, default=7860)
    serve.set_defaults(command=_serve)
    for parser in (predict, serve):
        parser.add_argument(
            "--bundle", metavar="DIR", default=Config().output_dir,
            help="a trained model's folder, or a run's, whose model with the best validation "
            "melanoma AUC is used; default: runs/thesis",
        )
        parser.add_argument("--operating-point", metavar="NAME", default="",
                            help="for example sensitivity_95; default: specificity_95")


def _add_data(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="fetch, make or check a dataset")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    download = actions.add_parser("download", help="fetch and unpack the official files")
    download.add_argument("folder", nargs="?", metavar="DIR", help="default: data/ham10000")
    download.add_argument(
        "--parts", nargs="+", choices=("table", "images", "masks"), metavar="PART",
        default=("table", "images", "masks"), help="of table, images, masks; default: all",
    )
    download.add_argument(
        "--test", action="store_true",
        help="the test set of ISIC 2018 task 3 instead, into data/isic2018_test",
    )
    download.add_argument(
        "--from", dest="by_hand", default="", metavar="DIR", help="files fetched by hand lie here"
    )
    download.set_defaults(command=_data_download)
    sample = actions.add_parser("sample", help="generate the sample dataset")
    sample.add_argument("folder", nargs="?", default=str(SAMPLE_DIR))
    sample.add_argument("--seed", type=int, default=42)
    sample.set_defaults(command=_data_sample)
    check = actions.add_parser("check", help="check a dataset and count what is in it")
    check.add_argument("folder", nargs="?", metavar="DIR", help="the same as --data-dir")
    _add_dataset(check)
    check.set_defaults(command=_data_check)


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("dataset")
    group.add_argument("--data-dir", metavar="DIR", help="folder with the table and the images")
    group.add_argument("--metadata", metavar="FILE", help="the table, if it lies elsewhere")
    group.add_argument("--img-dir", metavar="DIR", help="the images, if they lie elsewhere")


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", choices=PRESETS, default="thesis",
        help="thesis (default): HAM10000 and the full recipe; sample: generated pictures, minutes",
    )
    _add_dataset(parser)
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


def _pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if not all(pairs) or not all(pairs.values()):
        raise MelanomaError(f"{flag} wants NAME=VALUE, not {' '.join(texts)}")
    return pairs


def configuration(options: argparse.Namespace) -> Config:
    """The configuration that the arguments ask for."""
    given = {name: getattr(options, name, None) for name in Config.__dataclass_fields__}
    for name in ("data_dir", "metadata", "img_dir", "output_dir", "figures_dir", "other_split"):
        if given[name]:
            given[name] = str(Path(given[name]).expanduser().resolve())
    if given["architectures"]:
        names = [name for text in given["architectures"] for name in text.split(",") if name]
        given["architectures"] = tuple(dict.fromkeys(names))
    if given["operating_points"]:
        given["operating_points"] = parse_operating_points(given["operating_points"])
    weights = _pairs(given["weights"], "--weights")
    given["weights"] = {
        name: str(Path(file).expanduser().resolve()) for name, file in weights.items()
    }
    if given["img_dir"] and given["metadata"] and not given["data_dir"]:
        given["data_dir"] = ""
    return preset(options.preset, **given)


def _ready(config: Config):
    """Checks the dataset; the sample is generated where it is meant and not there yet."""
    from melanoma_lib.data.dataset_files import open_dataset
    from melanoma_lib.data.synthetic import generate_sample

    if config.data_dir == str(SAMPLE_DIR):
        generate_sample(SAMPLE_DIR)  # returns at once where it is complete
    return open_dataset(config.data_dir, config.metadata, config.img_dir)


def _run(options: argparse.Namespace) -> None:
    from melanoma_lib.data.images import decode
    from melanoma_lib.pipeline import run
    from melanoma_lib.pipeline.execute import call

    config = configuration(options)
    threading.Thread(target=call, args=[os.getpid], daemon=True).start()  # imports torch meanwhile
    if options.jobs is not None and options.jobs < 1:
        raise MelanomaError(f"--jobs is {options.jobs}; it must be 1 or more")
    devices = _visible(options.devices) if options.devices else []
    files = _ready(config)
    _check_other_split(config, files.fingerprint)
    asked = {"fingerprint": files.fingerprint, "contents": files.mask_fingerprint}
    asked["extra"] = _extra(options)
    steps = run.plan(config, **asked)
    stale = [step for step in steps if run.state_of(config, step) != "done"]
    jobs = options.jobs or 1
    if stale:
        keys = [step.parameters.get("architecture") for step in stale]
        sizes, most = call(_look_ahead, config, files, keys)
        decode(files, config.image_size)  # once
        jobs = options.jobs or len(devices) or most
        if jobs > 1:  # the trainings first, and of them the largest: they take longest
            steps.sort(key=lambda s: (s.chapter, sizes.get(s.parameters.get("architecture"), 0)))
            steps.reverse()
    with listening(options.track, options.notify, f"melanoma run {Path(config.output_dir).name}"):
        run.run(config, steps, jobs, devices, asked)
    print(
        f"\nfigures             {config.figures}"
        f"\ntables and results  {config.output_dir}"
        f"\nexecuted notebooks  {Path(config.output_dir) / 'notebooks'}"
    )


def _visible(devices: str) -> list[str]:
    """The GPUs that --devices numbers, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    there = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(there)))
    numbers = [number.strip() for number in devices.split(",")]
    if bad := [number for number in numbers if not number.isdigit() or int(number) >= there]:
        raise MelanomaError(f"--devices names {', '.join(bad)}; this machine has {there} GPUs")
    return [names.split(",")[int(number)] for number in numbers]


def _look_ahead(config: Config, files, keys: Sequence[str | None]) -> tuple[dict, int]:
    """What `_check_training` and `_default_jobs` say; both import torch and may start CUDA."""
    return _check_training(config, files, keys), _default_jobs(config)


def _default_jobs(config: Config) -> int:
    """How many notebooks run side by side: one a core up to four, or two on a GPU.

    There one trains while the other starts or scores its maps, if the memory is enough for both.
    """
    import torch

    from melanoma_lib.core.environment import pick_device

    device = pick_device(config.device)
    if device.type == "cpu":
        return min(4, os.cpu_count() or 1)
    if device.type != "cuda":
        return 1
    return 2 if torch.cuda.get_device_properties(device).total_memory > ROOM_FOR_TWO else 1


def _check_training(config: Config, files, keys: Sequence[str | None]) -> dict[str | None, int]:
    """Finds before the first epoch what would stop a training later.

    Returns the number of parameters of the networks that are still to be trained.
    """
    import torch

    from melanoma_lib.core.environment import pick_device
    from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
    from melanoma_lib.data.split import SPLITS, make_split, split_rows
    from melanoma_lib.models.build import build_model, get_architecture

    for key in config.architectures:
        get_architecture(key)
    unused = set(config.weights) - set(config.architectures)
    if unused:
        raise MelanomaError(f"--weights names {', '.join(unused)}, which is not to be trained")
    pick_device(config.device)
    split = make_split(files.metadata, config.split, config.seed)
    for part in SPLITS:
        rows = split.iloc[split_rows(split, part)]
        if (rows["dx"] == MELANOMA).mean() in (0, 1):
            raise MelanomaError(f"the part {part} needs both melanomas and other images")
        if part == "train" and len(rows) < config.batch_size:
            raise MelanomaError(
                f"{len(rows)} training images do not fill one batch; see --batch-size"
            )
    sizes = {}
    for key in filter(None, keys):
        if not config.trained(key, config.training_key(key, files.fingerprint)):
            weights = config.weights.get(key, "")
            with torch.device("cpu" if config.pretrained or weights else "meta"):  # no memory
                model = build_model(
                    key, len(CLASS_NAMES), config.image_size, config.pretrained, weights
                )
            sizes[key] = sum(parameter.numel() for parameter in model.parameters())
    return sizes


def _check_other_split(config: Config, fingerprint: str) -> None:
    """Finds before the first epoch that the run on the other split is not its counterpart."""
    if not config.other_split:
        return
    from melanoma_lib.evaluation.trained_run import load_trained_run

    key = config.architectures[0]
    record, *_ = load_trained_run(Path(config.other_split) / key)
    asked = config.recipe(key, fingerprint), config.epochs
    same = (record.get("recipe"), record["epochs"]) == asked
    if not same or record["config"]["split"] == config.split:
        raise MelanomaError(
            f"{config.other_split} must hold {key} trained like this run, on the other split; it "
            f"differs in {'more than the split' if not same else 'nothing'}"
        )


def _extra(options: argparse.Namespace) -> dict[str, object]:
    return {name: _scalar(text) for name, text in _pairs(options.parameter, "-p").items()}


def _scalar(text: str) -> object:
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError):
        return text


def _train(options: argparse.Namespace) -> None:
    options.architectures = [options.architecture]
    from melanoma_lib.data.images import decode
    from melanoma_lib.training import distributed
    from melanoma_lib.training.train import train_architecture

    config = configuration(options)
    name = f"melanoma train {config.architectures[0]}"
    with listening(options.track, options.notify, name), distributed.group(config):
        if distributed.rank() == 0:
            files = _ready(config)
            _check_training(config, files, config.architectures)
            decode(files, config.image_size)
        print(train_architecture(config, config.architectures[0]))


def _status(options: argparse.Namespace) -> None:
    from melanoma_lib.data.dataset_files import open_dataset
    from melanoma_lib.pipeline.run import plan
    from melanoma_lib.pipeline.status import find_runs, recorded, report, thesis

    show, usual = (thesis if options.thesis else report), vars(_parser().parse_args(["status"]))
    given = {name for name, value in vars(options).items() if value != usual[name]}
    if given <= {"output_dir", "thesis"}:
        print("\n\n".join(show(*recorded(folder)) for folder in find_runs(options.output_dir)))
        return
    config, known = configuration(options), ("", "")
    if config.data_dir != str(SAMPLE_DIR) or SAMPLE_DIR.exists():  # it is generated by a run
        files = open_dataset(config.data_dir, config.metadata, config.img_dir)
        known = files.fingerprint, files.mask_fingerprint
    print(show(config, plan(config, known[0], _extra(options), known[1])))


def _evaluate(options: argparse.Namespace) -> None:
    from melanoma_lib.data.dataset_files import open_dataset
    from melanoma_lib.models.bundle import find_bundles
    from melanoma_lib.reporting import external_test

    if not (options.data_dir or options.metadata):
        raise MelanomaError("evaluate needs images from elsewhere; name their folder: --data-dir")
    folders = find_bundles(Path(options.bundle).expanduser().resolve())
    data = options.data_dir or ("" if options.img_dir else Path(options.metadata).parent)
    files = open_dataset(data, options.metadata or "", options.img_dir or "", external=True)
    outcome = external_test.evaluate(folders, files, options.device, options.batch_size)
    run = folders[0].parent
    name = Path(options.data_dir or options.metadata).resolve().stem
    folder = Path(options.output_dir or run / "external" / name)
    external_test.write(*outcome, run, folder)
    print(f"\n{(folder / 'summary.md').read_text(encoding='utf-8')}\n{folder}")


def _figures(options: argparse.Namespace) -> None:
    from melanoma_lib.reporting import latex, run_figures

    results = Path(options.results).expanduser().resolve()
    drawn = options.figures_dir or Config(output_dir=str(results.parent)).figures
    run = run_figures.open_run(results, options.metadata or "")
    folder = Path(options.output_dir)
    outcome = latex.write(run, folder, Path(drawn), options.width, options.font_size)
    for word in ("redrawn", "taken over", "missing"):
        names = [name for name, became in outcome.items() if became == word]
        print(f"{word:10s} {len(names):3d}  {', '.join(names)}")
    if "missing" in outcome.values():
        print(f"missing are those that need images, models or another run: not in {drawn}")


def _site(options: argparse.Namespace) -> None:
    from melanoma_lib.pipeline.website import build

    run = Path(options.output_dir).expanduser().resolve()
    print(build(run, Path(options.site_dir or run / "site")))


def _predict(options: argparse.Namespace) -> int:
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


def _serve(options: argparse.Namespace) -> None:
    from melanoma_lib.inference import Predictor, best_bundle

    predictor = Predictor(best_bundle(options.bundle))
    from melanoma_lib.inference import app  # slow to import: not before a bundle is found

    app.serve(predictor, options.host, options.port, options.operating_point)


def _data_sample(options: argparse.Namespace) -> None:
    from melanoma_lib.data.synthetic import generate_sample

    print(generate_sample(options.folder, options.seed))


def _data_download(options: argparse.Namespace) -> None:
    from melanoma_lib.data.download import download

    dataset = "isic2018_test" if options.test else "ham10000"
    folder = Path(options.folder or SAMPLE_DIR.with_name(dataset))
    download(folder, dataset, options.parts, options.by_hand)
    print(folder)


def _data_check(options: argparse.Namespace) -> None:
    from melanoma_lib.data.validate import validate_dataset

    folder = options.folder or options.data_dir
    folder = folder or ("" if options.img_dir and options.metadata else ".")
    report, problems = validate_dataset(folder, options.metadata or "", options.img_dir or "")
    print(report)
    if problems:
        raise MelanomaError(f"this would stop a run: {'; '.join(problems)}")
