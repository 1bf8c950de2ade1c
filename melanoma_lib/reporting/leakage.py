"""The price of leakage: what a model seems better by when test lesions are in training.

Two designs, whose fields are documented in docs/results.md. The paired one has one test set and two
training sets, without leakage and with it (`melanoma_lib.data.split.leakage_split`). The naive one
compares the split by lesion with the split by image, each with test images of its own.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.config import LEAKAGE_RESULTS, Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json
from melanoma_lib.data.split import is_leaked
from melanoma_lib.evaluation.bootstrap import (
    LEVEL,
    RESAMPLES,
    SEED,
    bootstrap_weights,
    format_estimate,
)
from melanoma_lib.evaluation.model_metrics import bootstrap_metrics, metric_differences
from melanoma_lib.evaluation.trained_run import TrainedRun, load_trained_run, load_trainings
from melanoma_lib.evaluation.trainings import estimate_of_trainings, paired_difference
from melanoma_lib.reporting.compare import (
    COLUMNS,
    count_images,
    require_one_precision,
)

SCHEMA = 1  # of leakage_results.json; raise it when that changes
# The sets of test images that are compared, and their names in print.
SETS = {"all": "all", "leaked": "lesion leaked", "not_leaked": "lesion not leaked"}
SAME = ("recipe", "epochs")  # of run.json, in trainings that make a pair


def paired_leakage(
    config: Config, key: str, fractions: Iterable[float], resamples: int = RESAMPLES
) -> dict:
    """What leakage makes of one architecture's metrics on the same test images, ready for JSON.

    `config` is that of the run, whose `trainings` are the clean ones; those with leakage lie in it,
    as `Config.with_leakage` says, for each of `fractions`. Training n with leakage is compared with
    training n without. Raises `MelanomaError` when one is missing, when two of a pair differ in
    more than the leak, or when a test lesion is in the clean training split.
    """
    clean = load_trainings(Path(config.output_dir), key, config.trainings)
    split = pd.read_csv(Path(config.output_dir) / "split.csv")
    if is_leaked(split).any():
        raise MelanomaError(f"{config.output_dir} has lesions of the test split in training")
    designs = [
        _design(config.with_leakage(fraction), key, clean, split, resamples)
        for fraction in sorted(set(fractions))
    ]
    return {
        "schema": SCHEMA,
        "run": config.run_dir.name,
        "dataset": clean[0].record["dataset"],
        "architecture": key,
        **{name: clean[0].record.get(name) for name in ("name", "training_key", "epochs")},
        "interval": {"level": LEVEL, "resamples": resamples, "unit": "lesion"},
        "trainings": len(clean),
        "fractions": designs,
    }


def _design(
    config: Config, key: str, clean: list[TrainedRun], clean_split: pd.DataFrame, resamples: int
) -> dict:
    """The results of one leaked fraction; `config` is that of the trainings with leakage."""
    folder = Path(config.output_dir)
    leaky = load_trainings(folder, key, config.trainings)
    _require_pairs(folder / key, clean, leaky)
    split = pd.read_csv(folder / "split.csv")
    train, clean_train = (each[each["part"] == "train"] for each in (split, clean_split))
    test = leaky[0].predictions.split("test")
    leaked = np.isin(test.lesion_ids, train["lesion_id"])
    clean, leaky = (
        [_of_images(each, test.image_ids) for each in design] for design in (clean, leaky)
    )
    sets = {"all": np.ones(len(leaked), bool), "leaked": leaked, "not_leaked": ~leaked}
    return {
        "leaked_fraction": config.leaked_fraction,
        "folder": folder.relative_to(config.run_dir).as_posix(),
        "training_images": len(train),
        "replaced_images": int((~clean_train["image_id"].isin(train["image_id"])).sum()),
        "sets": {
            name: _compare(clean, leaky, rows, resamples)
            for name, rows in sets.items() if rows.any()
        },
    }  # fmt: skip


def _require_pairs(folder: Path, clean: list[TrainedRun], leaky: list[TrainedRun]) -> None:
    """Raises `MelanomaError` unless trainings with and without leakage differ in the leak alone."""
    for without, leak in zip(clean, leaky, strict=True):
        seeds = {each.record["config"].get("training_seed") for each in (without, leak)}
        if len(seeds) > 1 or any(without.record.get(n) != leak.record.get(n) for n in SAME):
            raise MelanomaError(
                f"{folder} was trained otherwise than without leakage; train both with the same "
                "command melanoma leakage"
            )
    trained = {"without leakage": clean, "with leakage": leaky}
    require_one_precision({
        f"training {number} {name}": each.record
        for name, trainings in trained.items() for number, each in enumerate(trainings, 1)
    })  # fmt: skip


def _of_images(trained: TrainedRun, image_ids: np.ndarray) -> TrainedRun:
    """A training with its predictions for these test images alone, in their order."""
    test = trained.predictions.split("test")
    rows = pd.Index(test.image_ids).get_indexer(image_ids)
    if (rows < 0).any():
        raise MelanomaError(f"{trained.record['name']} was evaluated on other images; train again")
    return trained._replace(predictions=test.take(rows))


def _compare(
    clean: list[TrainedRun], leaky: list[TrainedRun], rows: np.ndarray, resamples: int
) -> dict:
    """The metrics of both designs on some of the test images, and leaky minus clean."""
    test = clean[0].predictions.take(rows)
    weights = bootstrap_weights(test.lesion_ids, resamples)
    without, leak = (
        bootstrap_metrics(
            [each._replace(predictions=each.predictions.take(rows)) for each in design],
            weights, COLUMNS,
        )
        for design in (clean, leaky)
    )  # fmt: skip
    return {
        **{name.removeprefix("test_"): count for name, count in count_images(test).items()},
        "clean": {name: estimate_of_trainings(without[name]) for name in COLUMNS},
        "leaky": {name: estimate_of_trainings(leak[name]) for name in COLUMNS},
        "difference": {
            name: paired_difference(leak[name], without[name])
            | {"of_each_training": _numbers(leak[name][0] - without[name][0])}
            for name in COLUMNS
        },
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def read_leakage(run_dir: Path) -> dict:
    """The results of the paired design in a run's folder; {} where it has none.

    Raises `MelanomaError` when the architecture was trained otherwise since.
    """
    results = read_json(run_dir / LEAKAGE_RESULTS, {})
    if not results:
        return {}
    record = read_json(run_dir / results["architecture"] / "run.json", {})
    if results["schema"] != SCHEMA or any(
        record.get(name) != results[name] for name in ("training_key", "epochs")
    ):
        raise MelanomaError(
            f"{run_dir / LEAKAGE_RESULTS} is of another training of {results['architecture']}; "
            "repeat melanoma leakage, or delete the file"
        )
    return results


def summarize_leakage(results: dict) -> str:
    """The paired design's largest leaked fraction in a sentence; every number is taken from it."""
    design, count = results["fractions"][-1], results["trainings"]
    texts = []
    for name, words in {"all": "", "leaked": " where the lesion leaked",
                        "not_leaked": " where it did not"}.items():  # fmt: skip
        if name in design["sets"]:
            found = design["sets"][name]["difference"]
            accuracy, auc = (format_estimate(found[m]) for m in ("accuracy", "melanoma_auc"))
            texts.append(f"{accuracy} in accuracy and {auc} in melanoma AUC{words}")
    covered = "lesions and trainings" if count > 1 else "lesions, not over trainings"
    return (
        f"The price of leakage, on the same test images: with {design['leaked_fraction']:.1%} of "
        f"them leaked, {results['name']} gains {'; '.join(texts)}. {count} "
        f"training{'s' * (count > 1)} with leakage and without; intervals over {covered}."
    )


