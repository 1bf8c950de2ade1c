"""Scores of a trained network's heat maps, against lesion masks and by faithfulness.

Baselines stand beside them: the same architecture with random weights, a centre prior and a
uniform map. `score_heat_maps` scores every map; `map_metrics` makes estimates of the scores.
"""

import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import nn
from torch.nn import functional as F

from melanoma_lib.core.environment import pick_device, usable_cores
from melanoma_lib.core.files import atomic_path, digest, read_json
from melanoma_lib.core.progress import progress
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode, read_mask
from melanoma_lib.evaluation.predictions import Predictions, load_predictions
from melanoma_lib.explanation import gradcam, mask_metrics
from melanoma_lib.explanation.map_metrics import (
    CENTRE_PRIOR,
    MAP_COLUMNS,
    MAPS_FILE,
    SCHEMA,
    SCORES,
    SCORES_FILE,
    UNIFORM_MAP,
    nan_mean,
    read_scores,
)
from melanoma_lib.models.build import build_model, normalise, to_input
from melanoma_lib.models.bundle import load_bundle

SEED = 42  # of the random weights, the subsamples of images and ROAD's noise
BATCH_SIZE = 32
REMOVED_PERCENT = 20  # of the pixels, by ROAD
GRID_SIDE = 16  # cells a side of the pooled maps
RANDOMISATION_STEPS = 5  # after the first, which randomises the output layer alone
MapScores = dict[tuple[str, str, str], np.ndarray]  # by network, map and target; a row an image


