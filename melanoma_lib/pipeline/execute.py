"""One notebook executed through papermill, in a process that has torch imported already.

papermill's own engine starts a Jupyter kernel, which imports torch anew, and that takes longer
than a short chapter. This engine runs the cells in IPython's shell in the process it is in: a fork
of one that has imported what notebooks import.
"""

import base64
import contextlib
import io
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from melanoma_lib.core.errors import MelanomaError, describe_error
from melanoma_lib.core.log import buffer_lines
from melanoma_lib.core.signals import interrupt_on_termination

GRACE = 25  # seconds for a process to end by itself: schedulers mostly give a command thirty
DIED = "its process died; run again to go on, with fewer --jobs if memory was short"
LOGGED = "log"  # tag of a cell whose lines are worth the run's log
# Elsewhere a fork with so much imported is not safe. The fork server's socket lies in the folder
# of temporary files, and its path may have 107 bytes.
FORKS = sys.platform == "linux" and len(os.fsencode(tempfile.gettempdir())) < 70
PRELOAD = "melanoma_lib.pipeline.preload"


def start_process(
    function: Callable, *arguments: object, environment: Mapping[str, str] | None = None
) -> tuple:
    """Calls `function(send, *arguments)` in another process; returns it and a `Connection`.

    The connection receives what the function sends, then what it returns, or a `MelanomaError` in
    place of any exception. The process ignores Ctrl-C, and ends when this one ends; SIGTERM ends
    it after the operation it is in. `environment` is added to the variables of this process.
    """
    context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
    if FORKS:
        context.set_forkserver_preload([PRELOAD])
    receiver, sender = context.Pipe(duplex=False)
    variables = os.environ | (environment or {})
    process = context.Process(target=_main, args=(function, sender, arguments, variables))
    try:
        process.start()
    except (EOFError, ConnectionError) as error:  # the server could not import, or was killed
        raise MelanomaError(f"no process could be started ({error!r}); run again") from None
    sender.close()
    return process, receiver


def run_in_process(function: Callable, *arguments: object) -> object:
    """Calls a function in such a process; returns what it returns, or raises `MelanomaError`."""
    process, messages = start_process(_without_sending, function, *arguments)
    try:
        result = messages.recv()
    except EOFError:
        raise MelanomaError(DIED) from None
    finally:
        process.kill()  # if this process is interrupted
    if isinstance(result, MelanomaError):
        raise result
    return result


def end_processes(processes: Sequence[BaseProcess]) -> None:
    """Ends processes of `start_process`: what they are writing, as an epoch, they still write.

    They have `GRACE` seconds for that, or until this process is interrupted again.
    """
    deadline = time.monotonic() + GRACE
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()


def _without_sending(_send: Callable, function: Callable, *arguments: object) -> object:
    return function(*arguments)


def _main(function: Callable, sender: Connection, arguments: tuple, variables: dict) -> None:
    os.environ.clear()  # a fork has that of the server, which may be older than a change
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that hears Ctrl-C ends this one,
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by this, which forks ignore at first
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with interrupt_on_termination():
            sender.send(function(sender.send, *arguments))
    except BaseException as error:  # as text: some exceptions cannot be sent, or not be read
        with contextlib.suppress(OSError):  # who would hear it has ended
            sender.send(MelanomaError(describe_error(error)))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # even if it was killed
    os._exit(1)


