"""A trained run on images from elsewhere: nothing is fitted to them, and the shift is shown."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, fast, make_dataset
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.dataset_files import open_dataset, read_metadata
from melanoma_lib.data.images import read_image
from melanoma_lib.evaluation.metrics import accuracy
from melanoma_lib.evaluation.model_metrics import CALIBRATION, METRICS
from melanoma_lib.evaluation.predictions import ISIC_COLUMNS, load_predictions
from melanoma_lib.reporting import external_test
from melanoma_lib.reporting.compare import compare
from melanoma_lib.reporting.figures import EXTERNAL

KEY, SIZE = "test_resnet", 32
DOC = (ROOT / "docs" / "results.md").read_text()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small dataset and a run that learnt to tell its colours apart."""
    folder = tmp_path_factory.mktemp("home")
    data = make_dataset(folder / "data", lesions_per_class=20)
    arguments = ["train", KEY, "--data-dir", data, "--output-dir", folder / "run", "--epochs", 6]
    arguments += ["--no-pretrained", "--image-size", SIZE, "--batch-size", 16]
    assert main([str(a) for a in [*arguments, "--learning-rate", 1e-3]]) == 0
    return data, folder / "run"


@pytest.fixture
def run(home, tmp_path):
    """A copy of the run that a test may write to, and its dataset."""
    return Path(shutil.copytree(home[1], tmp_path / "run")), home[0]


def elsewhere(folder, data, light=1.0, first=8_000_001):
    """The same pictures under other names and another lamp, in the layout of ISIC 2018."""
    table = read_metadata(data / "HAM10000_metadata.csv")
    names = [f"ISIC_{first + row:07d}" for row in range(len(table))]
    (folder / "images").mkdir(parents=True)
    for name, old in zip(names, table["image_id"], strict=True):
        pixels = read_image(data / "images" / f"{old}.jpg") * light
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{name}.png")
    truth = pd.DataFrame(0.0, pd.Index(names, name="image"), ISIC_COLUMNS)
    for name, dx in zip(names, table["dx"], strict=True):
        truth.loc[name, dx.upper()] = 1.0
    truth.to_csv(folder / "ISIC2018_Task3_Test_GroundTruth.csv")
    return folder


def evaluate(run, folder, **options):
    files = open_dataset(folder, external=True)
    return external_test.evaluate([run / KEY], files, "cpu", resamples=200, **options)


def test_the_own_test_part_as_a_foreign_file_gives_the_numbers_of_the_normal_path(
    run, tmp_path, monkeypatch
):
    """DermaMNIST's layout at the run's size: the same pixels, so the same logits and figures."""
    run, data = run
    split = pd.read_csv(run / "split.csv")
    rows = split[split["part"] == "test"]
    pictures = [read_image(data / "images" / f"{name}.jpg", SIZE) for name in rows["image_id"]]
    labels = rows["dx"].map(CLASS_NAMES.index).to_numpy(np.uint8)[:, None]
    np.savez(tmp_path / "dermamnist.npz", test_images=np.stack(pictures), test_labels=labels)
    counts = np.bincount(labels[:, 0], minlength=len(CLASS_NAMES))
    monkeypatch.setattr("melanoma_lib.data.tables.DERMAMNIST_TEST", tuple(counts))
    results, predictions = evaluate(run, tmp_path)
    own = load_predictions(run / KEY / "predictions.parquet").split("test")
    assert np.allclose(predictions[KEY].logits, own.logits, atol=1e-5)

    normal = compare(run, fast(KEY), read_metadata(data / "HAM10000_metadata.csv"), 200)
    expected, found = normal["models"][KEY], results["models"][KEY]
    for name in METRICS:
        value = expected["metrics"][name]["value"]
        assert found["metrics"][name]["value"] == pytest.approx(value, abs=1e-5)
        assert found["own"]["metrics"][name]["value"] == pytest.approx(value, abs=1e-12)
        assert found["own"]["difference"][name]["value"] == pytest.approx(0, abs=1e-5)
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    points = zip(expected["operating_points"], found["operating_points"], strict=True)
    for normal_point, point in points:
        assert point["validation"] == normal_point["validation"]
        assert point["threshold"] == normal_point["threshold"]
    assert "trained on HAM10000 has seen most" in results["external"]["overlap"]
    documented = set(re.findall(r"`(\w+)`", DOC))
    fields = {*results, *results["external"], *results["external"]["own"], *found, *found["own"]}
    assert fields <= documented
    assert set(found["own"]["difference_uncalibrated"]) == set(CALIBRATION)


