"""Metrics of trained networks on the test split, with resamples of its lesions.

The probabilities are calibrated with each training's temperature, unless said otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.metrics import (
    auc,
    average_precision,
    calibration_in_the_large,
    class_brier,
    class_ece,
    one_vs_rest,
    table_metrics,
)
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.trained_run import TrainedRun
from melanoma_lib.evaluation.trainings import Resampled, paired_difference, resample_trainings

DECIDED = ("accuracy", "balanced_accuracy", "macro_f1")  # of the diagnoses that are decided on
CALIBRATION = ("ece", "ece_equal_mass", "classwise_ece", "mce", "brier", "nll")
METRICS = table_metrics(CLASS_NAMES.index(MELANOMA))
# Of images of which only melanoma or not is known.
MELANOMA_METRICS = {
    name: one_vs_rest(metric, CLASS_NAMES.index(MELANOMA))
    for name, metric in {
        "melanoma_auc": auc,
        "melanoma_average_precision": average_precision,
        "melanoma_ece": class_ece,
        "melanoma_brier": class_brier,
        "calibration_in_the_large": calibration_in_the_large,
    }.items()
}
MELANOMA_CALIBRATION = ("melanoma_ece", "melanoma_brier")


def bootstrap_metrics(
    trained: Sequence[TrainedRun],
    weights: np.ndarray,
    names: Iterable[str] = METRICS,
    calibrated: bool = True,
) -> dict[str, Resampled]:
    """Metrics on the test split by name, of `METRICS` and `MELANOMA_METRICS`; all of the former.

    At each training's temperature, or at 1 unless `calibrated`. Each with the `n_clusters` of
    `clusters_by_metric`.
    """
    n_clusters = clusters_by_metric(trained[0].predictions.split("test"))
    data = probabilities_on_test(trained, calibrated)
    decided = decision_scores_on_test(trained)
    return {
        name: resample_trainings(
            (METRICS | MELANOMA_METRICS)[name], decided if name in DECIDED else data, weights,
            n_clusters.get(name),
        )
        for name in names
    }  # fmt: skip


def validation_auc(training: TrainedRun) -> float:
    """The melanoma AUC on validation, in [0, 1], by which a network is chosen among several.

    0 where validation has no melanoma, or nothing else.
    """
    val = training.predictions.split("val")
    score = val.melanoma_probability(training.bundle["temperature"])
    return float(np.nan_to_num(auc(val.is_melanoma, score)))


def clusters_by_metric(test: Predictions) -> dict[str, int | None]:
    """How many lesions the smallest group has that a metric depends on, by metric.

    All lesions for accuracy, the fewer of those with melanoma and without for melanoma metrics,
    those of the rarest diagnosis otherwise; None for calibration errors.
    """
    of_class = min(test.count_lesions(test.labels == label) for label in np.unique(test.labels))
    of_melanoma = min(test.count_lesions(kind) for kind in (test.is_melanoma, ~test.is_melanoma))
    return dict.fromkeys(METRICS, of_class) | dict.fromkeys(CALIBRATION) | {
        "accuracy": test.count_lesions(),
        "melanoma_auc": of_melanoma,
        "melanoma_average_precision": of_melanoma,
    }


def probabilities_on_test(
    trained: Sequence[TrainedRun], calibrated: bool = True
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels (n,) and probabilities (n, classes) on the test split of each training."""
    tests = [training.predictions.split("test") for training in trained]
    temperatures = [t.bundle["temperature"] if calibrated else 1.0 for t in trained]
    return [
        (test.labels, test.probabilities(temperature))
        for test, temperature in zip(tests, temperatures, strict=True)
    ]


def decision_scores_on_test(trained: Sequence[TrainedRun]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels (n,) and `decision_scores` (n, classes) on the test split of each training."""
    return [(t.predictions.split("test").labels, t.decision_scores("test")) for t in trained]


def metric_differences(first: Mapping, second: Mapping, names: Iterable[str]) -> dict[str, dict]:
    """Second minus first by metric, each what `bootstrap_metrics` returns, training by training."""
    return {name: paired_difference(second[name], first[name]) for name in names}
