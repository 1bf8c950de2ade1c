import threading

import numpy as np
import pandas as pd
import pytest
from helpers import KEYS
from PIL import Image

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import decode
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.explanation.gradcam import heat_maps
from melanoma_lib.inference.predictor import (
    Predictor,
    heat_layer,
    log_odds,
    overlay,
    pictures,
    predict_files,
)
from melanoma_lib.reporting.compare import compare


@pytest.fixture(scope="module")
def reader(sample_run):
    return Predictor(sample_run / KEYS[0])


@pytest.fixture(scope="module")
def some(sample_dir):
    """A few pictures of the sample's test part, by path."""
    return sorted((sample_dir / "images").iterdir())[:6]


def test_it_says_what_the_run_predicted(reader, sample_dir):
    predictions = load_predictions(reader.folder / "predictions.parquet").part("test")
    paths = [sample_dir / "images" / f"{name}.jpg" for name in predictions.image_ids[:5]]
    readings = reader.read([reader.open(path) for path in paths])
    right = predictions.probabilities(reader.bundle["temperature"])[:5]
    assert np.allclose([list(r.probabilities.values()) for r in readings], right, atol=1e-4)
    assert list(readings[0].probabilities) == list(CLASS_NAMES)
    assert [r.predicted for r in readings] == [CLASS_NAMES[i] for i in right.argmax(1)]


def test_a_picture_is_opened_as_it_was_for_training(reader, sample_dir):
    files = open_dataset(sample_dir)
    assert np.array_equal(reader.open(files.images[3]), decode(files, reader.size)[3])


def test_the_figures_are_those_of_the_comparison(reader, sample_run, sample_dir):
    table = open_dataset(sample_dir).metadata
    latency = {KEYS[0]: {"median_ms": 1.0, "low_ms": 1.0, "high_ms": 1.0, "device": "CPU"}}
    results = compare(sample_run, latency, table)["models"][KEYS[0]]["operating_points"]
    assert [p["name"] for p in results] == list(reader.points)
    for point in results:
        assert reader.points[point["name"]]["test"] == point["test"]


def test_the_threshold_itself_is_called(reader, some):
    (reading,) = reader.read([reader.open(some[0])])
    point = reader.point("sensitivity_95")
    probabilities = reading.probabilities | {MELANOMA: point["threshold"]}
    at = type(reading)(reading.picture, probabilities, 0.0, False)
    assert reader.decide(at, "sensitivity_95").called
    below = type(reading)(
        reading.picture, probabilities | {MELANOMA: np.nextafter(point["threshold"], 0)}, 0.0, False
    )
    assert not reader.decide(below, "sensitivity_95").called
    assert reader.decide(at).point == reader.point("specificity_95")
    with pytest.raises(MelanomaError, match="it has specificity_95, specificity_90"):
        reader.point("specificity_99")


def test_near_the_threshold_is_a_factor_of_two_in_the_odds(reader, some, monkeypatch):
    (reading,) = reader.read([reader.open(some[0])])
    monkeypatch.setitem(reader.points, "half", reader.point() | {"threshold": 0.5})
    near = [
        reader.decide(type(reading)(reading.picture, {MELANOMA: p}, 0.0, False), "half").near
        for p in (0.33, 0.34, 0.5, 0.66, 0.67)
    ]
    assert near == [False, True, True, True, False]
    assert log_odds(0.0) == pytest.approx(-log_odds(1.0), rel=1e-6)


def test_its_place_among_the_validation_scores(reader, some):
    validation = load_predictions(reader.folder / "predictions.parquet").part("val")
    scores = validation.melanoma_score(reader.bundle["temperature"])
    (reading,) = reader.read([reader.open(some[0])])
    below = reader.decide(reading).below
    lower, melanomas = scores < reading.melanoma, validation.is_melanoma
    assert below[MELANOMA] == pytest.approx(lower[melanomas].mean())
    assert below["other"] == pytest.approx(lower[~melanomas].mean())


def test_noise_is_foreign_and_the_test_part_is_not(reader, sample_dir):
    predictions = load_predictions(reader.folder / "predictions.parquet").part("test")
    paths = [sample_dir / "images" / f"{name}.jpg" for name in predictions.image_ids[:40]]
    readings = reader.read([reader.open(path) for path in paths])
    assert sum(reading.foreign for reading in readings) <= 4
    noise = np.random.default_rng(0).integers(0, 256, (3, reader.size, reader.size, 3), np.uint8)
    assert all(reading.foreign for reading in reader.read(noise))


def test_the_heat_map_is_that_of_grad_cam(reader, some):
    opened = [reader.open(path) for path in some[:2]]
    right = heat_maps(reader.model, reader._inputs(np.stack(opened)), [4, 0])
    assert np.allclose(reader.heat(opened, ["mel", "akiec"]), right, atol=1e-5)


def test_threads_get_their_own_maps(reader, some):
    opened = [reader.open(path) for path in some]
    right = [reader.heat([picture], ["mel"]) for picture in opened]
    wrong = []

    def work(number):
        for _ in range(5):
            if not np.allclose(reader.heat([opened[number]], ["mel"]), right[number], atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(opened))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_overlay_leaves_cold_places_alone(some):
    picture = np.full((4, 4, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    shown = np.asarray(overlay(picture, heat))
    assert (shown != picture).any(-1).sum() == 1
    hot = np.asarray(heat_layer(heat))[0, 0, :3]
    assert shown[0, 0] == pytest.approx(0.6 * hot + 0.4 * picture[0, 0], abs=2)


def test_bad_pictures_are_reported_and_the_rest_goes_on(reader, some, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (30, 30)).save(tmp_path / "picture.gif")
    (tmp_path / "large.png").write_bytes(bytes(21_000_000))
    (tmp_path / "cut.jpg").write_bytes(some[0].read_bytes()[:-300])
    bad = [tmp_path / name for name in ("text.jpg", "picture.gif", "large.png", "cut.jpg", "none")]
    paths = [bad[0], some[0], *bad[1:], some[1]]
    rows = list(predict_files(reader, paths, overlays=tmp_path / "heat"))
    assert [path.name in row["error"] for path, row in
            zip(bad, [row for row in rows if "error" in row], strict=True)] == [True] * 5
    good = [row for row in rows if "error" not in row]
    assert [row["image"] for row in good] == [str(path) for path in some[:2]]
    for row in good:
        assert Image.open(row["overlay"]).size == (reader.size, reader.size)
    assert sum(good[0]["probabilities"].values()) == pytest.approx(1)


def test_pictures_of_equal_names_have_overlays_of_their_own(reader, some, tmp_path):
    rows = list(predict_files(reader, [some[0], some[0]], overlays=tmp_path))
    assert len({row["overlay"] for row in rows}) == len(list(tmp_path.iterdir())) == 2


def test_of_a_folder_the_images_and_not_the_masks(dataset, tmp_path):
    assert len(pictures([dataset])) == len(pd.read_csv(dataset / "HAM10000_metadata.csv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MelanomaError, match="holds no images"):
        pictures([tmp_path / "empty"])
