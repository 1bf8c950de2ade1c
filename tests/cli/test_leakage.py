"""`melanoma leakage` from images to results."""

import pandas as pd

from melanoma_lib.cli import main
from melanoma_lib.config import LEAKAGE_RESULTS
from melanoma_lib.core.files import read_json
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.reporting.compare import COLUMNS

KEY = "test_resnet"


def test_clean_and_leaky_trainings_judge_the_same_images(dataset, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["leakage", KEY, "--data-dir", str(dataset), "--output-dir", str(run)]
    arguments += ["--no-pretrained", "--image-size", "32", "--epochs", "1", "--batch-size", "16",
                  "--precision", "float32", "--device", "cpu", "--trainings", "2"]  # fmt: skip
    assert main([*arguments, "--leaked-fraction", "0.9"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "the largest possible is 0." in error
    assert not list(run.glob("**/checkpoint-*"))
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "training 2 of 2, clean" in printed and "The price of leakage, on the same" in printed

    results = read_json(run / LEAKAGE_RESULTS)
    (design,) = results["fractions"]
    assert results["trainings"] == 2 and f"{design['leaked_fraction']:g}" in error
    for found in design["sets"].values():
        for estimates in (found["clean"], found["leaky"], found["difference"]):
            assert set(estimates) == set(COLUMNS)
    folders = [run / design["folder"] / part for part in ("", "trainings/2")]
    splits = [pd.read_csv(folder / "split.csv") for folder in (run, *folders)]
    test = set(load_predictions(folders[0] / KEY / "predictions.parquet").split("test").lesion_ids)
    trained_on = [set(split["lesion_id"][split["part"] == "train"]) for split in splits]
    assert not test & trained_on[0]
    assert len(test & trained_on[1]) == design["sets"]["leaked"]["images"] > 0
    assert splits[1].equals(splits[2])
    seeds = [read_json(folder / KEY / "run.json")["config"]["training_seed"] for folder in folders]
    assert seeds == [1, 2]

    before = {path: path.stat().st_mtime_ns for path in run.rglob("predictions.parquet")}
    assert len(before) == 4
    assert main(arguments) == 0  # trains nothing again
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_json(run / LEAKAGE_RESULTS) == results


def test_leakage_is_of_one_architecture_split_by_lesion(dataset, tmp_path, capsys):
    arguments = ["leakage", KEY, "--data-dir", str(dataset), "--output-dir", str(tmp_path)]
    for wrong in (["--architectures", "resnet50"], ["--split", "image", "--no-pretrained"]):
        assert main([*arguments, *wrong]) == 2
        assert "leave out --" in capsys.readouterr().err
