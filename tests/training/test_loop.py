import copy
import dataclasses
import threading

import numpy as np
import pytest
import torch
from helpers import CONFIG, coloured, weights_of
from safetensors.torch import load_file, save_file

from melanoma_lib.config import Augmentation
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_history
from melanoma_lib.models import bundle
from melanoma_lib.models.build import ARCHITECTURES, build_model
from melanoma_lib.training import loop
from melanoma_lib.training.checkpoint import load_checkpoint, save_checkpoint
from melanoma_lib.training.precision import ComputeSettings

STILL = Augmentation(flip=0, rotation=0, brightness=0, contrast=0, saturation=0)


def new_model():
    torch.manual_seed(0)
    return build_model("test_efficientnet", 7, 32)


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
    loss, logits = loop.train_step(
        model, optimizer, torch.ones(1, 1), torch.tensor([1])
    )
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)
    assert logits.tolist() == [[0, 0]]
    assert model.weight.flatten().tolist() == [-0.5, 0.5]


def test_an_interrupted_training_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path):
    data = coloured()
    whole, parts = new_model(), new_model()
    history = loop.fit(whole, data, data, CONFIG, tmp_path / "whole")
    for epochs in (1, 2, 3):  # each with a model and an optimiser of its own
        parts = new_model()
        config = dataclasses.replace(CONFIG, epochs=epochs)
        resumed = loop.fit(parts, data, data, config, tmp_path / "parts")
    timeless = [
        [{k: v for k, v in row.items() if "second" not in k} for row in h]
        for h in (history, resumed)
    ]
    assert timeless[0] == timeless[1]
    assert torch.equal(weights_of(whole), weights_of(parts))
    both = [load_checkpoint(tmp_path / name) for name in ("whole", "parts")]
    assert all(torch.equal(both[0]["model"][k], both[1]["model"][k]) for k in both[0]["model"])


def test_the_best_epoch_is_kept_as_a_real_copy(tmp_path, monkeypatch):
    """Validation accuracy .5, .9, .7: the second epoch's weights must come back."""
    accuracies = iter([0.5, 0.9, 0.7])
    seen = []

    def fake_validate(model, *_):
        seen.append(weights_of(model).clone())
        return {"val_loss": 1.0, "val_accuracy": next(accuracies)}

    monkeypatch.setattr(loop, "validate", fake_validate)
    model = new_model()
    history = loop.fit(model, coloured(), coloured(), CONFIG, tmp_path)
    assert [row["best"] for row in history] == [True, True, False]
    assert torch.equal(weights_of(model), seen[1]) and not torch.equal(seen[1], seen[2])


def test_weights_with_two_names_are_kept_too(tmp_path):
    """Some networks of timm use a layer in two places; safetensors refuses shared memory."""
    model, again = new_model(), new_model()
    for network in (model, again):
        network.twin = network.classifier
    data = coloured()
    loop.fit(model, data, data, dataclasses.replace(CONFIG, epochs=1), tmp_path)
    bundle.load_weights(again, tmp_path)
    assert torch.equal(weights_of(again), weights_of(model))


def test_equal_accuracy_keeps_the_earlier_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "validate", lambda *_: {"val_loss": 1.0, "val_accuracy": 0.5})
    history = loop.fit(new_model(), coloured(), coloured(), CONFIG, tmp_path)
    assert [row["best"] for row in history] == [True, False, False]


def test_a_kill_between_checkpoint_and_what_follows_from_it_is_mended(tmp_path):
    data = coloured()
    one = dataclasses.replace(CONFIG, epochs=1)
    model = new_model()
    loop.fit(model, data, data, one, tmp_path)
    history = (tmp_path / "history.csv").read_text()
    for name in ("model.safetensors", "history.csv"):
        (tmp_path / name).unlink()
    again = new_model()
    loop.fit(again, data, data, one, tmp_path)
    assert torch.equal(weights_of(model), weights_of(again))
    assert (tmp_path / "history.csv").read_text() == history


