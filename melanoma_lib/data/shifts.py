"""Shifted images: the same lesions as another lamp, lens or camera would have taken them."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

DARKER = 0.6  # of the light
BLUR = 1 / 64  # of the side: the standard deviation of the blur
# A warmer camera: gains of red, green and blue, and an exponent that lifts the dark tones.
GAINS, GAMMA = (1.1, 1.0, 0.8), 0.85


def darker(pixels: np.ndarray) -> np.ndarray:
    """Images with `DARKER` of their light, uint8 (n, side, side, 3)."""
    return np.uint8(np.round(np.arange(256) * DARKER))[pixels]


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Images out of focus: a Gaussian blur of `BLUR` of the side, uint8 (n, side, side, 3)."""
    blur = ImageFilter.GaussianBlur(pixels.shape[1] * BLUR)
    return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in pixels])


def other_camera(pixels: np.ndarray) -> np.ndarray:
    """Images in the colours of a warmer camera, uint8 (n, side, side, 3)."""
    tones = (np.arange(256) / 255) ** GAMMA * 255
    table = np.clip(tones[:, None] * GAINS, 0, 255).round().astype(np.uint8)  # (256, 3)
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], -1)


# By name the change of the pixels, in words what it is called.
SHIFTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "darker": (darker, "darker"),
    "blurred": (blurred, "blurred"),
    "other_camera": (other_camera, "another camera's colours"),
}
