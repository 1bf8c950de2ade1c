"""Metrics of networks on altered images as `occlusion` left them in a run folder, with intervals.

Reads files only, so that tables and figures are made without importing torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from melanoma_lib.data.artifacts import ARTIFACTS
from melanoma_lib.data.shifts import SHIFTS
from melanoma_lib.evaluation.bootstrap import format_estimate, interval
from melanoma_lib.evaluation.model_metrics import bootstrap_metrics, metric_differences
from melanoma_lib.evaluation.predictions import Predictions, load_predictions, saved_key
from melanoma_lib.evaluation.trained_run import TrainedRun
from melanoma_lib.evaluation.trainings import estimate_of_trainings

SCHEMA = 2  # of the saved predictions; raise it when that changes
OCCLUSION_FILE = "occlusion-{}.parquet"  # by split, in an architecture's folder
CHANCE = 0.5  # the AUC of a score without information
METRICS = ("accuracy", "balanced_accuracy", "melanoma_auc")
ALTERATIONS = {  # in print
    "lesion_hidden": "lesion painted over",
    "only_lesion": "only the lesion",
    "only_frame": "only the frame",
    **{f"{name}_added": f"{words} added" for name, (_, words) in ARTIFACTS.items()},
    **{f"{name}_removed": f"{words} removed" for name, (_, words) in ARTIFACTS.items()},
    **{name: words for name, (_, words) in SHIFTS.items()},
}


def load_altered_predictions(
    folder: Path, trained: TrainedRun, split: str = "test"
) -> Predictions | None:
    """What `predict_altered` left in a network's folder; `splits` names the alterations.

    None where there is nothing of exactly these weights.
    """
    path = folder / OCCLUSION_FILE.format(split)
    ours = (saved_key(path) or "").startswith(trained.bundle["weights_sha256"])
    return load_predictions(path) if ours else None


def summarize_occlusion(
    folder: Path, trained: TrainedRun, weights: np.ndarray, split: str = "test"
) -> list[dict] | None:
    """Estimates of one network on each alteration of the images, ready for JSON.

    A dictionary each; fields: docs/results.md. `weights` are those of the bootstrap over the split,
    (resamples, n). None as in `load_altered_predictions`.
    """
    altered = load_altered_predictions(folder, trained, split)
    if altered is None:
        return None
    images = trained.predictions.split(split)
    found = []
    for name in dict.fromkeys(altered.splits):
        shown = altered.split(name)
        rows = np.flatnonzero(np.isin(images.image_ids, shown.image_ids))
        both = [
            trained._replace(predictions=replace(each, splits=np.full(len(rows), "test")))
            for each in (shown, images.take(rows))
        ]
        chosen = weights[:, rows][weights[:, rows].any(1)]  # resamples that show any of them
        after, before = (bootstrap_metrics([each], chosen, METRICS) for each in both)
        temperature = trained.bundle["temperature"]
        scores = [each.predictions.melanoma_probability(temperature) for each in both]
        change = scores[0] - scores[1]
        found.append({
            "alteration": str(name), "images": len(rows), "lesions": shown.count_lesions(),
            "original": {metric: estimate_of_trainings(each) for metric, each in before.items()},
            "metrics": {metric: estimate_of_trainings(each) for metric, each in after.items()},
            "minus_original": metric_differences(before, after, METRICS),
            "melanoma_score_change": interval(change.mean(), chosen @ change / chosen.sum(1)),
        })  # fmt: skip
    return found


def describe_occlusion(name: str, found: Sequence[Mapping]) -> str:
    """A sentence on whether a network still tells melanoma without the lesion.

    `found` is what `summarize_occlusion` returns. "" where no lesion was hidden.
    """
    by_name = {row["alteration"]: row for row in found}
    if "lesion_hidden" not in by_name:
        return ""
    row = by_name["lesion_hidden"]
    auc = row["metrics"]["melanoma_auc"]
    if auc["low"] is not None and auc["low"] > CHANCE:
        verdict = "it still tells melanoma without the lesion, from what is beside it"
    else:
        verdict = "it has not been shown to tell melanoma without the lesion"
    return (
        f"{name}: with the lesion painted over, its melanoma AUC goes from "
        f"{format_estimate(row['original']['melanoma_auc'])} to {format_estimate(auc)}; {verdict}."
    )
