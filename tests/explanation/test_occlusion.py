import dataclasses

import numpy as np
import pytest
from helpers import KEYS, make_dataset, make_run

from melanoma_lib.cli import main
from melanoma_lib.data.artifacts import ARTIFACTS
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.shifts import SHIFTS
from melanoma_lib.data.synthetic import generate_sample, without_artifacts
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.metrics import accuracy, auc
from melanoma_lib.evaluation.predictions import load_predictions, save_predictions
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.explanation import occlusion
from melanoma_lib.explanation.occlusion_metrics import (
    ALTERATIONS,
    OCCLUSION_FILE,
    describe_occlusion,
    summarize_occlusion,
)
from melanoma_lib.inference import Predictor

SKIN = np.array([200, 150, 140], np.uint8)


@pytest.fixture
def lesion():
    """A black lesion on skin of one colour, 40 pixels a side, and its mask."""
    mask = np.zeros((40, 40), bool)
    mask[12:26, 15:30] = True
    image = np.where(mask[..., None], np.uint8(0), SKIN)
    return image, mask


def test_a_mask_is_dilated_by_the_margin():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    dilated = occlusion.dilate(mask, 2 / 9)
    assert dilated[2:7, 2:7].all() and dilated.sum() == 25


def test_a_hidden_lesion_leaves_skin(lesion):
    image, mask = lesion
    hidden = occlusion.inpaint_lesion(image, mask)
    assert np.abs(hidden.astype(int) - SKIN).max() <= 1
    image[:6] = 90  # what is not hidden stays as it is
    assert (occlusion.inpaint_lesion(image, mask)[:6] == 90).all()


def test_between_two_colours_of_skin_the_hidden_part_runs_from_one_to_the_other():
    image = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0)
    image = np.repeat(image, 3, 2)
    mask = np.zeros((64, 64), bool)
    mask[24:40, 24:40] = True
    broken = np.where(mask[..., None], np.uint8(255), image)
    assert np.abs(occlusion.inpaint_lesion(broken, mask).astype(int) - image).max() <= 4


def test_the_lesion_alone_and_the_frame_alone(lesion):
    image, mask = lesion
    image[0, 0] = 0  # one black pixel of skin
    alone = occlusion.only_lesion(image, mask)
    outside = ~occlusion.dilate(mask)
    assert (alone[~outside] == image[~outside]).all()
    assert (alone[outside] == image[outside].mean(0).astype(np.uint8)).all()
    frame = occlusion.only_frame(image, mask)
    assert (frame[:5] == image[:5]).all() and (frame[20, 20] != 0).all()
    mask[12:40] = mask[20]  # the lesion reaches the lower edge
    image[mask] = 0
    frame = occlusion.only_frame(image, mask)
    assert (frame[5:] > 0).all() and (frame[0, 0] == 0).all()


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_artifact_is_added_and_the_rest_stays(name, lesion):
    image, _ = lesion
    before = image.copy()
    added = occlusion.add_artifact(image, name, [1, 2])
    assert (image == before).all() and (added == occlusion.add_artifact(image, name, [1, 2])).all()
    changed = (np.abs(added.astype(int) - image) > 1).any(-1).mean()
    assert 0.005 < changed < 0.5


def test_images_are_altered_by_their_masks(tmp_path):
    files = open_dataset(make_dataset(tmp_path / "data"))
    ids = files.metadata["image_id"].to_numpy()[:6]
    without_one = {name: path for name, path in files.masks.items() if name != ids[2]}
    found = {name: (rows.tolist(), pixels) for name, rows, pixels in occlusion.altered_images(
        dataclasses.replace(files, masks=without_one), ids, 32)}  # fmt: skip
    added = [f"{name}_added" for name in ARTIFACTS]
    always = [*added, *SHIFTS]
    assert list(found) == ["lesion_hidden", "only_lesion", "only_frame", *always]
    assert found["lesion_hidden"][0] == [0, 1, 3, 4, 5] and found["ink_added"][0] == list(range(6))
    assert all(pixels.shape == (len(rows), 32, 32, 3) for rows, pixels in found.values())
    none = dataclasses.replace(files, masks={})
    assert [name for name, *_ in occlusion.altered_images(none, ids, 32)] == always


def test_a_lesion_that_fills_the_image_is_not_hidden(tmp_path, monkeypatch):
    files = open_dataset(make_dataset(tmp_path / "data"))
    monkeypatch.setattr(occlusion, "read_mask", lambda path, size: np.ones((size, size), bool))
    found = [name for name, *_ in occlusion.altered_images(files, files.metadata["image_id"], 32)]
    assert not {"lesion_hidden", "only_lesion", "only_frame"} & set(found)


