"""Recipes by what they cost: quality on the test split against seconds of training.

    python benchmarks/quality.py FILE --architectures NAME --output-dir DIR --recipes thesis=1 \\
        balanced=3 probe=1 probe+tune=3 [options of melanoma train]

Trains one architecture with every recipe, as many times as stand behind its name (`--trainings`
otherwise), in a folder of DIR each; finished trainings are only read. FILE (JSON) receives a
leaderboard: seconds, metrics with intervals, recall and calibration by diagnosis, and the
difference of each recipe from the first. Chapter 12 and docs/findings.md read it.
"""

import argparse
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.cli.options import add_run_options, configuration
from melanoma_lib.config import RECIPES, Config, Recipe
from melanoma_lib.core.environment import versions
from melanoma_lib.core.files import PROJECT, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.torch_dataset import undersampled_counts
from melanoma_lib.evaluation.ensemble import averaged_models, with_logits
from melanoma_lib.evaluation.trained_run import TrainedRun, load_flipped, load_trainings
from melanoma_lib.reporting.compare import COLUMNS, compare_models
from melanoma_lib.reporting.tables import models_and_averages, pair_names
from melanoma_lib.training.train import train_architecture

SHOWN = ("metrics", "temperature", "trainings", "diagnoses", "uncalibrated")
DECISION = ", balanced decision"  # behind a recipe that decides for the most probable diagnosis
UNCORRECTED = ", not corrected"  # behind a recipe that undersamples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="the results (JSON)")
    parser.add_argument("--recipes", nargs="+", metavar="NAME=K", default=list(RECIPES))
    parser.add_argument("--command", default="", help="what was run, for the record")
    parser.add_argument("--note", default="", help="what a reader of the times should know")
    add_run_options(parser)
    args = parser.parse_args()
    base, trained = Path(configuration(args).output_dir), {}
    for text in args.recipes:
        name, _, count = text.partition("=")
        args.recipe, args.output_dir = name, str(base / name)
        config = configuration(args)
        trained[name] = train(config, int(count or config.trainings))
    write_json(args.output, measured(trained, config) | {
        "date": datetime.now(UTC).date().isoformat(), "command": args.command, "note": args.note,
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT,
                                 capture_output=True, text=True).stdout.strip(),
        "versions": versions(), "image_size": config.image_size,
    })  # fmt: skip


def train(config: Config, count: int) -> list[TrainedRun]:
    """The trainings of one recipe, read from their folders once they are there."""
    key = config.architectures[0]
    for number in range(1, count + 1):
        train_architecture(config.training(number), key)
    return load_trainings(Path(config.output_dir), key, count)


def measured(trained: dict[str, list[TrainedRun]], config: Config) -> dict:
    """The leaderboard, the differences of all recipes from the first, and those of averages."""
    folders = {name: Path(config.output_dir).parent / name for name in trained}
    key, first = config.architectures[0], next(iter(trained))
    models = {name: named(name, runs) for name, runs in trained.items()}
    flipped = {name: load_flipped(folders[name], key, len(runs)) for name, runs in models.items()}
    averaged = averaged_models(models, flipped)
    averaged.pop("ensemble", None)  # of all recipes together
    for name, runs in trained.items():
        counts, recipe = training_counts(folders[name]), RECIPES[name]
        if recipe.decision == Recipe.decision:
            models[name + DECISION] = named(name + DECISION, [decided(r, counts) for r in runs])
        if recipe.majority_fraction < 1:
            shown = [uncorrected(run, counts, recipe) for run in runs]
            models[name + UNCORRECTED] = named(name + UNCORRECTED, shown)
    record = trained[first][0].record
    table = table_of(trained[first][0])
    results = compare_models("quality", models, table, averaged=averaged)
    return {
        "network": record["name"], "device": record["device"],
        **{name: results[name] for name in ("test_images", "test_lesions", "test_melanomas")},
        "recipes": {
            model["name"]: {name: model[name] for name in SHOWN}
            | {"seconds": seconds_of((models | averaged)[key]),
               "count": len((models | averaged)[key])}
            for key, model in models_and_averages(results).items()
        },
        "differences": [
            {"pair": " − ".join(pair_names(results, row)), **{name: row[name] for name in COLUMNS}}
            for row in [*results["differences"], *results["ensemble_differences"]]
            if row["second"] in trained and (row["first"] == first or row["first"] in averaged)
        ],
    }  # fmt: skip


def seconds_of(runs: list[TrainedRun]) -> float:
    """The median of the trainings; with a probe the first, as later ones find its features."""
    times = [run.record["train_seconds"] for run in runs]
    has_probe = RECIPES[runs[0].record["config"]["recipe"]].probe
    return times[0] if has_probe else float(np.median(times))


def decided(trained: TrainedRun, counts: np.ndarray) -> TrainedRun:
    """The same network with the balanced decision."""
    priors = {"decision_priors": (counts / counts.sum()).tolist()}
    return trained._replace(bundle=trained.bundle | priors)


def named(name: str, runs: list[TrainedRun]) -> list[TrainedRun]:
    """Trainings under the name of their recipe."""
    return [run._replace(record=run.record | {"name": name}) for run in runs]


def training_counts(run: Path) -> np.ndarray:
    """The images of each class in a run's training split, (classes,), at least 1."""
    split = pd.read_csv(run / "split.csv")
    counts = split["dx"][split["part"] == "train"].value_counts()
    return counts.reindex(CLASS_NAMES, fill_value=1).to_numpy()


def uncorrected(trained: TrainedRun, counts: np.ndarray, recipe: Recipe) -> TrainedRun:
    """As the plain loss would have trained it: with the class frequencies that it was shown."""
    log_fraction = np.log(undersampled_counts(counts, recipe.majority_fraction) / counts)
    return with_logits(trained, trained.predictions.logits + log_fraction)


def table_of(trained: TrainedRun) -> pd.DataFrame:
    """A table without patients: this comparison has no subgroups."""
    ids = trained.predictions.image_ids
    nothing = dict.fromkeys(("sex", "localization", "dx_type"), "") | {"age": np.nan}
    return pd.DataFrame({"image_id": ids} | nothing).drop_duplicates("image_id")


if __name__ == "__main__":
    main()
