"""Explanations scored: how much of the heat finds the lesion, and how faithful the maps are.

Beside a network's maps stand those of the same network with random weights, and two that know
nothing about the image. `explain` scores every map, `summarise` makes figures of the scores.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import nn

from melanoma_lib import xai
from melanoma_lib.artifacts import atomic_path, digest
from melanoma_lib.bundle import load_bundle
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.metadata import DatasetFiles
from melanoma_lib.data.pixels import decode, read_mask
from melanoma_lib.intervals import FEW, interval
from melanoma_lib.models import build_model, normalise, pick_device, to_input
from melanoma_lib.predictions import Predictions, load_predictions
from melanoma_lib.progress import progress

FILE = "explanations.parquet"
SCHEMA = 1
SEED = 42  # of the random network, of the draws of images, and of ROAD's noise
BATCH = 32
REMOVED = 20  # per cent of the pixels that ROAD takes away
SCORES = ("inside", "pointing", "iou", "road")
CENTRE, UNIFORM = "centre prior", "uniform map"
COUNTS = ("images", "without_mask", "chosen_on", "faithful_images")
NAME = ["network", "map", "target"]  # what names a map
Scored = dict[tuple[str, str, str], np.ndarray]  # by a map's name, one row an image


def explain(
    folder: Path,
    files: DatasetFiles,
    device: str = "auto",
    faithful_images: int = 32,
    chosen_on: int = 200,
) -> pd.DataFrame:
    """The scores of a trained architecture's maps, one row a test image and map.

    Columns: image_id, lesion_id, label and predicted (codes); `network` (trained, random, or none
    for a baseline), `map` (a method of `xai.METHODS`, or a baseline), `target`, the class that is
    explained (predicted or melanoma); `share`, where the map is cut for iou, chosen on up to
    `chosen_on` validation images; inside, pointing and iou (see `xai`) where there is a mask, and
    road of `faithful_images`. NaN: not measured, or `empty`, a map of zeros. Kept as
    `explanations.parquet` in the run folder, and only read while weights and masks are the same.
    """
    model, facts = load_bundle(folder)
    predictions = load_predictions(Path(folder) / "predictions.parquet")
    key = digest([SCHEMA, facts["weights_sha256"], files.fingerprint, files.contents,
                  predictions.image_ids.tolist(), faithful_images, chosen_on])  # fmt: skip
    known = read(folder)
    if known is not None and known.attrs["key"] == key:
        return known
    val, test = (predictions.part(name) for name in ("val", "test"))
    scored, may_choose = ([row for row, name in enumerate(part.image_ids) if name in files.masks]
                          for part in (test, val))  # fmt: skip
    chosen, faithful = draw(may_choose, chosen_on), draw(range(len(test.labels)), faithful_images)
    subject = _Subject(files, facts, model.to(pick_device(device)))
    cuts = {name: int(np.nan_to_num(_mean(scores[:, 3:])).argmax())
            for name, scores in subject.against_masks(val, chosen).items()}  # fmt: skip
    found = subject.against_masks(test, scored), subject.faithfulness(test, faithful)
    table = _table(test, (scored, faithful), found, cuts)
    table.attrs = {
        "key": key, "weights_sha256": facts["weights_sha256"], "layer": subject.layer,
        "images": len(scored), "without_mask": len(test.labels) - len(scored),
        "chosen_on": len(chosen), "faithful_images": len(faithful),
    }  # fmt: skip
    with atomic_path(Path(folder) / FILE) as temporary:
        table.to_parquet(temporary, index=False)
    return table


def read(folder: Path) -> pd.DataFrame | None:
    """What `explain` left in a run folder, or None where there is nothing that can be read."""
    try:
        return pd.read_parquet(Path(folder) / FILE)
    except (OSError, ValueError):
        return None


def draw(rows: Sequence[int], count: int) -> np.ndarray:
    """Up to `count` of the rows in order, drawn with a fixed seed."""
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:count]).astype(int)


def random_network(facts: Mapping) -> nn.Module:
    """The architecture of a bundle with random weights, the same ones every time."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return build_model(facts["architecture"], len(CLASS_NAMES), facts["image_size"]).eval()


