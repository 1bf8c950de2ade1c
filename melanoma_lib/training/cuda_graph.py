"""CUDA graphs: a training step recorded once and replayed, which saves launching its kernels.

A step of 32 images is several hundred small kernels, and a large GPU waits for most of them to be
launched. A recorded step is launched as one: the same kernels in the same order.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch

from melanoma_lib.training import distributed

WARM_UP = 3  # steps in which the libraries choose their kernels, before one can be recorded
Step = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def with_cuda_graph(step: Step, device: torch.device) -> Step:
    """The step as a CUDA graph on a GPU; unchanged on the CPU, or where several processes train."""
    if device.type != "cuda" or distributed.size() > 1:
        return step
    if device.index is not None:
        torch.cuda.set_device(device)  # where graphs are recorded
    return CUDAGraphStep(step)


def record(run: Callable) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
    """Captures the kernels of `run` in a CUDA graph: its replay function and its output tensors."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph.replay, results


class CUDAGraphStep:
    """A training step that is recorded at its fourth call and replayed from then on.

    The first three calls are ordinary steps, so that each batch is trained on once. Where recording
    fails, one line says why and ordinary steps go on.
    """

    def __init__(self, step: Step, record: Callable = record):
        self.step, self.record = step, record
        self.calls = 0
        self.inputs: tuple[torch.Tensor, ...] = ()
        self.replay: Callable[[], None] | None = None

    def __call__(self, model, optimizer, images, labels, *rest):
        self.calls += 1
        if self.calls <= WARM_UP:
            with _side_stream():
                return self.step(model, optimizer, images, labels, *rest)
        if self.calls == WARM_UP + 1:
            self._record(model, optimizer, images, labels, *rest)
        if self.replay is None or images.shape != self.inputs[0].shape:
            return self.step(model, optimizer, images, labels, *rest)
        for kept, new in zip(self.inputs, (images, labels), strict=True):
            kept.copy_(new)
        self.replay()
        return tuple(result.clone() for result in self.results)  # the next replay overwrites them

    def _record(self, model, optimizer, images, labels, *rest) -> None:
        self.inputs = images.clone(), labels.clone()
        self.rest = rest  # its tensors must live as long as the graph, which reads them
        try:
            self.replay, self.results = self.record(
                lambda: self.step(model, optimizer, *self.inputs, *rest)
            )
        except torch.OutOfMemoryError:
            raise  # the caller makes the batch smaller
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            print(f"steps are launched one by one: no CUDA graph ({reason})", flush=True)


@contextlib.contextmanager
def _side_stream() -> Iterator[None]:
    """Runs the block on another CUDA stream, as capturing requires; does nothing on the CPU."""
    if not torch.cuda.is_available():
        yield
        return
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)
