"""Augmentation of a whole batch with parameters for each image, reproducible by seed and epoch."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from melanoma_lib.config import Augmentation

# Weights of red, green and blue in the grey value (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


def generator(*key: int) -> torch.Generator:
    """A random generator seeded by all numbers of the key, for example (seed, epoch)."""
    # torch's own seeding keeps 32 bits; SeedSequence mixes the whole key into them.
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def sample_parameters(rows: int, seed: int, epoch: int) -> torch.Tensor:
    """Augmentation parameters of an epoch, uniform in [0, 1), (rows, 6): a row for each image.

    The columns are two flips, rotation, brightness, contrast and saturation. All are sampled at
    once, so that an image's augmentation depends on seed, epoch and row and not on its batch:
    a resumed epoch repeats those of the interrupted one.
    """
    return torch.rand(rows, 6, generator=generator(seed, epoch, 1))


def augment(
    images: torch.Tensor, parameters: torch.Tensor, settings: Augmentation
) -> torch.Tensor:
    """Flips, rotates and colour-jitters each image by its own parameters.

    images: float (n, 3, height, width) in [0, 1]; parameters: a row of `sample_parameters` for
    each, (n, 6). Returns the same shape and range.
    """
    flips = 1 - 2 * (parameters[:, :2] < settings.flip).to(images.dtype)  # -1 flips, 1 does not
    jitter = 2 * parameters[:, 2:] - 1  # in [-1, 1)
    images = rotate(images, settings.rotation * jitter[:, 0], flips)
    ranges = settings.brightness, settings.contrast, settings.saturation
    factors = [1 + width * jitter[:, column] for column, width in enumerate(ranges, 1)]
    return colour_jitter(images, *(factor.to(images.dtype) for factor in factors))


def rotate(images: torch.Tensor, degrees: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Flips each image where `flips` is -1, then rotates it about its centre.

    images: float (n, 3, height, width); degrees: (n,), anticlockwise; flips: (n, 2), horizontal
    and vertical, -1 or 1. Bilinear, with reflection padding at the corners.
    """
    angle = (degrees.to(images.dtype) * (math.pi / 180))[:, None, None]
    cos, sin = angle.cos(), angle.sin()
    horizontal, vertical = flips.to(images.dtype)[:, :, None, None].unbind(1)
    height, width = images.shape[-2:]
    x, y = _pixel_centres(width, images), _pixel_centres(height, images)[:, None]
    # The grid says where each output pixel comes from, in coordinates from -1 to 1 on both
    # axes; the aspect ratio keeps a rotation a rotation in images that are not square.
    # Not `F.affine_grid`, which takes as long as the sampling: its products are too thin.
    aspect = height / width
    columns = horizontal * cos * x - horizontal * sin * aspect * y
    rows = vertical * sin / aspect * x + vertical * cos * y
    grid = torch.stack([columns, rows], dim=-1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _pixel_centres(count: int, like: torch.Tensor) -> torch.Tensor:
    """The centres of `count` pixels in a row whose edges are at -1 and 1, (count,)."""
    edge = 1 - 1 / count
    return torch.linspace(-edge, edge, count, dtype=like.dtype, device=like.device)


def colour_jitter(
    images: torch.Tensor,
    brightness: torch.Tensor,
    contrast: torch.Tensor,
    saturation: torch.Tensor,
) -> torch.Tensor:
    """Scales brightness, then contrast, then saturation of each image, clipping to [0, 1].

    images: float (n, 3, height, width) in [0, 1]; factors: (n,), 1 changes nothing. The
    definitions are torchvision's `adjust_brightness`, `adjust_contrast`, `adjust_saturation`.
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
    # No product with a tensor of weights: creating one would synchronise with the GPU.
    red, green, blue = images.split(1, dim=1)
    return (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
