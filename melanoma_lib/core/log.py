"""The log of a run: what its commands print, each line with the time, and how they end."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from melanoma_lib.core.errors import describe_error
from melanoma_lib.core.files import ENCODING
from melanoma_lib.core.progress import duration

LOG = "run.log"  # in a run's folder


def buffer_lines(show: Callable[[str], None]) -> Callable[[str], None]:
    """A function to write text with, which passes on every line that is whole."""
    rest = ""

    def write(text: str) -> None:
        nonlocal rest
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            show(line)

    return write


@dataclass
class RunLog:
    """An open log; `shown = False` keeps what is printed off the terminal, for a live display."""

    shown: bool = True


@contextlib.contextmanager
def run_log(run: Path, title: str) -> Iterator[RunLog]:
    """Appends what is printed in the block, and how it ends, to the log in the folder of a run.

    title: what begins. A log that cannot be written costs no run.
    """
    switch = RunLog()
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOG).open("a", **ENCODING) as file:

        def log(line: str) -> None:
            line = line.rpartition("\r")[2].rstrip()  # what a bar leaves
            if line:
                with contextlib.suppress(OSError):
                    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
                    file.flush()

        start = time.monotonic()
        log(f"{title}: begins, process {os.getpid()} on {socket.gethostname()}")
        end = "ended"
        try:
            with (
                contextlib.redirect_stdout(_Tee(sys.stdout, buffer_lines(log), switch)),
                contextlib.redirect_stderr(_Tee(sys.stderr, buffer_lines(log), switch)),
            ):
                yield switch
        except KeyboardInterrupt:
            end = "interrupted"
            raise
        except BaseException as error:
            log(f"error: {describe_error(error)}")
            end = "ended with an error"
            raise
        finally:
            log(f"{title}: {end} after {duration(time.monotonic() - start)}")


class _Tee:
    """A stream, and a function that also gets what is written to it."""

    def __init__(self, stream: TextIO, write: Callable[[str], None], switch: RunLog):
        self._stream, self._write, self._switch = stream, write, switch

    def write(self, text: str) -> int:
        self._write(text)
        return self._stream.write(text) if self._switch.shown else len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
