"""Several trainings of each network of a run, condensed into numbers that can be published.

    python benchmarks/trainings.py RUN FILE --command "melanoma train ..."

RUN was made with `melanoma train` or `melanoma run` and `--trainings K`. FILE (JSON) receives for
every metric its value for each training and the covariance of all values over resampled test
lesions, which is all that intervals and differences are made from; chapter 08 and docs/findings.md
read it.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_lib.core.environment import versions
from melanoma_lib.core.files import write_json
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.ensemble import averaged_models
from melanoma_lib.evaluation.trained_run import load_mirrored, load_trainings
from melanoma_lib.reporting.compare import COLUMNS, bootstrap_metrics, compare_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path, help="the results (JSON)")
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--command", default="", help="what made the run, for the record")
    parser.add_argument("--note", default="", help="what a reader of the times should know")
    args = parser.parse_args()
    keys = sorted(path.parent.name for path in args.run.glob("*/run.json"))
    models = {key: load_trainings(args.run, key, args.trainings) for key in keys}
    record, _, predictions = next(iter(models.values()))[0]
    files = open_dataset(record["config"]["data_dir"])
    mirrored = {key: load_mirrored(args.run, key, args.trainings) for key in keys}
    averaged = averaged_models(models, mirrored)
    results = compare_models(args.run.name, models, files.metadata, averaged=averaged)
    weights = bootstrap_weights(predictions.split("test").lesion_ids)
    bootstrapped = [bootstrap_metrics(trained, weights) for trained in models.values()]
    config = record["config"]
    write_json(args.output, {
        "date": datetime.now(UTC).date().isoformat(),
        "command": args.command,
        "note": args.note,
        "device": record["device"],
        "versions": versions(),
        "recipe": {name: config[name] for name in
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
    })  # fmt: skip


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
