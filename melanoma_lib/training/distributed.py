"""Distributed data parallel training: several processes that torchrun started, each on a device.

Every process holds the whole network and a shard of every batch; gradients and batch statistics
are those of the whole batch, so that the recipe does not change with the number of processes. Only
process 0 writes files. Without torchrun there is one process, and nothing here has an effect.
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
    """The number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextlib.contextmanager
def group(config: Config) -> Iterator[None]:
    """Joins the process group of torchrun, each process on a GPU of its own or all on the CPU.

    Only process 0 prints. Raises `MelanomaError` when a batch cannot be divided into equal shards.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))  # torchrun sets it
    if processes == 1:
        yield
        return
    if config.batch_size % processes:
        raise MelanomaError(
            f"a batch of {config.batch_size} cannot be divided equally among {processes} processes"
        )
    device = None
    if config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # Processes wait for process 0 while it decodes a dataset or writes an epoch; torchrun notices
    # one that dies.
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
    """The value that process 0 passes, in every process."""
    box = [value]
    if size() > 1:
        distributed.broadcast_object_list(box)
    return box[0]


def wait() -> None:
    """Blocks until every process has called it."""
    if size() > 1:
        distributed.barrier()


def wrap(model: nn.Module) -> nn.Module:
    """The network with gradients averaged over all processes.

    Batch statistics are those of the whole batch on GPUs, and those of the shard on the CPU, where
    PyTorch cannot synchronise them.
    """
    if size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        synchronise(model)
    wrapped = DistributedDataParallel(model)
    wrapped.pretrained_cfg = model.pretrained_cfg  # where timm looks for the normalisation
    return wrapped


def synchronise(model: nn.Module) -> None:
    """Makes batch normalisation use the statistics of all processes, in place."""
    timm.layers.convert_sync_batchnorm(model)  # torch's own would lose timm's activations


def shard(*batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """This process's shard of a batch: equally many rows of each tensor."""
    return tuple(rows.tensor_split(size())[rank()] for rows in batch)


def mean(values: torch.Tensor) -> torch.Tensor:
    """The elementwise mean over all processes."""
    if size() > 1:
        distributed.all_reduce(values)
    return values / size()
