import numpy as np
import pytest
import torch
from PIL import Image

from melanoma_lib.artifacts import MelanomaError
from melanoma_lib.data.augment import generator
from melanoma_lib.data.metadata import open_dataset
from melanoma_lib.data.pixels import (
    HAM10000Dataset,
    ResidentDataset,
    decode,
    loader,
    read_image,
    read_mask,
    resident,
)


def test_the_whole_picture_is_squeezed_into_the_square(tmp_path):
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[:, :30] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 32)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert (image[:, :14] > 250).all() and (image[:, 18:] < 5).all()
    assert read_image(tmp_path / "a.png").shape == (30, 60, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (20, 20), "white").convert(mode).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}", 8)
    assert image.shape == (8, 8, 3) and (image > 250).all()


def test_masks_are_boolean(dataset):
    name, path = next(iter(open_dataset(dataset).masks.items()))
    mask = read_mask(path, 16)
    assert name in path.name and mask.dtype == bool and 0 < mask.mean() < 1


def test_unreadable_images_are_all_named_and_no_cache_is_left(dataset, tmp_path):
    images = sorted((dataset / "images").iterdir())
    images[3].write_bytes(images[3].read_bytes()[:-200])  # truncated
    images[5].write_bytes(b"")
    images[7].write_text("not an image")
    cache = tmp_path / "cache"
    with pytest.raises(MelanomaError, match="3 images cannot be read") as error:
        decode(open_dataset(dataset), 16, cache)
    assert all(images[i].name in str(error.value) for i in (3, 5, 7))
    assert "\n" not in str(error.value) and not list(cache.iterdir())


def test_a_picture_with_too_many_pixels_is_refused_before_decoding(tmp_path):
    Image.new("1", (10_000, 6_000)).save(tmp_path / "a.png")
    with pytest.raises(MelanomaError, match="too large"):
        read_image(tmp_path / "a.png", 8)


def test_decoding_happens_once(dataset, tmp_path, monkeypatch):
    files = open_dataset(dataset)
    first = decode(files, 16, tmp_path / "cache")
    assert first.shape == (105, 16, 16, 3)
    assert np.array_equal(first[4], read_image(files.images[4], 16))
    monkeypatch.setattr("melanoma_lib.data.pixels._decode_into", None)  # would raise if called
    assert np.array_equal(decode(files, 16, tmp_path / "cache"), first)


def dataset_of(n):
    pixels = np.arange(n * 4 * 4 * 3, dtype=np.uint8).reshape(n, 4, 4, 3)
    return HAM10000Dataset(pixels, np.arange(n) % 7, np.arange(n))


def test_an_item_is_channels_first_with_label_and_row():
    data = HAM10000Dataset(dataset_of(10).pixels, np.arange(10), np.array([7, 2]))
    image, label, row = data[1]
    assert image.shape == (3, 4, 4) and image.dtype == torch.uint8
    assert (label, row, len(data)) == (2, 2, 2)
    assert torch.equal(image, torch.tensor(data.pixels[2]).permute(2, 0, 1))


def test_training_batches_are_whole_shuffled_and_replayable():
    rows = torch.cat([r for *_, r in loader(dataset_of(33), 32, generator(1, 2))])
    again = torch.cat([r for *_, r in loader(dataset_of(33), 32, generator(1, 2))])
    other = torch.cat([r for *_, r in loader(dataset_of(33), 32, generator(1, 3))])
    assert len(rows) == 32  # the one image left over is no batch
    assert torch.equal(rows, again) and not torch.equal(rows, other)


def test_a_batch_is_its_items_stacked():
    data = HAM10000Dataset(dataset_of(10).pixels, np.arange(10), np.array([7, 2, 5]))
    batch = next(iter(loader(data, 3)))
    for kind, values in enumerate(batch):
        items = [torch.as_tensor(data[item][kind]) for item in range(3)]
        assert torch.equal(torch.stack(items), values)
    assert batch[1].dtype == batch[2].dtype == torch.int64


@pytest.mark.parametrize("key", [None, (1, 2)])
def test_batches_from_a_device_are_those_from_the_file(key):
    part = HAM10000Dataset(dataset_of(40).pixels, np.arange(40) % 7, np.arange(39, 4, -1))
    on_device = ResidentDataset(part, torch.device("cpu"))
    batches = [list(loader(p, 8, key and generator(*key))) for p in (part, on_device)]
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert resident(part, torch.device("cpu")) is part  # the file is mapped there already


def test_evaluation_shows_every_image_once_in_order():
    rows = torch.cat([r for *_, r in loader(dataset_of(33), 32)])
    assert rows.tolist() == list(range(33))
