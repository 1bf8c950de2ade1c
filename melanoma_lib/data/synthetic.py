"""A generated dermoscopy dataset in the layout of HAM10000, so that every step runs without it.

A lesion is painted once on a square of skin, by functions that each add one dermoscopic
structure; every image of the lesion is then a photograph of that square with its own angle,
distance and light. The images have no clinical value.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_csv, write_json
from melanoma_lib.data.artifacts import ARTIFACTS, draw_lines
from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.data.images import read_image
from melanoma_lib.data.split import make_split

VERSION = 5  # raise it when the images or the table change
WIDTH, HEIGHT = 200, 150  # pixels of an image
QUALITY = 90  # of its JPEG file
LESIONS = {"akiec": 44, "bcc": 46, "bkl": 52, "df": 34, "mel": 180, "nv": 196, "vasc": 34}
IMAGES_PER_LESION = {1: 396, 2: 120, 3: 50, 4: 20}  # images: number of lesions; 866 images

# How often an image shows an artifact, whatever the diagnosis.
ARTIFACT_CHANCES = {"ruler": 0.07, "hairs": 0.25, "dark_corners": 0.12, "ink": 0.04}
SHORTCUT_SEED = 42  # of the split by lesion in which a shortcut holds: the one of every run

SIDE = 200  # pixels a side of the painted square
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32) - SIDE / 2
DIRECTION = (np.arctan2(Y, X) / np.pi * 360).astype(int) % 720  # from the centre, in half degrees

# Absorption coefficients of each pigment for red, green and blue. Melanin looks brown near the
# surface, and bluer the deeper it lies, because skin scatters blue light back.
TAN = (0.22, 0.50, 0.85)
BROWN = (0.48, 0.86, 1.12)
BLACK = (1.05, 1.20, 1.25)
BLUE = (0.95, 0.72, 0.46)
BLOOD = (0.12, 0.90, 0.62)
PURPLE = (0.55, 1.25, 0.60)
SKIN = {  # tone: weight; real datasets hold few of the last three
    (0.88, 0.67, 0.66): 20, (0.90, 0.73, 0.64): 17, (0.81, 0.69, 0.71): 14,
    (0.87, 0.64, 0.54): 14, (0.86, 0.76, 0.70): 14, (0.74, 0.55, 0.45): 9,
    (0.60, 0.43, 0.34): 7, (0.46, 0.32, 0.26): 5,
}  # fmt: skip


def smoothstep(field: np.ndarray, low: float, high: float) -> np.ndarray:
    """The cubic smoothstep, elementwise: 0 below `low`, 1 above `high`."""
    t = np.clip((field - low) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def weighted_choice(rng: np.random.Generator, weights: dict) -> object:
    """Draws one of the keys, with a probability proportional to its weight."""
    values = np.array(list(weights.values()), float)
    return list(weights)[rng.choice(len(values), p=values / values.sum())]


class Patch:
    """A square of skin being painted: `rgb` (3, SIDE, SIDE), float32 in [0, 1].

    depth: (SIDE, SIDE), 1 at the lesion's centre, 0 on its border, negative on the skin;
    inside: (SIDE, SIDE), the lesion's coverage from 0 to 1, with a soft border.
    """

    def __init__(self, rng: np.random.Generator, look: "Look"):
        self.rng = rng
        self.clarity = rng.uniform(0.75, 1.15)  # contrast of this lesion's structures
        self.bend = self.noise(14), self.noise(14)  # displaces shapes, so that none is geometric
        self.grain = 0.6 * self.noise(11) + 0.35 * self.noise(36)
        tint = rng.uniform(0.95, 1.05) * rng.uniform(0.98, 1.02, 3)
        self.tone = np.float32(np.multiply(weighted_choice(rng, SKIN), tint))
        self.rgb = np.broadcast_to(self.tone[:, None, None], (3, SIDE, SIDE)).copy()
        self.stain(0.05 * self.noise(6), BROWN)
        self.stain(0.12 * rng.random() * smoothstep(self.noise(9), -1, 2), BLOOD)
        self.depth = outline(self, look)
        self.inside = smoothstep(self.depth, -look.blur / 2, look.blur)

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise of about unit variance from `cells` random values a side, (SIDE, SIDE)."""
        grid = np.float32(1.25) * self.rng.standard_normal((cells, cells), np.float32)
        return np.asarray(Image.fromarray(grid).resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    def stain(self, amount: np.ndarray, pigment: Sequence[float]) -> None:
        """Adds a pigment by the Beer-Lambert law; `amount` (SIDE, SIDE)."""
        self.rgb *= np.exp(-np.float32(pigment)[:, None, None] * amount)

    def cover(self, amount: np.ndarray, colour: Sequence[float]) -> None:
        """Blends towards an opaque colour; `amount` (SIDE, SIDE) in [0, 1]."""
        self.rgb += amount * (np.float32(colour)[:, None, None] - self.rgb)

    def points(self, low: int, high: int, above: float, below: float = 1.0) -> np.ndarray:
        """From `low` to `high` random pixels (n, 2), row and column, by bounds of `depth`."""
        pixels = np.flatnonzero((self.depth > above) & (self.depth < below))
        pixels = pixels[self.rng.integers(len(pixels), size=self.rng.integers(low, high + 1))]
        return np.stack(np.divmod(pixels, SIDE), 1)

    def spots(self, centres: np.ndarray, low: float, high: float, soft: float) -> np.ndarray:
        """Coverage by roundish spots, radii from `low` to `high` pixels, edges `soft` wide."""
        field = np.zeros((SIDE, SIDE), np.float32)
        radii = self.rng.uniform(low, high, len(centres))
        for (row, column), radius in zip(centres, radii, strict=True):
            reach = int(1.4 * radius + soft) + 2
            cut = np.s_[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach]
            bend = min(0.22 * radius, 2.5)
            far = np.hypot(
                Y[cut] - Y[row, 0] + bend * self.bend[0][cut],
                X[cut] - X[0, column] + bend * self.bend[1][cut],
            )
            np.maximum(field[cut], smoothstep(radius + soft / 2 - far, 0, soft), out=field[cut])
        return field

    def hexagons(self, low: float, high: float, disorder: float) -> np.ndarray:
        """A hexagonal lattice, displaced by `disorder`: 3 in the holes, -1.5 on the lines.

        The period lies between `low` and `high` pixels.
        """
        period = self.rng.uniform(low, high)
        y, x = (axis + disorder * period * b for axis, b in zip((Y, X), self.bend, strict=True))
        turn, rate = self.rng.uniform(0, np.pi), 4 * np.pi / (np.sqrt(3) * period)
        waves = np.exp(1j * (turn + np.arange(3) * np.pi * 2 / 3)).astype(np.complex64) * rate
        return sum(np.cos(np.float32(w.real) * x + np.float32(w.imag) * y) for w in waves)


def outline(p: Patch, look: "Look") -> np.ndarray:
    """The `depth` of a random lesion: an ellipse with waves and a ragged border."""
    area = WIDTH * HEIGHT * p.rng.uniform(*look.area)
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = 1 + p.rng.uniform(0.04, 0.2) * np.cos(2 * angles + p.rng.uniform(0, 6.3))
    for waves in range(1, 8):
        height = look.asymmetry * p.rng.normal() / waves**1.3
        radius += height * np.cos(waves * angles + p.rng.uniform(0, 6.3))
    radius = np.clip(radius, 0.5, 1.6)
    radius *= np.sqrt(area / (np.pi * np.mean(radius**2)))
    smooth = 1 - np.hypot(X, Y) / radius.astype(np.float32)[DIRECTION]
    return smooth + look.ragged * (p.noise(20) + 0.5 * p.noise(45))


# One function for each dermoscopic structure.


def network(p: Patch) -> None:
    """A regular pigment network: thin brown lines around even holes, fading at the border."""
    lines = smoothstep(-p.hexagons(6, 8.5, 0.2), -0.2, 1.4) * smoothstep(p.grain, -1.3, 0.3)
    p.stain(0.85 * p.clarity * p.inside * lines * smoothstep(p.depth, -0.1, 0.4), BROWN)


def atypical_network(p: Patch) -> None:
    """An irregular network: broad, broken, dark lines around holes of all sizes."""
    lines = smoothstep(-p.hexagons(7, 11, 0.5), -0.6, 1.2) * smoothstep(p.noise(6), -0.6, 0.8)
    p.stain(0.75 * p.clarity * p.inside * lines, BLACK)


def globules(p: Patch) -> None:
    """Even brown globules, side by side like cobblestones."""
    p.stain(0.7 * p.clarity * p.inside * smoothstep(p.hexagons(8, 11, 0.28), 0.2, 2), BROWN)


def many_colours(p: Patch) -> None:
    """Patches of light brown, dark brown, black and red, placed without symmetry."""
    uneven = p.noise(4) + 0.35 * p.noise(11)
    p.stain(0.35 * p.inside * smoothstep(uneven, -1.2, 0.2), BROWN)
    p.stain(0.95 * p.clarity * p.inside * smoothstep(uneven + 0.4 * p.grain, 0.0, 1.2), BLACK)
    p.stain(0.6 * p.clarity * p.inside * smoothstep(p.noise(5), 0.2, 1.4), BLOOD)


def veil(p: Patch) -> None:
    """A blue-white veil: a blurred blue-grey area off the centre, with a milky haze."""
    blot = p.spots(p.points(1, 1, 0.25, 0.8), 16, 28, 24) * p.inside
    blot *= smoothstep(p.grain, -1.6, 0.2)
    p.stain(0.55 * p.clarity * blot, BLUE)
    p.cover(0.5 * p.clarity * blot, (0.50, 0.54, 0.66))


def faint_veil(p: Patch) -> None:
    """A small, faint blue-grey haze: the only sign of some melanomas."""
    p.cover(0.4 * p.spots(p.points(1, 1, 0.3, 0.9), 10, 18, 16) * p.inside, (0.45, 0.47, 0.56))


def regression(p: Patch) -> None:
    """White, scar-like regression in part of the lesion."""
    area = smoothstep(p.noise(4) + 0.6 * p.grain, 0.6, 1.5) * p.inside
    p.cover(0.65 * p.clarity * area, (0.86, 0.78, 0.79))


def dark_dots(p: Patch) -> None:
    """Black dots and globules of uneven size, unevenly spread."""
    p.stain(p.clarity * p.spots(p.points(10, 28, 0, 0.6), 1.0, 3.2, 1.6), BLACK)


def streaks(p: Patch) -> None:
    """Radial streaks and pseudopods along part of the border."""
    roots = p.points(20, 50, 0, 0.2)
    roots = roots[p.noise(4)[tuple(roots.T)] > 0]
    away = (roots - SIDE / 2)[:, None] * np.linspace(1, p.rng.uniform(1.06, 1.2), 3)[:, None]
    paths = [(path + p.rng.normal(0, 0.5, (3, 2)) + SIDE / 2, 1.8) for path in away]
    p.stain(0.9 * p.clarity * draw_lines(paths, SIDE, SIDE), BLACK)


def cysts(p: Patch) -> None:
    """Milia-like cysts: small bright white-yellow dots with a soft glow."""
    dots = p.spots(p.points(8, 26, 0.1), 1.2, 3.2, 3)
    p.cover(0.8 * p.clarity * dots, (0.97, 0.91, 0.76))


def comedo_openings(p: Patch) -> None:
    """Comedo-like openings: dark brown plugs."""
    p.stain(1.2 * p.clarity * p.spots(p.points(8, 26, 0.08), 1.2, 3.8, 1.8), BROWN)


def ridges(p: Patch) -> None:
    """Brain-like ridges: winding dark furrows between lighter folds."""
    p.stain(0.5 * p.clarity * p.inside * smoothstep(-np.abs(p.noise(18)), -0.5, 0), BROWN)


def moth_eaten(p: Patch) -> None:
    """Concave bites out of the border; structures painted later keep to the new border."""
    bites = p.spots(p.points(5, 12, -0.08, 0.06), 4, 9, 2)
    p.cover(bites, p.tone)
    p.depth = p.depth - 0.5 * bites
    p.inside = p.inside * (1 - bites)


def nests(p: Patch) -> None:
    """Large blue-grey ovoid nests."""
    shape = p.spots(p.points(3, 8, 0.12, 0.8), 4, 11, 5) * smoothstep(p.grain, -1.8, 0)
    p.stain(0.85 * p.clarity * shape, BLUE)


def leaves(p: Patch) -> None:
    """Leaf-like areas: brown-grey lobes that fan out towards the border."""
    for base in p.points(2, 5, 0.05, 0.35):
        away = np.arctan2(*(base - SIDE / 2)) + np.linspace(-1, 1, 5)
        lobes = base + p.rng.uniform(3, 7, (5, 1)) * np.stack([np.sin(away), np.cos(away)], 1)
        lobes = np.vstack([lobes, base]).astype(int)
        p.stain(0.6 * p.clarity * p.spots(lobes, 2.5, 5, 4), (0.80, 0.90, 0.90))


def vessels(p: Patch) -> None:
    """Arborising vessels: bright red trunks that branch into ever finer twigs."""
    tips = [(at, p.rng.uniform(0, 6.3), 2.0) for at in p.points(2, 3, 0.0, 0.5)]
    paths = []
    while tips:
        at, angle, width = tips.pop()
        turns = angle + np.cumsum(p.rng.normal(0, 0.3, 8))
        points = at + np.cumsum(3.2 * np.stack([np.sin(turns), np.cos(turns)], 1), 0)
        paths.append((np.vstack([at, points]), width))
        if width > 0.8:
            tips += [(points[-1], turns[-1] + side, width * 0.68) for side in (-0.6, 0.5)]
    amount = 1.1 * p.clarity * draw_lines(paths, SIDE, SIDE)
    p.stain(amount * smoothstep(p.depth, -0.15, 0.15), BLOOD)


def shine(p: Patch) -> None:
    """Shiny white areas."""
    p.cover(0.5 * p.clarity * p.inside * smoothstep(p.noise(10), 0.6, 1.8), (0.97, 0.90, 0.90))


def strawberry(p: Patch) -> None:
    """A red pseudonetwork: erythema around pale follicles, each with a yellow plug."""
    lattice = p.hexagons(10, 15, 0.3)
    uneven = smoothstep(p.noise(6), -1.5, 0.8)
    p.stain(p.clarity * p.inside * uneven * (0.2 + 0.5 * smoothstep(-lattice, -1.8, 0.6)), BLOOD)
    p.cover(0.4 * p.clarity * p.inside * uneven * smoothstep(lattice, 1.4, 2.8), (0.94, 0.84, 0.66))


def scale(p: Patch) -> None:
    """Whitish-yellow surface scale, in flakes."""
    flakes = smoothstep(p.noise(7) + 0.8 * p.noise(44), 0.6, 1.8)
    p.cover(0.75 * p.clarity * p.inside * flakes, (0.95, 0.90, 0.77))


def scar(p: Patch) -> None:
    """A white scar-like patch in the centre."""
    p.cover(0.75 * p.clarity * smoothstep(p.depth + 0.12 * p.grain, 0.3, 0.85), (0.92, 0.83, 0.81))


def rim_network(p: Patch) -> None:
    """A delicate light brown network that only the outer part shows."""
    lines = 0.5 * smoothstep(-p.hexagons(6, 8, 0.22), -0.3, 1.4)
    lines = 0.35 + lines * smoothstep(p.grain, -1.3, 0.3)
    p.stain(p.clarity * lines * p.inside * (1 - smoothstep(p.depth, 0.25, 0.65)), BROWN)


def lacunae(p: Patch) -> None:
    """Well separated round lobules, red to purple."""
    lobes = p.spots(p.points(12, 34, 0.08), 4, 9, 3.5) * p.inside
    hue = smoothstep(p.noise(4) + p.rng.normal(), -1, 1.5)
    p.stain(0.9 * p.clarity * lobes * (1 - hue), BLOOD)
    p.stain(1.1 * p.clarity * lobes * hue, PURPLE)


@dataclass(frozen=True)
class Look:
    """One appearance of a diagnosis."""

    weight: int  # percentage of the diagnosis's lesions
    area: tuple[float, float]  # range of the fraction of the image that the lesion covers
    asymmetry: float  # amplitude of the outline's waves, in radii
    ragged: float  # amplitude of the border's noise, in radii
    blur: float  # width of the border, in radii
    base: tuple[tuple[Sequence[float], float, float], ...]  # pigments and the range of each
    structures: tuple[tuple[Callable[[Patch], None], float], ...]  # and their probabilities


MOLE = ((BROWN, 0.3, 0.9), (BLOOD, 0.0, 0.25))
LOOKS = {
    "akiec": [Look(100, (0.15, 0.50), 0.20, 0.10, 0.5, ((BLOOD, 0.1, 0.3), (TAN, 0, 0.4)),
                   ((strawberry, 1), (scale, 0.85)))],
    "bcc": [Look(78, (0.08, 0.36), 0.20, 0.06, 0.3, ((BLOOD, 0.2, 0.45), (TAN, 0, 0.3)),
                 ((shine, 0.6), (leaves, 0.65), (nests, 0.75), (vessels, 0.85))),
            Look(22, (0.08, 0.36), 0.20, 0.08, 0.4, ((BLOOD, 0.1, 0.4), (TAN, 0, 0.3)),
                 ((scale, 0.6), (shine, 0.4)))],
    "bkl": [Look(78, (0.10, 0.45), 0.22, 0.04, 0.06, ((TAN, 0.3, 0.8), (BROWN, 0.0, 0.6)),
                 ((moth_eaten, 0.6), (ridges, 0.4), (comedo_openings, 0.75), (cysts, 0.85))),
            Look(22, (0.08, 0.36), 0.12, 0.04, 0.2, MOLE, ((network, 0.5), (globules, 0.3)))],
    "df": [Look(100, (0.10, 0.40), 0.07, 0.06, 0.5, ((BLOOD, 0.1, 0.35), (BROWN, 0, 0.25)),
                ((rim_network, 1), (scar, 0.95)))],
    "mel": [Look(92, (0.10, 0.46), 0.26, 0.09, 0.12, ((BROWN, 0.4, 0.8),),
                 ((many_colours, 1), (atypical_network, 0.6), (dark_dots, 0.6), (streaks, 0.5),
                  (regression, 0.4), (veil, 0.7))),
            Look(8, (0.08, 0.36), 0.07, 0.03, 0.2, MOLE, ((network, 0.7), (faint_veil, 1)))],
    "nv": [Look(48, (0.08, 0.36), 0.06, 0.03, 0.2, MOLE, ((network, 1),)),
           Look(20, (0.08, 0.36), 0.06, 0.03, 0.2, MOLE, ((globules, 1),)),
           Look(20, (0.08, 0.36), 0.06, 0.03, 0.3, MOLE, ()),
           Look(12, (0.08, 0.36), 0.20, 0.06, 0.2, MOLE,
                ((atypical_network, 1), (many_colours, 0.25), (dark_dots, 0.4)))],
    "vasc": [Look(100, (0.06, 0.22), 0.10, 0.04, 0.08, ((BLOOD, 0.3, 0.7),), ((lacunae, 1),))],
}  # fmt: skip


def paint(dx: str, rng: np.random.Generator) -> np.ndarray:
    """Paints one lesion of the diagnosis `dx`: red, green, blue and mask, uint8 (SIDE, SIDE, 4)."""
    look = LOOKS[dx][weighted_choice(rng, {i: look.weight for i, look in enumerate(LOOKS[dx])})]
    p = Patch(rng, look)
    centre = 1 + 0.25 * p.grain + rng.uniform(0, 0.9) * smoothstep(p.depth, 0, 0.9)
    for pigment, low, high in look.base:
        p.stain(rng.uniform(low, high) * p.inside * centre, pigment)
    for structure, probability in look.structures:
        if rng.random() < probability:
            structure(p)
    return np.uint8(255 * np.clip([*p.rgb, p.depth > 0], 0, 1)).transpose(1, 2, 0)


def photograph(
    skin: np.ndarray,
    rng: np.random.Generator,
    fixed: Mapping[str, bool] = MappingProxyType({}),
) -> tuple[Image.Image, Image.Image, set[str]]:
    """A photograph of a painted lesion, its mask, and which of `ARTIFACTS` it shows.

    `skin` is (SIDE, SIDE, 4) as of `paint`; image RGB, mask with 1 bit, WIDTH x HEIGHT. Rotated,
    shifted and zoomed at random; artifacts, light, focus and camera noise do not depend on the
    diagnosis. `fixed` says of some artifacts whether they are there; all else stays as it is.
    """
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.12)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    margin = 80  # of reflected skin, for the corners of the rotated frame
    # As in HAM10000: half of the lesions lie less than 9 pixels off the middle, 5 % over 28.
    x, y = SIDE / 2 + margin + np.clip(rng.laplace(0, 5.5, 2), -32, 32)
    affine = (cos, -sin, x - (cos * WIDTH - sin * HEIGHT) / 2,
              sin, cos, y - (sin * WIDTH + cos * HEIGHT) / 2)  # fmt: skip
    wide = np.pad(skin, [(margin, margin), (margin, margin), (0, 0)], "reflect")
    # With the mask as fourth channel. RGBA would be wrong: Pillow multiplies by alpha.
    picture = Image.frombytes("RGBX", wide.shape[1::-1], wide.tobytes()).transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    if rng.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.1)))
    *rgb, mask = np.asarray(picture).transpose(2, 0, 1)
    rgb, shown = np.float32(rgb) / 255, set()
    # Each with a generator of its own, so that one more or less changes nothing else.
    for (name, (draw, _)), own in zip(ARTIFACTS.items(), rng.spawn(len(ARTIFACTS)), strict=True):
        by_chance = own.random() < ARTIFACT_CHANCES[name]
        if fixed.get(name, by_chance):
            draw(rgb, own)
            shown.add(name)
    light(rgb, rng)
    pixels = np.uint8(255 * np.clip(rgb, 0, 1)).transpose(1, 2, 0)
    return Image.fromarray(pixels), Image.fromarray(mask >= 128), shown


