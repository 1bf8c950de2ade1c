"""Figures of thresholds and operating points."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.evaluation.operating_points import (
    decision_curve,
    operating_curve,
    operating_point_label,
)
from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import DARK, GREY, LIGHT, is_narrow, style
from melanoma_lib.reporting.run import Run

RATES = ("sensitivity", "specificity")


def _points(run: Run) -> pd.DataFrame:
    """A row a model and operating point; sensitivity and specificity are those on the test split.

    `label` says in words what was aimed at; `test` holds the estimates.
    """
    rows = [
        {"model": name, "label": operating_point_label(point), **point,
         **{rate: point["test"][rate]["value"] for rate in RATES}}
        for name, model in run.models
        for point in model["operating_points"]
    ]  # fmt: skip
    return pd.DataFrame(rows).astype(dict.fromkeys(RATES, float))


def _scored(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By model's name, whether each test image is a melanoma, and its calibrated probability."""
    return {
        name: (test.is_melanoma, test.melanoma_probability(model["temperature"]))
        for (name, model), test in zip(run.models, run.split("test"), strict=True)
    }


def _counts(run: Run) -> list[tuple[int, int]]:
    """Every model's test images of melanomas, and of others."""
    found = [test.is_melanoma for test in run.split("test")]
    return [(int(melanoma.sum()), int((~melanoma).sum())) for melanoma in found]


@style()
def roc(run: Run) -> Figure:
    """ROC curves for melanoma with operating points, in full and where specificity is high."""
    figure, (full, zoom) = elements.subplots(3.3 + 0.16 * len(run.models), 1, 2)
    points, scored = _points(run), _scored(run)
    points = points.assign(alarms=1 - points["specificity"])
    marks = elements.operating_point_markers(points["label"])
    # High specificity, down to the tenth below its lowest point; other points lie outside.
    right = 0.2
    floor = min(0.8, points.loc[points["alarms"] <= right, "sensitivity"].min())
    floor = np.floor(10 * floor + 1e-9) / 10
    for axes in (full, zoom):
        axes.plot([0, 1], [0, 1], color=LIGHT, linestyle="--", linewidth=0.8, zorder=0)
        for index, (name, model) in enumerate(run.models):
            look, curve = elements.model_line(index), operating_curve(*scored[name])
            face = {"markerfacecolor": look["color"], "clip_on": False, "zorder": 3}
            area = format_estimate(model["metrics"]["melanoma_auc"])
            axes.plot(1 - curve["specificity"], curve["sensitivity"], **look,
                      label=f"{name}: AUC {area}")
            for point in points[points["model"] == name].itertuples():
                if axes is full or point.alarms <= right:
                    axes.plot(point.alarms, point.sensitivity, **marks[point.label] | face)
        melanomas, others = _counts(run)[0]
        axes.set(xlabel=elements.join_label("1 − specificity", f"({others:,} others)"),
                 ylabel=elements.join_label("Sensitivity", f"({melanomas:,} melanomas)"))
        elements.percent_ticks(axes.xaxis, axes.yaxis)
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
def threshold_curves(run: Run) -> Figure:
    """Sensitivity and specificity against the threshold, one panel per model.

    Thresholds of 0 have no place on the logarithmic axis.
    """
    melanomas, others = _counts(run)[0]
    label = f"Threshold (log scale)\nn = {melanomas:,} melanomas, {others:,} others"
    figure, panels = elements.panel_grid(len(run.models), 2, 2.2, 0.65, x=label,
                                         y="Sensitivity, specificity")
    points = _points(run)
    marks = elements.operating_point_markers(points["label"])
    points = points[points["threshold"] > 0]
    left = min([0.02, *points["threshold"]]) / 2
    for index, (axes, (name, scored)) in enumerate(zip(panels, _scored(run).items(), strict=True)):
        curve = operating_curve(*scored).query("threshold > 0")
        # Every threshold decides as the next row's does; beyond the last, no image is melanoma.
        ends = np.append(curve["threshold"], 2)
        for column, line, last in (("sensitivity", "-", 0), ("specificity", "--", 1)):
            heights = np.append(curve[column], last)
            axes.plot([min(left, ends[0]), *ends], [heights[0], *heights], line,
                      color=elements.model_line(index)["color"], drawstyle="steps-pre")
            for point in points[points["model"] == name].itertuples():
                height = heights[np.searchsorted(ends, point.threshold)]
                axes.plot(point.threshold, height, **marks[point.label], zorder=3, clip_on=False)
                axes.axvline(point.threshold, color=LIGHT, linewidth=0.8, zorder=0)
        axes.set(title=name, xscale="log", ylim=(-0.03, 1.03))
        elements.percent_ticks(axes.yaxis)
    panels[0].set_xlim(left, 1)
    elements.percent_ticks(panels[0].xaxis)
    entry = elements.legend_entry
    elements.legend(figure, [entry("sensitivity"), entry("specificity", linestyle="--"),
                             *(entry(label, **mark) for label, mark in marks.items())])
    return figure


@style()
def operating_points(run: Run) -> Figure:
    """Sensitivity and specificity with intervals, one row of panels per operating point.

    Models on other images than the first have the counts beside all names.
    """
    counts = dict(zip((name for name, _ in run.models), _counts(run), strict=True))
    alike = len(set(counts.values())) == 1
    sizes = "" if alike else "\n({:,} melanomas, {:,} others)"
    names = {name: name + sizes.format(*count) for name, count in counts.items()}
    kinds = [f"{count:,} {kind}" if alike else kind
             for count, kind in zip(counts[run.models[0][0]], ("melanomas", "others"), strict=True)]
    groups = _points(run).groupby("label", sort=False)
    height = 0.3 + len(groups) * (0.45 + (0.2 if alike else 0.32) * len(names))
    figure, grid = elements.subplots(height, len(groups), 2, squeeze=False, sharex="col",
                                     sharey=True)
    for line, (label, rows) in zip(grid, groups, strict=True):
        line[0].set_title(label)
        for axes, rate, kind in zip(line, RATES, kinds, strict=True):
            estimates = {names[row.model]: row.test[rate] for row in rows.itertuples()}
            elements.estimate_rows(axes, estimates)
            for target in rows.loc[rows["criterion"] == rate, "target"].unique():
                axes.axvline(target, color=DARK, linestyle="--", linewidth=1, zorder=1)
            elements.percent_ticks(axes.xaxis)
            axes.set_xlabel(elements.join_label(rate.capitalize(), f"({kind})"))
            axes.label_outer()
    return figure


@style()
def decision_curves(run: Run) -> Figure:
    """Net benefit on the test split against the threshold, one line per model."""
    figure, axes = elements.subplots(3.2)
    at, top = np.arange(0.005, 0.6, 0.005), 0.0
    for index, (name, scored) in enumerate(_scored(run).items()):
        curve = decision_curve(*scored, at)
        axes.plot(at, curve["model"], label=name, **elements.model_line(index))
        top = max(top, curve[["model", "treat_all"]].to_numpy().max())
    axes.plot(at, curve["treat_all"], color=GREY, linewidth=0.8, label="act on all")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle="--", label="act on none")
    axes.set(xlim=(0, at.max()), ylim=(-0.15 * top, 1.05 * top),
             xlabel="Threshold on the predicted probability",
             ylabel=elements.join_label("Net benefit per image", f"(n = {len(scored[0]):,})"))
    elements.percent_ticks(axes.xaxis)
    elements.legend(figure)
    return figure