def price_of_leakage(
    run_dir: Path, other_dir: Path, key: str, resamples: int = RESAMPLES
) -> dict:
    """One architecture trained and tested on the split by lesion, and on that by image.

    The naive design. Fields: `architecture`, `name`, `lesion` and `image` (each with `test_images`,
    `test_lesions` and `metrics`), and `difference`, image minus lesion, from separate resamples
    of the two test splits. Raises `MelanomaError` unless the two runs differ in the split alone.
    """
    records, measured, estimates = {}, {}, {}
    for folder in (run_dir / key, other_dir / key):
        trained = load_trained_run(folder)
        test, split = trained.predictions.split("test"), trained.record["config"]["split"]
        weights = bootstrap_weights(test.lesion_ids, resamples, seed=SEED + len(records))
        records[split] = trained.record
        measured[split] = bootstrap_metrics([trained], weights, COLUMNS)
        estimates[split] = {
            "test_images": len(test.labels),
            "test_lesions": test.count_lesions(),
            "metrics": {name: estimate_of_trainings(measured[split][name]) for name in COLUMNS},
        }
    if set(records) != {"lesion", "image"}:
        raise MelanomaError(f"{run_dir} and {other_dir} must be one run by lesion and one by image")
    require_one_precision({f"{key} by {split}": record for split, record in records.items()})
    lesion, image = records["lesion"], records["image"]
    if any(lesion.get(name) != image.get(name) for name in SAME):
        raise MelanomaError(f"{run_dir} and {other_dir} differ in more than the split")
    return {
        "architecture": key,
        "name": lesion["name"],
        **estimates,
        "difference": metric_differences(measured["lesion"], measured["image"], COLUMNS),
    }
