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
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA, NO_MELANOMA
from melanoma_lib.data.dataset_files import open_dataset, read_metadata
from melanoma_lib.data.images import read_image
from melanoma_lib.data.layouts import LAYOUTS
from melanoma_lib.evaluation.metrics import accuracy, class_ece
from melanoma_lib.evaluation.model_metrics import (
    CALIBRATION,
    MELANOMA_CALIBRATION,
    MELANOMA_METRICS,
    METRICS,
)
from melanoma_lib.evaluation.predictions import ISIC_COLUMNS, load_predictions
from melanoma_lib.reporting import external_test
from melanoma_lib.reporting.compare import compare
from melanoma_lib.reporting.figures import EXTERNAL
from melanoma_lib.reporting.summary import describe_results

KEY, SIZE = "test_resnet", 32
FIGURES = [name for name in EXTERNAL if "melanoma" not in name]
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
    names = [f"{name}{f'-{key}' * (number == 0)}.{suffix}" for number, name in enumerate(FIGURES)
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


def melanoma_or_not(folder):
    """Rewrites the table of such a folder in the form of ISIC 2020."""
    table = folder / "ISIC2018_Task3_Test_GroundTruth.csv"
    truth = pd.read_csv(table)
    kinds = truth["MEL"].astype(int).map({1: "melanoma,malignant,1", 0: "unknown,benign,0"})
    lines = truth["image"] + ",IP_1,male,45,torso," + kinds
    head = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
    (folder / "train.csv").write_text("\n".join([head + "benign_malignant,target", *lines, ""]))
    table.unlink()
    return folder


def test_a_dataset_that_only_says_melanoma_or_not_gets_the_binary_part(run, tmp_path, capsys):
    """What it says is what seven diagnoses of the same images say of melanoma."""
    run, data = run
    folder = elsewhere(tmp_path / "clinic", data, 0.8)
    expected, _ = evaluate(run, folder)
    found, predictions = evaluate(run, melanoma_or_not(folder))
    whole, part = expected["models"][KEY], found["models"][KEY]
    for side, other in ((part, whole), (part["own"], whole["own"])):
        for name in ("melanoma_auc", "melanoma_average_precision"):
            assert side["metrics"][name] == pytest.approx(other["metrics"][name])
        assert side["operating_points"] == other["operating_points"]
        assert set(side["metrics"]) == set(MELANOMA_METRICS)
        assert set(side["uncalibrated"]) == set(side["gain"]) == set(MELANOMA_CALIBRATION)
        assert "confusion_matrix" not in side
    (mel,) = [row for row in whole["diagnoses"] if row["diagnosis"] == MELANOMA]
    assert part["metrics"]["melanoma_ece"] == mel["ece"]
    assert part["metrics"]["calibration_in_the_large"] == mel["calibration_in_the_large"]
    external = predictions[KEY]
    raw = class_ece(external.is_melanoma, external.melanoma_probability())
    assert part["uncalibrated"]["melanoma_ece"]["value"] == pytest.approx(float(raw))
    assert set(external.labels) == {-1, CLASS_NAMES.index(MELANOMA)}
    for name in ("test_images", "test_melanomas", "prevalence", "interval", "split", "class_names"):
        assert found[name] == expected[name]
    fields = {*found, *found["external"], *part, *part["own"], *part["metrics"]}
    assert fields <= set(re.findall(r"`(\w+)`", DOC))

    capsys.readouterr()
    assert main(["evaluate", "--data-dir", str(folder), "--bundle", str(run)]) == 0
    text, out = capsys.readouterr().out, run / "external" / "clinic"
    assert "no more is known than melanoma or not" in text and "accuracy" not in text
    files = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    assert files == {
        "external_results.json", "summary.md", "predictions/isic2018-test_resnet.csv",
        "predictions/test_resnet.parquet",
        *(f"tables/{name}.{end}" for name in ("external", "operating_points")
          for end in ("csv", "tex")),
        *(f"external-{name}.{end}" for name in (f"1-melanoma-reliability-{KEY}",
          "2-operating-points") for end in ("png", "pdf")),
    }  # fmt: skip
    measures = pd.read_csv(out / "tables" / "external.csv")["measure"].tolist()
    assert measures[1:4] == ["Melanoma AP", "ECE of melanoma", "Brier score of melanoma"]
    saved = out / "predictions" / f"{KEY}.parquet"
    assert set(pd.read_parquet(saved)["label"]) == {MELANOMA, NO_MELANOMA}
    assert np.array_equal(load_predictions(saved).labels, external.labels)

    (photographs,) = [layout for layout in LAYOUTS if layout.modality]
    found["external"]["warnings"] = photographs.warnings
    assert "The images are clinical photographs by smartphones" in describe_results(found)


def test_of_a_lesion_that_the_run_knows_no_other_image_is_tested_either(run, tmp_path):
    """The ISIC archive gives the lesions of HAM10000 other ids."""
    run, data = run
    known = pd.read_csv(data / "HAM10000_metadata.csv", dtype=str)["image_id"][0]
    nevus = "Benign,Benign melanocytic proliferations,Nevus"
    rows = [f"{name},{nevus},{lesion}" for name, lesion in
            ((known, "IL_1"), ("ISIC_7000001", "IL_1"), ("ISIC_7000002", "IL_2"))]  # fmt: skip
    head = "isic_id,diagnosis_1,diagnosis_2,diagnosis_3,lesion_id"
    (tmp_path / "metadata.csv").write_text("\n".join([head, *rows, ""]))
    for name in (known, "ISIC_7000001", "ISIC_7000002"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    rows, left_out = external_test.unseen(run, open_dataset(tmp_path, external=True))
    assert list(rows) == [2]
    assert left_out == {"images of the run's own dataset": 1, "images of its lesions": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "{run}"], "name their folder: --data-dir"),
        (["--bundle", "{data}", "--data-dir", "{data}"], "there is no trained model"),
        (["--bundle", "{run}", "--data-dir", "{run}"], "holds no HAM10000_metadata table"),
        (["--bundle", "{run}", "--data-dir", "{data}"], "all 210 images are those that {run} was "
         "trained and tested on; an external test needs others"),
        (["--bundle", "{run}", "--data-dir", "{data}/absent"], "does not exist"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, capsys, arguments, message):
    places = {"run": run[0], "data": run[1]}
    assert main(["evaluate", *(text.format(**places) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message.format(**places) in error and error.count("\n") == 1
    assert not (run[0] / "external").exists()