def test_a_darker_lamp_makes_calibration_worse_and_nothing_is_refitted(run, tmp_path):
    run, data = run
    bundle = read_json(run / KEY / "bundle.json")
    bright, _ = evaluate(run, elsewhere(tmp_path / "bright", data))
    dark, predictions = evaluate(run, elsewhere(tmp_path / "dark", data, 0.45, 8_100_001))
    model, same = dark["models"][KEY], bright["models"][KEY]
    for name in ("ece", "nll"):
        assert model["own"]["difference"][name]["low"] > 0
        assert model["metrics"][name]["value"] > same["metrics"][name]["value"] + 0.05
    assert model["temperature"] == bundle["temperature"] == same["temperature"]
    thresholds = [point["threshold"] for point in bundle["operating_points"]]
    assert [point["threshold"] for point in model["operating_points"]] == thresholds
    gain = model["gain"]["ece"]["value"]
    expected = model["uncalibrated"]["ece"]["value"] - model["metrics"]["ece"]["value"]
    assert gain == pytest.approx(expected)
    dark_hits = accuracy(predictions[KEY].labels, predictions[KEY].probabilities())
    assert model["metrics"]["accuracy"]["value"] == pytest.approx(float(dark_hits))
    assert dark["test_lesions"] == dark["test_images"] == 210  # no lesion ids: one each


def test_images_and_lesions_that_the_run_knows_are_left_out(run, tmp_path):
    run, data = run
    table = pd.read_csv(data / "HAM10000_metadata.csv", dtype=str)
    known, lesion = table["image_id"][0], table["lesion_id"][0]
    folder = elsewhere(tmp_path / "x", data)
    truth = pd.read_csv(folder / "ISIC2018_Task3_Test_GroundTruth.csv")
    old, new = truth.loc[0, "image"], truth.loc[1, "image"]
    truth.loc[0, "image"] = known
    truth.to_csv(folder / "ISIC_2019_Training_GroundTruth.csv", index=False)
    (folder / "ISIC2018_Task3_Test_GroundTruth.csv").unlink()
    (folder / "images" / f"{old}.png").rename(folder / "images" / f"{known}.png")
    (folder / "ISIC_2019_Training_Metadata.csv").write_text(f"image,lesion_id\n{new},{lesion}\n")
    rows, left_out = external_test.unseen(run, open_dataset(folder, external=True))
    assert list(rows) == list(range(2, 210))
    assert left_out == {"images of the run's own dataset": 1, "images of its lesions": 1}
    with pytest.raises(MelanomaError, match=r"all 210 images are those .* needs others"):
        evaluate(run, data)


def test_the_command_leaves_results_tables_figures_and_submissions(run, tmp_path, capsys):
    run, data = run
    shutil.copytree(run / KEY, run / "second")
    bundle = read_json(run / "second" / "bundle.json")
    write_json(run / "second" / "bundle.json", bundle | {"temperature": 20.0})
    folder = elsewhere(tmp_path / "clinic", data)
    assert main(["evaluate", "--data-dir", str(folder), "--bundle", str(run)]) == 0
    out = run / "external" / "clinic"
    text = capsys.readouterr().out
    assert text.rstrip().endswith(str(out)) and "ISIC 2018 test set, from outside of" in text
    said = "The temperature 20.00 is at the end of its range"
    assert text.count(said) == 2  # before the images are read, and in the summary
    results = json.loads((out / "external_results.json").read_text())
    assert list(results["models"]) == ["second", KEY] and len(results["differences"]) == 1
    names = [f"{name}{f'-{key}' * (number == 0)}.{suffix}" for number, name in enumerate(EXTERNAL)
             for key in ("second", KEY) for suffix in ("png", "pdf")]  # fmt: skip
    assert all((out / name).stat().st_size > 1000 for name in names)
    table = pd.read_csv(out / "tables" / "external.csv")
    value = results["models"][KEY]["own"]["metrics"]["accuracy"]["value"]
    assert table.loc[table["measure"] == "Accuracy", "own"].tolist() == [pytest.approx(value)] * 2
    assert "\\toprule" in (out / "tables" / "external.tex").read_text()
    submission = pd.read_csv(out / "predictions" / f"isic2018-{KEY}.csv")
    assert list(submission) == ["image", *ISIC_COLUMNS] and len(submission) == 210
    assert np.allclose(submission[list(ISIC_COLUMNS)].sum(axis=1), 1)
    saved = load_predictions(out / "predictions" / f"{KEY}.parquet")
    assert list(saved.image_ids) == list(submission["image"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "{run}"], "name their folder: --data-dir"),
        (["--bundle", "{data}", "--data-dir", "{data}"], "there is no trained model"),
        (["--bundle", "{run}", "--data-dir", "{run}"], "holds no HAM10000_metadata table"),
        (["--bundle", "{run}", "--data-dir", "{data}"], "needs others"),
        (["--bundle", "{run}", "--data-dir", "{data}/absent"], "does not exist"),
    ],
)
def test_bad_input_is_one_line(run, capsys, arguments, message):
    places = {"run": run[0], "data": run[1]}
    assert main(["evaluate", *(text.format(**places) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (run[0] / "external").exists()
