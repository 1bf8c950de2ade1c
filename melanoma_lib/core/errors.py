"""The error that users see, and how a message lists many items."""

from collections.abc import Iterable


class MelanomaError(Exception):
    """An error the user can fix; the command prints it as one line and exits with code 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))  # quoted input may contain line breaks


def summarize_items(items: Iterable[str], shown: int = 10) -> str:
    """The first `shown` items, and how many there are if that is not all, for an error message."""
    items = list(items)
    more = f", … ({len(items)} in all)" if len(items) > shown else ""
    return ", ".join(map(str, items[:shown])) + more
