import dataclasses

import numpy as np
import pytest
import torch
from helpers import CONFIG, coloured, weights_of
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from melanoma_lib.config import RECIPES, Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_history, read_json
from melanoma_lib.data.augment import generator
from melanoma_lib.data.torch_dataset import loader, undersampled_counts
from melanoma_lib.evaluation.metrics import nll
from melanoma_lib.evaluation.predictions import load_predictions, softmax
from melanoma_lib.models.bundle import load_bundle
from melanoma_lib.training import probe
from melanoma_lib.training.recipe import make_loss, make_optimizer, one_cycle, set_learning_rate
from melanoma_lib.training.train import train_architecture

KEY = "test_efficientnet"
BALANCED = dataclasses.replace(CONFIG, recipe="balanced")


def test_one_cycle_is_the_one_of_pytorch():
    steps = 101
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peak_at = (0.2 * (steps - 1) + 1) / steps  # theirs counts from the first step to the last
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, steps, pct_start=peak_at, div_factor=1e9, final_div_factor=1e9
    )
    for step in range(steps):
        assert one_cycle(step / (steps - 1)) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        theirs.step()


def test_a_step_has_the_learning_rate_of_its_place_in_the_training():
    optimizer = make_optimizer(torch.nn.Linear(2, 2), BALANCED)
    rates = []
    for epochs in (0, 0.3, 0.6, 1.8, 3):  # of three; the peak is after 0.6
        set_learning_rate(optimizer, BALANCED, epochs)
        rates.append(optimizer.param_groups[0]["lr"] / BALANCED.learning_rate)
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-12)


def test_weights_decay_and_biases_do_not():
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.ones_(layer.bias)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer(layer, BALANCED)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrunk = 1 - BALANCED.learning_rate * RECIPES["balanced"].weight_decay
    assert torch.allclose(layer.weight, before * shrunk, rtol=1e-6)
    assert layer.bias.tolist() == [1, 1]


@pytest.mark.parametrize(
    "counts, fraction, shown",
    [([80, 12, 8], 0.5, [20, 12, 8]), ([80, 12, 8], 1.0, [80, 12, 8]),
     ([80, 12, 8], 0.2, [5, 12, 8]), ([4, 4, 4], 0.5, [4, 4, 4])],
)  # fmt: skip
def test_an_epoch_shows_as_many_of_the_most_frequent_class_as_fill_a_fraction(
    counts, fraction, shown
):
    assert undersampled_counts(np.array(counts), fraction).tolist() == shown


def test_every_epoch_shows_all_rare_images_and_others_of_the_frequent_class():
    data = coloured(70)
    data.labels = np.repeat(np.arange(7), [40, 5, 5, 5, 5, 5, 5])

    def rows(epoch):
        batches = loader(data, 5, generator(1, epoch, 0), majority_fraction=0.25)
        return torch.cat([batch[2] for batch in batches]).tolist()

    first, second = rows(1), rows(2)
    assert first == rows(1) and first != second
    for epoch in (first, second):
        assert sorted(row for row in epoch if row >= 40) == list(range(40, 70))
        assert len(set(epoch)) == len(epoch) == 40
    assert {row for row in first if row < 40} != {row for row in second if row < 40}


def test_the_adjusted_loss_is_least_at_the_real_frequencies():
    """Of 80 and 20 images an epoch shows 20 and 20: still the odds that fit best are 4 to 1."""
    recipe = dataclasses.replace(RECIPES["balanced"], majority_fraction=0.5)
    loss = make_loss(recipe, np.array([80, 20]))
    logits = torch.log(torch.tensor([0.8, 0.2])).requires_grad_()
    labels = torch.tensor([0, 1] * 20)
    loss(logits.expand(40, 2), labels).backward()
    assert torch.allclose(logits.grad, torch.zeros(2), atol=1e-6)
    assert make_loss(RECIPES["thesis"], np.array([80, 20])) is F.cross_entropy


