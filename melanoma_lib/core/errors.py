"""`MelanomaError`, the error that users see, and the wording of errors."""

import errno
import functools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# What a file system answers that does not know an operation: network homes, mounted buckets.
UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EPERM,
               errno.EINVAL}  # fmt: skip


class MelanomaError(Exception):
    """An error the user can fix; the command prints it as one line and exits with code 2."""

    def __init__(self, message: str):
        super().__init__(printable(" ".join(message.split())))  # it may quote several lines


def printable(text: object) -> str:
    """A text, such as a path, in one line: what is no visible character is escaped.

    A name of a file may hold line breaks, and codes that a terminal obeys.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def describe_error(error: BaseException) -> str:
    """A `MelanomaError`'s message; any other exception's after its type, in one line too."""
    if isinstance(error, MelanomaError):
        return str(error)
    return printable(" ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":"))


def summarize_items(items: Iterable[str], shown: int = 10) -> str:
    """The first `shown` items, and how many there are if that is not all, for an error message."""
    items = list(items)
    more = f", … ({len(items)} in all)" if len(items) > shown else ""
    return ", ".join(map(str, items[:shown])) + more


@contextmanager
def ignore_unsupported(consequence: str) -> Iterator[None]:
    """Suppresses the error of an operation that the file system does not support.

    Prints once what that means for the user. Other errors, such as a full disk's, are raised.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _print_once(f"note: {consequence} ({error.strerror})")


@functools.cache
def _print_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