@dataclass
class _Subject:
    """A trained network and what its maps are scored on."""

    files: DatasetFiles
    facts: dict
    model: nn.Module

    def __post_init__(self):
        self.device = next(self.model.parameters()).device
        self.size = self.facts["image_size"]
        self.pixels = decode(self.files, self.size)
        self.row_of = {name: row for row, name in enumerate(self.files.metadata["image_id"])}
        first = self.inputs(self.files.metadata["image_id"][:1])
        self.layer = xai.cam_layer(self.model, first)

    def inputs(self, image_ids: Sequence[str]) -> torch.Tensor:
        images = self.pixels[[self.row_of[name] for name in image_ids]]
        images = to_input(torch.from_numpy(images).permute(0, 3, 1, 2), self.device)
        return normalise(images, self.facts["mean"], self.facts["std"])

    def against_masks(self, part: Predictions, rows: Sequence[int]) -> Scored:
        """By map: empty, inside, pointing and the overlaps of each row, (rows, 3 + shares)."""
        networks = {"trained": self.model, "random": random_network(self.facts).to(self.device)}
        paths = [self.files.masks[name] for name in part.image_ids[rows]]
        with ThreadPoolExecutor() as pool:
            masks = np.array(list(pool.map(lambda path: read_mask(path, self.size), paths)))

        def score(at: slice, _inputs, _predicted, heat: np.ndarray) -> np.ndarray:
            scores = (xai.heat_inside, xai.pointing_game, xai.overlaps)
            return np.column_stack([score(heat, masks[at]) for score in scores])

        return self._each(part, rows, networks, ("predicted", "melanoma"), score)

    def faithfulness(self, part: Predictions, rows: Sequence[int]) -> Scored:
        """By map of the trained network and baseline: empty, and ROAD, (rows, 2)."""

        def score(_at: slice, inputs, predicted, heat: np.ndarray) -> np.ndarray:
            return road(self.model, inputs, predicted, heat)[:, None]

        return self._each(part, rows, {"trained": self.model}, ("predicted",), score)

    def _each(
        self, part: Predictions, rows: Sequence[int], networks: Mapping[str, nn.Module],
        targets: Sequence[str], score: Callable,
    ) -> Scored:  # fmt: skip
        """By map, whether it is empty, and its scores in columns (NaN for an empty one)."""
        found = defaultdict(list)
        for start in progress(range(0, len(rows), BATCH), "scoring maps"):
            at = slice(start, start + BATCH)
            inputs = self.inputs(part.image_ids[rows[at]])
            predicted = part.logits[rows[at]].argmax(1)
            classes = {"predicted": predicted,
                       "melanoma": np.full(len(inputs), CLASS_NAMES.index(MELANOMA))}  # fmt: skip
            for name, heat in self._maps(inputs, networks, {t: classes[t] for t in targets}):
                empty = ~heat.any((1, 2))
                scores = score(at, inputs, predicted, heat)
                scores = np.where(empty[:, None], np.nan, scores)
                found[name].append(np.column_stack([empty, scores]))
        return {name: np.concatenate(values) for name, values in found.items()}

    def _maps(
        self, inputs: torch.Tensor, networks: Mapping[str, nn.Module], classes: Mapping
    ) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
        for network, model in networks.items():
            for target, wanted in classes.items():
                found = xai.class_gradients(model, [self.layer], inputs, wanted)[self.layer]
                for method in xai.METHODS:
                    heat = xai.heat_from(model, *found, self.size, method)
                    yield (network, method, target), heat
        shape = len(inputs), self.size, self.size
        yield ("none", CENTRE, "predicted"), np.broadcast_to(xai.centre_prior(self.size), shape)
        yield ("none", UNIFORM, "predicted"), np.ones(shape, np.float32)


