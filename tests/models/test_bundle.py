import numpy as np
import pytest
import torch
from helpers import KEYS
from safetensors.torch import save_model

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path, read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.models.build import build_model
from melanoma_lib.models.bundle import find_bundles, load_bundle, save_bundle
from melanoma_lib.models.out_of_distribution import fit_reference_set

REFERENCE = fit_reference_set(np.random.default_rng(0).normal(size=(20, 4)), np.arange(20), 0)


def write_bundle(folder, key):
    torch.manual_seed(0)
    model = build_model(key, 7, 32).eval()
    save_model(model, folder / "model.safetensors")
    save_bundle(
        folder, REFERENCE, architecture=key, class_names=CLASS_NAMES, image_size=32,
        mean=(0.5,) * 3, std=(0.5,) * 3, temperature=1.5, operating_points=[], generated=True,
    )
    return model


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


def test_other_weights_another_schema_or_an_empty_folder_are_refused(folder, tmp_path):
    save_model(build_model("test_resnet", 7, 32), folder / "model.safetensors")
    with pytest.raises(MelanomaError, match=r"not the file of its bundle\.json"):
        load_bundle(folder)
    write_json(folder / "bundle.json", read_json(folder / "bundle.json") | {"schema": 99})
    with pytest.raises(MelanomaError, match="another version"):
        load_bundle(folder)
    with pytest.raises(MelanomaError, match="does not exist"):
        load_bundle(tmp_path / "nowhere")


def test_bundles_are_found_or_what_to_run_is_said(sample_run, tmp_path):
    assert find_bundles(sample_run / KEYS[1]) == [sample_run / KEYS[1]]
    with pytest.raises(MelanomaError, match="melanoma run --preset sample"):
        find_bundles(tmp_path)
    assert read_json(sample_run / KEYS[0] / "bundle.json")["generated"]
    assert find_bundles(sample_run) == sorted(sample_run / key for key in KEYS)
