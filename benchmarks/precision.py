"""What bfloat16 costs: one network trained twice, alike but for the precision.

    python benchmarks/precision.py resnet50 --output FILE [what else `melanoma train` takes]

The two are compared on the same test images, with intervals by lesion; the file holds one such
comparison for each `--seed` that was asked for. The device must compute in bfloat16 natively: where
it is emulated, a training takes days. The trainings stay in `--runs`: interrupt the command and go
on later.
"""

import argparse
import datetime
import sys
from pathlib import Path

from melanoma_lib import cli
from melanoma_lib.config import PRECISIONS
from melanoma_lib.core import environment
from melanoma_lib.core.environment import pick_device
from melanoma_lib.core.files import PROJECT, read_json, write_json
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.evaluation import trained_run
from melanoma_lib.reporting.compare import compare_models
from melanoma_lib.training.precision import computes_bfloat16

SCHEMA = 1
METRICS = ("accuracy", "balanced_accuracy", "melanoma_auc", "ece")


def train(architecture: str, precision: str, runs: Path, arguments: list[str]) -> Path:
    """Trains as `melanoma train` does; returns the run's folder."""
    command = ["train", architecture, *arguments, "--precision", precision]
    if code := cli.main([*command, "--output-dir", str(runs / precision)]):
        sys.exit(code)
    return runs / precision / architecture


def compare(folders: dict[str, Path], metadata) -> dict:
    """Metrics of both, and their difference, of the same test images."""
    models = {name: [trained_run.load_trained_run(folder)] for name, folder in folders.items()}
    results = compare_models("precision", models, metadata)
    (difference,) = results["differences"]
    return {
        "test_images": results["test_images"], "test_lesions": results["test_lesions"],
        **{name: {metric: results["models"][name]["metrics"][metric] for metric in METRICS}
           for name in folders},
        "difference": {metric: difference[metric] for metric in METRICS},
    }  # fmt: skip


def main() -> None:
    """Trains twice, compares and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--runs", type=Path, default=PROJECT / "runs" / "precision")
    options, arguments = parser.parse_known_args()
    if not computes_bfloat16(pick_device()):
        parser.error("this device would emulate bfloat16, many times slower")
    folders = {name: train(options.architecture, name, options.runs, arguments)
               for name in PRECISIONS if name != "auto"}  # fmt: skip
    record = read_json(folders["bfloat16"] / "run.json")
    config = record["config"]
    files = open_dataset(config["data_dir"], config["metadata"], config["img_dir"])
    asked = ("image_size", "epochs", "batch_size", "split", "pretrained")
    known = {
        "schema": SCHEMA, "architecture": options.architecture, "imitated": False,
        "versions": environment.versions(),
        "dataset": files.fingerprint, "config": {name: config[name] for name in asked},
    }  # fmt: skip
    results = read_json(options.output, {})
    if any(results.get(name) != value for name, value in known.items()):
        results = known | {"seeds": {}}
    results["date"] = datetime.date.today().isoformat()
    compared = {"device": record["device"], **compare(folders, files.metadata)}
    results["seeds"][str(config["seed"])] = compared
    write_json(options.output, results)


if __name__ == "__main__":
    main()
