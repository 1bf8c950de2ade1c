"""What several figures are made of: panels, bars, dots with intervals, looks and labels."""

import textwrap
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from melanoma_lib.data.classes import DISPLAY_NAMES
from melanoma_lib.reporting.figures.style import (
    DARK,
    GREY,
    MARKERS,
    MODEL_COLOURS,
    MODEL_LINES,
    is_narrow,
    page_width,
)


def subplots(height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, Axes]:
    """`plt.subplots` as wide as the page, `height` inches high."""
    return plt.subplots(rows, columns, figsize=(page_width(), height), **options)


def panel_grid(
    count: int, columns: int, height: float, labels: float = 0.0, x: str = "", y: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `columns` side by side, with a common vertical axis.

    height: inches a row; labels: inches below the lowest row; x, y: the labels of shared axes.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    tall = rows * height + labels * (2 if count % columns else 1)  # labels also above a gap
    figure, grid = subplots(tall, rows, columns, squeeze=False, sharex=bool(x), sharey=True)
    for spare in grid.flat[count:]:
        spare.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(y)
    for axes in grid.flat[count - columns : count]:
        axes.set_xlabel(x)
        axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def join_label(label: str, rest: str) -> str:
    """A label and what belongs to it, in two lines where the page is narrow."""
    return label + ("\n" if is_narrow() else " ") + rest


def model_line(index: int) -> dict:
    """Colour and line style of the model at position `index`."""
    return {"color": MODEL_COLOURS[index % 6], "linestyle": MODEL_LINES[index % 6]}


def model_marker(index: int) -> dict:
    """Colour and marker of the model at position `index`."""
    return {"color": MODEL_COLOURS[index % 6], "linestyle": "", "marker": MARKERS[index % 6]}


def model_colours(models: Sequence[str]) -> list[str]:
    """The colour of each model."""
    return [MODEL_COLOURS[index % 6] for index in range(len(models))]


def operating_point_markers(labels: Iterable[str]) -> dict[str, dict]:
    """An open marker for each operating point."""
    look = {"linestyle": "", "color": "black", "markerfacecolor": "white"}
    labels = enumerate(dict.fromkeys(labels))
    return {label: look | {"marker": MARKERS[index % 6]} for index, label in labels}


def legend_entry(label: str, **look) -> Line2D:
    """A legend entry, dark grey unless a colour is given."""
    return Line2D([], [], label=label, **{"color": DARK} | look)


def legend(figure: Figure, handles: Sequence[Line2D] | None = None) -> None:
    """The legend above a figure, of everything labelled unless the entries are given."""
    figure.legend(handles=handles, loc="outside upper right", ncols=3 - is_narrow())


def class_labels(codes: Iterable[str], width: int = 99) -> list[str]:
    """Spelled-out class names, wrapped at `width` characters."""
    names = [DISPLAY_NAMES.get(code, code) for code in codes]
    return [textwrap.fill(name, width, break_long_words=False) for name in names]


def percent_ticks(fraction: float, _position: int) -> str:
    """Formats the ticks of an axis of fractions."""
    return f"{round(100 * fraction, 6):g}%"


def count_ticks(axis: Axis) -> None:
    """Shows whole numbers with thousands separators on an axis."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter("{x:,.0f}")


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows 0, 1, ... of a horizontal plot, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    for panel in axes.figure.axes:
        panel.tick_params(axis="y", length=0)


def named_bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Iterable[str],
    colours: Sequence[str],
) -> None:
    """Named horizontal bars with a text beside each, the first at the top."""
    import seaborn as sns  # slow to import

    sns.barplot(x=list(values), y=list(names), hue=list(names), palette=list(colours),
                saturation=1, width=0.75, legend=False, ax=axes)
    for bar, text in zip(axes.containers, texts, strict=True):
        axes.bar_label(bar, [text], padding=3)
    axes.margins(x=0.35)
    axes.tick_params(axis="y", length=0)


def interval_dots(
    axes: Axes, rows: pd.DataFrame, models: Sequence[str], text: str = ""
) -> None:
    """One dot with its interval per row of model, value, low, high; baselines in grey.

    text: the format of the values written at the right edge. Rows without a value stay empty.
    """
    import seaborn as sns  # slow to import

    rows = rows.astype(dict.fromkeys(("value", "low", "high"), float))
    colours = dict(zip(models, model_colours(models), strict=True))
    markers = {model: MARKERS[index % 6] for index, model in enumerate(models)}
    for model in models:
        if model.startswith(("baseline", "random weights")):
            colours[model], markers[model] = GREY, "X"
    axes.yaxis.update_units(models)  # rows in this order, whichever have a value
    sns.scatterplot(rows, x="value", y="model", hue="model", style="model", palette=colours,
                    markers=markers, s=36, edgecolor="none", legend=False, ax=axes, zorder=3)
    axes.hlines(rows["model"], rows["low"], rows["high"], rows["model"].map(colours))
    for model, value in rows[["model", "value"]].dropna().itertuples(index=False):
        if model.startswith("baseline"):
            axes.axvline(value, color=GREY, linestyle="--", linewidth=0.8, zorder=1)
        axes.text(1.02, model, text.format(value), va="center",
                  transform=axes.get_yaxis_transform())
    axes.set(ylim=(len(models) - 0.5, -0.5), xlabel="", ylabel="")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.margins(x=0.08)


def interval_panels(
    table: pd.DataFrame, column: str, columns: int, text: str
) -> tuple[Figure, list[Axes]]:
    """One panel of dots with intervals and values per value of `column`."""
    models, groups = list(table["model"].unique()), table.groupby(column, sort=False)
    figure, panels = panel_grid(len(groups), columns, 0.65 + 0.22 * len(models))
    for axes, (name, rows) in zip(panels, groups, strict=True):
        interval_dots(axes, rows, models, text)
        axes.set_xlabel(name)
    return figure, panels


def show_image(axes: Axes, image: np.ndarray, **options) -> None:
    """An image without ticks and frame."""
    axes.imshow(image, **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
