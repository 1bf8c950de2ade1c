import numpy as np
import pytest
import torch
from torch.nn import functional as F

from melanoma_lib.models import ARCHITECTURES, build_model
from melanoma_lib.xai import cam_layer, centre_prior, grad_cam, heat_inside


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("key", [*ARCHITECTURES, "test_vit", "tf_efficientnet_lite0"])
def test_every_architecture_gives_a_map_an_image(key):
    size = 64 if key != "test_vit" else 160
    model = build_model(key, 7, size).eval()
    heat = grad_cam(model, key, torch.randn(2, 3, size, size), [4, 5])
    assert heat.shape == (2, size, size)
    assert np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1


def test_it_is_grad_cam_worked_out_by_hand():
    model = build_model("resnet50", 7, 96).eval()
    inputs = torch.randn(1, 3, 96, 96)
    agreed = 0
    for target in range(7):  # the map of an untrained network is empty for some classes
        features = model.forward_features(inputs)
        features.retain_grad()
        model.forward_head(features)[0, target].backward()
        weights = features.grad.mean((2, 3), keepdim=True)
        heat = (weights * features).sum(1, keepdim=True).relu()
        by_hand = F.interpolate(heat, size=(96, 96), mode="bilinear").detach()[0, 0].numpy()
        library = grad_cam(model, "resnet50", inputs, [target])[0]
        if by_hand.std() > 0:
            agreed += np.corrcoef(by_hand.ravel(), library.ravel())[0, 1] > 0.98
        else:
            assert not library.any()
    assert agreed >= 1


def test_the_model_stays_as_it_is():
    model = build_model("test_resnet", 7, 64).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad_cam(model, "test_resnet", torch.randn(1, 3, 64, 64), [0])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_layer_is_found_in_other_models():
    assert cam_layer(build_model("test_vit", 7, 160), "test_vit").__class__.__name__ == "LayerNorm"
    assert isinstance(cam_layer(build_model("test_resnet", 7, 64), "test_resnet"), torch.nn.Module)


def test_heat_inside_by_hand():
    heat = np.array([[[1.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = np.array([[[False, True], [True, False]]] * 2)
    first, empty = heat_inside(heat, mask)
    assert first == 0.75 and np.isnan(empty)
    assert heat_inside(np.ones((1, 2, 2)), mask[:1])[0] == 0.5  # knows nothing: the area


def test_the_centre_prior_is_symmetric_and_highest_in_the_middle():
    prior = centre_prior(32)
    assert np.allclose(prior, prior.T) and np.allclose(prior, prior[::-1, ::-1])
    assert prior.argmax() // 32 in (15, 16)