def test_what_a_lost_epoch_left_does_not_outlive_it(tmp_path, monkeypatch, capsys):
    """The third epoch is the best, and its checkpoint is damaged: trained again it is not."""
    data, validated = coloured(), []

    def validate(model, *_):
        validated.append((weights_of(model).clone(), files()))
        return {"val_loss": 1.0, "val_accuracy": accuracies.pop(0)}

    def files():
        there = (tmp_path / "model.safetensors").exists()
        saved = load_file(tmp_path / "model.safetensors") if there else {}
        return saved.get("classifier.weight"), len(read_history(tmp_path))

    monkeypatch.setattr(loop, "validate", validate)
    accuracies = [0.5, 0.4, 0.9]
    first = new_model()
    loop.fit(first, data, data, CONFIG, tmp_path)
    (best, _), _, (lost, _) = validated
    assert torch.equal(weights_of(first), lost)
    newest = max(tmp_path.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:-1])

    accuracies, model = [0.4], new_model()
    history = loop.fit(model, data, data, CONFIG, tmp_path)
    assert "damaged checkpoint left unused" in capsys.readouterr().out
    assert [row["best"] for row in history] == [True, False, False]
    assert torch.equal(weights_of(model), best)
    weights, epochs = validated[-1][1]  # before the third epoch was over
    assert epochs == 2 and not torch.equal(weights, first.classifier.weight)
    assert torch.equal(weights, model.classifier.weight)


def test_a_checkpoint_of_an_earlier_version_goes_on_with_the_best_weights_beside_it(
    tmp_path, monkeypatch
):
    data, accuracies = coloured(), iter([0.9, 0.5, 0.4])
    monkeypatch.setattr(
        loop, "validate", lambda *_: {"val_loss": 1.0, "val_accuracy": next(accuracies)}
    )
    loop.fit(new_model(), data, data, dataclasses.replace(CONFIG, epochs=2), tmp_path)
    best = load_file(tmp_path / "model.safetensors")
    checkpoint = load_checkpoint(tmp_path)
    del checkpoint["best"]
    save_checkpoint(tmp_path, checkpoint)
    for path in tmp_path.glob("checkpoint-*"):
        if "best" in torch.load(path):
            path.unlink()
    model = new_model()
    loop.fit(model, data, data, CONFIG, tmp_path)
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


def test_a_training_leaves_the_threads_of_its_process_alone(tmp_path, monkeypatch):
    data, threads, used = coloured(), torch.get_num_threads(), []

    def validate(*_):
        used.append(torch.get_num_threads())
        return {"val_loss": 1.0, "val_accuracy": 0.5}

    monkeypatch.setattr(loop, "validate", validate)
    settings = ComputeSettings(threads=threads + 1)
    config = dataclasses.replace(CONFIG, epochs=1)
    loop.fit(new_model(), data, data, config, tmp_path, settings)
    assert used == [threads + 1] and torch.get_num_threads() == threads


def test_a_checkpoint_holds_its_epoch_though_the_next_one_runs(tmp_path, monkeypatch):
    """The first epoch is written only when the second has changed the weights."""
    after, trained = [], threading.Event()

    def validate(model, *_):
        after.append(weights_of(model).clone())
        if len(after) == 2:
            trained.set()
        return {"val_loss": 1.0, "val_accuracy": 0.5}

    def save(folder, state):
        assert trained.wait(60)
        save_checkpoint(folder, state)

    monkeypatch.setattr(loop, "validate", validate)
    monkeypatch.setattr("melanoma_lib.training.checkpoint.save_checkpoint", save)
    data = coloured()
    loop.fit(new_model(), data, data, dataclasses.replace(CONFIG, epochs=2), tmp_path)
    for path, weights in zip(sorted(tmp_path.glob("checkpoint-*")), after, strict=True):
        saved = torch.load(path)["model"].values()
        assert torch.equal(torch.cat([v.flatten().float() for v in saved]), weights)


