"""Reading pictures: colours, EXIF, bit depths, masks, and decoding a dataset once."""

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import (
    decode,
    list_pictures,
    looks_like_mask,
    read_image,
    read_mask,
)

ORIENTATION = 274
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_an_image_is_resized_without_cropping(tmp_path):
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[:, :30] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 32)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert (image[:, :14] > 250).all() and (image[:, 18:] < 5).all()
    assert read_image(tmp_path / "a.png").shape == (30, 60, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "CMYK", "RGBA", "P", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (20, 20), "white").convert(mode).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}", 8)
    assert image.shape == (8, 8, 3) and (image > 250).all()


def exif_block(entries):
    """A block of EXIF entries (tag, type, count, four bytes: the value or where it stands).

    Behind two entries, at 34, stands -1 divided by 0.
    """
    packed = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return head + packed + struct.pack("<2i", -1, 0) + bytes(64)


TURNED = (ORIENTATION, 3, 1, b"\x06\0\0\0")
ODD_EXIF = {
    "resolution as text": [TURNED, (282, 2, 4, b"72\0\0")],
    "software as a fraction": [TURNED, (305, 5, 1, b"\x22\0\0\0")],
    "a signed fraction by zero": [TURNED, (37380, 10, 1, b"\x22\0\0\0")],
    "a maker's name that is cut off, before it": [(271, 2, 99, b"\x22\0\0\0"), TURNED],
}


@pytest.mark.parametrize("entries", ODD_EXIF.values(), ids=ODD_EXIF)
def test_odd_exif_does_not_hide_the_orientation(tmp_path, entries):
    Image.fromarray(NOISE).save(tmp_path / "a.jpg", exif=exif_block(entries))
    Image.fromarray(NOISE).save(tmp_path / "plain.jpg")
    plain = read_image(tmp_path / "plain.jpg")
    assert np.array_equal(read_image(tmp_path / "a.jpg"), np.rot90(plain, -1))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_exif_stops_a_picture():
    """Random entries beside the orientation, in any of EXIF's types or none of them."""
    sample, jpeg = random.Random(0), io.BytesIO()
    Image.fromarray(NOISE).save(jpeg, "JPEG", quality=95)
    turned = np.rot90(read_image(jpeg), -1)
    for _ in range(400):
        tags = sample.sample([*range(254, 274), *range(275, 320), 700, 33434, 34665, 37380], 3)
        entries = [TURNED] + [
            (tag, sample.randrange(14), sample.choice([0, 1, 2, 9, 2**31]), sample.randbytes(4))
            for tag in tags
        ]
        picture = io.BytesIO()
        Image.fromarray(NOISE).save(
            picture, "JPEG", quality=95, exif=exif_block(sorted(entries)) + sample.randbytes(30)
        )
        assert np.array_equal(read_image(picture), turned)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_as_pillow_turns_it(orientation, kind):
    picture, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(NOISE).save(picture, kind, exif=exif)
    with Image.open(picture) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(picture), expected)


def tiff(values, bits=16, sample_format=1):
    """An uncompressed TIFF of (height, width) or (height, width, 3) values, written by hand."""
    height, width, channels = (*values.shape, 1)[:3]
    if bits == 12:  # two values in three bytes
        pairs = values.reshape(-1, 2).astype(int)
        joined = (pairs[:, 0] << 12) | pairs[:, 1]
        data = b"".join(int(pair).to_bytes(3, "big") for pair in joined)
    else:
        data = values.tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 2 if channels == 3 else 1,
            273: 200, 277: channels, 278: height, 279: len(data), 339: sample_format}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    if channels == 3:  # the bits of three channels stand behind the entries
        entries = entries.replace(
            struct.pack("<HHII", 258, 4, 1, bits), struct.pack("<HHII", 258, 3, 3, 180)
        )
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries
    return io.BytesIO(head.ljust(180, b"\0") + struct.pack("<3H", *[bits] * 3).ljust(20) + data)


GREY = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], 2)


def png(values):
    picture = io.BytesIO()
    Image.fromarray(values).save(picture, "PNG")
    return picture


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (tiff(GREY), GREY / 257),
        (tiff(COLOUR), COLOUR / 257),
        (tiff(GREY // 16, bits=12), GREY / 257),
        (png(GREY), GREY / 257),
    ],
    ids=["16 bits", "16 bits a colour", "12 bits", "16 bits in a PNG"],
)
def test_more_than_8_bits_are_scaled(picture, expected):
    expected = expected if expected.ndim == 3 else expected[..., None]
    image = read_image(picture)
    assert np.abs(image - expected).max() < 1.1 and image.max() == 255


