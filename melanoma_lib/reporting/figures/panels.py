"""What several figures are made of: panels, bars, dots with intervals, tick labels."""

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
    is_narrow,
    model_marker,
    page_width,
    text_size,
)


def panel_grid(
    count: int, columns: int, height: float, labels: float = 0.0, x: str = "", y: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `columns` side by side, with a common vertical axis.

    height: inches a row; labels: inches below the lowest row; x, y: the labels of shared axes.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    tall = rows * height + labels * (2 if count % columns else 1)  # labels also above a gap
    size = (page_width(), tall)
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


def with_count(label: str, count: str) -> str:
    """An axis label with what its share is a share of, in two lines where the page is narrow."""
    gap = "\n" if is_narrow() else " "
    return f"{label}{gap}({count})"


def legend_entry(label: str, **look) -> Line2D:
    """A legend entry, dark grey unless a colour is given."""
    return Line2D([], [], label=label, **{"color": DARK} | look)


def class_labels(codes: Iterable[str], width: int = 99) -> list[str]:
    """Spelled-out class names, wrapped at `width` characters."""
    names = [DISPLAY_NAMES.get(code, code) for code in codes]
    return [textwrap.fill(name, width, break_long_words=False) for name in names]


def percent_ticks(share: float, _position: int) -> str:
    """Formats the ticks of an axis of fractions."""
    return f"{round(100 * share, 6):g}%"


def count_ticks(axis: Axis) -> None:
    """Shows whole numbers with thousands separators on an axis."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter("{x:,.0f}")


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows 0, 1, ... of a horizontal plot, the first at the top."""
    if not axes.yaxis.get_tick_params()["labelleft"]:  # the panel to the left has the names
        axes.yaxis.set_visible(False)
        return
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def named_bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str],
    height: float = 0.75, shift: float = 0.0, **look,
) -> None:
    """Named horizontal bars with a text beside each, the first at the top."""
    bars = axes.barh(np.arange(len(values)) + shift, values, height, **look)
    axes.bar_label(bars, texts, padding=3, size=text_size(7.5))
    axes.margins(x=0.35)
    name_rows(axes, names)


def interval_dots(axes: Axes, rows: pd.DataFrame, models: Sequence[str], text: str = "") -> None:
    """One dot with its interval per row of model, value, low, high; baselines in grey.

    text: the format of the values written at the right edge. Rows without a value stay empty.
    """
    rows = rows.dropna(subset="value").astype(dict.fromkeys(("value", "low", "high"), float))
    for row in rows.to_dict("records"):
        position = models.index(row["model"])
        look = model_marker(position)
        if row["model"].startswith(("baseline", "random weights")):
            look |= {"color": GREY, "marker": "x"}
        if row["model"].startswith("baseline"):
            axes.axvline(row["value"], color=GREY, linestyle="--", linewidth=0.8, zorder=1)
        axes.hlines(position, row["low"], row["high"], color=look["color"])
        axes.plot(row["value"], position, **look)
        axes.text(1.02, position, text.format(row["value"]), va="center",
                  transform=axes.get_yaxis_transform())
    name_rows(axes, models)
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