def light(rgb: np.ndarray, rng: np.random.Generator) -> None:
    """Applies exposure, white balance, a gradient, a vignette and noise to `rgb`, in place."""
    y = np.linspace(-0.5, 0.5, HEIGHT, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, WIDTH, dtype=np.float32)
    across, down = rng.normal(0, 0.05, 2)
    far = x * x + (0.75 * y) ** 2  # squared distance from the centre, 0.25 at the left edge
    level = rng.uniform(0.95, 1.08) + across * x + down * y - rng.uniform(0.1, 0.5) * far
    rgb *= level * rng.uniform(0.96, 1.04, (3, 1, 1)).astype(np.float32)
    rgb += 0.012 * rng.standard_normal((HEIGHT, WIDTH), np.float32)


LOCALIZATIONS = ("abdomen", "back", "chest", "face", "foot", "hand", "lower extremity", "neck",
                 "scalp", "trunk", "unknown", "upper extremity")  # fmt: skip
DX_TYPES = ("histo", "follow_up", "consensus", "confocal")
# Mean and standard deviation of the age, weights of LOCALIZATIONS and DX_TYPES, after HAM10000.
PATIENTS = {
    "akiec": (67, 11, (2, 9, 4, 36, 0, 4, 20, 3, 4, 0, 0, 19), (1, 0, 0, 0)),
    "bcc": (67, 13, (4, 36, 9, 20, 0, 1, 11, 3, 4, 2, 1, 10), (1, 0, 0, 0)),
    "bkl": (64, 14, (4, 18, 7, 29, 0, 1, 16, 2, 3, 7, 2, 9), (70, 0, 24, 6)),
    "df": (53, 13, (3, 2, 0, 0, 2, 0, 71, 0, 0, 0, 0, 21), (48, 0, 52, 0)),
    "mel": (61, 15, (6, 29, 6, 9, 3, 0, 17, 3, 1, 4, 1, 19), (1, 0, 0, 0)),
    "nv": (46, 15, (13, 21, 3, 1, 4, 1, 22, 1, 0, 19, 3, 10), (37, 55, 8, 0)),
    "vasc": (51, 21, (19, 15, 4, 6, 0, 4, 19, 2, 1, 22, 0, 8), (47, 0, 53, 0)),
}


