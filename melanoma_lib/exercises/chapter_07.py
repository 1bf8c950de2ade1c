"""The exercises of chapter 07: Grad-CAM on paper and in code, its scores, when to doubt."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

# Two features of 2 x 2 cells, and the gradient of one logit with respect to each.
FEATURES = np.array([[[4.0, 0.0], [2.0, 1.0]], [[0.0, 2.0], [1.0, 3.0]]])
GRADIENT = np.array([[[0.3, 0.1], [0.1, -0.1]], [[-0.4, 0.0], [0.0, 0.0]]])
REASONS = ("out of distribution", "near", "empty", "elsewhere", "area", "none")
# The letter of a case, its reason, and what is told to who gives another.
CASES = {
    "A": ("none", "compare the fraction of heat inside with the lesion's fraction of the area."),
    "B": ("near", "how far is the score from the threshold?"),
    "C": ("area", "what would a map score that is the same everywhere?"),
    "D": ("elsewhere", "what in the image does the logit rest on?"),
    "E": ("none", "what would you expect to speak for melanoma where the network sees none?"),
    "F": ("empty", "what in the image speaks for the class that is predicted?"),
    "G": ("out of distribution", "what was the network trained on?"),
}


def map_on_paper(answer: list[list[float]]) -> str | None:
    given = np.asarray(answer, float)
    if given.shape != (2, 2):
        return "Give two rows of two numbers."
    weights = GRADIENT.mean((1, 2), keepdims=True)
    heat = (weights * FEATURES).sum(0)
    right = np.maximum(heat, 0)
    mistakes = (
        (heat, "What speaks against the class is still in it."),
        (np.maximum(4 * heat, 0), "A weight is the mean of a gradient, not its sum."),
        (right / right.max(), "Right so far; do not divide by the largest value here."),
        (np.maximum(weights * FEATURES, 0).sum(0), "First add up, then set negatives to zero."),
        (np.maximum((GRADIENT * FEATURES).sum(0), 0), "One weight a feature, for all its cells."),
        ((abs(weights) * FEATURES).sum(0), "A weight keeps its sign."),
    )
    if np.allclose(given, right, atol=0.0005):
        return None
    told = (words for values, words in mistakes if np.allclose(given, values, atol=0.0005))
    return next(told, "What are the two weights, and what do they make of the first cell?")


def cells(answer: list[int]) -> str | None:
    given = list(answer)
    if given == [112, 56, 28, 14]:
        return "What stands before layer1 halves the side twice."
    if given == [56, 28, 14, 14]:
        return "Three of the four stages halve the side; which one does not?"
    if given == [256, 512, 1024, 2048]:
        return "Those are the channels; how many cells has each of them?"
    if len(given) != 4:
        return f"Give four numbers, not {len(given)}."
    return None if given == [56, 28, 14, 7] else "Of 224 pixels a side, how many steps of stride 2?"


def own_grad_cam(answer: Callable[..., torch.Tensor]) -> str | None:
    torch.manual_seed(0)
    layer, linear = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()), nn.Linear(5 * 24, 7)
    model = nn.Sequential(layer, nn.Flatten(), linear).eval()
    images, classes = torch.randn(3, 3, 4, 6), [4, 1, 5]
    heat = answer(model, layer, images, classes)
    if layer._forward_hooks or layer._backward_hooks or layer._forward_pre_hooks:
        return "Your hook is still on the layer, and would run with every later prediction."
    heat = torch.as_tensor(heat).detach()
    if heat.shape != (3, 4, 6):
        return f"Three images and a layer of 4 x 6 cells give (3, 4, 6), not {tuple(heat.shape)}."
    features = layer(images).detach()
    gradient = linear.weight.detach()[classes].unflatten(1, features.shape[1:])  # of this network
    weighted = gradient.mean((2, 3), keepdim=True) * features
    right = weighted.sum(1).relu()
    if torch.allclose(heat, right, atol=1e-5):
        return None
    if torch.allclose(heat[0], right[0], atol=1e-5):
        return "The first image is right; each image has a class of its own."
    if torch.allclose(heat, weighted.sum(1), atol=1e-5):
        return "What speaks against the class is still in it."
    if torch.allclose(heat, (gradient * features).sum(1).relu(), atol=1e-5):
        return "One weight a feature: the mean of its gradient over the cells."
    if torch.allclose(heat, 24 * right, atol=1e-4):
        return "A weight is the mean of a gradient, not its sum."
    return "The map is another one. Try it on the numbers of 07.1."


def pointing_game(answer: Callable[..., np.ndarray]) -> str | None:
    heat, masks = np.full((4, 3, 5), 0.1), np.zeros((4, 3, 5), bool)
    heat[0, 1, 4] = heat[1, 2, 0] = heat[2, 0, 1] = 1
    heat[0] *= 3  # the hottest pixel of all is in the first map
    heat[3] = 0
    masks[0, 1, 4] = masks[1, 0, :] = masks[2, 0, 1] = masks[3, 0, 0] = True
    given = np.asarray(answer(heat, masks), float)
    if given.shape != (4,):
        return f"Four maps give four results, (4,), not {given.shape}."
    if not np.isnan(given[3]):
        return "Where does a map without heat point?"
    if np.isnan(given[:3]).any():
        return "Only a map without heat has no result."
    wrong = np.flatnonzero(given[:3] != (1, 0, 1))
    if len(wrong):
        return f"Map {wrong[0]} of four gets {given[wrong[0]]:g}: which pixel is its own hottest?"
    return None


def questioned(answer: dict[str, str]) -> str | None:
    missing = [letter for letter in CASES if letter not in answer]
    if missing:
        return f"Case {missing[0]} has no answer."
    for letter, (reason, told) in CASES.items():
        if answer[letter] not in REASONS:
            return f"{answer[letter]!r} is none of {', '.join(REASONS)}."
        if answer[letter] != reason:
            return f"Look at case {letter} again: {told}"
    return None


class _Reddest(nn.Module):
    """Logits of an image: 0, and ten times its mean red on the left half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = 10 * images[:, 0, :, :4].mean((1, 2))
        return torch.stack([torch.zeros_like(red), red], 1)