@pytest.mark.parametrize(
    "picture",
    [
        tiff(GREY // 16), tiff(COLOUR // 16), tiff(GREY // 4), png(GREY // 16),
        tiff((GREY / 65535).astype(np.float32), 32, 3), tiff(GREY.astype(np.uint32), 32),
        tiff((GREY // 4).astype(np.int16), 16, 2),
    ],
    ids=["12 of 16 bits", "12 of 16 bits a colour", "14 of 16 bits", "12 of 16 bits in a PNG",
         "floating point", "32 bits", "signed"],
)  # fmt: skip
def test_values_of_unknown_range_are_refused_instead_of_read_as_black(picture):
    with pytest.raises(MelanomaError, match="save it with 8 bits"):
        read_image(picture)


LESION = np.zeros((40, 60), np.uint8)
LESION[10:30, 15:45] = 255


def through_jpeg(values):
    picture = io.BytesIO()
    Image.fromarray(values).save(picture, "JPEG", quality=80)
    return picture


@pytest.mark.parametrize(
    ("picture", "is_mask"),
    [
        (png(LESION), True),
        (png(LESION // 255), True),
        (png(LESION > 0), True),
        (through_jpeg(LESION), True),
        (png(np.asarray(Image.fromarray(LESION).filter(ImageFilter.GaussianBlur(0.5)))), True),
        (png(NOISE), False),
        (png(NOISE[..., 0]), False),
        (png(np.full((20, 20), 255, np.uint8)), False),
        (png(np.stack([LESION, LESION, LESION // 2], 2)), False),
    ],
    ids=["0 and 255", "0 and 1", "1 bit", "JPEG", "blurred edges", "colours", "many greys",
         "one grey", "two colours"],
)  # fmt: skip
def test_a_mask_is_known_by_its_values(picture, is_mask):
    assert looks_like_mask(read_image(picture)) == is_mask
    if is_mask:
        assert np.abs(read_mask(picture).astype(int) - (LESION > 127)).mean() < 0.02


def test_masks_in_place_of_images_are_not_trained_on(dataset, tmp_path):
    image = dataset / "images" / "ISIC_9000002.jpg"
    mask = dataset / "masks" / "ISIC_9000002_segmentation.png"
    mask.rename(image.with_suffix(".png"))
    image.unlink()
    with pytest.raises(MelanomaError, match=r"1 images.*ISIC_9000002\.png: .* a mask"):
        decode(open_dataset(dataset), 16, tmp_path / "cache")


def test_every_picture_of_a_folder_is_listed_by_its_path(tmp_path, closed_folders):
    """Equal names, other formats, and pictures named like masks; masks and shadows are not."""
    names = ["A/1.jpg", "B/1.bmp", "B/1.jpg", "B/1.png", "B/1.webp", "C/1.JPEG", "C/1.TIFF",
             "C/1.heic", "left.jpg", "left_segmentation.jpg", "masks/2.jpg"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(NOISE).getvalue())
    (tmp_path / "masks" / "1.png").write_bytes(png(LESION).getvalue())
    (tmp_path / "A" / "1_segmentation.png").write_bytes(png(LESION).getvalue())
    (tmp_path / "A" / "._1.jpg").write_bytes(b"shadow")
    (tmp_path / "A" / "notes.txt").write_bytes(b"no picture")
    (tmp_path / "closed").mkdir()
    closed_folders.add(str(tmp_path / "closed"))
    pictures, (unreadable,) = list_pictures(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in pictures] == sorted(names)
    assert "closed cannot be read (Permission denied)" in unreadable


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
    with pytest.raises(MelanomaError, match=r"a\.png: .* too large"):
        read_image(tmp_path / "a.png", 8)


def test_decoding_happens_once(dataset, tmp_path, monkeypatch):
    files = open_dataset(dataset)
    first = decode(files, 16, tmp_path / "cache")
    assert first.shape == (105, 16, 16, 3)
    assert np.array_equal(first[4], read_image(files.images[4], 16))
    monkeypatch.setattr("melanoma_lib.data.images._decode_into", None)  # would raise if called
    assert np.array_equal(decode(files, 16, tmp_path / "cache"), first)


def test_a_damaged_cache_is_decoded_again(dataset, tmp_path):
    files = open_dataset(dataset)
    first = decode(files, 16, tmp_path).copy()
    (cache,) = tmp_path.glob("*.npy")
    for damage in (cache.read_bytes()[:-50], b"", b"nothing of numpy's"):
        cache.unlink()
        cache.write_bytes(damage)
        assert np.array_equal(decode(files, 16, tmp_path), first)