def score_heat_maps(
    folder: Path,
    files: DatasetFiles,
    device: str = "auto",
    faithful_images: int = 32,
    chosen_on: int = 200,
) -> pd.DataFrame | None:
    """Scores of one architecture's heat maps, a row a test image and map; kept in its folder.

    Columns: image_id, lesion_id, label and predicted (class codes), right; `network` (trained,
    random, or none for a baseline), `map` (of `gradcam.METHODS`, or a baseline) and `target`, the
    class explained (predicted or melanoma); `empty`, whether the map is all zero; `share`, the
    threshold of the IoU, the best of `mask_metrics.THRESHOLDS` on up to `chosen_on` validation
    images, at most half of all; the scores inside, pointing and iou (`mask_metrics`) of images
    with a mask, and `road` of up to `faithful_images`, at most an eighth of all. NaN: not
    measured, or an empty map.

    Written to `explanations.parquet`, and returned from there as long as weights, masks and
    arguments are the same; `explanations.npz` beside it holds the maps of the images of `road`,
    pooled, also with weights randomised from the output on (Adebayo et al., 2018). None, and
    nothing is written, for a network that has no heat maps.
    """
    folder = Path(folder)
    weights = read_json(folder / "bundle.json").get("weights_sha256")
    predictions = load_predictions(folder / "predictions.parquet")
    key = digest([SCHEMA, weights, files.fingerprint, files.mask_fingerprint,
                  predictions.image_ids.tolist(), faithful_images, chosen_on])  # fmt: skip
    cached = read_scores(folder)
    if cached is not None and cached.attrs["key"] == key:
        return cached
    model, bundle = load_bundle(folder)
    val, test = (predictions.split(name) for name in ("val", "test"))
    masked, masked_val = ([row for row, name in enumerate(split.image_ids) if name in files.masks]
                          for split in (test, val))  # fmt: skip
    chosen = subsample(masked_val, min(chosen_on, -(-len(masked_val) // 2)))
    n_test = len(test.labels)
    faithful = subsample(range(n_test), max(1, min(faithful_images, n_test // 8)))
    scorer = _MapScorer(files, bundle, model.to(pick_device(device)))
    if not gradcam.has_heat_maps(model, scorer.inputs(test.image_ids[:1])):
        print(f"{folder.name} has no feature map, so there are no heat maps to score", flush=True)
        return None
    thresholds = {name: int(np.nan_to_num(nan_mean(scores[:, 3:])).argmax())
                  for name, scores in scorer.mask_scores(val, chosen).items()}  # fmt: skip
    scores = scorer.mask_scores(test, masked), scorer.road_scores(test, faithful)
    maps = {f"{network}/{name}": values[:, 2:] for (network, name, _), values in scores[1].items()}
    maps |= scorer.randomised_maps(test, faithful) | {"image_ids": test.image_ids[faithful]}
    table = _score_table(test, (masked, faithful), scores, thresholds)
    table.attrs = {
        "schema": SCHEMA, "key": key, "weights_sha256": weights, "layer": scorer.layer,
        "images": len(masked), "without_mask": n_test - len(masked), "chosen_on": len(chosen),
        "faithful_images": len(faithful),
    }  # fmt: skip
    with atomic_path(folder / MAPS_FILE) as temporary:
        np.savez_compressed(temporary, **maps)
    with atomic_path(folder / SCORES_FILE) as temporary:
        table.to_parquet(temporary, index=False)
    return table


def subsample(rows: Sequence[int], count: int) -> np.ndarray:
    """Up to `count` of the rows without replacement, sorted, (count,); always the same ones."""
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:count]).astype(int)


def random_network(bundle: Mapping) -> nn.Module:
    """The architecture of a bundle with random weights, always the same ones, in eval mode.

    `bundle` is the content of bundle.json. PyTorch's global random state is left as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return build_model(bundle["architecture"], len(CLASS_NAMES), bundle["image_size"]).eval()


@dataclass
class _MapScorer:
    """A trained network, the same one with random weights, and the dataset to score them on."""

    files: DatasetFiles
    bundle: dict
    model: nn.Module

    def __post_init__(self):
        self.device = next(self.model.parameters()).device
        self.size = self.bundle["image_size"]
        self.pixels = decode(self.files, self.size)
        self.random = random_network(self.bundle).to(self.device)

    @functools.cached_property
    def layer(self) -> str:
        first = self.inputs(self.files.metadata["image_id"][:1])
        return gradcam.cam_layer(self.model, first)

    def inputs(self, image_ids: Sequence[str]) -> torch.Tensor:
        images = self.pixels[self.files.rows_of(image_ids)]
        images = to_input(torch.from_numpy(images).permute(0, 3, 1, 2), self.device)
        return normalise(images, self.bundle["mean"], self.bundle["std"])

    def mask_scores(self, split: Predictions, rows: Sequence[int]) -> MapScores:
        """Empty, inside, pointing, and the IoU at each threshold, (rows, 3 + thresholds)."""
        models = {"trained": self.model, "random": self.random}
        paths = [self.files.masks[name] for name in split.image_ids[rows]]
        with ThreadPoolExecutor(usable_cores()) as pool:
            masks = np.array(list(pool.map(lambda path: read_mask(path, self.size), paths)))
        metrics = (mask_metrics.heat_inside, mask_metrics.pointing_game,
                   mask_metrics.iou_at_thresholds)  # fmt: skip

        def score(batch: slice, _inputs, _predicted, heat: np.ndarray) -> np.ndarray:
            return np.column_stack([metric(heat, masks[batch]) for metric in metrics])

        return self._score(split, rows, models, ("predicted", "melanoma"), score)

    def road_scores(self, split: Predictions, rows: Sequence[int]) -> MapScores:
        """Empty, ROAD, and the pooled map, (rows, 2 + cells); of the trained network alone."""

        def score(_batch: slice, inputs, predicted, heat: np.ndarray) -> np.ndarray:
            return np.column_stack([road(self.model, inputs, predicted, heat), _pool(heat)])

        return self._score(split, rows, {"trained": self.model}, ("predicted",), score)

    def randomised_maps(self, split: Predictions, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Pooled maps while weights are randomised layer by layer from the output on.

        By `randomised/` and method, (steps, rows, cells); `shares` (steps,) is the fraction of
        layers that are random.
        """
        weights, model = self.random.state_dict(), copy.deepcopy(self.model)
        layer_of = {name: name.rpartition(".")[0] for name in weights}
        layers = list(dict.fromkeys(layer_of.values()))  # from the input to the output
        counts = np.ceil(len(layers) * np.arange(1, RANDOMISATION_STEPS + 1) / RANDOMISATION_STEPS)
        counts = np.unique([1, *counts]).astype(int)
        maps = defaultdict(list)
        for count in counts:
            new = {name: weights[name] for name in weights if layer_of[name] in layers[-count:]}
            model.load_state_dict(new, strict=False)
            pooled = self._score(split, rows, {"randomised": model}, ("predicted",),
                                 lambda _batch, _inputs, _predicted, heat: _pool(heat))  # fmt: skip
            for method in gradcam.METHODS:
                key = "randomised", method, "predicted"
                maps[f"randomised/{method}"].append(pooled[key][:, 1:])
        return {name: np.array(values) for name, values in maps.items()} | {
            "shares": counts / len(layers)
        }

    def _score(
        self, split: Predictions, rows: Sequence[int], models: Mapping[str, nn.Module],
        targets: Sequence[str], score: Callable,
    ) -> MapScores:  # fmt: skip
        """By map, whether it is empty, and beside it `score`'s columns, NaN for an empty map."""
        found, centre = defaultdict(list), mask_metrics.centre_prior(self.size)
        for start in progress(range(0, len(rows), BATCH_SIZE), "scoring maps"):
            batch, maps = slice(start, start + BATCH_SIZE), {}
            inputs = self.inputs(split.image_ids[rows[batch]])
            predicted = split.logits[rows[batch]].argmax(1)
            melanoma = np.full(len(inputs), CLASS_NAMES.index(MELANOMA))
            classes = {"predicted": predicted, "melanoma": melanoma}
            for network, model in models.items():
                layers = gradcam.class_gradients(
                    model, [self.layer], inputs, *(classes[target] for target in targets)
                )
                features, *gradients = layers[self.layer]
                for target, gradient in zip(targets, gradients, strict=True):
                    for method in gradcam.METHODS:
                        heat = gradcam.compute_cam(model, features, gradient, self.size, method)
                        maps[network, method, target] = heat
            shape = len(inputs), self.size, self.size
            maps["none", CENTRE_PRIOR, "predicted"] = np.broadcast_to(centre, shape)
            maps["none", UNIFORM_MAP, "predicted"] = np.ones(shape, np.float32)
            for key, heat in maps.items():
                empty = ~heat.any((1, 2))
                scores = np.where(empty[:, None], np.nan, score(batch, inputs, predicted, heat))
                found[key].append(np.column_stack([empty, scores]))
        return {key: np.concatenate(scores) for key, scores in found.items()}


def road(
    model: nn.Module, inputs: torch.Tensor, classes: Sequence[int], heat: np.ndarray
) -> np.ndarray:
    """Faithfulness: what removing the hottest pixels costs a class beyond removing the coldest.

    Half the difference in the probability of `classes` (one an image), (n,) in [-0.5, 0.5]; `heat`
    is (n, height, width). A fifth of the pixels is removed and imputed from around it. Only the
    order of pixels counts; ties are broken at random, so that a uniform map removes random pixels
    (Rong et al., 2022).
    """
    from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    n, pixels = len(heat), heat[0].size
    shuffle = np.random.default_rng(SEED).permutation(pixels)
    ranks = np.empty((n, pixels), np.float32)
    ranks[:, shuffle] = rankdata(heat.reshape(n, -1)[:, shuffle], "ordinal", axis=1) / pixels
    targets = [ClassifierOutputSoftmaxTarget(int(index)) for index in classes]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)  # of the noise in the imputed pixels
        least, most = (  # as ROADCombined, without predicting the untouched images twice
            metric(100 - REMOVED_PERCENT)(
                inputs, ranks.reshape(heat.shape), targets, model, return_diff=False
            )
            for metric in (ROADLeastRelevantFirst, ROADMostRelevantFirst)
        )
    return (least - most) / 2


def _pool(heat: np.ndarray) -> np.ndarray:
    """Maps averaged over the cells of a grid, in rows, (n, `GRID_SIDE` ** 2)."""
    heat = torch.from_numpy(np.array(heat, np.float32))
    return F.adaptive_avg_pool2d(heat, GRID_SIDE).flatten(1).numpy()


def _score_table(
    test: Predictions, rows: tuple[Sequence[int], ...], scores: tuple[MapScores, ...],
    thresholds: Mapping,
) -> pd.DataFrame:  # fmt: skip
    """One row an image and map, from `mask_scores` and `road_scores` and the rows of each."""
    predicted, codes = test.logits.argmax(1), np.array(CLASS_NAMES)
    tables = []
    for key in dict.fromkeys(key for by_map in scores for key in by_map):
        columns = np.full((5, len(test.labels)), np.nan)  # empty, and SCORES
        threshold = thresholds.get(key)
        if key in scores[0]:
            columns[:3, rows[0]] = scores[0][key][:, :3].T
            columns[3, rows[0]] = np.nan if threshold is None else scores[0][key][:, 3 + threshold]
        if key in scores[1]:
            columns[np.ix_([0, 4], rows[1])] = scores[1][key][:, :2].T
        share = np.nan if threshold is None else float(mask_metrics.THRESHOLDS[threshold])
        tables.append(
            pd.DataFrame(
                {"image_id": test.image_ids, "lesion_id": test.lesion_ids,
                 "label": codes[test.labels], "predicted": codes[predicted],
                 "right": predicted == test.labels, **dict(zip(MAP_COLUMNS, key, strict=True)),
                 "share": share, **dict(zip(("empty", *SCORES), columns, strict=True))}
            ).dropna(subset="empty")
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True).astype({"empty": bool})
