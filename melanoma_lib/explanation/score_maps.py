"""Explanations scored: how much of the heat finds the lesion, and how faithful the maps are.

Beside a network's maps stand those of the same network with random weights, and two that know
nothing about the image. `explain` scores every map, `summarise` makes figures of the scores.
"""

import copy
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
from torch.nn import functional as F

from melanoma_lib.core.environment import pick_device
from melanoma_lib.core.files import atomic_path, digest, read_json
from melanoma_lib.core.progress import progress
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode, read_mask
from melanoma_lib.evaluation.predictions import Predictions, load_predictions
from melanoma_lib.explanation import gradcam, mask_metrics
from melanoma_lib.explanation.map_metrics import (
    CENTRE,
    FILE,
    MAPS,
    NAME,
    SCHEMA,
    SCORES,
    UNIFORM,
    nan_mean,
    read,
)
from melanoma_lib.models.build import build_model, normalise, to_input
from melanoma_lib.models.bundle import load_bundle

SEED = 42  # of the random network, of the draws of images, and of ROAD's noise
BATCH = 32
REMOVED = 20  # per cent of the pixels that ROAD takes away
PLACES = 16  # a side of the small maps
STEPS = 5  # in which weights are made random, after the output layer
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
    for a baseline), `map` (of `gradcam.METHODS`, or a baseline), `target`, the class that is
    explained (predicted or melanoma); `share`, where the map is cut for iou, chosen on up to
    `chosen_on` validation images, at most half of all; inside, pointing and iou (see `xai`) where
    there is a mask, and road of up to `faithful_images`, at most an eighth of all. NaN: not
    measured, or `empty`, a map of zeros. Kept as `explanations.parquet` in the run folder, and only
    read while weights and masks are the same; beside it the maps of those images, small, as they
    are and with random weights layer by layer from the output on (Adebayo et al., 2018).
    """
    weights = read_json(Path(folder) / "bundle.json").get("weights_sha256")
    predictions = load_predictions(Path(folder) / "predictions.parquet")
    key = digest([SCHEMA, weights, files.fingerprint, files.mask_fingerprint,
                  predictions.image_ids.tolist(), faithful_images, chosen_on])  # fmt: skip
    known = read(folder)
    if known is not None and known.attrs["key"] == key:
        return known
    model, bundle = load_bundle(folder)
    val, test = (predictions.part(name) for name in ("val", "test"))
    scored, may_choose = ([row for row, name in enumerate(part.image_ids) if name in files.masks]
                          for part in (test, val))  # fmt: skip
    chosen = draw(may_choose, min(chosen_on, -(-len(may_choose) // 2)))
    faithful = draw(range(len(test.labels)), max(1, min(faithful_images, len(test.labels) // 8)))
    subject = _Subject(files, bundle, model.to(pick_device(device)))
    cuts = {name: int(np.nan_to_num(nan_mean(scores[:, 3:])).argmax())
            for name, scores in subject.against_masks(val, chosen).items()}  # fmt: skip
    found = subject.against_masks(test, scored), subject.faithfulness(test, faithful)
    maps = {f"{network}/{name}": scores[:, 2:] for (network, name, _), scores in found[1].items()}
    maps |= subject.randomised(test, faithful) | {"image_ids": test.image_ids[faithful]}
    table = _table(test, (scored, faithful), found, cuts)
    table.attrs = {
        "schema": SCHEMA, "key": key, "weights_sha256": weights,
        "layer": subject.layer, "images": len(scored),
        "without_mask": len(test.labels) - len(scored), "chosen_on": len(chosen),
        "faithful_images": len(faithful),
    }  # fmt: skip
    with atomic_path(Path(folder) / MAPS) as temporary:
        np.savez_compressed(temporary, **maps)
    with atomic_path(Path(folder) / FILE) as temporary:
        table.to_parquet(temporary, index=False)
    return table


def draw(rows: Sequence[int], count: int) -> np.ndarray:
    """Up to `count` of the rows in order, drawn with a fixed seed."""
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:count]).astype(int)


def random_network(bundle: Mapping) -> nn.Module:
    """The architecture of a bundle with random weights, the same ones every time."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return build_model(bundle["architecture"], len(CLASS_NAMES), bundle["image_size"]).eval()


