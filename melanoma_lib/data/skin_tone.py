"""Skin tone of the skin beside a lesion, by its individual typology angle.

HAM10000 does not record it. The angle is an estimate from a photograph: lamps, white balance and
vignettes change it, and skin beside a lesion may be sunburnt or inflamed. It orders groups of
images; it does not say what a person's skin is.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode, read_mask

# Degrees above which skin is called so, the lightest first (Del Bino and Bernerd, 2013).
GROUPS = {"very light": 55.0, "light": 41.0, "intermediate": 28.0, "tan": 10.0, "brown": -30.0,
          "dark": -90.0}  # fmt: skip
MIN_SKIN = 0.02  # of the image: with less skin beside the lesion there is no estimate
DARKER = 15.0  # units of lightness below the median: hair, ruler, ink, a dark corner
# From linear sRGB to CIE XYZ, relative to the white of daylight (D65).
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(1)


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """sRGB pixels, uint8 (..., 3), in CIE L*a*b*: L* in 0 to 100, a* and b* about -100 to 100."""
    values = pixels / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    ratio = linear @ TO_XYZ.T / WHITE
    cube = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(cube, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def typology_angle(image: np.ndarray, mask: np.ndarray) -> float:
    """The individual typology angle of the skin beside a lesion, in degrees, -90 to 90.

    image: uint8 (height, width, 3); mask: boolean (height, width), of the lesion. The arctangent of
    (L* - 50) / b* at the medians of the skin's pixels (Chardon et al., 1991), as Kinyanjui et al.
    (2020) estimate it; pixels much darker than the median, of hair, a ruler, ink or dark corners,
    are left out first. NaN where hardly any skin is seen.
    """
    skin = to_lab(image[~mask])  # (pixels, 3)
    if len(skin) < MIN_SKIN * mask.size:
        return float("nan")
    lightness = skin[:, 0]
    skin = skin[lightness > np.median(lightness) - DARKER]
    lightness, _, yellow = np.median(skin, axis=0)
    # Without yellow it is 90 degrees, and not more, as in bluish light it would be.
    return float(np.degrees(np.arctan2(lightness - 50, max(yellow, 0.0))))


def skin_tones(files: DatasetFiles, image_ids: Collection[str], size: int) -> pd.Categorical:
    """The group of each image, the lightest first, from images of `size` pixels; NaN: no estimate.

    Images without a lesion mask have none. In the order of `image_ids`.
    """
    pixels = decode(files, size)[files.rows_of(image_ids)]
    return tone_groups([
        typology_angle(image, read_mask(files.masks[name], size)) if name in files.masks else np.nan
        for image, name in zip(pixels, image_ids, strict=True)
    ])  # fmt: skip


def tone_groups(angles: Sequence[float]) -> pd.Categorical:
    """The group of `GROUPS` that each angle (n,) belongs to, as ordered categories."""
    edges = [90.0, *GROUPS.values()][::-1]
    found = pd.cut(np.asarray(angles, float), edges, labels=list(GROUPS)[::-1], include_lowest=True)
    return found.reorder_categories(list(GROUPS), ordered=True)
