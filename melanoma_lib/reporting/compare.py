"""The comparison of trained models on one test split: comparison_results.json.

The fields of the results are documented in docs/results.md.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.bootstrap import (
    LEVEL,
    RESAMPLES,
    SEED,
    bootstrap_weights,
    difference,
    interval,
    p_value,
    resample,
)
from melanoma_lib.evaluation.metrics import confusion_matrix, table_metrics, top_class
from melanoma_lib.evaluation.operating_points import (
    operating_point_estimates,
    sensitivity_and_specificity,
)
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.significance import delong, holm, mcnemar
from melanoma_lib.evaluation.subgroups import by_subgroup, confident_errors
from melanoma_lib.evaluation.trained_run import RECORDED, TrainedRun, load_trained_run
from melanoma_lib.explanation.map_metrics import map_agreement, summarize_map_scores

SCHEMA = 2
CALIBRATION = ("ece", "ece_equal_mass", "classwise_ece", "mce", "brier", "nll")
METRICS = table_metrics(CLASS_NAMES.index(MELANOMA))

# What the tables show: the metric, its column head, and whether more is better.
COLUMNS = {
    "accuracy": ("Accuracy", True),
    "balanced_accuracy": ("Balanced accuracy", True),
    "melanoma_auc": ("Melanoma AUC", True),
    "melanoma_average_precision": ("Melanoma AP", True),
    "macro_f1": ("Macro F1", True),
    "ece": ("ECE", False),
}


def compare(
    run_dir: Path,
    latency: Mapping[str, dict],
    metadata: pd.DataFrame,
    resamples: int = RESAMPLES,
) -> dict:
    """The results of several trained architectures of one run, ready for JSON.

    `latency` holds what `measure_latency` returns for each of them; `metadata` is the dataset's
    table, for the subgroups of patients. Raises `MelanomaError` when one is not trained, or when
    they were not trained in the same precision, or not evaluated on the same images.
    """
    models = {key: load_trained_run(run_dir / key) for key in latency}
    require_one_precision({key: record for key, (record, *_) in models.items()})
    results = compare_models(run_dir.name, models, metadata, resamples)
    test = next(iter(models.values()))[2].split("test")
    weights = bootstrap_weights(test.lesion_ids, resamples)
    for key, speed in latency.items():
        _, bundle, predictions = models[key]
        results["models"][key] |= {
            "latency": speed,
            "explanations": summarize_map_scores(
                run_dir / key, bundle, predictions.split("test"), weights
            ),
        }
    for row in results["differences"]:
        pair = row["first"], row["second"]
        if all(results["models"][key]["explanations"] for key in pair):
            row["agreement"] = map_agreement([run_dir / key for key in pair], test, weights)
    return results


def compare_models(
    run: str, models: Mapping[str, TrainedRun], metadata: pd.DataFrame, resamples: int = RESAMPLES
) -> dict:
    """The results of trained models on the same test split, without latency and explanations.

    `models` by architecture; `metadata` and errors as in `compare`.
    """
    record, _, first = next(iter(models.values()))
    for key, (_, _, other) in models.items():
        if not np.array_equal(other.image_ids, first.image_ids):
            raise MelanomaError(f"{key} was evaluated on other images; train it again")
    test = first.split("test")
    weights = bootstrap_weights(test.lesion_ids, resamples)
    bootstrapped = {key: bootstrap_metrics(*models[key][1:], weights) for key in models}
    return {
        "schema": SCHEMA,
        "run": run,
        "dataset": record["dataset"],
        "split": record["config"]["split"],
        "optimistic": record["config"]["split"] == "image",
        "class_names": CLASS_NAMES,
        "interval": {"level": LEVEL, "resamples": resamples, "unit": "lesion"},
        **count_images(test),
        "prevalence": test.count_lesions(test.is_melanoma) / test.count_lesions(),
        "models": {
            key: _evaluate_model(model, bootstrapped[key], weights, metadata)
            for key, model in models.items()
        },
        "differences": differences(models, bootstrapped),
    }


def count_images(test: Predictions) -> dict[str, int]:
    """How many images, lesions and images of melanoma a test split has."""
    return {
        "test_images": len(test.labels),
        "test_lesions": test.count_lesions(),
        "test_melanomas": int(test.is_melanoma.sum()),
    }


def require_one_precision(records: Mapping[str, Mapping]) -> None:
    """Raises `MelanomaError` when trainings, by name, did not all compute in the same precision.

    Their differences would be those of the precisions as well. Records of before there were
    several precisions hold none: it was float32.
    """
    used = {
        name: record.get("arithmetic", {}).get("precision", "float32")
        for name, record in records.items()
    }
    if len(set(used.values())) > 1:
        found = ", ".join(f"{name} in {precision}" for name, precision in used.items())
        raise MelanomaError(
            f"trained in different precisions, so not comparable: {found}; train them in one, with "
            "melanoma run --precision float32 or bfloat16 and what else they were run with"
        )


def bootstrap_metrics(
    bundle: dict, predictions: Predictions, weights: np.ndarray
) -> dict[str, tuple]:
    """Every metric on the test split at the bundle's temperature, by name, as `interval` takes it.

    Its value, its resamples and `n_clusters`, the lesions of the smallest group it depends on: all
    lesions for accuracy, those with melanoma or those without for melanoma metrics, those of the
    rarest diagnosis otherwise; None for calibration errors.
    """
    test = predictions.split("test")
    probabilities = test.probabilities(bundle["temperature"])
    of_class = min(test.count_lesions(test.labels == label) for label in np.unique(test.labels))
    of_melanoma = min(test.count_lesions(kind) for kind in (test.is_melanoma, ~test.is_melanoma))
    n_clusters = dict.fromkeys(METRICS, of_class) | dict.fromkeys(CALIBRATION)
    n_clusters |= {"accuracy": test.count_lesions(), "melanoma_auc": of_melanoma,
                   "melanoma_average_precision": of_melanoma}  # fmt: skip
    return {
        name: (*resample(metric, test.labels, probabilities, weights=weights), n_clusters[name])
        for name, metric in METRICS.items()
    }


def _evaluate_model(
    model: TrainedRun, bootstrapped: dict[str, tuple], weights: np.ndarray, metadata: pd.DataFrame
) -> dict:
    """All estimates of one model on the test split, with intervals over lesions.

    Temperature and thresholds come from the bundle: they were chosen on validation.
    """
    record, bundle, predictions = model
    test, temperature = predictions.split("test"), bundle["temperature"]
    threshold = bundle["operating_points"][0]["threshold"]
    return {
        **{name: record[name] for name in RECORDED},
        "start": starting_weights(record),
        **test_estimates(bundle, predictions, bootstrapped, weights),
        "subgroups": by_subgroup(test, metadata, temperature, threshold, weights),
        "confident_errors": confident_errors(test, temperature),
    }


def starting_weights(record: dict) -> str:
    """Which weights a training started from, by its run.json: of ImageNet, or random ones."""
    config = record["config"]
    file = config.get("weights", {}).get(record.get("architecture"))
    return "ImageNet weights" if config.get("pretrained") or file else "random weights"


def test_estimates(
    bundle: dict, predictions: Predictions, bootstrapped: dict[str, tuple], weights: np.ndarray
) -> dict:
    """The estimates of one model that need neither run.json nor the table of patients."""
    validation, test = predictions.split("val"), predictions.split("test")
    temperature = bundle["temperature"]
    matrix = confusion_matrix(test.labels, test.probabilities())
    raw = {
        name: (*resample(METRICS[name], test.labels, test.probabilities(), weights=weights), None)
        for name in CALIBRATION
    }
    return {
        "temperature": temperature,
        "metrics": {name: interval(*each) for name, each in bootstrapped.items()},
        "uncalibrated": {name: interval(*each) for name, each in raw.items()},
        "gain": metric_differences(bootstrapped, raw, CALIBRATION),
        "operating_points": [
            {**point, "validation": sensitivity_and_specificity(validation, *chosen),
             "test": operating_point_estimates(test, *chosen, weights)}
            for point in bundle["operating_points"]
            for chosen in [(temperature, point["threshold"])]
        ],
        "confusion_matrix": matrix.astype(int).tolist(),
    }  # fmt: skip


def differences(
    models: Mapping[str, TrainedRun], bootstrapped: Mapping[str, dict]
) -> list[dict]:
    """The differences between every two models on the same resamples, first minus second.

    Each estimate of `COLUMNS` has `p` and `p_holm`, adjusted for the number of pairs. Beside them
    `mcnemar` (accuracy) and `delong` (melanoma AUC), which treat images as independent.
    """
    rows = []
    for pair in combinations(models, 2):
        row: dict = dict(zip(("first", "second"), pair, strict=True))
        for name in COLUMNS:
            first, second = (bootstrapped[key][name] for key in pair)
            row[name] = difference(first, second) | {"p": p_value(first[1] - second[1])}
        tests = [models[key][2].split("test") for key in pair]
        right = [top_class(test.labels, test.probabilities())[1] for test in tests]
        scores = [
            test.melanoma_score(models[key][1]["temperature"])
            for key, test in zip(pair, tests, strict=True)
        ]
        rows.append(row | {"mcnemar": mcnemar(*right),
                           "delong": delong(tests[0].is_melanoma, *scores)})  # fmt: skip
    for name in (*COLUMNS, "mcnemar", "delong"):
        adjusted = holm(np.array([row[name]["p"] for row in rows], float))
        for row, p in zip(rows, adjusted, strict=True):
            row[name]["p_holm"] = float(p) if np.isfinite(p) else None
    return rows


def clearly_best(results: dict, metric: str) -> str | None:
    """The model that is significantly better than every other in a metric, if there is one."""
    more_is_better = COLUMNS[metric][1]
    values = {key: model["metrics"][metric]["value"] for key, model in results["models"].items()}
    values = {key: value for key, value in values.items() if value is not None}
    if len(values) < 2:
        return None
    best = (max if more_is_better else min)(values, key=values.get)
    pairs = [pair for pair in results["differences"] if best in (pair["first"], pair["second"])]
    adjusted = [pair[metric]["p_holm"] for pair in pairs]
    return best if all(p is not None and p < 1 - LEVEL for p in adjusted) else None


def price_of_leakage(
    run_dir: Path, other_dir: Path, key: str, resamples: int = RESAMPLES
) -> dict:
    """One architecture trained and tested on the split by lesion, and on that by image.

    Fields: `architecture`, `name`, `lesion` and `image` (each with `test_images`,
    `test_lesions` and `metrics`), and `difference`, image minus lesion, from separate resamples
    of the two test splits. Raises `MelanomaError` unless the two runs differ in the split alone.
    """
    records, bootstrapped, estimates = {}, {}, {}
    for folder in (run_dir / key, other_dir / key):
        record, bundle, predictions = load_trained_run(folder)
        test, split = predictions.split("test"), record["config"]["split"]
        weights = bootstrap_weights(test.lesion_ids, resamples, seed=SEED + len(records))
        records[split] = record
        bootstrapped[split] = bootstrap_metrics(bundle, predictions, weights)
        estimates[split] = {
            "test_images": len(test.labels),
            "test_lesions": test.count_lesions(),
            "metrics": {name: interval(*bootstrapped[split][name]) for name in COLUMNS},
        }
    if set(records) != {"lesion", "image"}:
        raise MelanomaError(f"{run_dir} and {other_dir} must be one run by lesion and one by image")
    require_one_precision({f"{key} by {split}": record for split, record in records.items()})
    lesion, image = records["lesion"], records["image"]
    if any(lesion.get(name) != image.get(name) for name in ("recipe", "epochs")):
        raise MelanomaError(f"{run_dir} and {other_dir} differ in more than the split")
    return {
        "architecture": key,
        "name": lesion["name"],
        **estimates,
        "difference": metric_differences(bootstrapped["lesion"], bootstrapped["image"], COLUMNS),
    }


def metric_differences(first: Mapping, second: Mapping, names: Iterable[str]) -> dict[str, dict]:
    """Second minus first by metric, each what `bootstrap_metrics` returns for a test split."""
    return {name: difference(second[name], first[name]) for name in names}
