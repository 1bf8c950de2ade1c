"""The exercises of chapter 07: Grad-CAM by hand and in code, its metrics, when to doubt it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

# Two feature maps of 2 x 2 positions, and the gradient of one logit with respect to each.
FEATURES = np.array([[[4.0, 0.0], [2.0, 1.0]], [[0.0, 2.0], [1.0, 3.0]]])
GRADIENT = np.array([[[0.3, 0.1], [0.1, -0.1]], [[-0.4, 0.0], [0.0, 0.0]]])
REASONS = ("out of distribution", "near", "empty", "elsewhere", "area", "none")
# For each case the reason to doubt its map, and a hint for another answer.
CASES = {
    "A": ("none", "compare the fraction of the heat in the lesion with the fraction of the area."),
    "B": ("near", "how far is the score from the threshold?"),
    "C": ("area", "what would a uniform map score?"),
    "D": ("elsewhere", "what does the logit depend on?"),
    "E": ("none", "which evidence for melanoma would you expect where the network sees none?"),
    "F": ("empty", "what in the image is evidence for the predicted class?"),
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
        (heat, "Negative evidence is still in it."),
        (np.maximum(4 * heat, 0), "A weight is the mean of a gradient, not its sum."),
        (right / right.max(), "Right so far; do not normalise it here."),
        (np.maximum(weights * FEATURES, 0).sum(0), "First add up, then apply the ReLU."),
        (np.maximum((GRADIENT * FEATURES).sum(0), 0), "One weight for each feature map."),
        ((abs(weights) * FEATURES).sum(0), "A weight keeps its sign."),
    )
    if np.allclose(given, right, atol=0.0005):
        return None
    hints = (hint for values, hint in mistakes if np.allclose(given, values, atol=0.0005))
    return next(hints, "What are the two weights, and what is the map at the first position?")


def map_sizes(answer: list[int]) -> str | None:
    given = list(answer)
    if given == [112, 56, 28, 14]:
        return "The layers before layer1 halve the side twice."
    if given == [56, 28, 14, 14]:
        return "Three of the four stages halve the side; which one does not?"
    if given == [256, 512, 1024, 2048]:
        return "Those are the channels; how many pixels a side has each of them?"
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
        return f"Three images and maps of 4 x 6 positions give (3, 4, 6), not {tuple(heat.shape)}."
    features = layer(images).detach()
    gradient = linear.weight.detach()[classes].unflatten(1, features.shape[1:])  # of this network
    weighted = gradient.mean((2, 3), keepdim=True) * features
    right = weighted.sum(1).relu()
    if torch.allclose(heat, right, atol=1e-5):
        return None
    if torch.allclose(heat[0], right[0], atol=1e-5):
        return "The first image is right; each image has a class of its own."
    if torch.allclose(heat, weighted.sum(1), atol=1e-5):
        return "Negative evidence is still in it."
    if torch.allclose(heat, (gradient * features).sum(1).relu(), atol=1e-5):
        return "One weight for each feature map: the mean of its gradient over all positions."
    if torch.allclose(heat, 24 * right, atol=1e-4):
        return "A weight is the mean of a gradient, not its sum."
    return "The map is wrong. Try it on the numbers of 07.1."


def pointing_game(answer: Callable[..., np.ndarray]) -> str | None:
    heat, masks = np.full((4, 3, 5), 0.1), np.zeros((4, 3, 5), bool)
    heat[0, 1, 4] = heat[1, 2, 0] = heat[2, 0, 1] = 1
    heat[0] *= 3  # the maximum of all maps is in the first
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
        return f"Map {wrong[0]} of four gets {given[wrong[0]]:g}: where is its own maximum?"
    return None


def reasons_to_doubt(answer: dict[str, str]) -> str | None:
    missing = [letter for letter in CASES if letter not in answer]
    if missing:
        return f"Case {missing[0]} has no answer."
    for letter, (reason, hint) in CASES.items():
        if answer[letter] not in REASONS:
            return f"{answer[letter]!r} is not one of {', '.join(REASONS)}."
        if answer[letter] != reason:
            return f"Look at case {letter} again: {hint}"
    return None


class _Reddest(nn.Module):
    """Logits of an image: 0, and ten times its mean red on the left half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = 10 * images[:, 0, :, :4].mean((1, 2))
        return torch.stack([torch.zeros_like(red), red], 1)


def deletion_test(answer: Callable[..., np.ndarray]) -> str | None:
    generator = torch.Generator().manual_seed(0)
    images, model = torch.rand(3, 3, 5, 8, generator=generator), _Reddest()
    before = images.clone()
    heat = torch.rand(3, 5, 8, generator=generator)
    given = np.asarray(answer(model, images, [1, 1, 0], heat.numpy(), 0.25), float)
    if given.shape != (3,):
        return f"Three images give three numbers, (3,), not {given.shape}."
    if not torch.equal(images, before):
        return "Your function changes its input: cover pixels of a copy."

    def drop(order: torch.Tensor, colour: torch.Tensor) -> np.ndarray:
        hidden = torch.zeros(3, 40).scatter_(1, order[:, :10], 1).view(3, 1, 5, 8).bool()
        pair = [model(x).softmax(1) for x in (images, torch.where(hidden, colour, images))]
        return (pair[0] - pair[1])[range(3), [1, 1, 0]].numpy()

    hottest = heat.flatten(1).argsort(descending=True)
    mean = images.mean((2, 3), keepdim=True)
    right = drop(hottest, mean)
    mistakes = (
        (-right, "A drop is the probability before minus the one after."),
        (drop(hottest.flip(1), mean), "You covered the coldest pixels."),
        (drop(hottest, torch.zeros(1)), "Black is a colour too; cover with each image's mean."),
        (drop(hottest, images.mean((0, 2, 3), keepdim=True)), "Each image has its own mean."),
        (drop(hottest, images.mean((1, 2, 3), keepdim=True)), "A colour has three channels."),
    )
    if np.allclose(given, right, atol=1e-5):
        return None
    hints = (hint for values, hint in mistakes if np.allclose(given, values, atol=1e-5))
    return next(hints, "The drops are wrong, with a quarter of 40 pixels covered.")


CHECKS = {
    "07.1": map_on_paper,
    "07.2": map_sizes,
    "07.3": own_grad_cam,
    "07.5": pointing_game,
    "07.6": reasons_to_doubt,
    "07.7": deletion_test,
}
