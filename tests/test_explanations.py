import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import KEYS, fast
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.stats import spearmanr

from melanoma_lib import explanations, xai
from melanoma_lib.artifacts import read_json, write_json
from melanoma_lib.comparison import compare
from melanoma_lib.data.metadata import open_dataset
from melanoma_lib.explanations import (
    FILE,
    MAPS,
    NAME,
    PLACES,
    SCORES,
    agreement,
    explain,
    random_network,
    read,
    road,
    similarity,
)
from melanoma_lib.predictions import load_predictions
from melanoma_lib.redraw import Run, draw, overlap_table
from melanoma_lib.tables import explanations_table, latex

KEY = KEYS[0]


@pytest.fixture(scope="module")
def files(sample_dir):
    return open_dataset(sample_dir)


@pytest.fixture(scope="module")
def run(sample_run, files, tmp_path_factory):
    """The sample's run with the maps of one of its two networks scored."""
    folder = shutil.copytree(sample_run, tmp_path_factory.mktemp("explained") / "run")
    explain(folder / KEY, files, "cpu", faithful_images=6, chosen_on=10)
    return folder


@pytest.fixture(scope="module")
def results(run, files):
    found = compare(run, fast(*KEYS), files.metadata, resamples=200)
    return json.loads(json.dumps(found, allow_nan=False))["models"]


def test_one_row_an_image_and_map(run):
    table, test = read(run / KEY), load_predictions(run / KEY / "predictions.parquet").part("test")
    maps = table.groupby(NAME).size()
    assert len(maps) == 2 * len(xai.METHODS) * 2 + 2 and set(maps) == {len(test.labels)}
    assert table["right"].eq(table["label"] == table["predicted"]).all()
    full = ~table["empty"]
    assert table.loc[full, ["inside", "pointing", "iou"]].stack().between(0, 1 + 1e-6).all()
    assert table.loc[~full, list(SCORES)].isna().all(axis=None)
    faithful = table[table["road"].notna()]
    assert faithful["image_id"].nunique() == 6 and set(faithful["target"]) == {"predicted"}
    assert set(faithful["network"]) == {"trained", "none"}


def test_the_baselines_score_what_they_know(run, files):
    rows = read(run / KEY).query("map == 'uniform map'")
    size = read_json(run / KEY / "bundle.json")["image_size"]
    for row in rows.to_dict("records")[:3]:
        area = explanations.read_mask(files.masks[row["image_id"]], size).mean()
        assert row["inside"] == pytest.approx(area)
        assert row["pointing"] == pytest.approx(area) and row["iou"] == pytest.approx(area)


def test_scores_are_those_of_the_maps(run, files):
    table = read(run / KEY).query("network == 'trained' and target == 'melanoma'")
    row = table[~table["empty"]].to_dict("records")[0]
    subject = explanations._Subject(files, *explanations.load_bundle(run / KEY)[::-1])
    inputs = subject.inputs([row["image_id"]])
    heat = xai.heat_maps(subject.model, inputs, [4], subject.layer, row["map"])
    mask = explanations.read_mask(files.masks[row["image_id"]], subject.size)[None]
    cut = heat >= np.float32(row["share"])
    assert xai.heat_inside(heat, mask)[0] == pytest.approx(row["inside"], abs=1e-4)
    iou = (cut & mask).sum() / (cut | mask).sum()
    assert iou == pytest.approx(row["iou"], abs=0.01)


def test_a_second_time_does_nothing_until_weights_or_masks_change(run, files, monkeypatch):
    before = (run / KEY / FILE).stat().st_mtime_ns
    again = explain(run / KEY, files, "cpu", faithful_images=6, chosen_on=10)
    assert again.equals(read(run / KEY)) and (run / KEY / FILE).stat().st_mtime_ns == before

    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr(explanations, "pick_device", stop)
    with pytest.raises(InterruptedError):
        explain(run / KEY, files, "cpu", faithful_images=5, chosen_on=10)


