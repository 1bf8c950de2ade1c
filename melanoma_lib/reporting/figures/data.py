"""Figures of the dataset and of its augmentation."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from melanoma_lib.data.classes import CLASS_NAMES, DIAGNOSES, DISPLAY_NAMES, MELANOMA
from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import (
    BENIGN,
    DARK,
    LIGHT,
    MALIGNANT,
    PALE,
    page_width,
    style,
)

MALIGNANCY_KEY = [Patch(color=MALIGNANT, label="malignant"), Patch(color=BENIGN, label="benign")]
MALIGNANT_CODES = [diagnosis.code for diagnosis in DIAGNOSES if diagnosis.malignant]


@style()
def class_counts(metadata: pd.DataFrame) -> Figure:
    """Bars of images and lesions per class; metadata: one row per image with lesion_id and dx."""
    codes = metadata["dx"].value_counts().index
    colours = [MALIGNANT if code in MALIGNANT_CODES else BENIGN for code in codes]
    tables = {"Images": metadata, "Lesions": metadata.drop_duplicates("lesion_id")}
    figure, panels = elements.subplots(2.7, 1, 2, sharey=True)
    for axes, (unit, rows) in zip(panels, tables.items(), strict=True):
        counts = rows["dx"].value_counts()[codes]
        texts = [f"{count:,} ({count / len(rows):.1%})" for count in counts]
        elements.named_bars(axes, elements.class_labels(codes), counts, texts, colours)
        elements.count_ticks(axes.xaxis)
        axes.set_xlabel(f"{unit} (n = {len(rows):,})")
    elements.legend(figure, MALIGNANCY_KEY, 2)
    return figure


@style()
def patients(metadata: pd.DataFrame) -> Figure:
    """Age, sex and body site by malignancy, each lesion once.

    metadata: one row per image with lesion_id, dx, age (years), sex and localization.
    """
    import seaborn as sns  # slow to import

    lesions = metadata.drop_duplicates("lesion_id")
    lesions = lesions.assign(malignant=lesions["dx"].isin(MALIGNANT_CODES))
    figure = elements.page_figure(4.2)
    mosaic = [["age", "localization"], ["sex", "localization"]]
    panels = figure.subplot_mosaic(mosaic, height_ratios=[2.4, 1])
    sns.histplot(
        lesions, x="age", hue="malignant", hue_order=[True, False], palette=[MALIGNANT, BENIGN],
        bins=np.arange(-2.5, 103, 5), stat="proportion", common_norm=False,  # ages: 0, 5, 10, ...
        element="step", alpha=0.5, legend=False, ax=panels["age"],
    )
    panels["age"].set(xlabel="Age (years)", ylabel="Fraction of the group")
    elements.percent_ticks(panels["age"].yaxis)
    for column, title in {"age": "Age", "sex": "Sex", "localization": "Body site"}.items():
        axes, known = panels[column], lesions[~lesions[column].isin([np.nan, "unknown", ""])]
        unknown = len(lesions) - len(known)
        axes.set_title(f"{title} ({unknown:,} of {len(lesions):,} unknown)")
        if column == "age":
            continue
        groups = known.groupby(column)["malignant"].agg(["size", "sum", "mean"])
        groups = groups.sort_values("size", ascending=False)
        texts = groups["size"].map("{:,} (".format) + groups["mean"].map("{:.0%})".format)
        elements.named_bars(axes, groups.index, groups["size"], texts, BENIGN)
        axes.barh(range(len(groups)), groups["sum"], 0.75, color=MALIGNANT)
        elements.count_ticks(axes.xaxis)
        axes.set_xlabel("Lesions (fraction malignant)")
    elements.legend(figure, MALIGNANCY_KEY, 2)
    return figure


@style()
def examples(images: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """A grid of images, one row per class that has any.

    images: class code -> up to 6 images, uint8 (H, W, 3), all of one shape.
    """
    codes = [code for code in CLASS_NAMES if len(images.get(code, ()))]
    columns = max(len(images[code]) for code in codes)
    height, width, _ = np.shape(images[codes[0]][0])
    tile = min((page_width() - 1.2) / columns * height / width, 1.2)
    figure = elements.page_figure(len(codes) * (tile + 0.05), "compressed")
    grid = figure.subplots(len(codes), columns, squeeze=False)
    for row, code, name in zip(grid, codes, elements.class_labels(codes, 12), strict=True):
        for axes, image in zip(row, images[code], strict=False):
            elements.show_image(axes, image)
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
    figure, (left, right) = elements.subplots(2.7, 1, 2)
    counts = images_per_lesion.value_counts()
    left.bar_label(left.bar(counts.index, counts, color=LIGHT), fmt="{:,.0f}")
    elements.count_ticks(left.yaxis)
    left.set(xlabel="Images of the lesion", ylabel=f"Lesions (n = {len(images_per_lesion):,})",
             xticks=range(1, images_per_lesion.max() + 1))
    rows = leak.groupby(level=0).agg(["mean", "size"]).sort_values("mean", ascending=False)
    rows.loc["all diagnoses"] = leak.mean(), len(leak)
    sizes = zip(elements.class_labels(rows.index), rows["size"], strict=True)
    names = [f"{name} ({size:,.0f})" for name, size in sizes]
    colours = [LIGHT] * (len(rows) - 1) + [DARK]  # the last is of all diagnoses
    elements.named_bars(right, names, rows["mean"], rows["mean"].map("{:.0%}".format), colours)
    elements.percent_ticks(right.xaxis)
    right.set_xlabel("Held-out images (n) with\na lesion also in training")
    return figure


@style()
def abcde(table: pd.DataFrame) -> Figure:
    """Box plots of asymmetry, border, colours and diameter by class, melanoma highlighted.

    table: one row per lesion with dx and the columns of `abcde.measure`.
    """
    titles = {
        "asymmetry": "Asymmetry\n(fraction\nnot mirrored)",
        "border": "Border\n(a disc has 1)",
        "colours": "Colours\n(standard\ndeviation)",
        "diameter": "Diameter\n(fraction of\nthe diagonal)",
    }
    groups = table.groupby("dx")  # alphabetical by code, as CLASS_NAMES
    figure, panels = elements.subplots(3.4, 1, 4, sharey=True)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        drawn = axes.boxplot(  # seaborn's relies on what matplotlib 3.13 removes
            [group.dropna() for _, group in groups[column]], positions=range(len(groups)),
            orientation="horizontal", widths=0.6, whis=(5, 95), showfliers=False, showcaps=False,
            patch_artist=True, medianprops={"color": "black"},
        )
        for code, box in zip(groups.groups, drawn["boxes"], strict=True):
            box.set_facecolor(MALIGNANT if code == MELANOMA else PALE)
        median = table.loc[table["dx"] == MELANOMA, column].median()
        axes.axvline(median, color=MALIGNANT, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_xlabel(title)
    names = [f"{DISPLAY_NAMES[code]}\nn = {len(group):,}" for code, group in groups]
    elements.name_rows(axes, names)
    return figure


@style()
def augmentation(original: np.ndarray, augmented: np.ndarray) -> Figure:
    """One image beside its augmentations: uint8 (H, W, 3) and uint8 (k, H, W, 3)."""
    rows = 2 if len(augmented) > 2 else 1
    columns = rows + -(-len(augmented) // rows)
    figure = elements.page_figure(rows * page_width() / columns + 0.2)
    grid = figure.add_gridspec(rows, columns)
    places = [grid[row, column] for row in range(rows) for column in range(rows, columns)]
    for place, image in zip([grid[:, :rows], *places], [original, *augmented], strict=False):
        elements.show_image(figure.add_subplot(place), image)
    figure.axes[0].set_title("original")
    figure.axes[1].set_title("augmented")
    return figure
