"""Locks between processes: a file that a process holds for as long as it lives."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from melanoma_lib.core.errors import MelanomaError


@contextmanager
def lock(path: Path, waiting: str = "") -> Iterator[None]:
    """Holds a lock file for this process; raises `MelanomaError` naming who holds it already.

    With `waiting`, prints that and waits instead. The lock ends with the process, however that
    ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        held = _try_lock(file)
        if waiting and not held:
            print(waiting, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        elif not held:
            file.seek(0)
            raise MelanomaError(
                f"{path.parent} is in use by {file.read().strip() or 'another process'}; wait for "
                "it or choose another folder"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def locked(path: Path) -> bool:
    """Whether a process holds the lock file at this moment."""
    if not path.exists():
        return False
    with path.open("a+") as file:
        return not _try_lock(file)


def _try_lock(file: IO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
