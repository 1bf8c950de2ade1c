"""The exercises of chapter 04: writing a loss, a training step and an optimizer."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from melanoma_lib.training.loop import train_step


def loss_of_two(answer: float) -> str | None:
    right = -(math.log(0.8) + math.log(0.2)) / 2
    near = {
        2 * right: "Nearly: the loss of a batch is the mean over its images, not the sum.",
        -right: "A logarithm of a probability is negative; the loss is minus that.",
        -math.log(0.5): "That is the loss of the mean probability; take the mean of the losses.",
        right / math.log(10): "That is with the logarithm to base 10; e is the base here.",
        right / math.log(2): "That is with the logarithm to base 2; e is the base here.",
    }
    for value, hint in near.items():
        if abs(answer - value) < 0.002:
            return hint
    return None if abs(answer - right) < 0.002 else "Take minus the logarithm of each probability."


def majority_class(answer: float, train: np.ndarray, test: np.ndarray) -> str | None:
    counts = np.bincount(train)
    if abs(answer - (test == counts.argmax()).mean()) < 0.0005:
        return None
    if abs(answer - counts.max() / counts.sum()) < 0.0005:
        return "That is the fraction in train; give the accuracy on the test split."
    return "What fraction of the test images has the diagnosis that is most frequent in train?"


def traced_step(answer: Callable[..., tuple]) -> str | None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(7, 5, generator=generator, requires_grad=True)
    images, labels = torch.randn(6, 5, generator=generator), torch.tensor([0, 3, 3, 6, 1, 5])
    right = F.cross_entropy(images @ weights.T, labels)
    (gradient,) = torch.autograd.grad(right, weights)
    weights = weights.detach()
    loss, mine, after = answer(weights.clone(), images, labels, 0.1)
    if not torch.isclose(torch.as_tensor(loss), right.detach(), atol=1e-4):
        return f"Forward and loss: the loss is {float(loss):.4f}, and not that of PyTorch."
    if mine.shape != weights.shape:
        return f"The gradient has the weights' shape, {tuple(weights.shape)}, not {mine.shape}."
    if torch.allclose(mine, len(images) * gradient, atol=1e-4):
        return "Loss right. The gradient is that of the summed losses; the loss is their mean."
    if torch.allclose(mine, -gradient, atol=1e-4):
        return "Loss right. The gradient has the wrong sign: it points where the loss rises."
    if not torch.allclose(mine, gradient, atol=1e-4):
        return (
            "Loss right. Gradient: the derivative by a logit is the probability minus the one-hot "
            "label; what is the derivative of that logit by a weight?"
        )
    if torch.allclose(after, weights + 0.1 * gradient, atol=1e-5):
        return "Loss and gradient right. The update goes uphill."
    right_step = torch.allclose(after, weights - 0.1 * gradient, atol=1e-5)
    return None if right_step else "Loss and gradient right. The update is wrong."


def own_step(answer: Callable[..., torch.Tensor]) -> str | None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 7))

    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 5, 2, 2])
    ours, mine = network(), network()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.5) for model in (ours, mine)]
    for number in (1, 2, 3):
        right = train_step(ours, optimizers[0], images, labels)[0]
        loss = answer(mine, optimizers[1], images, labels)
        if not torch.is_tensor(loss) or loss.dim():
            return "It should return the loss, as a tensor of one number."
        if not torch.isclose(loss.detach(), right, atol=1e-5):
            return f"The loss that step {number} returns is wrong."
        if not torch.allclose(mine[1].weight, ours[1].weight, atol=1e-5):
            if number > 1:
                return "The first step is right, the second is not: what remains of the first?"
            return "The weights after the first step are wrong: does it do all four things?"
    return None


def own_adam(answer: Callable[..., torch.Tensor]) -> str | None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, generator=generator)
    gradients = [torch.randn(4, generator=generator) for _ in range(5)]
    weight = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for number, gradient in enumerate(gradients, 1):
        weight.grad = gradient
        optimizer.step()
        result = answer(start.clone(), gradients[:number], 0.1)
        if torch.allclose(result, weight, atol=1e-5):
            continue
        if number > 1:
            return f"Right after {number - 1}, wrong after {number} gradients."
        if torch.allclose(result, start - 0.1 * gradient, atol=1e-5):
            return "That is gradient descent: Adam divides by the gradient's usual size."
        if torch.allclose(result, 2 * start - weight.detach(), atol=1e-5):
            return "The first step goes uphill."
        size = float((result - start).abs().max() / 0.1)
        return f"The first step is {size:.3g} learning rates long; it should be 1."
    return None


def weighted_loss(answer: Callable[..., torch.Tensor]) -> str | None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    labels, counts = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]), torch.tensor([500, 40, 5])
    result, each = answer(logits, labels, counts), F.cross_entropy(logits, labels, reduction="none")
    right = F.cross_entropy(logits, labels, weight=1 / counts)
    if torch.isclose(result, right, rtol=1e-4):
        return None
    if torch.isclose(result, (each / counts[labels]).mean(), rtol=1e-4):
        return "A weighted mean divides by the sum of the weights, not by the number of images."
    if torch.isclose(result, each.mean(), rtol=1e-4):
        return "That is the unweighted mean."
    return "Weigh each image's own loss by one over the count of its true class."


CHECKS = {
    "04.1": loss_of_two,
    "04.2": majority_class,
    "04.3": traced_step,
    "04.4": own_step,
    "04.5": own_adam,
    "04.7": weighted_loss,
}
