"""PyTorch datasets of the decoded images, in memory-mapped files or on the GPU, and batches."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.split import split_rows


class HAM10000Dataset(Dataset):
    """The images of one split: uint8 (3, size, size), the label, and the row number.

    pixels: uint8 (n, size, size, 3) of the whole dataset; labels: (n,) class indices; rows: the
    row numbers that belong to the split; image_ids: (n,), for messages.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        rows: np.ndarray,
        image_ids: Sequence[str] | None = None,
    ):
        self.pixels, self.labels, self.rows = pixels, labels, rows
        unnamed = [f"row {row}" for row in range(len(pixels))]
        self.image_ids = unnamed if image_ids is None else image_ids

    def __len__(self) -> int:
        return len(self.rows)

    def class_counts(self) -> np.ndarray:
        """The number of images of each class, (classes,)."""
        return np.bincount(self.labels[self.rows], minlength=len(CLASS_NAMES))

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int, int]:
        row = int(self.rows[item])
        # The array is read-only and torch wants memory it may write to, hence the copy.
        image = torch.from_numpy(self.pixels[row].copy()).permute(2, 0, 1)
        return image, int(self.labels[row]), row

    def __getitems__(self, items: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch of items, stacked; indexing the array once is faster than once an image."""
        rows = self.rows[items]
        images = torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.labels[rows]), torch.from_numpy(rows)


class GPUDataset(HAM10000Dataset):
    """The same items, with their pixels copied to a device as uint8."""

    CHUNK = 512  # images that are copied at once

    def __init__(self, dataset: HAM10000Dataset, device: torch.device):
        super().__init__(dataset.pixels, dataset.labels, dataset.rows, dataset.image_ids)
        self.device_pixels = torch.empty(
            (len(dataset), *dataset.pixels.shape[1:]), dtype=torch.uint8, device=device
        )
        for start in range(0, len(dataset), self.CHUNK):
            chunk = torch.from_numpy(dataset.pixels[dataset.rows[start : start + self.CHUNK]])
            self.device_pixels[start : start + len(chunk)] = chunk.to(device)

    def __getitems__(self, items: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same batch; only the indices are sent to the device."""
        rows = self.rows[items]
        indices = to_device(torch.as_tensor(items), self.device_pixels.device)
        images = self.device_pixels[indices].permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.labels[rows]), torch.from_numpy(rows)


def to_gpu_memory(dataset: HAM10000Dataset, device: torch.device) -> HAM10000Dataset:
    """The dataset with its pixels on the GPU, if they take less than half of its free memory."""
    if device.type != "cuda" or not len(dataset):
        return dataset
    free, _ = torch.cuda.mem_get_info(device)
    fits = len(dataset) * dataset.pixels[0].nbytes < free / 2
    return GPUDataset(dataset, device) if fits else dataset


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor to the device, asynchronously where that is a GPU."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def loader(
    dataset: HAM10000Dataset,
    batch_size: int,
    generator: torch.Generator | None = None,
    majority_fraction: float = 1.0,
) -> DataLoader:
    """A DataLoader that shuffles and drops an incomplete last batch if it has a generator.

    Such a batch can be a single image (8,513 = 266 x 32 + 1), which batch normalisation cannot
    train on. Without a generator, every image comes once and in order. `majority_fraction` as in
    `undersampled_counts`; which images of the class are shown is drawn from the generator.
    """
    train = generator is not None
    sampler = _undersample(dataset, majority_fraction, generator)
    return DataLoader(
        dataset, batch_size, shuffle=train and not sampler, sampler=sampler, drop_last=train,
        generator=generator,
        collate_fn=lambda batch: batch,  # `__getitems__` has stacked it already
    )  # fmt: skip


def undersampled_counts(counts: np.ndarray, majority_fraction: float) -> np.ndarray:
    """How many images of each class an epoch shows, (classes,) integers.

    All of `counts`, but of the most frequent class only as many as fill `majority_fraction` of the
    epoch (random undersampling; Buda, Maki and Mazurowski, 2018).
    """
    shown, majority = counts.copy(), counts.argmax()
    if majority_fraction < 1:
        others = counts.sum() - counts[majority]
        most = int(others * majority_fraction / (1 - majority_fraction))
        shown[majority] = min(counts[majority], most)
    return shown


def _undersample(
    dataset: HAM10000Dataset, majority_fraction: float, generator: torch.Generator | None
) -> SubsetRandomSampler | None:
    """A sampler of the images that an epoch shows; None where it shows all."""
    labels = dataset.labels[dataset.rows]
    counts = dataset.class_counts()
    shown, majority = undersampled_counts(counts, majority_fraction), counts.argmax()
    if shown[majority] == counts[majority]:
        return None
    of_majority = torch.from_numpy(np.flatnonzero(labels == majority))
    drawn = of_majority[torch.randperm(len(of_majority), generator=generator)[: shown[majority]]]
    others = torch.from_numpy(np.flatnonzero(labels != majority))
    return SubsetRandomSampler(torch.cat([others, drawn]).tolist(), generator)


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a model is trained and tested on.

    split: the table of `make_split`; pixels: uint8 (n, size, size, 3) and labels: (n,), a row
    for each of its rows.
    """

    files: DatasetFiles
    split: pd.DataFrame
    pixels: np.ndarray
    labels: np.ndarray

    def dataset(self, name: str) -> HAM10000Dataset:
        """The images of `train`, `val` or `test`."""
        image_ids = self.split["image_id"].tolist()
        return HAM10000Dataset(self.pixels, self.labels, split_rows(self.split, name), image_ids)
