"""The files below a dataset folder: its pictures, sorted into images and lesion masks."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from melanoma_lib.core.errors import printable

# The last ones cannot be read; they are listed so that an error names them.
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".gif", ".jp2",
)  # fmt: skip
MASK_SUFFIX = "_segmentation"
MASK_FOLDER = re.compile(r"(?<![a-z])(masks?|segmentations?)(?![a-z])", re.IGNORECASE)
SAMPLE_BYTES = 4096  # that are compared to tell copies from different files


def list_files(root: Path) -> tuple[list[Path], list[str]]:
    """All files below a folder in the order of their paths, and why others cannot be read.

    Links are followed, each folder is visited once. Hidden files and folders are left out, and so
    are folders like __MACOSX, which holds a shadow "._name" of every file of an archive.
    """
    files: list[Path] = []
    unreadable: list[str] = []

    def report(error: OSError) -> None:
        unreadable.append(f"{printable(error.filename)} cannot be read ({error.strerror})")

    seen = set()  # resolved folders: links may form a cycle
    for folder, subfolders, names in os.walk(root, onerror=report, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(("__", ".")))
        if (resolved := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(resolved)
        for path in (Path(folder, name) for name in sorted(names) if not name.startswith(".")):
            if path.is_file() or not path.exists():
                files.append(path)
            else:  # to read a pipe without a writer takes for ever
                unreadable.append(f"{printable(path)} is a pipe, a socket or a device")
    return files, unreadable


@cache
def is_mask_folder(folder: Path, root: Path) -> bool:
    """Whether the name of a folder, or of one between it and `root`, says that it holds masks."""
    return any(MASK_FOLDER.search(name) for name in folder.relative_to(root).parts)


def sort_pictures(
    root: Path, files: Iterable[Path], image_ids: Collection[str] = ()
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """The images and the masks among the files below `root`, all candidates by image id.

    A mask is called `<id>_segmentation`, or lies in a folder that says so. A name that is in
    `image_ids`, the ids of the dataset's table, is an image's, however it ends.
    """
    images, masks = defaultdict(list), defaultdict(list)
    for path in files:
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        name = path.stem
        suffixed = name.endswith(MASK_SUFFIX) and name not in image_ids
        if suffixed or is_mask_folder(path.parent, root):
            masks[name.removesuffix(MASK_SUFFIX)].append(path)
        else:
            images[name].append(path)
    return images, masks


def without_copies(paths: Iterable[Path]) -> list[Path]:
    """The first path of each content; files of one size with the same middle count as copies."""
    found: dict[object, Path] = {}
    for path in paths:
        found.setdefault(_content(path), path)
    return list(found.values())


def _content(path: Path) -> object:
    # Published archives hold folders of images twice: comparing gigabytes would take minutes.
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - SAMPLE_BYTES) // 2)
            return size, file.read(SAMPLE_BYTES)
    except OSError:  # a broken link is a copy of nothing
        return path
