"""The exercises of chapter 07: Grad-CAM by hand and in code, its metrics, when to doubt it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from melanoma_lib.exercises import exercise, numbers, require, require_close

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


@exercise("07.1", "two rows of two numbers")
def grad_cam_map(answer: list[list[float]]) -> None:
    weights = GRADIENT.mean((1, 2), keepdims=True)
    heat = (weights * FEATURES).sum(0)
    right = np.maximum(heat, 0)
    mistakes = {
        "Negative evidence is still in it.": heat,
        "A weight is the mean of a gradient, not its sum.": 4 * right,
        "Right so far; do not normalise it here.": right / right.max(),
        "First add up, then apply the ReLU.": np.maximum(weights * FEATURES, 0).sum(0),
        "One weight for each feature map.": np.maximum((GRADIENT * FEATURES).sum(0), 0),
        "A weight keeps its sign.": (abs(weights) * FEATURES).sum(0),
    }
    hint = "What are the two weights, and what is the map at the first position?"
    require_close(answer, right, hint, mistakes, atol=0.0005)


@exercise("07.2", "four whole numbers")
def map_sizes(answer: list[int]) -> None:
    mistakes = {
        "The layers before layer1 halve the side twice.": [112, 56, 28, 14],
        "Three of the four stages halve the side; which one does not?": [56, 28, 14, 14],
        "Those are the channels; how many pixels a side has each of them?": [256, 512, 1024, 2048],
    }
    hint = "Of 224 pixels a side, how many steps of stride 2?"
    require_close(answer, [56, 28, 14, 7], hint, mistakes)


@exercise("07.3", "a function of (model, layer, images, classes) that returns maps")
def own_grad_cam(answer: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    layer, linear = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()), nn.Linear(5 * 24, 7)
    model = nn.Sequential(layer, nn.Flatten(), linear).eval()
    images, classes = torch.randn(3, 3, 4, 6), [4, 1, 5]
    heat = numbers(answer(model, layer, images, classes))
    hooks = layer._forward_hooks or layer._backward_hooks or layer._forward_pre_hooks
    require(not hooks, "Your hook is still on the layer, and would run with every prediction.")
    features = layer(images).detach()
    gradient = linear.weight.detach()[classes].unflatten(1, features.shape[1:])  # of this network
    weighted = gradient.mean((2, 3), keepdim=True) * features
    right = weighted.sum(1).relu()
    each = "One weight for each feature map: the mean of its gradient over all positions."
    mistakes = {
        "Negative evidence is still in it.": weighted.sum(1),
        each: (gradient * features).sum(1).relu(),
        "A weight is the mean of a gradient, not its sum.": 24 * right,
    }
    hint = "The map is wrong. Try it on the numbers of 07.1."
    if heat.shape == right.shape and np.allclose(heat[0], right[0], atol=1e-5):
        hint = "The first image is right; each image has a class of its own."
    require_close(heat, right, hint, mistakes)


@exercise("07.5", "a function of (heat, masks) that returns an array of numbers")
def pointing_game(answer: Callable[..., np.ndarray]) -> None:
    heat, masks = np.full((4, 3, 5), 0.1), np.zeros((4, 3, 5), bool)
    heat[0, 1, 4] = heat[1, 2, 0] = heat[2, 0, 1] = 1
    heat[0] *= 3  # the maximum of all maps is in the first
    heat[3] = 0
    masks[0, 1, 4] = masks[1, 0, :] = masks[2, 0, 1] = masks[3, 0, 0] = True
    given = numbers(answer(heat, masks))
    require(given.shape == (4,), f"Four maps give four results, (4,), not {given.shape}.")
    require(np.isnan(given[3]), "Where does a map without heat point?")
    require(not np.isnan(given[:3]).any(), "Only a map without heat has no result.")
    for which, right in enumerate((1, 0, 1)):
        require(given[which] == right, f"Map {which} gets {given[which]:g}: where is its maximum?")


@exercise("07.6", "a dictionary with a reason for each letter")
def reasons_to_doubt(answer: dict[str, str]) -> None:
    for letter in CASES:
        require(letter in answer, f"Case {letter} has no answer.")
    for letter, (reason, hint) in CASES.items():
        given = answer[letter]
        require(given in REASONS, f"{given!r} is not one of {', '.join(REASONS)}.")
        require(given == reason, f"Look at case {letter} again: {hint}")


class _Reddest(nn.Module):
    """Logits of an image: 0, and ten times its mean red on the left half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = 10 * images[:, 0, :, :4].mean((1, 2))
        return torch.stack([torch.zeros_like(red), red], 1)


