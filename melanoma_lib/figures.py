"""Every figure of the thesis: data in, a matplotlib figure out; the style, the captions, `save`."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from fontTools import subset
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path
from melanoma_lib.data.classes import CLASS_NAMES, DIAGNOSES, DISPLAY_NAMES, MELANOMA

WIDTH = 16 / 2.54  # inches: the text width of the thesis page
PNG_DPI = 200  # pixels an inch of a saved picture
FONT_SIZE = 8  # points, of most text in a figure; `page` changes both for a block
DARK, GREY, LIGHT, PALE = "#333333", "#666666", "#BBBBBB", "#E6E6E6"
MALIGNANT, BENIGN = "#D55E00", LIGHT  # apart in grey too
MALIGNANCY_KEY = [Patch(color=MALIGNANT, label="malignant"), Patch(color=BENIGN, label="benign")]
MALIGNANT_CODES = [diagnosis.code for diagnosis in DIAGNOSES if diagnosis.malignant]
# Okabe and Ito's colours; marker and line change with them, so that grey prints stay readable.
MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MODEL_LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE = {
    "figure.constrained_layout.use": True,
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
# A PDF places every letter itself. Tables of a font that say how to place letters are no use in it,
# and take most of the time that embedding a font takes.
getattr(subset.Options, "_drop_tables_default", []).extend(["GDEF", "GPOS", "GSUB"])
CHAPTERS = {
    "01": "The data",
    "02": "Preparing the images",
    "03": "The architectures",
    "04": "Training",
    "05": "Calibration",
    "06": "Finding melanoma",
    "07": "Explaining a prediction",
    "08": "Comparing the models",
}
CATALOG = {
    "01-1-class-counts": "Images and lesions per diagnosis, with their shares of all images and of "
    "all lesions.",
    "01-2-patients": "Age, sex and body site, each lesion counted once. Beside the bars: lesions, "
    "and the share of them that is malignant.",
    "01-3-examples": "Dermatoscopic images of the seven diagnoses, one row per diagnosis.",
    "01-4-lesion-leak": "Images per lesion (left), and the share of held-out images whose lesion "
    "also has images in the training part when the data are split by image (right).",
    "01-5-abcde": "Asymmetry, border, colour and diameter, measured with the lesion masks. Boxes "
    "span the quartiles, whiskers the 5th to the 95th percentile; dashed: the median of melanoma.",
    "02-1-augmentation": "One training image and random augmentations of it, as in training.",
    "03-1-architectures": "Trainable parameters, and multiply-adds to classify one image.",
    "04-1-training-curves": "Loss and accuracy on the training and the validation part after "
    "each epoch. The weights of the marked epoch are kept.",
    "04-2-confusion-matrix": "Confusion matrix on the test part: number of images and share of "
    "the row (true diagnosis). Darker cells hold larger shares.",
    "05-1-reliability": "Accuracy against confidence on the test part before and after "
    "temperature scaling, with 95% intervals of independent images and, below, images per bin. On "
    "the diagonal confidence equals accuracy; ECE is the expected calibration error.",
    "05-2-temperature": "Negative log-likelihood on the validation part against the temperature "
    "that divides the logits. Markers: fitted temperatures; at temperature 1 nothing changes.",
    "05-3-melanoma-reliability": "Share of melanomas against the predicted probability of melanoma "
    "on the test part, before and after temperature scaling, with 95% intervals of independent "
    "images and, below, images per bin. On the diagonal the probability can be taken at its word; "
    "ECE is its mean distance from there.",
    "06-1-roc": "Receiver operating characteristic for melanoma against all other diagnoses on "
    "the test part, with the chosen operating points. Right: the region framed on the left.",
    "06-2-thresholds": "Sensitivity and specificity for melanoma on the test part against the "
    "threshold on the predicted probability. Markers: thresholds chosen on the validation part.",
    "06-3-operating-points": "Sensitivity and specificity for melanoma on the test part at the "
    "operating points chosen on the validation part, with 95% intervals. Dashed: the target.",
    "06-4-decision-curves": "Net benefit of acting on the predicted probability of melanoma, on "
    "the test part, against the threshold at which one acts; one unit is one melanoma found per "
    "image without a false alarm. Grey: acting on every image, or on none.",
    "07-1-grad-cam": "Grad-CAM heat maps of the models: where the evidence for melanoma lies in "
    "the image, whatever its diagnosis. Dark all over: nothing speaks for melanoma; bright all "
    "over: all places speak alike, however little. White outline: the lesion mask.",
    "07-2-mask-overlap": "Grad-CAM maps of the diagnosis that a model predicts, scored against "
    "the lesion masks of the test part, and how much more of its probability is lost with the "
    "hottest fifth of the pixels than with the coldest (ROAD): means with 95% intervals. Grey: the "
    "models with random weights, and maps that do not look at the image (dashed; their ROAD is of "
    "the first model).",
    "07-3-doubtful-maps": "Test images, picked by rule, whose Grad-CAM maps should not be taken "
    "at their word. Dark all over: nothing speaks for the class; bright all over: all places "
    "speak alike, however little. White outline: the lesion mask.",
    "07-4-randomised-weights": "How alike the maps of a model are to its own while its weights are "
    "made random layer by layer, from the output on: mean rank correlation, with 95% intervals. A "
    "map that stays alike does not show what the model has learned. Empty maps are left out.",
    "07-5-agreement": "How alike the Grad-CAM maps of two models are on the same test images, each "
    "for the class its model predicts, and how alike to a blob in the middle of the image: mean "
    "rank correlation, with 95% intervals.",
    "08-1-comparison": "The models on the same test part, with 95% intervals and values.",
    "08-2-training-curves": "Loss and accuracy of each model on the training and the validation "
    "part after each epoch. The weights of the marked epoch are kept.",
    "08-3-confusion-matrices": "Confusion matrices on the test part: number of images and share "
    "of the row (true diagnosis). Darker cells hold larger shares.",
    "08-4-accuracy-latency": "Accuracy on the test part against the time to classify one image, "
    "with 95% intervals. Larger markers: more parameters, given in millions (M).",
    "08-5-subgroups": "One model on groups of the test part, with 95% intervals. In parentheses: "
    "lesions, of them melanomas. Hollow and grey: groups of few lesions. Dashed: the whole test "
    "part.",
    "08-6-price-of-leakage": "One architecture trained and tested on data split by lesion and on "
    "data split by image, where test lesions were seen in training, with 95% intervals.",
}

# Drawn by `melanoma evaluate` into its own folder, and no part of a run.
EXTERNAL = {
    "external-1-reliability": "Accuracy against confidence before and after temperature scaling, "
    "on the run's own test part and on images from elsewhere, with 95% intervals of independent "
    "images and, below, images per bin. The temperature is the same on both.",
    "external-2-operating-points": "Sensitivity and specificity for melanoma on the run's own test "
    "part and on images from elsewhere, at thresholds carried over unchanged, with 95% intervals. "
    "Dashed: the target on the validation part.",
}
# Drawn once per model, each in a file that ends in the model's key.
PER_MODEL = ("04-1-training-curves", "04-2-confusion-matrix", "08-5-subgroups")


# -- style, saving, catalogue ------------------------------------------------------------------


def style() -> AbstractContextManager:
    """Applies the thesis style inside the block (or, as `@style()`, inside a function) only."""
    return matplotlib.rc_context(STYLE)


@contextmanager
def page(width: float, font_size: float) -> Iterator[None]:
    """Inside the block, figures are `width` cm wide and most of their text has `font_size` points.

    Raises `MelanomaError` where labels would not fit into the width.
    """
    global WIDTH
    if not (5 <= font_size <= 14 and 1.5 * font_size <= width <= 40):
        raise MelanomaError(
            f"text of {font_size:g} pt in figures of {width:g} cm is not legible; it may have 5 to "
            "14 pt, and the figures 1.5 cm for each point, at most 40 cm"
        )
    before = WIDTH, dict(STYLE)
    WIDTH = width / 2.54
    for name in ("font.size", "axes.titlesize", "axes.labelsize"):
        STYLE[name] *= font_size / FONT_SIZE
    try:
        yield
    finally:
        WIDTH = before[0]
        STYLE.update(before[1])


def _points(size: float) -> float:
    """A size that grows with the style's text; `size` is what it is at `FONT_SIZE`."""
    return size * STYLE["font.size"] / FONT_SIZE


