"""The exercises of chapter 04: writing a loss, a training step and an optimizer."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from melanoma_lib.exercises import exercise, require, require_close
from melanoma_lib.training.loop import train_step


@exercise("04.1", "a number")
def mean_cross_entropy(answer: float) -> None:
    right = -(math.log(0.8) + math.log(0.2)) / 2
    mistakes = {
        "Nearly: the loss of a batch is the mean over its images, not the sum.": 2 * right,
        "A logarithm of a probability is negative; the loss is minus that.": -right,
        "That is the loss of the mean probability; take the mean of the losses.": -math.log(0.5),
        "That is with the logarithm to base 10; e is the base here.": right / math.log(10),
        "That is with the logarithm to base 2; e is the base here.": right / math.log(2),
    }
    hint = "Take minus the logarithm of each probability."
    require_close(answer, right, hint, mistakes, atol=0.002)


@exercise("04.2", "a fraction from 0 to 1")
def majority_class(answer: float, train: np.ndarray, test: np.ndarray) -> None:
    counts = np.bincount(train)
    in_train = "That is the fraction in train; give the accuracy on the test split."
    hint = "What fraction of the test images has the diagnosis that is most frequent in train?"
    mistakes = {in_train: counts.max() / counts.sum()}
    require_close(answer, (test == counts.argmax()).mean(), hint, mistakes, atol=0.0005)


@exercise(
    "04.3", "a function of (weights, images, labels, learning_rate) that returns three tensors"
)
def traced_step(answer: Callable[..., tuple]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(7, 5, generator=generator, requires_grad=True)
    images, labels = torch.randn(6, 5, generator=generator), torch.tensor([0, 3, 3, 6, 1, 5])
    right = F.cross_entropy(images @ weights.T, labels)
    (gradient,) = torch.autograd.grad(right, weights)
    weights = weights.detach()
    loss, mine, after = answer(weights.clone(), images, labels, 0.1)
    hint = f"Forward and loss: the loss is {float(loss):.4f}, and not that of PyTorch."
    require_close(loss, right, hint, atol=1e-4)
    summed = "Loss right. The gradient is that of the summed losses; the loss is their mean."
    sign = "Loss right. The gradient has the wrong sign: it points where the loss rises."
    hint = (
        "Loss right. Gradient: the derivative by a logit is the probability minus the one-hot "
        "label; what is the derivative of that logit by a weight?"
    )
    mistakes = {summed: len(images) * gradient, sign: -gradient}
    require_close(mine, gradient, hint, mistakes, atol=1e-4)
    mistakes = {"Loss and gradient right. The update goes uphill.": weights + 0.1 * gradient}
    hint = "Loss and gradient right. The update is wrong."
    require_close(after, weights - 0.1 * gradient, hint, mistakes)


@exercise("04.4", "a function of (model, optimizer, images, labels) that returns the loss")
def own_step(answer: Callable[..., torch.Tensor]) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 7))

    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 5, 2, 2])
    ours, mine = network(), network()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.5) for model in (ours, mine)]
    hint = "The weights after the first step are wrong: does it do all four things?"
    for number in (1, 2, 3):
        right = train_step(ours, optimizers[0], images, labels)[0]
        loss = answer(mine, optimizers[1], images, labels)
        is_scalar = torch.is_tensor(loss) and not loss.dim()
        require(is_scalar, "It should return the loss, as a tensor of one number.")
        require_close(loss, right, f"The loss that step {number} returns is wrong.")
        require_close(mine[1].weight, ours[1].weight, hint)
        hint = "The first step is right, the second is not: what remains of the first?"


@exercise("04.5", "a function of (weight, gradients, learning_rate) that returns the new weight")
def own_adam(answer: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, generator=generator)
    gradients = [torch.randn(4, generator=generator) for _ in range(5)]
    weight = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for number, gradient in enumerate(gradients, 1):
        weight.grad = gradient
        optimizer.step()
        result = answer(start.clone(), gradients[:number], 0.1)
        hint, mistakes = f"Right after {number - 1}, wrong after {number} gradients.", {}
        if number == 1:
            descent = "That is gradient descent: Adam divides by the gradient's usual size."
            uphill = 2 * start - weight.detach()
            mistakes = {
                descent: start - 0.1 * gradient, "The first step goes uphill.": uphill
            }  # fmt: skip
            size = float((result - start).abs().max() / 0.1)
            hint = f"The first step is {size:.3g} learning rates long; it should be 1."
        require_close(result, weight, hint, mistakes)


@exercise("04.7", "a function of (logits, labels, counts) that returns the loss")
def weighted_loss(answer: Callable[..., torch.Tensor]) -> None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    labels, counts = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]), torch.tensor([500, 40, 5])
    each = F.cross_entropy(logits, labels, reduction="none")
    right = F.cross_entropy(logits, labels, weight=1 / counts)
    by_images = "A weighted mean divides by the sum of the weights, not by the number of images."
    mistakes = {
        by_images: (each / counts[labels]).mean(), "That is the unweighted mean.": each.mean()
    }  # fmt: skip
    hint = "Weigh each image's own loss by one over the count of its true class."
    require_close(answer(logits, labels, counts), right, hint, mistakes, rtol=1e-4)
