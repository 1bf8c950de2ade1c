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


def progress(items: Iterable, label: str, total: int | None = None) -> Iterable:
    """Iterates over `items`, with a progress bar in an interactive session."""
    if not is_interactive():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=label, total=total, leave=False)


def byte_bar(label: str, start: int, total: int | None):
    """A tqdm bar that counts bytes from `start`; hidden unless the session is interactive."""
    from tqdm import tqdm

    return tqdm(
        desc=label, initial=start, total=total, unit="B", unit_scale=True, leave=False,
        disable=not is_interactive(),
    )  # fmt: skip
