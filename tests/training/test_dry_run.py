"""What would fail after hours, or go wrong in silence, is found before the first epoch."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from helpers import make_dataset
from torch import nn

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.explanation.score_maps import score_heat_maps
from melanoma_lib.inference.predictor import Predictor
from melanoma_lib.models.build import build_model
from melanoma_lib.training.dry_run import dry_run
from melanoma_lib.training.precision import ComputeSettings
from melanoma_lib.training.preflight import check_training
from melanoma_lib.training.train import train_architecture

CPU = torch.device("cpu")


class WrongInChannelsLast(torch.autograd.Function):
    """The identity; its gradient is a twelfth of the right one if the layout is channels_last."""

    @staticmethod
    def forward(context, images):
        context.wrong = images.is_contiguous(memory_format=torch.channels_last)
        return images.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient / 12 if context.wrong else gradient


class Faulty(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, images):
        return WrongInChannelsLast.apply(self.layer(images))


@pytest.fixture
def faulty(monkeypatch):
    """A network of which one layer has a wrong gradient in channels_last."""
    def build_faulty(*arguments):
        model = build_model(*arguments)
        model.layer2 = Faulty(model.layer2)
        return model

    monkeypatch.setattr("melanoma_lib.training.dry_run.build_model", build_faulty)
    monkeypatch.setattr("melanoma_lib.training.dry_run._use_as_bundle", lambda *_: None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_layout_with_a_wrong_gradient_is_not_used(faulty, precision, capsys):
    chosen = dry_run("test_resnet", 32, ComputeSettings(precision), CPU)
    assert chosen == ComputeSettings(precision, "contiguous")
    assert capsys.readouterr().out.count("wrong gradients") == 1


@pytest.mark.parametrize("key", ["test_resnet", "test_vit"])
def test_what_computes_right_is_kept(key, capsys):
    settings = ComputeSettings("bfloat16")
    assert dry_run(key, 32, settings, CPU) == settings and not capsys.readouterr().out


def test_a_step_that_may_kill_the_process_is_not_tried(capsys):
    """On AVX2 channels_last breaks a strided 1 x 1 convolution of 3 channels: oneDNN issue 6035."""
    assert dry_run("fastvit_t8", 32, ComputeSettings(), CPU).layout == "contiguous"
    assert "wrong gradients in channels_last" in capsys.readouterr().out


@pytest.mark.parametrize("key, size", [("inception_v3", 96), ("crossvit_tiny_240", 240)])
def test_an_image_size_that_is_refused_is_one_line_with_those_that_are_not(_dataset, key, size):
    config = Config(architectures=(key,), image_size=64, batch_size=8, pretrained=False)
    with pytest.raises(MelanomaError, match=f"of 64 px .* those of {size}.* px; see --image-size"):
        check_training(config, open_dataset(_dataset), config.architectures)


# What timm says of their features is missing, wrong, or several tensors.
@pytest.mark.parametrize("key", ["convit_tiny", "pit_ti_224", "coat_tiny", "xcit_nano_12_p8_224"])
def test_networks_with_odd_features_are_used_whole(key, capsys):
    dry_run(key, 64, ComputeSettings(), CPU)
    assert not capsys.readouterr().out


def smallest_networks():
    """The name of the network with the fewest parameters of every file of timm."""
    networks = {}
    for name in timm.list_models():
        with torch.device("meta"):
            model = timm.create_model(name)
        size = sum(weight.numel() for weight in model.parameters())
        file = timm.models.model_entrypoint(name).__module__
        networks[file] = min(networks.get(file, (size, name)), (size, name))
    return [name for size, name in sorted(networks.values()) if size < 1e8]


@pytest.mark.slow
def test_a_network_of_every_file_of_timm_is_trained_or_refused_in_one_line(tmp_path):
    """From the first step to heat maps and the web page, at 64 px or the least size it takes."""
    data = make_dataset(tmp_path / "data", lesions_per_class=7)
    outcomes = {}
    for name in smallest_networks():  # three files have none below 100 million parameters
        config = Config(data_dir=str(data), output_dir=str(tmp_path / name), architectures=(name,),
                        epochs=1, batch_size=8, image_size=64, pretrained=False)  # fmt: skip
        outcomes[name] = train_and_use(config)
        if taken := re.search(r"it takes those of (\d+)", outcomes[name]):
            config = dataclasses.replace(config, image_size=int(taken[1]))
            outcomes[name] = f"at {taken[1]} px: {train_and_use(config)}"
        print(f"{name}: {outcomes[name]}", flush=True)
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    assert not {name: outcome for name, outcome in outcomes.items() if "failed" in outcome}


def train_and_use(config):
    """Trains, scores heat maps, and predicts as the page does; says how that ended."""
    (key,), files = config.architectures, open_dataset(config.data_dir)
    try:
        folder = train_architecture(config, key)
        scores = score_heat_maps(folder, files, "cpu", faithful_images=2, chosen_on=2)
        predictor = Predictor(folder)
        side = predictor.image_size
        (prediction,) = predictor.predict([np.zeros((side, side, 3), np.uint8)])
        assert 0 <= prediction.melanoma_probability <= 1
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"
    return "without heat maps" if scores is None else "whole"
