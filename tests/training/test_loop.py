import copy
import dataclasses
import threading

import numpy as np
import pytest
import torch
from helpers import CONFIG, coloured, weights_of
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_history
from melanoma_lib.models import bundle
from melanoma_lib.models.build import ARCHITECTURES, build_model
from melanoma_lib.training import loop
from melanoma_lib.training.checkpoint import load_checkpoint, save_checkpoint
from melanoma_lib.training.micro_batches import step_that_fits
from melanoma_lib.training.precision import ComputeSettings
from melanoma_lib.training.recipe import make_optimizer


def new_model():
    torch.manual_seed(0)
    return build_model("test_efficientnet", 7, 32)


def fit(folder, model=None, epochs=CONFIG.epochs, settings=None, data=None, recipe="thesis"):
    """The model after a training of the coloured pictures, and its history."""
    model, data = model or new_model(), data or coloured()
    config = dataclasses.replace(CONFIG, epochs=epochs, recipe=recipe)
    return model, loop.fit(model, data, data, config, folder, settings)


@pytest.fixture
def validated(monkeypatch):
    """A function that prescribes validation accuracies; it returns the weights validated so far."""

    def prescribe(*accuracies, also=lambda: None):
        seen, left = [], iter(accuracies)

        def validate(model, *_):
            seen.append(weights_of(model).clone())
            also()
            return {"val_loss": 1.0, "val_accuracy": next(left)}

        monkeypatch.setattr(loop, "validate", validate)
        return seen

    return prescribe


@pytest.mark.parametrize("key", [*ARCHITECTURES, "test_resnet"])
def test_a_network_learns_eight_images_by_heart(key):
    """The whole step works if it can bring the loss of eight images near zero."""
    torch.manual_seed(0)
    model = build_model(key, 7, 32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if key != "vit_b_16" else 1e-4)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    for _ in range(120):
        loss, logits = loop.train_step(model, optimizer, images, labels)
        if loss < 0.05:
            break
    assert loss < 0.05
    assert torch.equal(logits.argmax(1), labels)


def test_one_step_of_gradient_descent_by_hand():
    """Two classes, one weight a class, one image of value 1: the gradient is p - truth."""
    model = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss, logits = loop.train_step(model, optimizer, torch.ones(1, 1), torch.tensor([1]))
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)
    assert logits.tolist() == [[0, 0]]
    assert model.weight.flatten().tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("recipe", ["thesis", "balanced"])
def test_an_interrupted_training_ends_bit_for_bit_like_an_uninterrupted_one(
    tmp_path, monkeypatch, recipe
):
    """Each part has a model and an optimizer of its own."""
    whole, history = fit(tmp_path / "whole", recipe=recipe)
    if recipe == "thesis":  # the other's learning rate depends on how many epochs there will be
        fit(tmp_path / "parts", epochs=1)
    validate, calls = loop.validate, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setattr(loop, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", recipe=recipe)
    parts, resumed = fit(tmp_path / "parts", recipe=recipe)
    timeless = [
        [{k: v for k, v in row.items() if "second" not in k} for row in h]
        for h in (history, resumed)
    ]
    assert timeless[0] == timeless[1]
    assert torch.equal(weights_of(whole), weights_of(parts))
    both = [load_checkpoint(tmp_path / name)["model"] for name in ("whole", "parts")]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])


@pytest.mark.parametrize(
    "accuracies, best", [((0.5, 0.9, 0.7), [True, True, False]),
                         ((0.5, 0.5, 0.5), [True, False, False])]
)  # fmt: skip
def test_the_best_epoch_is_kept_as_a_real_copy_and_of_equals_the_first(
    tmp_path, validated, accuracies, best
):
    seen = validated(*accuracies)
    model, history = fit(tmp_path)
    assert [row["best"] for row in history] == best
    assert torch.equal(weights_of(model), seen[best.count(True) - 1])
    assert not torch.equal(seen[1], seen[2])


def test_weights_with_two_names_are_kept_too(tmp_path):
    """Some networks of timm use a layer in two places; safetensors refuses shared memory."""
    model, again = new_model(), new_model()
    for network in (model, again):
        network.twin = network.classifier
    fit(tmp_path, model, epochs=1)
    bundle.load_weights(again, tmp_path)
    assert torch.equal(weights_of(again), weights_of(model))