def road(
    model: nn.Module, inputs: torch.Tensor, classes: Sequence[int], heat: np.ndarray
) -> np.ndarray:
    """How much more of a class's probability goes with the hottest fifth than with the coldest.

    Half the difference, (n,), in [-0.5, 0.5]: what is removed is filled in from around it. Only
    the order of the pixels counts; equal ones are in random order, so that a uniform map stands
    for a random one (ROAD; Rong et al., 2022).
    """
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    n, pixels = len(heat), heat[0].size
    shuffle = np.random.default_rng(SEED).permutation(pixels)
    ranks = np.empty((n, pixels), np.float32)
    ranks[:, shuffle] = rankdata(heat.reshape(n, -1)[:, shuffle], "ordinal", axis=1) / pixels
    targets = [ClassifierOutputSoftmaxTarget(int(index)) for index in classes]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)  # of the noise in what is filled in
        return ROADCombined([100 - REMOVED])(inputs, ranks.reshape(heat.shape), targets, model)


def _table(
    test: Predictions, rows: tuple[Sequence[int], ...], found: tuple[Scored, ...], cuts: Mapping
) -> pd.DataFrame:
    """One row an image and map, of what was found `against_masks` and as `faithfulness`."""
    predicted, names = test.logits.argmax(1), np.array(CLASS_NAMES)
    tables = []
    for name in dict.fromkeys(name for scores in found for name in scores):
        columns = np.full((5, len(test.labels)), np.nan)  # empty, and SCORES
        if name in found[0]:
            columns[:3, rows[0]] = found[0][name][:, :3].T
            columns[3, rows[0]] = found[0][name][:, 3 + cuts[name]] if name in cuts else np.nan
        if name in found[1]:
            columns[np.ix_([0, 4], rows[1])] = found[1][name].T
        tables.append(
            pd.DataFrame(
                {"image_id": test.image_ids, "lesion_id": test.lesion_ids,
                 "label": names[test.labels], "predicted": names[predicted],
                 "right": predicted == test.labels, **dict(zip(NAME, name, strict=True)),
                 "share": float(xai.SHARES[cuts[name]]) if name in cuts else np.nan,
                 **dict(zip(("empty", *SCORES), columns, strict=True))}
            ).dropna(subset="empty")
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True).astype({"empty": bool})


def _mean(scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
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
        maps.append(row)
    counts = {name: table.attrs[name] for name in COUNTS}
    return {**counts, "layer": table.attrs["layer"], "maps": maps}


def of_map(
    explained: Mapping, network: str = "trained", method: str = "grad_cam",
    target: str = "predicted",
) -> dict:  # fmt: skip
    """The figures of one map in what `summarise` gives."""
    wanted = [network, method, target]
    return next(row for row in explained["maps"] if [row[name] for name in NAME] == wanted)


def _figures(values: np.ndarray, lesion_ids: np.ndarray, weights: np.ndarray) -> dict[str, dict]:
    """Each score's figure; the scores against masks are shares, ROAD is none."""
    value, drawn, figures = _mean(values), _mean(values, weights), {}
    for column, name in enumerate(SCORES):
        lesions = len(set(lesion_ids[np.isfinite(values[:, column])])) if name != "road" else None
        share = name == "pointing" or (lesions or FEW) < FEW
        figures[name] = interval(value[column], drawn[:, column], lesions, share)
    return figures


def _differences(
    values: np.ndarray, other: np.ndarray | None, weights: np.ndarray
) -> dict[str, dict]:
    """The mean of one map's scores minus another's, over the images where both have heat."""
    apart = values - (np.nan if other is None else other)
    value, drawn = _mean(apart), _mean(apart, weights)
    return {name: interval(value[column], drawn[:, column]) for column, name in enumerate(SCORES)}
