"""What a recipe names, as functions: the optimizer, its learning rate, and the loss.

The loop takes them as arguments, so that it is the same for every recipe (`config.RECIPES`).
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.nn import functional as F

from melanoma_lib.config import RECIPES, Config, Recipe
from melanoma_lib.data.torch_dataset import undersampled_counts

WARM_UP = 0.2  # fraction of a one-cycle training in which the learning rate rises
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of logits (n, classes), labels (n,)


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba, 2015), or AdamW where weights decay (Loshchilov and Hutter, 2019).

    Biases and the weights of normalisations do not decay.
    """
    recipe, device = RECIPES[config.recipe], next(model.parameters()).device
    rate: float | torch.Tensor = config.learning_rate
    if device.type == "cuda" and recipe.schedule != "constant":
        rate = torch.tensor(rate, device=device)  # where a CUDA graph reads it at every step
    options = {"lr": rate, "fused": True, "capturable": device.type == "cuda"}
    if not recipe.weight_decay:
        return torch.optim.Adam(model.parameters(), **options)
    return torch.optim.AdamW(param_groups_weight_decay(model, recipe.weight_decay), **options)


def constant(progress: float) -> float:
    """The same learning rate throughout."""
    return 1.0


def one_cycle(progress: float) -> float:
    """Up to the peak in the first fifth of a training, then down to zero, both along a cosine.

    `progress` of the training, from 0 to 1. Returns a fraction of the peak, in [0, 1] (Smith and
    Topin, 2019).
    """
    if progress < WARM_UP:
        return (1 - math.cos(math.pi * progress / WARM_UP)) / 2
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "one_cycle": one_cycle}


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Config, epochs: float) -> None:
    """Sets the learning rate of the next step, `epochs` (with fractions) after the start."""
    schedule = SCHEDULES[RECIPES[config.recipe].schedule]
    rate = config.learning_rate * schedule(epochs / config.epochs)
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def make_loss(
    recipe: Recipe, counts: np.ndarray, device: torch.device | str = "cpu"
) -> Loss:
    """The cross-entropy, corrected where an epoch shows other class frequencies than there are.

    counts: (classes,) training images. Logits plus the logarithm of the fraction of each class that
    is shown are trained, so that the logits alone are those of the real frequencies (logit
    adjustment: Menon et al., 2021).
    """
    shown = undersampled_counts(counts, recipe.majority_fraction)
    if (shown == counts).all():
        return F.cross_entropy
    fractions = np.maximum(shown, 1) / np.maximum(counts, 1)  # 1 for a class without images
    adjustment = torch.tensor(np.log(fractions), dtype=torch.float32, device=device)
    return partial(adjusted_cross_entropy, adjustment=adjustment)


def adjusted_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, adjustment: torch.Tensor
) -> torch.Tensor:
    """The mean cross-entropy of logits (n, classes) with `adjustment` (classes,) added."""
    return F.cross_entropy(logits + adjustment, labels)
