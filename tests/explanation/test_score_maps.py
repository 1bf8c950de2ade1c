import math
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers import KEYS, fast
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.explanation import gradcam, mask_metrics, score_maps
from melanoma_lib.explanation.map_metrics import (
    MAP_COLUMNS,
    MAPS_FILE,
    SCORES,
    SCORES_FILE,
    map_estimates,
    read_scores,
)
from melanoma_lib.explanation.score_maps import (
    GRID_SIDE,
    random_network,
    road,
    score_heat_maps,
)
from melanoma_lib.inference.predictor import Predictor
from melanoma_lib.reporting.compare import compare

KEY = KEYS[0]


def test_one_row_an_image_and_map(explained):
    table = read_scores(explained / KEY)
    test = load_predictions(explained / KEY / "predictions.parquet").split("test")
    maps = table.groupby(MAP_COLUMNS).size()
    assert len(maps) == 2 * len(gradcam.METHODS) * 2 + 2 and set(maps) == {len(test.labels)}
    assert table["right"].eq(table["label"] == table["predicted"]).all()
    full = ~table["empty"]
    assert table.loc[full, ["inside", "pointing", "iou"]].stack().between(0, 1 + 1e-6).all()
    assert table.loc[~full, list(SCORES)].isna().all(axis=None)
    faithful = table[table["road"].notna()]
    assert faithful["image_id"].nunique() == 6 and set(faithful["target"]) == {"predicted"}
    assert set(faithful["network"]) == {"trained", "none"}


def test_a_uniform_map_scores_the_area_of_the_lesion(explained, sample_files):
    rows = read_scores(explained / KEY).query("map == 'uniform map'")
    size = read_json(explained / KEY / "bundle.json")["image_size"]
    for row in rows.to_dict("records")[:3]:
        area = score_maps.read_mask(sample_files.masks[row["image_id"]], size).mean()
        assert row["inside"] == pytest.approx(area)
        assert row["pointing"] == pytest.approx(area) and row["iou"] == pytest.approx(area)


def test_scores_are_those_of_the_maps(explained, sample_files):
    table = read_scores(explained / KEY).query("network == 'trained' and target == 'melanoma'")
    row = table[~table["empty"]].to_dict("records")[0]
    scorer = score_maps._MapScorer(sample_files, *score_maps.load_bundle(explained / KEY)[::-1])
    inputs = scorer.inputs([row["image_id"]])
    heat = gradcam.heat_maps(scorer.model, inputs, [4], scorer.layer, row["map"])
    mask = score_maps.read_mask(sample_files.masks[row["image_id"]], scorer.size)[None]
    hot = heat >= np.float32(row["share"])
    assert mask_metrics.heat_inside(heat, mask)[0] == pytest.approx(row["inside"], abs=1e-4)
    iou = (hot & mask).sum() / (hot | mask).sum()
    assert iou == pytest.approx(row["iou"], abs=0.01)


def test_a_second_time_does_nothing_until_weights_or_masks_change(
    explained, sample_files, monkeypatch
):
    before = (explained / KEY / SCORES_FILE).stat().st_mtime_ns
    again = score_heat_maps(explained / KEY, sample_files, "cpu", faithful_images=6, chosen_on=10)
    assert again.equals(read_scores(explained / KEY))
    assert (explained / KEY / SCORES_FILE).stat().st_mtime_ns == before

    monkeypatch.setattr(score_maps, "pick_device", Mock(side_effect=InterruptedError))
    with pytest.raises(InterruptedError):
        score_heat_maps(explained / KEY, sample_files, "cpu", faithful_images=5, chosen_on=10)


def test_at_most_half_of_validation_chooses_the_thresholds(explained, sample_files, monkeypatch):
    chosen = []

    def stop(_scorer, split, rows):
        chosen.extend(split.image_ids[rows])
        raise InterruptedError

    monkeypatch.setattr(score_maps._MapScorer, "mask_scores", stop)
    with pytest.raises(InterruptedError):
        score_heat_maps(explained / KEY, sample_files, "cpu", chosen_on=10_000)
    val = load_predictions(explained / KEY / "predictions.parquet").split("val").image_ids
    assert len(set(chosen)) == math.ceil(len(val) / 2) and set(chosen) <= set(val)


@pytest.mark.parametrize("damage", ["no maps", "other weights", "no table"])
def test_scores_that_are_not_of_exactly_these_weights_are_not_used(
    explained, sample_files, tmp_path, damage
):
    folder = shutil.copytree(explained, tmp_path / "run") / KEY
    assert read_scores(folder) is not None
    if damage == "no maps":
        (folder / MAPS_FILE).unlink()
    elif damage == "no table":
        (folder / SCORES_FILE).write_text("damaged")
    else:
        bundle = read_json(folder / "bundle.json")
        write_json(folder / "bundle.json", bundle | {"weights_sha256": "another"})
    found = compare(folder.parent, fast(*KEYS), sample_files.metadata, resamples=20)
    assert found["models"][KEY]["explanations"] is None
    assert (read_scores(folder) is None) == (damage != "other weights")


