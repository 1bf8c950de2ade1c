"""Signals that ask a command to end."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_on_termination() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the block as Ctrl-C does: by KeyboardInterrupt(signal number).

    What ignores a signal goes on ignoring it (`nohup`). Processes of torchrun are left alone:
    torchrun ends them when one fails, and they may be waiting for that one.
    """

    last = 0.0  # when it interrupted

    def interrupt(number: int, _frame: object) -> None:
        nonlocal last
        if time.monotonic() > last + 1:  # a terminal that is closed sends several at once
            last = time.monotonic()
            raise KeyboardInterrupt(number)

    def send_again(dropped: object) -> None:
        """Python drops an exception that meets a destructor; a scheduler signals only once."""
        nonlocal last
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            return report(dropped)
        last = 0.0
        number = (*dropped.exc_value.args, signal.SIGINT)[0]
        threading.Timer(0.05, os.kill, [os.getpid(), number]).start()

    ours = threading.current_thread() is threading.main_thread() and "LOCAL_RANK" not in os.environ
    signals = (signal.SIGTERM, signal.SIGHUP) if ours else ()
    handled = [number for number in signals if signal.getsignal(number) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, interrupt)
    report = sys.unraisablehook
    if ours:
        sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
