"""Images: every file is decoded once into one uint8 array. Nothing here imports torch."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import PROJECT, atomic_path
from melanoma_lib.core.progress import progress
from melanoma_lib.data.dataset_files import DatasetFiles

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
        raise MelanomaError(f"{len(errors)} images cannot be read: {summarize_items(errors)}")
