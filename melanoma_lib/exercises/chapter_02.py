"""The exercises of chapter 02: writing a Dataset, a DataLoader and an augmentation."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.utils.data import Dataset

from melanoma_lib.config import Augmentation
from melanoma_lib.data.augment import augment
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.models.build import normalise


def batches_of_an_epoch(answer: tuple[int, int]) -> str | None:
    batches, dropped = answer
    if batches * 24 + dropped != 8513:
        return "Images in whole batches and images that are dropped do not add up to 8,513."
    return None if 0 <= dropped < 24 else "Another whole batch would fit."


def _example_data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)
    pixels.setflags(write=False)  # like the array of `decode`
    return pixels, rng.integers(0, 7, 12), np.array([11, 2, 5, 3, 8, 0, 7])


def own_dataset(answer: Callable[..., Dataset]) -> str | None:
    pixels, labels, rows = _example_data()
    mine, ours = answer(pixels, labels, rows), HAM10000Dataset(pixels, labels, rows)
    if not isinstance(mine, Dataset):
        return "It should be a torch.utils.data.Dataset."
    if len(mine) != len(ours):
        return "Its length is the number of images of the split, and not of the whole dataset."
    for item in range(len(ours)):
        image, label, row = mine[item]
        right, right_label, right_row = ours[item]
        if not (torch.is_tensor(image) and image.dtype == torch.uint8):
            return "The image should be a tensor of uint8."
        if image.shape != right.shape:
            return f"The image has shape {tuple(image.shape)}: which axis comes first?"
        if not torch.equal(image, right):
            return f"Item {item} is another image: the split's rows say which."
        if type(label) is not int or label != right_label:
            return "The label should be a Python int: that of the same row as the image."
        if row != right_row:
            return "The third value is the row number: it selects the augmentation parameters."
    return None


def upside_down(answer: list[float]) -> str | None:
    parameters = torch.tensor([answer], dtype=torch.float32)
    if parameters.shape != (1, 6) or not ((parameters >= 0) & (parameters < 1)).all():
        return "Give six numbers from 0 to below 1."
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    result = augment(images, parameters, Augmentation())
    if torch.allclose(result, images.flip(-2), atol=1e-3):
        return None
    if torch.allclose(result, images.flip(-1), atol=1e-3):
        return "That is the horizontal flip."
    return "Nothing but the flip should happen: which value of the others means no change?"


def undo(answer: Callable[..., torch.Tensor]) -> str | None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.3)
    result = answer(normalise(images, mean, std), mean, std)
    if result.shape != images.shape:
        return f"The shape should stay (2, 3, 4, 5) and is {tuple(result.shape)}."
    if not torch.allclose(result, images, atol=1e-5):
        return "The images that come back differ. Which step was last, and must be undone first?"
    return None


def own_loader(answer: Callable[[Dataset, int, int], Iterable]) -> str | None:
    dataset = HAM10000Dataset(*_example_data())
    batches = list(answer(dataset, 3, 1))
    if len(batches) != 2:
        return f"7 images make 2 whole batches of 3, and not {len(batches)}."
    images, labels, rows = batches[0]
    if images.shape != (3, 3, 5, 7):
        return f"A batch of images has shape (3, 3, 5, 7) here and not {tuple(images.shape)}."
    if not (torch.is_tensor(labels) and torch.is_tensor(rows)):
        return "Labels and rows should be tensors too."
    seen = torch.cat([rows for _, _, rows in batches]).tolist()
    if len(set(seen)) != 6 or not set(seen) <= set(dataset.rows.tolist()):
        return "An image comes twice in an epoch, or is not in the split."
    for image, label, row in zip(images, labels, rows, strict=True):
        item = dataset.rows.tolist().index(row)
        if not torch.equal(image, dataset[item][0]) or label != dataset[item][1]:
            return "Image, label and row at one position of a batch belong to different items."
    orders = [[row for *_, rows in answer(dataset, 3, seed) for row in rows.tolist()]
              for seed in (1, 2, 3)]
    if orders[0] != seen:
        return "The same seed gives another order the second time."
    if orders[0] == orders[1] == orders[2]:
        return "Another seed should give another order."
    return None


def hairs(answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> str | None:
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.6 * torch.rand(4, 3, 48, 48, generator=generator)
    parameters, before = torch.rand(4, 6, generator=generator), images.clone()
    result = answer(images, parameters)
    if not torch.equal(images, before):
        return "Your function changes its input; work on a copy."
    if result.shape != images.shape or result.min() < 0:
        return "Shape and range should stay as they are."
    if (result > images + 1e-6).any():
        return "Dark hairs make no pixel brighter."
    changed = (result < images - 1e-3).any(1).float().mean((1, 2))
    if not ((changed > 0.005) & (changed < 0.3)).all():
        return "A few hairs cover between 0.5% and 30% of each image."
    if not torch.equal(answer(images, parameters), result):
        return "The same parameters should give the same hairs."
    if not torch.allclose(answer(images[2:3], parameters[2:3])[0], result[2], atol=1e-5):
        return "An image's hairs depend on the batch it is in."
    if torch.equal(answer(images, parameters.flip(0)) < before, result < before):
        return "Other parameters should give other hairs."
    return None


CHECKS = {
    "02.1": batches_of_an_epoch,
    "02.2": own_dataset,
    "02.3": upside_down,
    "02.4": undo,
    "02.5": own_loader,
    "02.7": hairs,
}
