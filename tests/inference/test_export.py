import json
import re

import numpy as np
import pytest
import torch
from helpers import KEYS, ROOT
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.config import Config
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.images import read_image
from melanoma_lib.inference import Predictor, export
from melanoma_lib.models.build import build_model

onnxruntime = pytest.importorskip("onnxruntime")
FAMILIES = ("mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224", "resnext26ts")


@pytest.mark.parametrize("shape", [(450, 600), (150, 200), (100, 37), (224, 224)])
def test_images_are_resized_as_pillow_does(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    lines = torch.from_numpy(image).permute(2, 0, 1).float()
    for _ in range(2):
        weights = export.resize_weights(torch.scalar_tensor(lines.shape[2]), 96)
        assert torch.allclose(weights.sum(1), torch.ones(96), atol=1e-5)
        lines = (lines @ weights.mT).round().clamp(0, 255).mT
    expected = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC))
    off = np.abs(lines.permute(1, 2, 0).numpy() - expected)
    assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_the_file_predicts_as_the_bundle_and_says_what_it_is(
    sample_run, tmp_path, capsys, monkeypatch
):
    file, folder = tmp_path / "model.onnx", sample_run / KEYS[0]
    assert main(["export", str(file), "--bundle", str(folder)]) == 0
    assert str(file) in capsys.readouterr().out
    session, predictor = onnxruntime.InferenceSession(file), Predictor(folder)
    images = np.random.default_rng(1).integers(0, 256, (3, 90, 130, 3), dtype=np.uint8)
    (found,) = session.run(None, {"images": images})
    small = [read_image(image, predictor.image_size) for image in images]
    expected = [list(each.probabilities.values()) for each in predictor.predict(small)]
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    Image.fromarray(images[0]).save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sharing.md").read_text(), re.S)
    exec(example, {})
    assert "mel " in (printed := capsys.readouterr().out) and "melanoma: " in printed
    told = session.get_modelmeta().custom_metadata_map
    told = {name: json.loads(value) for name, value in told.items()}
    assert told["class_names"] == list(CLASS_NAMES) and "CC BY-NC" in told["licence"]
    assert told["operating_points"][0]["test"]["sensitivity"].keys() == {"value", "low", "high"}
    assert told["dataset"]["fingerprint"] and told["note"] == "generated sample"


def test_a_file_that_differs_is_not_left(sample_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    assert main(["export", str(tmp_path / "m.onnx"), "--bundle", str(sample_run / KEYS[0])]) == 2
    assert "not kept" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("key", [*Config().architectures, *FAMILIES])
def test_networks_of_many_families_are_exported(key):
    bundle = {"image_size": 224, "mean": [0.5] * 3, "std": [0.25] * 3, "temperature": 1.3}
    torch.manual_seed(0)
    network = export.DeployedNetwork(build_model(key, len(CLASS_NAMES), 224).eval(), bundle)
    session = onnxruntime.InferenceSession(export.onnx_model(network).SerializeToString())
    images = np.random.default_rng(1).integers(0, 256, (3, 120, 90, 3), dtype=np.uint8)
    (found,) = session.run(None, {"images": images})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    assert found == pytest.approx(expected, abs=export.TOLERANCE)
