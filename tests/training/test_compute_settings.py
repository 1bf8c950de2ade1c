import pytest
import torch
from helpers import CONFIG

from melanoma_lib.models.build import build_model
from melanoma_lib.training.loop import train_step
from melanoma_lib.training.precision import LAYOUTS, ComputeSettings, computes_bfloat16
from melanoma_lib.training.recipe import make_optimizer


def new_model(key="test_efficientnet"):
    torch.manual_seed(0)
    return build_model(key, 7, 32)


def outcome(settings, steps=3):
    """The logits of the last of some training steps, and the weights after it."""
    model = new_model().train()
    network, optimizer = settings.wrap(model), make_optimizer(model, CONFIG)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        _, logits = train_step(network, optimizer, images, torch.arange(8) % 7)
    return logits, {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_settings_give_the_same_within_their_digits(precision, layout, tolerance):
    """float32 keeps 7 digits, bfloat16 between 2 and 3."""
    plain, weights = outcome(ComputeSettings())
    logits, others = outcome(ComputeSettings(precision, layout))
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, plain, atol=tolerance)
    assert torch.equal(logits, plain) == (precision == "float32" and layout == "channels_last")
    assert weights.keys() == others.keys()
    for name, value in others.items():
        assert value.dtype == weights[name].dtype  # the weights stay as long as they are
        # Adam's first steps are as large as the learning rate whatever the gradient's size.
        assert torch.allclose(value.float(), weights[name].float(), rtol=tolerance, atol=7e-3)


def test_a_wrapped_network_is_trained_and_read_like_the_model():
    model = new_model()
    assert ComputeSettings().wrap(model) is model  # the default
    wrapped = ComputeSettings("bfloat16").wrap(model)
    assert wrapped.eval().training is model.training is False
    assert next(wrapped.parameters()) is next(model.parameters())
    assert wrapped.pretrained_cfg is model.pretrained_cfg


@pytest.mark.parametrize("device, capabilities, native", [
    ("cpu", {"avx512_bf16": True, "amx_bf16": True}, True),
    ("cpu", {"avx512_bf16": True, "amx_bf16": False}, False),  # slower, where it was measured
    ("cpu", {"architecture": "aarch64", "neon": True}, False),
    ("cpu", None, False),  # an old version of PyTorch
    ("mps", {"amx_bf16": True}, False),
])  # fmt: skip
def test_a_device_computes_in_bfloat16_where_it_has_matrix_units(
    device, capabilities, native, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert computes_bfloat16(torch.device(device)) is native


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (2, "2 threads")])
def test_settings_are_named_in_words(threads, words):
    assert str(ComputeSettings(threads=threads)) == f"float32, channels_last, {words}"


def test_the_number_of_threads_is_that_of_before_again():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), ComputeSettings(threads=before + 1).use_threads():
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