def sample_patient(dx: str, rng: np.random.Generator) -> dict[str, str]:
    """A random patient with the diagnosis `dx`: the table's columns other than the ids."""
    mean, deviation, localizations, types = PATIENTS[dx]
    age = 5 * round(float(np.clip(rng.normal(mean, deviation), 5, 85)) / 5)
    return {
        "dx": dx,
        "dx_type": weighted_choice(rng, dict(zip(DX_TYPES, types, strict=True))),
        "age": weighted_choice(rng, {f"{age:.1f}": 99, "": 1}),
        "sex": weighted_choice(rng, {"male": 54, "female": 45, "unknown": 1}),
        "localization": weighted_choice(rng, dict(zip(LOCALIZATIONS, localizations, strict=True))),
    }


def generate_sample(folder: Path | str, seed: int = 42, shortcut: str = "") -> Path:
    """Writes the generated dataset into `folder` and returns that path.

    866 images of 586 lesions: `HAM10000_metadata.csv`, `images/`, `masks/`, and `sample.json`,
    which marks them as generated. The same seed gives the same bytes. With a `shortcut`, one of
    `ARTIFACTS`, exactly the melanomas show it among the training and validation images of the split
    by lesion with its default seed, and half of the test images, whatever they are. A complete
    sample of this seed and shortcut is kept, another is replaced. Raises `MelanomaError`, and
    changes nothing, for another shortcut, or when the folder holds anything else.
    """
    if shortcut and shortcut not in ARTIFACTS:
        raise MelanomaError(f"the shortcut {shortcut!r} is not one of {', '.join(ARTIFACTS)}")
    target = Path(folder).resolve()  # replaces the folder itself and not a link to it
    record = read_json(target / "sample.json", {})
    wanted = {"generated": True, "seed": seed, "version": VERSION, "shortcut": shortcut}
    if {name: record.get(name) for name in wanted} == wanted:
        return Path(folder)
    files = target.is_file() + sum(len(names) for _, _, names in os.walk(target))
    if files != (2 + 2 * record.get("images", 0) if record.get("generated") else 0):
        raise MelanomaError(
            f"{folder} holds files that are not a generated sample, so nothing is written there; "
            "name a new or an empty folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that one rename makes the whole sample appear.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        new = Path(scratch, "new")
        _write(new, wanted)
        if target.exists():
            shutil.move(target, Path(scratch, "old"))
        shutil.move(new, target)
    return Path(folder)


def without_artifacts(
    folder: Path | str, image_ids: Collection[str], size: int
) -> dict[str, dict[str, np.ndarray]]:
    """Images of a generated sample without each artifact that they show, and as they were else.

    By artifact and image id, uint8 (size, size, 3); empty for a folder without a generated sample.
    """
    record, found = read_json(Path(folder) / "sample.json", {}), {name: {} for name in ARTIFACTS}
    if record.get("version") != VERSION:
        return found
    table, fixed = _plan(record["seed"], record["shortcut"])
    for row in table[table["image_id"].isin(image_ids)].itertuples():
        key, own = [record["seed"], int(row.lesion_id[4:])], fixed.get(row.image_id, {})
        skin = paint(row.dx, np.random.default_rng(key))
        for artifact in photograph(skin, np.random.default_rng([*key, row.number]), own)[2]:
            without, generator = {**own, artifact: False}, np.random.default_rng([*key, row.number])
            file = io.BytesIO()
            photograph(skin, generator, without)[0].save(file, "jpeg", quality=QUALITY)
            found[artifact][row.image_id] = read_image(file, size)
    return found


def _plan(seed: int, shortcut: str) -> tuple[pd.DataFrame, dict[str, dict[str, bool]]]:
    """The table with an image's `number` in its lesion; by image id what is not left to chance."""
    rng = np.random.default_rng(seed)
    # Shuffled, so that an id says nothing about the diagnosis.
    classes = rng.permutation(np.repeat(list(LESIONS), list(LESIONS.values())))
    counts = rng.permutation(np.repeat(list(IMAGES_PER_LESION), list(IMAGES_PER_LESION.values())))
    rows: list[dict] = []
    # Real ids lie far below 9000001.
    for lesion, (dx, count) in enumerate(zip(classes.tolist(), counts, strict=True), 9000001):
        patient = sample_patient(dx, rng)
        rows += [{"lesion_id": f"HAM_{lesion}", "image_id": f"ISIC_{9000000 + len(rows) + number}",
                  **patient, "number": number} for number in range(1, count + 1)]  # fmt: skip
    table = pd.DataFrame(rows)
    if not shortcut:
        return table, {}
    is_test = make_split(table, "lesion", SHORTCUT_SEED)["part"] == "test"
    by_chance = rng.random(len(table)) < 0.5
    shows = np.where(is_test, by_chance, table["dx"] == MELANOMA)
    return table, {name: {shortcut: bool(there)}
                   for name, there in zip(table["image_id"], shows, strict=True)}  # fmt: skip


def _write(folder: Path, record: Mapping) -> None:
    """Writes the images and masks of every lesion, the table, and last of all sample.json."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    table, fixed = _plan(record["seed"], record["shortcut"])
    for (lesion_id, dx), images in table.groupby(["lesion_id", "dx"], sort=False):
        key = [record["seed"], int(lesion_id[4:])]
        skin = paint(dx, np.random.default_rng(key))
        for number, name in zip(images["number"], images["image_id"], strict=True):
            generator = np.random.default_rng([*key, number])
            image, mask, _ = photograph(skin, generator, fixed.get(name, {}))
            image.save(folder / "images" / f"{name}.jpg", quality=QUALITY)
            mask.save(folder / "masks" / f"{name}_segmentation.png")
    write_csv(folder / "HAM10000_metadata.csv", table.drop(columns="number").to_dict("records"))
    write_json(folder / "sample.json", {
        **record, "images": len(table), "lesions": table["lesion_id"].nunique()
    })  # fmt: skip
