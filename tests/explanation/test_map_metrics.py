import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import KEYS
from scipy.stats import spearmanr

from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.explanation.map_metrics import (
    MAP_COLUMNS,
    MAPS_FILE,
    SCORES,
    map_agreement,
    rank_correlation,
    read_scores,
)
from melanoma_lib.reporting.figures import plot
from melanoma_lib.reporting.run import Run
from melanoma_lib.reporting.table_formats import latex_tabular
from melanoma_lib.reporting.tables import table

KEY = KEYS[0]


def test_results_hold_estimates_of_every_map(explained_results, explained):
    assert explained_results[KEYS[1]]["explanations"] is None  # nobody scored it
    found, table = explained_results[KEY]["explanations"], read_scores(explained / KEY)
    assert found["without_mask"] == 0 and found["faithful_images"] == 6
    by_name = {tuple(row[name] for name in MAP_COLUMNS): row for row in found["maps"]}
    of_trained = 0
    for name, rows in table.groupby(MAP_COLUMNS):
        row = by_name[name]
        assert row["empty"] == rows["empty"].sum()
        for score in SCORES:
            mean = rows[score].mean()
            assert row[score]["value"] == (None if np.isnan(mean) else pytest.approx(mean))
        if row["inside"]["value"] is not None and name[0] == "trained":
            of_trained += 1
            group = next(entry for entry in row["groups"] if entry["group"] == "wrong")
            assert group["inside"]["value"] == pytest.approx(rows.query("~right")["inside"].mean())
            assert row["inside"]["low"] <= row["inside"]["value"] <= row["inside"]["high"]
            wide = table.pivot_table("inside", "image_id", MAP_COLUMNS)
            apart = wide[name] - wide["none", "centre prior", "predicted"]
            assert row["minus_centre"]["inside"]["value"] == pytest.approx(apart.mean())
    assert of_trained


def test_the_figures_are_drawn_from_the_results(explained_results):
    model = explained_results[KEY] | {"name": "Net"}
    run = Run(None, {"models": {KEY: model}, "differences": []}, {})
    rows = [label.get_text() for label in plot(run, "07-2-mask-overlap").axes[0].get_yticklabels()]
    assert rows == ["Net", "random weights: Net", "baseline: centre prior",
                    "baseline: uniform map"]  # fmt: skip
    for name, panels in (("07-2-mask-overlap", 4), ("07-4-randomised-weights", 2),
                         ("07-5-agreement", 1)):  # fmt: skip
        assert len(plot(run, name).axes) == panels
        unscored = {"models": {KEY: model | {"explanations": None}}}
        assert plot(replace(run, results=run.results | unscored), name) is None


def test_the_table_has_a_row_a_map(explained_results, tmp_path):
    models = {KEY: explained_results[KEY] | {"name": "Net"}, KEYS[1]: explained_results[KEYS[1]]}
    made = table({"models": models}, "explanations")
    assert len(made.rows) == len(explained_results[KEY]["explanations"]["maps"]) == 10
    assert {row["map"] for row in made.rows} >= {"Grad-CAM", "LayerCAM", "uniform map"}
    assert made.rows[-1]["minus_centre"]["value"] is None
    assert latex_tabular(made, "c").count("Net") == 10


def test_similarity_is_spearmans():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 20)).round(1)
    right = [spearmanr(*pair).statistic for pair in zip(first, second, strict=True)]
    assert np.allclose(rank_correlation(first, second), right)
    assert np.allclose(rank_correlation(first, first**3), 1)
    assert np.isnan(rank_correlation(np.ones((1, 4)), np.arange(4.0)[None])).all()


def test_agreement_is_between_the_maps_of_the_same_images(explained, tmp_path, sample_run):
    twin = shutil.copytree(explained / KEY, tmp_path / "twin")
    test = load_predictions(explained / KEY / "predictions.parquet").split("test")
    weights = np.ones((3, len(test.labels)))
    assert map_agreement([explained / KEY, twin], test, weights)["value"] == pytest.approx(1)
    with np.load(twin / MAPS_FILE) as file:
        maps = dict(file)
    fewer = {"trained/grad_cam": maps["trained/grad_cam"][2:], "image_ids": maps["image_ids"][2:]}
    np.savez(twin / MAPS_FILE, **fewer)
    assert map_agreement([twin, explained / KEY], test, weights)["value"] == pytest.approx(1)