def test_random_networks_are_the_same_every_time(explained):
    bundle = read_json(explained / KEY / "bundle.json")
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, second = (random_network(bundle).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_weights_change_the_map_layer_by_layer(explained, sample_files, explained_results):
    """Adebayo et al. (2018): a map that stays the same shows nothing of what was learned."""
    with np.load(explained / KEY / MAPS_FILE) as file:
        maps = dict(file)
    for method in gradcam.METHODS:
        trained, changed = maps[f"trained/{method}"], maps[f"randomised/{method}"]
        assert changed.shape == (len(maps["shares"]), 6, GRID_SIDE**2)
        assert not any(np.allclose(trained, other, equal_nan=True) for other in changed)
    assert 0 < maps["shares"][0] < 0.2 and maps["shares"][-1] == 1
    # In the end it is the random network.
    scorer = score_maps._MapScorer(sample_files, *score_maps.load_bundle(explained / KEY)[::-1])
    test = load_predictions(explained / KEY / "predictions.parquet").split("test")
    rows = np.flatnonzero(np.isin(test.image_ids, maps["image_ids"]))
    heat = gradcam.heat_maps(random_network(scorer.bundle), scorer.inputs(test.image_ids[rows]),
                         test.logits[rows].argmax(1), scorer.layer)  # fmt: skip
    full = heat.any((1, 2))
    pixels = heat.shape[-1] // GRID_SIDE  # of a cell's side
    pooled = heat.reshape(6, GRID_SIDE, pixels, GRID_SIDE, pixels).mean((2, 4)).reshape(6, -1)
    assert full.any()
    assert np.allclose(maps["randomised/grad_cam"][-1][full], pooled[full], atol=1e-4)
    steps = map_estimates(explained_results[KEY]["explanations"])["randomised"]
    assert [step["share"] for step in steps] == list(maps["shares"])
    assert all(step["similarity"]["value"] < 0.99 for step in steps[1:])


def test_without_masks_the_rest_is_still_there(sample_run, sample_dir, tmp_path):
    folder = shutil.copytree(sample_run, tmp_path / "run")
    data = shutil.copytree(sample_dir, tmp_path / "bare")
    for path in data.rglob("*_segmentation.png"):
        path.unlink()
    bare = open_dataset(data)
    table = score_heat_maps(folder / KEY, bare, "cpu", faithful_images=4, chosen_on=10)
    assert table["image_id"].nunique() == 4 and table["inside"].isna().all()
    found = compare(folder, fast(KEY), bare.metadata, resamples=50)["models"][KEY]["explanations"]
    assert found["images"] == 0 and found["without_mask"] > 0
    centre = next(row for row in found["maps"] if row["map"] == "centre prior")
    assert centre["inside"]["value"] is None and centre["road"]["value"] is not None


def test_a_network_without_a_feature_map_is_used_without_heat_maps(
    sample_run, sample_files, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(sample_run, tmp_path / "run") / KEY
    before = sorted(folder.iterdir())
    monkeypatch.setattr(gradcam, "cam_layer", Mock(side_effect=MelanomaError("none")))
    assert score_heat_maps(folder, sample_files, "cpu") is None
    assert sorted(folder.iterdir()) == before and "no feature map" in capsys.readouterr().out
    predictor = Predictor(folder)
    image = np.zeros((predictor.image_size, predictor.image_size, 3), np.uint8)
    assert not predictor.heat_maps([image], ["mel"]).any()
    assert "no heat maps" in predictor.note and predictor.predict([image])


class Spot(torch.nn.Module):
    """Logits of two classes: 0, and ten times the brightness of the middle of the image."""

    def forward(self, images):
        bright = 10 * images[:, 0, 6:10, 6:10].mean((1, 2))
        return torch.stack([torch.zeros_like(bright), bright], 1)


def test_road_rewards_the_map_that_shows_what_counts():
    images = torch.zeros(2, 3, 16, 16)
    images[:, :, 6:10, 6:10] = 1
    heat = np.broadcast_to(mask_metrics.centre_prior(16), (2, 16, 16))
    right, wrong = (road(Spot(), images, [1, 1], values) for values in (heat, 1 - heat))
    assert (right > 0.1).all() and np.allclose(right, -wrong, atol=0.02)
    assert np.array_equal(right, road(Spot(), images, [1, 1], heat))  # noise and all
    torch.manual_seed(score_maps.SEED)
    package = ROADCombined([80])(images, heat.astype(np.float32),
                                 [ClassifierOutputSoftmaxTarget(1)] * 2, Spot())  # fmt: skip
    assert np.allclose(right, package, atol=0.02)  # of equal pixels it may remove others
