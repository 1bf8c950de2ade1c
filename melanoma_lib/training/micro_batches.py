"""Gradient accumulation: a training step in micro-batches, for batches larger than memory."""

from collections.abc import Callable

import torch
from torch import nn

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.training import distributed
from melanoma_lib.training.recipe import Loss


def step_in_micro_batches(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    loss_function: Loss,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A training step with less memory: gradients accumulate over `count` micro-batches.

    Arguments and results as of `loop.train_step`. The update is that of the whole batch, but for
    batch normalisation, which sees micro-batches.
    """
    losses, logits = [], []
    optimizer.zero_grad()
    micro_batches = zip(images.tensor_split(count), labels.tensor_split(count), strict=True)
    for some, their_labels in micro_batches:
        logits.append(model(some))
        losses.append(loss_function(logits[-1], their_labels) * len(some) / len(images))
        losses[-1].backward()
    optimizer.step()
    return torch.stack(losses).sum().detach(), torch.cat(logits).detach()


def step_that_fits(
    step: Callable,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    loss_function: Loss,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A training step in `count` micro-batches, or in more if memory runs out.

    Returns loss, logits and how many micro-batches it took; `step` is the one of a whole batch.
    Raises `MelanomaError` when one image does not fit.
    """
    while True:
        try:
            batch = model, optimizer, images, labels, loss_function
            if count == 1:
                return *step(*batch), 1
            return *step_in_micro_batches(*batch, count), count
        except (RuntimeError, MemoryError, ValueError) as error:
            out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
            # Statistics over a batch need two images.
            alone = count > 1 and "more than 1 value per channel" in str(error)
            if not (out_of_memory or alone or "can't allocate memory" in str(error)):
                raise
        if count >= len(images) or distributed.size() > 1:  # all must take equal steps
            shown = "one image" if count >= len(images) else f"{len(images)} images"
            raise MelanomaError(
                f"out of memory with {shown} of {images.shape[-1]} pixels a side; choose a "
                "smaller --image-size or another architecture"
            )
        count = min(2 * count, len(images))
        print(f"out of memory: a batch is now {count} micro-batches", flush=True)
        optimizer.zero_grad()
        torch.cuda.empty_cache()