def _narrow() -> bool:
    """Whether the width holds fewer letters than the figures were made for."""
    return WIDTH * 72 / STYLE["font.size"] < 52


@dataclass(frozen=True)
class Saved:
    """The files of a figure; as the last line of a notebook's cell it shows the picture saved."""

    png: Path
    pdf: Path
    caption: str

    def __repr__(self) -> str:
        return f"<figure {self.png.stem}>"

    def _repr_png_(self) -> tuple[bytes, dict]:
        """The picture, its size on a screen, and its description for pages made of a notebook."""
        picture = self.png.read_bytes()
        pixels = np.frombuffer(picture[16:24], ">u4")  # width and height, by the PNG standard
        width, height = (pixels * STYLE["figure.dpi"] // PNG_DPI).tolist()
        return picture, {"width": width, "height": height, "alt": self.caption}


@style()
def save(
    figure: Figure, name: str, folder: Path | str, variant: str = "", note: str = ""
) -> Saved:
    """Writes `<name>[-variant].png` and `.pdf` into `folder` and closes the figure.

    Equal figures give equal bytes. `note` is set small and grey at the lower right edge. What
    is returned shows the picture where a notebook's cell ends with it.
    """
    captions = CATALOG | EXTERNAL
    if name not in captions:
        raise MelanomaError(f"unknown figure {name!r}; known figures: {', '.join(CATALOG)}")
    if variant and not re.fullmatch(r"[A-Za-z0-9_.-]+", variant):
        raise MelanomaError(f"figure variant {variant!r} may hold letters, digits, _ . - only")
    # A super-label, because the layout makes room for it.
    figure.supxlabel(textwrap.fill(note, 110), x=0.995, ha="right", size=_points(7), color=GREY)
    figure.set_figheight(_points(figure.get_figheight()))  # room for larger text
    stem = f"{name}-{variant}" if variant else name
    left_out = {".png": ["Software"], ".pdf": ["Creator", "Producer", "CreationDate"]}
    paths = [Path(folder) / (stem + suffix) for suffix in left_out]
    try:
        for path in paths:
            with atomic_path(path) as temporary:
                metadata = dict.fromkeys(left_out[path.suffix])
                figure.savefig(temporary, dpi=PNG_DPI, metadata=metadata)
            with matplotlib.rc_context({"figure.constrained_layout.use": False}):
                figure.set_layout_engine(None)  # places are found once, and are the same in both
    finally:
        plt.close(figure)
    return Saved(*paths, captions[name] + f" ({variant})" * bool(variant))


def catalog_page() -> str:
    """The catalogue as Markdown by chapter."""
    lines = ["# Figures", ""]
    for chapter, title in CHAPTERS.items():
        lines += [f"## {chapter} {title}", "", "| Figure | Caption |", "| --- | --- |"]
        names = [name for name in CATALOG if name.startswith(chapter)]
        lines += [f"| `{name}` | {CATALOG[name]} |" for name in names] + [""]
    return "\n".join(lines)


# -- helpers -----------------------------------------------------------------------------------


def _grid(
    count: int, columns: int, height: float, labels: float = 0.0, x: str = "", y: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `columns` side by side, with a common vertical axis.

    height: inches a row; labels: inches below the lowest row; x, y: the labels of shared axes.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (WIDTH, rows * height + labels * (2 if count % columns else 1))  # also above a gap
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=bool(x),
                                sharey=True)
    for spare in grid.flat[count:]:
        spare.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(y)
    for axes in grid.flat[count - columns : count]:
        axes.set_xlabel(x)
        axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def _of(label: str, count: str) -> str:
    """An axis label with what its share is a share of, in two lines where the page is narrow."""
    gap = "\n" if _narrow() else " "
    return f"{label}{gap}({count})"


def _line(index: int) -> dict:
    """Colour and line style of the model at position `index`."""
    return {"color": MODEL_COLOURS[index % 6], "linestyle": MODEL_LINES[index % 6]}


def _mark(index: int) -> dict:
    """Colour and marker of the model at position `index`."""
    return {"color": MODEL_COLOURS[index % 6], "linestyle": "", "marker": MARKERS[index % 6]}


def _point_marks(labels: Iterable[str]) -> dict[str, dict]:
    """An open marker for each operating point."""
    look = {"linestyle": "", "color": "black", "markerfacecolor": "white"}
    labels = enumerate(dict.fromkeys(labels))
    return {label: look | {"marker": MARKERS[index % 6]} for index, label in labels}


def _key(label: str, **look) -> Line2D:
    """A legend entry, dark grey unless a colour is given."""
    return Line2D([], [], label=label, **{"color": DARK} | look)


def _names(codes: Iterable[str], width: int = 99) -> list[str]:
    """Spelled-out class names, wrapped at `width` characters."""
    names = [DISPLAY_NAMES.get(code, code) for code in codes]
    return [textwrap.fill(name, width, break_long_words=False) for name in names]


def _percent(share: float, _position: int) -> str:
    """Formats the ticks of an axis of fractions."""
    return f"{round(100 * share, 6):g}%"


def _counts(axis: Axis) -> None:
    """Shows whole numbers with thousands separators on an axis."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter("{x:,.0f}")


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows 0, 1, ... of a horizontal plot, the first at the top."""
    if not axes.yaxis.get_tick_params()["labelleft"]:  # the panel to the left has the names
        axes.yaxis.set_visible(False)
        return
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str],
    height: float = 0.75, shift: float = 0.0, **look,
) -> None:
    """Named horizontal bars with a text beside each, the first at the top."""
    bars = axes.barh(np.arange(len(values)) + shift, values, height, **look)
    axes.bar_label(bars, texts, padding=3, size=_points(7.5))
    axes.margins(x=0.35)
    _rows(axes, names)


