"""Every figure of the thesis: data in, a matplotlib figure out; the style, the captions, `save`."""

import re
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from melanoma_lib.artifacts import MelanomaError, atomic_path
from melanoma_lib.data.classes import CLASS_NAMES, DIAGNOSES, DISPLAY_NAMES, MELANOMA

WIDTH = 6.3  # inches: the text width of the thesis page (16 cm)
DARK, GREY, LIGHT, PALE = "#333333", "#666666", "#BBBBBB", "#E6E6E6"
MALIGNANT, BENIGN = "#D55E00", LIGHT  # apart in grey too
# Okabe and Ito's colours; marker and line change with them, so that grey prints stay readable.
MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MODEL_LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,  # text stays text in the PDF
}
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
    "01-1-class-counts": "Images and lesions per diagnosis in HAM10000. Names in bold are "
    "malignant; percentages are shares of all images and of all lesions.",
    "01-2-patients": "Age, sex and body site of the lesions in HAM10000, each lesion counted "
    "once. Written beside the bars: lesions, and the share of them that is malignant.",
    "01-3-examples": "Dermatoscopic images of the seven diagnoses, one row per diagnosis.",
    "01-4-lesion-leak": "Left: images per lesion. Right: share of held-out images whose lesion "
    "also has images in the training part when the data are split by image instead of by lesion.",
    "01-5-abcde": "Asymmetry, border and colour of the lesions, measured on the lesion masks, by "
    "diagnosis. Boxes span the quartiles, whiskers the 5th to the 95th percentile; melanoma is "
    "highlighted and its median continued as a dashed line.",
    "02-1-augmentation": "One training image (left) and random augmentations of it, as the "
    "network sees them during training.",
    "03-1-architectures": "Size and cost of the architectures: trainable parameters, and "
    "multiply-adds to classify one image.",
    "04-1-training-curves": "Loss and accuracy on the training and the validation part after "
    "each epoch. The marked epoch is the one whose weights are kept.",
    "04-2-confusion-matrix": "Confusion matrix on the test part. Each cell gives the number of "
    "images and the share of its row (true diagnosis); darker cells hold larger shares.",
    "05-1-reliability": "Accuracy against confidence on the test part before and after "
    "temperature scaling, with 95% intervals and, below, images per bin. On the diagonal "
    "confidence equals accuracy; ECE is the expected calibration error.",
    "05-2-temperature": "Negative log-likelihood on the validation part against the temperature "
    "that divides the logits. Markers: fitted temperatures; at temperature 1 nothing changes.",
    "06-1-roc": "Receiver operating characteristic for melanoma against all other diagnoses on "
    "the test part, with the chosen operating points. Right: the region of high specificity "
    "framed on the left.",
    "06-2-thresholds": "Sensitivity and specificity for melanoma on the test part against the "
    "threshold on the predicted probability. Markers: thresholds chosen on the validation part.",
    "06-3-operating-points": "Sensitivity and specificity for melanoma on the test part at the "
    "operating points chosen on the validation part, with 95% intervals. Dashed: the target.",
    "07-1-grad-cam": "Grad-CAM heat maps: where the evidence for the predicted diagnosis lies "
    "in the image. White outline: the lesion mask.",
    "07-2-mask-overlap": "Agreement of the Grad-CAM heat maps with the lesion masks, with 95% "
    "intervals. Grey and dashed: a baseline that does not look at the image.",
    "08-1-comparison": "The models on the same test part, with 95% intervals.",
    "08-2-training-curves": "Loss and accuracy of each model on the training and the validation "
    "part after each epoch. The marked epoch is the one whose weights are kept.",
    "08-3-confusion-matrices": "Confusion matrices on the test part. Each cell gives the number "
    "of images and the share of its row (true diagnosis); darker cells hold larger shares.",
    "08-4-accuracy-latency": "Accuracy on the test part against the time to classify one image, "
    "with 95% intervals. The area of a marker is proportional to the number "
    "of parameters, given in millions (M).",
}


# -- style, saving, catalogue ------------------------------------------------------------------


@contextmanager
def style() -> Iterator[None]:
    """Applies the thesis style inside the block (or, as `@style()`, inside a function) only."""
    with matplotlib.rc_context(STYLE):
        yield


@style()
def save(
    figure: Figure, name: str, folder: Path | str, variant: str = "", note: str = ""
) -> list[Path]:
    """Writes `<name>[-variant].png` (200 dpi) and `.pdf` into `folder` and returns both paths.

    Equal figures give equal bytes. `note` is set small and grey at the lower right edge. The
    figure is closed; a notebook shows it by naming it in the cell's last line.
    """
    if name not in CATALOG:
        raise MelanomaError(f"unknown figure {name!r}; known figures: {', '.join(CATALOG)}")
    if variant and not re.fullmatch(r"[A-Za-z0-9_.-]+", variant):
        raise MelanomaError(f"figure variant {variant!r} may hold letters, digits, _ . - only")
    if note or figure.get_supxlabel():  # a super-label: constrained layout makes room for it
        figure.supxlabel(textwrap.fill(note, 110), x=0.995, ha="right", size=7, color=GREY)
    figure.get_layout_engine().execute(figure)  # pictures settle in the second pass only
    stem = f"{name}-{variant}" if variant else name
    metadata = {
        ".png": {"Software": None},
        ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }
    paths = [Path(folder) / (stem + suffix) for suffix in metadata]
    try:
        for path in paths:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata=metadata[path.suffix])
    finally:
        plt.close(figure)
    return paths


