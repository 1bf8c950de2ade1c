"""Several trainings of each network of a run, condensed into numbers that can be published.

    python benchmarks/trainings.py RUN FILE --command "melanoma train ..."
    python benchmarks/trainings.py RUN FILE --leakage ARCHITECTURE --command "melanoma leakage ..."

RUN was made with `melanoma train`, `run` or `leakage` and `--trainings K`. FILE (JSON) receives for
every metric its value for each training and the covariance of all values over resampled test
lesions, which is all that intervals and differences are made from; or the results of the paired
design of leakage. Chapter 08 and docs/findings.md read both.
"""

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_lib.config import LEAKAGE, Config
from melanoma_lib.core.environment import versions
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.ensemble import averaged_models
from melanoma_lib.evaluation.model_metrics import bootstrap_metrics
from melanoma_lib.evaluation.trained_run import load_flipped, load_trainings
from melanoma_lib.reporting.compare import COLUMNS, compare_models
from melanoma_lib.reporting.leakage import paired_leakage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path, help="the results (JSON)")
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--leakage", default="", help="the architecture of the paired design")
    parser.add_argument("--command", default="", help="what made the run, for the record")
    parser.add_argument("--note", default="", help="what a reader of the times should know")
    args = parser.parse_args()
    record = read_json(sorted(args.run.glob("*/run.json"))[0])
    config = Config.from_json(record["config"])
    config = replace(config, output_dir=str(args.run), trainings=args.trainings)
    about = {
        "date": datetime.now(UTC).date().isoformat(), "command": args.command, "note": args.note,
        "device": record["device"], "versions": versions(),
    }  # fmt: skip
    found = leakage(config, args.leakage) if args.leakage else trainings(config)
    write_json(args.output, about | found)


def leakage(config: Config, key: str) -> dict:
    """The results of the paired design for every leaked fraction that was trained."""
    folders = (Path(config.output_dir) / LEAKAGE).iterdir()
    fractions = [float(folder.name) for folder in folders if folder.is_dir()]
    return {"results": paired_leakage(config, key, fractions)}


def trainings(config: Config) -> dict:
    """The results of all networks, and the values and covariances they are made from."""
    run = Path(config.output_dir)
    keys = sorted(path.parent.name for path in run.glob("*/run.json"))
    models = {key: load_trainings(run, key, config.trainings) for key in keys}
    files = open_dataset(config.data_dir, config.metadata, config.img_dir)
    flipped = {key: load_flipped(run, key, config.trainings) for key in keys}
    averaged = averaged_models(models, flipped)
    results = compare_models(run.name, models, files.metadata, averaged=averaged)
    weights = bootstrap_weights(models[keys[0]][0].predictions.split("test").lesion_ids)
    bootstrapped = [bootstrap_metrics(trained, weights) for trained in models.values()]
    return {
        "recipe": {name: getattr(config, name) for name in
                   ("image_size", "epochs", "batch_size", "learning_rate", "seed", "precision")},
        "seconds": {key: [training.record["train_seconds"] for training in trained]
                    for key, trained in models.items()},
        "names": {key: trained[0].record["name"] for key, trained in models.items()},
        "metrics": {
            name: {
                "values": [each[name][0].tolist() for each in bootstrapped],
                "covariance": np.cov(np.hstack([each[name][1] for each in bootstrapped]),
                                     rowvar=False).tolist(),
            }
            for name in COLUMNS
        },
        "results": _without_subgroups(results),
    }  # fmt: skip


def _without_subgroups(results: dict) -> dict:
    """The results without what names images or takes much room."""
    long = ("subgroups", "confident_errors")
    return results | {
        kind: {key: {name: value for name, value in model.items() if name not in long}
               for key, model in results[kind].items()}
        for kind in ("models", "ensembles")
    }  # fmt: skip


if __name__ == "__main__":
    main()
