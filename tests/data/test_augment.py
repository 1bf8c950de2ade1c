import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision

from melanoma_lib.config import Augmentation
from melanoma_lib.data.augment import augment, colour_jitter, generator, rotate, sample_parameters

STILL = Augmentation(flip=0, rotation=0, brightness=0, contrast=0, saturation=0)


@pytest.fixture
def images():
    return torch.rand(6, 3, 20, 28, generator=generator(0))


def ones(n=6):
    return torch.ones(n)


def test_no_augmentation_changes_nothing(images):
    assert torch.allclose(augment(images, sample_parameters(6, 1, 1), STILL), images, atol=1e-5)


def test_flips_are_mirror_images(images):
    still = torch.zeros(6)
    left_right = rotate(images, still, torch.tensor([[-1.0, 1.0]]).repeat(6, 1))
    up_down = rotate(images, still, torch.tensor([[1.0, -1.0]]).repeat(6, 1))
    assert torch.allclose(left_right, images.flip(3), atol=1e-5)
    assert torch.allclose(up_down, images.flip(2), atol=1e-5)


@pytest.mark.parametrize("degrees", [-20.0, 7.0, 90.0])
def test_rotation_agrees_with_torchvision_away_from_the_corners(degrees):
    smooth = torch.nn.functional.interpolate(
        torch.rand(2, 3, 5, 5, generator=generator(3)), size=(41, 41), mode="bicubic"
    ).clamp(0, 1)
    ours = rotate(smooth, torch.full((2,), degrees), torch.ones(2, 2))
    theirs = torchvision.rotate(smooth, degrees, torchvision.InterpolationMode.BILINEAR)
    inside = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    assert torch.allclose(ours[inside], theirs[inside], atol=2e-3)


@pytest.mark.parametrize(
    ("position", "function"),
    [
        (0, torchvision.adjust_brightness),
        (1, torchvision.adjust_contrast),
        (2, torchvision.adjust_saturation),
    ],
)
def test_colour_agrees_with_torchvision(images, position, function):
    factors = torch.linspace(0.5, 1.5, 6)
    arguments = [ones(), ones(), ones()]
    arguments[position] = factors
    ours = colour_jitter(images, *arguments)
    theirs = torch.stack([function(i, f.item()) for i, f in zip(images, factors, strict=True)])
    assert torch.allclose(ours, theirs, atol=2e-3)  # torchvision rounds the grey weights


def test_each_image_has_parameters_of_its_own():
    same = torch.rand(1, 3, 16, 16, generator=generator(5)).repeat(8, 1, 1, 1)
    changed = augment(same, sample_parameters(8, 1, 1), Augmentation())
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 8
    assert changed.min() >= 0 and changed.max() <= 1


def test_an_images_augmentation_depends_on_seed_epoch_and_row_only(images):
    parameters = sample_parameters(100, 42, 3)
    rows = torch.tensor([4, 90, 17, 3, 55, 8])
    together = augment(images, parameters[rows], Augmentation())
    alone = augment(images[2:3], sample_parameters(100, 42, 3)[17:18], Augmentation())
    assert torch.allclose(together[2:3], alone, atol=1e-6)
    assert not torch.equal(parameters, sample_parameters(100, 42, 4))
    assert not torch.equal(parameters, sample_parameters(100, 43, 3))


def test_generators_differ_by_every_number_of_their_key():
    seeds = {generator(a, b, c).initial_seed() for a in (0, 2**40) for b in (0, 1) for c in (0, 1)}
    assert len(seeds) == 8
