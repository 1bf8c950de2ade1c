"""Progress bars, in a terminal or a notebook that somebody runs by hand; none in logs."""

import os
import sys
from collections.abc import Iterable

HEADLESS = "MELANOMA_HEADLESS"  # set by the batch: a notebook would keep every refresh of a bar


def is_interactive() -> bool:
    """Whether stderr is a terminal, or this process a notebook's kernel; not if HEADLESS is set."""
    if os.environ.get(HEADLESS):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress(
    items: Iterable, label: str, total: float | None = None, **options: object
) -> Iterable:
    """Iterates over `items`, with a progress bar in an interactive session.

    total: the number of items, where they have no length; options: those of tqdm.
    """
    if not is_interactive():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=label, total=total, leave=False, **options)


def duration(seconds: float) -> str:
    """Seconds as `2 h 05 min`, `3 min 20 s` or `45 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
