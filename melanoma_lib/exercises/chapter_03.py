"""The exercises of chapter 03: cost, the residual block, attention, and a small network."""

from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from melanoma_lib.exercises import call, exercise, require, require_close

BLOCK = (
    "conv 1x1", "norm", "relu", "conv 3x3", "norm", "relu", "conv 1x1", "norm", "+", "relu",
)  # fmt: skip


@exercise("03.1", "two whole numbers, weights and multiply-adds")
def convolution_cost(answer: tuple[int, int]) -> None:
    weights, macs = answer
    right = 256 * 512 * 9
    hint = "The weights: for each pair of an input and an output channel, one kernel."
    require_close(weights, right, hint, {"The layer has no bias: weights only.": right + 512})
    flops = "Those are FLOPs: a multiply-add counts as two of them."
    hint = "Every weight is used once per output pixel."
    require_close(macs, right * 14 * 14, hint, {flops: 2 * right * 14 * 14})


@exercise("03.2", "a list of steps, such as ['conv 1x1', 'norm']")
def bottleneck_steps(answer: list[str]) -> None:
    for step in answer:
        require(step in BLOCK, f"{step!r} is not one of {', '.join(sorted(set(BLOCK)))}.")
    for number, (given, right) in enumerate(zip(answer, BLOCK, strict=False)):
        require(given == right, f"The first {number} are right; {given!r} does not come next.")
    require(len(answer) == len(BLOCK), f"It has {len(BLOCK)} steps, not {len(answer)}.")


@exercise("03.3", "a class or function of (channels, width) that makes a module")
def own_bottleneck(answer: Callable[[int, int], nn.Module]) -> None:
    torch.manual_seed(0)
    ours, mine = timm.models.resnet.Bottleneck(32, 8).eval(), answer(32, 8).eval()
    with torch.no_grad():
        for name, values in ours.state_dict().items():
            if values.is_floating_point():  # not 0 or 1, which would hide a wrong normalisation
                values.copy_(0.5 + torch.rand(values.shape) - 0.8 * (values.dim() > 1))
            require(name in mine.state_dict(), f"timm's block has {name}: are the names the same?")
        call(mine.load_state_dict, ours.state_dict())
        x = torch.randn(2, 32, 6, 6)
        result, right = call(mine, x), ours(x)
    hint = "With the same weights, the output differs. Compare with your drawing of 03.2."
    if result.shape == right.shape and torch.allclose(result.relu(), right, rtol=1e-4, atol=1e-4):
        hint = "Something is missing at the very end."
    require_close(result, right, hint, rtol=1e-4, atol=1e-4)


@exercise("03.4", "a function of (query, key, value) that returns a tensor")
def attention(answer: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 5, 16, generator=generator) for _ in range(3))
    right = F.scaled_dot_product_attention(query, key, value)
    unscaled = "Nearly: dot products grow with the number of features; divide by its square root."
    hint = "The weights of each query over all keys should add up to 1, and average the values."
    mistakes = {unscaled: (query @ key.mT).softmax(-1) @ value}
    require_close(answer(query, key, value), right, hint, mistakes)


@exercise("03.5", "a number of pixels")
def receptive_field(answer: int) -> None:
    mistakes = {
        "That is what a pixel at the end of layer1 depends on; go on.": 35,
        "That is what a pixel at the end of layer2 depends on; go on.": 91,
        "That is what a pixel at the end of layer3 depends on; go on.": 267,
        "32 is the stride of the last map; each of its pixels depends on more than that.": 32,
        "That is the paper's ResNet; timm's has its strides in the 3 x 3 convolutions.": 483,
    }
    require_close(answer, 427, "Count columns with a gradient, in an image large enough.", mistakes)


@exercise("03.7", "a pair, (model, multiply_adds)")
def own_network(answer: tuple[nn.Module, int]) -> None:
    model, macs = answer
    model = model.eval()
    parameters = sum(weight.numel() for weight in model.parameters())
    hint = f"It has {parameters:,} parameters; fewer than a million are allowed."
    require(parameters < 1e6, hint)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = call(model, torch.rand(2, 3, 64, 64))
    require(logits.shape == (2, 7), f"For two images the logits are {tuple(logits.shape)}.")
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in model.modules())
    require(convolutions >= 10, "Five residual blocks have ten convolutions or more.")
    right = counter.get_total_flops() // 4  # two images, two FLOPs a multiply-add
    hint = f"PyTorch counts {'more' if right > macs else 'fewer'} multiply-adds for one image."
    require_close(macs, right, hint)