def _dots(axes: Axes, rows: pd.DataFrame, models: Sequence[str], text: str = "") -> None:
    """One dot with its interval per row of model, value, low, high; baselines in grey.

    text: the format of the values written at the right edge. Rows without a value stay empty.
    """
    rows = rows.dropna(subset="value").astype(dict.fromkeys(("value", "low", "high"), float))
    for row in rows.to_dict("records"):
        position = models.index(row["model"])
        look = _mark(position)
        if row["model"].startswith(("baseline", "random weights")):
            look |= {"color": GREY, "marker": "x"}
        if row["model"].startswith("baseline"):
            axes.axvline(row["value"], color=GREY, linestyle="--", linewidth=0.8, zorder=1)
        axes.hlines(position, row["low"], row["high"], color=look["color"])
        axes.plot(row["value"], position, **look)
        axes.text(1.02, position, text.format(row["value"]), va="center",
                  transform=axes.get_yaxis_transform())
    _rows(axes, models)
    axes.grid(axis="x")
    axes.margins(x=0.08)


def _dot_panels(
    table: pd.DataFrame, column: str, columns: int, text: str
) -> tuple[Figure, list[Axes]]:
    """One panel of dots with intervals and values per value of `column`."""
    models, groups = list(table["model"].unique()), table.groupby(column, sort=False)
    figure, panels = _grid(len(groups), columns, 0.65 + 0.22 * len(models))
    for axes, (name, rows) in zip(panels, groups, strict=True):
        _dots(axes, rows, models, text)
        axes.set_xlabel(name)
    return figure, panels


