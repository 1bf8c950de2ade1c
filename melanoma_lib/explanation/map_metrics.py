"""Scores of heat maps, as `explanations` left them: read, compared, and with intervals.

Needs no network, so that tables and figures are made without importing one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation.bootstrap import MIN_LESIONS, interval
from melanoma_lib.evaluation.predictions import Predictions

FILE, MAPS = "explanations.parquet", "explanations.npz"  # the scores, and some maps, small
SCHEMA = 3
SCORES = ("inside", "pointing", "iou", "road")
CENTRE, UNIFORM = "centre prior", "uniform map"
COUNTS = ("images", "without_mask", "chosen_on", "faithful_images")
NAME = ["network", "map", "target"]  # what names a map
TITLES = {"grad_cam": "Grad-CAM", "layer_cam": "LayerCAM"}  # of the methods, in print


def read(folder: Path) -> pd.DataFrame | None:
    """What `explain` left in a run folder, or None where it is not all there or another's."""
    try:
        table = pd.read_parquet(Path(folder) / FILE)
    except (OSError, ValueError):
        return None
    whole = table.attrs.get("schema") == SCHEMA and (Path(folder) / MAPS).exists()
    return table if whole else None


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of maps in the last axis; NaN for a constant or missing one."""
    from scipy.stats import rankdata  # slow to import

    first, second = (rankdata(maps, axis=-1) - (maps.shape[-1] + 1) / 2 for maps in (first, second))
    with np.errstate(invalid="ignore"):
        return (first * second).sum(-1) / np.sqrt((first**2).sum(-1) * (second**2).sum(-1))


def agreement(
    folders: Sequence[Path], test: Predictions, weights: np.ndarray
) -> dict[str, float | None]:
    """The figure of how alike two networks' Grad-CAM maps are, by `similarity`.

    Each is of the class that its network predicts.
    """
    rows, maps = zip(*(_maps_of(folder, test) for folder in folders), strict=True)
    both = np.intersect1d(*rows)
    pair = [found["trained/grad_cam"][np.searchsorted(at, both)]
            for at, found in zip(rows, maps, strict=True)]  # fmt: skip
    return _figure(similarity(*pair), both, weights)


def _maps_of(folder: Path, test: Predictions) -> tuple[np.ndarray, Mapping]:
    """The small maps in a run folder, and the rows of the test part they are of, in order."""
    with np.load(Path(folder) / MAPS) as file:
        maps = dict(file)
    return np.flatnonzero(np.isin(test.image_ids, maps["image_ids"])), maps


def _figure(values: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> dict[str, float | None]:
    return interval(float(nan_mean(values)), nan_mean(values, weights[:, rows]))


def nan_mean(scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Means over the rows (n, ...) of what is known, or of every resample's; NaN for none."""
    weights = np.ones(len(scores)) if weights is None else weights
    known = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        return weights @ np.where(known, scores, 0) / (weights @ known)


def summarise(folder: Path, bundle: Mapping, test: Predictions, weights: np.ndarray) -> dict | None:
    """The figures of one model's maps, ready for JSON; None unless its very weights are scored.

    `weights` are the resamples of the whole test part (resamples, n). Fields: docs/results.md.
    """
    table = read(folder)
    if table is None or table.attrs["weights_sha256"] != bundle.get("weights_sha256"):
        return None
    scores, empty, share = {}, {}, {}
    for name, rows in table.groupby(NAME, sort=False):
        scores[name] = rows.set_index("image_id")[list(SCORES)].reindex(test.image_ids).to_numpy()
        empty[name], share[name] = int(rows["empty"].sum()), float(rows["share"].iloc[0])
    groups = {"right": test.logits.argmax(1) == test.labels}
    groups |= {"wrong": ~groups["right"]}
    groups |= {code: test.labels == label for label, code in enumerate(CLASS_NAMES)}
    rows, small = _maps_of(folder, test)
    maps = []
    for name, values in scores.items():
        row = dict(zip(NAME, name, strict=True))
        row |= {"share": share[name] if np.isfinite(share[name]) else None, "empty": empty[name]}
        row |= _figures(values, test.lesion_ids, weights)
        if name[0] != "none":
            centre = scores["none", CENTRE, "predicted"]
            row["minus_centre"] = _differences(values, centre, weights)
        if name[0] == "trained":
            row["minus_random"] = _differences(values, scores.get(("random", *name[1:])), weights)
            row["groups"] = [
                {"group": group, "images": int(inside.sum())}
                | _figures(values[inside], test.lesion_ids[inside], weights[:, inside])
                for group, inside in groups.items() if inside.any()
            ]  # fmt: skip
        if name[::2] == ("trained", "predicted"):
            trained, centre = small[f"trained/{name[1]}"], small[f"none/{CENTRE}"]
            row["like_centre"] = _figure(similarity(trained, centre), rows, weights)
            row["randomised"] = [
                {"share": float(part),
                 "similarity": _figure(similarity(trained, other), rows, weights)}
                for part, other in zip(small["shares"], small[f"randomised/{name[1]}"], strict=True)
            ]  # fmt: skip
        maps.append(row)
    counts = {name: table.attrs[name] for name in COUNTS}
    return {**counts, "layer": table.attrs["layer"], "maps": maps}


def map_estimates(explained: Mapping, network: str = "trained", method: str = "grad_cam") -> dict:
    """The figures of one map of the predicted class in what `summarise` gives."""
    wanted = [network, method, "predicted"]
    return next(row for row in explained["maps"] if [row[name] for name in NAME] == wanted)


def _figures(values: np.ndarray, lesion_ids: np.ndarray, weights: np.ndarray) -> dict[str, dict]:
    """Each score's figure; the scores against masks are shares, ROAD is none."""
    value, drawn, figures = nan_mean(values), nan_mean(values, weights), {}
    for column, name in enumerate(SCORES):
        known = np.isfinite(values[:, column])
        n_clusters = len(set(lesion_ids[known])) if name != "road" else None
        fraction = name == "pointing" or (n_clusters or MIN_LESIONS) < MIN_LESIONS
        n_images = int(known.sum()) if fraction else None
        figures[name] = interval(value[column], drawn[:, column], n_clusters, n_images)
    return figures


def _differences(
    values: np.ndarray, other: np.ndarray | None, weights: np.ndarray
) -> dict[str, dict]:
    """The mean of one map's scores minus another's, over the images where both have heat."""
    apart = values - (np.nan if other is None else other)
    value, drawn = nan_mean(apart), nan_mean(apart, weights)
    return {name: interval(value[column], drawn[:, column]) for column, name in enumerate(SCORES)}
