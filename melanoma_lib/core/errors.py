"""The one error a user sees, and how it names many things."""

from collections.abc import Iterable


class MelanomaError(Exception):
    """Something the user can mend; the command prints it as one line and exits with code 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))  # what was read may hold line breaks


def summarize_items(items: Iterable[str], shown: int = 10) -> str:
    """Names the first ten of `items` and counts them all, for an error message."""
    items = list(items)
    more = f", … ({len(items)} in all)" if len(items) > shown else ""
    return ", ".join(map(str, items[:shown])) + more
