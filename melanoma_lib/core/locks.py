"""Locks between processes, held on a file for as long as the process lives."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from melanoma_lib.core.errors import MelanomaError, ignore_unsupported

LOCKED = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}  # another process holds the lock


@contextmanager
def lock(path: Path, waiting: str = "") -> Iterator[None]:
    """Holds a lock file inside the block.

    If another process holds it, raises `MelanomaError` naming that process, or prints `waiting`
    and waits if that is given. The lock ends with the process, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        while not _flock(file, fcntl.LOCK_EX):
            if _flock(file, fcntl.LOCK_SH):  # it is only being tested, by `locked`
                fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(0.001)
            elif waiting:
                print(waiting, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
                break
            else:
                file.seek(0)
                raise MelanomaError(
                    f"{path.parent} is in use by {file.read().strip() or 'another process'}; wait "
                    "for it or choose another folder"
                )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def locked(path: Path) -> bool:
    """Whether a process holds the lock file; testing it never makes `lock` fail.

    A shared lock is compatible with other tests, and not with the exclusive lock of a holder.
    """
    if not path.exists():
        return False
    with path.open() as file:
        return not _flock(file, fcntl.LOCK_SH)


def _flock(file: IO, kind: int) -> bool:
    """Locks the file, and returns whether nobody else's lock forbids that."""
    try:
        with ignore_unsupported("no locks here; let only one command write to a folder"):
            fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in LOCKED:
            raise
        return False
    return True
