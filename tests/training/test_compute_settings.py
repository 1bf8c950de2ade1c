import copy
import dataclasses

import pytest
import torch

from melanoma_lib.config import Config
from melanoma_lib.models.build import build_model
from melanoma_lib.training import precision
from melanoma_lib.training.loop import train_step
from melanoma_lib.training.precision import Arithmetic, adam, choose

CPU = torch.device("cpu")
LONG = Config(epochs=50, batch_size=8, image_size=32, device="cpu")
IMAGES = 8 * precision.MANY_STEPS // LONG.epochs


@pytest.fixture
def worth_it(monkeypatch):
    """A training of tiny networks counts as a long one, on a processor that knows bfloat16."""
    monkeypatch.setattr(precision, "emulated", lambda device: False)
    monkeypatch.setattr(precision, "WORTH_A_TRIAL", {"cpu": 0.0, "cuda": 0.0})


def new_model(key="test_efficientnet"):
    torch.manual_seed(0)
    return build_model(key, 7, 32)


def outcome(how, steps=3):
    """The logits of the last of some training steps, and the weights after it."""
    model = new_model().train()
    network, optimizer = how.wrap(model), adam(model, 1e-3)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        _, logits = train_step(network, optimizer, images, torch.arange(8) % 7)
    return logits, {name: value.clone() for name, value in model.state_dict().items()}


def test_the_default_is_the_model_itself():
    model = new_model()
    assert Arithmetic().wrap(model) is model


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("layout", precision.LAYOUTS)
def test_every_arithmetic_gives_the_same_within_its_digits(precision, layout, tolerance):
    """float32 keeps 7 digits, bfloat16 between 2 and 3."""
    plain, weights = outcome(Arithmetic())
    logits, others = outcome(Arithmetic(precision, layout))
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, plain, atol=tolerance)
    assert weights.keys() == others.keys()
    for name, value in others.items():
        assert value.dtype == weights[name].dtype  # the weights stay as long as they are
        # Adam's first steps are as large as the learning rate whatever the gradient's size.
        assert torch.allclose(value.float(), weights[name].float(), rtol=tolerance, atol=7e-3)


def test_a_wrapped_network_is_trained_and_read_like_the_model():
    model = new_model()
    wrapped = Arithmetic("bfloat16").wrap(model)
    assert wrapped.eval().training is model.training is False
    assert next(wrapped.parameters()) is next(model.parameters())
    assert wrapped.pretrained_cfg is model.pretrained_cfg


def test_trying_changes_neither_weights_nor_random_numbers(worth_it, capsys):
    model = new_model()
    before, layout = copy.deepcopy(model.state_dict()), next(model.parameters()).stride()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    how, tried = choose(model, LONG, IMAGES, CPU, train_step)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).stride() == layout and not model.training == how is None
    assert str(how) in tried and len(tried) >= 3
    assert f"fastest of {len(tried)} tried: {how}" in capsys.readouterr().out


def test_a_short_training_tries_nothing():
    how, tried = choose(new_model(), LONG, IMAGES, CPU, train_step)
    assert how == Arithmetic() and not tried


def test_a_training_of_few_steps_tries_the_precisions_alone(worth_it):
    _, tried = choose(new_model(), LONG, IMAGES - 8, CPU, train_step)
    assert [name.split(",")[0] for name in tried] == ["float32", "bfloat16"]


def test_a_precision_that_the_processor_emulates_is_not_tried(worth_it, monkeypatch):
    monkeypatch.setattr(precision, "emulated", lambda device: True)
    how, tried = choose(new_model(), LONG, IMAGES, CPU, train_step)
    assert how.precision == "float32" and not any("bfloat16" in name for name in tried)


@pytest.mark.parametrize("short, expected", [(2, False), (4, True)])
def test_what_takes_three_times_as_long_counts_as_emulated(monkeypatch, short, expected):
    durations = [9, 1, 1, 1, 9, short, short, short]  # the first product of a kind does not count
    clock = iter([time for seconds in durations for time in (0, seconds)])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    assert precision.emulated(CPU) == expected


def test_a_precision_that_is_asked_for_is_kept(monkeypatch):
    short = dataclasses.replace(LONG, precision="bfloat16")
    assert choose(new_model(), short, 8, CPU, train_step)[0].precision == "bfloat16"
    monkeypatch.setattr(precision, "WORTH_A_TRIAL", {"cpu": 0.0, "cuda": 0.0})
    how, tried = choose(new_model(), short, IMAGES, CPU, train_step)
    assert how.precision == "bfloat16" and all("bfloat16" in name for name in tried)


@pytest.mark.parametrize(
    "rates, expected",
    [
        ({"bfloat16": 10.2, "float32": 10.0}, "float32"),  # a difference of chance
        ({"bfloat16": 11.0, "float32": 10.0}, "bfloat16"),
        ({"bfloat16": 0.0, "float32": 0.0}, "float32"),  # nothing worked: training will say why
    ],
)
def test_the_fastest_is_chosen_unless_it_is_so_by_chance(rates, expected):
    rates = {Arithmetic(precision): rate for precision, rate in rates.items()}
    assert precision._best(rates).precision == expected


@pytest.mark.parametrize("fault", ["memory", "nan"])
def test_what_fails_while_it_is_tried_is_not_chosen(worth_it, fault):
    def faulty(network, optimizer, images, labels):
        if isinstance(network, precision._Wrapped) and network.how.precision == "bfloat16":
            if fault == "memory":
                raise torch.OutOfMemoryError("full")
            return torch.tensor(float("nan")), None
        return train_step(network, optimizer, images, labels)

    how, tried = choose(new_model(), LONG, IMAGES, CPU, faulty)
    assert how.precision == "float32"
    assert {rate for name, rate in tried.items() if "bfloat16" in name} == {0.0}


@pytest.mark.parametrize("fast, slow, steps", [("bfloat16", "float32", 3),  # the default
                                               ("float32", "bfloat16", 1)])  # fmt: skip
def test_what_is_hopelessly_slow_is_tried_for_one_step_only(
    worth_it, monkeypatch, fast, slow, steps
):
    clock, taken = [0.0], []

    def step(network, optimizer, images, labels):
        taken.append(getattr(network, "how", Arithmetic()).precision)
        clock[0] += 1 if taken[-1] == fast else 5
        return torch.tensor(1.0), None

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    how, tried = choose(new_model(), LONG, IMAGES, CPU, step)
    assert how.precision == fast and taken.count(slow) == steps
    assert tried[str(how)] == 8.0  # eight images in a second
    assert str(Arithmetic(fast, "contiguous")) in tried  # the layouts of the faster one alone
    assert str(Arithmetic(slow, "contiguous")) not in tried


def test_a_slow_moment_of_the_machine_decides_nothing(worth_it, monkeypatch):
    """The default is the faster layout, and is tried while everything takes a fifth longer."""
    clock, taken = [0.0], []

    def step(network, optimizer, images, labels):
        how = getattr(network, "how", Arithmetic())
        taken.append(how)
        seconds = {"channels_last": 1.0, "contiguous": 1.1}[how.layout]
        seconds *= 1 + (torch.get_num_threads() < Arithmetic().threads)
        clock[0] += seconds * (1.2 if len(taken) <= 3 else 1)
        return torch.tensor(1.0), None

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    config = dataclasses.replace(LONG, precision="float32")
    how, tried = choose(new_model(), config, IMAGES, CPU, step)
    assert how.layout == "channels_last" and tried[str(how)] == 8.0
    assert tried[str(Arithmetic(layout="contiguous"))] == pytest.approx(8 / 1.1, abs=0.01)
