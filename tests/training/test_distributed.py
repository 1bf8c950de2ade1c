"""One training on several processes: the recipe stays, one of them writes, a kill is mended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melanoma_lib.cli import main
from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_history, read_json
from melanoma_lib.models.build import build_model
from melanoma_lib.training import distributed

TARGET = Path(__file__).with_name("torchrun_target.py")
KEY = "test_vit"  # without batch statistics, which processes on the CPU do not share
EPOCHS = 6


def arguments(dataset, run):
    return [
        "train", KEY, "--data-dir", str(dataset), "--output-dir", str(run), "--no-pretrained",
        "--device", "cpu", "--image-size", "32", "--batch-size", "16", "--epochs", str(EPOCHS),
        "--precision", "float32",  # bfloat16, which a CPU may compute in, rounds too much for this
    ]  # fmt: skip


def test_two_processes_train_like_one_though_one_of_them_is_killed(dataset, tmp_path):
    """The other one ends too, and the same command goes on after the last written epoch."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        TARGET, *arguments(dataset, tmp_path / "run"),
    ]  # fmt: skip
    environment = os.environ | {"MELANOMA_TEST": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        folder, deadline = tmp_path / "run" / KEY, time.time() + 120
        while not read_history(folder):
            assert process.poll() is None and time.time() < deadline
            time.sleep(0.02)
        os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
        assert process.wait(timeout=120) != 0
    assert len(read_history(folder)) < EPOCHS
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout
    assert done.returncode == 0 and "going on after epoch" in output, done.stderr[-2000:]
    assert output.count(f"{EPOCHS}/{EPOCHS}") == 1  # the second process is silent

    assert main(arguments(dataset, tmp_path / "alone")) == 0
    alone = tmp_path / "alone" / KEY
    history, reference = read_history(folder), read_history(alone)
    assert len(history) == len(reference) == EPOCHS
    for row, expected in zip(history, reference, strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-4)
    weights, others = (load_file(f / "model.safetensors") for f in (folder, alone))
    assert all(torch.allclose(weights[name], others[name], atol=1e-3) for name in others)
    records = [read_json(f / "run.json") for f in (folder, alone)]
    assert [record["processes"] for record in records] == [2, 1]
    assert records[0]["training_key"] == records[1]["training_key"]

    assert all(f"os.rename {folder}/.{name}-" in (tmp_path / "writes-0").read_text()
               for name in ("model", "history", "run"))
    assert (tmp_path / "writes-1").read_text() == ""  # one writer


def test_a_batch_is_shared_without_loss(monkeypatch):
    batch = torch.arange(12), torch.arange(24).reshape(12, 2)
    monkeypatch.setattr(distributed, "size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.shard(*batch))
    assert [len(share[0]) for share in shares] == [4, 4, 4]
    for number, whole in enumerate(batch):
        assert torch.equal(torch.cat([share[number] for share in shares]), whole)


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(MelanomaError, match="batch of 32 cannot be divided equally among 3"), \
            distributed.group(Config()):
        pass


@pytest.mark.parametrize("key", ["test_efficientnet", "test_resnet", "densenet121"])
def test_synchronised_batch_normalisation_keeps_the_network(key):
    """The same function, the same names, and the same weights that the optimizer knows."""
    torch.manual_seed(0)
    model = build_model(key, 7, 32).eval()
    images, known = torch.randn(2, 3, 32, 32), {id(weight) for weight in model.parameters()}
    before, names = model(images), list(model.state_dict())
    distributed.synchronise(model)
    assert torch.equal(model(images), before) and list(model.state_dict()) == names
    assert {id(weight) for weight in model.parameters()} == known
    assert not any(type(module) is torch.nn.BatchNorm2d for module in model.modules())
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())


def test_one_process_alone_needs_no_group():
    model = torch.nn.Linear(1, 1)
    with distributed.group(Config()):
        assert (distributed.rank(), distributed.size()) == (0, 1)
        assert distributed.wrap(model) is model and distributed.broadcast(3) == 3
        assert distributed.mean(torch.tensor([2.0])).tolist() == [2.0]
