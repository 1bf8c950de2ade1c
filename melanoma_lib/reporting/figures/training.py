"""Figures of a training and of its confusion matrix."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from melanoma_lib.reporting.figures.panels import (
    class_labels,
    count_ticks,
    legend_entry,
    panel_grid,
    percent_ticks,
)
from melanoma_lib.reporting.figures.style import (
    DARK,
    GREY,
    is_narrow,
    model_line,
    page_width,
    style,
    text_size,
)


@style()
def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and accuracy by epoch, one row of panels per model.

    histories: model -> columns epoch, train_loss, val_loss (nats), train_accuracy, val_accuracy
    (0 to 1) and best (bool).
    """
    count = len(histories)
    figure, grid = plt.subplots(count, 2, figsize=(page_width(), 1.2 + 1.3 * count), squeeze=False,
                                sharex=True, sharey="col")
    for index, (line, (name, history)) in enumerate(zip(grid, histories.items(), strict=True)):
        kept = np.flatnonzero(history["best"])[-1:]  # each best epoch beat those before it
        for axes, column in zip(line, ("loss", "accuracy"), strict=True):
            axes.plot(history["epoch"], history[f"train_{column}"], color=GREY, linestyle="--")
            axes.plot(history["epoch"], history[f"val_{column}"], marker="o", markevery=kept,
                      color=model_line(index)["color"])
        line[0].set(title=name, ylabel="Loss (nats)")
        line[1].set_ylabel("Accuracy")
        line[1].yaxis.set_major_formatter(percent_ticks)
    for axes in grid[-1]:
        axes.set_xlabel("Epoch")
        count_ticks(axes.xaxis)
    handles = [legend_entry("training", color=GREY, linestyle="--"), legend_entry("validation"),
               legend_entry("best epoch", linestyle="", marker="o")]
    figure.legend(handles=handles, loc="outside upper right", ncols=3 - is_narrow())
    return figure


@style()
def confusion_matrices(matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """Counts and shares of the row; matrices: model -> int (C, C), rows true; class_names: C."""
    single = len(matrices) == 1
    ticks, names = range(len(class_names)), class_labels(class_names, 12)
    figure, panels = panel_grid(len(matrices), 2, 4.6 if single else 2.3, 0.9,
                                x="Predicted diagnosis", y="True diagnosis")
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(matrix):
            share = shares[row, column]
            percent = f"\n{share:.0%}" if share >= 0.005 else "\n<1%" if count else ""
            axes.text(column, row, f"{count}{percent}", ha="center", va="center", linespacing=1.1,
                      size=text_size(8.5 if single else 7),
                      color="white" if share > 0.55 else DARK)
        gap = "\n" if is_narrow() else " "
        axes.set_title(f"{name}{gap}(n = {matrix.sum():,} images)", size=text_size(8))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=text_size(8 if single else 7))
        axes.set_yticks(ticks, names)
        axes.set_xticks(ticks, names, rotation=90)
    return figure
