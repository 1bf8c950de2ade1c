"""Figures of a training and of its confusion matrix."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import DARK, GREY, style, text_size


@style()
def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and accuracy by epoch, one row of panels per model.

    histories: model -> columns epoch, train_loss, val_loss (nats), train_accuracy, val_accuracy
    (0 to 1) and best (bool).
    """
    count = len(histories)
    figure, grid = elements.subplots(1.2 + 1.3 * count, count, 2, squeeze=False, sharex=True,
                                     sharey="col")
    for index, (line, (name, history)) in enumerate(zip(grid, histories.items(), strict=True)):
        kept = np.flatnonzero(history["best"])[-1:]  # each best epoch beat those before it
        for axes, column in zip(line, ("loss", "accuracy"), strict=True):
            axes.plot(history["epoch"], history[f"train_{column}"], color=GREY, linestyle="--")
            axes.plot(history["epoch"], history[f"val_{column}"], marker="o", markevery=kept,
                      color=elements.model_line(index)["color"])
        line[0].set(title=name, ylabel="Loss (nats)")
        line[1].set_ylabel("Accuracy")
        elements.percent_ticks(line[1].yaxis)
    for axes in grid[-1]:
        axes.set_xlabel("Epoch")
        elements.count_ticks(axes.xaxis)
    entry = elements.legend_entry
    elements.legend(figure, [entry("training", color=GREY, linestyle="--"), entry("validation"),
                             entry("best epoch", linestyle="", marker="o")])
    return figure


@style()
def confusion_matrices(matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """Counts and fractions of the row; matrices: model -> int (C, C), rows true; class_names: C."""
    import seaborn as sns  # slow to import

    single = len(matrices) == 1
    names = elements.class_labels(class_names, 12)
    size, larger = text_size(8 if single else 7), text_size(8.5 if single else 7)
    figure, panels = elements.panel_grid(len(matrices), 2, 4.6 if single else 2.3, 0.9,
                                         x="Predicted diagnosis", y="True diagnosis")
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        texts = [f"{n}\n{fraction:.0%}" if fraction >= 0.005 else f"{n}\n<1%" if n else "0"
                 for n, fraction in zip(matrix.flat, fractions.flat, strict=True)]
        labels = {"xlabel": axes.get_xlabel(), "ylabel": axes.get_ylabel()}
        sns.heatmap(fractions, annot=np.reshape(texts, matrix.shape), fmt="", cmap="Blues", vmin=0,
                    vmax=1, cbar=False, xticklabels=names, yticklabels=names, ax=axes,
                    annot_kws={"size": larger, "linespacing": 1.1})
        for text, fraction in zip(axes.texts, fractions.flat, strict=True):
            text.set_color("white" if fraction > 0.55 else DARK)  # seaborn's white comes too early
        axes.set(**labels)
        title = elements.join_label(name, f"(n = {matrix.sum():,} images)")
        axes.set_title(title, size="medium")
        axes.tick_params(length=0, labelsize=size)
        axes.tick_params(axis="x", rotation=90)
    return figure
