"""Training: the loop, from top to bottom, in plain PyTorch.

`fit` runs epochs; an epoch runs steps; a step is forward, loss, backward, update. While the next
epoch runs, a checkpoint of the last is written, from which `fit` goes on exactly: whatever is
random depends only on the seed and the epoch, so that no random state has to be carried along.
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from melanoma_lib.config import Config
from melanoma_lib.core.environment import pick_device
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import atomic_path, write_csv
from melanoma_lib.core.progress import progress
from melanoma_lib.data.augment import augment, generator, sample_parameters
from melanoma_lib.data.torch_dataset import HAM10000Dataset, loader, to_device, to_gpu_memory
from melanoma_lib.evaluation.predictions import predict_logits
from melanoma_lib.models.build import normalisation, normalise, to_input
from melanoma_lib.models.bundle import load_weights
from melanoma_lib.training import callbacks, distributed
from melanoma_lib.training.checkpoint import load_checkpoint, save_checkpoint
from melanoma_lib.training.cuda_graph import captured
from melanoma_lib.training.precision import ComputeSettings


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update from a batch of normalised images; returns the loss and the logits."""
    logits = model(images)  # forward: (n, 3, size, size) -> (n, classes)
    loss = F.cross_entropy(logits, labels)  # one number: the mean of -log p(label)
    optimizer.zero_grad()
    loss.backward()  # backward: a gradient for every weight
    optimizer.step()  # update: a small step against the gradient
    return loss.detach(), logits.detach()


def step_in_micro_batches(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    parts: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`train_step` for a small memory: the gradients of a batch add up over `parts` of it.

    The update is that of the whole batch, but for statistics that a network takes over a batch.
    """
    losses, logits = [], []
    optimizer.zero_grad()
    pairs = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
    for some, their_labels in pairs:
        logits.append(model(some))
        share = len(some) / len(images)
        losses.append(F.cross_entropy(logits[-1], their_labels) * share)
        losses[-1].backward()
    optimizer.step()
    return torch.stack(losses).sum().detach(), torch.cat(logits).detach()


def step_that_fits(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    parts: int,
    step: Callable = train_step,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A training `step` in `parts`, in more of them if memory runs out: loss, logits, parts.

    Raises `MelanomaError` when one image does not fit.
    """
    while True:
        try:
            if parts == 1:
                return *step(model, optimizer, images, labels), 1
            return *step_in_micro_batches(model, optimizer, images, labels, parts), parts
        except (RuntimeError, MemoryError, ValueError) as error:
            out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
            # Statistics over a batch need two images.
            alone = parts > 1 and "more than 1 value per channel" in str(error)
            if not (out_of_memory or alone or "can't allocate memory" in str(error)):
                raise
        if parts >= len(images) or distributed.size() > 1:  # all must take equal steps
            shown = "one image" if parts >= len(images) else f"{len(images)} images"
            raise MelanomaError(
                f"out of memory with {shown} of {images.shape[-1]} pixels a side; choose a "
                "smaller --image-size or another architecture"
            )
        parts = min(2 * parts, len(images))
        print(f"out of memory: a batch now goes through in {parts} parts", flush=True)
        optimizer.zero_grad()
        torch.cuda.empty_cache()


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: HAM10000Dataset,
    config: Config,
    epoch: int,
    parts: int = 1,
    step: Callable = train_step,
) -> dict[str, float]:
    """Shows the model every training image once, augmented; returns what it cost and gained.

    A batch goes through in `parts`, or in more if memory runs out. Raises `MelanomaError` naming
    step and images when a loss is not finite.
    """
    start = time.perf_counter()
    device = next(model.parameters()).device
    mean_std = [torch.tensor(values, device=device) for values in normalisation(model)]
    parameters = sample_parameters(len(train.pixels), config.seed, epoch).to(device)
    dropout = generator(config.seed, epoch, 2).initial_seed()
    torch.manual_seed(dropout + distributed.rank())
    batches = loader(train, config.batch_size, generator(config.seed, epoch, 0))
    losses, correct, seen = [], [], []
    model.train()
    for batch in progress(batches, f"epoch {epoch}", len(batches)):
        images, labels, rows = distributed.shard(*batch)  # all of it, where there is one process
        labels, rows = to_device(labels, device), to_device(rows, device)
        images = augment(to_input(images, device), parameters[rows], config.augmentation)
        images = normalise(images, *mean_std)
        loss, logits, parts = step_that_fits(model, optimizer, images, labels, parts, step)
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
        "parts": parts,
    }


