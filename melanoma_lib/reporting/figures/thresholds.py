"""Figures of thresholds and operating points."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from melanoma_lib.reporting.figures.panels import (
    interval_dots,
    legend_entry,
    panel_grid,
    percent_ticks,
    with_count,
)
from melanoma_lib.reporting.figures.style import (
    DARK,
    GREY,
    LIGHT,
    is_narrow,
    model_line,
    operating_point_markers,
    page_width,
    style,
)


@style()
def roc(
    curves: Mapping[str, tuple], points: Mapping[str, Sequence[tuple]], counts: tuple[int, int]
) -> Figure:
    """ROC curves for melanoma with operating points, in full and where specificity is high.

    curves: model -> (false positive rates, true positive rates, text of the AUC and interval);
    points: model -> [(label, false positive rate, true positive rate), ...]; rates in 0 to 1.
    counts: images of melanomas and of others.
    """
    figure, (full, zoom) = plt.subplots(1, 2, figsize=(page_width(), 3.3 + 0.16 * len(curves)))
    every = [point for rows in points.values() for point in rows]
    marks = operating_point_markers(label for label, *_ in every)
    # High specificity, down to the tenth below its lowest point; other points lie outside.
    right, floor = 0.2, min([0.8, *(y for _, x, y in every if x <= 0.2)])
    floor = np.floor(10 * floor + 1e-9) / 10
    for axes in (full, zoom):
        axes.plot([0, 1], [0, 1], color=LIGHT, linestyle="--", linewidth=0.8, zorder=0)
        for index, (name, (fpr, tpr, area)) in enumerate(curves.items()):
            look = model_line(index)
            axes.plot(fpr, tpr, **look, label=f"{name}: AUC {area}")
            for label, x, y in points.get(name, ()):
                face = {"markerfacecolor": look["color"], "clip_on": False, "zorder": 3}
                if axes is full or x <= right:
                    axes.plot(x, y, **marks[label] | face)
        axes.set(xlabel=with_count("1 − specificity", f"{counts[1]:,} others"),
                 ylabel=with_count("Sensitivity", f"{counts[0]:,} melanomas"))
        axes.xaxis.set_major_formatter(percent_ticks)
        axes.yaxis.set_major_formatter(percent_ticks)
    left, top = -0.005, 1.005  # shows lines along the edges in full
    full.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    zoom.set(xlim=(left, right), ylim=(floor, top))
    for axis in (zoom.xaxis, zoom.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    frame = Rectangle((left, floor), right - left, top - floor, fill=False, color=GREY)
    full.add_patch(frame)
    figure.legend(handles=full.get_legend_handles_labels()[0], loc="outside upper left")
    figure.legend(handles=[legend_entry(label, **mark) for label, mark in marks.items()],
                  loc=f"outside {'lower left' if is_narrow() else 'upper right'}")
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
    figure, panels = panel_grid(len(curves), 2, 2.2, 0.65, x=label, y="Sensitivity, specificity")
    marks = operating_point_markers(label for row in thresholds.values() for label in row)
    chosen = [value for row in thresholds.values() for value in row.values() if value > 0]
    left = min([0.02, *chosen]) / 2
    for index, (axes, (name, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        curve = curve[curve["threshold"] > 0]
        # Every threshold decides as the next row's does; beyond the last, no image is melanoma.
        ends = np.append(curve["threshold"], 2)
        for column, line, last in (("sensitivity", "-", 0), ("specificity", "--", 1)):
            heights = np.append(curve[column], last)
            axes.plot([min(left, ends[0]), *ends], [heights[0], *heights], line,
                      color=model_line(index)["color"], drawstyle="steps-pre")
            for label, value in thresholds.get(name, {}).items():
                if value > 0:
                    height = heights[np.searchsorted(ends, value)]
                    axes.plot(value, height, **marks[label], zorder=3, clip_on=False)
                    axes.axvline(value, color=LIGHT, linewidth=0.8, zorder=0)
        axes.set(title=name, xscale="log", ylim=(-0.03, 1.03))
        axes.yaxis.set_major_formatter(percent_ticks)
    panels[0].set_xlim(left, 1)
    panels[0].xaxis.set_major_formatter(percent_ticks)
    handles = [legend_entry("sensitivity"), legend_entry("specificity", linestyle="--"),
               *(legend_entry(label, **mark) for label, mark in marks.items())]
    figure.legend(handles=handles, loc="outside upper right", ncols=3 - is_narrow())
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
    size = (page_width(), 0.3 + len(groups) * (0.45 + (0.2 if alike else 0.32) * len(models)))
    figure, grid = plt.subplots(len(groups), 2, figsize=size, squeeze=False, sharex="col",
                                sharey=True)
    for line, (point, rows) in zip(grid, groups, strict=True):
        line[0].set_title(point)
        for axes, measure, kind in zip(line, ("sensitivity", "specificity"), counts, strict=True):
            columns = {measure: "value", f"{measure}_low": "low", f"{measure}_high": "high"}
            interval_dots(axes, rows.rename(columns=columns), models)
            for target in rows.loc[rows["criterion"] == measure, "target"].dropna().unique():
                axes.axvline(target, color=DARK, linestyle="--", linewidth=1, zorder=1)
            axes.xaxis.set_major_formatter(percent_ticks)
            number = f"{table[kind].iloc[0]:,} {kind}" if alike else kind
            axes.set_xlabel(with_count(measure.capitalize(), number))
            axes.label_outer()
    return figure


@style()
def decision_curves(curves: Mapping[str, pd.DataFrame], images: int) -> Figure:
    """Net benefit against the threshold, one line per model.

    curves: model -> columns threshold (0 to 1), model and treat_all (net benefit per image), on
    so many images.
    """
    figure, axes = plt.subplots(figsize=(page_width(), 3.2))
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(curve["threshold"], curve["model"], label=name, **model_line(index))
    axes.plot(curve["threshold"], curve["treat_all"], color=GREY, linewidth=0.8, label="act on all")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle="--", label="act on none")
    top = max(curve[["model", "treat_all"]].to_numpy().max() for curve in curves.values())
    axes.set(xlim=(0, curve["threshold"].max()), ylim=(-0.15 * top, 1.05 * top),
             xlabel="Threshold on the predicted probability",
             ylabel=with_count("Net benefit per image", f"n = {images:,}"))
    axes.xaxis.set_major_formatter(percent_ticks)
    figure.legend(loc="outside upper right", ncols=3 - is_narrow())
    return figure