def test_a_kill_between_checkpoint_and_what_follows_from_it_is_mended(tmp_path):
    model, _ = fit(tmp_path, epochs=1)
    history = (tmp_path / "history.csv").read_text()
    for name in ("model.safetensors", "history.csv"):
        (tmp_path / name).unlink()
    again, _ = fit(tmp_path, epochs=1)
    assert torch.equal(weights_of(model), weights_of(again))
    assert (tmp_path / "history.csv").read_text() == history


def test_what_a_lost_epoch_left_does_not_outlive_it(tmp_path, validated, capsys):
    """The third epoch is the best, and its checkpoint is damaged: trained again it is not."""
    seen = validated(0.5, 0.4, 0.9)
    first, _ = fit(tmp_path)
    assert torch.equal(weights_of(first), seen[2])
    newest = max(tmp_path.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:-1])

    files = []  # before the third epoch is over
    validated(0.4, also=lambda: files.extend(
        [load_file(tmp_path / "model.safetensors"), read_history(tmp_path)]))  # fmt: skip
    model, history = fit(tmp_path)
    assert "damaged checkpoint left unused" in capsys.readouterr().out
    assert [row["best"] for row in history] == [True, False, False]
    assert torch.equal(weights_of(model), seen[0])
    assert len(files[1]) == 2
    assert torch.equal(files[0]["classifier.weight"], model.classifier.weight)
    assert not torch.equal(files[0]["classifier.weight"], first.classifier.weight)


def test_a_checkpoint_of_an_earlier_version_goes_on_with_the_best_weights_beside_it(
    tmp_path, validated
):
    validated(0.9, 0.5, 0.4)
    fit(tmp_path, epochs=2)
    best, checkpoint = load_file(tmp_path / "model.safetensors"), load_checkpoint(tmp_path)
    del checkpoint["best"]
    for path in tmp_path.glob("checkpoint-*"):
        path.unlink()
    save_checkpoint(tmp_path, checkpoint)
    model, _ = fit(tmp_path)
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


def test_a_training_leaves_the_threads_of_its_process_alone(tmp_path, validated):
    threads, used = torch.get_num_threads(), []
    validated(0.5, also=lambda: used.append(torch.get_num_threads()))
    fit(tmp_path, epochs=1, settings=ComputeSettings(threads=threads + 1))
    assert used == [threads + 1] and torch.get_num_threads() == threads


def test_a_checkpoint_holds_its_epoch_though_the_next_one_runs(tmp_path, validated, monkeypatch):
    """The first epoch is written only when the second has changed the weights."""
    trained = threading.Event()
    after = validated(0.5, 0.5, also=lambda: trained.set() if len(after) == 2 else None)

    def save(folder, state):
        assert trained.wait(60)
        save_checkpoint(folder, state)

    monkeypatch.setattr("melanoma_lib.training.checkpoint.save_checkpoint", save)
    fit(tmp_path, epochs=2)
    for path, weights in zip(sorted(tmp_path.glob("checkpoint-*")), after, strict=True):
        saved = torch.load(path)["model"].values()
        assert torch.equal(torch.cat([v.flatten().float() for v in saved]), weights)


@pytest.mark.parametrize("fault", ["loss", "weights"])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_epochs_before(tmp_path, monkeypatch, fault):
    data = coloured()
    data.image_ids = [f"ISIC_{row}" for row in range(40)]
    fit(tmp_path, epochs=1, data=data)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    step, calls = loop.train_step, []

    def faulty(model, optimizer, *batch):
        calls.append(1)
        loss, logits = step(model, optimizer, *batch)
        if fault == "weights" and len(calls) == 5:  # after the last step, so no loss shows it
            torch.nn.init.constant_(model.get_classifier().weight, float("inf"))
        return loss * (float("nan") if fault == "loss" and len(calls) == 3 else 1), logits

    monkeypatch.setattr(loop, "train_step", faulty)
    said = r"nan in epoch 2, step 3 of 5, with the images ISIC_\d+, " if fault == "loss" else (
        "validation loss is nan after epoch 2")  # fmt: skip
    with pytest.raises(MelanomaError, match=said):
        fit(tmp_path, data=data)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_gradients_of_the_parts_add_up_to_those_of_the_batch():
    images, labels = torch.randn(8, 3, 32, 32).double(), torch.arange(8) % 7
    results = []
    for parts in (1, 3, 8):
        torch.manual_seed(0)
        model = build_model("test_vit", 7, 32).double().train()  # takes no statistics of a batch
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss, logits, used = step_that_fits(
            loop.train_step, model, optimizer, images, labels, F.cross_entropy, parts
        )
        assert used == parts and logits.shape == (8, 7)
        results.append((loss, weights_of(model)))
    for loss, weights in results[1:]:
        assert torch.allclose(loss, results[0][0]) and torch.allclose(weights, results[0][1])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_a_batch_that_does_not_fit_goes_through_in_parts(tmp_path, monkeypatch, capsys, error):
    """A device that holds two images at once: batches of eight take four parts, and it is known."""
    data, model = coloured(16), new_model()
    forward = model.forward

    def small_memory(images):
        if model.training and len(images) > 2:
            raise error
        return forward(images)

    monkeypatch.setattr(model, "forward", small_memory)
    _, history = fit(tmp_path, model, epochs=2, data=data)
    assert [row["parts"] for row in history] == [4, 4]
    assert capsys.readouterr().out.count("out of memory") == 2  # once to two, once to four
    model.forward = lambda images: (_ for _ in ()).throw(error)
    with pytest.raises(MelanomaError, match="out of memory with one image of 32 pixels"):
        fit(tmp_path / "other", model, data=data)


