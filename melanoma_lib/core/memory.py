"""Memory: keeping what is used again at once, instead of giving it back and asking anew."""

import contextlib
import ctypes
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # numbers of malloc.h


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Inside the block this process keeps the memory of freed arrays; afterwards it is given back.

    A training step on the CPU frees gigabytes and asks for them again, and the system clears them
    page by page each time: a tenth to a quarter of a step, and a fifth of painting the sample. Only
    where the C library is glibc (mallopt(3)).
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, TypeError):  # another C library
        yield
        return
    mallopt(_TRIM_THRESHOLD, -1)  # never
    mallopt(_MMAP_MAX, 0)  # large ones come from the same heap
    try:
        yield
    finally:
        # What glibc adjusts itself to in a process with large arrays.
        mallopt(_MMAP_MAX, 65536)
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 64 << 20)
        trim(0)
