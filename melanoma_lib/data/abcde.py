"""The ABCDE rule in numbers: asymmetry, border, colour and diameter of a lesion from its mask.

Evolution, the E, needs a second visit. The numbers depend on the mask; one that the edge of the
image cuts off has neither its true shape nor its true size, and without a scale in the image a
diameter is not in millimetres.
"""

import numpy as np
from scipy.ndimage import label
from scipy.spatial.distance import pdist

LEAST = 50  # pixels; fewer have no shape worth measuring


def measure(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The four measures of the mask's largest piece; NaN if it has fewer than 50 pixels.

    image: uint8 (height, width, 3); mask: bool (height, width). The diameter is a share of the
    image's diagonal, 0 to 1, and so does not depend on the number of pixels.
    """
    pieces, _ = label(mask, structure=np.ones((3, 3)))
    mask = mask & (pieces == np.bincount(pieces[mask], minlength=1).argmax())
    if mask.sum() < LEAST:
        return dict.fromkeys(("asymmetry", "border", "colours", "diameter"), float("nan"))
    return {
        "asymmetry": asymmetry(mask),
        "border": border_irregularity(mask),
        "colours": colour_variegation(image, mask),
        "diameter": diameter(mask) / float(np.hypot(*mask.shape)),
    }


def asymmetry(mask: np.ndarray) -> float:
    """Share of the lesion that mirrors onto skin, mean of its two principal axes; 0 to 1.

    0 is a perfect mirror image. Only the outline counts, not colours or structures within, and
    the axes of a round lesion are arbitrary (Stoecker, Li and Moss, Comput Med Imaging Graph 16,
    1992).
    """
    points = np.argwhere(mask)
    centre = points.mean(0)
    axes = np.linalg.eigh(np.cov((points - centre).T))[1].T  # directions of least and most spread
    return float(np.mean([1 - _inside(mask, mirror(points, centre, axis)) for axis in axes]))


def mirror(points: np.ndarray, centre: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Moves points (n, 2) to the other side of the line through `centre` at right angles to `axis`.

    axis: a direction of length 1.
    """
    return points - 2 * np.outer((points - centre) @ axis, axis)


def _inside(mask: np.ndarray, points: np.ndarray) -> float:
    framed = np.pad(mask, 1)  # a frame of skin, for points that fall out of the picture
    at = np.clip(np.rint(points).astype(int) + 1, 0, np.array(framed.shape) - 1)
    return framed[tuple(at.T)].mean()


def border_irregularity(mask: np.ndarray) -> float:
    """Perimeter squared over 4 pi times the area: 1 for a disc, more for every notch.

    The perimeter is estimated from the border's crossings with lines in four directions
    (Crofton's formula; Legland, Kiêu and Devaux, Image Anal Stereol 26, 2007): a straight
    border comes out up to 6 % too short. Finer notches than a pixel, and all that whoever drew
    the mask has smoothed, are not seen (Claridge et al., J Biomed Eng 14, 1992).
    """
    framed = np.pad(mask, 1)
    straight = (framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum()
    falling, rising = framed[1:, 1:] != framed[:-1, :-1], framed[1:, :-1] != framed[:-1, 1:]
    perimeter = np.pi / 8 * (straight + (falling.sum() + rising.sum()) / np.sqrt(2))
    return float(perimeter**2 / (4 * np.pi * mask.sum()))


def colour_variegation(image: np.ndarray, mask: np.ndarray) -> float:
    """Spread of the colours in the lesion: standard deviations of red, green, blue as a length.

    0 is a single colour; each deviation is a share of the full range, so 0.87 is the most
    there can be. Hairs, shine and uneven light count too, and colours are not named.
    """
    return float(np.linalg.norm(image[mask].std(0) / 255))


def diameter(mask: np.ndarray) -> float:
    """The largest distance between two pixels of the lesion, in pixels."""
    rows = np.flatnonzero(mask.any(1))
    first = mask[rows].argmax(1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(1)
    outermost = np.r_[np.c_[rows, first], np.c_[rows, last]]
    return float(pdist(outermost).max())
