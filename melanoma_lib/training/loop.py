"""The training loop, from top to bottom, in plain PyTorch.

`fit` runs epochs; an epoch runs steps; a step is forward, loss, backward, update. A checkpoint of
each epoch is written while the next one runs, and `fit` resumes from it exactly: random numbers
depend only on the seed and the epoch, so that no random state has to be saved.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from melanoma_lib.config import RECIPES, Config
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.progress import progress
from melanoma_lib.data.augment import augment, generator, sample_parameters
from melanoma_lib.data.torch_dataset import HAM10000Dataset, loader, to_device
from melanoma_lib.evaluation.predictions import predict_logits
from melanoma_lib.models.build import normalisation, normalise, to_input
from melanoma_lib.models.bundle import load_weights
from melanoma_lib.training import callbacks, distributed
from melanoma_lib.training.checkpoint import last_epoch, resume, save_epoch, training_state
from melanoma_lib.training.cuda_graph import with_cuda_graph
from melanoma_lib.training.micro_batches import step_that_fits
from melanoma_lib.training.precision import ComputeSettings
from melanoma_lib.training.recipe import Loss, make_loss, make_optimizer, set_learning_rate


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    loss_function: Loss = F.cross_entropy,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update from a batch: the loss, a scalar, and the logits (n, classes).

    `images` are normalised, (n, 3, size, size); `labels` (n,) are class indices.
    """
    logits = model(images)  # forward: (n, 3, size, size) -> (n, classes)
    loss = loss_function(logits, labels)  # one number: the mean of -log p(label)
    optimizer.zero_grad()
    loss.backward()  # backward: a gradient for every weight
    optimizer.step()  # update: a small step against the gradient
    return loss.detach(), logits.detach()


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: HAM10000Dataset,
    config: Config,
    epoch: int,
    micro_batches: int = 1,
    step: Callable = train_step,
) -> dict[str, float]:
    """Trains on every training image once, augmented; returns train_loss, train_accuracy and more.

    On fewer of the most frequent class, where the recipe says so. The others are images_per_second
    and `parts`, the micro-batches of a batch: `micro_batches`, or more where memory ran out. Raises
    `MelanomaError` naming step and images when a loss is not finite.
    """
    start = time.perf_counter()
    device = next(model.parameters()).device
    mean_std = [torch.tensor(values, device=device) for values in normalisation(model)]
    parameters = sample_parameters(len(train.pixels), config.training_seed, epoch).to(device)
    dropout = generator(config.training_seed, epoch, 2).initial_seed()
    torch.manual_seed(dropout + distributed.rank())
    recipe, order = RECIPES[config.recipe], generator(config.training_seed, epoch, 0)
    loss_function = make_loss(recipe, train.class_counts(), device)
    batches = loader(train, config.batch_size, order, recipe.majority_fraction)
    losses, correct, seen = [], [], []
    model.train()
    shown = progress(batches, f"epoch {epoch}", len(batches), losses)
    for number, batch in enumerate(shown):
        set_learning_rate(optimizer, config, epoch - 1 + number / len(batches))
        images, labels, rows = distributed.shard(*batch)  # all of it, where there is one process
        labels, rows = to_device(labels, device), to_device(rows, device)
        images = augment(to_input(images, device), parameters[rows], config.augmentation)
        images = normalise(images, *mean_std)
        loss, logits, micro_batches = step_that_fits(
            step, model, optimizer, images, labels, loss_function, micro_batches
        )
        # Kept on the device: reading a number out would make a GPU wait.
        losses.append(loss)
        seen.append(batch[2])
        correct.append((logits.argmax(1) == labels).float().mean())
    losses = distributed.mean(torch.stack(losses))
    if not losses.isfinite().all():
        step = int(losses.isfinite().int().argmin())  # the first of them
        raise MelanomaError(
            f"the loss is {losses[step].item()} in epoch {epoch}, step {step + 1} of "
            f"{len(losses)}, with the images "
            f"{summarize_items(train.image_ids[row] for row in seen[step])}; "
            "earlier epochs are kept; try a smaller --learning-rate"
        )
    return {
        "train_loss": float(losses.mean()),
        "train_accuracy": float(distributed.mean(torch.stack(correct)).mean()),
        "images_per_second": len(losses) * config.batch_size / (time.perf_counter() - start),
        "parts": micro_batches,
    }