@exercise("07.7", "a function of (model, images, classes, heat, fraction) that returns an array")
def deletion_test(answer: Callable[..., np.ndarray]) -> None:
    generator = torch.Generator().manual_seed(0)
    images, model = torch.rand(3, 3, 5, 8, generator=generator), _Reddest()
    before = images.clone()
    heat = torch.rand(3, 5, 8, generator=generator)
    given = answer(model, images, [1, 1, 0], heat.numpy(), 0.25)
    changed = "Your function changes its input: cover pixels of a copy."
    require(torch.equal(images, before), changed)

    def drop(order: torch.Tensor, colour: torch.Tensor) -> np.ndarray:
        hidden = torch.zeros(3, 40).scatter_(1, order[:, :10], 1).view(3, 1, 5, 8).bool()
        pair = [model(x).softmax(1) for x in (images, torch.where(hidden, colour, images))]
        return (pair[0] - pair[1])[range(3), [1, 1, 0]].numpy()

    hottest = heat.flatten(1).argsort(descending=True)
    mean = images.mean((2, 3), keepdim=True)
    of_all, grey = (images.mean(axes, keepdim=True) for axes in ((0, 2, 3), (1, 2, 3)))
    right = drop(hottest, mean)
    mistakes = {
        "A drop is the probability before minus the one after.": -right,
        "You covered the coldest pixels.": drop(hottest.flip(1), mean),
        "Black is a colour too; cover with each image's mean.": drop(hottest, torch.zeros(1)),
        "Each image has its own mean.": drop(hottest, of_all),
        "A colour has three channels.": drop(hottest, grey),
    }
    hint = "The drops are wrong, with a quarter of 40 pixels covered."
    require_close(given, right, hint, mistakes)


@exercise("07.8", "a function of (image, mask, width) that returns an image")
def frame_alone(answer: Callable[..., np.ndarray]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    mask = np.zeros((12, 12), bool)
    mask[5:12, 4:8] = True  # reaches into the frame
    given_image, given_mask = image.copy(), mask.copy()
    given = np.asarray(answer(given_image, given_mask, 3))
    changed = "Your function changes its input: work on a copy."
    require((given_image == image).all() and (given_mask == mask).all(), changed)

    def hide(hidden: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.where(hidden[..., None], np.uint8(image[of].mean(0)), image)

    inner = np.zeros_like(mask)
    inner[3:-3, 3:-3] = True
    hidden = inner | mask
    right, everything = hide(hidden, ~hidden), np.ones_like(mask)
    mistakes = {
        "The lesion is hidden where it reaches into the frame, too.": hide(inner, ~inner),
        "The colour is the mean of what is left, not of the whole image.": hide(hidden, everything),
        "That hides the lesion alone; only the frame is to be left.": hide(mask, ~mask),
        "The frame is to be left, and the middle hidden.": hide(~inner, inner),
    }
    require_close(given, right, "The image is wrong, with a frame of 3 of 12 pixels.", mistakes)


SHORTCUTS = {  # of the table in 07.9: the answer and, where it is wrong, what to look at
    "A": ("needs the lesion", "what happens to its AUC without the lesion, and with it alone?"),
    "B": ("reads the surroundings", "where does the interval without the lesion lie?"),
    "C": ("reacts to the ruler", "which interval of it excludes what no reaction would give?"),
    "D": ("needs the surroundings too", "compare the lesion alone with the whole image."),
}


@exercise("07.9", "a dictionary with the words for each letter")
def shortcuts(answer: dict[str, str]) -> None:
    for letter, (words, hint) in SHORTCUTS.items():
        require(letter in answer, f"Network {letter} has no answer.")
        known = [each for each, _ in SHORTCUTS.values()]
        require(answer[letter] in known, f"{answer[letter]!r} is not one of {', '.join(known)}.")
        require(answer[letter] == words, f"Look at network {letter} again: {hint}")