def _picture(axes: Axes, image: np.ndarray, **options) -> None:
    """An image without ticks and frame."""
    axes.imshow(image, **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


# -- the figures -------------------------------------------------------------------------------


@style()
def class_counts(metadata: pd.DataFrame) -> Figure:
    """Bars of images and lesions per class; metadata: one row per image with lesion_id and dx."""
    images = metadata["dx"].value_counts()
    lesions = metadata.drop_duplicates("lesion_id")["dx"].value_counts().reindex(images.index)
    colours = [MALIGNANT if code in MALIGNANT_CODES else BENIGN for code in images.index]
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    for counts, unit, shift, alpha in ((images, "images", -0.2, 1), (lesions, "lesions", 0.2, 0.5)):
        texts = [f"{count:,} {unit} ({count / counts.sum():.1%})" for count in counts]
        _bars(axes, _names(images.index), counts, texts, 0.38, shift, color=colours, alpha=alpha)
    _counts(axes.xaxis)
    axes.set_xlabel(f"Count (all: {images.sum():,} images of {lesions.sum():,} lesions)")
    figure.legend(handles=MALIGNANCY_KEY, loc="outside upper right", ncols=2)
    return figure


@style()
def patients(metadata: pd.DataFrame) -> Figure:
    """Age, sex and body site by malignancy, each lesion once.

    metadata: one row per image with lesion_id, dx, age (years), sex and localization.
    """
    import seaborn as sns  # slow to import

    lesions = metadata.drop_duplicates("lesion_id")
    lesions = lesions.assign(malignant=lesions["dx"].isin(MALIGNANT_CODES))
    titles = {"age": "Age", "sex": "Sex", "localization": "Body site"}
    known = {column: lesions[lesions[column].notna() & ~lesions[column].isin(["unknown", ""])]
             for column in titles}  # fmt: skip
    mosaic = [["age", "localization"], ["sex", "localization"]]
    figure, panels = plt.subplot_mosaic(mosaic, figsize=(WIDTH, 4.2), height_ratios=[2.4, 1])
    sns.histplot(
        lesions, x="age", hue="malignant", hue_order=[True, False], palette=[MALIGNANT, BENIGN],
        bins=np.arange(-2.5, 103, 5), stat="proportion", common_norm=False,  # ages: 0, 5, 10, ...
        element="step", alpha=0.5, legend=False, ax=panels["age"],
    )
    panels["age"].set(xlabel="Age (years)", ylabel="Share of the group")
    panels["age"].yaxis.set_major_formatter(_percent)
    for column in ("sex", "localization"):
        axes, groups = panels[column], known[column].groupby(column)["malignant"]
        groups = groups.agg(["size", "sum", "mean"]).sort_values("size", ascending=False)
        texts = [f"{size:,.0f} ({share:.0%})" for size, _, share in groups.to_numpy()]
        _bars(axes, groups.index, groups["size"], texts, color=BENIGN)
        axes.barh(range(len(groups)), groups["sum"], 0.75, color=MALIGNANT)
        _counts(axes.xaxis)
        axes.set_xlabel("Lesions (share malignant)")
    for column, title in titles.items():
        unknown = len(lesions) - len(known[column])
        panels[column].set_title(f"{title} ({unknown:,} of {len(lesions):,} unknown)")
    figure.legend(handles=MALIGNANCY_KEY, loc="outside upper right", ncols=2)
    return figure


@style()
def examples(images: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """A grid of images, one row per class that has any.

    images: class code -> up to 6 images, uint8 (H, W, 3), all of one shape.
    """
    codes = [code for code in CLASS_NAMES if len(images.get(code, ()))]
    columns = max(len(images[code]) for code in codes)
    height, width, _ = np.shape(images[codes[0]][0])
    tile = min((WIDTH - 1.2) / columns * height / width, 1.2)
    figure, grid = plt.subplots(len(codes), columns, figsize=(WIDTH, len(codes) * (tile + 0.05)),
                                squeeze=False, layout="compressed")
    for row, code, name in zip(grid, codes, _names(codes, 12), strict=True):
        for axes, image in zip(row, images[code], strict=False):
            _picture(axes, image)
        for axes in row[len(images[code]):]:
            axes.set_axis_off()
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


@style()
def lesion_leak(images_per_lesion: pd.Series, leak: pd.Series) -> Figure:
    """Images per lesion, and what splitting by image leaks.

    images_per_lesion: one count per lesion; leak: for each held-out image (index: class code),
    whether its lesion is also in training.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    counts = images_per_lesion.value_counts().sort_index()
    bars = left.bar(counts.index, counts, color=LIGHT)
    left.bar_label(bars, fmt="{:,.0f}", size=_points(7.5))
    _counts(left.yaxis)
    left.set(xlabel="Images of the lesion", ylabel=f"Lesions (n = {counts.sum():,})",
             xticks=range(1, counts.index.max() + 1))
    rows = leak.groupby(level=0).agg(["mean", "size"]).sort_values("mean", ascending=False)
    rows.loc["all diagnoses"] = leak.mean(), len(leak)
    sizes = zip(_names(rows.index), rows["size"], strict=True)
    names = [f"{name} ({size:,.0f})" for name, size in sizes]
    colours = [LIGHT] * (len(rows) - 1) + [DARK]
    _bars(right, names, rows["mean"], [f"{share:.0%}" for share in rows["mean"]], color=colours)
    right.xaxis.set_major_formatter(_percent)
    right.set_xlabel("Held-out images (n) with\na lesion also in training")
    return figure


@style()
def abcde(table: pd.DataFrame) -> Figure:
    """Box plots of asymmetry, border, colours and diameter by class, melanoma highlighted.

    table: one row per lesion with dx and the columns of `abcde.measure`.
    """
    titles = {
        "asymmetry": "Asymmetry (share\nnot mirrored)",
        "border": "Border (a disc\nhas 1)",
        "colours": "Colours (standard\ndeviation)",
        "diameter": "Diameter (share of\nthe diagonal)",
    }
    groups = table.groupby("dx")  # alphabetical by code, as CLASS_NAMES
    figure, panels = plt.subplots(1, 4, figsize=(WIDTH, 3.4), sharey=True)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        values = {code: group.dropna() for code, group in groups[column]}
        drawn = axes.boxplot(  # seaborn's warns under matplotlib 3.11
            list(values.values()), positions=range(len(values)), orientation="horizontal",
            widths=0.6, whis=(5, 95), showfliers=False, showcaps=False, patch_artist=True,
            medianprops={"color": "black"}, manage_ticks=False,
        )
        for code, box in zip(values, drawn["boxes"], strict=True):
            box.set_facecolor(MALIGNANT if code == MELANOMA else PALE)
        if MELANOMA in values:
            axes.axvline(values[MELANOMA].median(), color=MALIGNANT, linestyle="--",
                         linewidth=0.8, zorder=0)
        axes.set_xlabel(title)
        _rows(axes, [f"{DISPLAY_NAMES[code]}\nn = {len(group):,}" for code, group in groups])
    return figure


@style()
def augmentation(original: np.ndarray, augmented: np.ndarray) -> Figure:
    """One image beside its augmentations: uint8 (H, W, 3) and uint8 (k, H, W, 3)."""
    rows = 2 if len(augmented) > 2 else 1
    columns = rows + -(-len(augmented) // rows)
    figure = plt.figure(figsize=(WIDTH, rows * WIDTH / columns + 0.2))
    grid = figure.add_gridspec(rows, columns)
    places = [grid[row, column] for row in range(rows) for column in range(rows, columns)]
    for place, image in zip([grid[:, :rows], *places], [original, *augmented], strict=False):
        _picture(figure.add_subplot(place), image)
    figure.axes[0].set_title("original")
    figure.axes[1].set_title("augmented")
    return figure


@style()
def architectures(table: pd.DataFrame) -> Figure:
    """Bars of size and cost by model: name, parameters (millions), gmacs (10^9 multiply-adds)."""
    size = (WIDTH, 0.8 + 0.32 * len(table))
    figure, panels = plt.subplots(1, 2, figsize=size, sharey=True)
    labels = {"parameters": "Parameters (millions)", "gmacs": "Multiply-adds per image (billions)"}
    colours = [_line(index)["color"] for index in range(len(table))]
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        texts = [f"{value:.1f}" if value >= 1 else f"{value:#.2g}" for value in table[column]]
        _bars(axes, table["name"], table[column], texts, color=colours)
        axes.set_xlabel(label)
    return figure


@style()
def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and accuracy by epoch, one row of panels per model.

    histories: model -> columns epoch, train_loss, val_loss (nats), train_accuracy, val_accuracy
    (0 to 1) and best (bool).
    """
    count = len(histories)
    figure, grid = plt.subplots(count, 2, figsize=(WIDTH, 1.2 + 1.3 * count), squeeze=False,
                                sharex=True, sharey="col")
    for index, (line, (name, history)) in enumerate(zip(grid, histories.items(), strict=True)):
        kept = np.flatnonzero(history["best"])[-1:]  # each best epoch beat those before it
        for axes, column in zip(line, ("loss", "accuracy"), strict=True):
            axes.plot(history["epoch"], history[f"train_{column}"], color=GREY, linestyle="--")
            axes.plot(history["epoch"], history[f"val_{column}"], marker="o", markevery=kept,
                      color=_line(index)["color"])
        line[0].set(title=name, ylabel="Loss (nats)")
        line[1].set_ylabel("Accuracy")
        line[1].yaxis.set_major_formatter(_percent)
    for axes in grid[-1]:
        axes.set_xlabel("Epoch")
        _counts(axes.xaxis)
    handles = [_key("training", color=GREY, linestyle="--"), _key("validation"),
               _key("best epoch", linestyle="", marker="o")]
    figure.legend(handles=handles, loc="outside upper right", ncols=3 - _narrow())
    return figure


@style()
def confusion_matrices(matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """Counts and shares of the row; matrices: model -> int (C, C), rows true; class_names: C."""
    single = len(matrices) == 1
    ticks, names = range(len(class_names)), _names(class_names, 12)
    figure, panels = _grid(len(matrices), 2, 4.6 if single else 2.3, 0.9,
                           x="Predicted diagnosis", y="True diagnosis")
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(matrix):
            share = shares[row, column]
            percent = f"\n{share:.0%}" if share >= 0.005 else "\n<1%" if count else ""
            axes.text(column, row, f"{count}{percent}", ha="center", va="center", linespacing=1.1,
                      size=_points(8.5 if single else 7),
                      color="white" if share > 0.55 else DARK)
        gap = "\n" if _narrow() else " "
        axes.set_title(f"{name}{gap}(n = {matrix.sum():,} images)", size=_points(8))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=_points(8 if single else 7))
        axes.set_yticks(ticks, names)
        axes.set_xticks(ticks, names, rotation=90)
    return figure


@style()
def comparison(table: pd.DataFrame, basis: str = "") -> Figure:
    """Dots with intervals; table: model, metric (the label of its panel), value, low, high.

    basis: what all models were tested on, in words.
    """
    figure, panels = _dot_panels(table, "metric", 3, "{:.3f}")
    figure.suptitle(basis, x=0.995, ha="right", size=_points(8))
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    return figure


@style()
def accuracy_latency(table: pd.DataFrame, images: int) -> Figure:
    """Accuracy on so many images against latency by model.

    table: model, latency_ms, latency_low, latency_high (ms), accuracy, accuracy_low,
    accuracy_high (0 to 1), parameters (millions, the marker's size).
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.8))
    handles = []
    for index, row in enumerate(table.to_dict("records")):
        x, y, mark = row["latency_ms"], row["accuracy"], _mark(index)
        size = 4 + 1.6 * np.sqrt(row["parameters"])
        axes.hlines(y, row["latency_low"], row["latency_high"], color=mark["color"])
        axes.vlines(x, row["accuracy_low"], row["accuracy_high"], color=mark["color"])
        axes.plot(x, y, **mark, markersize=size, markeredgecolor="white")
        handles.append(_key(f"{row['model']} ({row['parameters']:.0f} M)", **mark))
    axes.margins(0.15)
    axes.grid()
    axes.yaxis.set_major_formatter(_percent)
    axes.set(xlabel="Latency (ms per image)", ylabel=_of("Accuracy", f"n = {images:,} images"))
    figure.legend(handles=handles, loc="outside upper right", ncols=3 - _narrow())
    return figure


@style()
def reliability(
    tables: Mapping[str, Mapping], x: str = "Confidence", y: str = "Accuracy"
) -> Figure:
    """Reliability diagrams above histograms, one row per model, before and after scaling.

    tables: model -> {"before", "after"} -> bins with low, high, confidence, accuracy, count,
    accuracy_low, accuracy_high (empty bins: count 0 and NaN); x, y: what these are, in words.
    The ECE in the titles is that of the bins.
    """
    count = len(tables)
    images = {name: pair["after"]["count"].sum() for name, pair in tables.items()}
    everywhere = f"\n(n = {max(images.values()):,.0f} images)" * (len(set(images.values())) == 1)
    size = (WIDTH, min(1.2 + 1.6 * count, 9))
    figure, grid = plt.subplots(2 * count, 2, figsize=size, squeeze=False, sharex=True,
                                sharey="row", height_ratios=[3, 1] * count)
    for index, (name, pair) in enumerate(tables.items()):
        mark = _mark(index)
        for side, moment in enumerate(("before", "after")):
            table, (upper, lower) = pair[moment], grid[2 * index : 2 * index + 2, side]
            upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8, zorder=0)
            upper.vlines(table["confidence"], table["accuracy_low"], table["accuracy_high"],
                         color=mark["color"], clip_on=False)
            upper.plot(table["confidence"], table["accuracy"], **mark, clip_on=False, zorder=3)
            upper.set(xlim=(0, 1), ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
            upper.yaxis.set_major_formatter(_percent)
            gaps = (table["accuracy"] - table["confidence"]).abs() * table["count"]
            ece = gaps.sum() / max(table["count"].sum(), 1)
            gap = "\n" if _narrow() else " "
            upper.set_title(f"{name}, {moment} scaling:{gap}ECE {ece:.3f}", size=_points(8))
            lower.bar(table["low"], table["count"], table["high"] - table["low"], align="edge",
                      color=LIGHT, edgecolor="white")
            lower.xaxis.set_major_formatter(_percent)
            _counts(lower.yaxis)
        if not everywhere:
            grid[2 * index + 1, 0].text(0.02, 0.7, f"n = {images[name]:,.0f}", size=_points(8),
                                        transform=grid[2 * index + 1, 0].transAxes)
        grid[2 * index, 0].set_ylabel(y)
        grid[2 * index + 1, 0].set_ylabel("Images")
    for axes in grid[-1]:
        axes.set_xlabel(x + (everywhere if _narrow() else everywhere.replace("\n", " ")))
    figure.align_ylabels()
    return figure


@style()
def temperature_curve(
    temperatures: np.ndarray, nll: Mapping, fitted: Mapping, images: int
) -> Figure:
    """Negative log-likelihood of `images` validation images against temperature.

    temperatures: (n,) above 0; nll: model -> (n,) nats per image; fitted: model -> temperature.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3))
    axes.axvline(1, color=LIGHT, linewidth=0.8, zorder=0)
    for index, (name, values) in enumerate(nll.items()):
        nearest = np.abs(np.log(temperatures / fitted[name])).argmin()
        axes.plot(temperatures, values, **_mark(index) | _line(index), markevery=[nearest],
                  markersize=7, markeredgecolor="white", label=f"{name} (T = {fitted[name]:.2f})")
    figure.legend(loc="outside upper right", ncols=2)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="Temperature T (log scale)",
             ylabel=f"Negative log-likelihood\n(nats per image, n = {images:,})")
    return figure


