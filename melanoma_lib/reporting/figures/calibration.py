"""Figures of calibration."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import GREY, LIGHT, style


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
    figure, grid = elements.subplots(min(1.2 + 1.6 * count, 9), 2 * count, 2, squeeze=False,
                                     sharex=True, sharey="row", height_ratios=[3, 1] * count)
    for index, (name, pair) in enumerate(tables.items()):
        mark = elements.model_marker(index)
        for side, moment in enumerate(("before", "after")):
            table, (upper, lower) = pair[moment], grid[2 * index : 2 * index + 2, side]
            upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8, zorder=0)
            upper.vlines(table["confidence"], table["accuracy_low"], table["accuracy_high"],
                         color=mark["color"], clip_on=False)
            upper.plot(table["confidence"], table["accuracy"], **mark, clip_on=False, zorder=3)
            upper.set(xlim=(0, 1), ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
            upper.yaxis.set_major_formatter(elements.percent_ticks)
            gaps = (table["accuracy"] - table["confidence"]).abs() * table["count"]
            ece = gaps.sum() / max(table["count"].sum(), 1)
            title = elements.join_label(f"{name}, {moment} scaling:", f"ECE {ece:.3f}")
            upper.set_title(title, size="medium")
            lower.bar(table["low"], table["count"], table["high"] - table["low"], align="edge",
                      color=LIGHT, edgecolor="white")
            lower.xaxis.set_major_formatter(elements.percent_ticks)
            elements.count_ticks(lower.yaxis)
        grid[2 * index, 0].set_ylabel(f"{y}\n(n = {table['count'].sum():,.0f})")
        grid[2 * index + 1, 0].set_ylabel("Images")
    for axes in grid[-1]:
        axes.set_xlabel(x)
    figure.align_ylabels()
    return figure


@style()
def temperature_curve(
    temperatures: np.ndarray, nll: Mapping, fitted: Mapping, images: int
) -> Figure:
    """Negative log-likelihood of `images` validation images against temperature.

    temperatures: (n,) above 0; nll: model -> (n,) nats per image; fitted: model -> temperature.
    """
    figure, axes = elements.subplots(3)
    axes.axvline(1, color=LIGHT, linewidth=0.8, zorder=0)
    for index, (name, values) in enumerate(nll.items()):
        nearest = np.abs(np.log(temperatures / fitted[name])).argmin()
        axes.plot(temperatures, values, **elements.model_marker(index) | elements.model_line(index),
                  markevery=[nearest], markersize=7, markeredgecolor="white",
                  label=f"{name} (T = {fitted[name]:.2f})")
    figure.legend(loc="outside upper right", ncols=2)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="Temperature T (log scale)",
             ylabel=f"Negative log-likelihood\n(nats per image, n = {images:,})")
    return figure
