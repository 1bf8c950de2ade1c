"""The ABCDE rule in numbers: asymmetry, border, colour and diameter of a lesion from its mask.

Evolution, the E, needs a second visit. A lesion that the edge of the image cuts off is measured
as it is seen, and without a scale in the image a diameter is not in millimetres.
"""

import numpy as np
from scipy.ndimage import label
from scipy.spatial.distance import pdist

MIN_PIXELS = 50  # the shape of a smaller lesion means nothing


def measure(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Asymmetry, border, colours and diameter of the mask's largest connected component.

    image: uint8 (height, width, 3); mask: bool (height, width). The diameter is a fraction of
    the image's diagonal, 0 to 1, so that it does not depend on the resolution. All are NaN for
    fewer than `MIN_PIXELS` pixels.
    """
    components, _ = label(mask, structure=np.ones((3, 3)))
    mask = mask & (components == np.bincount(components[mask], minlength=1).argmax())
    if mask.sum() < MIN_PIXELS:
        return dict.fromkeys(("asymmetry", "border", "colours", "diameter"), float("nan"))
    return {
        "asymmetry": asymmetry(mask),
        "border": border_irregularity(mask),
        "colours": colour_variegation(image, mask),
        "diameter": diameter(mask) / float(np.hypot(*mask.shape)),
    }


def asymmetry(mask: np.ndarray) -> float:
    """The fraction of the lesion whose mirror image is skin, mean of two axes; 0 (symmetric) to 1.

    mask: bool (height, width). The axes are the principal axes of its pixels (Stoecker, Li and
    Moss, Comput Med Imaging Graph 16, 1992); those of a round lesion are arbitrary. Only the
    outline counts, not colours or structures within.
    """
    points = np.argwhere(mask)
    centre = points.mean(0)
    axes = np.linalg.eigh(np.cov((points - centre).T))[1].T
    mirrored = [mirror(points, centre, axis) for axis in axes]
    return float(np.mean([1 - _fraction_inside(mask, points) for points in mirrored]))


def mirror(points: np.ndarray, centre: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Points (n, 2) mirrored in the line through `centre` (2,) that is perpendicular to `axis`.

    axis: a vector (2,) of length 1.
    """
    return points - 2 * np.outer((points - centre) @ axis, axis)


def _fraction_inside(mask: np.ndarray, points: np.ndarray) -> float:
    framed = np.pad(mask, 1)  # points outside of the image land on this frame of skin
    indices = np.clip(np.rint(points).astype(int) + 1, 0, np.array(framed.shape) - 1)
    return framed[tuple(indices.T)].mean()


def border_irregularity(mask: np.ndarray) -> float:
    """Perimeter squared over 4 pi times the area: 1 for a disc, more for an irregular border.

    mask: bool (height, width). The perimeter is estimated from the border's crossings with lines
    in four directions (Crofton's formula; Legland, Kiêu and Devaux, Image Anal Stereol 26, 2007),
    which makes a straight border up to 6% too short. Structure finer than a pixel, or smoothed
    by whoever drew the mask, is not seen (Claridge et al., J Biomed Eng 14, 1992).
    """
    framed = np.pad(mask, 1)
    straight = (framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum()
    falling, rising = framed[1:, 1:] != framed[:-1, :-1], framed[1:, :-1] != framed[:-1, 1:]
    perimeter = np.pi / 8 * (straight + (falling.sum() + rising.sum()) / np.sqrt(2))
    return float(perimeter**2 / (4 * np.pi * mask.sum()))


def colour_variegation(image: np.ndarray, mask: np.ndarray) -> float:
    """The root of the summed variances of red, green and blue in the lesion, 0 to 0.87.

    image: uint8 (height, width, 3), scaled to [0, 1]; mask: bool (height, width). 0 is a single
    colour. Hairs, reflections and uneven light count too.
    """
    return float(np.linalg.norm(image[mask].std(0) / 255))


def diameter(mask: np.ndarray) -> float:
    """The largest distance between two pixels of the mask, bool (height, width), in pixels."""
    rows = np.flatnonzero(mask.any(1))
    first = mask[rows].argmax(1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(1)
    outermost = np.r_[np.c_[rows, first], np.c_[rows, last]]
    return float(pdist(outermost).max())
