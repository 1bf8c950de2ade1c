"""Scores of heat maps as `score_maps` left them in a run folder: estimates with intervals.

Reads files only, so that tables and figures are made without importing torch.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation.bootstrap import MIN_LESIONS, interval
from melanoma_lib.evaluation.predictions import Predictions

SCORES_FILE, MAPS_FILE = "explanations.parquet", "explanations.npz"
SCHEMA = 3  # of the saved scores of heat maps; raise it when that changes
SCORES = ("inside", "pointing", "iou", "road")
CENTRE_PRIOR, UNIFORM_MAP = "centre prior", "uniform map"  # the baselines
COUNTS = ("images", "without_mask", "chosen_on", "faithful_images")
MAP_COLUMNS = ["network", "map", "target"]  # together they identify a map
METHOD_NAMES = {"grad_cam": "Grad-CAM", "layer_cam": "LayerCAM"}  # in print


def read_scores(folder: Path) -> pd.DataFrame | None:
    """The table that `score_heat_maps` wrote into an architecture's folder, a row an image and map.

    None if it or the maps beside it are missing, damaged or of another schema.
    """
    try:
        table = pd.read_parquet(Path(folder) / SCORES_FILE)
    except (OSError, ValueError):
        return None
    complete = table.attrs.get("schema") == SCHEMA and (Path(folder) / MAPS_FILE).exists()
    return table if complete else None


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation along the last axis, in [-1, 1]; NaN for a constant map."""
    from scipy.stats import rankdata  # slow to import

    first, second = (rankdata(maps, axis=-1) - (maps.shape[-1] + 1) / 2 for maps in (first, second))
    with np.errstate(invalid="ignore"):
        return (first * second).sum(-1) / np.sqrt((first**2).sum(-1) * (second**2).sum(-1))


def map_agreement(
    folders: Sequence[Path], test: Predictions, weights: np.ndarray
) -> dict[str, float | None]:
    """Estimate of the mean `rank_correlation` between two networks' Grad-CAM maps, in [-1, 1].

    Each map is for the class that its network predicts. `folders` are those of two architectures
    of one run; `weights` those of the bootstrap over the test split, (resamples, n).
    """
    rows, maps = zip(*(_load_maps(folder, test) for folder in folders), strict=True)
    common = np.intersect1d(*rows)
    pair = [arrays["trained/grad_cam"][np.searchsorted(at, common)]
            for at, arrays in zip(rows, maps, strict=True)]  # fmt: skip
    return _estimate(rank_correlation(*pair), common, weights)


def _load_maps(folder: Path, test: Predictions) -> tuple[np.ndarray, Mapping]:
    """The pooled maps of a run folder, and which rows of the test split they belong to."""
    with np.load(Path(folder) / MAPS_FILE) as file:
        maps = dict(file)
    return np.flatnonzero(np.isin(test.image_ids, maps["image_ids"])), maps