def validate(model: nn.Module, val: HAM10000Dataset, batch_size: int) -> dict[str, float]:
    """Mean cross-entropy (`val_loss`) and accuracy (`val_accuracy`) on the validation images."""
    logits = torch.from_numpy(predict_logits(model, val, batch_size, normalisation(model)))
    labels = torch.as_tensor(val.labels[val.rows])
    accuracy = (logits.argmax(1) == labels).double().mean()
    return {"val_loss": float(F.cross_entropy(logits, labels)), "val_accuracy": float(accuracy)}


def fit(
    model: nn.Module,
    train: HAM10000Dataset,
    val: HAM10000Dataset,
    config: Config,
    folder: Path,
    settings: ComputeSettings | None = None,
    history: Sequence[dict] = (),
) -> list[dict]:
    """Trains for `config.epochs` epochs on the model's device, resuming from the checkpoint if any.

    The resumed training is exactly the uninterrupted one if `settings` are the same. The model
    ends with the weights of model.safetensors: of the best epoch by validation accuracy (the first
    of equals), or of the last, as the recipe says. `history` holds row 0, or nothing. Returns the
    rows of history.csv, a dictionary per epoch. Raises `MelanomaError` when the training images do
    not fill a batch.
    """
    if len(train) < config.batch_size:
        raise MelanomaError(f"{len(train)} training images do not fill one batch; see --batch-size")
    device = next(model.parameters()).device
    settings = settings or ComputeSettings()
    network = settings.wrap(model)
    shared = distributed.wrap(network)
    recipe, step = RECIPES[config.recipe], with_cuda_graph(train_step, device)
    optimizer = make_optimizer(model, config)
    resumed, best = resume(model, optimizer, folder, config.epochs)
    history = resumed or list(history)
    print(HEADER)
    if history and not resumed:  # what came before the first epoch
        print(log_line(history, config.epochs), flush=True)
    with ThreadPoolExecutor(max_workers=1) as writer, settings.use_threads():
        saved: Future | None = None
        for epoch in range(last_epoch(history) + 1, config.epochs + 1):
            start = time.perf_counter()
            micro_batches = history[-1]["parts"] if history else 1
            row = {"epoch": epoch}
            row |= train_epoch(shared, optimizer, train, config, epoch, micro_batches, step)
            row |= validate(network, val, config.batch_size)
            if not math.isfinite(row["val_loss"]):
                raise MelanomaError(
                    f"the validation loss is {row['val_loss']} after epoch {epoch}; earlier epochs "
                    "are kept; try a smaller --learning-rate"
                )
            higher = all(row["val_accuracy"] > past["val_accuracy"] for past in history)
            row["best"] = higher or recipe.best_epoch == "last"
            if saved:
                saved.result()  # one at a time; raises what went wrong in writing
            row["seconds"] = time.perf_counter() - start
            history.append(row)
            if distributed.rank() == 0:
                state = training_state(model, optimizer, history)
                best = state["model"] if row["best"] else best
                saved = writer.submit(save_epoch, folder, state | {"best": best})
            print(log_line(history, config.epochs), flush=True)
            callbacks.on_epoch_end(folder, row, config.epochs)
    if saved:
        saved.result()
    distributed.wait()  # until the best weights are written
    load_weights(model, folder)
    return history


HEADER = "epoch    train loss  accuracy    val loss  accuracy   images/s   time left"


def log_line(history: list[dict], epochs: int) -> str:
    """The last epoch as a line under `HEADER`; `*` marks the best so far."""
    row = history[-1]
    left = round((epochs - row["epoch"]) * sum(past["seconds"] for past in history) / len(history))
    return (
        f"{row['epoch']:3d}/{epochs:<3d}  {row['train_loss']:10.4f}  {row['train_accuracy']:8.3f}"
        f"  {row['val_loss']:10.4f}  {row['val_accuracy']:8.3f}"
        f"   {row['images_per_second']:8.1f}   {left // 60:6d}:{left % 60:02d}"
        f"{' *' if row['best'] else ''}"
    )
