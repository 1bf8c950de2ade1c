"""Distribution: one training on several processes that torchrun started, each with its device.

Every process holds the whole network and takes its rows of every batch; gradients and batch
statistics are those of the whole batch, so the recipe does not change with their number. The first
process alone writes. Outside of torchrun there is one process, and nothing here does anything.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator

import timm.layers
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.progress import HEADLESS


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextlib.contextmanager
def group(config: Config) -> Iterator[None]:
    """Joins the processes that torchrun started, each with a GPU or all on the CPU.

    All but the first are silent. Raises `MelanomaError` when a batch cannot be shared equally.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))  # torchrun sets it
    if processes == 1:
        yield
        return
    if config.batch_size % processes:
        raise MelanomaError(
            f"a batch of {config.batch_size} cannot be shared equally by {processes} processes"
        )
    device = None
    if config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # A process waits for the first one while that decodes a dataset, or writes an epoch; one that
    # dies is noticed by torchrun.
    patience = datetime.timedelta(days=1)
    backend = "nccl" if device else "gloo"
    distributed.init_process_group(backend, timeout=patience, device_id=device)
    if rank():
        os.environ[HEADLESS] = "1"
    try:
        with contextlib.redirect_stdout(None) if rank() else contextlib.nullcontext():
            yield
            wait()  # none leaves while another may need it
    finally:
        distributed.destroy_process_group()


def broadcast(value: object = None) -> object:
    """What the first process says here, in every process; the others wait for it."""
    box = [value]
    if size() > 1:
        distributed.broadcast_object_list(box)
    return box[0]


def wait() -> None:
    """Until every process has come here."""
    if size() > 1:
        distributed.barrier()


def wrap(model: nn.Module) -> nn.Module:
    """The network as training sees it: its gradients are the means over all processes.

    Batch statistics are those of the whole batch, but on the CPU each process's own: PyTorch
    synchronises them on GPUs only.
    """
    if size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        synchronise(model)
    wrapped = DistributedDataParallel(model)
    wrapped.pretrained_cfg = model.pretrained_cfg  # where timm looks for the normalisation
    return wrapped


def synchronise(model: nn.Module) -> None:
    """Replaces batch normalisation, in place, by one with the statistics of all processes."""
    timm.layers.convert_sync_batchnorm(model)  # torch's own would lose timm's activations


def shard(*batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """This process's rows of a batch."""
    return tuple(rows.tensor_split(size())[rank()] for rows in batch)


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over all processes, element by element."""
    if size() > 1:
        distributed.all_reduce(values)
    return values / size()