@style()
def roc(
    curves: Mapping[str, tuple], points: Mapping[str, Sequence[tuple]], counts: tuple[int, int]
) -> Figure:
    """ROC curves for melanoma with operating points, in full and where specificity is high.

    curves: model -> (false positive rates, true positive rates, text of the AUC and interval);
    points: model -> [(label, false positive rate, true positive rate), ...]; rates in 0 to 1.
    counts: images of melanomas and of others.
    """
    figure, (full, zoom) = plt.subplots(1, 2, figsize=(WIDTH, 3.3 + 0.16 * len(curves)))
    every = [point for rows in points.values() for point in rows]
    marks = _point_marks(label for label, *_ in every)
    # High specificity, down to the tenth below its lowest point; other points lie outside.
    right, floor = 0.2, min([0.8, *(y for _, x, y in every if x <= 0.2)])
    floor = np.floor(10 * floor + 1e-9) / 10
    for axes in (full, zoom):
        axes.plot([0, 1], [0, 1], color=LIGHT, linestyle="--", linewidth=0.8, zorder=0)
        for index, (name, (fpr, tpr, area)) in enumerate(curves.items()):
            look = _line(index)
            axes.plot(fpr, tpr, **look, label=f"{name}: AUC {area}")
            for label, x, y in points.get(name, ()):
                face = {"markerfacecolor": look["color"], "clip_on": False, "zorder": 3}
                if axes is full or x <= right:
                    axes.plot(x, y, **marks[label] | face)
        axes.set(xlabel=_of("1 − specificity", f"{counts[1]:,} others"),
                 ylabel=_of("Sensitivity", f"{counts[0]:,} melanomas"))
        axes.xaxis.set_major_formatter(_percent)
        axes.yaxis.set_major_formatter(_percent)
    left, top = -0.005, 1.005  # shows lines along the edges in full
    full.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    zoom.set(xlim=(left, right), ylim=(floor, top))
    for axis in (zoom.xaxis, zoom.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    frame = Rectangle((left, floor), right - left, top - floor, fill=False, color=GREY)
    full.add_patch(frame)
    figure.legend(handles=full.get_legend_handles_labels()[0], loc="outside upper left")
    figure.legend(handles=[_key(label, **mark) for label, mark in marks.items()],
                  loc=f"outside {'lower left' if _narrow() else 'upper right'}")
    return figure


@style()
def threshold_curves(
    curves: Mapping[str, pd.DataFrame], thresholds: Mapping, counts: tuple[int, int]
) -> Figure:
    """Sensitivity and specificity against the threshold, one panel per model.

    curves: model -> columns threshold (increasing), sensitivity, specificity (0 to 1), a row
    per decision "melanoma if score >= threshold"; thresholds: model -> operating point ->
    threshold (0 to 1). Thresholds of 0 have no place on the logarithmic axis. counts: images of
    melanomas and of others.
    """
    label = f"Threshold (log scale)\nn = {counts[0]:,} melanomas, {counts[1]:,} others"
    figure, panels = _grid(len(curves), 2, 2.2, 0.65, x=label, y="Sensitivity, specificity")
    marks = _point_marks(label for row in thresholds.values() for label in row)
    chosen = [value for row in thresholds.values() for value in row.values() if value > 0]
    left = min([0.02, *chosen]) / 2
    for index, (axes, (name, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        curve = curve[curve["threshold"] > 0]
        # Every threshold decides as the next row's does; beyond the last, no image is melanoma.
        ends = np.append(curve["threshold"], 2)
        for column, line, last in (("sensitivity", "-", 0), ("specificity", "--", 1)):
            heights = np.append(curve[column], last)
            axes.plot([min(left, ends[0]), *ends], [heights[0], *heights], line,
                      color=_line(index)["color"], drawstyle="steps-pre")
            for label, value in thresholds.get(name, {}).items():
                if value > 0:
                    height = heights[np.searchsorted(ends, value)]
                    axes.plot(value, height, **marks[label], zorder=3, clip_on=False)
                    axes.axvline(value, color=LIGHT, linewidth=0.8, zorder=0)
        axes.set(title=name, xscale="log", ylim=(-0.03, 1.03))
        axes.yaxis.set_major_formatter(_percent)
    panels[0].set_xlim(left, 1)
    panels[0].xaxis.set_major_formatter(_percent)
    handles = [_key("sensitivity"), _key("specificity", linestyle="--"),
               *(_key(label, **mark) for label, mark in marks.items())]
    figure.legend(handles=handles, loc="outside upper right", ncols=3 - _narrow())
    return figure


@style()
def operating_points(table: pd.DataFrame) -> Figure:
    """Sensitivity and specificity with intervals, one row of panels per operating point.

    table: columns model, point, target (0 to 1 or NaN), criterion ("sensitivity" or
    "specificity"), melanomas and others (images) and, for sensitivity and specificity, value, _low
    and _high (fractions). Models on other images have their counts beside their names.
    """
    counts = ["melanomas", "others"]
    alike = len(table[counts].drop_duplicates()) == 1
    if not alike:
        sizes = [table["melanomas"].map("\n({:,} melanomas, ".format),
                 table["others"].map("{:,} others)".format)]  # fmt: skip
        table = table.assign(model=table["model"] + sizes[0] + sizes[1])
    models, groups = list(table["model"].unique()), table.groupby("point", sort=False)
    size = (WIDTH, 0.3 + len(groups) * (0.45 + (0.2 if alike else 0.32) * len(models)))
    figure, grid = plt.subplots(len(groups), 2, figsize=size, squeeze=False, sharex="col",
                                sharey=True)
    for line, (point, rows) in zip(grid, groups, strict=True):
        line[0].set_title(point)
        for axes, measure, kind in zip(line, ("sensitivity", "specificity"), counts, strict=True):
            columns = {measure: "value", f"{measure}_low": "low", f"{measure}_high": "high"}
            _dots(axes, rows.rename(columns=columns), models)
            for target in rows.loc[rows["criterion"] == measure, "target"].dropna().unique():
                axes.axvline(target, color=DARK, linestyle="--", linewidth=1, zorder=1)
            axes.xaxis.set_major_formatter(_percent)
            number = f"{table[kind].iloc[0]:,} {kind}" if alike else kind
            axes.set_xlabel(_of(measure.capitalize(), number))
            axes.label_outer()
    return figure


@style()
def decision_curves(curves: Mapping[str, pd.DataFrame], images: int) -> Figure:
    """Net benefit against the threshold, one line per model.

    curves: model -> columns threshold (0 to 1), model and treat_all (net benefit per image), on
    so many images.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(curve["threshold"], curve["model"], label=name, **_line(index))
    axes.plot(curve["threshold"], curve["treat_all"], color=GREY, linewidth=0.8, label="act on all")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle="--", label="act on none")
    top = max(curve[["model", "treat_all"]].to_numpy().max() for curve in curves.values())
    axes.set(xlim=(0, curve["threshold"].max()), ylim=(-0.15 * top, 1.05 * top),
             xlabel="Threshold on the predicted probability",
             ylabel=_of("Net benefit per image", f"n = {images:,}"))
    axes.xaxis.set_major_formatter(_percent)
    figure.legend(loc="outside upper right", ncols=3 - _narrow())
    return figure


@style()
def subgroups(table: pd.DataFrame, overall: Mapping[str, float]) -> Figure:
    """Dots with intervals by group of patients, one panel per measure.

    table: attribute (a heading), group, lesions, melanoma_lesions (counts), small (bool) and, per
    measure, a dict of value, low, high (fractions or None); overall: measure (the axis label) ->
    value on the whole test part. Measures are named in `table` as in `overall`.
    """
    rows: list = []  # headings are texts
    for attribute, groups in table.groupby("attribute", sort=False):
        rows += [attribute, *groups.to_dict("records")]
    figure, panels = plt.subplots(1, len(overall), figsize=(WIDTH, 0.7 + 0.18 * len(rows)),
                                  sharey=True)
    for axes, (measure, value) in zip(panels, overall.items(), strict=True):
        axes.axvline(value, color=DARK, linestyle="--", linewidth=0.8, zorder=1)
        for small, colour in ((False, _line(0)["color"]), (True, GREY)):
            told = {position: row[measure] for position, row in enumerate(rows)
                    if not isinstance(row, str) and row["small"] == small
                    and row[measure]["value"] is not None}  # fmt: skip
            sure = {position: each for position, each in told.items() if each["low"] is not None}
            axes.hlines(list(sure), [each["low"] for each in sure.values()],
                        [each["high"] for each in sure.values()], color=colour)
            axes.plot([each["value"] for each in told.values()], list(told), "o", color=colour,
                      markerfacecolor="white" if small else colour)
        _rows(axes, [row if isinstance(row, str) else
                     f"{row['group']} ({row['lesions']:,}, {row['melanoma_lesions']:,})"
                     for row in rows])
        axes.grid(axis="x")
        axes.set(xlabel=measure, xlim=(-0.03, 1.03))
        axes.xaxis.set_major_formatter(_percent)
    for row, label in zip(rows, panels[0].get_yticklabels(), strict=True):
        label.set_fontweight("bold" if isinstance(row, str) else "normal")
    return figure


@style()
def grad_cam(rows: Sequence[Mapping]) -> Figure:
    """Images beside their heat maps, one row per image, one column per model.

    rows: dicts with image uint8 (H, W, 3), title, overlays (model -> float (H, W) in 0 to 1)
    and mask (bool (H, W), drawn as an outline, or None).
    """
    models = list(rows[0]["overlays"])
    tile = min((WIDTH - 0.8) / (1 + len(models)), 1.8)
    figure, grid = plt.subplots(len(rows), 1 + len(models), squeeze=False, layout="compressed",
                                figsize=(WIDTH, len(rows) * tile + 0.8))
    for line, row in zip(grid, rows, strict=True):
        _picture(line[0], row["image"])
        line[0].set_ylabel(textwrap.fill(row["title"], 16), size=8, rotation=0, ha="right",
                           va="center")
        for axes, model in zip(line[1:], models, strict=True):
            _picture(axes, row["image"].mean(axis=2), cmap="gray", vmin=0, vmax=255)
            heat = axes.imshow(row["overlays"][model], cmap="viridis", vmin=0, vmax=1, alpha=0.55)
        if row["mask"] is not None and 0 < row["mask"].mean() < 1:  # else there is no border
            for axes in line:
                outline = axes.contour(row["mask"], [0.5], colors="white", linewidths=0.8)
                outline.set_path_effects([withStroke(linewidth=1.6, foreground="black")])
    for axes, name in zip(grid[0], ["image", *models], strict=True):
        axes.set_title(textwrap.fill(name, 13, break_long_words=False), size=7, loc="center")
    bar = figure.colorbar(heat, ax=grid, location="bottom", shrink=0.4, aspect=30, pad=0.02)
    bar.set_label("Grad-CAM heat (share of the map's maximum)", size=8)
    bar.outline.set_visible(False)
    return figure


@style()
def mask_overlap(table: pd.DataFrame) -> Figure:
    """Dots with intervals; table: model, score (its panel), value, low, high.

    Values are shares, or NaN. A model is a name, or begins with "baseline" or "random weights".
    """
    figure, panels = _dot_panels(table, "score", 2, "{:.1%}")
    for axes in panels:
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        axes.xaxis.set_major_formatter(_percent)
    return figure


@style()
def randomised_weights(curves: Mapping[str, Mapping[str, pd.DataFrame]], images: int) -> Figure:
    """Similarity of maps against the share of layers whose weights are random.

    curves: method -> model -> table of share (0 to 1), value, low, high (-1 to 1); so many images.
    """
    figure, panels = plt.subplots(1, len(curves), figsize=(WIDTH, 3.2), sharey=True)
    for axes, (method, models) in zip(panels, curves.items(), strict=True):
        axes.axhline(0, color=LIGHT, linewidth=0.8, zorder=0)
        for index, (name, rows) in enumerate(models.items()):
            look, rows = _mark(index) | _line(index), rows.astype(float)
            axes.plot([0, *rows["share"]], [1, *rows["value"]], **look, label=name)
            axes.vlines(rows["share"], rows["low"], rows["high"], color=look["color"])
        axes.set_title(method)
        axes.set_xlabel("Layers with random weights,\ncounted from the output")
        axes.xaxis.set_major_formatter(_percent)
    panels[0].set_ylabel(f"Rank correlation with\nthe trained map (n = {images:,})")
    figure.legend(handles=panels[0].lines[1:], loc="outside upper right", ncols=2)
    return figure
