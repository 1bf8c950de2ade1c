"""The comparison of trained models on one test split: comparison_results.json.

The fields of the results are documented in docs/results.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation.bootstrap import LEVEL, RESAMPLES, bootstrap_weights
from melanoma_lib.evaluation.ensemble import averaged_models
from melanoma_lib.evaluation.metrics import confusion_matrix
from melanoma_lib.evaluation.model_metrics import (
    CALIBRATION,
    MELANOMA_CALIBRATION,
    MELANOMA_METRICS,
    bootstrap_metrics,
    decision_scores_on_test,
    metric_differences,
    validation_auc,
)
from melanoma_lib.evaluation.operating_points import (
    AtThreshold,
    mean_operating_point_estimates,
    sensitivity_and_specificity,
)
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.significance import delong, holm, mcnemar
from melanoma_lib.evaluation.subgroups import by_diagnosis, by_subgroup, confident_errors
from melanoma_lib.evaluation.trained_run import (
    RECORDED,
    TrainedRun,
    load_flipped,
    load_trainings,
)
from melanoma_lib.evaluation.trainings import (
    Resampled,
    difference_of_trainings,
    estimate_of_trainings,
    paired_difference,
    probability_of_outperforming,
)
from melanoma_lib.explanation.map_metrics import map_agreement, summarize_map_scores
from melanoma_lib.explanation.occlusion_metrics import summarize_occlusion

SCHEMA = 2  # of comparison_results.json; raise it when that changes

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
    trainings: int = 1,
) -> dict:
    """The results of several trained architectures of one run, ready for JSON.

    `latency` holds what `measure_latency` returns for each of them; `metadata` is the dataset's
    table, for the subgroups of patients; `trainings` says how many of each are compared. Raises
    `MelanomaError` when one is not trained, or when they were not trained in the same precision, or
    not evaluated on the same images.
    """
    models = {key: load_trainings(run_dir, key, trainings) for key in latency}
    require_one_precision(
        {f"{key} (training {number})": training.record
         for key, trained in models.items() for number, training in enumerate(trained, 1)}
    )  # fmt: skip
    require_same_images(models)
    flipped = {key: load_flipped(run_dir, key, trainings) for key in models}
    averaged = averaged_models(models, flipped)
    results = compare_models(run_dir.name, models, metadata, resamples, averaged)
    test = next(iter(models.values()))[0].predictions.split("test")
    weights = bootstrap_weights(test.lesion_ids, resamples)
    for key, speed in latency.items():
        _, bundle, predictions = models[key][0]
        results["models"][key] |= {
            "latency": speed,
            "explanations": summarize_map_scores(
                run_dir / key, bundle, predictions.split("test"), weights
            ),
            "occlusion": summarize_occlusion(run_dir / key, models[key][0], weights),
        }
    for row in results["differences"]:
        pair = row["first"], row["second"]
        if all(results["models"][key]["explanations"] for key in pair):
            row["agreement"] = map_agreement([run_dir / key for key in pair], test, weights)
    for model in results["ensembles"].values():
        members = [latency[key] for key in model["averages"]]
        times = {name: sum(member[name] for member in members)
                 for name in ("median_ms", "low_ms", "high_ms")}  # fmt: skip
        model["latency"] = times | {"device": members[0]["device"]}
    return results


def compare_models(
    run: str,
    models: Mapping[str, Sequence[TrainedRun]],
    metadata: pd.DataFrame,
    resamples: int = RESAMPLES,
    averaged: Mapping[str, Sequence[TrainedRun]] = MappingProxyType({}),
) -> dict:
    """The results of trained models on the same test split, without latency and explanations.

    `models` holds the trainings of each architecture, `averaged` what `averaged_models` makes of
    them; `metadata` and errors as in `compare`.
    """
    record, _, first = next(iter(models.values()))[0]
    require_same_images(models)
    test = first.split("test")
    weights = bootstrap_weights(test.lesion_ids, resamples)
    evaluated = {**models, **averaged}
    bootstrapped = {key: bootstrap_metrics(trained, weights) for key, trained in evaluated.items()}
    of_each = {
        key: _evaluate_model(trained, bootstrapped[key], weights, metadata)
        for key, trained in evaluated.items()
    }
    return _basis(run, record, test, resamples) | {
        "trainings": len(next(iter(models.values()))),
        "models": {key: of_each[key] for key in models},
        "differences": differences(models, bootstrapped),
        "ensembles": {key: of_each[key] for key in averaged},
        "ensemble_differences": ensemble_differences(models, averaged, bootstrapped),
    }


def compare_melanoma(
    run: str, models: Mapping[str, TrainedRun], resamples: int = RESAMPLES
) -> dict:
    """The part of the results of trained models that only asks whether an image is a melanoma."""
    require_same_images({key: [model] for key, model in models.items()})
    first = next(iter(models.values()))
    test = first.predictions.split("test")
    weights = bootstrap_weights(test.lesion_ids, resamples)
    found = {}
    for key, model in models.items():
        bootstrapped = bootstrap_metrics([model], weights, MELANOMA_METRICS)
        found[key] = _recorded(model.record) | estimates_on_test([model], weights, bootstrapped)
    return _basis(run, first.record, test, resamples) | {"models": found, "differences": []}


def _basis(run: str, record: dict, test: Predictions, resamples: int) -> dict:
    """What results rest on: dataset, split, intervals, and numbers of test images."""
    return {
        "schema": SCHEMA,
        "run": run,
        "dataset": record["dataset"],
        "split": record["config"]["split"],
        "optimistic": record["config"]["split"] == "image",
        "class_names": CLASS_NAMES,
        "interval": {"level": LEVEL, "resamples": resamples, "unit": "lesion"},
        "trainings": 1,
        **count_images(test),
        "prevalence": test.count_lesions(test.is_melanoma) / test.count_lesions(),
    }


def ensemble_differences(
    models: Mapping[str, Sequence[TrainedRun]],
    averaged: Iterable[str],
    bootstrapped: Mapping[str, dict[str, Resampled]],
) -> list[dict]:
    """How much every averaged model differs from one network, first minus second.

    An ensemble from the network with the best melanoma AUC on validation, and a network with mirror
    images from the same without.
    """
    best = max(models, key=lambda key: np.mean([validation_auc(each) for each in models[key]]))
    rows = []
    for key in averaged:
        itself = key.removeprefix("flips-")
        other, subtract = (
            (itself, paired_difference) if itself in models else (best, difference_of_trainings)
        )
        rows.append({"first": key, "second": other} | {
            name: subtract(bootstrapped[key][name], bootstrapped[other][name]) for name in COLUMNS
        })  # fmt: skip
    return rows


def count_images(test: Predictions) -> dict[str, int]:
    """How many images, lesions and images of melanoma a test split has."""
    return {
        "test_images": len(test.labels),
        "test_lesions": test.count_lesions(),
        "test_melanomas": int(test.is_melanoma.sum()),
    }


def require_same_images(models: Mapping[str, Sequence[TrainedRun]]) -> None:
    """Raises `MelanomaError` unless all trainings were evaluated on the same images."""
    ids = next(iter(models.values()))[0].predictions.image_ids
    for key, trained in models.items():
        if not all(np.array_equal(each.predictions.image_ids, ids) for each in trained):
            raise MelanomaError(f"{key} was evaluated on other images; train it again")


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


def _evaluate_model(
    trained: Sequence[TrainedRun],
    bootstrapped: dict[str, Resampled],
    weights: np.ndarray,
    metadata: pd.DataFrame,
) -> dict:
    """All estimates of one model on the test split, means over its trainings.

    Temperature and thresholds come from each training's bundle: they were chosen on validation.
    """
    record, bundle, predictions = trained[0]
    return {
        **_recorded(record),
        **{name: record[name] for name in ("averages", "averaging") if name in record},
        **estimates_on_test(trained, weights, bootstrapped),
        "subgroups": by_subgroup(
            _at_threshold(trained, 0), [scores for _, scores in decision_scores_on_test(trained)],
            metadata, weights,
        ),
        "diagnoses": by_diagnosis(trained, weights),
        "confident_errors": confident_errors(predictions.split("test"), bundle["temperature"]),
    }


def _recorded(record: dict) -> dict:
    """What the results take over from run.json, and the weights that the training started from."""
    return {name: record[name] for name in RECORDED} | {"start": starting_weights(record)}


def _at_threshold(trained: Sequence[TrainedRun], number: int) -> list[AtThreshold]:
    """Test split, temperature and threshold of one of the operating points of each training."""
    return [
        (predictions.split("test"), bundle["temperature"],
         bundle["operating_points"][number]["threshold"])
        for _, bundle, predictions in trained
    ]  # fmt: skip


def starting_weights(record: dict) -> str:
    """Which weights a training started from, by its run.json: of ImageNet, or random ones."""
    config = record["config"]
    file = config.get("weights", {}).get(record.get("architecture"))
    return "ImageNet weights" if config.get("pretrained") or file else "random weights"


def estimates_on_test(
    trained: Sequence[TrainedRun], weights: np.ndarray, bootstrapped: dict[str, Resampled]
) -> dict:
    """The estimates of one model that need no table of patients, of the metrics `bootstrapped`.

    Temperature, thresholds and confusion matrix (with the accuracy) are those of the first
    training; `trainings` holds seed, temperature and metrics of every one.
    """
    calibration = [name for name in (*CALIBRATION, *MELANOMA_CALIBRATION) if name in bootstrapped]
    raw = bootstrap_metrics(trained, weights, calibration, calibrated=False)
    matrix = {}
    if "accuracy" in bootstrapped:
        decided = confusion_matrix(*decision_scores_on_test(trained)[0])
        matrix = {"confusion_matrix": decided.astype(int).tolist()}
    return {
        "temperature": trained[0].bundle["temperature"],
        "metrics": {name: estimate_of_trainings(each) for name, each in bootstrapped.items()},
        "uncalibrated": {name: estimate_of_trainings(each) for name, each in raw.items()},
        "gain": metric_differences(bootstrapped, raw, calibration),
        "operating_points": _operating_points(trained, weights),
        **matrix,
        "trainings": [
            {"seed": training.record.get("config", {}).get("training_seed"),
             "temperature": training.bundle["temperature"],
             "metrics": {name: float(each.values[number]) for name, each in bootstrapped.items()}}
            for number, training in enumerate(trained)
        ],
    }  # fmt: skip


def _operating_points(trained: Sequence[TrainedRun], weights: np.ndarray) -> list[dict]:
    """The operating points of the first training, and what they do on validation and on test."""
    bundle, validation = trained[0].bundle, trained[0].predictions.split("val")
    return [
        {**point,
         "validation": sensitivity_and_specificity(
             validation, bundle["temperature"], point["threshold"]),
         "test": mean_operating_point_estimates(_at_threshold(trained, number), weights)}
        for number, point in enumerate(bundle["operating_points"])
    ]  # fmt: skip


def differences(
    models: Mapping[str, Sequence[TrainedRun]], bootstrapped: Mapping[str, dict[str, Resampled]]
) -> list[dict]:
    """The differences between every two models on the same resamples, first minus second.

    Each estimate of `COLUMNS` has `p`, and `p_holm`, adjusted for the number of pairs; of several
    trainings also `outperforms`, the probability that a new training of the first beats a new one
    of the second. Beside them `mcnemar` (accuracy) and `delong` (melanoma AUC), which treat images
    as independent and compare the first training of each.
    """
    rows = []
    for pair in combinations(models, 2):
        row: dict = dict(zip(("first", "second"), pair, strict=True))
        for name, (_, more_is_better) in COLUMNS.items():
            both = [bootstrapped[key][name] for key in pair]
            row[name] = difference_of_trainings(*both)
            if "trainings" in row[name]:
                row[name]["outperforms"] = probability_of_outperforming(*both, more_is_better)
        firsts = [models[key][0] for key in pair]
        tests = [training.predictions.split("test") for training in firsts]
        right = [each.predicted_classes("test") == tests[0].labels for each in firsts]
        scores = [
            test.melanoma_probability(training.bundle["temperature"])
            for test, training in zip(tests, firsts, strict=True)
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