@pytest.mark.parametrize("fault", ["loss", "weights"])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_epochs_before(tmp_path, monkeypatch, fault):
    data = coloured()
    data.image_ids = [f"ISIC_{row}" for row in range(40)]
    loop.fit(new_model(), data, data, dataclasses.replace(CONFIG, epochs=1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    step, calls = loop.train_step, []

    def faulty(model, optimizer, images, labels):
        calls.append(1)
        loss, logits = step(model, optimizer, images, labels)
        if fault == "weights" and len(calls) == 5:  # after the last step, so no loss shows it
            torch.nn.init.constant_(model.get_classifier().weight, float("inf"))
        return loss * (float("nan") if fault == "loss" and len(calls) == 3 else 1), logits

    monkeypatch.setattr(loop, "train_step", faulty)
    said = r"nan in epoch 2, step 3 of 5, with the images ISIC_\d+, " if fault == "loss" else (
        "validation loss is nan after epoch 2")  # fmt: skip
    with pytest.raises(MelanomaError, match=said):
        loop.fit(new_model(), data, data, CONFIG, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_gradients_of_the_parts_add_up_to_those_of_the_batch():
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 7
    results = []
    for parts in (1, 3, 8):
        torch.manual_seed(0)
        model = build_model("test_vit", 7, 32).double().train()  # takes no statistics of a batch
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss, logits, used = loop.step_that_fits(
            model, optimizer, images.double(), labels, parts
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
    history = loop.fit(model, data, data, dataclasses.replace(CONFIG, epochs=2), tmp_path)
    assert [row["parts"] for row in history] == [4, 4]
    assert capsys.readouterr().out.count("out of memory") == 2  # once to two, once to four
    model.forward = lambda images: (_ for _ in ()).throw(error)
    with pytest.raises(MelanomaError, match="out of memory with one image of 32 pixels"):
        loop.fit(model, data, data, CONFIG, tmp_path / "other")


def test_other_errors_are_not_taken_for_a_full_memory(monkeypatch):
    model = new_model()
    monkeypatch.setattr(model, "forward", lambda _: torch.zeros(2, 3) @ torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        loop.step_that_fits(
            model, torch.optim.SGD(model.parameters()), torch.zeros(2, 3, 32, 32), torch.zeros(2), 1
        )


def test_an_epoch_that_cannot_be_written_stops_the_training(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("melanoma_lib.training.checkpoint.save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        loop.fit(new_model(), coloured(), coloured(), CONFIG, tmp_path)


def test_the_history_is_in_the_folder_and_in_the_log(tmp_path, capsys):
    loop.fit(new_model(), coloured(), coloured(), CONFIG, tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if "/3" in line]
    assert len(read_history(tmp_path)) == len(lines) == 3
    assert len({len(line.rstrip(" *")) for line in lines}) == 1  # aligned
    assert lines[0].endswith("*")


def test_the_time_left_is_that_of_the_epochs_left():
    row = {
        "epoch": 2, "train_loss": 1, "train_accuracy": 0.5, "val_loss": 1, "val_accuracy": 0.5,
        "images_per_second": 50, "best": False, "seconds": 12.0,
    }  # fmt: skip
    assert loop.log_line([row, row], 6).endswith(" 0:48")
    assert loop.log_line([row, row], 12).endswith(" 2:00")


def test_fewer_images_than_a_batch_are_reported(tmp_path):
    with pytest.raises(MelanomaError, match="do not fill one batch"):
        loop.fit(new_model(), coloured(7), coloured(), CONFIG, tmp_path)


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
    model = torch.nn.Linear(2, 3)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(MelanomaError, match="cannot be loaded"):
        bundle.load_weights(build_model("test_resnet", 7, 32), tmp_path)
