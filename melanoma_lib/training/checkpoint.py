"""Checkpoints: two generations of everything needed to go on, each checked when it is read."""

from pathlib import Path
from typing import BinaryIO

import torch

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import atomic_path, checksum_holds

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
    """The newest checkpoint that is whole, on the CPU; None where there is none.

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