def _estimate(values: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> dict[str, float | None]:
    """Estimate of a mean over some rows of the test split."""
    return interval(float(nan_mean(values)), nan_mean(values, weights[:, rows]))


def nan_mean(scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over the first axis of `scores` (n, ...) without NaN, (...); NaN if nothing is left.

    With `weights` (resamples, n) the weighted mean of every resample, (resamples, ...).
    """
    weights = np.ones(len(scores)) if weights is None else weights
    known = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        return weights @ np.where(known, scores, 0) / (weights @ known)


def summarize_map_scores(
    folder: Path, bundle: Mapping, test: Predictions, weights: np.ndarray
) -> dict | None:
    """Estimates of the scores of one architecture's maps, ready for JSON; fields: docs/results.md.

    `bundle` is the content of bundle.json, `weights` are those of the bootstrap over the test
    split, (resamples, n). None unless the scores in `folder` are of exactly the bundle's weights.
    """
    table = read_scores(folder)
    if table is None or table.attrs["weights_sha256"] != bundle.get("weights_sha256"):
        return None
    by_map = dict(iter(table.groupby(MAP_COLUMNS, sort=False)))
    scores = {
        key: rows.set_index("image_id")[list(SCORES)].reindex(test.image_ids).to_numpy()
        for key, rows in by_map.items()
    }
    correct = test.logits.argmax(1) == test.labels
    groups = {"right": correct, "wrong": ~correct}
    groups |= {code: test.labels == label for label, code in enumerate(CLASS_NAMES)}
    rows, pooled = _load_maps(folder, test)
    maps = []
    for key, values in scores.items():
        row = dict(zip(MAP_COLUMNS, key, strict=True))
        threshold = float(by_map[key]["share"].iloc[0])
        row |= {"share": threshold if np.isfinite(threshold) else None,
                "empty": int(by_map[key]["empty"].sum())}  # fmt: skip
        row |= _score_estimates(values, test.lesion_ids, weights)
        if row["network"] != "none":
            baseline = scores["none", CENTRE_PRIOR, "predicted"]
            row["minus_centre"] = _difference_estimates(values, baseline, weights)
        if row["network"] == "trained":
            random = scores.get(("random", *key[1:]), np.nan)
            row["minus_random"] = _difference_estimates(values, random, weights)
            row["groups"] = [
                {"group": group, "images": int(inside.sum())}
                | _score_estimates(values[inside], test.lesion_ids[inside], weights[:, inside])
                for group, inside in groups.items() if inside.any()
            ]  # fmt: skip
        if (row["network"], row["target"]) == ("trained", "predicted"):
            trained, centre = pooled[f"trained/{row['map']}"], pooled[f"none/{CENTRE_PRIOR}"]
            row["like_centre"] = _estimate(rank_correlation(trained, centre), rows, weights)
            steps = zip(pooled["shares"], pooled[f"randomised/{row['map']}"], strict=True)
            row["randomised"] = [
                {"share": float(fraction),
                 "similarity": _estimate(rank_correlation(trained, other), rows, weights)}
                for fraction, other in steps
            ]  # fmt: skip
        maps.append(row)
    return {name: table.attrs[name] for name in (*COUNTS, "layer")} | {"maps": maps}


def map_estimates(explained: Mapping, network: str = "trained", method: str = "grad_cam") -> dict:
    """The entry of one map, for the predicted class, in the result of `summarize_map_scores`."""
    wanted = [network, method, "predicted"]
    return next(row for row in explained["maps"] if [row[name] for name in MAP_COLUMNS] == wanted)


def _score_estimates(
    scores: np.ndarray, lesion_ids: np.ndarray, weights: np.ndarray
) -> dict[str, dict]:
    """Estimates of the mean of each of `SCORES` (n, scores); all but ROAD are fractions."""
    value, resampled, estimates = nan_mean(scores), nan_mean(scores, weights), {}
    for column, name in enumerate(SCORES):
        known = np.isfinite(scores[:, column])
        n_clusters = len(set(lesion_ids[known])) if name != "road" else None
        fraction = name == "pointing" or (n_clusters or MIN_LESIONS) < MIN_LESIONS
        # Where pixels tie, pointing is a fraction of an image and varies less than hits and misses.
        binary = np.isin(scores[known, column], (0, 1)).all()
        n_images = (int(known.sum()) if binary else math.inf) if fraction else None
        estimates[name] = interval(value[column], resampled[:, column], n_clusters, n_images)
    return estimates


def _difference_estimates(
    scores: np.ndarray, other: np.ndarray | float, weights: np.ndarray
) -> dict[str, dict]:
    """Estimates of the mean paired difference, over images where neither map is empty."""
    value, resampled = nan_mean(scores - other), nan_mean(scores - other, weights)
    return {name: interval(value[i], resampled[:, i]) for i, name in enumerate(SCORES)}
