"""Arithmetic: the precision, memory layout and threads a network is trained with, by measurement.

bfloat16 has the range of float32 and a sixteenth of its digits; under autocast the weights, the
loss and the update stay in float32, and only the large products are made of shorter numbers
(Kalamkar et al., 2019). What is faster depends on network, image size and machine, so it is tried.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from melanoma_lib.config import PRECISIONS, Config
from melanoma_lib.core.memory import kept_memory
from melanoma_lib.training.cuda_graph import WARM_UP, captured

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# Seconds that a training would take without a choice; on a GPU a trial takes a second or two.
WORTH_A_TRIAL = {"cpu": 60.0, "cuda": 20.0}
MANY_STEPS = 500  # of a training, which then has time to try every layout too
HOPELESS = 3.0  # a first step on the CPU that many times as long as the best: not tried further
BETTER = 1.03  # how much faster a later candidate must be: less is chance
NEAR = 1.25  # what is behind the fastest by less is tried twice, as machines are that unsteady


@dataclass(frozen=True)
class Arithmetic:
    """How a training computes; the default is what happens without any choice."""

    precision: str = "float32"  # or bfloat16
    layout: str = "channels_last"  # the colours of a pixel side by side; or contiguous
    threads: int = field(default_factory=torch.get_num_threads)

    def __str__(self) -> str:
        return f"{self.precision}, {self.layout}, {self.threads} threads"

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network as training sees it: normalised images in, float32 logits out."""
        torch.set_num_threads(self.threads)
        model.to(memory_format=LAYOUTS[self.layout])
        if (self.precision, self.layout) == ("float32", "channels_last"):
            return model
        wrapped = _Wrapped(model, self)
        wrapped.pretrained_cfg = model.pretrained_cfg  # where timm looks for the normalisation
        return wrapped


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module, how: Arithmetic):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=LAYOUTS[self.how.layout])
        short = self.how.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=short):
            return self.model(images).float()


@kept_memory()
def choose(
    model: nn.Module, config: Config, images: int, device: torch.device, step: Callable
) -> tuple[Arithmetic, dict[str, float]]:
    """The fastest arithmetic for training `model`, and images a second of each that was tried.

    Tried are real steps (`step` as in training) on copies of the model, so that neither weights
    nor random numbers change. The default comes first, and stays where the training would take
    less than `WORTH_A_TRIAL` with it. `images` are those of the training part.
    """
    default = Arithmetic("float32" if config.precision == "auto" else config.precision)
    precisions = PRECISIONS[1:] if config.precision == "auto" else [config.precision]
    if device.type not in WORTH_A_TRIAL:
        return default, {}
    if len(precisions) > 1 and emulated(device):
        precisions = [default.precision]
    steps = config.epochs * (images // config.batch_size)
    layouts = LAYOUTS if steps >= MANY_STEPS else [default.layout]
    if len(precisions) == len(layouts) == 1:
        return default, {}
    rates: dict[Arithmetic, float] = {}

    def trial(how: Arithmetic) -> None:
        best = max(rates.values(), default=0.0)
        shape = (config.batch_size, 3, config.image_size, config.image_size)
        rates[how] = max(rates.get(how, 0.0), _rate(model, how, shape, device, step, best))

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        trial(default)
        if steps * config.batch_size < WORTH_A_TRIAL[device.type] * rates[default]:
            return default, {}
        # One choice after the other: on a GPU a network's first step in a layout can take seconds.
        for precision in precisions:
            if precision != default.precision:
                trial(Arithmetic(precision, default.layout))
        for layout in layouts:
            if layout != default.layout:
                trial(Arithmetic(_best(rates).precision, layout))
        if device.type == "cpu" and default.threads > 1 and steps >= MANY_STEPS:
            best = _best(rates)
            trial(Arithmetic(best.precision, best.layout, default.threads // 2))
        near = [how for how, rate in rates.items() if rate * NEAR > max(rates.values())]
        for how in near if len(near) > 1 else ():
            trial(how)
    torch.set_num_threads(default.threads)
    best = _best(rates)
    print(f"fastest of {len(rates)} tried: {best}", flush=True)
    return best, {str(how): round(rate, 2) for how, rate in rates.items()}


def emulated(device: torch.device) -> bool:
    """Whether a product in bfloat16 is hopelessly slow, as on processors that do not know it.

    There a single step of a large network takes minutes, too long to be tried.
    """
    seconds, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)  # several would measure how busy the machine is
    for kind in (torch.float32, torch.bfloat16):
        matrix, times = torch.ones(256, 256, device=device, dtype=kind), []
        for _ in range(4):
            start = time.perf_counter()
            (matrix @ matrix)[0, 0].item()  # which waits for a GPU
            times.append(time.perf_counter() - start)
        seconds[kind] = min(times)
    torch.set_num_threads(threads)
    return seconds[torch.bfloat16] > HOPELESS * seconds[torch.float32]


def _best(rates: dict[Arithmetic, float]) -> Arithmetic:
    """The fastest; of those within chance of each other, the one with more digits."""
    fastest = max(rates.values())
    near = [how for how, rate in rates.items() if rate * BETTER >= fastest]
    return max(near, key=lambda how: (how.precision == "float32", how.threads, rates[how]))


def _rate(
    model: nn.Module,
    how: Arithmetic,
    shape: tuple[int, ...],
    device: torch.device,
    step: Callable,
    best: float,
) -> float:
    """Images a second of a training step, 0 where it fails or is hopelessly slower than `best`."""
    trained = copy.deepcopy(model).to(device).train()
    network = how.wrap(trained)
    optimizer = adam(trained, 1e-4)
    images, labels = torch.rand(shape, device=device), torch.zeros(shape[0], dtype=int).to(device)
    step = captured(step, device)
    fastest = math.inf
    try:
        warm_up = 1 if device.type == "cpu" else WARM_UP + 1
        # A step on a GPU is short, and what else computes there may meet some of them.
        for number in range(warm_up + (2 if device.type == "cpu" else 20)):
            start = time.perf_counter()
            loss, _ = step(network, optimizer, images, labels)
            finite = math.isfinite(loss.item())  # which waits for a GPU
            seconds = time.perf_counter() - start
            # On a GPU the first step says nothing: it loads its kernels.
            early = device.type == "cpu" and number == 0 and best
            if not finite or (early and seconds > HOPELESS * shape[0] / best):
                return 0.0
            if number >= warm_up:
                fastest = min(fastest, seconds)
    except (RuntimeError, MemoryError):  # not supported here, or too large
        return 0.0
    return shape[0] / fastest


def adam(model: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """The optimiser of the recipe, in one kernel; on a GPU one that a graph can record."""
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.Adam(model.parameters(), learning_rate, fused=True, capturable=on_gpu)
