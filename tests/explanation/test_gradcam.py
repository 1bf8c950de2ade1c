import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional as F

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.explanation.gradcam import (
    METHODS,
    cam_layer,
    class_gradients,
    compute_cam,
    has_heat_maps,
    heat_maps,
)
from melanoma_lib.explanation.mask_metrics import (
    THRESHOLDS,
    centre_prior,
    heat_inside,
    iou_at_thresholds,
    pointing_game,
)
from melanoma_lib.models.build import build_model
from melanoma_lib.models.features import feature_map

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
    reshape = (lambda tokens: feature_map(model, tokens)) if key == "vit_b_16" else None
    with GradCAM(model, [layer], reshape_transform=reshape) as cam:
        theirs = cam(input_tensor=inputs, targets=targets)
    compared = 0
    for ours, other in zip(heat_maps(model, inputs, [4, 5]), theirs, strict=True):
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
    assert np.allclose(heat_maps(model, inputs, [5, 5]), by_hand / peaks, atol=1e-5)


def test_gradients_of_several_classes_come_from_one_forward_pass():
    model, inputs = build("test_resnet", 64)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    features, *both = class_gradients(model, ["layer4"], inputs, [4, 5], [1, 1])["layer4"]
    assert len(calls) == 1
    for gradient, classes in zip(both, ([4, 5], [1, 1]), strict=True):
        alone = class_gradients(model, ["layer4"], inputs, classes)["layer4"]
        assert torch.equal(alone[0], features) and torch.allclose(alone[1], gradient)
    assert not torch.allclose(*both)


@pytest.mark.parametrize(
    ("key", "size", "side"),
    [
        ("test_vit", 160, 10),
        ("test_resnet", 64, 2),
        ("tf_efficientnet_lite0", 96, 3),
        ("mobilenetv3_small_100", 96, 3),  # its last convolution comes after pooling
        ("swin_tiny_patch4_window7_224", 64, 2),  # channels last
        ("resmlp_12_224", 224, 14),  # tokens without a class token
        ("deit_tiny_distilled_patch16_224", 64, 4),  # two tokens that are no patches
        ("cait_xxs24_224", 64, 4),  # a class token that timm does not count
        ("sequencer2d_s", 64, 4),  # its classifier is a layer in a layer, and zero at first
        ("efficientvim_m1", 96, 2),  # says to have the features of all its stages together
    ],
)
def test_a_feature_map_is_found_in_every_kind_of_network(key, size, side):
    model, inputs = build(key, size)
    layer = cam_layer(model, inputs)
    features, gradient = class_gradients(model, [layer], inputs, [4, 5])[layer]
    channels = model.num_features if key != "efficientvim_m1" else 320
    assert feature_map(model, features).shape == (2, channels, side, side)
    assert feature_map(model, gradient).any()
    heat = heat_maps(model, inputs, [4, 5])
    assert heat.shape == (2, size, size) and heat.min() >= 0
    assert set(heat.max((1, 2))) <= {0.0, 1.0}  # relative to the maximum, or all zero


def test_nearly_constant_heat_stays_nearly_constant():
    """The package would move the minimum to zero and the maximum to one."""
    model, _ = build("test_resnet", 64)
    features = torch.full((1, model.num_features, 2, 2), 0.99)
    features[..., 0, 0] = 1.0
    heat = compute_cam(model, features, torch.ones_like(features), 64, "grad_cam")
    assert heat.max() == 1 and np.isclose(heat.min(), 0.99)


def test_the_package_s_other_formulas():
    model, inputs = build("resnet50", 96)
    found = class_gradients(model, ["layer4"], inputs, [4, 5])["layer4"]
    maps = {name: compute_cam(model, *found, 96, name) for name in METHODS}
    features, gradient = found
    by_hand = F.interpolate((gradient.relu() * features).sum(1, keepdim=True).relu(), (96, 96),
                            mode="bilinear")[:, 0].numpy()  # fmt: skip
    assert np.allclose(maps["layer_cam"], by_hand / by_hand.max((1, 2), keepdims=True), atol=1e-5)
    assert not np.allclose(maps["layer_cam"], maps["grad_cam"], atol=0.01)