def test_half_of_what_was_left_counts_as_nothing(run, files, tmp_path):
    folder = shutil.copytree(run, tmp_path / "half") / KEY
    assert read(folder) is not None
    (folder / MAPS).unlink()
    found = compare(folder.parent, fast(*KEYS), files.metadata, resamples=20)
    assert read(folder) is None and found["models"][KEY]["explanations"] is None


def test_random_networks_are_the_same_every_time(run):
    facts = read_json(run / KEY / "bundle.json")
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, second = (random_network(facts).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_results_hold_figures_of_every_map(results, run):
    assert results[KEYS[1]]["explanations"] is None  # nobody scored it
    found, table = results[KEY]["explanations"], read(run / KEY)
    assert found["without_mask"] == 0 and found["faithful_images"] == 6
    by_name = {tuple(row[name] for name in NAME): row for row in found["maps"]}
    for name, rows in table.groupby(NAME):
        row = by_name[name]
        assert row["empty"] == rows["empty"].sum()
        for score in SCORES:
            mean = rows[score].mean()
            assert row[score]["value"] == (None if np.isnan(mean) else pytest.approx(mean))
        if row["inside"]["value"] is not None and name[0] == "trained":
            group = next(entry for entry in row["groups"] if entry["group"] == "wrong")
            assert group["inside"]["value"] == pytest.approx(rows.query("~right")["inside"].mean())
            assert row["inside"]["low"] <= row["inside"]["value"] <= row["inside"]["high"]
            wide = table.pivot_table("inside", "image_id", NAME)
            apart = wide[name] - wide["none", "centre prior", "predicted"]
            assert row["minus_centre"]["inside"]["value"] == pytest.approx(apart.mean())


def test_the_figures_are_drawn_from_the_results(results):
    model = results[KEY] | {"name": "Net"}
    table = overlap_table({"Net": model["explanations"]})
    heads = list(table["model"].unique())
    assert heads == ["Net", "random weights: Net", "baseline: centre prior",
                     "baseline: uniform map"]  # fmt: skip
    run = Run(None, {"models": {KEY: model}, "differences": []}, {}, None, 0)
    for name, panels in (("07-2-mask-overlap", 4), ("07-4-randomised-weights", 2),
                         ("07-5-agreement", 1)):  # fmt: skip
        assert len(draw(run, name).axes) == panels
        unscored = {"models": {KEY: model | {"explanations": None}}}
        assert draw(replace(run, results=run.results | unscored), name) is None


def test_the_table_has_a_row_a_map(results, tmp_path):
    models = {KEY: results[KEY] | {"name": "Net"}, KEYS[1]: results[KEYS[1]]}
    table = explanations_table({"models": models})
    assert len(table.rows) == len(results[KEY]["explanations"]["maps"]) == 10
    assert {row["map"] for row in table.rows} >= {"Grad-CAM", "LayerCAM", "uniform map"}
    assert table.rows[-1]["minus_centre"]["value"] is None and latex(table, "c").count("Net") == 10


def test_random_weights_change_the_map_layer_by_layer(run, files, results):
    """Adebayo et al. (2018): a map that stays the same shows nothing of what was learned."""
    with np.load(run / KEY / MAPS) as file:
        maps = dict(file)
    for method in xai.METHODS:
        trained, changed = maps[f"trained/{method}"], maps[f"randomised/{method}"]
        assert changed.shape == (len(maps["shares"]), 6, PLACES**2)
        assert not any(np.allclose(trained, other, equal_nan=True) for other in changed)
    assert 0 < maps["shares"][0] < 0.2 and maps["shares"][-1] == 1
    # In the end it is the random network.
    subject = explanations._Subject(files, *explanations.load_bundle(run / KEY)[::-1])
    test = load_predictions(run / KEY / "predictions.parquet").part("test")
    rows = np.flatnonzero(np.isin(test.image_ids, maps["image_ids"]))
    heat = xai.heat_maps(random_network(subject.facts), subject.inputs(test.image_ids[rows]),
                         test.logits[rows].argmax(1), subject.layer)  # fmt: skip
    full = heat.any((1, 2))
    pooled = heat.reshape(6, PLACES, 4, PLACES, 4).mean((2, 4)).reshape(6, -1)
    assert full.any()
    assert np.allclose(maps["randomised/grad_cam"][-1][full], pooled[full], atol=1e-4)
    steps = explanations.of_map(results[KEY]["explanations"])["randomised"]
    assert [step["share"] for step in steps] == list(maps["shares"])
    assert all(step["similarity"]["value"] < 0.99 for step in steps[1:])


def test_similarity_is_spearmans():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 20)).round(1)
    right = [spearmanr(*pair).statistic for pair in zip(first, second, strict=True)]
    assert np.allclose(similarity(first, second), right)
    assert np.allclose(similarity(first, first**3), 1)
    assert np.isnan(similarity(np.ones((1, 4)), np.arange(4.0)[None])).all()


