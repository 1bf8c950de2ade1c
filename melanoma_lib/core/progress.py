"""Progress of loops: a bar in a terminal or notebook, or a file that `melanoma status` reads."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from melanoma_lib.core.environment import memory_in_use

HEADLESS = "MELANOMA_HEADLESS"  # set by the batch: a notebook would keep every refresh of a bar
PROGRESS_FILE = "MELANOMA_PROGRESS"  # set where a run is watched: the file that a loop writes to
PAUSE = 1.0  # seconds between two writings


def is_interactive() -> bool:
    """Whether stderr is a terminal, or this process a notebook's kernel; not if HEADLESS is set."""
    if os.environ.get(HEADLESS):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress(
    items: Iterable,
    label: str,
    total: float | None = None,
    losses: Sequence[float] = (),
    **options: object,
) -> Iterable:
    """Iterates over `items`, with a progress bar in an interactive session.

    total: the number of items, where they have no length; losses: a list to which the loop appends,
    whose mean is shown; options: those of tqdm. With `PROGRESS_FILE` in the environment the
    progress is written there instead, for `melanoma status --watch`.
    """
    path = os.environ.get(PROGRESS_FILE)
    if path and not int(os.environ.get("RANK", 0)):  # under torchrun, only process 0
        total = len(items) if total is None and hasattr(items, "__len__") else total
        return _recorded(items, label, total, losses, Path(path))
    if not is_interactive():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=label, total=total, leave=False, **options)


def _recorded(
    items: Iterable, label: str, total: float | None, losses: Sequence[float], path: Path
) -> Iterator:
    """Iterates, and writes about once a second what is done, with the mean of the losses so far."""
    start, due, done, counted, added = time.monotonic(), 0.0, 0, 0, 0.0

    def write() -> None:
        nonlocal counted, added
        added += sum(float(loss) for loss in losses[counted:])  # makes a GPU wait, but rarely
        counted = len(losses)
        record = {"label": label, "done": done, "total": total, "time": time.time(),
                  "seconds": time.monotonic() - start, **memory_in_use()}  # fmt: skip
        write_progress(path, record | ({"loss": added / counted} if counted else {}))

    for item in items:
        if (now := time.monotonic()) >= due:
            write()
            # On a slow disk of the network, less often.
            due = time.monotonic() + max(PAUSE, 20 * (time.monotonic() - now))
        yield item
        done += 1
    write()


def write_progress(path: Path, record: dict) -> None:
    """Writes the file atomically, but without waiting for the disk: it may be lost, and is small.

    A progress that cannot be written costs no run.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(path)


def duration(seconds: float) -> str:
    """Seconds as `2 h 05 min`, `3 min 20 s` or `45 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
