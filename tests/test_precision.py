"""What the benchmark imitates is what bfloat16 does; and it compares two trainings of one kind."""

import copy
import importlib.util
import sys

import pytest
import torch
from torch.nn import functional as F

from melanoma_lib.core.files import PROJECT, read_json
from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.models.build import build_model
from melanoma_lib.training import precision as compute

SCRIPT = PROJECT / "benchmarks" / "precision.py"


@pytest.fixture(scope="module")
def precision():
    spec = importlib.util.spec_from_file_location("precision", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def forward(monkeypatch):
    """Puts the library's own forward pass back after each test."""
    monkeypatch.setattr(compute._Wrapped, "forward", compute._Wrapped.forward)


def gradients(model, kind):
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 7
    logits = compute.Arithmetic(kind, "contiguous", 1).wrap(model)(images)
    F.cross_entropy(logits, labels).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("key", ["test_resnet", "test_efficientnet"])
def test_the_imitation_errs_like_autocast_in_bfloat16(key, precision, monkeypatch):
    torch.manual_seed(0)
    model = build_model(key, 7, 64).train()
    exact, short = gradients(model, "float32"), gradients(model, "bfloat16")
    monkeypatch.setattr(compute._Wrapped, "forward", precision.imitated_forward)
    imitated = gradients(model, "bfloat16")
    error, theirs = (imitated - exact).norm(), (short - exact).norm()
    assert theirs / 2 < error < 2 * theirs
    assert (imitated - short).norm() < theirs


def test_float32_is_left_alone_in_every_layout(precision, monkeypatch):
    torch.manual_seed(0)
    model = build_model("test_resnet", 7, 64).train()
    exact = gradients(model, "float32")
    monkeypatch.setattr(compute._Wrapped, "forward", precision.imitated_forward)
    assert gradients(model, "float32").equal(exact)


def test_digits_and_other_tensors(precision):
    value = torch.tensor([1 + 2**-9, 3.0])  # bfloat16 has eight digits in base two
    assert precision.rounded(value).tolist() == [1.0, 3.0]
    whole = torch.arange(3)
    assert precision.rounded(whole) is whole and precision.rounded(value.double())[0] > 1


def test_two_trainings_are_compared(precision, dataset, tmp_path, monkeypatch):
    output = tmp_path / "precision.json"
    recipe = {"epochs": 1, "image-size": 32, "batch-size": 8}
    arguments = [f"--{name}={value}" for name, value in recipe.items()]
    monkeypatch.setattr(sys, "argv", [
        "precision.py", "test_resnet", "--output", str(output), "--runs", str(tmp_path / "runs"),
        "--data-dir", str(dataset), "--no-pretrained", *arguments,
    ])  # fmt: skip
    precision.main()
    results = read_json(output)
    assert results["imitated"] in (True, False)  # as the processor is
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
