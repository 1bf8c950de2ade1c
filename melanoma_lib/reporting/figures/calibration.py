"""Figures of calibration."""

import numpy as np
from matplotlib.figure import Figure

from melanoma_lib.evaluation import calibration
from melanoma_lib.evaluation.metrics import nll, top_class
from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import GREY, LIGHT, style
from melanoma_lib.reporting.run import Run


@style()
def reliability(run: Run, of_melanoma: bool = False) -> Figure:
    """Reliability diagrams above histograms, one row per model, before and after scaling.

    Of the top class on the test split, or of melanoma's own probability. The ECE in the titles is
    that of the bins.
    """
    count = len(run.models)
    x, y = ("Melanoma probability", "Melanomas") if of_melanoma else ("Confidence", "Accuracy")
    figure, grid = elements.subplots(min(1.2 + 1.6 * count, 9), 2 * count, 2, squeeze=False,
                                     sharex=True, sharey="row", height_ratios=[3, 1] * count)
    for index, ((name, model), test) in enumerate(zip(run.models, run.split("test"), strict=True)):
        mark = elements.model_marker(index)
        temperatures = {"before": 1.0, "after": model["temperature"]}
        for side, (moment, temperature) in enumerate(temperatures.items()):
            upper, lower = grid[2 * index : 2 * index + 2, side]
            predicted = (
                (test.melanoma_probability(temperature), test.is_melanoma) if of_melanoma
                else top_class(test.labels, test.probabilities(temperature))
            )  # fmt: skip
            table = calibration.reliability(*predicted)
            upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8, zorder=0)
            upper.vlines(table["confidence"], table["accuracy_low"], table["accuracy_high"],
                         color=mark["color"], clip_on=False)
            upper.plot(table["confidence"], table["accuracy"], **mark, clip_on=False, zorder=3)
            upper.set(xlim=(0, 1), ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
            gaps = (table["accuracy"] - table["confidence"]).abs() * table["count"]
            ece = gaps.sum() / max(table["count"].sum(), 1)
            title = elements.join_label(f"{name}, {moment} scaling:", f"ECE {ece:.3f}")
            upper.set_title(title, size="medium")
            lower.bar(table["low"], table["count"], table["high"] - table["low"], align="edge",
                      color=LIGHT, edgecolor="white")
            elements.percent_ticks(upper.yaxis, lower.xaxis)
            elements.count_ticks(lower.yaxis)
        grid[2 * index, 0].set_ylabel(f"{y}\n(n = {len(test.labels):,})")
        grid[2 * index + 1, 0].set_ylabel("Images")
    for axes in grid[-1]:
        axes.set_xlabel(x)
    figure.align_ylabels()
    return figure


@style()
def temperature_curve(run: Run) -> Figure:
    """Negative log-likelihood on the validation split against temperature, one line per model."""
    fitted = [model["temperature"] for _, model in run.models]
    grid = np.geomspace(*calibration.BOUNDS, 1201)
    grid = grid[(grid >= min(0.25, *fitted)) & (grid <= max(4, *fitted))]
    figure, axes = elements.subplots(3)
    axes.axvline(1, color=LIGHT, linewidth=0.8, zorder=0)
    for index, ((name, model), val) in enumerate(zip(run.models, run.split("val"), strict=True)):
        losses = [nll(val.labels, val.probabilities(temperature)) for temperature in grid]
        nearest = np.abs(np.log(grid / model["temperature"])).argmin()
        axes.plot(grid, losses, **elements.model_marker(index) | elements.model_line(index),
                  markevery=[nearest], markersize=7, markeredgecolor="white",
                  label=f"{name} (T = {model['temperature']:.2f})")
    elements.legend(figure, columns=2)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="Temperature T (log scale)",
             ylabel=f"Negative log-likelihood\n(nats per image, n = {len(val.labels):,})")
    return figure
