"""Locks between processes: a file that a process holds for as long as it lives."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from melanoma_lib.core.errors import MelanomaError


@contextmanager
def lock(path: Path, waiting: str = "") -> Iterator[None]:
    """Holds a lock file for this process; raises `MelanomaError` naming who holds it already.

    With `waiting`, prints that and waits instead. The lock ends with the process, however that
    ends. Who only looks whether it is held (`locked`) never keeps anybody from it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        while not _flock(file, fcntl.LOCK_EX):
            if _flock(file, fcntl.LOCK_SH):  # nobody holds it: somebody looks, for microseconds
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
    """Whether a process holds the lock file at this moment.

    A lock that is shared can be had while others look, and not while somebody holds the file.
    """
    if not path.exists():
        return False
    with path.open() as file:
        return not _flock(file, fcntl.LOCK_SH)


def _flock(file: IO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
