"""What several figures are made of: panels, bars, estimates with intervals, looks and labels."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO

import numpy as np
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
    style,
)


class _PageFigure(Figure):
    """A figure that a notebook's cell shows where it ends with it.

    It is not one of pyplot's, so that it needs no window, whatever the backend, and no closing.
    """

    @style()
    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture)
        return picture.getvalue()


def page_figure(height: float, layout: str = "constrained") -> Figure:
    """An empty figure as wide as the page, `height` inches high."""
    return _PageFigure(figsize=(page_width(), height), layout=layout)


@style()
def subplots(height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, Axes]:
    """A `page_figure` and its panels; options: those of `Figure.subplots`."""
    figure = page_figure(height)
    return figure, figure.subplots(rows, columns, **options)


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


def operating_point_markers(labels: Iterable[str]) -> dict[str, dict]:
    """An open marker for each operating point."""
    look = {"linestyle": "", "color": "black", "markerfacecolor": "white"}
    labels = enumerate(dict.fromkeys(labels))
    return {label: look | {"marker": MARKERS[index % 6]} for index, label in labels}


def legend_entry(label: str, **look) -> Line2D:
    """A legend entry, dark grey unless a colour is given."""
    return Line2D([], [], label=label, **{"color": DARK} | look)


def legend(figure: Figure, handles: Sequence | None = None, columns: int = 3) -> None:
    """The legend above a figure, of everything labelled unless the entries are given."""
    columns -= is_narrow() and columns > 2
    figure.legend(handles=handles, loc="outside upper right", ncols=columns)


def class_labels(codes: Iterable[str], width: int = 99) -> list[str]:
    """Spelled-out class names, wrapped at `width` characters."""
    names = [DISPLAY_NAMES.get(code, code) for code in codes]
    return [textwrap.fill(name, width, break_long_words=False) for name in names]


def percent_ticks(*axes: Axis) -> None:
    """Shows fractions as per cent on some axes; matplotlib's own formatter shows 0.1% as 0%."""
    for axis in axes:
        axis.set_major_formatter(lambda fraction, _position: f"{round(100 * fraction, 6):g}%")


def count_ticks(axis: Axis) -> None:
    """Shows whole numbers with thousands separators on an axis."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter("{x:,.0f}")


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows 0, 1, ... of a horizontal plot, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    for panel in axes.get_shared_y_axes().get_siblings(axes):
        panel.tick_params(axis="y", length=0)


def named_bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Iterable[str],
    colours: Sequence[str] | str,
) -> None:
    """Named horizontal bars with a text beside each, the first at the top."""
    bars = axes.barh(range(len(names)), values, 0.75, color=colours)
    axes.bar_label(bars, texts, padding=3)
    axes.margins(x=0.35)
    name_rows(axes, names)


def numbers(estimate: Mapping) -> np.ndarray:
    """Value, low and high of an estimate, (3,); NaN where it is not defined."""
    return np.array([estimate[end] for end in ("value", "low", "high")], float)


def plot_estimate(axes: Axes, row: int, estimate: Mapping, **look) -> None:
    """A marker at the value and a line along the interval; neither where it is not defined."""
    value, low, high = numbers(estimate)
    axes.hlines(row, low, high, color=look["color"])
    axes.plot(value, row, **{"markersize": 6} | look)


def estimate_rows(
    axes: Axes, estimates: Mapping[str, Mapping], text: str = "", models: int | None = None
) -> None:
    """A row with an estimate per name, in the models' looks; baselines in grey.

    Baselines are what begins so, or with "random weights"; with `models`, only so many rows are
    models, and the others grey too. An estimate's `single`, the values of its trainings, are faint
    dots. text: the format of the values written at the right edge.
    """
    for row, (name, estimate) in enumerate(estimates.items()):
        look = model_marker(row)
        no_model = models is not None and row >= models
        if no_model or name.startswith(("baseline", "random weights")):
            look |= {"color": GREY, "marker": "X"}
        if single := estimate.get("single"):
            axes.plot(single, [row + 0.25] * len(single), ".", color=look["color"], alpha=0.5)
        plot_estimate(axes, row, estimate, markeredgecolor="none", zorder=3, **look)
        if estimate["value"] is None:
            continue
        if name.startswith("baseline"):
            axes.axvline(estimate["value"], color=GREY, linestyle="--", linewidth=0.8, zorder=1)
        axes.text(1.02, row, text.format(estimate["value"]), va="center",
                  transform=axes.get_yaxis_transform())
    name_rows(axes, list(estimates))
    axes.grid(axis="x")
    axes.margins(x=0.08)


def estimate_panels(
    panels_of: Mapping[str, Mapping[str, Mapping]],
    columns: int,
    text: str,
    models: int | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure of `estimate_rows` with values, a panel per label; every panel has the same rows."""
    rows = len(next(iter(panels_of.values())))
    figure, panels = panel_grid(len(panels_of), columns, 0.65 + 0.22 * rows)
    for axes, (label, estimates) in zip(panels, panels_of.items(), strict=True):
        estimate_rows(axes, estimates, text, models)
        axes.set_xlabel(label)
    return figure, panels


def grouped_rows(axes: Axes, rows: Mapping[str, Mapping[str, Mapping]]) -> None:
    """A row a name, in it below each other the estimates of several series, in their looks."""
    for row, series in enumerate(rows.values()):
        half = min(0.3, 0.12 * (len(series) - 1))
        places = np.linspace(-half, half, len(series))
        for index, (place, estimate) in enumerate(zip(places, series.values(), strict=True)):
            look = model_marker(index) | {"markersize": 4, "markeredgecolor": "none"}
            plot_estimate(axes, row + place, estimate, zorder=3, **look)
    name_rows(axes, list(rows))
    axes.grid(axis="x")
    axes.margins(x=0.08)


def grouped_panels(
    panels_of: Mapping[str, Mapping[str, Mapping[str, Mapping]]], columns: int
) -> Figure:
    """A figure of `grouped_rows`, a panel per label; every panel has the same rows and series."""
    rows = next(iter(panels_of.values()))
    series = list(next(iter(rows.values())))
    tall = max(0.3, 0.1 * len(series))  # inches a row
    figure, panels = panel_grid(len(panels_of), columns, 0.65 + tall * len(rows))
    for axes, (label, estimates) in zip(panels, panels_of.items(), strict=True):
        grouped_rows(axes, estimates)
        axes.set_xlabel(label)
    legend(figure, [legend_entry(name, **model_marker(index))
                             for index, name in enumerate(series)], columns=2)
    return figure


def show_image(axes: Axes, image: np.ndarray, **options) -> None:
    """An image without ticks and frame."""
    axes.imshow(image, **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
