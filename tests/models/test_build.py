import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from melanoma_lib.core.environment import pick_device
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.models.build import (
    ARCHITECTURES,
    build_model,
    get_architecture,
    has_fragile_convolution,
    normalisation,
    normalise,
    to_input,
)


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_the_four_architectures_give_a_logit_for_each_class_at_any_size(key):
    model = build_model(key, 7, 64).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert not has_fragile_convolution(model)  # or each would train in the slower layout


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_a_new_network_predicts_about_uniformly(key):
    torch.manual_seed(0)
    model = build_model(key, 7, 64).train()
    loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 3, 64, 64)), torch.arange(8) % 7)
    assert loss.item() == pytest.approx(np.log(7), abs=0.4)


def test_any_timm_name_is_an_architecture():
    assert get_architecture("test_resnet").name == "test_resnet"
    assert get_architecture("vit_b_16").timm_name.startswith("vit_base_patch16_224")


def test_an_unknown_name_is_answered_with_similar_ones():
    with pytest.raises(MelanomaError, match=r"unknown architecture 'resnet5'.*resnet50"):
        get_architecture("resnet5")


@pytest.mark.parametrize("classes", [1000, 7, 0])  # 0: the file has no output layer
@pytest.mark.parametrize("key", ["test_resnet", "test_vit", "densenet121"])
def test_local_weights_are_loaded_but_for_the_output_layer(tmp_path, key, classes):
    source = timm.create_model(key, num_classes=classes).state_dict()
    save_file(source, tmp_path / "w.safetensors")
    torch.save(source, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        model = build_model(key, 7, 160, weights=str(tmp_path / name))
        head = model.pretrained_cfg["classifier"]
        loaded = {name: weights for name, weights in model.state_dict().items()
                  if not name.startswith(head)}  # fmt: skip
        assert loaded and all(torch.equal(loaded[name], source[name]) for name in loaded)
        assert model.get_classifier().weight.shape[0] == 7
        assert model.get_classifier().weight.std() < 0.02


@pytest.mark.parametrize("content, message", [
    ("test_efficientnet", "does not fit test_resnet"),
    ("one weight less", r"does not fit test_resnet.*layer1\.0\.bn1\.weight"),
    ("no weights", "does not fit test_resnet"),
    (None, "does not exist"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_reported_in_one_line(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    if content == "no weights":
        path.write_text(content)
    elif content:
        state = timm.create_model("test_resnet" if " " in content else content).state_dict()
        state.pop("layer1.0.bn1.weight", None)
        save_file(state, path)
    with pytest.raises(MelanomaError, match=message) as error:
        build_model("test_resnet", 7, 64, weights=str(path))
    assert "\n" not in str(error.value)


def test_an_unreachable_hub_names_two_alternatives(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MelanomaError, match=r"--weights resnet50=FILE.*--no-pretrained"):
        build_model("resnet50", 7, 64, pretrained=True)


def test_each_model_has_its_own_normalisation():
    assert normalisation(build_model("vit_b_16", 7, 32))[0] == (0.5, 0.5, 0.5)
    mean, std = normalisation(build_model("test_resnet", 7, 32))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    ours = normalise(to_input(torch.from_numpy(pixels)), mean, std)
    by_hand = (pixels[1, 2, 3, 4] / 255 - mean[2]) / std[2]
    assert ours[1, 2, 3, 4].item() == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("name", ["cuda:99", "toaster"])
def test_an_unusable_device_is_reported(name):
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(MelanomaError, match="cannot be used"):
        pick_device(name)
