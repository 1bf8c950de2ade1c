
import pytest
import yaml

from melanoma_lib.cli import main
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.reporting.compare import compare


@pytest.fixture
def compared(trained):
    """A run of two models with its results."""
    folder, latency, metadata = trained
    for key in latency:
        record = read_json(folder / key / "run.json")
        record["dataset"] |= {"parts": {"train": 70, "val": 15, "test": 15}, "images": 100}
        record |= {"versions": {"torch": "2.15.0"}}
        write_json(folder / key / "run.json", record)
    write_json(folder / "comparison_results.json", compare(folder, latency, metadata, 200))
    return folder


def test_a_card_says_what_the_results_say(compared, tmp_path, capsys):
    bundle = ["--bundle", str(compared / "model_0")]
    assert main(["card", *bundle, "--output-dir", str(tmp_path / "card")]) == 0
    assert "README.md" in capsys.readouterr().out
    _, header, text = (tmp_path / "card" / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["license"] == "cc-by-nc-4.0" and told["pipeline_tag"] == "image-classification"
    results = read_json(compared / "comparison_results.json")["models"]["model_0"]
    shown = {row["type"]: row["value"] for row in told["model-index"][0]["results"][0]["metrics"]}
    assert shown["melanoma_auc"] == results["metrics"]["melanoma_auc"]["value"]
    assert format_estimate(results["metrics"]["melanoma_auc"]) in text
    point = results["operating_points"][0]["test"]
    assert format_estimate(point["sensitivity"]) in text
    assert "Model_1" not in text and "not a medical device" in text
    assert text.count(" of at least ") == 1 and text.count("| melanoma |") == 1  # this one alone
    for name in ("05-1-reliability", "06-1-roc"):
        assert (tmp_path / "card" / f"{name}.png").exists() and f"({name}.png)" in text


def test_the_card_of_a_sample_begins_with_it(compared, tmp_path):
    assert main(["card", "--bundle", str(compared / "model_1")]) == 0
    lines = (compared / "model_1" / "README.md").read_text().split("---\n", 2)[2].strip()
    assert "only generated pictures" in lines.splitlines()[2]


def test_no_card_without_results(trained, capsys):
    folder, *_ = trained
    assert main(["card", "--bundle", str(folder / "model_0")]) == 2
    assert "comparison_results.json" in capsys.readouterr().err
