"""Figures that set models side by side."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import DARK, GREY, MODEL_COLOURS, style


@style()
def architectures(table: pd.DataFrame) -> Figure:
    """Bars of size and cost by model: name, parameters (millions), gmacs (10^9 multiply-adds)."""
    figure, panels = elements.subplots(0.8 + 0.32 * len(table), 1, 2, sharey=True)
    labels = {"parameters": "Parameters (millions)", "gmacs": "Multiply-adds per image (billions)"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        texts = [f"{value:.1f}" if value >= 1 else f"{value:#.2g}" for value in table[column]]
        colours = elements.model_colours(table["name"])
        elements.named_bars(axes, table["name"], table[column], texts, colours)
        axes.set_xlabel(label)
    return figure


@style()
def comparison(table: pd.DataFrame, basis: str = "") -> Figure:
    """Dots with intervals; table: model, metric (the label of its panel), value, low, high.

    basis: what all models were tested on, in words.
    """
    figure, panels = elements.interval_panels(table, "metric", 3, "{:.3f}")
    figure.suptitle(basis, x=0.995, ha="right", size="medium")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    return figure


@style()
def accuracy_latency(table: pd.DataFrame, images: int) -> Figure:
    """Accuracy on so many images against latency by model.

    table: model, latency_ms, latency_low, latency_high (ms), accuracy, accuracy_low,
    accuracy_high (0 to 1), parameters (millions, the marker's size).
    """
    figure, axes = elements.subplots(3.8)
    handles = []
    for index, row in enumerate(table.to_dict("records")):
        x, y, mark = row["latency_ms"], row["accuracy"], elements.model_marker(index)
        axes.hlines(y, row["latency_low"], row["latency_high"], color=mark["color"])
        axes.vlines(x, row["accuracy_low"], row["accuracy_high"], color=mark["color"])
        axes.plot(x, y, **mark, markersize=4 + 1.6 * row["parameters"] ** 0.5,
                  markeredgecolor="white")
        handles.append(elements.legend_entry(f"{row['model']} ({row['parameters']:.0f} M)", **mark))
    axes.margins(0.15)
    axes.grid()
    axes.yaxis.set_major_formatter(elements.percent_ticks)
    axes.set(xlabel="Latency (ms per image)",
             ylabel=elements.join_label("Accuracy", f"(n = {images:,} images)"))
    elements.legend(figure, handles)
    return figure


@style()
def subgroups(table: pd.DataFrame, overall: Mapping[str, float]) -> Figure:
    """Dots with intervals by group of patients, one panel per measure.

    table: attribute (a heading), group, lesions, melanoma_lesions (counts), small (bool) and, per
    measure, a dict of value, low, high (fractions or None); overall: measure (the axis label) ->
    value on the whole test split. Measures are named in `table` as in `overall`.
    """
    rows: list[dict] = []
    for attribute, groups in table.groupby("attribute", sort=False):
        rows += [{"label": attribute}, *groups.to_dict("records")]
    labels = [row.get("label") or f"{row['group']} ({row['lesions']:,}, "
              f"{row['melanoma_lesions']:,})" for row in rows]  # fmt: skip
    figure, panels = elements.subplots(0.7 + 0.18 * len(rows), 1, len(overall), sharey=True)
    for axes, (measure, value) in zip(panels, overall.items(), strict=True):
        axes.axvline(value, color=DARK, linestyle="--", linewidth=0.8, zorder=1)
        for position, row in enumerate(rows):
            if "label" not in row:
                ends = pd.to_numeric(pd.Series(row[measure], dtype=object))
                colour = GREY if row["small"] else MODEL_COLOURS[0]
                axes.hlines(position, ends["low"], ends["high"], color=colour)
                axes.plot(ends["value"], position, "o", color=colour,
                          markerfacecolor="white" if row["small"] else colour)
        axes.set(xlabel=measure, xlim=(-0.03, 1.03))
        axes.xaxis.set_major_formatter(elements.percent_ticks)
        axes.grid(axis="x")
    elements.name_rows(axes, labels)
    for row, label in zip(rows, panels[0].get_yticklabels(), strict=True):
        label.set_fontweight("bold" if "label" in row else "normal")
    return figure
