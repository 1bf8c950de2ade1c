"""Checkpoints: everything that resuming needs, in two generations with checksums."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._pytree import tree_map_only

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import atomic_path, checksum_holds, write_csv
from melanoma_lib.training import distributed

KEEP = 2  # generations


def save_checkpoint(folder: Path, state: dict) -> None:
    """Writes `state` (with its `epoch`) and drops all but the newest two checkpoints."""
    with atomic_path(folder / f"checkpoint-{state['epoch']:04d}.pt", checksum=True) as temporary:
        torch.serialization.set_crc32_options(False)  # the SHA-256 says more
        with temporary.open("wb") as file:
            _save(state, file)
    for old in _generations(folder)[KEEP:]:
        old.unlink()


def _save(state: dict, file: BinaryIO) -> None:
    """`torch.save`, which hides what went wrong in writing behind an error of its own."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load_checkpoint(folder: Path) -> dict | None:
    """The newest intact checkpoint, on the CPU; None where there is none.

    Raises `MelanomaError` when all that exist are damaged; nothing is overwritten then.
    """
    damaged = []
    for path in _generations(folder):
        if checksum_holds(path):
            if damaged:
                names = summarize_items(damaged)
                print(f"damaged checkpoint left unused: {names}; going on from {path}")
            return torch.load(path, map_location="cpu", weights_only=True)
        damaged.append(path.name)
    if damaged:
        raise MelanomaError(
            f"all checkpoints in {folder} are damaged ({summarize_items(damaged)}); move them away "
            "to train from the start"
        )
    return None


def _generations(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*-*.pt"), key=lambda path: path.name, reverse=True)


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer, history: list[dict]) -> dict:
    """All that resuming needs, in copies on the CPU that the next epoch does not change."""
    weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    copies = tree_map_only(torch.Tensor, lambda value: value.detach().to("cpu", copy=True), weights)
    return copies | {"epoch": last_epoch(history), "history": list(history)}


def last_epoch(history: Sequence[Mapping]) -> int:
    """The number of epochs that were trained; row 0 of a history precedes them."""
    return int(history[-1]["epoch"]) if history else 0


def save_epoch(folder: Path, state: dict) -> None:
    """Writes a finished epoch: its checkpoint, history.csv, and the weights if they are best."""
    save_checkpoint(folder, state)
    save_results(folder, state["history"], state["best"] if state["history"][-1]["best"] else None)


def save_results(folder: Path, history: list[dict], best: Mapping | None) -> None:
    """Writes history.csv, and the weights of the best epoch where they are given."""
    if best is not None:
        weights = {  # some networks use one tensor under two names, which safetensors refuses
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in best.items()
        }
        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(weights, temporary)
    write_csv(folder / "history.csv", history)


def resume(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, epochs: int
) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Loads the folder's checkpoint, if any, into model and optimizer.

    Returns the history so far and the weights of its best epoch; [] and {} without a checkpoint.
    """
    checkpoint = load_checkpoint(folder)
    if not checkpoint:
        return [], {}
    model.load_state_dict(checkpoint["model"])
    # The state alone: options such as `capturable` are those of this device.
    counted = {"state": checkpoint["optimizer"]["state"]}
    optimizer.load_state_dict(optimizer.state_dict() | counted)
    history, best = checkpoint["history"], checkpoint.get("best")
    if best is None:  # earlier versions kept them beside it only
        last = checkpoint["model"] if history[-1]["best"] else None
        best = last or load_file(folder / "model.safetensors")
    if distributed.rank() == 0:
        save_results(folder, history, best)  # the files may be of an epoch before or after
    print(f"going on after epoch {last_epoch(history)} of {epochs}")
    return history, best