@dataclass
class _Subject:
    """A trained network and what its maps are scored on."""

    files: DatasetFiles
    bundle: dict
    model: nn.Module

    def __post_init__(self):
        self.device = next(self.model.parameters()).device
        self.size = self.bundle["image_size"]
        self.pixels = decode(self.files, self.size)
        self.row_of = {name: row for row, name in enumerate(self.files.metadata["image_id"])}
        first = self.inputs(self.files.metadata["image_id"][:1])
        self.layer = gradcam.cam_layer(self.model, first)
        self.random = random_network(self.bundle).to(self.device)

    def inputs(self, image_ids: Sequence[str]) -> torch.Tensor:
        images = self.pixels[[self.row_of[name] for name in image_ids]]
        images = to_input(torch.from_numpy(images).permute(0, 3, 1, 2), self.device)
        return normalise(images, self.bundle["mean"], self.bundle["std"])

    def against_masks(self, part: Predictions, rows: Sequence[int]) -> Scored:
        """By map: empty, inside, pointing and the overlaps of each row, (rows, 3 + shares)."""
        networks = {"trained": self.model, "random": self.random}
        paths = [self.files.masks[name] for name in part.image_ids[rows]]
        with ThreadPoolExecutor() as pool:
            masks = np.array(list(pool.map(lambda path: read_mask(path, self.size), paths)))

        def score(at: slice, _inputs, _predicted, heat: np.ndarray) -> np.ndarray:
            scores = (mask_metrics.heat_inside, mask_metrics.pointing_game, mask_metrics.overlaps)
            return np.column_stack([score(heat, masks[at]) for score in scores])

        return self._each(part, rows, networks, ("predicted", "melanoma"), score)

    def faithfulness(self, part: Predictions, rows: Sequence[int]) -> Scored:
        """By map of the trained network and baseline: empty, ROAD and the map, (rows, 2 + 256)."""

        def score(_at: slice, inputs, predicted, heat: np.ndarray) -> np.ndarray:
            return np.column_stack([road(self.model, inputs, predicted, heat), _small(heat)])

        return self._each(part, rows, {"trained": self.model}, ("predicted",), score)

    def randomised(self, part: Predictions, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Maps with weights made random from the output on, by `randomised/` and method.

        (steps, rows, 256); `shares` (steps,) says how much of the layers is random by then.
        """
        weights, model = self.random.state_dict(), copy.deepcopy(self.model)
        layer_of = {name: name.rpartition(".")[0] for name in weights}
        layers = list(dict.fromkeys(layer_of.values()))  # from the input to the output
        counts = np.unique([1, *np.ceil(len(layers) * np.arange(1, STEPS + 1) / STEPS)]).astype(int)
        maps = defaultdict(list)
        for count in counts:
            new = {name: weights[name] for name in weights if layer_of[name] in layers[-count:]}
            model.load_state_dict(new, strict=False)
            found = self._each(part, rows, {"randomised": model}, ("predicted",),
                               lambda _at, _inputs, _predicted, heat: _small(heat))  # fmt: skip
            for method in gradcam.METHODS:
                maps[f"randomised/{method}"].append(found["randomised", method, "predicted"][:, 1:])
        return {name: np.array(values) for name, values in maps.items()} | {
            "shares": counts / len(layers)
        }

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
            found = gradcam.class_gradients(model, [self.layer], inputs, *classes.values())
            features, *gradients = found[self.layer]
            for target, gradient in zip(classes, gradients, strict=True):
                for method in gradcam.METHODS:
                    heat = gradcam.heat_from(model, features, gradient, self.size, method)
                    yield (network, method, target), heat
        shape, centre = (len(inputs), self.size, self.size), mask_metrics.centre_prior(self.size)
        yield ("none", CENTRE, "predicted"), np.broadcast_to(centre, shape)
        yield ("none", UNIFORM, "predicted"), np.ones(shape, np.float32)


def road(
    model: nn.Module, inputs: torch.Tensor, classes: Sequence[int], heat: np.ndarray
) -> np.ndarray:
    """How much more of a class's probability goes with the hottest fifth than with the coldest.

    Half the difference, (n,), in [-0.5, 0.5]: what is removed is filled in from around it. Only
    the order of the pixels counts; equal ones are in random order, so that a uniform map stands
    for a random one (ROAD; Rong et al., 2022).
    """
    from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    n, pixels = len(heat), heat[0].size
    shuffle = np.random.default_rng(SEED).permutation(pixels)
    ranks = np.empty((n, pixels), np.float32)
    ranks[:, shuffle] = rankdata(heat.reshape(n, -1)[:, shuffle], "ordinal", axis=1) / pixels
    targets = [ClassifierOutputSoftmaxTarget(int(index)) for index in classes]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)  # of the noise in what is filled in
        least, most = (  # ROADCombined, without what the untouched images give both times
            metric(100 - REMOVED)(
                inputs, ranks.reshape(heat.shape), targets, model, return_diff=False
            )
            for metric in (ROADLeastRelevantFirst, ROADMostRelevantFirst)
        )
    return (least - most) / 2


def _small(heat: np.ndarray) -> np.ndarray:
    """Maps as means over 16 x 16 fields, in rows (n, 256)."""
    heat = torch.from_numpy(np.array(heat, np.float32))
    return F.adaptive_avg_pool2d(heat, PLACES).flatten(1).numpy()


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
            columns[np.ix_([0, 4], rows[1])] = found[1][name][:, :2].T
        tables.append(
            pd.DataFrame(
                {"image_id": test.image_ids, "lesion_id": test.lesion_ids,
                 "label": names[test.labels], "predicted": names[predicted],
                 "right": predicted == test.labels, **dict(zip(NAME, name, strict=True)),
                 "share": float(mask_metrics.SHARES[cuts[name]]) if name in cuts else np.nan,
                 **dict(zip(("empty", *SCORES), columns, strict=True))}
            ).dropna(subset="empty")
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True).astype({"empty": bool})
