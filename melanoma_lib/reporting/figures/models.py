"""Figures that set models side by side."""

from collections.abc import Mapping
from itertools import groupby

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_lib.evaluation.subgroups import ATTRIBUTES
from melanoma_lib.evaluation.trainings import interval_half_width
from melanoma_lib.reporting.compare import COLUMNS
from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import DARK, GREY, MODEL_COLOURS, style
from melanoma_lib.reporting.leakage import SETS
from melanoma_lib.reporting.run import Run


@style()
def architectures(table: pd.DataFrame) -> Figure:
    """Bars of size and cost by model: name, parameters (millions), gmacs (10^9 multiply-adds)."""
    figure, panels = elements.subplots(0.8 + 0.32 * len(table), 1, 2, sharey=True)
    labels = {"parameters": "Parameters (millions)", "gmacs": "Multiply-adds per image (billions)"}
    colours = [elements.model_line(index)["color"] for index in range(len(table))]
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        texts = [f"{value:.1f}" if value >= 1 else f"{value:#.2g}" for value in table[column]]
        elements.named_bars(axes, table["name"], table[column], texts, colours)
        axes.set_xlabel(label)
    return figure


def _metric_panels(metrics: Mapping[str, Mapping], basis: str = "") -> Figure:
    """A panel per metric of the tables; metrics: the estimates by name in print; basis: of all."""
    panels_of = {
        head: {name: estimates[metric] for name, estimates in metrics.items()}
        for metric, (head, _) in COLUMNS.items()
    }
    figure, panels = elements.estimate_panels(panels_of, 3, "{:.3f}")
    figure.suptitle(basis, x=0.995, ha="right", size="medium")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    return figure


@style()
def comparison(run: Run) -> Figure:
    """The metrics of every model with intervals; of several trainings also each one's value."""
    basis = "n = {test_images:,} images of {test_lesions:,} lesions".format_map(run.results)
    count = run.results.get("trainings", 1)
    metrics = {
        name: {
            metric: estimate | {"single": [t["metrics"][metric] for t in model["trainings"]]}
            if count > 1 else estimate
            for metric, estimate in model["metrics"].items()
        }
        for name, model in run.models
    }  # fmt: skip
    return _metric_panels(metrics, basis + f", {count} trainings a model" * (count > 1))


@style()
def value_of_trainings(variances: Mapping[str, Mapping[str, float]], lesions: int) -> Figure:
    """Half the width of a 95% interval against trainings, for three numbers of test lesions.

    variances: the variance components of a metric by model; lesions: those they were measured on.
    """
    sizes = {f"{lesions // 4:,}": 0.25, f"{lesions:,}": 1, f"{4 * lesions:,}": 4}
    counts = range(2, 16)
    figure, panels = elements.panel_grid(
        len(sizes), 3, 2.6, x="Trainings", y="Half width of the interval"
    )
    for axes, (label, multiple) in zip(panels, sizes.items(), strict=True):
        for index, (name, variance) in enumerate(variances.items()):
            widths = [interval_half_width(variance, count, multiple) for count in counts]
            axes.plot(counts, widths, **elements.model_line(index), label=name)
        axes.set_title(f"{label} test lesions", loc="left")
        axes.set_ylim(0, None)
        axes.grid()
        elements.percent_ticks(axes.yaxis)
    elements.legend(figure, panels[0].get_lines())
    return figure


@style()
def price_of_leakage(run: Run) -> Figure:
    """What leakage changes in the sets of the same test images, at the largest leaked fraction."""
    sets = run.results["leakage"]["fractions"][-1]["sets"]
    panels_of = {
        head: {f"{SETS[name]} ({found['images']:,})": _with_single(found["difference"][metric])
               for name, found in sets.items()}
        for metric, (head, _) in COLUMNS.items()
    }  # fmt: skip
    figure, panels = elements.estimate_panels(panels_of, 3, "{:+.3f}")
    for axes in panels:
        axes.axvline(0, color=DARK, linewidth=0.8, zorder=1)
        # No steps with a digit more, such as 0.025: their labels touch.
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 4, 5, 8, 10]))
    figure.suptitle("trained with leakage minus without", x=0.995, ha="right", size="medium")
    return figure


