import pytest
import torch
from helpers import KEYS, write_bundle

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path, read_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.models.bundle import find_bundles, load_bundle


@pytest.fixture
def folder(tmp_path):
    write_bundle(tmp_path, "test_resnet")
    return tmp_path


@pytest.mark.parametrize("key", ["test_resnet", "test_vit_relpos"])  # it also has computed tables
def test_a_bundle_is_all_that_is_needed_to_use_a_model(tmp_path, key):
    same = write_bundle(tmp_path, key)
    model, metadata = load_bundle(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(images), same(images))
    assert not model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert metadata["temperature"] == 1.5 and metadata["class_names"] == list(CLASS_NAMES)


def test_a_model_keeps_its_weights_when_another_training_replaces_the_file(folder):
    model, _ = load_bundle(folder)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        before = model(images)
        with atomic_path(folder / "model.safetensors") as temporary:
            temporary.write_bytes(b"")
        assert torch.equal(model(images), before)


@pytest.mark.parametrize("fragile", [True, False])
def test_a_loaded_network_has_the_layout_that_it_may_be_trained_in(folder, monkeypatch, fragile):
    """See `has_fragile_convolution`."""
    monkeypatch.setattr("melanoma_lib.models.build.has_fragile_convolution", lambda _: fragile)
    model, _ = load_bundle(folder)
    assert all(weight.is_contiguous() for weight in model.parameters()) == fragile


def test_bundles_are_found_or_what_to_run_is_said(sample_run, tmp_path):
    assert find_bundles(sample_run / KEYS[1]) == [sample_run / KEYS[1]]
    with pytest.raises(MelanomaError, match="melanoma run --preset sample"):
        find_bundles(tmp_path)
    assert read_json(sample_run / KEYS[0] / "bundle.json")["generated"]
    assert find_bundles(sample_run) == sorted(sample_run / key for key in KEYS)
