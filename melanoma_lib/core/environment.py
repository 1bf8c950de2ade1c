"""The environment that results depend on: package versions, the device and the cores."""

import contextlib
import os
import platform
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from melanoma_lib import __version__
from melanoma_lib.core.errors import MelanomaError, summarize_items

if TYPE_CHECKING:  # importing torch takes seconds, and counting cores needs none
    import torch

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn")


def versions() -> dict[str, str]:
    """The versions of Python, of this library and of the packages that change results."""
    packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "melanoma_lib": __version__, **packages}


def require_packages(extra: str, *names: str) -> None:
    """Raises `MelanomaError` when packages of an optional part of the project are missing."""
    if missing := [name for name in names if not find_spec(name)]:
        raise MelanomaError(
            f"{summarize_items(missing)} is not installed; in the project's folder: "
            f"pip install -e '.[{extra}]'"
        )


def usable_cores() -> int:
    """The number of cores this process may use: by its affinity and the quota of its container."""
    import joblib

    return joblib.cpu_count()


def device_name(model: "torch.nn.Module") -> str:
    """A description of the device the model is on: the GPU's name, or the CPU and its threads."""
    import torch

    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


@contextlib.contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """Inside the block these variables are set for this process and those it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def memory_in_use() -> dict[str, object]:
    """Name, bytes in use and bytes in all of the GPU that this process computes on.

    Without one those of the machine, of which the most that the process has used.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        return {"device": torch.cuda.get_device_name(), "used": total - free, "memory": total}
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"device": "CPU", "used": used, "memory": memory}


def pick_device(name: str = "auto") -> "torch.device":
    """The device called `name`; "auto" is the first CUDA device, or the CPU without one.

    PyTorch then computes with no more threads than `usable_cores`; by itself it knows of no quota.
    Raises `MelanomaError` when PyTorch cannot use the device.
    """
    import torch

    if torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise MelanomaError(f"device {name!r} cannot be used ({reason}); try cpu") from None
