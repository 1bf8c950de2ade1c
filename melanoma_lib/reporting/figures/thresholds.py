"""Figures of thresholds and operating points."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import DARK, GREY, LIGHT, is_narrow, style


@style()
def roc(curves: Mapping[str, pd.DataFrame], areas: Mapping, points: pd.DataFrame) -> Figure:
    """ROC curves for melanoma with operating points, in full and where specificity is high.

    curves: model -> columns sensitivity, specificity (0 to 1), by threshold; areas: model -> text
    of the AUC and its interval; points: as `operating_points` takes them.
    """
    figure, (full, zoom) = elements.subplots(3.3 + 0.16 * len(curves), 1, 2)
    points = points.assign(alarms=1 - points["specificity"])
    marks = elements.operating_point_markers(points["point"])
    # High specificity, down to the tenth below its lowest point; other points lie outside.
    right = 0.2
    floor = min(0.8, points.loc[points["alarms"] <= right, "sensitivity"].min())
    floor = np.floor(10 * floor + 1e-9) / 10
    for axes in (full, zoom):
        axes.plot([0, 1], [0, 1], color=LIGHT, linestyle="--", linewidth=0.8, zorder=0)
        for index, (name, curve) in enumerate(curves.items()):
            look = elements.model_line(index)
            face = {"markerfacecolor": look["color"], "clip_on": False, "zorder": 3}
            axes.plot(1 - curve["specificity"], curve["sensitivity"], **look,
                      label=f"{name}: AUC {areas[name]}")
            for point in points[points["model"] == name].itertuples():
                if axes is full or point.alarms <= right:
                    axes.plot(point.alarms, point.sensitivity, **marks[point.point] | face)
        others, melanomas = points["others"][0], points["melanomas"][0]
        axes.set(xlabel=elements.join_label("1 − specificity", f"({others:,} others)"),
                 ylabel=elements.join_label("Sensitivity", f"({melanomas:,} melanomas)"))
        axes.xaxis.set_major_formatter(elements.percent_ticks)
        axes.yaxis.set_major_formatter(elements.percent_ticks)
    left, top = -0.005, 1.005  # shows lines along the edges in full
    full.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    zoom.set(xlim=(left, right), ylim=(floor, top))
    for axis in (zoom.xaxis, zoom.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    frame = Rectangle((left, floor), right - left, top - floor, fill=False, color=GREY)
    full.add_patch(frame)
    figure.legend(handles=full.get_legend_handles_labels()[0], loc="outside upper left")
    figure.legend(handles=[elements.legend_entry(label, **mark) for label, mark in marks.items()],
                  loc=f"outside {'lower left' if is_narrow() else 'upper right'}")
    return figure


@style()
def threshold_curves(curves: Mapping[str, pd.DataFrame], points: pd.DataFrame) -> Figure:
    """Sensitivity and specificity against the threshold, one panel per model.

    curves: model -> columns threshold (increasing), sensitivity, specificity (0 to 1), a row
    per decision "melanoma if score >= threshold"; points: as `operating_points` takes them.
    Thresholds of 0 have no place on the logarithmic axis.
    """
    label = (f"Threshold (log scale)\nn = {points['melanomas'][0]:,} melanomas, "
             f"{points['others'][0]:,} others")  # fmt: skip
    figure, panels = elements.panel_grid(len(curves), 2, 2.2, 0.65, x=label,
                                         y="Sensitivity, specificity")
    marks = elements.operating_point_markers(points["point"])
    points = points[points["threshold"] > 0]
    left = min([0.02, *points["threshold"]]) / 2
    for index, (axes, (name, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        curve = curve[curve["threshold"] > 0]
        # Every threshold decides as the next row's does; beyond the last, no image is melanoma.
        ends = np.append(curve["threshold"], 2)
        for column, line, last in (("sensitivity", "-", 0), ("specificity", "--", 1)):
            heights = np.append(curve[column], last)
            axes.plot([min(left, ends[0]), *ends], [heights[0], *heights], line,
                      color=elements.model_line(index)["color"], drawstyle="steps-pre")
            for point in points[points["model"] == name].itertuples():
                height = heights[np.searchsorted(ends, point.threshold)]
                axes.plot(point.threshold, height, **marks[point.point], zorder=3, clip_on=False)
                axes.axvline(point.threshold, color=LIGHT, linewidth=0.8, zorder=0)
        axes.set(title=name, xscale="log", ylim=(-0.03, 1.03))
        axes.yaxis.set_major_formatter(elements.percent_ticks)
    panels[0].set_xlim(left, 1)
    panels[0].xaxis.set_major_formatter(elements.percent_ticks)
    entry = elements.legend_entry
    elements.legend(figure, [entry("sensitivity"), entry("specificity", linestyle="--"),
                             *(entry(label, **mark) for label, mark in marks.items())])
    return figure


@style()
def operating_points(table: pd.DataFrame) -> Figure:
    """Sensitivity and specificity with intervals, one row of panels per operating point.

    table: rows 0, 1, ... of model, point, threshold (0 to 1), target (0 to 1 or NaN), criterion
    ("sensitivity" or "specificity"), melanomas and others (images) and, for sensitivity and
    specificity, value, _low and _high (0 to 1). Models on other images have their counts beside
    their names.
    """
    counts = ["melanomas", "others"]
    alike = len(table[counts].drop_duplicates()) == 1
    if not alike:
        sizes = [table["melanomas"].map("\n({:,} melanomas, ".format),
                 table["others"].map("{:,} others)".format)]  # fmt: skip
        table = table.assign(model=table["model"] + sizes[0] + sizes[1])
    models, groups = list(table["model"].unique()), table.groupby("point", sort=False)
    height = 0.3 + len(groups) * (0.45 + (0.2 if alike else 0.32) * len(models))
    figure, grid = elements.subplots(height, len(groups), 2, squeeze=False, sharex="col",
                                     sharey=True)
    for line, (point, rows) in zip(grid, groups, strict=True):
        line[0].set_title(point)
        for axes, measure, kind in zip(line, ("sensitivity", "specificity"), counts, strict=True):
            columns = {measure: "value", f"{measure}_low": "low", f"{measure}_high": "high"}
            elements.interval_dots(axes, rows.rename(columns=columns), models)
            for target in rows.loc[rows["criterion"] == measure, "target"].dropna().unique():
                axes.axvline(target, color=DARK, linestyle="--", linewidth=1, zorder=1)
            axes.xaxis.set_major_formatter(elements.percent_ticks)
            number = f"{table[kind].iloc[0]:,} {kind}" if alike else kind
            axes.set_xlabel(elements.join_label(measure.capitalize(), f"({number})"))
            axes.label_outer()
    return figure


@style()
def decision_curves(curves: Mapping[str, pd.DataFrame], images: int) -> Figure:
    """Net benefit against the threshold, one line per model.

    curves: model -> columns threshold (0 to 1), model and treat_all (net benefit per image), on
    so many images.
    """
    figure, axes = elements.subplots(3.2)
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(curve["threshold"], curve["model"], label=name, **elements.model_line(index))
    axes.plot(curve["threshold"], curve["treat_all"], color=GREY, linewidth=0.8, label="act on all")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle="--", label="act on none")
    top = max(curve[["model", "treat_all"]].to_numpy().max() for curve in curves.values())
    axes.set(xlim=(0, curve["threshold"].max()), ylim=(-0.15 * top, 1.05 * top),
             xlabel="Threshold on the predicted probability",
             ylabel=elements.join_label("Net benefit per image", f"(n = {images:,})"))
    axes.xaxis.set_major_formatter(elements.percent_ticks)
    elements.legend(figure)
    return figure