def test_what_networks_make_of_it_is_kept_until_the_images_change(sample_run, sample_files):
    folders = [sample_run / key for key in KEYS]
    path = folders[0] / OCCLUSION_FILE.format("test")
    occlusion.predict_altered(folders, sample_files, device="cpu")
    first, altered = path.stat().st_mtime_ns, load_predictions(path)
    test = load_predictions(folders[0] / "predictions.parquet").split("test")
    assert set(altered.splits) == set(ALTERATIONS)
    added = altered.split("ruler_added")
    assert (added.image_ids == test.image_ids).all() and (added.labels == test.labels).all()
    assert not np.allclose(added.logits, test.logits)
    occlusion.predict_altered(folders, sample_files, device="cpu")
    assert path.stat().st_mtime_ns == first
    path.unlink()  # of the first network alone
    occlusion.predict_altered(folders, sample_files, device="cpu")
    first = path.stat().st_mtime_ns
    fewer = dataclasses.replace(sample_files, masks=dict(list(sample_files.masks.items())[:-1]))
    occlusion.predict_altered(folders[:1], fewer, device="cpu")
    assert path.stat().st_mtime_ns != first


def test_estimates_are_those_of_the_altered_images_and_paired(tmp_path):
    make_run(tmp_path, skills=(2.0,))
    folder = tmp_path / "model_0"
    trained = load_trained_run(folder)
    test = trained.predictions.split("test")
    weights = bootstrap_weights(test.lesion_ids, 200)
    assert summarize_occlusion(folder, trained, weights) is None
    rows = np.arange(0, len(test.labels), 3)
    altered = dataclasses.replace(
        test.take(rows),
        splits=np.full(len(rows), "lesion_hidden"),
        logits=np.random.default_rng(1).normal(size=(len(rows), 7)).astype(np.float32),
    )
    path = folder / OCCLUSION_FILE.format("test")
    save_predictions(path, altered, "other weights")
    assert summarize_occlusion(folder, trained, weights) is None
    save_predictions(path, altered, f"{trained.bundle['weights_sha256']} dataset")
    (row,) = summarize_occlusion(folder, trained, weights)
    both = altered.probabilities(1.3), test.take(rows).probabilities(1.3)
    assert row["alteration"] == "lesion_hidden" and row["images"] == len(rows)
    after, before = (accuracy(altered.labels, each, None) for each in both)
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(after)
    assert row["minus_original"]["accuracy"]["value"] == pytest.approx(after - before)
    area = auc(altered.is_melanoma, both[1][:, 4], None)
    assert row["original"]["melanoma_auc"]["value"] == pytest.approx(area)
    change = (both[0] - both[1])[:, 4].mean()
    assert row["melanoma_score_change"]["value"] == pytest.approx(change)
    assert "not been shown" in describe_occlusion("N", [row])
    row["metrics"]["melanoma_auc"] = {"value": 0.8, "low": 0.7, "high": 0.9}
    assert "still tells" in describe_occlusion("N", [row])
    assert describe_occlusion("N", []) == ""


@pytest.mark.slow
def test_a_planted_shortcut_is_found(tmp_path):
    data = generate_sample(tmp_path / "data", shortcut="ruler")
    key, run = "efficientnet_lite0", tmp_path / "run"
    options = ["--preset", "sample", "--epochs", "4", "--device", "cpu"]
    places = ["--data-dir", str(data), "--output-dir", str(run)]
    assert main(["train", key, *options, *places]) == 0
    files, trained = open_dataset(data), load_trained_run(run / key)
    scores = {}
    for split in ("val", "test"):
        occlusion.predict_altered([run / key], files, split, "cpu")
        lesion_ids = trained.predictions.split(split).lesion_ids
        found = summarize_occlusion(run / key, trained, bootstrap_weights(lesion_ids, 200), split)
        scores[split] = {row["alteration"]: row for row in found}
    val, test = (scores[split]["lesion_hidden"] for split in scores)
    value = lambda estimates, name: estimates[name]["value"]  # noqa: E731
    assert value(test["original"], "melanoma_auc") < value(val["original"], "melanoma_auc") - 0.1
    assert val["metrics"]["melanoma_auc"]["low"] > 0.75  # without the lesion
    assert scores["test"]["ruler_added"]["melanoma_score_change"]["low"] > 0.05
    assert scores["test"]["ruler_removed"]["melanoma_score_change"]["high"] < -0.05
    test = trained.predictions.split("test")
    with_ruler = set(without_artifacts(data, test.image_ids, 128)["ruler"])
    assert heat_below(run / key, files, with_ruler) > 0.4  # of a quarter of the image


def heat_below(folder, files, image_ids):
    """The mean fraction of the heat for melanoma in the lower quarter of some images."""
    predictor = Predictor(folder)
    paths = [path for path in files.images if path.stem in image_ids]
    images = [predictor.load_image(path) for path in paths]
    heat = predictor.heat_maps(images, ["mel"] * len(images))
    return (heat[:, 96:].sum((1, 2)) / heat.sum((1, 2)).clip(1e-9)).mean()
