"""Figures of recipes: the learning rate, results by diagnosis, and quality against time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_lib.data.classes import DISPLAY_NAMES
from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import DARK, style


@style()
def learning_rates(schedules: Mapping[str, Sequence[float]], epochs: Mapping[str, int]) -> Figure:
    """The learning rate over a training; schedules: its values in equal steps, by recipe."""
    figure, axes = elements.subplots(2.6)
    for index, (name, rates) in enumerate(schedules.items()):
        progress = np.linspace(0, epochs[name], len(rates))
        axes.plot(progress, rates, **elements.model_line(index), label=name)
    axes.set(xlabel="Epoch", ylabel="Learning rate", yscale="log")
    axes.grid()
    elements.legend(figure, axes.get_lines())
    return figure


@style()
def by_diagnosis(models: Mapping[str, Sequence[Mapping]], measure: str) -> Figure:
    """A panel for each diagnosis.

    models: the rows of `subgroups.by_diagnosis`; measure: `recall` or `calibration_in_the_large`.
    """
    rows = next(iter(models.values()))
    panels_of = {
        f"{DISPLAY_NAMES[row['diagnosis']]} ({row['images']:,})": {
            name: found[number][measure] for name, found in models.items()
        }
        for number, row in enumerate(rows) if row["images"]
    }  # fmt: skip
    text = "{:.2f}" if measure == "recall" else "{:+.3f}"
    figure, panels = elements.estimate_panels(panels_of, 3, text)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if measure == "calibration_in_the_large":
            axes.axvline(0, color=DARK, linewidth=0.8, zorder=1)
        else:
            axes.set_xlim(-0.03, 1.03)
    return figure


@style()
def time_to_quality(recipes: Mapping[str, Mapping], heads: Mapping[str, str]) -> Figure:
    """Metrics against the seconds of one training, a panel each.

    recipes: `seconds` and the estimates `metrics` of each; heads: an even number of metrics and
    their labels.
    """
    rows = len(heads) // 2
    figure, panels = elements.subplots(2.4 * rows, rows, 2, squeeze=False)
    for axes, (metric, head) in zip(panels.flat, heads.items(), strict=True):
        for index, recipe in enumerate(recipes.values()):
            mark = elements.model_marker(index)
            value, low, high = elements.numbers(recipe["metrics"][metric])
            axes.vlines(recipe["seconds"], low, high, color=mark["color"])
            axes.plot(recipe["seconds"], value, **mark, markersize=7, markeredgecolor="white")
        axes.set(ylabel=head, xscale="log", xlabel="Training (s)")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.grid()
    entries = [elements.legend_entry(name, **elements.model_marker(index))
               for index, name in enumerate(recipes)]  # fmt: skip
    elements.legend(figure, entries, columns=2)
    return figure
