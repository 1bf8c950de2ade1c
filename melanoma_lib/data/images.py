"""Reading images, and decoding a whole dataset once into one uint8 array."""

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import PROJECT, atomic_path
from melanoma_lib.core.progress import progress
from melanoma_lib.data.dataset_files import DatasetFiles

# A dermoscopic image has far fewer; beyond that it is a mistake or a decompression bomb.
MAX_PIXELS = 50_000_000
# What cameras and scanners write; Pillow's decoders of other formats are not used.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def read_image(path: Path | str | np.ndarray, size: int | None = None) -> np.ndarray:
    """Reads an image as uint8 RGB, (size, size, 3), or (height, width, 3) without `size`.

    path: an image file, or its pixels, uint8 (height, width, 3). The image is resized without
    cropping, so that no part of a lesion is lost. Raises `MelanomaError` for a file that is not
    an image, is truncated, or has more than `MAX_PIXELS` pixels.
    """
    try:
        decoded = isinstance(path, np.ndarray)
        with Image.fromarray(path) if decoded else Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise MelanomaError(f"{path}: {image.width} x {image.height} pixels is too large")
            image.load()  # only loading finds a truncated file
            if image.mode.startswith("I"):  # 16 bits, which Pillow would clip and not scale
                image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
            image = ImageOps.exif_transpose(image).convert("RGB")
            if size:
                image = image.resize((size, size), Image.Resampling.BICUBIC)
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MelanomaError(f"{path}: not a readable image ({error})") from None


def read_mask(path: Path | str, size: int | None = None) -> np.ndarray:
    """Reads a lesion mask as bool (size, size), or (height, width) without `size`."""
    return read_image(path, size)[..., 0] >= 128


def decode(files: DatasetFiles, size: int, cache: Path | str | None = None) -> np.ndarray:
    """All images of a dataset as one read-only, memory-mapped uint8 array (n, size, size, 3).

    Decoded on all cores the first time, then read from the folder `cache` (by default
    $MELANOMA_CACHE, or data/cache of the project). Raises `MelanomaError` naming every image
    that cannot be read; the cache then stays as it was.
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
        if hasattr(os, "posix_fallocate"):  # writing to a map on a full disk kills the process
            with temporary.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        _decode_into(pixels, files.images)
        pixels.flush()
    return np.load(path, mmap_mode="r")


def _decode_into(pixels: np.ndarray, images: Sequence[Path] | np.ndarray) -> None:
    """Reads every image into its row of `pixels` (n, size, size, 3); raises as `decode` does."""

    def read_one(row: int) -> None:
        pixels[row] = read_image(images[row], pixels.shape[1])

    _, errors = map_images(read_one, range(len(images)), "decoding")
    if errors:
        raise MelanomaError(f"{len(errors)} images cannot be read: {summarize_items(errors)}")


def map_images(function: Callable, items: Collection, label: str) -> tuple[list, list[str]]:
    """The results of `function` for all items, and the message of every `MelanomaError` raised.

    On all cores, with a progress bar called `label`. A failed item has the result None.
    """

    def attempt(item: object) -> tuple[object, str]:
        try:
            return function(item), ""
        except MelanomaError as error:
            return None, str(error)

    # Pillow releases the interpreter's lock while it decodes, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(progress(pool.map(attempt, items), label, total=len(items)))
    return [result for result, _ in done], [error for _, error in done if error]
