"""Pixels: decode every image once into one uint8 array, and serve it in batches."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from melanoma_lib.artifacts import PROJECT, MelanomaError, atomic_path, offenders
from melanoma_lib.data.metadata import DatasetFiles
from melanoma_lib.progress import progress

# A dermoscopy photograph has well under 50 million pixels; beyond that it is a mistake or a
# decompression bomb.
MAX_PIXELS = 50_000_000
# What a camera or a scanner writes; decoders of other formats are never asked.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def read_image(path: Path | str | np.ndarray, size: int | None = None) -> np.ndarray:
    """Reads a picture as uint8 RGB, (size, size, 3), or in its own shape without `size`.

    `path` may be a picture that is read already, uint8 (h, w, 3). The whole picture is squeezed
    into the square: nothing of a lesion is cut off. Raises `MelanomaError` for anything that is
    not a whole image file.
    """
    try:
        known = isinstance(path, np.ndarray)
        with Image.fromarray(path) if known else Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise MelanomaError(f"{path}: {image.width} x {image.height} pixels is too large")
            image.load()  # only loading finds a truncated file
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off and not scale
                image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
            image = ImageOps.exif_transpose(image).convert("RGB")
            if size:
                image = image.resize((size, size), Image.Resampling.BICUBIC)
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MelanomaError(f"{path}: not a readable image ({error})") from None


def read_mask(path: Path | str, size: int | None = None) -> np.ndarray:
    """Reads a lesion mask as a boolean array, squeezed like its image."""
    return read_image(path, size)[..., 0] >= 128


def decode(files: DatasetFiles, size: int, cache: Path | str | None = None) -> np.ndarray:
    """All images of a dataset as one read-only uint8 array (images, size, size, 3).

    Decoded on all cores the first time, and kept in `cache` under the dataset's fingerprint;
    memory-mapped, so that a dataset larger than the memory works. Raises `MelanomaError`
    naming every image that cannot be read; the cache then stays as it was.
    """
    folder = Path(cache or os.environ.get("MELANOMA_CACHE") or PROJECT / "data" / "cache")
    path = folder / f"{files.fingerprint}-{size}px.npy"
    shape = (len(files.images), size, size, 3)
    if path.exists():
        pixels = np.load(path, mmap_mode="r")
        if pixels.shape == shape:
            return pixels
    with atomic_path(path) as temporary:
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # or a full disk would kill the process later
            with temporary.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        _decode_into(pixels, files.images)
        pixels.flush()
    return np.load(path, mmap_mode="r")


def _decode_into(pixels: np.ndarray, paths: Sequence[Path]) -> None:
    """Reads every image into its row of `pixels` (n, size, size, 3); errors as in `decode`."""

    def read_one(row: int) -> str | None:
        try:
            pixels[row] = read_image(paths[row], pixels.shape[1])
        except MelanomaError as error:
            return str(error)
        return None

    # Pillow decodes without holding Python's lock, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(read_one, range(len(paths)))
        errors = [error for error in progress(jobs, "decoding", total=len(paths)) if error]
    if errors:
        raise MelanomaError(f"{len(errors)} images cannot be read: {offenders(errors)}")


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

