"""Figures of explanations."""

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import LIGHT, page_width, style


@style()
def grad_cam(rows: Sequence[Mapping]) -> Figure:
    """Images beside their heat maps, one row per image, one column per model.

    rows: dicts with image uint8 (H, W, 3), title, overlays (model -> float (H, W) in 0 to 1)
    and mask (bool (H, W), drawn as an outline, or None).
    """
    models = list(rows[0]["overlays"])
    tile = min((page_width() - 0.8) / (1 + len(models)), 1.8)
    figure, grid = elements.subplots(len(rows) * tile + 0.8, len(rows), 1 + len(models),
                                     squeeze=False, layout="compressed")
    for line, row in zip(grid, rows, strict=True):
        elements.show_image(line[0], row["image"])
        line[0].set_ylabel(textwrap.fill(row["title"], 16), size=8, rotation=0, ha="right",
                           va="center")
        for axes, model in zip(line[1:], models, strict=True):
            elements.show_image(axes, row["image"].mean(axis=2), cmap="gray", vmin=0, vmax=255)
            heat = axes.imshow(row["overlays"][model], cmap="viridis", vmin=0, vmax=1, alpha=0.55)
        if row["mask"] is not None and 0 < row["mask"].mean() < 1:  # else there is no border
            for axes in line:
                outline = axes.contour(row["mask"], [0.5], colors="white", linewidths=0.8)
                outline.set_path_effects([withStroke(linewidth=1.6, foreground="black")])
    for axes, name in zip(grid[0], ["image", *models], strict=True):
        axes.set_title(textwrap.fill(name, 13, break_long_words=False), size=7, loc="center")
    bar = figure.colorbar(heat, ax=grid, location="bottom", shrink=0.4, aspect=30, pad=0.02)
    bar.set_label("Grad-CAM heat (fraction of the map's maximum)", size=8)
    bar.outline.set_visible(False)
    return figure


@style()
def mask_overlap(table: pd.DataFrame) -> Figure:
    """Dots with intervals; table: model, score (its panel), value, low, high.

    Values are fractions, or NaN. A model is a name, or begins with "baseline" or "random weights".
    """
    figure, panels = elements.interval_panels(table, "score", 2, "{:.1%}")
    for axes in panels:
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        axes.xaxis.set_major_formatter(elements.percent_ticks)
    return figure


@style()
def randomised_weights(curves: Mapping[str, Mapping[str, pd.DataFrame]], images: int) -> Figure:
    """Similarity of maps against the fraction of layers whose weights are random.

    curves: method -> model -> table of share (of the layers), value, low, high (-1 to 1);
    images: how many.
    """
    figure, panels = elements.subplots(3.2, 1, len(curves), sharey=True)
    for axes, (method, models) in zip(panels, curves.items(), strict=True):
        axes.axhline(0, color=LIGHT, linewidth=0.8, zorder=0)
        for index, (name, rows) in enumerate(models.items()):
            rows, look = rows.astype(float), elements.model_marker(index)
            look |= elements.model_line(index)
            axes.plot([0, *rows["share"]], [1, *rows["value"]], **look, label=name)
            axes.vlines(rows["share"], rows["low"], rows["high"], color=look["color"])
        axes.set_title(method)
        axes.set_xlabel("Layers with random weights,\ncounted from the output")
        axes.xaxis.set_major_formatter(elements.percent_ticks)
    panels[0].set_ylabel(f"Rank correlation with\nthe trained map (n = {images:,})")
    figure.legend(handles=panels[0].lines[1:], loc="outside upper right", ncols=2)
    return figure
