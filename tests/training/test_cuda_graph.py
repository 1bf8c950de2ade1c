from unittest.mock import Mock

import pytest
import torch
from helpers import CONFIG, coloured, weights_of

from melanoma_lib.config import Config
from melanoma_lib.data.torch_dataset import GPUDataset
from melanoma_lib.models.build import build_model
from melanoma_lib.training import loop
from melanoma_lib.training.cuda_graph import WARM_UP, CUDAGraphStep, with_cuda_graph
from melanoma_lib.training.precision import ComputeSettings
from melanoma_lib.training.recipe import make_optimizer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def new_model(device="cpu"):
    torch.manual_seed(0)
    return build_model("test_efficientnet", 7, 32).to(device)


def as_a_graph_would(run):
    """Recording on the CPU: each replay computes anew and overwrites the same results."""
    results = torch.empty(()), torch.empty(CONFIG.batch_size, 7)

    def replay():
        for kept, new in zip(results, run(), strict=True):
            kept.copy_(new)

    return replay, results


refuses = Mock(
    side_effect=RuntimeError("operation not permitted when stream is capturing\nmore")
)


def epochs(step, data, device="cpu", precision="float32"):
    """The losses of two epochs, and the weights after them."""
    model = new_model(device)
    network, optimizer = ComputeSettings(precision).wrap(model), make_optimizer(model, CONFIG)
    rows = [loop.train_epoch(network, optimizer, data, CONFIG, epoch, step=step)
            for epoch in (1, 2)]  # fmt: skip
    return [row["train_loss"] for row in rows], weights_of(model).cpu()


@pytest.mark.parametrize("record", [as_a_graph_would, refuses])
def test_a_recorded_step_trains_on_every_batch_once_like_the_plain_one(record, capsys):
    losses, weights = epochs(loop.train_step, coloured())
    step = CUDAGraphStep(loop.train_step, record)
    recorded_losses, recorded_weights = epochs(step, coloured())
    assert step.calls == 10 and (step.replay is None) == (record is refuses)
    assert losses == recorded_losses and torch.equal(weights, recorded_weights)
    said = capsys.readouterr().out
    assert said.count("no CUDA graph (operation not permitted when stream is capturing)") == (
        record is refuses)  # fmt: skip


def test_another_shape_takes_the_ordinary_step():
    step = CUDAGraphStep(
        lambda model, optimizer, images, labels, *_: (labels.mean(), labels[:, None].repeat(1, 7)),
        as_a_graph_would,
    )
    for count in [8] * (WARM_UP + 2) + [2]:
        labels = torch.full((count,), float(step.calls))
        loss, logits = step(None, None, torch.zeros(count, 3, 4, 4), labels)
        assert loss == labels[0] and torch.equal(logits[:, 0], labels)


def test_a_full_memory_while_recording_is_left_to_the_caller():
    step = CUDAGraphStep(lambda *_: (0, 0), Mock(side_effect=torch.OutOfMemoryError("CUDA")))
    inputs = torch.zeros(8, 3, 4, 4), torch.zeros(8)
    for _ in range(WARM_UP):
        step(None, None, *inputs)
    with pytest.raises(torch.OutOfMemoryError):
        step(None, None, *inputs)


def test_nothing_is_recorded_on_the_cpu():
    assert with_cuda_graph(loop.train_step, torch.device("cpu")) is loop.train_step


@needs_gpu
# A GPU multiplies float32 in convolutions with fewer digits (TF32), and adds in any order; over ten
# steps that was 0.006 on an H200.
@pytest.mark.parametrize("precision, tolerance", [("float32", 0.02), ("bfloat16", 0.05)])
def test_on_a_gpu_an_epoch_gives_what_the_cpu_gives(precision, tolerance):
    losses, _ = epochs(loop.train_step, coloured())
    step = with_cuda_graph(loop.train_step, torch.device("cuda"))
    data = GPUDataset(coloured(), torch.device("cuda"))
    found, _ = epochs(step, data, "cuda", precision)
    assert step.replay is not None
    assert found == pytest.approx(losses, abs=tolerance)


@needs_gpu
def test_on_a_gpu_no_step_waits_for_the_device(monkeypatch):
    """Once a step is recorded, anything that waits inside an epoch raises."""
    device = torch.device("cuda")
    model = new_model(device)
    optimizer, data = make_optimizer(model, CONFIG), GPUDataset(coloured(64), device)
    step = with_cuda_graph(loop.train_step, device)
    loop.train_epoch(model, optimizer, data, CONFIG, 1, step=step)

    def strict(*inputs):
        torch.cuda.set_sync_debug_mode("error")
        return step(*inputs)

    def over(values):  # the epoch is: its numbers are read out
        torch.cuda.set_sync_debug_mode("default")
        return values

    monkeypatch.setattr(loop.distributed, "mean", over)
    try:
        loop.train_epoch(model, optimizer, data, CONFIG, 2, step=strict)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_on_a_gpu_a_whole_training_learns_and_is_resumed(tmp_path):
    """Each part has a model, an optimizer and a recorded step of its own."""
    histories = {}
    for folder, parts in {"whole": [20], "parts": [4, 20]}.items():
        for epochs in parts:
            config = Config(epochs=epochs, batch_size=8, image_size=32, learning_rate=3e-3)
            data = GPUDataset(coloured(), torch.device("cuda"))
            histories[folder] = loop.fit(new_model("cuda"), data, data, config, tmp_path / folder)
    whole, resumed = ([row["train_loss"] for row in history] for history in histories.values())
    assert whole[-1] < whole[0]
    assert whole[:6] == pytest.approx(resumed[:6], abs=0.05)  # a GPU adds in any order
