import math

import numpy as np
import pytest
import timm
import torch
from scipy.spatial.distance import cdist

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.models import out_of_distribution
from melanoma_lib.models.out_of_distribution import (
    capture_features,
    fit_reference_set,
    load_reference_set,
    save_reference_set,
)


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(3, 2, size=(300, 6))


def test_the_distance_is_that_to_the_fifth_nearest(features):
    known, others = fit_reference_set(features, np.arange(300)), features[:7] + 0.1
    scaled = [(rows - features.mean(0)) / features.std(0) for rows in (others, features)]
    right = np.sort(cdist(*scaled), axis=1)[:, 4] / np.sqrt(6)
    assert np.allclose(known.distance(others), right, atol=1e-4)


def test_one_in_a_hundred_known_pictures_is_beyond_the_limit(features):
    known = fit_reference_set(features, np.arange(300))
    scaled = (features - features.mean(0)) / features.std(0)
    own = np.sort(cdist(scaled, scaled), axis=1)[:, 5] / np.sqrt(6)  # the first is the picture
    assert (own > known.limit).sum() == 3
    assert (known.distance(features + 20) > known.limit).all()


def test_pictures_of_one_lesion_do_not_vouch_for_each_other(features):
    again = np.repeat(features[:200], 6, axis=0)
    lesions = np.repeat(np.arange(200), 6)
    assert fit_reference_set(again, lesions).limit > 0.5
    assert fit_reference_set(again, np.arange(1200)).limit < 0.01  # five equal pictures are near


def test_only_so_many_are_kept(features, monkeypatch):
    monkeypatch.setattr(out_of_distribution, "MOST", 100)
    assert len(fit_reference_set(features, np.arange(300)).features) == 100


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "densenet121"])
def test_a_watched_pass_leaves_the_features_that_timm_gives(name):
    model = timm.create_model(name, num_classes=7).eval()
    images = torch.rand(3, 3, 160, 160)
    stage = math.ceil(3 * len(model.feature_info) / 4) - 1
    with torch.inference_mode():
        (maps,) = model.forward_intermediates(images, indices=[stage], intermediates_only=True)
        with capture_features(model) as features:
            model(images[:2]), model(images[2:])
    assert [len(batch) for batch in features] == [2, 1]
    assert torch.allclose(torch.cat(features), maps.mean((2, 3)), atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_known_survives_the_file_and_another_file_is_refused(features, tmp_path):
    known = fit_reference_set(features, np.arange(300))
    facts = save_reference_set(tmp_path, known)
    read = load_reference_set(tmp_path, facts)
    assert read.limit == known.limit
    assert np.allclose(read.distance(features + 1), known.distance(features + 1), atol=1e-2)
    save_reference_set(tmp_path, fit_reference_set(features[:9], np.arange(9)))
    with pytest.raises(MelanomaError, match=r"known\.safetensors is not the file"):
        load_reference_set(tmp_path, facts)