def test_agreement_is_between_the_maps_of_the_same_images(run, tmp_path, sample_run):
    twin = shutil.copytree(run / KEY, tmp_path / "twin")
    test = load_predictions(run / KEY / "predictions.parquet").part("test")
    weights = np.ones((3, len(test.labels)))
    assert agreement([run / KEY, twin], test, weights)["value"] == pytest.approx(1)
    with np.load(twin / MAPS) as file:
        maps = dict(file)
    fewer = {"trained/grad_cam": maps["trained/grad_cam"][2:], "image_ids": maps["image_ids"][2:]}
    np.savez(twin / MAPS, **fewer)
    assert agreement([twin, run / KEY], test, weights)["value"] == pytest.approx(1)


def test_other_weights_are_not_given_the_scores_of_these(run, files, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    bundle = read_json(folder / KEY / "bundle.json")
    write_json(folder / KEY / "bundle.json", bundle | {"weights_sha256": "another"})
    found = compare(folder, fast(KEY), files.metadata, resamples=20)
    assert found["models"][KEY]["explanations"] is None
    (folder / KEY / FILE).write_text("damaged")
    assert read(folder / KEY) is None


def test_without_masks_the_rest_is_still_there(sample_run, sample_dir, tmp_path):
    folder = shutil.copytree(sample_run, tmp_path / "run")
    data = shutil.copytree(sample_dir, tmp_path / "bare")
    for path in data.rglob("*_segmentation.png"):
        path.unlink()
    bare = open_dataset(data)
    table = explain(folder / KEY, bare, "cpu", faithful_images=4, chosen_on=10)
    assert table["image_id"].nunique() == 4 and table["inside"].isna().all()
    found = compare(folder, fast(KEY), bare.metadata, resamples=50)["models"][KEY]["explanations"]
    assert found["images"] == 0 and found["without_mask"] > 0
    centre = next(row for row in found["maps"] if row["map"] == "centre prior")
    assert centre["inside"]["value"] is None and centre["road"]["value"] is not None


class Spot(torch.nn.Module):
    """Sure of class 1 as far as the middle of the image is bright."""

    def forward(self, images):
        bright = 10 * images[:, 0, 6:10, 6:10].mean((1, 2))
        return torch.stack([torch.zeros_like(bright), bright], 1)


def test_road_rewards_the_map_that_shows_what_counts():
    images = torch.zeros(2, 3, 16, 16)
    images[:, :, 6:10, 6:10] = 1
    heat = np.broadcast_to(xai.centre_prior(16), (2, 16, 16))
    right, wrong = (road(Spot(), images, [1, 1], values) for values in (heat, 1 - heat))
    assert (right > 0.1).all() and np.allclose(right, -wrong, atol=0.02)
    assert np.array_equal(right, road(Spot(), images, [1, 1], heat))  # noise and all
    torch.manual_seed(explanations.SEED)
    package = ROADCombined([80])(images, heat.astype(np.float32),
                                 [ClassifierOutputSoftmaxTarget(1)] * 2, Spot())  # fmt: skip
    assert np.allclose(right, package, atol=0.02)  # of equal pixels it may remove others
