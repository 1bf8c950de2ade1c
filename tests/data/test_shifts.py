"""Shifted images: what changes, and what stays."""

import numpy as np
import pytest

from melanoma_lib.data.shifts import DARKER, SHIFTS, blurred, darker, other_camera


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_changes_pixels_and_not_their_form(name, pixels):
    change, _ = SHIFTS[name]
    before = pixels.copy()
    shifted = change(pixels)
    assert shifted.shape == pixels.shape and shifted.dtype == np.uint8
    assert (shifted != pixels).mean() > 0.5 and np.array_equal(pixels, before)
    assert np.array_equal(change(pixels[1:2]), shifted[1:2])  # each image on its own


def test_darker_by_hand():
    assert darker(np.full((1, 8, 8, 3), 200, np.uint8)).max() == 200 * DARKER


def test_a_blur_keeps_the_mean_and_lowers_the_contrast(pixels):
    assert blurred(pixels).mean() == pytest.approx(pixels.mean(), abs=1)
    assert blurred(pixels).std() < 0.7 * pixels.std()


def test_another_camera_keeps_black_and_the_order_of_tones():
    tones = np.arange(256, dtype=np.uint8)
    grey = np.tile(tones[None, None, :, None], (1, 2, 1, 3))
    shifted = other_camera(grey)[0, 0].astype(int)
    assert (shifted[0] == 0).all() and (np.diff(shifted, axis=0) >= 0).all()
    assert (shifted[128] == np.sort(shifted[128])[::-1]).all()  # red above green above blue
