"""What may be deleted: replaced trainings, pixels that no run uses, downloaded archives."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, cache_folder, read_json
from melanoma_lib.core.locks import locked

KINDS = {
    "replaced": "trainings that made way for others; one with the old parameters trains anew",
    "cache": "decoded pixels and features; computed again when they are needed",
    "archives": "downloaded zip files, unpacked or broken off",
}


def removable(runs: Sequence[Path], data: Path) -> dict[str, list[Path]]:
    """What may go, by kind, in folders of runs and below the folder of all datasets.

    Pixels are listed where no training in those folders is of them; what a process uses is not.
    """
    records = [path for folder in runs for path in folder.rglob("run.json")]
    used = {_pixels(path) for path in records if path.parents[1].name != "replaced"}
    replaced = {path.parent for path in records if path.parents[1].name == "replaced"}
    archives = (*data.glob("*/*.zip"), *data.glob("*/.*.part"))
    return {
        "replaced": sorted(path for path in replaced if not _in_use(path.parents[1])),
        "cache": sorted(path for path in cache_folder().glob("*.npy")
                        if "-".join(path.stem.split("-")[:2]) not in used),
        "archives": sorted(path for path in archives if not locked(path.parent / ".download.lock")),
    }  # fmt: skip


def _pixels(record: Path) -> str:
    """The name of the pixels that a training uses, from its run.json; "" where that is damaged."""
    try:
        values = read_json(record)
        return f"{values['dataset']['fingerprint']}-{values['config']['image_size']}px"
    except (MelanomaError, KeyError):
        return ""


def _in_use(run: Path) -> bool:
    """Whether a process holds a lock of a run, or of the one that it lies in, two folders above."""
    return any(locked(path) for each in (run, run.parents[1]) for path in each.glob(".*lock"))


def size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def describe(found: dict[str, list[Path]]) -> str:
    """A line for each that may go, with its size, below its kind."""
    lines = []
    for kind, paths in found.items():
        lines.append(f"{kind}: {KINDS[kind]}{'' if paths else '; none'}")
        lines += [f"{size(path) / 1e6:10,.1f} MB  {_shown(path)}" for path in paths]
    return "\n".join(lines)


def delete(found: dict[str, list[Path]], names: Sequence[str]) -> Iterable[str]:
    """Deletes what is named, by its kind or as it is listed; yields a line about each.

    Raises `MelanomaError`, and deletes nothing, when a name is not in the list.
    """
    listed = {_shown(path): path for paths in found.values() for path in paths}
    chosen = {}
    for name in names:
        whole = {_shown(path): path for path in found.get(name, [])}
        if not whole and name not in listed and name not in found:
            raise MelanomaError(f"{name!r} is not in the list of `melanoma clean`; nothing is gone")
        chosen |= whole or ({name: listed[name]} if name in listed else {})
    for name, path in chosen.items():
        count = size(path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield f"deleted {count / 1e6:10,.1f} MB  {name}"


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)
