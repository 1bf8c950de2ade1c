"""Progress: a bar where a person watches, silence where a log is written."""

import os
import sys
from collections.abc import Iterable

HEADLESS = "MELANOMA_HEADLESS"  # set by the batch: a notebook would keep every refresh of a bar


def watched() -> bool:
    """Whether a person is likely to watch: a terminal, or a notebook run by hand."""
    if os.environ.get(HEADLESS):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress(
    items: Iterable, label: str, total: float | None = None, **options: object
) -> Iterable:
    """Passes `items` through, with a bar that vanishes at the end if a person watches.

    `options` are those of tqdm, a unit for example.
    """
    if not watched():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=label, total=total, leave=False, **options)
