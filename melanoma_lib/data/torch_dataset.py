"""Pixels: the decoded images of a part of the dataset, in batches."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.split import split_rows


class HAM10000Dataset(Dataset):
    """Images of one part of the split: uint8 (3, size, size), the label, and the row number.

    `rows` are the part's row numbers in `pixels` (n, size, size, 3), `labels` (n,) and `names`
    (n,), the image ids that errors name.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        rows: np.ndarray,
        names: Sequence[str] | None = None,
    ):
        self.pixels, self.labels, self.rows = pixels, labels, rows
        self.names = [f"row {row}" for row in range(len(pixels))] if names is None else names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int, int]:
        row = int(self.rows[item])
        # The array is read-only and torch wants memory it may write to, hence the copy.
        image = torch.from_numpy(self.pixels[row].copy()).permute(2, 0, 1)
        return image, int(self.labels[row]), row

    def __getitems__(self, items: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch of items, stacked: the array is asked once, and not for every image."""
        rows = self.rows[items]
        images = torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.labels[rows]), torch.from_numpy(rows)


class ResidentDataset(HAM10000Dataset):
    """A part of the dataset whose pixels lie in a device's own memory, uint8."""

    CHUNK = 512  # images that are copied at once

    def __init__(self, part: HAM10000Dataset, device: torch.device):
        super().__init__(part.pixels, part.labels, part.rows, part.names)
        self.resident = torch.empty(
            (len(part), *part.pixels.shape[1:]), dtype=torch.uint8, device=device
        )
        for start in range(0, len(part), self.CHUNK):
            some = torch.from_numpy(part.pixels[part.rows[start : start + self.CHUNK]])
            self.resident[start : start + len(some)] = some.to(device)

    def __getitems__(self, items: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same batch; only the items' numbers are sent to the device."""
        rows = self.rows[items]
        where = to_device(torch.as_tensor(items), self.resident.device)
        images = self.resident[where].permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.labels[rows]), torch.from_numpy(rows)


def resident(part: HAM10000Dataset, device: torch.device) -> HAM10000Dataset:
    """A part with its pixels on a GPU if they take less than half of what is free there."""
    if device.type != "cuda" or not len(part):
        return part
    free, _ = torch.cuda.mem_get_info(device)
    fits = len(part) * part.pixels[0].nbytes < free / 2
    return ResidentDataset(part, device) if fits else part


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, without waiting for what a GPU is doing."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def loader(
    dataset: HAM10000Dataset, batch_size: int, generator: torch.Generator | None = None
) -> DataLoader:
    """A DataLoader that shuffles and leaves out an incomplete last batch if given a generator.

    An incomplete training batch can be a single image (8,513 = 266 x 32 + 1), for which batch
    statistics are degenerate. Without a generator: every image once, in order.
    """
    train = generator is not None
    return DataLoader(
        dataset, batch_size, shuffle=train, drop_last=train, generator=generator,
        collate_fn=lambda batch: batch,  # what `__getitems__` returns is one already
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Data:
    """What an experiment trains on: the files, the split, the pixels and the labels by row."""

    files: DatasetFiles
    split: pd.DataFrame
    pixels: np.ndarray
    labels: np.ndarray

    def part(self, name: str) -> HAM10000Dataset:
        """The images of `train`, `val` or `test`."""
        names = self.split["image_id"].tolist()
        return HAM10000Dataset(self.pixels, self.labels, split_rows(self.split, name), names)
