import numpy as np
import pytest
from PIL import Image

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import decode, read_image, read_mask


def test_an_image_is_resized_without_cropping(tmp_path):
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


def test_an_image_with_too_many_pixels_is_refused_before_decoding(tmp_path):
    Image.new("1", (10_000, 6_000)).save(tmp_path / "a.png")
    with pytest.raises(MelanomaError, match="too large"):
        read_image(tmp_path / "a.png", 8)


def test_decoding_happens_once(dataset, tmp_path, monkeypatch):
    files = open_dataset(dataset)
    first = decode(files, 16, tmp_path / "cache")
    assert first.shape == (105, 16, 16, 3)
    assert np.array_equal(first[4], read_image(files.images[4], 16))
    monkeypatch.setattr("melanoma_lib.data.images._decode_into", None)  # would raise if called
    assert np.array_equal(decode(files, 16, tmp_path / "cache"), first)
