"""Figures of chapter 11: abstention, guarantees, and where they end."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from melanoma_lib.evaluation.abstention import ORDERS
from melanoma_lib.evaluation.bootstrap import UNDEFINED
from melanoma_lib.evaluation.conformal import METHODS
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.reporting.abstention_tables import KINDS, SHOWN_FRACTION, referral_at
from melanoma_lib.reporting.figures import elements
from melanoma_lib.reporting.figures.style import DARK, LIGHT, style
from melanoma_lib.reporting.run import Run


def _shown(run: Run, models: Mapping[str, dict]) -> list[dict]:
    """Of the networks those that the run shows, and of several their averages."""
    keys, networks = run.results["models"], run.results["abstention"]["weights"]
    return [model for key, model in models.items()
            if (key in keys if key in networks else len(keys) > 1)]  # fmt: skip


def _models(run: Run) -> list[dict]:
    return _shown(run, run.results["abstention"]["models"])


@style()
def risk_coverage(run: Run) -> Figure:
    """The error of the most certain images against how many are answered, one panel per model."""
    models = _models(run)
    figure, panels = elements.panel_grid(len(models), 2, 1.9, 0.5, x="Coverage: images answered",
                                         y="Risk: errors among them")
    top = max(max(found["risk"]) for model in models for found in model["risk_coverage"].values())
    top = top or 1.0  # where there is no error at all
    for axes, model in zip(panels, models, strict=True):
        for index, order in enumerate(ORDERS):
            if found := model["risk_coverage"].get(order):
                axes.plot(found["coverage"], found["risk"], **elements.model_line(index))
        full = model["risk_coverage"]["confidence"]["risk"][-1]
        axes.axhline(full, color=LIGHT, linewidth=0.8, zorder=0)
        axes.set(title=model["name"], xlim=(0, 1.02), ylim=(-0.02 * top, 1.05 * top))
        elements.percent_ticks(axes.xaxis, axes.yaxis)
    there = [order for order in ORDERS if any(order in m["risk_coverage"] for m in models)]
    elements.legend(figure, [elements.legend_entry(ORDERS[order], **elements.model_line(index))
                             for index, order in enumerate(ORDERS) if order in there])
    return figure


@style()
def referral(run: Run) -> Figure:
    """What is left when the least confident images go to a doctor, by how many do."""
    models = _models(run)
    fractions = [row["fraction"] for row in models[0]["referral"] if row["order"] == "confidence"]
    panels_of = {
        head: {
            "none" if not fraction else f"{fraction:.0%}": {
                model["name"]: referral_at(model, fraction)["test"][name] for model in models
            }
            for fraction in fractions
        }
        for name, head in (
            ("accuracy", "Accuracy on the rest"),
            ("sensitivity", "Sensitivity on the rest"),
            ("found_or_referred", "Melanomas found or referred"),
            ("referred", "Referred"),
        )
    }
    figure = elements.grouped_panels(panels_of, 2)
    for axes in figure.axes:
        elements.percent_ticks(axes.xaxis)
    for axes in figure.axes[::2]:
        axes.set_ylabel("Meant to be referred")
    return figure


@style()
def thresholds_meeting_target(run: Run) -> Figure:
    """How often thresholds reach their target and what they cost, panels per operating point."""
    models, confidence = _models(run), run.results["abstention"]["confidence"]
    points = models[0]["thresholds"]
    height = 0.6 + len(points) * (0.55 + 0.26 * len(models))
    figure, grid = elements.subplots(height, len(points), 2, squeeze=False, sharex="col",
                                     sharey=True)
    for line, (number, point) in zip(grid, enumerate(points), strict=True):
        pays = "Specificity" if point["criterion"] == "sensitivity" else "Sensitivity"
        meeting, paid = {}, {}
        for model in models:
            found = model["kept"][number]
            nothing = {"kept": UNDEFINED, "other_rate": None}
            of_kinds = {kind: found[kind] or nothing for kind in KINDS}
            meeting[model["name"]] = {kind: of["kept"] for kind, of in of_kinds.items()}
            paid[model["name"]] = {
                kind: dict.fromkeys(UNDEFINED, of["other_rate"])
                for kind, of in of_kinds.items()
            }
        line[0].set_title(operating_point_label(point))
        for axes, rows in zip(line, (meeting, paid), strict=True):
            elements.grouped_rows(axes, rows)
            elements.percent_ticks(axes.xaxis)
        line[0].axvline(confidence, color=DARK, linestyle="--", linewidth=1, zorder=1)
        line[0].set_xlim(-0.02, 1.02)
        line[1].set_title(f"{pays} that is left")
    grid[-1, 0].set_xlabel("Promise kept")
    grid[-1, 1].set_xlabel("Mean over draws")
    elements.legend(figure, [elements.legend_entry(words, **elements.model_marker(index))
                             for index, words in enumerate(KINDS.values())])
    return figure


@style()
def prediction_sets(run: Run) -> Figure:
    """Coverage and size of conformal sets by model and kind, with intervals."""
    models, promise = _models(run), run.results["abstention"]["coverage"]
    panels_of = {
        head: {
            model["name"]: {METHODS[sets["method"]][2]: sets["test"][name]
                            for sets in model["sets"]}
            for model in models
        }
        for name, head in (
            ("coverage", "True diagnosis in the set"),
            ("melanoma_coverage", "Melanoma in a melanoma's set"),
            ("holds_melanoma", "Melanoma in the set"),
            ("size", "Diagnoses in the set"),
        )
    }  # fmt: skip
    figure = elements.grouped_panels(panels_of, 2)
    for axes in figure.axes[:3]:
        elements.percent_ticks(axes.xaxis)
    for axes in figure.axes[:2]:
        axes.axvline(promise, color=DARK, linestyle="--", linewidth=1, zorder=1)
    return figure


@style()
def shifts(run: Run) -> Figure:
    """The promises on the test lesions as they are, shifted, and at another prevalence."""
    found, promise = run.results["abstention"]["shifts"], run.results["abstention"]["coverage"]
    first = next(iter(found[0]["models"].values()))["thresholds"][0]
    label = operating_point_label(first)

    def panel(value):
        return {shift["label"]: {model["name"]: value(model)
                                 for model in _shown(run, shift["models"])}
                for shift in found}  # fmt: skip

    rate = first["criterion"]
    figure = elements.grouped_panels({
        "True diagnosis in the set": panel(lambda of: of["sets"][0]["test"]["coverage"]),
        "Melanoma in a melanoma's set": panel(
            lambda of: of["sets"][0]["test"]["melanoma_coverage"]),
        f"{rate.capitalize()}, chosen for a\n{label}": panel(
            lambda of: of["thresholds"][0]["plain"][rate]),
        f"Accuracy on the rest,\nchosen to refer {SHOWN_FRACTION:.0%}": panel(
            lambda of: referral_at(of, SHOWN_FRACTION)["test"]["accuracy"]),
    }, 2)  # fmt: skip
    for axes, target in zip(figure.axes, (promise, promise, first["target"], None), strict=True):
        elements.percent_ticks(axes.xaxis)
        if target:
            axes.axvline(target, color=DARK, linestyle="--", linewidth=1, zorder=1)
    return figure
