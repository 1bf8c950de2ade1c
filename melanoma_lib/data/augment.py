"""Augmentation per image, on a whole batch at once, replayable from seed, epoch and row."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from melanoma_lib.config import Augmentation

# Weights of red, green and blue in the grey value (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


def generator(*key: int) -> torch.Generator:
    """A random generator that depends on all numbers of its key, for example (seed, epoch)."""
    # torch's own seeding keeps 32 bits; SeedSequence mixes the whole key into them.
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def draw(rows: int, seed: int, epoch: int) -> torch.Tensor:
    """Uniform numbers in [0, 1) for a whole epoch, (rows, 6), one row an image.

    Drawn at once so that what happens to an image depends on seed, epoch and row only, not on
    the batch it is in: a resumed epoch sees exactly the pictures the interrupted one saw.
    """
    return torch.rand(rows, 6, generator=generator(seed, epoch, 1))


def augment(images: torch.Tensor, numbers: torch.Tensor, how: Augmentation) -> torch.Tensor:
    """Flips, rotates and jitters each image by its own numbers.

    `images` float (n, 3, height, width) in [0, 1]; `numbers` (n, 6) in [0, 1). Returns the
    same shape and range. The corners that a rotation uncovers show the mirrored picture.
    """
    flips = 1 - 2 * (numbers[:, :2] < how.flip).to(images.dtype)  # -1 flips, 1 does not
    jitter = 2 * numbers[:, 2:] - 1  # in [-1, 1)
    images = rotate(images, how.rotation * jitter[:, 0], flips)
    ranges = how.brightness, how.contrast, how.saturation
    factors = [1 + reach * jitter[:, column] for column, reach in enumerate(ranges, 1)]
    return colour_jitter(images, *(factor.to(images.dtype) for factor in factors))


def rotate(images: torch.Tensor, degrees: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Rotates each image about its centre, after mirroring it where `flips` (n, 2) is -1.

    The two columns of `flips` are left-right and up-down. Positive degrees turn
    anticlockwise. Bilinear interpolation.
    """
    angle = (degrees.to(images.dtype) * (math.pi / 180))[:, None, None]
    cos, sin = angle.cos(), angle.sin()
    across, down = flips.to(images.dtype)[:, :, None, None].unbind(1)
    height, width = images.shape[-2:]
    x, y = _centres(width, images), _centres(height, images)[:, None]
    # The grid says where each output pixel comes from, in coordinates from -1 to 1 on both
    # axes; the aspect ratio keeps a rotation a rotation in pictures that are not square.
    # Not `F.affine_grid`, which takes as long as the sampling: its products are too thin.
    aspect = height / width
    columns = across * cos * x - across * sin * aspect * y
    rows = down * sin / aspect * x + down * cos * y
    grid = torch.stack([columns, rows], dim=-1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _centres(count: int, like: torch.Tensor) -> torch.Tensor:
    """The middles of so many pixels in a row, from -1 to 1."""
    edge = 1 - 1 / count
    return torch.linspace(-edge, edge, count, dtype=like.dtype, device=like.device)


def colour_jitter(
    images: torch.Tensor,
    brightness: torch.Tensor,
    contrast: torch.Tensor,
    saturation: torch.Tensor,
) -> torch.Tensor:
    """Scales brightness, then contrast, then saturation of each image; factor 1 changes nothing.

    The definitions are torchvision's `adjust_brightness`, `adjust_contrast` and
    `adjust_saturation`, applied to each image with its own factor, each clipped to [0, 1].
    """

    # In place and in few passes: on the CPU these are most of an epoch's loading.
    brightness, contrast, saturation = (
        factor[:, None, None, None] for factor in (brightness, contrast, saturation)
    )
    images = (images * brightness).clamp_(0, 1)
    mean = _grey(images).mean((2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp_(0, 1)
    return torch.lerp(_grey(images), images, saturation).clamp_(0, 1)


def _grey(images: torch.Tensor) -> torch.Tensor:
    # No product with a tensor of weights: making that would stop a GPU.
    red, green, blue = images.split(1, dim=1)
    return (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
