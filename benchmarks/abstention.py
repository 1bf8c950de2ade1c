"""Chapters 07 and 11 for a run on real images: what needs the lesion, and when not to answer.

    python benchmarks/abstention.py RUN FILE --command "melanoma train ..."

RUN holds trained networks; their dataset must be where it was. FILE (JSON) receives the results of
abstention, thresholds and sets of diagnoses, and of hidden and added parts of images, with the
seconds that each took. docs/findings.md reads it.
"""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.environment import versions
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.ensemble import averaged_models
from melanoma_lib.evaluation.trained_run import load_trainings
from melanoma_lib.explanation.occlusion import predict_altered
from melanoma_lib.explanation.occlusion_metrics import summarize_occlusion
from melanoma_lib.reporting.abstention import abstention_results
from melanoma_lib.reporting.compare import compare_models

SHOWN = ("name", "metrics", "temperature", "operating_points")  # of a model's results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path, help="the results (JSON)")
    parser.add_argument("--command", default="", help="what made the run, for the record")
    parser.add_argument("--note", default="", help="what a reader of the times should know")
    args = parser.parse_args()
    keys = sorted(path.parent.name for path in args.run.glob("*/run.json"))
    record = read_json(args.run / keys[0] / "run.json")
    config = Config.from_json(record["config"])
    files = open_dataset(config.data_dir, config.metadata, config.img_dir)
    models = {key: load_trainings(args.run, key, 1) for key in keys}
    results = compare_models(
        args.run.name, models, files.metadata, averaged=averaged_models(models, {})
    )
    folders, seconds = {key: args.run / key for key in keys}, {}
    start = time.perf_counter()
    predict_altered(list(folders.values()), files, device=config.device)
    weights = bootstrap_weights(models[keys[0]][0].predictions.split("test").lesion_ids)
    for key in keys:
        found = summarize_occlusion(folders[key], models[key][0], weights)
        results["models"][key]["occlusion"] = found
    seconds["occlusion"] = time.perf_counter() - start
    start = time.perf_counter()
    results["abstention"] = abstention_results(args.run, keys)
    seconds["abstention"] = time.perf_counter() - start
    for model in results["abstention"]["models"].values():
        for curve in model["risk_coverage"].values():
            del curve["coverage"], curve["risk"]  # which only a figure needs
    for kind in ("models", "ensembles"):
        results[kind] = {
            key: {name: model[name] for name in (*SHOWN, "occlusion") if name in model}
            for key, model in results[kind].items()
        }
    write_json(args.output, {
        "date": datetime.now(UTC).date().isoformat(), "command": args.command, "note": args.note,
        "device": record["device"], "versions": versions(), "image_size": config.image_size,
        "seconds": seconds, "results": results,
    })  # fmt: skip


if __name__ == "__main__":
    main()
