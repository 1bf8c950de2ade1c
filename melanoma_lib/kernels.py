"""Kernels that start at once: copies of a process that has imported what notebooks import.

Importing torch, timm and their like takes longer than executing a short chapter. On Linux a server
of the standard library (`multiprocessing`'s forkserver) imports them once for each process that
executes many notebooks, and their kernels are forks of it. They share those modules and the folders
to import from; variables, random numbers, environment and threads are their own.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

IMPORTED = (
    "torch", "timm", "pandas", "matplotlib.pyplot", "sklearn.metrics", "scipy.stats",
    "pyarrow.parquet", "pytorch_grad_cam", "ipykernel.kernelapp",
)  # fmt: skip
INLINE = "module://matplotlib_inline.backend_inline"  # where a kernel draws


class _Forked:
    """A kernel's process with what its provisioner knows of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        self._process = context.Process(target=_serve, args=(arguments, environment, folder))
        self._process.start()
        self.pid = self._process.pid
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)


def _serve(arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    """Becomes the kernel that `python -m ipykernel_launcher` would be."""
    import matplotlib
    import numpy as np
    import threadpoolctl
    import torch
    from ipykernel.kernelapp import launch_new_instance

    os.setsid()  # as the provisioner signals to the whole group
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.chdir(folder)
    sys.argv[:] = ["ipykernel_launcher", *arguments]
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)
    np.random.seed()  # or every fork would draw the same
    torch.default_generator.seed()
    # What libraries read from the environment when they are imported, which they are.
    matplotlib.rcParams["backend"] = environment.get("MPLBACKEND") or INLINE
    if threads := int(environment.get("OMP_NUM_THREADS", 0)):
        threadpoolctl.threadpool_limits(threads)
        torch.set_num_threads(threads)
    # With the server as its parent it ends with that one too, and prints no advice.
    launch_new_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


def end_with_parent() -> None:
    """Waits until the process that started this one is gone, killed perhaps, and ends this one."""
    multiprocessing.parent_process().join()
    os._exit(1)


class _Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **kwargs) -> dict:
        of_this_python = cmd[0] == sys.executable and "ipykernel_launcher" in cmd
        if of_this_python and sys.platform == "linux":  # elsewhere a fork of so much is not safe
            arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
            self.cwd = kwargs.get("cwd", Path.cwd())
            # Without a server (an import fails in it, its socket's name is too long, memory is
            # short) the kernel starts as any other.
            with contextlib.suppress(EOFError, OSError):
                self.process = _Forked(arguments, kwargs["env"], str(self.cwd))
                self.pid = self.pgid = self.process.pid
                return self.connection_info
        return await super().launch_kernel(cmd, **kwargs)


class ForkedKernelManager(AsyncKernelManager):
    """Manages a kernel that is a fork where that can be, and an ordinary one elsewhere."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.provisioner = _Provisioner(kernel_spec=self.kernel_spec, parent=self)