def test_a_layer_may_be_named():
    model, inputs = build("resnet50", 96)
    early, late = (heat_maps(model, inputs, [4, 4], layer) for layer in ("layer2", "layer4"))
    assert early.shape == late.shape == (2, 96, 96) and not np.allclose(early, late)
    assert np.array_equal(late, heat_maps(model, inputs, [4, 4], cam_layer(model, inputs)))
    with pytest.raises(MelanomaError, match="ResNet has no layer layer9; leave it empty"):
        heat_maps(model, inputs, [4, 4], "layer9")
    with pytest.raises(MelanomaError, match=r"layer fc has no feature map; the last .*layer4"):
        heat_maps(model, inputs, [4, 4], "fc")


def test_a_network_without_feature_maps_is_refused():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 7))
    model.num_features = 48
    with pytest.raises(MelanomaError, match="Sequential has no layer for Grad-CAM"):
        heat_maps(model, torch.randn(1, 3, 4, 4), [0])
    assert not has_heat_maps(model, torch.randn(1, 3, 4, 4))


def test_the_model_stays_as_it_is_and_may_be_frozen():
    model, inputs = build("test_resnet", 64)
    model.train().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    right = heat_maps(model, inputs, [0, 1])
    with torch.inference_mode():
        assert np.allclose(heat_maps(model, inputs.clone(), [0, 1]), right, atol=1e-6)
    for layer in ("", "layer4"):
        with pytest.raises(IndexError):
            heat_maps(model, inputs, [0, 99], layer)  # no such class
    assert model.training and not any(weight.requires_grad for weight in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_heat_inside_by_hand():
    heat = np.array([[[1.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = np.array([[[False, True], [True, False]]] * 2)
    first, empty = heat_inside(heat, mask)
    assert first == 0.75 and np.isnan(empty)
    assert heat_inside(np.ones((1, 2, 2)), mask[:1])[0] == 0.5  # the lesion's fraction of the area


def test_pointing_game_by_hand():
    heat = np.array([[[1, 0.2], [0, 0]], [[0.2, 1], [1, 0]], [[0, 0], [0, 0]]])
    masks = np.array([[[True, False], [True, False]]] * 3)
    hit, shared, empty = pointing_game(heat, masks)
    assert hit == 1 and shared == 0.5 and np.isnan(empty)
    assert pointing_game(np.ones((1, 2, 2)), np.eye(2, dtype=bool)[None])[0] == 0.5


def test_iou_at_thresholds_by_hand():
    heat = np.array([[[1.0, 0.6], [0.5, 0.1]], [[0, 0], [0, 0]]], np.float32)
    masks = np.array([[[True, True], [False, False]]] * 2)
    found, empty = iou_at_thresholds(heat, masks)
    by_threshold = {round(float(at), 2): iou for at, iou in zip(THRESHOLDS, found, strict=True)}
    assert by_threshold[0.1] == 2 / 4 and by_threshold[0.6] == 1
    assert by_threshold[0.15] == by_threshold[0.5] == 2 / 3
    assert by_threshold[0.65] == by_threshold[0.95] == 1 / 2 and np.isnan(empty).all()


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 8, 8), elements=st.floats(0, 1, width=32)),
       hnp.arrays(bool, (3, 8, 8)))  # fmt: skip
def test_scores_of_any_map_are_fractions(heat, masks):
    peak = heat.max((1, 2), keepdims=True)
    heat = np.divide(heat, peak, where=peak > 0, out=np.zeros_like(heat))
    for metric in (heat_inside, pointing_game, iou_at_thresholds):
        scores = metric(heat, masks)
        known = scores[np.isfinite(scores)]
        assert ((known >= 0) & (known <= 1 + 1e-6)).all()
    area, uniform = masks.mean((1, 2)), np.ones_like(heat)
    assert np.allclose(heat_inside(uniform, masks), area)
    assert np.allclose(pointing_game(uniform, masks), area)
    assert np.allclose(iou_at_thresholds(uniform, masks), area[:, None])
    cut = heat >= THRESHOLDS[9]
    slow = (cut & masks).sum((1, 2)) / np.maximum((cut | masks).sum((1, 2)), 1)
    full = heat.any((1, 2))
    assert np.allclose(iou_at_thresholds(heat, masks)[full, 9], slow[full])


def test_the_centre_prior_is_symmetric_and_highest_in_the_middle():
    prior = centre_prior(32)
    assert np.allclose(prior, prior.T) and np.allclose(prior, prior[::-1, ::-1])
    assert prior.argmax() // 32 in (15, 16)
