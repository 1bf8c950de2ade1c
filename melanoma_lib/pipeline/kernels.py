"""Kernels that start at once: copies of a process that has imported what notebooks import.

Importing torch, timm and their like takes longer than executing a short chapter. On Linux a server
of the standard library (`multiprocessing`'s forkserver) imports them once, and kernels are forks
of it. They share those modules and the folders to import from; variables, random numbers,
environment and threads are their own.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

import traitlets
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

IMPORTED = (
    "torch", "timm", "pandas", "matplotlib.pyplot", "sklearn.metrics", "scipy.stats",
    "pyarrow.parquet", "pytorch_grad_cam", "ipykernel.kernelapp",
)  # fmt: skip
FORKING = sys.platform == "linux"  # elsewhere a fork of so much is not safe
INLINE = "module://matplotlib_inline.backend_inline"  # where a kernel draws


def start_server() -> None:
    """Lets the server begin to import, unless it has; it ends with this process."""
    if FORKING:
        multiprocessing.forkserver.set_forkserver_preload(list(IMPORTED))
        with _deaf():
            multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What starts in here does not hear Ctrl-C: this process does, and ends it."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def in_fork(function: Callable, *arguments: object) -> object:
    """What a function returns or raises, called in a fork of the server if there is one."""
    answer = None
    with contextlib.suppress(EOFError, OSError):
        if FORKING:
            answer = _asked(function, arguments)
    if answer is None:
        return function(*arguments)
    value, error = answer
    if error:
        raise error
    return value


def _asked(function: Callable, arguments: Sequence) -> tuple:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = _fork(_answer, theirs, function, arguments)
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.kill()  # when this process is interrupted


def _answer(asked: "multiprocessing.connection.Connection", function: Callable, arguments) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked is interrupted too
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        asked.send((function(*arguments), None))
    except Exception as error:
        asked.send((None, error))


def _fork(target: Callable, *arguments: object) -> multiprocessing.Process:
    """A process that is a fork of the server; raises EOFError or OSError where there is none.

    That is where an import fails in it, its socket's name is too long, or memory is short.
    """
    start_server()
    process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
    process.start()
    return process


class _Forked:
    """A kernel's process with what its provisioner knows of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str):
        self._process = _fork(_serve, arguments, environment, folder)
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
    async def pre_launch(self, **kwargs) -> dict:
        own = {"env": os.environ | self.parent.environment, "cwd": self.parent.folder}
        return await super().pre_launch(**own | kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs) -> dict:
        _launched.add(self)
        of_this_python = cmd[0] == sys.executable and "ipykernel_launcher" in cmd
        if of_this_python and FORKING:
            arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
            self.cwd = kwargs["cwd"]
            with contextlib.suppress(EOFError, OSError):  # it then starts as any other
                self.process = _Forked(arguments, kwargs["env"], self.cwd)
                self.pid = self.pgid = self.process.pid
                return self.connection_info
        return await super().launch_kernel(cmd, **kwargs)


_launched: weakref.WeakSet[_Provisioner] = weakref.WeakSet()


def kill_all() -> None:
    """Ends every kernel that this process has started."""
    for provisioner in list(_launched):
        if provisioner.process and provisioner.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its group is not there yet
                os.killpg(provisioner.pid, signal.SIGKILL)


class ForkedKernelManager(AsyncKernelManager):
    """Manages a kernel that is a fork where that can be, and an ordinary one elsewhere."""

    environment = traitlets.Dict(help="what differs from this process's").tag(config=True)
    folder = traitlets.Unicode(".", help="where it works").tag(config=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.provisioner = _Provisioner(kernel_spec=self.kernel_spec, parent=self)
