import numpy as np
import pandas as pd
import pytest
from helpers import make_dataset

from melanoma_lib.data import skin_tone
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.evaluation.subgroups import groups

SKIN = (224, 172, 140)


@pytest.fixture
def image():
    """A dark lesion on skin of one colour, 40 pixels a side, and its mask."""
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    return np.where(mask[..., None], np.uint8(30), np.array(SKIN, np.uint8)), mask


@pytest.mark.parametrize(
    ("rgb", "lab"),  # as published calculators give them for D65
    [((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (53.2, 80.1, 67.2)),
     ((0, 0, 255), (32.3, 79.2, -107.9)), ((119, 119, 119), (50.0, 0, 0))],
)  # fmt: skip
def test_colours_are_those_of_cie_lab(rgb, lab):
    found = skin_tone.to_lab(np.array([[rgb]], np.uint8))
    assert found.shape == (1, 1, 3) and found[0, 0] == pytest.approx(lab, abs=0.1)


def test_the_angle_is_that_of_the_skin_beside_the_lesion(image):
    pixels, mask = image
    lightness, _, yellow = skin_tone.to_lab(np.array(SKIN, np.uint8))
    expected = np.degrees(np.arctan((lightness - 50) / yellow))
    assert skin_tone.typology_angle(pixels, mask) == pytest.approx(expected)
    darker = np.uint8(pixels * 0.5)
    assert skin_tone.typology_angle(darker, mask) < expected - 30


def test_hair_a_ruler_and_dark_corners_do_not_darken_skin(image):
    pixels, mask = image
    before = skin_tone.typology_angle(pixels, mask)
    for cut in (np.s_[:, ::5], np.s_[36:], np.s_[:8, :8]):
        dirty = pixels.copy()
        dirty[cut] = 20
        assert skin_tone.typology_angle(dirty, mask) == pytest.approx(before)


def test_without_skin_there_is_no_estimate(image):
    pixels, mask = image
    assert np.isnan(skin_tone.typology_angle(pixels, np.ones_like(mask)))


def test_groups_begin_with_the_lightest():
    found = skin_tone.tone_groups([60, 55, 30, 5, -40, np.nan, 90, -90])
    assert list(found[:5]) == ["very light", "light", "intermediate", "brown", "dark"]
    assert pd.isna(found[5]) and list(found[6:]) == ["very light", "dark"]
    assert next(iter(found.categories)) == "very light" and found.ordered


def test_skin_tone_is_an_attribute_of_the_subgroups(tmp_path):
    files = open_dataset(make_dataset(tmp_path / "data"))
    ids = files.metadata["image_id"].to_numpy()[::-1][:20]
    files.masks.pop(ids[3])
    tones = skin_tone.skin_tones(files, ids, 32)
    assert pd.isna(tones[3]) and tones.isna().sum() == 1
    table = files.metadata.set_index("image_id").loc[ids].reset_index()
    assert "skin_tone" not in groups(table)
    found = groups(table.assign(skin_tone=tones))["skin_tone"]
    assert found.loc[ids[3]] == "unknown" and list(found.cat.categories)[-1] == "unknown"
