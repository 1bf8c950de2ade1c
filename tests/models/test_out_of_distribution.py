import math

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file, save_file
from scipy.spatial.distance import cdist

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import sha256
from melanoma_lib.models import out_of_distribution
from melanoma_lib.models.out_of_distribution import (
    N_TEXTURE,
    capture_features,
    fit_reference_set,
    load_reference_set,
    save_reference_set,
    textures,
)


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(3, 2, size=(300, 6))


def test_the_distance_is_that_to_the_fifth_nearest(features):
    reference, others = fit_reference_set(features, np.arange(300), 0), features[:7] + 0.1
    scaled = [(rows - features.mean(0)) / features.std(0) for rows in (others, features)]
    right = np.sort(cdist(*scaled), axis=1)[:, 4] / np.sqrt(6)
    assert np.allclose(reference.distance(others), right, atol=1e-4)


def test_one_in_a_hundred_reference_images_is_beyond_the_limit(features):
    reference = fit_reference_set(features, np.arange(300), 0)
    scaled = (features - features.mean(0)) / features.std(0)
    own = np.sort(cdist(scaled, scaled), axis=1)[:, 5] / np.sqrt(6)  # the first is the image itself
    assert (own > reference.limit).sum() == 3
    assert (reference.distance(features + 20) > reference.limit).all()


def test_reference_images_are_compared_with_other_lesions(features, monkeypatch):
    """As new images would be that a set without their lesion was asked about."""
    monkeypatch.setattr(out_of_distribution, "MAX_IMAGES", 200)  # of the 300
    lesions = np.arange(300) // 3
    reference = fit_reference_set(features, lesions, 2)
    chosen = np.random.default_rng(0).permutation(300)[:200]
    found = reference.distance_to_other_lesions(features[chosen], lesions[chosen], lesions)
    assert reference.limit == pytest.approx(np.quantile(found, 0.99), rel=1e-5)
    for row, image in enumerate(chosen[:20]):
        others = (features[chosen] - reference.mean) / reference.scale
        away = others[lesions[chosen] != lesions[image]]
        right = [
            np.sort(cdist(others[row : row + 1, part], away[:, part]))[0, 4] / np.sqrt(columns)
            for part, columns in ((slice(4), 4), (slice(4, 6), 2))  # features and textures
        ]
        assert found[row] == pytest.approx(max(right), abs=1e-4)


def test_images_of_one_lesion_are_not_each_others_neighbours(features):
    again = np.repeat(features[:200], 6, axis=0)
    lesions = np.repeat(np.arange(200), 6)
    assert fit_reference_set(again, lesions, 0).limit > 0.5
    assert fit_reference_set(again, np.arange(1200), 0).limit < 0.01  # five equal images are near


@pytest.mark.parametrize("images", [2, 5])
def test_a_handful_of_images_has_fewer_neighbours(features, images):
    assert 0 < fit_reference_set(features[:images], np.arange(images), 2).limit < 10


def test_a_reference_set_has_at_most_so_many_images(features, monkeypatch):
    monkeypatch.setattr(out_of_distribution, "MAX_IMAGES", 100)
    assert len(fit_reference_set(features, np.arange(300), 0).features) == 100


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "densenet121"])
def test_captured_features_are_those_that_timm_gives(name):
    model = timm.create_model(name, num_classes=7).eval()
    images = torch.rand(3, 3, 160, 160)
    stage = math.ceil(3 * len(model.feature_info) / 4) - 1
    with torch.inference_mode():
        (maps,) = model.forward_intermediates(images, indices=[stage], intermediates_only=True)
        with capture_features(model) as features:
            model(images[:2]), model(images[2:])
    assert [len(batch) for batch in features] == [2, 1]
    captured, given = torch.cat(features), textures(images)
    assert torch.allclose(captured[:, :-N_TEXTURE], maps.mean((2, 3)), atol=1e-5)
    assert torch.allclose(captured[:, -N_TEXTURE:], given) and given.shape == (3, N_TEXTURE)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_reference_set_survives_its_file_and_another_file_is_refused(features, tmp_path):
    reference = fit_reference_set(features, np.arange(300), 2)
    metadata = save_reference_set(tmp_path, reference)
    read = load_reference_set(tmp_path, metadata)
    assert read.limit == reference.limit
    assert np.allclose(read.distance(features + 1), reference.distance(features + 1), atol=1e-2)
    save_reference_set(tmp_path, fit_reference_set(features[:9], np.arange(9), 0))
    with pytest.raises(MelanomaError, match=r"known\.safetensors is not the file"):
        load_reference_set(tmp_path, metadata)


def test_an_image_is_as_far_as_the_farther_of_features_and_textures(features):
    """Also one whose other half is exactly a reference image's."""
    reference = fit_reference_set(features, np.arange(300), 2)
    halves = features[:, :4], features[:, 4:]
    own = [fit_reference_set(half, np.arange(300), 0) for half in halves]
    near = features[:1] + 0.01
    for columns, alone, scaled in ((slice(0, 4), own[0], 1), (slice(4, 6), own[1], None)):
        far = near.copy()
        far[:, columns] += 30
        (distance,) = reference.distance(far)
        expected = alone.distance(far[:, columns])[0]
        ratio = scaled or own[0].limit / own[1].limit  # one limit for both
        assert distance == pytest.approx(expected * ratio, rel=1e-4) and distance > reference.limit
    (distance,) = reference.distance(near)
    assert distance < reference.limit


def test_both_halves_together_are_beyond_the_limit_as_often_as_one_alone():
    features = np.random.default_rng(1).normal(size=(2000, 8))
    reference = fit_reference_set(features, np.arange(2000), 3)
    others = np.random.default_rng(2).normal(size=(2000, 8))
    assert 0.003 < (reference.distance(others) > reference.limit).mean() < 0.03


def test_a_reference_set_of_an_earlier_version_compares_features_alone(features, tmp_path):
    """It was written without textures, and is asked with them."""
    reference = fit_reference_set(features, np.arange(300), 0)
    metadata = save_reference_set(tmp_path, reference)
    arrays = load_file(tmp_path / out_of_distribution.FILE)
    del arrays["n_texture"]
    save_file(arrays, tmp_path / out_of_distribution.FILE)
    metadata["known_sha256"] = sha256(tmp_path / out_of_distribution.FILE)
    read = load_reference_set(tmp_path, metadata)
    asked = np.hstack([features + 1, np.full((300, N_TEXTURE), 99)])
    assert np.allclose(read.distance(asked), reference.distance(features + 1), atol=1e-2)


def test_textures_are_gradients_worked_out_by_hand():
    """Stripes of 0 and 3 in one channel, each two pixels wide; plain colour has no gradient."""
    stripes = torch.zeros(1, 3, 16, 16)
    stripes[:, 0, :, torch.arange(16) % 4 >= 2] = 3
    plain = torch.full((1, 3, 16, 16), 0.7)
    found = textures(torch.cat([stripes, plain])).exp() - 1e-3
    assert torch.allclose(found[1], torch.zeros(N_TEXTURE), atol=1e-6)
    # At scale 1 every second column differs from the one before by 3, at scale 2 every one does,
    # and squares of four pixels are all alike.
    assert torch.allclose(found[0], torch.tensor([0, 0, 3.0, 3, 3, 3, 0, 0, 0]), atol=1e-4)