def test_a_class_without_images_does_not_spoil_the_loss():
    loss = make_loss(RECIPES["balanced"], np.array([80, 20, 0]))
    assert loss(torch.zeros(2, 3), torch.tensor([0, 1])).isfinite()


def test_a_recipe_is_part_of_what_identifies_a_training():
    thesis, balanced = (Config(recipe=name, epochs=3, learning_rate=1e-3)
                        for name in ("thesis", "balanced"))  # fmt: skip
    longer = dataclasses.replace(balanced, epochs=4)
    keys = [config.training_key("resnet50", "data") for config in (thesis, balanced, longer)]
    assert len(set(keys)) == 3
    longer = dataclasses.replace(thesis, epochs=4)  # goes on from the shorter one
    assert longer.training_key("resnet50", "data") == keys[0]
    with pytest.raises(MelanomaError, match="recipe 'fast' is not one of"):
        Config(recipe="fast")


@pytest.fixture
def features():
    """Features of three classes, their means apart, some channels larger than others."""
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(120) % 3, "val": np.arange(60) % 3}
    means = rng.normal(size=(3, 5))
    return {
        name: np.float32((means[truth] + rng.normal(size=(len(truth), 5))) * [1, 1, 10, 0.1, 1])
        for name, truth in labels.items()
    }, labels


def test_the_output_layer_is_the_best_of_scikit_learns_on_validation(features):
    inputs, labels = features
    weight, bias = probe.fit_linear(*features, classes=4)
    found = softmax(inputs["val"] @ weight.T + bias)
    theirs = []
    for strength in probe.STRENGTHS:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8))
        fitted = pipeline.fit(inputs["train"], labels["train"])
        theirs.append(fitted.predict_proba(inputs["val"]))
    losses = [nll(labels["val"], each) for each in theirs]
    assert found[:, :3] == pytest.approx(theirs[int(np.argmin(losses))], abs=0.01)
    assert found[:, 3].max() < 1e-6  # a class that training does not have


def test_too_few_diagnoses_and_networks_without_an_output_layer_are_reported(features):
    inputs, labels = features
    with pytest.raises(MelanomaError, match="at least three diagnoses"):
        probe.fit_linear(inputs, {**labels, "train": labels["train"] % 2}, 3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 7))
    model.get_classifier = lambda: model
    with pytest.raises(MelanomaError, match="does not end in one linear layer"):
        probe.output_layer(model)


@pytest.mark.parametrize("recipe, epochs", [("probe", [0]), ("probe+tune", [0, 1, 2])])
def test_a_probe_leaves_what_every_training_leaves(
    _dataset, tmp_path, monkeypatch, capsys, recipe, epochs
):
    config = Config(
        data_dir=str(_dataset), output_dir=str(tmp_path / "run"), architectures=(KEY,),
        pretrained=False, device="cpu", recipe=recipe, epochs=epochs[-1], batch_size=16,
        image_size=32, learning_rate=1e-3,
    )  # fmt: skip
    monkeypatch.setenv("MELANOMA_CACHE", str(tmp_path / "cache"))
    folder = train_architecture(config, KEY)
    assert f" 0/{epochs[-1]} " in capsys.readouterr().out
    history, record = read_history(folder), read_json(folder / "run.json")
    assert [int(row["epoch"]) for row in history] == epochs
    assert record["finished"] and record["best_epoch"] == epochs[-1]
    model, metadata = load_bundle(folder)
    assert sum(metadata["decision_priors"]) == pytest.approx(1)
    predictions = load_predictions(folder / "predictions.parquet").split("val")
    loss = nll(predictions.labels, predictions.probabilities())
    # So few images make logits so large that rounding, by batch and thread, is seen.
    assert loss == pytest.approx(float(history[-1]["val_loss"]), rel=0.03)

    monkeypatch.setattr(probe, "predict_logits", None)  # the features are on disk
    other = dataclasses.replace(config, output_dir=str(tmp_path / "other"))
    again = train_architecture(other, KEY)
    assert torch.equal(weights_of(load_bundle(again)[0]), weights_of(model))
