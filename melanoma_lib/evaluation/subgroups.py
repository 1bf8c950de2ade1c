"""Where a model fails: its figures by group of patients, and its most confident errors."""

from itertools import pairwise

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.bootstrap import MIN_LESIONS, estimate
from melanoma_lib.evaluation.metrics import accuracy, auc, sensitivity, specificity, top_class
from melanoma_lib.evaluation.predictions import Predictions

ATTRIBUTES = {
    "sex": "Sex",
    "age": "Age (years)",
    "localization": "Body site",
    "dx_type": "How the diagnosis was made",
}
DX_TYPES = {
    "histo": "histopathology",
    "follow_up": "follow-up",
    "consensus": "expert consensus",
    "confocal": "confocal microscopy",
}
AGES = (0, 30, 45, 60, 75, np.inf)  # years: the bands' lower edges, and the end of the last


def groups(metadata: pd.DataFrame) -> pd.DataFrame:
    """The group every image belongs to, by attribute: one column each, `unknown` where missing."""
    names = [
        f"{low} to {high - 1}" if np.isfinite(high) else f"{low} or older"
        for low, high in pairwise(AGES)
    ]
    table = metadata[list(ATTRIBUTES)].astype({"age": float})
    table["age"] = pd.cut(table["age"], AGES, right=False, labels=names).astype(object)
    table["dx_type"] = table["dx_type"].replace(DX_TYPES)
    return table.fillna("unknown").set_index(metadata["image_id"])


def by_subgroup(
    test: Predictions,
    metadata: pd.DataFrame,
    temperature: float,
    threshold: float,
    weights: np.ndarray,
) -> list[dict]:
    """A model's figures in every group, with intervals; `small` marks groups of few lesions.

    Fields: attribute, group, images, lesions, melanoma_lesions, small, and the figures accuracy,
    melanoma_auc, sensitivity and specificity (at the melanoma `threshold`). `weights` are the
    resamples of the whole test part (resamples, n).
    """
    probabilities = test.probabilities(temperature)
    scores = probabilities[:, CLASS_NAMES.index(MELANOMA)]
    group_of = groups(metadata).loc[test.image_ids]
    rows = []
    for attribute in ATTRIBUTES:
        for name, count in group_of[attribute].value_counts().sort_index().items():
            inside = (group_of[attribute] == name).to_numpy()
            positive, score, drawn = test.is_melanoma[inside], scores[inside], weights[:, inside]
            ids = test.lesion_ids[inside]
            lesions, melanomas, others = (len(set(s)) for s in (ids, ids[positive], ids[~positive]))
            rarer = min(melanomas, others)
            figures = {
                "accuracy": (accuracy, test.labels[inside], probabilities[inside], lesions),
                "melanoma_auc": (auc, positive, score, rarer),
                "sensitivity": (sensitivity, positive, score, threshold, melanomas),
                "specificity": (specificity, positive, score, threshold, others),
            }
            rows.append(
                {
                    "attribute": attribute,
                    "group": name,
                    "images": int(count),
                    "lesions": lesions,
                    "melanoma_lesions": melanomas,
                    "small": rarer < MIN_LESIONS,
                }
                | {
                    figure: estimate(
                        metric, *data, weights=drawn, lesions=deciding,
                        share=metric is not auc or deciding < MIN_LESIONS,
                    )
                    for figure, (metric, *data, deciding) in figures.items()
                }
            )
    return rows


def confident_errors(test: Predictions, temperature: float, count: int = 10) -> list[dict]:
    """The errors the model was surest of: image_id, lesion_id, true, predicted, confidence."""
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
