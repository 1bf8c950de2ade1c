"""The benchmark compares two trainings that are alike but for the precision."""

import runpy
import sys

import pytest

from melanoma_lib.core.files import PROJECT, read_json
from melanoma_lib.evaluation.bootstrap import format_estimate

SCRIPT = PROJECT / "benchmarks" / "precision.py"


@pytest.fixture
def main(monkeypatch):
    """The benchmark, on a processor that knows bfloat16."""
    monkeypatch.setattr("melanoma_lib.training.precision.computes_bfloat16", lambda device: True)
    return runpy.run_path(str(SCRIPT))["main"]


def test_two_trainings_are_compared(main, dataset, tmp_path, monkeypatch):
    output = tmp_path / "precision.json"
    recipe = {"epochs": 1, "image-size": 32, "batch-size": 8}
    arguments = [f"--{name}={value}" for name, value in recipe.items()]
    monkeypatch.setattr(sys, "argv", [
        "precision.py", "test_resnet", "--output", str(output), "--runs", str(tmp_path / "runs"),
        "--data-dir", str(dataset), "--no-pretrained", *arguments,
    ])  # fmt: skip
    main()
    results = read_json(output)
    assert results["config"]["epochs"] == 1 and list(results["seeds"]) == ["42"]
    found = results["seeds"]["42"]
    for metric in ("accuracy", "melanoma_auc"):
        values = [found[name][metric]["value"] for name in ("float32", "bfloat16")]
        assert found["difference"][metric]["value"] == pytest.approx(values[0] - values[1])
    used = [
        read_json(tmp_path / "runs" / name / "test_resnet" / "run.json")["arithmetic"]["precision"]
        for name in ("float32", "bfloat16")
    ]
    assert used == ["float32", "bfloat16"]


def test_the_documentation_says_what_was_measured():
    text = " ".join((PROJECT / "docs" / "reproduce.md").read_text().split())
    measured = read_json(PROJECT / "benchmarks" / "precision-cpu.json")
    assert measured["architecture"] in text and f"{measured['config']['image_size']} px" in text
    for found in measured["seeds"].values():
        for metric in ("accuracy", "melanoma_auc"):
            assert format_estimate(found["difference"][metric]) in text
