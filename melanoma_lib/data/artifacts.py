"""What lies over a picture and is no part of the lesion: rulers, hairs, dark corners, ink.

Each function paints one into `rgb`, float32 (3, height, width) in [0, 1], in place; `rng` decides
where. Sizes are for an image of 200 pixels across, and grow with it.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

INK = (0.30, 0.16, 0.52)  # gentian violet, of a skin marker


def draw_lines(paths: list[tuple[np.ndarray, float]], width: int, height: int) -> np.ndarray:
    """Antialiased coverage (height, width), 0 to 1, by polylines of points and thickness."""
    picture = Image.new("L", (3 * width, 3 * height))
    for points, thickness in paths:
        xy = [(3 * column, 3 * row) for row, column in points]
        ImageDraw.Draw(picture).line(xy, 255, max(1, round(3 * thickness)), "curve")
    return np.asarray(picture.reduce(3), np.float32) / 255


def hairs(rgb: np.ndarray, rng: np.random.Generator) -> None:
    """A few thin curved hairs."""
    _, height, width = rgb.shape
    unit = width / 200
    t, comb = np.linspace(0, 1, 14)[:, None], rng.uniform(0, 6.3)
    paths = []
    for _ in range(rng.integers(2, 12)):
        angle = comb + rng.normal(0, 0.5)
        along = unit * rng.uniform(40, 150) * np.array([np.sin(angle), np.cos(angle)])
        bow = rng.normal(0, 0.25) * along[::-1] * (1, -1)
        start = rng.uniform(0, (height, width)) - along / 2
        paths.append((start + t * along + t * (1 - t) * bow, unit * rng.uniform(0.5, 1.3)))
    hair = np.float32((0.16, 0.11, 0.09))[:, None, None]
    rgb += 0.8 * draw_lines(paths, width, height) * (hair - rgb)


def ruler(rgb: np.ndarray, rng: np.random.Generator) -> None:
    """The millimetre marks of a ruler along the lower edge."""
    _, height, width = rgb.shape
    unit = width / 200
    across = np.arange(rng.uniform(0, 9), 199, rng.uniform(9, 14))
    for number, x in enumerate(across):
        left, length = round(unit * x), round(unit * (14 if number % 5 == 0 else 8))
        rgb[:, height - length :, left : left + max(1, round(unit))] *= 0.35


def dark_corners(rgb: np.ndarray, rng: np.random.Generator) -> None:
    """The round field of some dermatoscopes, black outside."""
    _, height, width = rgb.shape
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    far = x * x + (0.75 * y) ** 2  # squared distance from the centre, 0.25 at the left edge
    edge = rng.uniform(0.29, 0.36)
    rgb *= np.clip((edge - far) / (edge - 0.26), 0, 1)


def ink(rgb: np.ndarray, rng: np.random.Generator) -> None:
    """Strokes of a skin marker, as surgeons draw them beside a lesion before excising it."""
    _, height, width = rgb.shape
    unit, turn = width / 200, rng.uniform(0, 6.3)
    paths = []
    for side in range(rng.integers(1, 4)):
        angle = turn + 2.1 * side + np.linspace(-0.35, 0.35, 8)
        radius = (0.42 + 0.008 * rng.standard_normal(8).cumsum())[:, None]
        points = (0.5 + radius * np.stack([np.sin(angle), np.cos(angle)], 1)) * (height, width)
        paths.append((points, unit * rng.uniform(3, 5)))
    colour = np.float32(INK)[:, None, None]
    rgb += 0.75 * draw_lines(paths, width, height) * (colour - rgb)


ARTIFACTS: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], None], str]] = {
    "ruler": (ruler, "a ruler"),
    "hairs": (hairs, "hairs"),
    "dark_corners": (dark_corners, "dark corners"),
    "ink": (ink, "ink"),
}
