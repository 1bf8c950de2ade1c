"""What the two processes of a step do: one is the kernel, the other executes cells in it.

Both are started by `processes`, so that what is imported here is imported already.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.pipeline.processes import receive

EPOCH_LINE = re.compile(r"epoch {4}|going on| *\d+/\d+ ")  # what `fit` prints
SHOWN = "--InlineBackend.print_figure_kwargs={'bbox_inches': None}"  # or each is drawn once more


def serve(send: Callable, folder: Path) -> None:
    """Becomes a kernel of Jupyter that works in a folder, and sends where it listens."""
    from ipykernel.kernelapp import IPKernelApp

    os.chdir(folder)
    if "torch" in sys.modules:
        _be_as_new()
    kernel = IPKernelApp.instance(parent_handle=1)  # or it prints how to connect to it
    kernel.initialize(["--log-level=ERROR", "--matplotlib=inline", SHOWN])
    kernel.cleanup_connection_file()
    send(kernel.get_connection_info())
    kernel.start()


def _be_as_new() -> None:
    """Does what libraries do when they are imported: in a fork, they are already."""
    import numpy as np
    import threadpoolctl
    import torch

    np.random.seed()
    torch.seed()
    threads = int(os.environ["OMP_NUM_THREADS"])
    threadpoolctl.threadpool_limits(threads)
    torch.set_num_threads(threads)


def execute(
    send: Callable,
    notebook: Path,
    parameters: Mapping[str, object],
    target: Path,
    log: Path,
    kernel: Connection,
) -> None:
    """Executes a notebook through papermill and writes it, with what its cells show, to `target`.

    What they print goes to `log`, and epochs of a training are sent, too. `kernel` is what `serve`
    sends; this process ends when that one dies. Raises `MelanomaError` for an exception in a cell;
    the notebook then lies beside the target, as `.failed.ipynb`.
    """
    import papermill
    from jupyter_client.manager import AsyncKernelManager

    class Started(AsyncKernelManager):
        has_kernel = True

    logger, file = logging.getLogger("papermill"), logging.FileHandler(log, encoding="utf-8")
    file.setFormatter(logging.Formatter(f"%(asctime)s {target.stem}: %(message)s"))
    logger.setLevel(logging.INFO)
    logger.addHandler(file)
    logger.addHandler(_Epochs(send))
    manager, failed = Started(owns_kernel=False), target.with_suffix(".failed.ipynb")
    manager.load_connection_info(receive(kernel))
    threading.Thread(target=_end_with, args=[kernel], daemon=True).start()
    try:
        papermill.execute_notebook(
            notebook, failed, parameters, kernel_name="python3", km=manager, log_output=True,
            progress_bar=False, request_save_on_cell_execute=False,  # once at the end
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise MelanomaError(f"{error.ename}: {error.evalue.strip()} (see {failed})") from None
    except OSError as error:  # the disk is full, perhaps
        raise MelanomaError(f"{error}; run again to go on") from None
    failed.replace(target)


def _end_with(kernel: Connection) -> None:
    kernel.poll(None)  # nothing more comes from it but its end
    os._exit(1)


class _Epochs(logging.Handler):
    """Sends the lines of the training table."""

    def __init__(self, send: Callable):
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        for line in filter(EPOCH_LINE.match, record.getMessage().splitlines()):
            self.send(line)
