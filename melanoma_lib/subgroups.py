"""Where a model fails: its figures by group of patients, and its most confident errors."""

from itertools import pairwise

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.intervals import estimate
from melanoma_lib.metrics import accuracy, auc, sensitivity, specificity, top_class
from melanoma_lib.predictions import Predictions

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
SMALL = 10  # lesions with melanoma, and others: with fewer, a group's figures mean little


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
            lesions = test.lesion_ids[inside]
            melanomas = len(set(lesions[positive]))
            others = len(set(lesions[~positive]))
            whole = test.labels[inside], probabilities[inside]
            called = positive, score, threshold
            rows.append(
                {
                    "attribute": attribute,
                    "group": name,
                    "images": int(count),
                    "lesions": len(set(lesions)),
                    "melanoma_lesions": melanomas,
                    "small": min(melanomas, others) < SMALL,
                    "accuracy": estimate(
                        accuracy, *whole, weights=drawn, lesions=len(set(lesions))
                    ),
                    "melanoma_auc": _enough(
                        estimate(auc, positive, score, weights=drawn), min(melanomas, others)
                    ),
                    "sensitivity": _enough(
                        estimate(sensitivity, *called, weights=drawn, lesions=melanomas), melanomas
                    ),
                    "specificity": _enough(
                        estimate(specificity, *called, weights=drawn, lesions=others), others
                    ),
                }
            )
    return rows


def _enough(figure: dict, lesions: int) -> dict:
    """The figure, without its interval where there are too few lesions to draw from.

    Drawing from one melanoma gives that melanoma again, which would look like certainty.
    """
    exact = lesions and figure["value"] in (0, 1)
    return figure if lesions >= SMALL or exact else figure | {"low": None, "high": None}


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
