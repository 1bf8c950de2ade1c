"""Where a model fails: by subgroup of patients, by diagnosis, and the most confident errors."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.bootstrap import MIN_LESIONS
from melanoma_lib.evaluation.metrics import (
    accuracy,
    auc,
    calibration_in_the_large,
    class_ece,
    sensitivity,
    specificity,
    top_class,
    weighted_mean,
)
from melanoma_lib.evaluation.operating_points import AtThreshold
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.trained_run import TrainedRun
from melanoma_lib.evaluation.trainings import estimate_metric

ATTRIBUTES = {
    "sex": "Sex",
    "age": "Age (years)",
    "localization": "Body site",
    "dx_type": "How the diagnosis was made",
    "skin_tone": "Skin tone (estimated)",  # where the table has it: see `data.skin_tone`
}
DX_TYPES = {
    "histo": "histopathology",
    "follow_up": "follow-up",
    "consensus": "expert consensus",
    "confocal": "confocal microscopy",
}
AGES = (0, 30, 45, 60, 75, np.inf)  # years: the bands' lower edges, and the end of the last


def groups(metadata: pd.DataFrame) -> pd.DataFrame:
    """The subgroup of every image by attribute: a column each, `unknown` where it is missing."""
    names = [
        f"{low} to {high - 1}" if np.isfinite(high) else f"{low} or older"
        for low, high in pairwise(AGES)
    ]
    table = metadata[[name for name in ATTRIBUTES if name in metadata]].astype({"age": float})
    table["age"] = pd.cut(table["age"], AGES, right=False, labels=names).astype(object)
    table["dx_type"] = table["dx_type"].replace(DX_TYPES)
    if "skin_tone" in table:
        table["skin_tone"] = table["skin_tone"].cat.add_categories("unknown")
    return table.fillna("unknown").set_index(metadata["image_id"])


def by_subgroup(
    trainings: Sequence[AtThreshold],
    scores: Sequence[np.ndarray],
    metadata: pd.DataFrame,
    weights: np.ndarray,
) -> list[dict]:
    """Estimates in every subgroup of the test images, means over a model's trainings.

    A dictionary each: attribute, group, images, lesions, melanoma_lesions, `small` (fewer than
    `MIN_LESIONS` lesions with melanoma, or without), and the estimates accuracy, melanoma_auc,
    sensitivity and specificity (at each training's melanoma threshold). `scores` of each training
    are (n, classes), the highest the diagnosis (see `TrainedRun.decision_scores`); `weights` are
    those of the bootstrap for the whole test split, (resamples, n).
    """
    test, melanoma = trainings[0][0], CLASS_NAMES.index(MELANOMA)
    predicted = [(each.probabilities(t), threshold) for each, t, threshold in trainings]
    group_of = groups(metadata).loc[test.image_ids]
    rows = []
    for attribute in group_of:
        counts = group_of[attribute].value_counts().sort_index()
        for name, count in counts[counts > 0].items():
            inside = (group_of[attribute] == name).to_numpy()
            labels, positive = test.labels[inside], test.is_melanoma[inside]
            lesions, melanomas, others = (
                test.count_lesions(inside & kind)
                for kind in (True, test.is_melanoma, ~test.is_melanoma)
            )
            fewest, images = min(melanomas, others), int(count)
            of_class = [(labels, each[inside]) for each in scores]
            scored = [(positive, p[inside, melanoma]) for p, _ in predicted]
            at_threshold = [(positive, p[inside, melanoma], t) for p, t in predicted]
            exact, w = images if fewest < MIN_LESIONS else None, weights[:, inside]
            rows.append({
                "attribute": attribute,
                "group": name,
                "images": images,
                "lesions": lesions,
                "melanoma_lesions": melanomas,
                "small": fewest < MIN_LESIONS,
                "accuracy": estimate_metric(accuracy, of_class, w, lesions, images),
                "melanoma_auc": estimate_metric(auc, scored, w, fewest, exact),
                "sensitivity": estimate_metric(
                    sensitivity, at_threshold, w, melanomas, int(positive.sum())),
                "specificity": estimate_metric(
                    specificity, at_threshold, w, others, int((~positive).sum())),
            })  # fmt: skip
    return rows


def by_diagnosis(trained: Sequence[TrainedRun], weights: np.ndarray) -> list[dict]:
    """Recall and calibration of every diagnosis on the test split, means over a model's trainings.

    A dictionary each: diagnosis (its code), images, lesions, and the estimates recall (of the
    diagnoses that are decided on), calibration_in_the_large and ece (both of the diagnosis's own
    probability). `weights` are those of the bootstrap, (resamples, n).
    """
    test = trained[0].predictions.split("test")
    decided = [each.predicted_classes("test") for each in trained]
    predicted = [
        each.predictions.split("test").probabilities(each.bundle["temperature"])
        for each in trained
    ]
    rows = []
    for column, code in enumerate(test.class_names):
        inside = test.labels == column
        images, lesions = int(inside.sum()), test.count_lesions(inside)
        found = [(classes[inside] == column,) for classes in decided]
        own = [(inside, probabilities[:, column]) for probabilities in predicted]
        rows.append({
            "diagnosis": code,
            "images": images,
            "lesions": lesions,
            "recall": estimate_metric(weighted_mean, found, weights[:, inside], lesions, images),
            "calibration_in_the_large": estimate_metric(calibration_in_the_large, own, weights),
            "ece": estimate_metric(class_ece, own, weights),
        })  # fmt: skip
    return rows


def confident_errors(test: Predictions, temperature: float, count: int = 10) -> list[dict]:
    """The misclassified images with the highest confidence, a dictionary each.

    Fields: image_id, lesion_id, true and predicted (class codes), confidence.
    """
    probabilities = test.probabilities(temperature)
    predicted, (confidence, right) = probabilities.argmax(1), top_class(test.labels, probabilities)
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return [
        {
            "image_id": str(test.image_ids[row]),
            "lesion_id": str(test.lesion_ids[row]),
            "true": CLASS_NAMES[test.labels[row]],
            "predicted": CLASS_NAMES[predicted[row]],
            "confidence": float(confidence[row]),
        }
        for row in worst
    ]
