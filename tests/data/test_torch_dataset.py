import numpy as np
import pytest
import torch

from melanoma_lib.data.augment import generator
from melanoma_lib.data.torch_dataset import GPUDataset, HAM10000Dataset, loader, to_gpu_memory


def dataset_of(n):
    pixels = np.arange(n * 4 * 4 * 3, dtype=np.uint8).reshape(n, 4, 4, 3)
    return HAM10000Dataset(pixels, np.arange(n) % 7, np.arange(n))


def test_an_item_is_channels_first_with_label_and_row():
    data = HAM10000Dataset(dataset_of(10).pixels, np.arange(10), np.array([7, 2]))
    image, label, row = data[1]
    assert image.shape == (3, 4, 4) and image.dtype == torch.uint8
    assert (label, row, len(data)) == (2, 2, 2)
    assert torch.equal(image, torch.tensor(data.pixels[2]).permute(2, 0, 1))


def test_training_batches_are_full_shuffled_and_reproducible():
    rows = torch.cat([r for *_, r in loader(dataset_of(33), 32, generator(1, 2))])
    again = torch.cat([r for *_, r in loader(dataset_of(33), 32, generator(1, 2))])
    other = torch.cat([r for *_, r in loader(dataset_of(33), 32, generator(1, 3))])
    assert len(rows) == 32  # the incomplete batch is dropped
    assert torch.equal(rows, again) and not torch.equal(rows, other)


def test_a_batch_is_its_items_stacked():
    data = HAM10000Dataset(dataset_of(10).pixels, np.arange(10), np.array([7, 2, 5]))
    batch = next(iter(loader(data, 3)))
    for kind, values in enumerate(batch):
        items = [torch.as_tensor(data[item][kind]) for item in range(3)]
        assert torch.equal(torch.stack(items), values)
    assert batch[1].dtype == batch[2].dtype == torch.int64


@pytest.mark.parametrize("key", [None, (1, 2)])
def test_batches_from_gpu_memory_are_those_from_the_file(key):
    dataset = HAM10000Dataset(dataset_of(40).pixels, np.arange(40) % 7, np.arange(39, 4, -1))
    on_device = GPUDataset(dataset, torch.device("cpu"))
    batches = [
        list(loader(d, 8, key and generator(*key))) for d in (dataset, on_device)
    ]
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert to_gpu_memory(dataset, torch.device("cpu")) is dataset


def test_evaluation_shows_every_image_once_in_order():
    rows = torch.cat([r for *_, r in loader(dataset_of(33), 32)])
    assert rows.tolist() == list(range(33))
