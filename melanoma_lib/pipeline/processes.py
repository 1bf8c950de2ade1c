"""Processes that have imported beforehand what notebooks import.

Importing torch, timm and their like takes longer than executing a short chapter. On Linux the fork
server of `multiprocessing` imports them once, and each process started here is a fork of it. It
shares nothing else with this one: environment, current folder and threads are its own.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from melanoma_lib.core.errors import MelanomaError

PRELOADED = "melanoma_lib.pipeline.preloaded"
# Elsewhere a fork of so much is not safe; and the name of the server's socket, which lies in the
# folder of temporary files, may have 107 characters.
FORKING = sys.platform == "linux" and len(tempfile.gettempdir()) < 70

DIED = "its process died; run again to go on, with fewer --jobs if memory was short"


def start(function: Callable, *arguments, **environment: str) -> tuple[BaseProcess, Connection]:
    """Calls `function(send, *arguments)` in another process, with variables of its environment.

    Returns the process and what `receive` takes: what it sends, and at last what the function
    returns or raises. It hears no Ctrl-C, and ends with this process if not before.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    arguments = (theirs, os.environ | environment, function, arguments)
    process = _context().Process(target=_main, args=arguments, daemon=True)
    try:
        process.start()
    except (EOFError, ConnectionError) as error:  # the server could not import, or was killed
        raise MelanomaError(f"no process could be started ({error!r}); run again") from None
    theirs.close()
    return process, ours


def receive(messages: Connection) -> object:
    """The next object that a process has sent; raises the exception that ended its function.

    Or `MelanomaError` if the process has died.
    """
    try:
        message = messages.recv()
    except EOFError:
        raise MelanomaError(DIED) from None
    if isinstance(message, Exception):
        raise message
    return message


def call(function: Callable, *arguments: object) -> object:
    """What `function(*arguments)` returns or raises, called in another process."""
    process, messages = start(_call, function, *arguments)
    try:
        return receive(messages)
    finally:
        stop(process)  # when this one is interrupted


def stop(*processes: BaseProcess) -> None:
    """Ends processes at once."""
    before = _block_interrupts()  # the second Ctrl-C of somebody impatient waits
    for process in processes:
        process.kill()
        process.join()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context() -> BaseContext:
    if not FORKING:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def _main(sender: Connection, environment: dict, function: Callable, arguments: tuple) -> None:
    _block_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()  # of the server, which may be older than a change
    os.environ.update(environment)
    multiprocessing.current_process().daemon = False  # it may start others
    multiprocessing.set_start_method(None, force=True)  # as in any other process
    try:
        sender.send(function(sender.send, *arguments))
    except Exception as error:
        sender.send(error)
    os._exit(0)  # without waiting for processes that it has started: they end with it


def _block_interrupts() -> set[signal.Signals]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _call(_: Callable, function: Callable, *arguments: object) -> object:
    return function(*arguments)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # killed, perhaps
    os._exit(1)
