import csv
import json
import shutil

import numpy as np
import pytest

from melanoma_lib.artifacts import MelanomaError, read_json, write_json
from melanoma_lib.comparison import (
    COLUMNS,
    compare,
    interval_text,
    latex_table,
    rates_at,
    summary,
    write_tables,
)
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.intervals import lesion_weights
from melanoma_lib.metrics import accuracy, auc
from melanoma_lib.predictions import Predictions, load_predictions, save_predictions


def make_run(run_dir, skills=(2.0, 1.0), split="lesion"):
    """Two models that see the same lesions, the first one better."""
    rng = np.random.default_rng(0)
    n = 400
    labels = rng.choice(7, n, p=[0.1, 0.1, 0.1, 0.05, 0.2, 0.4, 0.05])
    for number, skill in enumerate(skills):
        folder = run_dir / f"model_{number}"
        folder.mkdir(parents=True)
        predictions = Predictions(
            image_ids=np.array([f"ISIC_{i:07d}" for i in range(n)]),
            lesion_ids=np.array([f"HAM_{i // 2:07d}" for i in range(n)]),
            parts=np.array(["val"] * (n // 2) + ["test"] * (n // 2)),
            labels=labels,
            logits=(rng.normal(size=(n, 7)) + skill * np.eye(7)[labels]).astype(np.float32),
        )
        save_predictions(folder / "predictions.parquet", predictions)
        write_json(
            folder / "run.json",
            {
                "finished": True, "name": f"Model_{number}", "timm_name": "m", "parameters": 10,
                "epochs": 2, "best_epoch": 1, "train_seconds": 5.0, "device": "CPU",
                "dataset": {"name": "generated sample", "generated": True},
                "config": {"split": split},
            },
        )
        write_json(
            folder / "bundle.json",
            {
                "temperature": 1.3,
                "operating_points": [
                    {"name": "specificity_95", "criterion": "specificity", "target": 0.95,
                     "threshold": 0.4}
                ],
            },
        )
    return fast(*(f"model_{number}" for number in range(len(skills))))


def fast(*keys):
    return {key: {"median_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "device": "CPU"} for key in keys}


@pytest.fixture
def results(tmp_path):
    return compare(tmp_path, make_run(tmp_path), resamples=200)


def test_figures_are_those_of_the_test_part_at_the_fitted_temperature(results, tmp_path):
    test = load_predictions(tmp_path / "model_0" / "predictions.parquet").part("test")
    probabilities = test.probabilities(1.3)
    model = results["models"]["model_0"]
    assert model["metrics"]["accuracy"]["value"] == float(accuracy(test.labels, probabilities))
    assert model["metrics"]["melanoma_auc"]["value"] == float(
        auc(test.labels == 4, probabilities[:, 4])
    )
    point = model["operating_points"][0]
    called = probabilities[:, 4] >= 0.4
    assert point["test"]["sensitivity"]["value"] == pytest.approx(called[test.labels == 4].mean())
    assert point["test"]["specificity"]["value"] == pytest.approx(
        1 - called[test.labels != 4].mean()
    )
    assert np.sum(model["confusion_matrix"]) == 200 == results["test_images"]
    assert results["test_lesions"] == 100 and not results["optimistic"]


def test_every_figure_has_an_interval_around_it(results):
    for model in results["models"].values():
        for name, figure in [*model["metrics"].items(), *model["uncalibrated"].items()]:
            assert figure["low"] < figure["high"]
            if name != "mce":  # the bootstrap of ECE is biased upwards, of its maximum badly
                assert figure["low"] <= figure["value"] + 0.05


def test_a_sensitivity_without_a_miss_leaves_room_for_one(tmp_path):
    keys = make_run(tmp_path, skills=(60.0,))
    test = load_predictions(tmp_path / keys[0] / "predictions.parquet").part("test")
    figure = rates_at(test, 1.0, 0.4, lesion_weights(test.lesion_ids, 50))["sensitivity"]
    lesions = len(set(test.lesion_ids[test.is_melanoma]))
    assert figure == {"value": 1, "low": pytest.approx(0.025 ** (1 / lesions)), "high": 1}
    assert rates_at(test, 1.0, 0.4) == {"sensitivity": 1, "specificity": 1}


def test_differences_are_paired(results, tmp_path):
    (pair,) = results["differences"]
    models = results["models"]
    figures = [models[pair[side]]["metrics"]["accuracy"]["value"] for side in ("first", "second")]
    assert pair["accuracy"]["value"] == pytest.approx(figures[0] - figures[1])
    shutil.copytree(tmp_path / "model_0", tmp_path / "twin")
    same = compare(tmp_path, fast("model_0", "twin"), resamples=50)["differences"][0]
    assert same["accuracy"] == {"value": 0, "low": 0, "high": 0}


def test_results_are_json_and_name_their_classes(results):
    again = json.loads(json.dumps(results, allow_nan=False))
    assert tuple(again["class_names"]) == CLASS_NAMES and again["schema"] == 1


def test_the_image_split_is_called_optimistic(tmp_path):
    results = compare(tmp_path, make_run(tmp_path, split="image"), resamples=50)
    assert results["optimistic"] is True
    assert "optimistic" in summary(results) and "optimistic" in latex_table(results)


def test_tables_hold_the_results(results, tmp_path):
    table, tex = write_tables(results, tmp_path)
    rows = list(csv.DictReader(table.open()))
    assert [row["architecture"] for row in rows] == ["model_0", "model_1"]
    auc_value = results["models"]["model_0"]["metrics"]["melanoma_auc"]["value"]
    assert float(rows[0]["melanoma_auc"]) == auc_value
    text = tex.read_text()
    assert "\\toprule" in text and "Model\\_0" in text and f"{auc_value:.3f}" in text
    lines = [line for line in text.splitlines() if line.startswith("Model")]
    assert all(line.count(" & ") == len(COLUMNS) for line in lines)


def test_the_summary_takes_its_numbers_from_the_results(results):
    text = summary(results)
    for model in results["models"].values():
        assert interval_text(model["metrics"]["melanoma_auc"]) in text
    assert text.index("Model_0") < text.index("Model_1")  # the better one first
    assert "Model_0 over Model_1" in text


def test_figures_that_are_not_defined_show_a_dash():
    assert interval_text({"value": None, "low": None, "high": None}) == "–"
    assert interval_text({"value": 0.8916, "low": 0.8742, "high": 0.909}) == "0.892 [0.874, 0.909]"


def test_models_that_cannot_be_compared_are_named(tmp_path):
    keys = make_run(tmp_path)
    with pytest.raises(MelanomaError, match="absent"):
        compare(tmp_path, fast(*keys, "absent"))
    path = tmp_path / "model_1" / "predictions.parquet"
    predictions = load_predictions(path)
    save_predictions(path, predictions.part("test"))
    with pytest.raises(MelanomaError, match="model_1 was evaluated on other images"):
        compare(tmp_path, keys)
    record = tmp_path / "model_1" / "run.json"
    write_json(record, read_json(record) | {"finished": False})
    with pytest.raises(MelanomaError, match=r"not trained yet in .*: model_1"):
        compare(tmp_path, keys)
