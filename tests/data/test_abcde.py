"""ABCDE measures on shapes whose values are worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.data.abcde import (
    asymmetry,
    border_irregularity,
    colour_variegation,
    diameter,
    measure,
    mirror,
)


def rectangle(height, width, shape=(80, 90), at=(20, 20)):
    mask = np.zeros(shape, bool)
    mask[at[0] : at[0] + height, at[1] : at[1] + width] = True
    return mask


def disc(radius, size=300):
    y, x = np.mgrid[:size, :size] - size / 2
    return x**2 + y**2 < radius**2


def triangle(size=120):
    """Two equal sides, the tip up: symmetric left and right, not up and down."""
    y, x = np.mgrid[: size + 40, : size + 40] - 20
    return (y >= 0) & (y < size) & (abs(x - size / 2) <= y / 4)


def test_a_mirror_line():
    points, centre = np.array([[1.0, 5], [2, 7]]), np.array([0.0, 6])
    assert mirror(points, centre, np.array([0.0, 1])).tolist() == [[1, 7], [2, 5]]


def test_a_rectangle_and_a_disc_are_symmetric():
    assert asymmetry(rectangle(20, 40)) == 0
    assert asymmetry(disc(100)) < 0.005


def test_the_asymmetry_of_a_triangle():
    # From its tip, at height 0, to its base at 1, the triangle is as wide as its height; its
    # centroid lies at 2/3. Mirrored there, height t lands on 4/3 - t. Both widths overlap in
    # twice the integral of t from 1/3 to 2/3, which is 1/3 of 1/2: two thirds of the area. The
    # other axis mirrors it onto itself.
    assert asymmetry(triangle()) == pytest.approx((1 / 3 + 0) / 2, abs=0.01)


def test_a_lesion_cut_off_by_the_edge_is_measured_as_it_is():
    assert asymmetry(rectangle(20, 40, shape=(20, 40), at=(0, 0))) == 0


def test_the_border_of_a_disc_is_one():
    assert border_irregularity(disc(100)) == pytest.approx(1, abs=0.01)


def test_the_border_of_a_square():
    # Side 10: 40 straight crossings; a diagonal crosses it twice on each of 19 lines, two ways.
    perimeter = math.pi / 8 * (40 + 76 / math.sqrt(2))
    assert border_irregularity(rectangle(10, 10)) == pytest.approx(perimeter**2 / (400 * math.pi))


def test_a_notch_makes_the_border_longer():
    notched = rectangle(40, 40)
    notched[20:40, 38:42] = False
    assert border_irregularity(notched) > border_irregularity(rectangle(40, 40)) + 0.5


def test_colours_half_black_half_white():
    mask = rectangle(20, 40)
    image = np.zeros((*mask.shape, 3), np.uint8)
    assert colour_variegation(image, mask) == 0
    image[:, 40:] = 255  # half of the lesion: each channel deviates by 1/2
    assert colour_variegation(image, mask) == pytest.approx(math.sqrt(3) / 2)


def test_the_diameter_of_a_rectangle():
    assert diameter(rectangle(20, 40)) == math.hypot(19, 39)


@given(st.integers(0, 2**32 - 1))
def test_the_diameter_is_the_largest_of_all_distances(seed):
    mask = np.random.default_rng(seed).random((6, 7)) < 0.4
    mask[0, 0] = mask[3, 3] = True
    points = np.argwhere(mask)
    assert diameter(mask) == max(math.dist(a, b) for a in points for b in points)


def test_measures_do_not_depend_on_size_and_position():
    small, large = disc(50, 200), disc(100, 400)
    moved = np.roll(small, 13, axis=1)
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    first = measure(image, small)
    assert measure(np.roll(image, 13, axis=1), moved) == pytest.approx(first)
    twice = measure(image.repeat(2, 0).repeat(2, 1), large)
    assert twice == pytest.approx(first, abs=0.01)


def test_a_speck_beside_the_lesion_does_not_count():
    mask = rectangle(20, 40)
    image = np.random.default_rng(0).integers(0, 255, (*mask.shape, 3), dtype=np.uint8)
    alone = measure(image, mask)
    mask[2:4, 2:4] = True
    assert measure(image, mask) == alone


def test_a_few_pixels_have_no_shape():
    empty = np.zeros((10, 10), bool)
    assert all(math.isnan(x) for x in measure(np.zeros((10, 10, 3), np.uint8), empty).values())