def covered(answer: Callable[..., np.ndarray]) -> str | None:
    generator = torch.Generator().manual_seed(0)
    images, model = torch.rand(3, 3, 5, 8, generator=generator), _Reddest()
    kept = images.clone()
    heat = torch.rand(3, 5, 8, generator=generator)
    given = np.asarray(answer(model, images, [1, 1, 0], heat.numpy(), 0.25), float)
    if given.shape != (3,):
        return f"Three images give three numbers, (3,), not {given.shape}."
    if not torch.equal(images, kept):
        return "It has painted over the images it was given: cover a copy."

    def drop(order: torch.Tensor, colour: torch.Tensor) -> np.ndarray:
        hidden = torch.zeros(3, 40).scatter_(1, order[:, :10], 1).view(3, 1, 5, 8).bool()
        pair = [model(x).softmax(1) for x in (images, torch.where(hidden, colour, images))]
        return (pair[0] - pair[1])[range(3), [1, 1, 0]].numpy()

    hottest = heat.flatten(1).argsort(descending=True)
    mean = images.mean((2, 3), keepdim=True)
    right = drop(hottest, mean)
    mistakes = (
        (-right, "A fall is the probability before less the one after."),
        (drop(hottest.flip(1), mean), "You covered the coldest pixels."),
        (drop(hottest, torch.zeros(1)), "Black is a colour, too; cover with each image's mean."),
        (drop(hottest, images.mean((0, 2, 3), keepdim=True)), "Each image has its own mean."),
        (drop(hottest, images.mean((1, 2, 3), keepdim=True)), "A colour has three channels."),
    )
    if np.allclose(given, right, atol=1e-5):
        return None
    told = (words for values, words in mistakes if np.allclose(given, values, atol=1e-5))
    return next(told, "With a quarter of 40 pixels covered, the probabilities fall otherwise.")


CHECKS = {
    "07.1": map_on_paper,
    "07.2": cells,
    "07.3": own_grad_cam,
    "07.5": pointing_game,
    "07.6": questioned,
    "07.7": covered,
}