def validate(model: nn.Module, val: HAM10000Dataset, batch_size: int) -> dict[str, float]:
    """Mean cross-entropy and accuracy on images that are not trained on."""
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
) -> list[dict]:
    """Trains for `config.epochs`, going on from the folder's checkpoint if there is one.

    It goes on exactly if the `settings` are what they were. Leaves the model with the weights of
    the best epoch by validation accuracy (the first of equals), which are also in
    `model.safetensors`. Returns the history, one dictionary an epoch, which is also in
    `history.csv`. Raises `MelanomaError` when there are fewer training images than a batch holds.
    """
    if len(train) < config.batch_size:
        raise MelanomaError(f"{len(train)} training images do not fill one batch; see --batch-size")
    device = pick_device(config.device)
    settings = settings or ComputeSettings()
    network = settings.wrap(model.to(device))
    shared = distributed.wrap(network)
    train, val = to_gpu_memory(train, device), to_gpu_memory(val, device)
    optimizer, step = adam(model, config.learning_rate), captured(train_step, device)
    history, best = _resume(model, optimizer, folder, config.epochs)
    print(HEADER)
    with ThreadPoolExecutor(max_workers=1) as writer, settings.use_threads():
        saved: Future | None = None
        for epoch in range(len(history) + 1, config.epochs + 1):
            start = time.perf_counter()
            parts = history[-1]["parts"] if history else 1
            row = {"epoch": epoch}
            row |= train_epoch(shared, optimizer, train, config, epoch, parts, step)
            row |= validate(network, val, config.batch_size)
            if not math.isfinite(row["val_loss"]):
                raise MelanomaError(
                    f"the validation loss is {row['val_loss']} after epoch {epoch}; earlier epochs "
                    "are kept; try a smaller --learning-rate"
                )
            row["best"] = all(row["val_accuracy"] > past["val_accuracy"] for past in history)
            if saved:
                saved.result()  # one at a time; raises what went wrong in writing
            row["seconds"] = time.perf_counter() - start
            history.append(row)
            if distributed.rank() == 0:
                state = _state(model, optimizer, history)
                best = state["model"] if row["best"] else best
                saved = writer.submit(save_epoch, folder, state | {"best": best})
            print(log_line(history, config.epochs), flush=True)
            callbacks.epoch_ended(folder, row, config.epochs)
    if saved:
        saved.result()
    distributed.wait()  # until the best weights are written
    load_weights(model, folder)
    return history


def _resume(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, epochs: int
) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Goes back to the folder's checkpoint, if any: its history, and the best weights up to it."""
    checkpoint = load_checkpoint(folder)
    if not checkpoint:
        return [], {}
    model.load_state_dict(checkpoint["model"])
    # What was counted, not what the device of that time could do.
    counted = {"state": checkpoint["optimizer"]["state"]}
    optimizer.load_state_dict(optimizer.state_dict() | counted)
    history, best = checkpoint["history"], checkpoint.get("best")
    if best is None:  # earlier versions kept them beside it only
        last = checkpoint["model"] if history[-1]["best"] else None
        best = last or load_file(folder / "model.safetensors")
    if distributed.rank() == 0:
        save_results(folder, history, best)  # the files may be of an epoch before or after
    print(f"going on after epoch {len(history)} of {epochs}")
    return history, best


def adam(model: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """The optimiser of the recipe, in one kernel; on a GPU one that a graph can record."""
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.Adam(model.parameters(), learning_rate, fused=True, capturable=on_gpu)


HEADER = "epoch    train loss  accuracy    val loss  accuracy   images/s   time left"


def log_line(history: list[dict], epochs: int) -> str:
    """The last epoch in one line under `HEADER`; `*` marks that its weights were kept."""
    row = history[-1]
    left = round((epochs - row["epoch"]) * sum(past["seconds"] for past in history) / len(history))
    return (
        f"{row['epoch']:3d}/{epochs:<3d}  {row['train_loss']:10.4f}  {row['train_accuracy']:8.3f}"
        f"  {row['val_loss']:10.4f}  {row['val_accuracy']:8.3f}"
        f"   {row['images_per_second']:8.1f}   {left // 60:6d}:{left % 60:02d}"
        f"{' *' if row['best'] else ''}"
    )


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, history: list[dict]) -> dict:
    """All that is needed to go on, in copies on the CPU that the next epoch cannot change."""
    weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    copies = tree_map_only(torch.Tensor, lambda value: value.detach().to("cpu", copy=True), weights)
    return copies | {"epoch": len(history), "history": list(history)}


def save_epoch(folder: Path, state: dict) -> None:
    """Writes the checkpoint of a finished epoch, and then what follows from it."""
    save_checkpoint(folder, state)
    save_results(folder, state["history"], state["best"] if state["history"][-1]["best"] else None)


def save_results(folder: Path, history: list[dict], best: Mapping | None) -> None:
    """Writes history.csv, and the weights of the best epoch where they are given."""
    if best is not None:
        weights = {name: value.contiguous() for name, value in best.items()}
        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(weights, temporary)
    write_csv(folder / "history.csv", history)
