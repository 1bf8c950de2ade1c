"""Reading images, and decoding a whole dataset once into one uint8 array."""

import os
import struct
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from melanoma_lib.core.environment import usable_cores
from melanoma_lib.core.errors import MelanomaError, ignore_unsupported, printable, summarize_items
from melanoma_lib.core.files import atomic_path, cache_folder
from melanoma_lib.core.progress import progress
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.picture_files import list_files, sort_pictures

# A dermoscopic image has far fewer; beyond that it is a mistake or a decompression bomb.
MAX_PIXELS = 50_000_000
# What cameras and scanners write; Pillow's decoders of other formats are not used.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
TURNS = {  # by the orientation of EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
RESAMPLING = Image.Resampling.BICUBIC
DARKEST_WHITE = 64  # of 255: the least that the brightest value of a 16-bit picture may be
MASK_FRACTION = 0.95  # of a mask's pixels are black or white


def read_image(path: Path | str | BinaryIO | np.ndarray, size: int | None = None) -> np.ndarray:
    """Reads an image as uint8 RGB, (size, size, 3), or (height, width, 3) without `size`.

    path: an image file, an open one, or its pixels, uint8 (height, width, 3). The image is resized
    without cropping, so that no part of a lesion is lost. Raises `MelanomaError` for a file that is
    not an image, is truncated, has more than `MAX_PIXELS` pixels, or whose grey values have no
    known range.
    """
    try:
        image = Image.fromarray(path) if isinstance(path, np.ndarray) else open_image(path)
        return np.asarray(image.resize((size, size), RESAMPLING) if size else image)
    except ValueError as error:
        raise MelanomaError(f"{printable(path)}: not a readable image ({error})") from None


def open_image(source: Path | str | BinaryIO) -> Image.Image:
    """Decodes an image file as an upright RGB image, with all of its pixels.

    Raises ValueError, whose message says what is wrong with the file and what to do.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels is too large; an image may have "
                    f"{MAX_PIXELS / 1e6:.0f} million"
                )
            bits = _bits_per_channel(image)
            image.load()  # only loading finds a truncated file
            if (turn := _turn(image)) is not None:
                image = image.transpose(turn)
            return _to_rgb(image, bits)
    except Image.DecompressionBombError:  # its text is not for people
        reason = f"it has more than {MAX_PIXELS / 1e6:.0f} million pixels"
    except UnidentifiedImageError:
        reason = f"it is none of {', '.join(FORMATS)}, or damaged"
    except Exception as error:  # decoders raise many types; one picture must not stop the others
        reason = str(error) or type(error).__name__
    raise ValueError(reason)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the camera says that an image must be turned; all else in its EXIF is ignored."""
    # Not `ImageOps.exif_transpose`, which fails at any odd entry, nor `getexif` alone, which drops
    # what comes after one.
    try:
        orientation = _orientation(image.info.get("exif", b""))
        return TURNS.get(orientation or image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a damaged block says nothing
        return None


def _orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 0 if it has none."""
    block = exif.removeprefix(b"Exif\0\0")
    order = ">" if block.startswith(b"MM") else "<"
    with suppress(struct.error):  # the block ends early
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, place)
            if tag == ExifTags.Base.Orientation:
                return value
    return 0


def _bits_per_channel(image: Image.Image) -> int:
    """The bits of a channel in an opened file; Pillow keeps 8 of a colour's 16 without a word."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
    return 16 if image.format == "PNG" and ";16" in str(image.tile) else 8


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    """8 bits a channel from 1, 8, 12 or 16; raises ValueError where white is not known."""
    if image.mode in ("I", "F"):
        raise ValueError(
            "nothing says which of its floating-point or 32-bit values is white; save it with 8 "
            "bits a channel"
        )
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32) * 255 // (2**bits - 1)
        image = Image.fromarray(values.astype(np.uint8))
    image = image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
    if bits == 16 and np.asarray(image).max() < DARKEST_WHITE:
        raise ValueError(
            "its 16-bit values are all near black, as if a camera had fewer bits; save it with 8 "
            "bits a channel"
        )
    return image


def read_mask(path: Path | str, size: int | None = None) -> np.ndarray:
    """Reads a lesion mask as bool (size, size), or (height, width) without `size`.

    The lesion is 255, or 1 in a mask of zeros and ones.
    """
    values = read_image(path, size)[..., 0]
    return values >= (1 if values.max() == 1 else 128)


def looks_like_mask(pixels: np.ndarray) -> bool:
    """Whether an image, uint8 (height, width, 3), has two values of grey, but for blurred edges."""
    if (pixels[..., 0] != pixels[..., 1]).any() or (pixels[..., 0] != pixels[..., 2]).any():
        return False
    grey = pixels[..., 0].astype(int)
    low, high = grey.min(), grey.max()
    tolerance = (high - low) // 8  # JPEG does not keep two values apart exactly
    two_valued = ((grey <= low + tolerance) | (grey >= high - tolerance)).mean() > MASK_FRACTION
    return bool(low < high and two_valued)


def list_pictures(folder: Path | str) -> tuple[list[Path], list[str]]:
    """The picture files below a folder without lesion masks, and why others cannot be read.

    A picture that is named like a mask is left out only if it looks like one.
    """
    root = Path(folder)
    files, unreadable = list_files(root)
    images, masks = sort_pictures(root, files)
    doubtful = list(chain.from_iterable(masks.values()))
    are_masks, _ = map_images(lambda path: looks_like_mask(read_image(path)), doubtful, "masks")
    pictures = [path for path, is_mask in zip(doubtful, are_masks, strict=True) if not is_mask]
    return sorted([*chain.from_iterable(images.values()), *pictures]), unreadable


def decoded_path(files: DatasetFiles, size: int, cache: Path | str | None = None) -> Path:
    """Where the pixels of a dataset are kept, in the folder `cache` or that of all caches."""
    return Path(cache or cache_folder()) / f"{files.fingerprint}-{size}px.npy"


def decode(files: DatasetFiles, size: int, cache: Path | str | None = None) -> np.ndarray:
    """All images of a dataset as one read-only, memory-mapped uint8 array (n, size, size, 3).

    Decoded on all cores the first time, then read from the file of `decoded_path`. Raises
    `MelanomaError` naming every image that cannot be read; that file then stays as it was.
    """
    path = decoded_path(files, size, cache)
    shape = (len(files.images), size, size, 3)
    with suppress(OSError, ValueError, EOFError):  # absent, or damaged by a disk
        pixels = np.load(path, mmap_mode="r")
        if pixels.shape == shape:
            return pixels
    with atomic_path(path) as temporary:
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # writing to a map on a full disk kills the process
            with temporary.open("rb+") as file, ignore_unsupported("a full disk ends the process"):
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        _decode_into(pixels, files.images)
        pixels.flush()
    return np.load(path, mmap_mode="r")


def _decode_into(pixels: np.ndarray, images: Sequence[Path] | np.ndarray) -> None:
    """Reads every image into its row of `pixels` (n, size, size, 3); raises as `decode` does."""

    def read_one(row: int) -> None:
        image = read_image(images[row])
        if looks_like_mask(image):
            raise MelanomaError(f"{images[row]}: not an image but a mask, of two values of grey")
        pixels[row] = read_image(image, pixels.shape[1])

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
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            done = list(progress(pool.map(attempt, items), label, total=len(items)))
        except BaseException:  # an interrupt: what has not begun is left alone
            pool.shutdown(cancel_futures=True)
            raise
    return [result for result, _ in done], [error for _, error in done if error]
