import numpy as np
import pytest
import torch
from torch.nn import functional as F

from melanoma_lib.artifacts import MelanomaError
from melanoma_lib.models import build_model
from melanoma_lib.xai import as_map, cam_layer, centre_prior, class_gradients, grad_cam, heat_inside

# The layers that the method's authors, or those of the package grad-cam, name for each family.
LAYERS = {
    "resnet50": "layer4.2",
    "efficientnet_b3": "bn2",
    "densenet121": "features.norm5",
    "vit_b_16": "blocks.11.norm1",
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(key, size):
    return build_model(key, 7, size).eval(), torch.randn(2, 3, size, size)


def unit(heat):
    return (heat - heat.min()) / (heat.max() - heat.min())


@pytest.mark.parametrize("key", LAYERS)
def test_it_agrees_with_the_package_grad_cam_on_the_layers_it_names(key):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, inputs = build(key, 96)
    targets = [ClassifierOutputTarget(index) for index in (4, 5)]
    layer = model.get_submodule(LAYERS[key])
    reshape = (lambda tokens: as_map(model, tokens)) if key == "vit_b_16" else None
    with GradCAM(model, [layer], reshape_transform=reshape) as cam:
        theirs = cam(input_tensor=inputs, targets=targets)
    compared = 0
    for ours, other in zip(grad_cam(model, inputs, [4, 5]), theirs, strict=True):
        if ours.max() > ours.min():  # the map of an untrained network may be empty
            compared += 1
            # The package moves each map's minimum to zero, which makes heat of almost nothing.
            assert np.allclose(unit(ours), unit(other), atol=1e-3)
    assert compared


def test_it_is_grad_cam_worked_out_by_hand():
    model, inputs = build("resnet50", 96)
    features = model.forward_features(inputs)
    features.retain_grad()
    model.forward_head(features)[:, 5].sum().backward()
    weights = features.grad.mean((2, 3), keepdim=True)
    heat = (weights * features).sum(1, keepdim=True).relu()
    by_hand = F.interpolate(heat, size=(96, 96), mode="bilinear").detach().numpy()[:, 0]
    peaks = by_hand.max((1, 2), keepdims=True)
    assert (peaks > 0).all()
    assert np.allclose(grad_cam(model, inputs, [5, 5]), by_hand / peaks, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "size", "places"),
    [
        ("test_vit", 160, 10),
        ("test_resnet", 64, 2),
        ("tf_efficientnet_lite0", 96, 3),
        ("mobilenetv3_small_100", 96, 3),  # its last convolution comes after pooling
        ("swin_tiny_patch4_window7_224", 64, 2),  # channels last
        ("resmlp_12_224", 224, 14),  # tokens without a class token
        ("deit_tiny_distilled_patch16_224", 64, 4),  # two tokens that are no places
        ("cait_xxs24_224", 64, 4),  # a class token timm does not tell of
    ],
)
def test_a_map_of_places_is_found_in_every_kind_of_network(key, size, places):
    model, inputs = build(key, size)
    layer = cam_layer(model, inputs)
    features, gradient = class_gradients(model, [layer], inputs, [4, 5])[layer]
    assert as_map(model, features).shape == (2, model.num_features, places, places)
    assert as_map(model, gradient).any()
    heat = grad_cam(model, inputs, [4, 5])
    assert heat.shape == (2, size, size) and heat.min() >= 0
    assert set(heat.max((1, 2))) <= {0.0, 1.0}  # a share of the maximum, or nothing at all


def test_a_network_without_places_is_refused():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 7))
    model.num_features = 48
    with pytest.raises(MelanomaError, match="Sequential has no layer for Grad-CAM"):
        grad_cam(model, torch.randn(1, 3, 4, 4), [0])


def test_the_model_stays_as_it_is_and_may_be_frozen():
    model, inputs = build("test_resnet", 64)
    model.train().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad_cam(model, inputs, [0, 1])
    assert model.training and not any(weight.requires_grad for weight in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


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
