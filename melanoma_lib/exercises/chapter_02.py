"""The exercises of chapter 02: writing a Dataset, a DataLoader and an augmentation."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.utils.data import Dataset

from melanoma_lib.config import Augmentation
from melanoma_lib.data.augment import augment
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.exercises import call, exercise, require, require_close
from melanoma_lib.models.build import normalise


@exercise("02.1", "two whole numbers, batches and images left out")
def batches_per_epoch(answer: tuple[int, int]) -> None:
    batches, dropped = answer
    hint = "Images in whole batches and images that are dropped do not add up to 8,513."
    require(batches * 24 + dropped == 8513, hint)
    require(dropped < 24, "Another whole batch would fit.")
    require_close(answer, divmod(8513, 24), "A batch is whole or left out.")


def _example_data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)
    pixels.setflags(write=False)  # like the array of `decode`
    return pixels, rng.integers(0, 7, 12), np.array([11, 2, 5, 3, 8, 0, 7])


@exercise("02.2", "a class that is made from (pixels, labels, rows)")
def own_dataset(answer: Callable[..., Dataset]) -> None:
    pixels, labels, rows = _example_data()
    mine, ours = answer(pixels, labels, rows), HAM10000Dataset(pixels, labels, rows)
    require(isinstance(mine, Dataset), "It should be a torch.utils.data.Dataset.")
    require(call(len, mine) == len(ours), "Its length should be the number of images of the split.")
    for item in range(len(ours)):
        image, label, row = call(mine.__getitem__, item)
        right, right_label, right_row = ours[item]
        is_uint8 = torch.is_tensor(image) and image.dtype == torch.uint8
        require(is_uint8, "The image should be a tensor of uint8.")
        require(image.shape == right.shape, f"{tuple(image.shape)}: which axis comes first?")
        require(torch.equal(image, right), f"Item {item} is another image: the rows say which.")
        hint = "The label should be a Python int: that of the same row as the image."
        require(type(label) is int and label == right_label, hint)
        require(row == right_row, "The third value is the row number: it selects the augmentation.")


@exercise("02.3", "a list of six numbers")
def vertical_flip(answer: list[float]) -> None:
    parameters = torch.tensor([answer], dtype=torch.float32)
    allowed = parameters.shape == (1, 6) and ((parameters >= 0) & (parameters <= 1)).all()
    require(allowed, "Give six numbers from 0 to 1.")
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    result = augment(images, parameters, Augmentation())
    hint = "Nothing but the flip should happen: which value of the others means no change?"
    mistakes = {"That is the horizontal flip.": images.flip(-1)}
    require_close(result, images.flip(-2), hint, mistakes, atol=1e-3)


@exercise("02.4", "a function of (images, mean, std) that returns images")
def denormalise(answer: Callable[..., torch.Tensor]) -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.3)
    hint = "The images that come back differ. Which step was last, and must be undone first?"
    require_close(answer(normalise(images, mean, std), mean, std), images, hint)


@exercise("02.5", "a generator of (dataset, batch_size, seed) that yields batches of tensors")
def own_loader(answer: Callable[[Dataset, int, int], Iterable]) -> None:
    dataset = HAM10000Dataset(*_example_data())

    def batches_of(seed: int) -> list[tuple[torch.Tensor, ...]]:
        return call(list, iter(answer(dataset, 3, seed)))

    batches = batches_of(1)
    require(len(batches) == 2, f"7 images make 2 whole batches of 3, and not {len(batches)}.")
    images, labels, rows = batches[0]
    hint = f"A batch of images has shape (3, 3, 5, 7) here and not {tuple(images.shape)}."
    require(images.shape == (3, 3, 5, 7), hint)
    are_tensors = torch.is_tensor(labels) and torch.is_tensor(rows)
    require(are_tensors, "Labels and rows should be tensors too.")
    seen = torch.cat([rows for _, _, rows in batches]).tolist()
    hint = "An image comes twice in an epoch, or is not in the split."
    require(len(set(seen)) == 6 and set(seen) <= set(dataset.rows.tolist()), hint)
    for image, label, row in zip(images, labels, rows, strict=True):
        right, right_label, _ = dataset[dataset.rows.tolist().index(row)]
        hint = "Image, label and row at one position of a batch belong to different items."
        require(torch.equal(image, right) and label == right_label, hint)
    orders = [[row for *_, rows in batches_of(seed) for row in rows.tolist()] for seed in (1, 2, 3)]
    require(orders[0] == seen, "The same seed gives another order the second time.")
    require(orders != [seen] * 3, "Another seed should give another order.")


@exercise("02.7", "a function of (images, numbers) that returns images")
def hair_augmentation(answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.6 * torch.rand(4, 3, 48, 48, generator=generator)
    parameters, before = torch.rand(4, 6, generator=generator), images.clone()
    result = answer(images, parameters)
    require(torch.equal(images, before), "Your function changes its input; work on a copy.")
    kept = result.shape == images.shape and result.min() >= 0
    require(kept, "Shape and range should stay as they are.")
    require((result <= images + 1e-6).all(), "Dark hairs make no pixel brighter.")
    changed = (result < images - 1e-3).any(1).float().mean((1, 2))
    few = ((changed > 0.005) & (changed < 0.3)).all()
    require(few, "A few hairs cover between 0.5% and 30% of each image.")
    again, alone = answer(images, parameters), answer(images[2:3], parameters[2:3])[0]
    require(torch.equal(again, result), "The same parameters should give the same hairs.")
    require_close(alone, result[2], "An image's hairs depend on the batch it is in.")
    others = answer(images, parameters.flip(0)) < before
    require(not torch.equal(others, result < before), "Other parameters should give other hairs.")