def catalog_page(prefix: str = "") -> str:
    """The catalogue as Markdown by chapter; `prefix` (a folder, say) stands before every name."""
    lines = ["# Figures", ""]
    for chapter, title in CHAPTERS.items():
        lines += [f"## {chapter} {title}", "", "| Figure | Caption |", "| --- | --- |"]
        names = [name for name in CATALOG if name.startswith(chapter)]
        lines += [f"| `{prefix}{name}` | {CATALOG[name]} |" for name in names] + [""]
    return "\n".join(lines)


# -- helpers -----------------------------------------------------------------------------------


def _grid(
    count: int, columns: int, panel: float, extra: float = 0.0, **options
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, at most `columns` side by side.

    panel: inches of height per row; extra: inches for the labels below the lowest row (needed
    twice when that row is not full, because the panel above a gap is labelled too).
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (WIDTH, rows * panel + extra * (2 if count % columns else 1))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    panels = list(axes.flat)
    for spare in panels[count:]:
        spare.remove()
    for index, axes in enumerate(panels[:count]):
        if index + columns >= count:  # the lowest of its column, also above a removed panel
            axes.tick_params(labelbottom=True)
    return figure, panels[:count]


def _outer(panels: Sequence[Axes], x: str, y: str) -> None:
    """Labels the axes at the left and lower edge of a grid of panels that share them."""
    columns = panels[0].get_subplotspec().get_gridspec().ncols
    for index, axes in enumerate(panels):
        if index % columns == 0:
            axes.set_ylabel(y)
        if index + columns >= len(panels):
            axes.set_xlabel(x)


def _look(index: int, line: bool = True) -> dict:
    """Colour and line style (or marker) of the model at position `index`."""
    index %= len(MARKERS)
    rest = {"linestyle": MODEL_LINES[index]} if line else {"marker": MARKERS[index]}
    return {"color": MODEL_COLOURS[index], **rest}


def _names(codes: Sequence[str], width: int = 99) -> list[str]:
    """Spelled-out class names, wrapped at `width` characters."""
    names = [DISPLAY_NAMES.get(code, code) for code in codes]
    return [textwrap.fill(name, width, break_long_words=False) for name in names]


def _percent(axis, ticks: int = 5) -> None:
    """Shows fractions on an axis as percentages with at most `ticks` intervals."""
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(_percent_text)


def _percent_text(share: float, _position: int = 0) -> str:
    return f"{round(100 * share, 6):g}%"


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows 0, 1, ... of a horizontal plot, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _write(axes: Axes, x: float, y: float, text: str, above: bool = False) -> None:
    """Writes a value beside (or above) the end of its bar."""
    axes.annotate(text, (x, y), (0, 2) if above else (3, 0), textcoords="offset points", size=7.5,
                  ha="center" if above else "left", va="bottom" if above else "center")


def _counts(axis, ticks: int = 5) -> None:
    """Shows whole numbers with thousands separators and at most `ticks` intervals on an axis."""
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _picture(axes: Axes, image: np.ndarray, **options) -> None:
    """An image without ticks and frame."""
    axes.imshow(image, **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _tight(figure: Figure) -> None:
    """Moves pictures close together."""
    figure.get_layout_engine().set(h_pad=0.03, w_pad=0.02, hspace=0, wspace=0)


def _dots(axes: Axes, table: pd.DataFrame, names: Sequence[str], looks: Sequence[dict]) -> None:
    """One dot with its interval per row of `table` (value, low, high)."""
    for row, (value, low, high) in enumerate(table[["value", "low", "high"]].to_numpy(float)):
        axes.plot([low, high], [row, row], color=looks[row]["color"], linewidth=1.4)
        axes.plot([value], [row], linestyle="", **looks[row])
    _rows(axes, names)
    axes.grid(axis="x")
    axes.margins(x=0.08)


def _dot_panels(
    table: pd.DataFrame, column: str, columns: int, baselines: Collection[str] = ()
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """One panel of dots with intervals per value of `column`; the panels with their rows."""
    models = list(table["model"].unique())
    looks = [{"color": GREY, "marker": "x"} if model in baselines else _look(index, line=False)
             for index, model in enumerate(models)]
    names = table[column].unique()
    groups = [table[table[column] == name].set_index("model").reindex(models) for name in names]
    figure, panels = _grid(len(groups), columns, 0.65 + 0.22 * len(models), sharey=True)
    for axes, name, rows in zip(panels, names, groups, strict=True):
        _dots(axes, rows, models, looks)
        axes.set_xlabel(name)
    return figure, list(zip(panels, groups, strict=True))


def _key(label: str, **options) -> Line2D:
    """A legend entry in dark grey unless a colour is given."""
    return Line2D([], [], label=label, **{"color": DARK, **options})


def _malignancy(figure: Figure) -> None:
    """The legend of the two malignancy colours, above the panels."""
    handles = [Patch(color=MALIGNANT, label="malignant"), Patch(color=BENIGN, label="benign")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)


def _is_malignant(dx: pd.Series) -> pd.Series:
    return dx.isin([diagnosis.code for diagnosis in DIAGNOSES if diagnosis.malignant])


# -- chapters 01 to 03: data, augmentation, architectures --------------------------------------


@style()
def class_counts(metadata: pd.DataFrame) -> Figure:
    """Bars of images and lesions per class.

    metadata: one row per image with lesion_id, image_id and dx.
    """
    images = metadata["dx"].value_counts()
    lesions = metadata.drop_duplicates("lesion_id")["dx"].value_counts().reindex(images.index)
    malignant = _is_malignant(pd.Series(images.index))
    colours = [MALIGNANT if flag else BENIGN for flag in malignant]
    figure, (axes,) = _grid(1, 1, 3.6)
    for counts, unit, shift, alpha in ((images, "images", -0.2, 1), (lesions, "lesions", 0.2, 0.5)):
        rows = np.arange(len(counts)) + shift
        axes.barh(rows, counts, 0.38, color=colours, alpha=alpha)
        for row, count in zip(rows, counts, strict=True):
            _write(axes, count, row, f"{count:,} {unit} ({count / counts.sum():.1%})")
    _rows(axes, _names(images.index))
    for label, flag in zip(axes.get_yticklabels(), malignant, strict=True):
        label.set_fontweight("bold" if flag else "normal")
    axes.set_xlim(0, images.max() * 1.3)
    _counts(axes.xaxis, 9)
    axes.set_xlabel(f"Count (all: {images.sum():,} images of {lesions.sum():,} lesions)")
    _malignancy(figure)
    return figure


@style()
def patients(metadata: pd.DataFrame) -> Figure:
    """Age, sex and body site of the lesions by malignancy.

    metadata: one row per image with lesion_id, dx, age (years), sex and localization.
    """
    lesions = metadata.drop_duplicates("lesion_id").replace({"unknown": np.nan, "": np.nan})
    lesions = lesions.assign(malignant=_is_malignant(lesions["dx"]))
    options = {"height_ratios": [2.4, 1], "width_ratios": [1, 1.05]}
    figure, panels = plt.subplot_mosaic(
        [["age", "site"], ["sex", "site"]], figsize=(WIDTH, 4.2), **options
    )
    ages = lesions.dropna(subset="age")
    edges = np.arange(0, max(ages["age"].max(), 85) + 6, 5)
    for flag, look in ((False, {"fill": True, "color": BENIGN}),
                       (True, {"color": MALIGNANT, "linewidth": 1.8})):
        counts, _ = np.histogram(ages.loc[ages["malignant"] == flag, "age"], edges)
        panels["age"].stairs(counts / max(counts.sum(), 1), edges, **look)
    _percent(panels["age"].yaxis)
    panels["age"].set(xlabel="Age (years)", ylabel="Share of the group")
    for name, column in (("sex", "sex"), ("site", "localization")):
        table = pd.crosstab(lesions[column], lesions["malignant"])
        table = table.reindex(columns=[True, False], fill_value=0)
        table = table.loc[table.sum(axis=1).sort_values(ascending=False).index]
        _stacked(panels[name], table)
    titles = {"age": "Age", "sex": "Sex", "site": "Body site"}
    for name, column in (("age", "age"), ("sex", "sex"), ("site", "localization")):
        unknown = lesions[column].isna().sum()
        panels[name].set_title(f"{titles[name]} ({unknown:,} of {len(lesions):,} unknown)")
    _malignancy(figure)
    return figure


def _stacked(axes: Axes, table: pd.DataFrame) -> None:
    """Bars of lesions by malignancy: columns True and False, one row per bar."""
    totals = table.sum(axis=1)
    rows = range(len(table))
    axes.barh(rows, table[True], 0.75, color=MALIGNANT)
    axes.barh(rows, table[False], 0.75, left=table[True], color=BENIGN)
    for row, (total, malignant) in enumerate(zip(totals, table[True], strict=True)):
        _write(axes, total, row, f"{total:,} ({malignant / total:.0%})")
    _rows(axes, table.index)
    axes.set_xlim(0, totals.max() * 1.4)
    _counts(axes.xaxis, 4)
    axes.set_xlabel("Lesions (share malignant)")


@style()
def examples(images: Mapping[str, np.ndarray]) -> Figure:
    """A grid of images, one row per class; images: class code -> uint8 (k, H, W, 3), k up to 6."""
    codes = [code for code in CLASS_NAMES if code in images]
    columns = min(6, max(len(images[code]) for code in codes))
    height, width = np.shape(images[codes[0]])[1:3]
    tile = (WIDTH - 1.2) / columns
    size = (WIDTH, len(codes) * min(tile * height / width + 0.05, 1.25))
    figure, grid = plt.subplots(len(codes), columns, figsize=size, squeeze=False)
    _tight(figure)
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

    images_per_lesion: one count per lesion; leak: class code or "all" -> share (0 to 1) of
    held-out images whose lesion is also in training.
    """
    figure, (left, right) = _grid(2, 2, 2.7)
    counts = images_per_lesion.value_counts().sort_index()
    left.bar(counts.index, counts, 0.8, color=LIGHT)
    for number, count in counts.items():
        _write(left, number, count, f"{count:,}", above=True)
    _counts(left.xaxis, 8)
    _counts(left.yaxis)
    left.set(xlabel="Images of the lesion", ylabel=f"Lesions (n = {counts.sum():,})")
    leak = pd.concat([leak.drop("all").sort_values(ascending=False), leak[["all"]]])
    right.barh(range(len(leak)), leak, 0.75, color=[LIGHT] * (len(leak) - 1) + [DARK])
    for row, share in enumerate(leak):
        _write(right, share, row, f"{share:.0%}")
    _rows(right, [*_names(leak.index[:-1]), "all diagnoses"])
    right.set_xlim(0, max(leak.max() * 1.15, 0.05))
    _percent(right.xaxis)
    right.set_xlabel("Held-out images with\na lesion also in training")
    return figure


@style()
def abcde(table: pd.DataFrame, labels: Mapping[str, str] | None = None) -> Figure:
    """Box plots of asymmetry, border and colours by class, melanoma highlighted.

    table: one row per image with dx and the columns asymmetry, border, colours (numbers);
    labels: column -> axis label with its unit, where the default does not fit.
    """
    titles = {"asymmetry": "Asymmetry", "border": "Border irregularity", "colours": "Colours"}
    titles |= labels or {}
    codes = [code for code in CLASS_NAMES if code in set(table["dx"])]
    names = [f"{DISPLAY_NAMES[code]}\nn = {(table['dx'] == code).sum():,}" for code in codes]
    figure, panels = _grid(3, 3, 3.4, sharey=True)
    for axes, column in zip(panels, ("asymmetry", "border", "colours"), strict=True):
        values = [table.loc[table["dx"] == code, column].dropna() for code in codes]
        drawn = axes.boxplot(
            values, positions=range(len(codes)), orientation="horizontal", widths=0.6,
            whis=(5, 95), showfliers=False, showcaps=False, patch_artist=True,
            medianprops={"color": "black", "linewidth": 1.4},
        )
        for code, box in zip(codes, drawn["boxes"], strict=True):
            box.set(facecolor=MALIGNANT if code == MELANOMA else PALE, linewidth=0.8)
        if MELANOMA in codes:
            median = values[codes.index(MELANOMA)].median()
            axes.axvline(median, color=MALIGNANT, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_xlabel(titles[column])
        _rows(axes, names)
    return figure


@style()
def augmentation(original: np.ndarray, augmented: np.ndarray) -> Figure:
    """One image beside its augmentations: uint8 (H, W, 3) and uint8 (k, H, W, 3)."""
    rows = 2 if len(augmented) > 2 else 1
    columns = -(-len(augmented) // rows)
    figure = plt.figure(figsize=(WIDTH, rows * WIDTH / (columns + rows) + 0.2))
    _tight(figure)
    grid = figure.add_gridspec(rows, rows + columns)
    first = figure.add_subplot(grid[:, :rows])
    _picture(first, original)
    first.set_title("original")
    for index, image in enumerate(augmented):
        axes = figure.add_subplot(grid[index // columns, rows + index % columns])
        _picture(axes, image)
        if index == 0:
            axes.set_title("augmented")
    return figure


@style()
def architectures(table: pd.DataFrame) -> Figure:
    """Bars of size and cost.

    table: one row per model with name, parameters (millions), gmacs (10^9 multiply-adds per
    image) and optionally layers (count).
    """
    labels = {
        "parameters": "Parameters (millions)",
        "gmacs": "Multiply-adds per image\n(billions)",
        "layers": "Layers",
    }
    columns = [column for column in labels if column in table]
    height = 1.0 + 0.32 * len(table)
    figure, panels = _grid(len(columns), 3, height, sharey=True)
    for axes, column in zip(panels, columns, strict=True):
        colours = [_look(index)["color"] for index in range(len(table))]
        axes.barh(range(len(table)), table[column], 0.6, color=colours)
        for row, value in enumerate(table[column]):
            _write(axes, value, row, f"{value:.0f}" if column == "layers" else f"{value:.1f}")
        axes.set_xlim(0, table[column].max() * 1.25)
        axes.set_xlabel(labels[column])
        _rows(axes, table["name"])
    return figure


# -- chapters 04 and 08: training, confusion, comparison ---------------------------------------


@style()
def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and accuracy by epoch, one row of panels per model.

    histories: model -> columns epoch, train_loss, val_loss, train_accuracy, val_accuracy
    (fractions) and best (bool).
    """
    count = len(histories)
    panel = 2.5 if count == 1 else 1.4
    figure, panels = _grid(2 * count, 2, panel, 0.5, sharex=True)
    for index, (name, history) in enumerate(histories.items()):
        loss, accuracy = panels[2 * index : 2 * index + 2]
        colour = _look(index)["color"]
        best = history[history["best"].astype(bool)].tail(1)  # each mark beat those before it
        for axes, column in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(history["epoch"], history[f"train_{column}"], color=GREY, linestyle="--")
            axes.plot(history["epoch"], history[f"val_{column}"], color=colour)
            for _, row in best.iterrows():
                axes.axvline(row["epoch"], color=LIGHT, linewidth=0.8, zorder=0)
            axes.plot(best["epoch"], best[f"val_{column}"], "o", color=colour, zorder=3)
        loss.set(title=name, ylabel="Loss (nats)")
        accuracy.set_ylabel("Accuracy")
        _percent(accuracy.yaxis)
    for column in (panels[0::2], panels[1::2]):
        for axes in column[1:]:
            axes.sharey(column[0])
        column[0].autoscale(axis="y")
        column[-1].set_xlabel("Epoch")
        column[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    colour = _look(0)["color"] if count == 1 else DARK
    handles = [_key("training", color=GREY, linestyle="--"), _key("validation", color=colour),
               _key("best epoch", color=colour, linestyle="", marker="o")]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    return figure


@style()
def confusion_matrices(matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """Row-normalised confusion matrices with counts and percentages.

    matrices: model -> int (C, C), rows true, columns predicted; class_names: C codes or names.
    """
    single = len(matrices) == 1
    figure, panels = _grid(
        len(matrices), 2, 4.6 if single else 2.3, 0.9, sharex=True, sharey=True
    )
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        matrix = np.asarray(matrix)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(matrix):
            share = shares[row, column]
            percent = f"{share:.0%}" if share >= 0.005 else "<1%"
            text = f"{count}\n{percent}" if count else "0"
            colour = "white" if share > 0.55 else DARK if count else GREY
            axes.text(column, row, text, ha="center", va="center", color=colour,
                      size=8.5 if single else 7, linespacing=1.1)
        axes.set_title(f"{name} (n = {matrix.sum():,} images)", size=9 if single else 8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8 if single else 7)
        ticks = range(len(class_names))
        axes.set_yticks(ticks, _names(class_names, 12))
        axes.set_xticks(ticks, _names(class_names, 12), rotation=90)
    _outer(panels, "Predicted diagnosis", "True diagnosis")
    return figure


@style()
def comparison(table: pd.DataFrame) -> Figure:
    """Dots with intervals, one panel per metric, one row per model.

    table: columns model, metric (the axis label), value, low, high.
    """
    figure, panels = _dot_panels(table, "metric", 2 if table["metric"].nunique() in (2, 4) else 3)
    for axes, rows in panels:
        axes.xaxis.set_major_locator(MaxNLocator(3))
        for row, value in enumerate(rows["value"]):
            axes.text(1.02, row, f"{value:.3f}", transform=axes.get_yaxis_transform(),
                      va="center", size=8)
    return figure


@style()
def accuracy_latency(table: pd.DataFrame) -> Figure:
    """Accuracy against latency.

    table: one row per model with model, latency_ms, latency_low, latency_high (ms), accuracy,
    accuracy_low, accuracy_high (fractions) and parameters (millions, the marker's area).
    """
    figure, (axes,) = _grid(1, 1, 3.8)
    rows = table.to_dict("records")
    for index, row in enumerate(rows):
        x, y, look = row["latency_ms"], row["accuracy"], _look(index, line=False)
        axes.plot([row["latency_low"], row["latency_high"]], [y, y], color=look["color"])
        axes.plot([x, x], [row["accuracy_low"], row["accuracy_high"]], color=look["color"])
        axes.scatter([x], [y], s=_area(row), edgecolor="white", zorder=3, **look)
    axes.margins(0.2)
    axes.grid()
    _percent(axes.yaxis)
    axes.set(xlabel="Latency (ms per image)", ylabel="Accuracy")
    _place_labels(axes, rows)
    return figure


def _place_labels(axes: Axes, rows: Sequence[Mapping]) -> None:
    """Writes each model's name beside its point or interval, where nothing else stands."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    axes.figure.draw_without_rendering()  # positions are known only after the layout
    taken = [box for row in rows for box in _occupied(axes, row)]
    for row in rows:
        labels, costs = [], []
        for reach in (3, 12, 24, 36):
            for preference, (dx, dy) in enumerate(product((1, -1, 0), (1, -1, 0))):
                if dx or dy:
                    labels.append(_label(axes, row, dx, dy, reach))
                    box = labels[-1].get_window_extent()
                    outside = not all(axes.bbox.contains(*corner) for corner in (box.min, box.max))
                    costs.append(99 * (box.count_overlaps(taken) + outside) + reach + preference)
        best = labels[int(np.argmin(costs))]
        box, point = best.get_window_extent(), (row["latency_ms"], row["accuracy"])
        taken.append(box)
        for label in labels:
            if label is not best:
                label.remove()
        if min(costs) > 12 + 8:  # too far off to be read without a line to the point
            end = np.clip(axes.transData.transform(point), box.min, box.max)
            end = axes.transData.inverted().transform(end)
            axes.plot(*zip(point, end, strict=True), color=GREY, linewidth=0.6, zorder=0)


def _label(axes: Axes, row: Mapping, dx: int, dy: int, reach: float) -> Annotation:
    """The label of one model, in a corner between its intervals or past the end of one."""
    x = row[{1: "latency_high", 0: "latency_ms", -1: "latency_low"}[dx if dy == 0 else 0]]
    y = row[{1: "accuracy_high", 0: "accuracy", -1: "accuracy_low"}[dy if dx == 0 else 0]]
    gap = reach + (0.35 * np.sqrt(_area(row)) if dx and dy else 0)
    return axes.annotate(
        f"{row['model']}\n{row['parameters']:.0f} M", (x, y), (dx * gap, dy * gap), size=8,
        textcoords="offset points", linespacing=1.1, ha=("center", "left", "right")[dx],
        va=("center", "bottom", "top")[dy],
    )


def _occupied(axes: Axes, row: Mapping) -> list[Bbox]:
    """Where the marker and the two intervals of one model lie, in pixels."""
    x, y = axes.transData.transform((row["latency_ms"], row["accuracy"]))
    left, low = axes.transData.transform((row["latency_low"], row["accuracy_low"]))
    right, high = axes.transData.transform((row["latency_high"], row["accuracy_high"]))
    radius = np.sqrt(_area(row)) / 2 * axes.figure.dpi / 72
    return [
        Bbox([[x - radius, y - radius], [x + radius, y + radius]]),
        Bbox([[left - 1, y - 1], [right + 1, y + 1]]),
        Bbox([[x - 1, low - 1], [x + 1, high + 1]]),
    ]


def _area(row: Mapping) -> float:
    """The area of a model's marker in square points."""
    return 4 * row["parameters"] + 12


# -- chapters 05 and 06: calibration, melanoma -------------------------------------------------


@style()
def reliability(
    tables: Mapping[str, Mapping[str, pd.DataFrame]], ece: Mapping[str, tuple[float, float]]
) -> Figure:
    """Reliability diagrams above histograms, one row per model, before and after scaling.

    tables: model -> {"before", "after"} -> bins with low, high, confidence, accuracy, count,
    accuracy_low, accuracy_high (empty bins: count 0 and NaN); ece: model -> (before, after).
    """
    count = len(tables)
    height = 3.6 if count == 1 else min(0.4 + 1.75 * count, 9)
    figure, grid = plt.subplots(2 * count, 2, figsize=(WIDTH, height), sharex=True, sharey="row",
                                squeeze=False, height_ratios=[3, 1] * count)
    for index, (name, pair) in enumerate(tables.items()):
        upper, lower = grid[2 * index], grid[2 * index + 1]
        for side, moment in enumerate(("before", "after")):
            _reliability(upper[side], lower[side], pair[moment], index)
            upper[side].set_title(f"{name}, {moment} scaling: ECE {ece[name][side]:.3f}", size=8)
        upper[0].set_ylabel("Accuracy")
        lower[0].set_ylabel("Images")
    total = int(next(iter(tables.values()))["before"]["count"].sum())
    for axes in grid[-1]:
        axes.set_xlabel(f"Confidence (n = {total:,} images)")
    figure.align_ylabels()
    return figure


def _reliability(upper: Axes, lower: Axes, table: pd.DataFrame, index: int) -> None:
    """One reliability diagram: points with intervals, and the images per bin below."""
    filled = table[table["count"] > 0]
    look = _look(index, line=False)
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    upper.vlines(filled["confidence"], filled["accuracy_low"], filled["accuracy_high"],
                 color=look["color"], linewidth=1.2)
    upper.plot(filled["confidence"], filled["accuracy"], linestyle="", **look, markersize=4)
    upper.set(xlim=(0, 1), ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
    upper.yaxis.set_major_formatter(_percent_text)
    lower.bar(table["low"], table["count"], table["high"] - table["low"], align="edge",
              color=LIGHT, edgecolor="white", linewidth=0.5)
    _percent(lower.xaxis)
    _counts(lower.yaxis, 2)


@style()
def temperature_curve(
    temperatures: np.ndarray, nll: Mapping[str, np.ndarray], fitted: Mapping[str, float]
) -> Figure:
    """Negative log-likelihood against temperature.

    temperatures: (n,) increasing; nll: model -> (n,) nats per image; fitted: model -> minimum.
    """
    figure, (axes,) = _grid(1, 1, 3.0)
    axes.axvline(1, color=LIGHT, linewidth=0.8, zorder=0)
    for index, (name, values) in enumerate(nll.items()):
        axes.plot(temperatures, values, **_look(index))
        best = np.interp(np.log(fitted[name]), np.log(temperatures), values)
        axes.plot([fitted[name]], [best], linestyle="", zorder=3, markersize=7,
                  markeredgecolor="white", **_look(index, line=False))
    handles = [_key(f"{name} (T = {fitted[name]:.2f})", **_look(index) | _look(index, line=False))
               for index, name in enumerate(nll)]
    figure.legend(handles=handles, loc="outside upper right", handlelength=3.2, ncols=2)
    axes.set_xscale("log")
    low, high = min(temperatures), max(temperatures)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="Temperature T (log scale)",
             ylabel="Negative log-likelihood\n(nats per image)")
    return figure


@style()
def roc(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, str]],
    points: Mapping[str, Sequence[tuple[str, float, float]]],
) -> Figure:
    """ROC curves for melanoma with operating points, in full and zoomed at high specificity.

    curves: model -> (false positive rates, true positive rates, text of the AUC and interval);
    points: model -> [(label, false positive rate, true positive rate), ...].
    """
    figure, (full, zoom) = _grid(2, 2, 2.9, 0.4 + 0.16 * len(curves))
    labels = list(dict.fromkeys(label for rows in points.values() for label, *_ in rows))
    for axes in (full, zoom):
        axes.plot([0, 1], [0, 1], color=LIGHT, linestyle="--", linewidth=0.8, zorder=0)
        for index, (name, (fpr, tpr, _)) in enumerate(curves.items()):
            axes.plot(fpr, tpr, **_look(index))
            for label, x, y in points.get(name, ()):
                axes.plot([x], [y], linestyle="", marker=MARKERS[labels.index(label) % 6],
                          color=_look(index)["color"], markeredgecolor="black", markersize=6,
                          markeredgewidth=0.8, zorder=3, clip_on=axes is zoom)
        axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
    floor = min(np.interp(0.03, fpr, tpr) for fpr, tpr, _ in curves.values())
    floor = np.clip(np.floor(10 * floor) / 10, 0, 0.8)
    reach = np.clip(1.08 * max([x for rows in points.values() for _, x, _ in rows] + [0]), 0.2, 0.4)
    full.set(xlim=(0, 1), ylim=(0, 1.01))
    zoom.set(xlim=(0, reach), ylim=(floor, 1.005))
    full.add_patch(Rectangle((0, floor), reach, 1 - floor, fill=False, color=GREY, linewidth=0.8))
    for axes in (full, zoom):
        _percent(axes.xaxis)
        _percent(axes.yaxis)
    models = [_key(f"{name}: AUC {curve[2]}", **_look(index))
              for index, (name, curve) in enumerate(curves.items())]
    figure.legend(handles=models, loc="outside upper left", handlelength=3.2)
    figure.legend(handles=_point_keys(labels), loc="outside upper right")
    return figure


def _point_keys(labels: Sequence[str]) -> list[Line2D]:
    """Legend entries of the operating points: an open marker each."""
    return [_key(label, color="black", linestyle="", marker=MARKERS[index % 6],
                 markerfacecolor="white") for index, label in enumerate(labels)]


@style()
def threshold_curves(
    curves: Mapping[str, pd.DataFrame], thresholds: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Sensitivity and specificity against the threshold, one panel per model.

    curves: model -> columns threshold (0 to 1), sensitivity, specificity (fractions);
    thresholds: model -> operating point -> threshold.
    """
    figure, panels = _grid(
        len(curves), 2, 2.8 if len(curves) == 1 else 1.8, 0.5, sharex=True, sharey=True
    )
    labels = list(dict.fromkeys(label for row in thresholds.values() for label in row))
    for index, (axes, (name, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        curve = curve[curve["threshold"] > 0].sort_values("threshold")  # the axis is logarithmic
        for column, line in (("sensitivity", "-"), ("specificity", "--")):
            axes.plot(curve["threshold"], curve[column], line, color=_look(index)["color"])
            for label, value in thresholds.get(name, {}).items():
                height = np.interp(value, curve["threshold"], curve[column])
                axes.plot([value], [height], marker=MARKERS[labels.index(label) % 6],
                          color="black", markerfacecolor="white", zorder=3)
                axes.axvline(value, color=LIGHT, linewidth=0.8, zorder=0)
        axes.set(title=name, xscale="log", ylim=(-0.03, 1.03))
        _percent(axes.yaxis)
    floor = min([value for row in thresholds.values() for value in row.values()] + [0.01])
    panels[0].set_xlim(max(10 ** np.floor(np.log10(max(floor, 1e-6))), 1e-4), 1)
    panels[0].xaxis.set_major_formatter(_percent_text)
    _outer(panels, "Threshold (log scale)", "Sensitivity, specificity")
    handles = [_key("sensitivity"), _key("specificity", linestyle="--"), *_point_keys(labels)]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    return figure


@style()
def operating_points(table: pd.DataFrame) -> Figure:
    """Sensitivity and specificity with intervals, one row of panels per operating point.

    table: columns model, point and, for sensitivity and specificity, value, _low and _high
    (fractions); optionally target (0 to 1) and criterion ("sensitivity" or "specificity").
    """
    models, points = list(table["model"].unique()), table["point"].unique()
    figure, panels = _grid(2 * len(points), 2, 0.45 + 0.2 * len(models), 0.3,
                              sharex="col", sharey=True)
    for index, axes in enumerate(panels):
        point, column = points[index // 2], ("sensitivity", "specificity")[index % 2]
        rows = table[table["point"] == point].set_index("model").reindex(models)
        target = rows.get("target", pd.Series(dtype=float)).dropna()
        if len(target) and (rows["criterion"] == column).any():
            axes.axvline(target.iloc[0], color=DARK, linestyle="--", linewidth=1, zorder=0)
        names = {column: "value", f"{column}_low": "low", f"{column}_high": "high"}
        looks = [_look(model, line=False) for model in range(len(models))]
        _dots(axes, rows.rename(columns=names), models, looks)
        _percent(axes.xaxis)
        if index % 2 == 0:
            axes.set_title(point)
        if index + 2 >= len(panels):
            axes.set_xlabel(f"{column.capitalize()} for melanoma")
    return figure


# -- chapter 07: explanation -------------------------------------------------------------------


@style()
def grad_cam(rows: Sequence[Mapping]) -> Figure:
    """Images beside their heat maps, one row per image, one column per model.

    rows: dicts with image uint8 (H, W, 3), title, overlays (model -> float (H, W) in 0 to 1)
    and mask (bool (H, W), drawn as an outline, or None).
    """
    models = list(rows[0]["overlays"])
    height, width = rows[0]["image"].shape[:2]
    tile = (WIDTH - 0.8) / (1 + len(models))
    size = (WIDTH, len(rows) * min(tile, 1.8) * height / width + 0.8)
    figure, grid = plt.subplots(len(rows), 1 + len(models), figsize=size, squeeze=False)
    _tight(figure)
    for line, row in zip(grid, rows, strict=True):
        _picture(line[0], row["image"])
        line[0].set_ylabel(textwrap.fill(row["title"], 16), size=8, rotation=0, ha="right",
                           va="center")
        for axes, model in zip(line[1:], models, strict=True):
            _picture(axes, row["image"].mean(axis=2), cmap="gray", vmin=0, vmax=255)
            heat = axes.imshow(row["overlays"][model], cmap="viridis", vmin=0, vmax=1, alpha=0.55)
        line[0].set_anchor("E")
        line[-1].set_anchor("W")
        for axes in line:
            _outline(axes, row.get("mask"))
    for axes, name in zip(grid[0], ["image", *models], strict=True):
        wrapped = textwrap.fill(name, 13, break_long_words=False) if len(models) > 4 else name
        axes.set_title(wrapped, size=7 if len(models) > 4 else 8, loc="center")
    bar = figure.colorbar(heat, ax=grid, location="bottom", shrink=0.4, aspect=30, pad=0.02,
                          panchor=False)
    bar.set_label("Grad-CAM heat (share of the map's maximum)", size=8)
    bar.outline.set_visible(False)
    return figure


def _outline(axes: Axes, mask: np.ndarray | None) -> None:
    """Draws the border of a mask in white on black, readable on every image."""
    if mask is None or not mask.any():
        return
    padded = np.pad(mask.astype(float), 1)  # closes the outline where the mask meets the edge
    x, y = (np.arange(-1, size + 1) for size in mask.shape[::-1])
    limits = axes.axis()
    axes.contour(x, y, padded, [0.5], colors="black", linewidths=1.6)
    axes.contour(x, y, padded, [0.5], colors="white", linewidths=0.8)
    axes.axis(limits)


@style()
def mask_overlap(table: pd.DataFrame) -> Figure:
    """Dots with intervals, one panel per score, one row per model.

    table: columns model, score (the axis label), value, low, high (fractions) and optionally
    baseline (bool); without it, models named "baseline..." are the baselines.
    """
    flags = table.get("baseline", table["model"].str.lower().str.startswith("baseline"))
    baselines = set(table.loc[flags.astype(bool), "model"])
    figure, panels = _dot_panels(table, "score", 2, baselines)
    for axes, rows in panels:
        for value in rows.loc[rows.index.isin(baselines), "value"]:
            axes.axvline(value, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        _percent(axes.xaxis)
    return figure
