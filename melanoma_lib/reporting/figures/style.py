"""How figures look, colours and markers of the models, and `save`."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import matplotlib.style
from IPython.display import Image
from matplotlib.figure import Figure

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path
from melanoma_lib.core.provenance import PDF_FIELD, PNG_FIELD, current_provenance
from melanoma_lib.reporting.figures.catalogue import CATALOG, EXTERNAL

WIDTH = 16 / 2.54  # inches: the text width of the thesis page
PNG_DPI = 200  # pixels an inch of a saved picture
FONT_SIZE = 8  # points, of most text in a figure
DARK, GREY, LIGHT, PALE = "#333333", "#666666", "#BBBBBB", "#E6E6E6"
MALIGNANT, BENIGN = "#D55E00", LIGHT  # apart in grey too
# Okabe and Ito's colours; marker and line change with them, so that grey prints stay readable.
MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MODEL_LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE = {
    "figure.figsize": (WIDTH, 3),
    "figure.dpi": 110,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": FONT_SIZE,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": PALE,
    "legend.frameon": False,
    "legend.handlelength": 3,  # shows every line style
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "lines.markeredgewidth": 0.8,
    "pdf.fonttype": 42,  # text stays text in the PDF
}
_current = ContextVar("style", default=STYLE)  # another one inside the block of `page`


@contextmanager
def style() -> Iterator[None]:
    """Applies the thesis style inside the block (or, as `@style()`, inside a function) only.

    It begins with matplotlib's defaults, whatever a matplotlibrc file says.
    """
    with matplotlib.style.context(["default", _current.get()]):
        yield


@contextmanager
def page(width: float, font_size: float) -> Iterator[None]:
    """Inside the block, figures are `width` cm wide and most of their text has `font_size` points.

    Raises `MelanomaError` where labels would not fit into the width.
    """
    if not (5 <= font_size <= 14 and 1.5 * font_size <= width <= 40):
        raise MelanomaError(
            f"text of {font_size:g} pt in figures of {width:g} cm is not legible; it may have 5 to "
            "14 pt, and the figures 1.5 cm for each point, at most 40 cm"
        )
    sizes = ("font.size", "axes.titlesize", "axes.labelsize")
    changed = {name: STYLE[name] * font_size / FONT_SIZE for name in sizes}
    token = _current.set(STYLE | changed | {"figure.figsize": (width / 2.54, 3)})
    try:
        yield
    finally:
        _current.reset(token)


def page_width() -> float:
    """Inches: how wide a figure is in the style that applies."""
    return matplotlib.rcParams["figure.figsize"][0]


def text_size(size: float) -> float:
    """A size in points that grows with the style's text; `size` is what it is at `FONT_SIZE`."""
    return size * matplotlib.rcParams["font.size"] / FONT_SIZE


def is_narrow() -> bool:
    """Whether the width holds fewer letters than the figures were made for."""
    return page_width() * 72 / matplotlib.rcParams["font.size"] < 52


@style()
def save(
    figure: Figure, name: str, folder: Path | str, variant: str = "", note: str = ""
) -> Image:
    """Writes `<name>[-variant].png` and `.pdf` into `folder`.

    Equal figures give equal bytes; they carry where they come from (`core.provenance`). `note` is
    set small and grey at the lower right edge. What is returned shows the picture, with its caption
    as its description, where a notebook's cell ends with it.
    """
    captions = CATALOG | EXTERNAL
    if name not in captions:
        raise MelanomaError(f"unknown figure {name!r}; known figures: {', '.join(CATALOG)}")
    if variant and not re.fullmatch(r"[A-Za-z0-9_.-]+", variant):
        raise MelanomaError(f"figure variant {variant!r} may hold letters, digits, _ . - only")
    # A super-label, because the layout makes room for it.
    figure.supxlabel(textwrap.fill(note, 110), x=0.995, ha="right", size=text_size(7), color=GREY)
    figure.set_figheight(text_size(figure.get_figheight()))  # room for larger text
    stem = f"{name}-{variant}" if variant else name
    origin = current_provenance() or None
    metadata_of = {
        ".png": {"Software": None} | ({PNG_FIELD: origin} if origin else {}),
        ".pdf": {"Creator": None, "Producer": None, "CreationDate": None, PDF_FIELD: origin},
    }
    paths = [Path(folder) / (stem + suffix) for suffix in metadata_of]
    for path in paths:
        with atomic_path(path) as temporary:
            metadata = metadata_of[path.suffix]
            figure.savefig(temporary, dpi=PNG_DPI, metadata=metadata)
        figure.set_layout_engine("none")  # places are found once, and are the same in both
    alt = captions[name] + f" ({variant})" * bool(variant)
    width = round(figure.get_figwidth() * STYLE["figure.dpi"])
    return Image(filename=paths[0], width=width, alt=alt)
