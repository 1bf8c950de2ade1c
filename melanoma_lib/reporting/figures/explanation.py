"""Figures of explanations.

Those of a whole test split take what `summarize_map_scores` gives, by the model's name in print.
"""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from melanoma_lib.explanation.map_metrics import (
    CENTRE_PRIOR,
    METHOD_NAMES,
    UNIFORM_MAP,
    map_estimates,
)
from melanoma_lib.explanation.occlusion_metrics import ALTERATIONS
from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import GREY, LIGHT, page_width, style

OVERLAPS = {
    "inside": "Heat inside the lesion",
    "pointing": "Hottest pixel in the lesion",
    "iou": "Overlap with the lesion (IoU)",
}


@style()
def grad_cam(rows: Sequence[Mapping]) -> Figure:
    """Images beside their heat maps, one row per image, one column per model.

    rows: dicts with image uint8 (H, W, 3), title, overlays (model -> float (H, W) in 0 to 1)
    and mask (bool (H, W), drawn as an outline, or None).
    """
    models = list(rows[0]["overlays"])
    tile = min((page_width() - 0.8) / (1 + len(models)), 1.8)
    figure = elements.page_figure(len(rows) * tile + 0.8, "compressed")
    grid = figure.subplots(len(rows), 1 + len(models), squeeze=False)
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
def mask_overlap(explained: Mapping[str, dict]) -> Figure:
    """Scores of Grad-CAM against masks, with intervals, beside random weights and baselines."""
    first = next(iter(explained.values()))
    maps = {name: map_estimates(entry) for name, entry in explained.items()}
    maps |= {f"random weights: {name}": map_estimates(entry, "random")
             for name, entry in explained.items()}  # fmt: skip
    maps |= {f"baseline: {name}": map_estimates(first, "none", name)
             for name in (CENTRE_PRIOR, UNIFORM_MAP)}  # fmt: skip
    heads = {score: f"{head}\n(n = {first['images']:,})" for score, head in OVERLAPS.items()}
    heads["road"] = f"Faithfulness, ROAD\n(n = {first['faithful_images']:,})"
    panels_of = {
        head: {name: scores[score] for name, scores in maps.items()}
        for score, head in heads.items()
    }
    figure, panels = elements.estimate_panels(panels_of, 2, "{:.1%}")
    for axes in panels:
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        elements.percent_ticks(axes.xaxis)
    return figure


@style()
def randomised_weights(explained: Mapping[str, dict]) -> Figure:
    """Similarity of maps against the fraction of layers whose weights are random."""
    figure, panels = elements.subplots(3.2, 1, len(METHOD_NAMES), sharey=True)
    for axes, (method, title) in zip(panels, METHOD_NAMES.items(), strict=True):
        axes.axhline(0, color=LIGHT, linewidth=0.8, zorder=0)
        for index, (name, entry) in enumerate(explained.items()):
            look = elements.model_marker(index) | elements.model_line(index)
            steps = map_estimates(entry, method=method)["randomised"]
            shares = [step["share"] for step in steps]
            value, low, high = zip(*(elements.numbers(s["similarity"]) for s in steps), strict=True)
            axes.plot([0, *shares], [1, *value], **look, label=name)
            axes.vlines(shares, low, high, color=look["color"])
        axes.set_title(title)
        axes.set_xlabel("Layers with random weights,\ncounted from the output")
        elements.percent_ticks(axes.xaxis)
    panels[0].set_ylabel(f"Rank correlation with\nthe trained map (n = {_faithful(explained):,})")
    elements.legend(figure, panels[0].lines[1:], 2)
    return figure


@style()
def agreement(explained: Mapping[str, dict], agreements: Mapping[str, dict]) -> Figure:
    """How alike each model's maps and a centre prior are, and, in grey, those of two models.

    agreements: what `map_agreement` gives by the pair's names.
    """
    rows = {f"{name}, centre prior": map_estimates(entry)["like_centre"]
            for name, entry in explained.items()} | dict(agreements)  # fmt: skip
    head = f"Rank correlation of two maps (n = {_faithful(explained):,})"
    figure, _ = elements.estimate_panels({head: rows}, 1, "{:.3f}", models=len(explained))
    return figure


@style()
def occlusion(found: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Metrics of networks on altered images, with intervals, below those of images as they are.

    found: what `summarize_occlusion` gives by the model's name. Alterations that concern few
    images, because they remove what few show, are left out.
    """
    panels_of: dict[str, dict] = {}
    heads = {"balanced_accuracy": "Balanced accuracy", "melanoma_auc": "Melanoma AUC"}
    for metric, head in heads.items():
        rows = panels_of[head] = {"as they are": {}}
        for name, alterations in found.items():
            rows["as they are"][name] = alterations[0]["original"][metric]
            for row in alterations:
                if not row["alteration"].endswith("removed"):
                    label = ALTERATIONS[row["alteration"]]
                    rows.setdefault(label, {})[name] = row["metrics"][metric]
    figure = elements.grouped_panels(panels_of, 2)
    figure.axes[1].axvline(0.5, color=GREY, linestyle="--", linewidth=0.8, zorder=1)
    elements.percent_ticks(figure.axes[0].xaxis)
    return figure


def _faithful(explained: Mapping[str, dict]) -> int:
    return next(iter(explained.values()))["faithful_images"]
