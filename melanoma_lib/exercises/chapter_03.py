"""The exercises of chapter 03: cost, the residual block, attention, and a small network."""

from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

BLOCK = (
    "conv 1x1", "norm", "relu", "conv 3x3", "norm", "relu", "conv 1x1", "norm", "+", "relu",
)  # fmt: skip


def cost_of_a_convolution(answer: tuple[int, int]) -> str | None:
    weights, macs = answer
    if weights == 256 * 512 * 9 + 512:
        return "The layer has no bias: weights only."
    if weights != 256 * 512 * 9:
        return "The weights: for each pair of an input and an output channel, one kernel."
    if macs == 2 * weights * 14 * 14:
        return "Those are FLOPs: a multiply-add counts as two of them."
    return None if macs == weights * 14 * 14 else "Every weight is used once per output pixel."


def drawn_block(answer: list[str]) -> str | None:
    unknown = sorted(set(answer) - set(BLOCK))
    if unknown:
        return f"{unknown[0]!r} is not one of {', '.join(sorted(set(BLOCK)))}."
    for number, (given, right) in enumerate(zip(answer, BLOCK, strict=False), 1):
        if given != right:
            return f"The first {number - 1} are right; {given!r} does not come next."
    return None if len(answer) == len(BLOCK) else f"It has {len(BLOCK)} steps, not {len(answer)}."


def own_bottleneck(answer: Callable[[int, int], nn.Module]) -> str | None:
    torch.manual_seed(0)
    ours, mine = timm.models.resnet.Bottleneck(32, 8).eval(), answer(32, 8).eval()
    with torch.no_grad():
        for values in ours.state_dict().values():
            if values.is_floating_point():  # not 0 or 1, which would hide a wrong normalisation
                values.copy_(0.5 + torch.rand(values.shape) - 0.8 * (values.dim() > 1))
        missing = sorted(set(ours.state_dict()) - set(mine.state_dict()))
        if missing:
            return f"timm's block has {missing[0]}, and yours does not: are the names the same?"
        mine.load_state_dict(ours.state_dict())
        x = torch.randn(2, 32, 6, 6)
        result, right = mine(x), ours(x)
        if result.shape != right.shape:
            return f"{tuple(x.shape)} goes in and should come out, and not {tuple(result.shape)}."
        if torch.allclose(result, right, rtol=1e-4, atol=1e-4):
            return None
        if torch.allclose(result.relu(), right, rtol=1e-4, atol=1e-4):
            return "Something is missing at the very end."
    return "With the same weights, the output differs. Compare with your drawing of 03.2."


def attention(answer: Callable[..., torch.Tensor]) -> str | None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 5, 16, generator=generator) for _ in range(3))
    result = answer(query, key, value)
    if result.shape != value.shape:
        return f"The result should have the shape of the values, not {tuple(result.shape)}."
    if torch.allclose(result, F.scaled_dot_product_attention(query, key, value), atol=1e-5):
        return None
    if torch.allclose(result, (query @ key.mT).softmax(-1) @ value, atol=1e-5):
        return "Nearly: dot products grow with the number of features; divide by its square root."
    return "The weights of each query over all keys should add up to 1, and average the values."


def receptive_field(answer: int) -> str | None:
    stages = {35: "layer1", 91: "layer2", 267: "layer3"}
    if answer in stages:
        return f"That is what a pixel at the end of {stages[answer]} depends on; go on."
    if answer == 32:
        return "32 is the stride of the last map; each of its pixels depends on more than that."
    if answer == 483:
        return "That is the ResNet of the paper; timm's has its strides in the 3 x 3 convolutions."
    return None if answer == 427 else "Count columns with a gradient, in an image large enough."


def own_network(answer: tuple[nn.Module, int]) -> str | None:
    model, macs = answer
    model = model.eval()
    parameters = sum(weight.numel() for weight in model.parameters())
    if parameters >= 1e6:
        return f"It has {parameters:,} parameters; fewer than a million are allowed."
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = model(torch.rand(2, 3, 64, 64))
    if logits.shape != (2, 7):
        return f"Two images should give two rows of seven logits, not {tuple(logits.shape)}."
    if sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) < 10:
        return "Five residual blocks of two convolutions have ten convolutions or more."
    right = counter.get_total_flops() // 4  # two images, two FLOPs a multiply-add
    if macs != right:
        return f"PyTorch counts {'more' if right > macs else 'fewer'} multiply-adds for one image."
    return None


CHECKS = {
    "03.1": cost_of_a_convolution,
    "03.2": drawn_block,
    "03.3": own_bottleneck,
    "03.4": attention,
    "03.5": receptive_field,
    "03.7": own_network,
}