def test_other_errors_are_not_taken_for_a_full_memory(monkeypatch):
    model = new_model()
    monkeypatch.setattr(model, "forward", lambda _: torch.zeros(2, 3) @ torch.zeros(2, 3))
    batch = torch.zeros(2, 3, 32, 32), torch.zeros(2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        optimizer = make_optimizer(model, CONFIG)
        step_that_fits(loop.train_step, model, optimizer, *batch, F.cross_entropy, 1)


def test_an_epoch_that_cannot_be_written_stops_the_training(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("melanoma_lib.training.checkpoint.save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path)


def test_the_history_is_in_the_folder_and_in_the_log(tmp_path, capsys):
    fit(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if "/3" in line]
    assert len(read_history(tmp_path)) == len(lines) == 3
    assert len({len(line.rstrip(" *")) for line in lines}) == 1  # aligned
    assert lines[0].endswith("*")


@pytest.mark.parametrize("epochs, left", [(6, " 0:48"), (12, " 2:00")])
def test_the_time_left_is_that_of_the_epochs_left(epochs, left):
    losses = dict.fromkeys(["train_loss", "train_accuracy", "val_loss", "val_accuracy"], 0)
    row = losses | {"images_per_second": 50, "best": False, "epoch": 2, "seconds": 12.0}
    assert loop.log_line([row, row], epochs).endswith(left)


def test_fewer_images_than_a_batch_are_reported(tmp_path):
    with pytest.raises(MelanomaError, match="do not fill one batch"):
        fit(tmp_path, data=coloured(7))


def test_dropout_is_replayed_too(tmp_path):
    """An epoch's random numbers come from its key, whatever was drawn before."""
    results = []
    for draws in (0, 100):
        torch.manual_seed(draws)
        model = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(3072, 7)
        )
        torch.nn.init.zeros_(model[2].weight)
        torch.nn.init.zeros_(model[2].bias)
        torch.rand(draws)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        model.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 32, 32)}
        loop.train_epoch(model, optimizer, coloured(), CONFIG, 2)
        results.append(weights_of(copy.deepcopy(model)))
    assert torch.equal(*results)


def test_checkpoints_keep_two_generations_and_notice_damage(tmp_path, capsys):
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, {"epoch": epoch, "model": {"w": torch.full((3,), epoch)}})
    older, newer = sorted(tmp_path.glob("checkpoint-*"))
    assert load_checkpoint(tmp_path)["epoch"] == 3
    content = bytearray(newer.read_bytes())
    content[len(content) // 2] ^= 1
    newer.write_bytes(content)
    assert load_checkpoint(tmp_path)["epoch"] == 2
    assert "damaged" in capsys.readouterr().out
    older.write_bytes(older.read_bytes()[:-10])
    with pytest.raises(MelanomaError, match=r"all checkpoints in .* are damaged"):
        load_checkpoint(tmp_path)
    assert older.exists() and newer.exists()


def test_weights_that_do_not_fit_are_reported(tmp_path):
    save_file(torch.nn.Linear(2, 3).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(MelanomaError, match="cannot be loaded"):
        bundle.load_weights(build_model("test_resnet", 7, 32), tmp_path)