def execute_notebook(
    send: Callable[[str], None],
    notebook: Path,
    parameters: Mapping[str, object],
    target: Path,
    log: Path,
) -> None:
    """Executes a notebook in this process and writes it, with its outputs, to `target`.

    What cells print is appended to the file `log`. Lines of cells with the tag `LOGGED`, and of
    standard error, are also sent. Raises `MelanomaError` for an exception in a cell, and then
    leaves the notebook with the ending `.failed.ipynb`.
    """
    import papermill
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.pylabtools import select_figure_formats
    from traitlets.config import Config

    _start_afresh()
    os.chdir(notebook.parent)
    logger, file = logging.getLogger("papermill"), logging.FileHandler(log, encoding="utf-8")
    file.setFormatter(logging.Formatter(f"%(asctime)s {target.stem}: %(message)s"))
    logger.setLevel(logging.INFO)
    logger.addHandler(file)

    # The reader's own history of IPython is none of a run's business, nor is its lock.
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    select_figure_formats(shell, {"png"}, bbox_inches=None)  # or each is drawn once more

    def show(line: str, worth_it: bool) -> None:
        logger.info("%s", line)
        if worth_it and line.strip():
            send(line)

    class Engine(papermill.engines.Engine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **_):
            for index, cell in enumerate(nb_man.nb.cells):
                nb_man.cell_start(cell, index)
                success = cell.cell_type != "code" or _run_cell(shell, cell, show)
                nb_man.cell_complete(cell, index)
                if not success:
                    break

    papermill.engines.papermill_engines.register("here", Engine)
    failed = target.with_suffix(".failed.ipynb")
    # papermill formats paths, and would fill what stands between braces.
    paths = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, failed))
    try:
        papermill.execute_notebook(
            *paths, parameters, engine_name="here", kernel_name="python3",
            log_output=True, progress_bar=False, request_save_on_cell_execute=False,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise MelanomaError(f"{error.ename}: {error.evalue.strip()} (see {failed})") from None
    shutil.move(failed, target)


def _start_afresh() -> None:
    """Makes a fork compute with its own threads and random numbers, as a new process would."""
    import numpy as np
    import threadpoolctl
    import torch

    threads = int(os.environ["OMP_NUM_THREADS"])
    threadpoolctl.threadpool_limits(threads)
    torch.set_num_threads(threads)
    np.random.seed()
    torch.seed()


def _run_cell(shell, cell, show: Callable[[str, bool], None]) -> bool:
    """Runs a cell in an IPython shell and stores its outputs; returns whether it succeeded.

    show: is called with each line, and whether it is worth the run's log.
    """
    from nbformat.v4 import new_output

    def display(data: Mapping, metadata: Mapping | None = None, kind="display_data", **_) -> None:
        text = {
            mime: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for mime, value in data.items()
        }
        cell.outputs.append(new_output(kind, data=text, metadata=metadata or {}))

    def display_result(value: object) -> None:
        if value is not None and not shell.displayhook.quiet():  # no semicolon at the end
            display(*shell.display_formatter.format(value), kind="execute_result")

    def display_error(kind: type, error: BaseException, traceback: Sequence[str] = ()) -> None:
        cell.outputs.append(
            new_output("error", ename=kind.__name__, evalue=str(error), traceback=[*traceback])
        )

    tags = cell.metadata.get("tags", [])
    shell.display_pub.publish, shell.display_trap.hook = display, display_result
    shell._showtraceback = display_error
    with (
        contextlib.redirect_stdout(
            _Stream("stdout", cell.outputs, lambda line: show(line, LOGGED in tags))
        ),
        contextlib.redirect_stderr(
            _Stream("stderr", cell.outputs, lambda line: show(line, True))
        ),
    ):
        result = shell.run_cell(cell.source, store_history=True)
    error = result.error_before_exec or result.error_in_exec
    if error and not any(output.output_type == "error" for output in cell.outputs):
        display_error(type(error), error)  # of a magic command, which IPython only prints
    cell.execution_count = result.execution_count
    return result.success


class _Stream(io.TextIOBase):
    """A stream that stores what a cell prints in its outputs, and shows it line by line."""

    def __init__(self, name: str, outputs: list, show: Callable[[str], None]):
        self.of, self.outputs, self.show_lines = name, outputs, buffer_lines(show)

    def write(self, text: str) -> int:
        from nbformat.v4 import new_output

        if not (self.outputs and self.outputs[-1].get("name") == self.of):
            self.outputs.append(new_output("stream", name=self.of, text=""))
        self.outputs[-1].text += text
        self.show_lines(text)
        return len(text)