@style()
def leaked_fraction(run: Run) -> Figure:
    """What leakage changes in all test images, against the fraction of them that leaked."""
    designs = run.results["leakage"]["fractions"]
    shown = ("accuracy", "melanoma_auc")
    figure, panels = elements.subplots(2.6, 1, len(shown))
    for axes, metric, look in zip(panels, shown, map(elements.model_marker, (0, 1)), strict=True):
        for design in designs:
            fraction, found = design["leaked_fraction"], design["sets"]["all"]["difference"][metric]
            value, low, high = elements.numbers(found)
            single = _with_single(found)["single"]
            axes.vlines(fraction, low, high, color=look["color"])
            axes.plot(fraction, value, **look, markeredgecolor="none", zorder=3)
            axes.plot([fraction + 0.01] * len(single), single, ".", color=look["color"], alpha=0.5)
        label = f"{COLUMNS[metric][0]}, with leakage\nminus without"
        axes.axhline(0, color=DARK, linewidth=0.8, zorder=1)
        axes.set(xlabel="Leaked fraction of the test images", ylabel=label)
        axes.set_xlim(left=0)
        axes.margins(0.1)
        axes.grid(axis="y")
        elements.percent_ticks(axes.xaxis)
    return figure


def _with_single(estimate: Mapping) -> dict:
    """A difference with those of several pairs of trainings as `estimate_rows` takes them."""
    values = [value for value in estimate.get("of_each_training", []) if value is not None]
    return {**estimate, "single": values if len(values) > 1 else []}


@style()
def two_splits(run: Run) -> Figure:
    """The metrics of one architecture on the split by lesion, and on that by image."""
    price = run.results["price_of_leakage"]
    return _metric_panels({
        f"split by {split}\n(n = {price[split]['test_images']:,} images)": price[split]["metrics"]
        for split in ("lesion", "image")
    })  # fmt: skip


@style()
def accuracy_latency(run: Run) -> Figure:
    """Accuracy on the test split against latency by model; the marker's size: its parameters."""
    figure, axes = elements.subplots(3.8)
    handles = []
    for index, (name, model) in enumerate(run.models):
        latency, accuracy = model["latency"], model["metrics"]["accuracy"]
        y, low, high = elements.numbers(accuracy)
        x, millions = latency["median_ms"], model["parameters"] / 1e6
        mark = elements.model_marker(index)
        axes.hlines(y, latency["low_ms"], latency["high_ms"], color=mark["color"])
        axes.vlines(x, low, high, color=mark["color"])
        axes.plot(x, y, **mark, markersize=4 + 1.6 * millions**0.5, markeredgecolor="white")
        size = f"{millions:.1f}" if millions < 10 else f"{millions:.0f}"
        handles.append(elements.legend_entry(f"{name} ({size} M)", **mark))
    axes.margins(0.15)
    axes.grid()
    elements.percent_ticks(axes.yaxis)
    label = elements.join_label("Accuracy", f"(n = {run.results['test_images']:,} images)")
    axes.set(xlabel="Latency (ms per image)", ylabel=label)
    elements.legend(figure, handles)
    return figure


@style()
def subgroups(run: Run) -> Figure:
    """The first model on every subgroup of patients, one panel per measure."""
    _, model = run.models[0]
    measures = {"melanoma_auc": "Melanoma AUC", "sensitivity": "Sensitivity",
                "specificity": "Specificity"}  # fmt: skip
    overall = model["metrics"] | model["operating_points"][0]["test"]
    rows: list[dict] = []  # those without a group are headings
    for attribute, groups in groupby(model["subgroups"], lambda row: row["attribute"]):
        rows += [{"label": ATTRIBUTES[attribute]}, *groups]
    labels = [row.get("label") or f"{row['group']} ({row['lesions']:,}, "
              f"{row['melanoma_lesions']:,})" for row in rows]  # fmt: skip
    figure, panels = elements.subplots(0.7 + 0.18 * len(rows), 1, len(measures), sharey=True)
    for axes, (measure, label) in zip(panels, measures.items(), strict=True):
        value, _, _ = elements.numbers(overall[measure])
        axes.axvline(value, color=DARK, linestyle="--", linewidth=0.8, zorder=1)
        for position, row in enumerate(rows):
            if "group" in row:
                colour = GREY if row["small"] else MODEL_COLOURS[0]
                face = "white" if row["small"] else colour
                elements.plot_estimate(axes, position, row[measure], marker="o", color=colour,
                                       markerfacecolor=face, markersize=5)
        axes.set(xlabel=label, xlim=(-0.03, 1.03))
        elements.percent_ticks(axes.xaxis)
        axes.grid(axis="x")
    elements.name_rows(axes, labels)
    for row, label in zip(rows, panels[0].get_yticklabels(), strict=True):
        label.set_fontweight("normal" if "group" in row else "bold")
    return figure
