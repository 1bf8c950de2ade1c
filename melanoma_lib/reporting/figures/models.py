"""Figures that set models side by side."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_lib.reporting.figures.panels import (
    interval_panels,
    legend_entry,
    name_rows,
    named_bars,
    percent_ticks,
    with_count,
)
from melanoma_lib.reporting.figures.style import (
    DARK,
    GREY,
    is_narrow,
    model_line,
    model_marker,
    page_width,
    style,
    text_size,
)


@style()
def architectures(table: pd.DataFrame) -> Figure:
    """Bars of size and cost by model: name, parameters (millions), gmacs (10^9 multiply-adds)."""
    size = (page_width(), 0.8 + 0.32 * len(table))
    figure, panels = plt.subplots(1, 2, figsize=size, sharey=True)
    labels = {"parameters": "Parameters (millions)", "gmacs": "Multiply-adds per image (billions)"}
    colours = [model_line(index)["color"] for index in range(len(table))]
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        texts = [f"{value:.1f}" if value >= 1 else f"{value:#.2g}" for value in table[column]]
        named_bars(axes, table["name"], table[column], texts, color=colours)
        axes.set_xlabel(label)
    return figure


@style()
def comparison(table: pd.DataFrame, basis: str = "") -> Figure:
    """Dots with intervals; table: model, metric (the label of its panel), value, low, high.

    basis: what all models were tested on, in words.
    """
    figure, panels = interval_panels(table, "metric", 3, "{:.3f}")
    figure.suptitle(basis, x=0.995, ha="right", size=text_size(8))
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    return figure


@style()
def accuracy_latency(table: pd.DataFrame, images: int) -> Figure:
    """Accuracy on so many images against latency by model.

    table: model, latency_ms, latency_low, latency_high (ms), accuracy, accuracy_low,
    accuracy_high (0 to 1), parameters (millions, the marker's size).
    """
    figure, axes = plt.subplots(figsize=(page_width(), 3.8))
    handles = []
    for index, row in enumerate(table.to_dict("records")):
        x, y, mark = row["latency_ms"], row["accuracy"], model_marker(index)
        size = 4 + 1.6 * np.sqrt(row["parameters"])
        axes.hlines(y, row["latency_low"], row["latency_high"], color=mark["color"])
        axes.vlines(x, row["accuracy_low"], row["accuracy_high"], color=mark["color"])
        axes.plot(x, y, **mark, markersize=size, markeredgecolor="white")
        handles.append(legend_entry(f"{row['model']} ({row['parameters']:.0f} M)", **mark))
    axes.margins(0.15)
    axes.grid()
    axes.yaxis.set_major_formatter(percent_ticks)
    axes.set(xlabel="Latency (ms per image)",
             ylabel=with_count("Accuracy", f"n = {images:,} images"))
    figure.legend(handles=handles, loc="outside upper right", ncols=3 - is_narrow())
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
    figure, panels = plt.subplots(1, len(overall), figsize=(page_width(), 0.7 + 0.18 * len(rows)),
                                  sharey=True)
    for axes, (measure, value) in zip(panels, overall.items(), strict=True):
        axes.axvline(value, color=DARK, linestyle="--", linewidth=0.8, zorder=1)
        for small, colour in ((False, model_line(0)["color"]), (True, GREY)):
            told = {position: row[measure] for position, row in enumerate(rows)
                    if not isinstance(row, str) and row["small"] == small
                    and row[measure]["value"] is not None}  # fmt: skip
            sure = {position: each for position, each in told.items() if each["low"] is not None}
            axes.hlines(list(sure), [each["low"] for each in sure.values()],
                        [each["high"] for each in sure.values()], color=colour)
            axes.plot([each["value"] for each in told.values()], list(told), "o", color=colour,
                      markerfacecolor="white" if small else colour)
        name_rows(axes, [row if isinstance(row, str) else
                     f"{row['group']} ({row['lesions']:,}, {row['melanoma_lesions']:,})"
                     for row in rows])
        axes.grid(axis="x")
        axes.set(xlabel=measure, xlim=(-0.03, 1.03))
        axes.xaxis.set_major_formatter(percent_ticks)
    for row, label in zip(rows, panels[0].get_yticklabels(), strict=True):
        label.set_fontweight("bold" if isinstance(row, str) else "normal")
    return figure
