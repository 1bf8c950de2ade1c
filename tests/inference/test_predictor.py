import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from helpers import KEYS
from PIL import Image
from sklearn.metrics import roc_auc_score

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import decode, read_image
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.explanation.gradcam import heat_maps
from melanoma_lib.inference.predictor import (
    best_bundle,
    heat_to_rgba,
    log_odds,
    overlay,
    predict_files,
)
from melanoma_lib.reporting.compare import compare


def test_it_predicts_what_the_run_predicted(predictor, sample_dir):
    predictions = load_predictions(predictor.folder / "predictions.parquet").split("test")
    paths = [sample_dir / "images" / f"{name}.jpg" for name in predictions.image_ids[:40]]
    found = predictor.predict([predictor.load_image(path) for path in paths])
    assert sum(each.out_of_distribution for each in found) <= 4
    right = predictions.probabilities(predictor.bundle["temperature"])[:40]
    assert np.allclose([list(r.probabilities.values()) for r in found], right, atol=1e-4)
    assert list(found[0].probabilities) == list(CLASS_NAMES)
    assert [r.predicted_class for r in found] == [CLASS_NAMES[i] for i in right.argmax(1)]


def test_an_image_is_loaded_as_for_training(predictor, sample_dir):
    files = open_dataset(sample_dir)
    decoded = decode(files, predictor.image_size)[3]
    assert np.array_equal(predictor.load_image(files.images[3]), decoded)


def test_the_estimates_are_those_of_the_comparison(predictor, sample_run, sample_dir):
    table = open_dataset(sample_dir).metadata
    latency = {KEYS[0]: {"median_ms": 1.0, "low_ms": 1.0, "high_ms": 1.0, "device": "CPU"}}
    results = compare(sample_run, latency, table)["models"][KEYS[0]]["operating_points"]
    assert [p["name"] for p in results] == list(predictor.operating_points)
    for point in results:
        assert predictor.operating_points[point["name"]]["test"] == point["test"]


def test_the_threshold_itself_is_predicted_positive(predictor, prediction):
    point = predictor.operating_point("sensitivity_95")
    for probability, positive in (
        (point["threshold"], True), (np.nextafter(point["threshold"], 0), False)
    ):  # fmt: skip
        moved = replace(prediction, probabilities={MELANOMA: probability})
        assert predictor.decide(moved, "sensitivity_95").predicted_positive == positive
    default = predictor.decide(prediction).operating_point
    assert default == predictor.operating_point("specificity_95")
    with pytest.raises(MelanomaError, match="it has specificity_95, specificity_90"):
        predictor.operating_point("specificity_99")


def test_near_the_threshold_is_a_factor_of_two_in_the_odds(predictor, prediction, monkeypatch):
    half = predictor.operating_point() | {"threshold": 0.5}
    monkeypatch.setitem(predictor.operating_points, "half", half)
    near = [
        predictor.decide(replace(prediction, probabilities={MELANOMA: p}), "half").near_threshold
        for p in (0.33, 0.34, 0.5, 0.66, 0.67)
    ]
    assert near == [False, True, True, True, False]
    assert log_odds(0.0) == pytest.approx(-log_odds(1.0), rel=1e-6)


def test_fractions_of_validation_images_below(predictor, prediction):
    validation = load_predictions(predictor.folder / "predictions.parquet").split("val")
    scores = validation.melanoma_probability(predictor.bundle["temperature"])
    below = predictor.decide(prediction).fraction_below
    lower, melanomas = scores < prediction.melanoma_probability, validation.is_melanoma
    assert below[MELANOMA] == pytest.approx(lower[melanomas].mean())
    assert below["other"] == pytest.approx(lower[~melanomas].mean())


def test_noise_is_out_of_distribution(predictor):
    shape = 3, predictor.image_size, predictor.image_size, 3
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert all(each.out_of_distribution for each in predictor.predict(noise))


def test_heat_maps_are_those_of_grad_cam_in_every_thread(predictor, images):
    loaded = [predictor.load_image(path) for path in images]
    codes = ["mel", "akiec"] * 4
    right = heat_maps(predictor.model, predictor._to_inputs(np.stack(loaded)), [4, 0] * 4)

    def compute(number):
        predictor.predict([loaded[number]])
        return predictor.heat_maps([loaded[number]], [codes[number]])[0]

    with ThreadPoolExecutor(8) as pool:
        for number, heat in zip([*range(8)] * 5, pool.map(compute, [*range(8)] * 5), strict=True):
            assert np.allclose(heat, right[number], atol=1e-5)


def test_an_overlay_leaves_cold_pixels_alone():
    image = np.full((4, 4, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    shown = np.asarray(overlay(image, heat))
    assert (shown != image).any(-1).sum() == 1
    hot = np.asarray(heat_to_rgba(heat))[0, 0, :3]
    assert shown[0, 0] == pytest.approx(0.6 * hot + 0.4 * image[0, 0], abs=2)


def test_bad_images_are_reported_and_the_rest_goes_on(predictor, images, tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (30, 30)).save(tmp_path / "image.gif")
    (tmp_path / "large.png").write_bytes(bytes(21_000_000))
    (tmp_path / "cut.jpg").write_bytes(images[0].read_bytes()[:-300])
    names = ("text.jpg", "image.gif", "large.png", "cut.jpg", "none", "odd.jpg")
    bad = [tmp_path / name for name in names]

    def read(path, size):
        if path == str(bad[-1]):
            raise ZeroDivisionError("odd")  # as decoders raise any type
        return read_image(path, size)

    monkeypatch.setattr("melanoma_lib.inference.predictor.read_image", read)
    bad[-1].touch()
    paths = [bad[0], images[0], *bad[1:], images[0]]
    rows = list(predict_files(predictor, paths, overlay_dir=tmp_path / "heat"))
    errors = [row["error"] for row in rows if "error" in row]
    assert all(str(path) in error for path, error in zip(bad, errors, strict=True))
    assert errors[-1] == f"{bad[-1]}: ZeroDivisionError: odd"
    good = [row for row in rows if "error" not in row]
    assert [row["image"] for row in good] == [str(images[0])] * 2
    assert good[0]["overlay"] != good[1]["overlay"]  # though the images have the same name
    for row in good:
        assert Image.open(row["overlay"]).size == (predictor.image_size, predictor.image_size)
    assert sum(good[0]["probabilities"].values()) == pytest.approx(1)


def validation_auc(folder):
    val = load_predictions(folder / "predictions.parquet").split("val")
    temperature = read_json(folder / "bundle.json")["temperature"]
    return roc_auc_score(val.is_melanoma, val.melanoma_probability(temperature))


def test_of_a_run_the_model_with_the_best_validation_auc_is_used(sample_run, tmp_path, capsys):
    assert best_bundle(sample_run / KEYS[1]) == sample_run / KEYS[1]
    assert not capsys.readouterr().err  # there was nothing to choose
    worse, best = sorted((sample_run / key for key in KEYS), key=validation_auc)
    assert best_bundle(sample_run) == best
    said = capsys.readouterr().err
    assert str(best) in said and f"{validation_auc(best):.3f}" in said and said.count("\n") == 1

    run = shutil.copytree(sample_run, tmp_path / "run")  # one of its trainings goes on
    write_json(run / best.name / "run.json",
               read_json(best / "run.json") | {"finished": False})  # fmt: skip
    assert best_bundle(run) == run / worse.name
    assert best.name in capsys.readouterr().err
    write_json(run / worse.name / "run.json",
               read_json(worse / "run.json") | {"finished": False})  # fmt: skip
    with pytest.raises(MelanomaError, match="not trained yet"):
        best_bundle(run)
