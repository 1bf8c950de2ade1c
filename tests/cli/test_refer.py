"""The command `melanoma refer`, and what `melanoma predict` says of images that are referred."""

import csv
import shutil

import pytest
from helpers import KEYS

from melanoma_lib.cli import main
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.evaluation.abstention import uncertainties
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.inference import Predictor, wording


@pytest.fixture
def run_dir(sample_run, tmp_path):
    for key in KEYS:
        shutil.copytree(sample_run / key, tmp_path / "run" / key)
    return tmp_path / "run"


def predict(run_dir, sample_dir, table, capsys):
    images = [str(path) for path in sorted((sample_dir / "images").iterdir())[:12]]
    capsys.readouterr()
    assert main(["predict", *images, "--bundle", str(run_dir / KEYS[0]), "--csv", str(table)]) == 0
    with table.open(newline="") as file:
        return capsys.readouterr().out, list(csv.DictReader(file))


def test_a_bundle_refers_only_after_the_command_and_until_it_is_undone(
    run_dir, sample_dir, tmp_path, capsys
):
    table, before = tmp_path / "out.csv", read_json(run_dir / KEYS[0] / "bundle.json")
    out, rows = predict(run_dir, sample_dir, table, capsys)
    assert "referral" not in before and {row["referred"] for row in rows} == {"False"}
    assert wording.REFERRED not in out and "would refer" not in out

    assert main(["refer", "--bundle", str(run_dir), "--fraction", "0.4"]) == 0
    said = capsys.readouterr().out
    assert said.count("It would refer") == len(KEYS)
    referral = read_json(run_dir / KEYS[0] / "bundle.json")["referral"]
    _, bundle, predictions = load_trained_run(run_dir / KEYS[0])
    val = predictions.split("val")
    unsure = uncertainties(val.probabilities(bundle["temperature"]))["confidence"]
    assert (unsure > referral["threshold"]).mean() == pytest.approx(0.4, abs=1 / len(unsure))

    out, rows = predict(run_dir, sample_dir, table, capsys)
    for row in rows:
        highest = max(float(value) for name, value in row.items() if name.startswith("p_"))
        assert row["referred"] == str(1 - highest > referral["threshold"])
    referred = sum(row["referred"] == "True" for row in rows)
    assert 0 < referred < len(rows) and out.count(wording.REFERRED) == referred
    assert out.count("It would refer") == 1
    lines = [line for line in out.splitlines() if wording.REFERRED in line]
    assert not any("predicted" in line or "near the threshold" in line for line in lines)

    assert main(["refer", "--bundle", str(run_dir), "--fraction", "0"]) == 0
    assert read_json(run_dir / KEYS[0] / "bundle.json") == before


def test_its_test_figures_are_those_of_the_operating_point(run_dir):
    assert main(["refer", "--bundle", str(run_dir / KEYS[0]), "--order", "margin"]) == 0
    predictor = Predictor(run_dir / KEYS[0])
    found = [predictor.operating_point(name)["referral"] for name in predictor.operating_points]
    assert len({str(each["referred"]) for each in found}) == 1
    assert found[0]["sensitivity"] != found[-1]["sensitivity"]


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--fraction", "1.5"], "between 0 and 1"), (["--fraction", "nan"], "between 0 and 1"),
     (["--order", "luck"], "confidence, margin, entropy")],
)  # fmt: skip
def test_what_is_no_referral_is_refused_and_nothing_is_written(run_dir, options, says, capsys):
    before = read_json(run_dir / KEYS[0] / "bundle.json")
    assert main(["refer", "--bundle", str(run_dir), *options]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert read_json(run_dir / KEYS[0] / "bundle.json") == before


def test_a_damaged_referral_is_named(run_dir, capsys, sample_dir):
    file = run_dir / KEYS[0] / "bundle.json"
    write_json(file, read_json(file) | {"referral": {"order": "confidence"}})
    image = next((sample_dir / "images").iterdir())
    assert main(["predict", str(image), "--bundle", str(run_dir / KEYS[0])]) == 2
    assert "referral" in capsys.readouterr().err


def test_without_melanomas_left_the_words_stay_plain():
    unknown = dict.fromkeys(("value", "low", "high"))
    text = wording.referral_text({"referral": dict.fromkeys(
        ("referred", "sensitivity", "found_or_referred"), unknown)})  # fmt: skip
    assert "None" not in text and "nan" not in text
    assert wording.referral_text({}) == ""
