"""The precision, memory layout and threads that a network is trained with.

bfloat16 has the range of float32 and a sixteenth of its digits. Under autocast the weights, the
loss and the update stay in float32, and only the large products are made of shorter numbers
(Kalamkar et al., 2019).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class ComputeSettings:
    """What a training computes with: part of what its weights depend on, recorded in run.json.

    `layout` is channels_last for every new training: it makes convolutions faster and changes
    little for transformers. Earlier trainings may have been recorded with the other one.
    """

    precision: str = "float32"  # or bfloat16
    layout: str = "channels_last"  # the colours of a pixel side by side in memory; or contiguous
    threads: int = field(default_factory=torch.get_num_threads)  # on the CPU

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.precision}, {self.layout}, {threads}"

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network as training sees it: normalised images in, float32 logits out."""
        model.to(memory_format=LAYOUTS[self.layout])
        if (self.precision, self.layout) == ("float32", "channels_last"):
            return model
        wrapped = _Wrapped(model, self)
        wrapped.pretrained_cfg = model.pretrained_cfg  # where timm looks for the normalisation
        return wrapped

    @contextlib.contextmanager
    def use_threads(self) -> Iterator[None]:
        """Inside the block PyTorch computes with these threads, afterwards as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module, settings: ComputeSettings):
        super().__init__()
        self.model, self.settings = model, settings

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=LAYOUTS[self.settings.layout])
        short = self.settings.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=short):
            return self.model(images).float()


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has matrix units for bfloat16: NVIDIA GPUs since Ampere, CPUs with AMX.

    Without them bfloat16 is slower than float32; AVX512_BF16 alone does not help training.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    # A PyTorch too old to tell computes in float32.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and capabilities.get("amx_bf16", False)
