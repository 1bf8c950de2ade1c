"""A report about one picture to take along, as PDF or as JSON."""

import io
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from melanoma_lib.data.classes import COLOURS, DISPLAY_NAMES, MELANOMA
from melanoma_lib.inference import wording
from melanoma_lib.inference.page import data_url, heat_url
from melanoma_lib.inference.predictor import Prediction, Predictor, heat_to_rgba, result_row
from melanoma_lib.inference.uploads import Picture

A4 = (8.27, 11.69)  # inches
LINE = 100  # characters


def report_document(
    predictor: Predictor,
    prediction: Prediction,
    picture: Picture,
    heat: np.ndarray,
    about: Mapping[str, str],
) -> dict:
    """The document of `melanoma predict --json` with its date, the picture and the heat map.

    about: `name` of the picture, `point` of operation, and `class` of the heat map.
    """
    point = predictor.operating_point(about["point"])
    decision = predictor.decide(prediction, point["name"])
    row = {"image": about["name"]} | result_row(prediction, decision)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **wording.json_document(predictor, point, [row]),
        "weights_sha256": predictor.bundle["weights_sha256"],
        "picture": data_url(picture.view, "JPEG", quality=92),
        "heat_map": {"class": about["class"], "image": heat_url(heat)},
    }


def report_pdf(
    predictor: Predictor,
    prediction: Prediction,
    picture: Picture,
    heat: np.ndarray,
    about: Mapping[str, str],
) -> bytes:
    """The same on one page of A4 as PDF; of a picture out of distribution without a map."""
    figure = Figure(figsize=A4)
    lines = _text(predictor, prediction, about)
    figure.text(0.08, 0.95, wording.TITLE, fontsize=14, weight="bold", va="top")
    figure.text(0.08, 0.92, "\n".join(lines), fontsize=9, va="top", linespacing=1.4,
                parse_math=False)  # fmt: skip
    below = 0.90 - 0.0152 * len(lines)  # where the text ends
    tall = min(0.28, below - 0.25)
    axes = figure.add_axes((0.08, below - tall, 0.4, tall), anchor="NW")
    axes.imshow(picture.view)
    axes.set_title(f"the picture {about['name']}"[:60], fontsize=8, loc="left", parse_math=False)
    axes.axis("off")
    if not prediction.out_of_distribution:
        axes = figure.add_axes((0.52, below - tall, 0.4, tall), anchor="NW")
        layer = Image.alpha_composite(
            picture.view.convert("RGBA"),
            heat_to_rgba(heat).resize(picture.view.size, Image.Resampling.BILINEAR),
        )
        axes.imshow(layer)
        name = DISPLAY_NAMES[about["class"]]
        axes.set_title(f"where the evidence for {name} lies", fontsize=8, loc="left")
        axes.axis("off")
        _draw_probabilities(figure, prediction, below - tall - 0.04)
    figure.savefig(buffer := io.BytesIO(), format="pdf", metadata={"Title": wording.TITLE})
    return buffer.getvalue()


def _text(predictor: Predictor, prediction: Prediction, about: Mapping[str, str]) -> list[str]:
    decision = predictor.decide(prediction, about["point"])
    if prediction.out_of_distribution:
        verdict = [wording.NO_VERDICT + ".", wording.OUT_OF_DISTRIBUTION]
    else:
        verdict = [
            wording.decision_text(decision) + ".", *wording.explain_decision(prediction, decision)
        ]  # fmt: skip
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    warnings = wording.model_warnings(predictor)
    sha256 = predictor.bundle["weights_sha256"][:16]
    model = f"Model: {predictor.name}, weights {sha256} (SHA-256). {date}."
    paragraphs = [wording.DISCLAIMER, *warnings, model, *verdict]
    if not prediction.out_of_distribution:
        paragraphs.append(wording.HEAT_MAP)
    return [
        line for paragraph in paragraphs for line in [*textwrap.wrap(paragraph, LINE), ""]
    ]  # fmt: skip


def _draw_probabilities(figure: Figure, prediction: Prediction, top: float) -> None:
    """Bars of the calibrated probabilities, the highest at the top, below `top` of the page."""
    ranked = sorted(prediction.probabilities.items(), key=lambda pair: pair[1])
    axes = figure.add_axes((0.3, top - 0.16, 0.5, 0.15))
    axes.barh(range(len(ranked)), [p for _, p in ranked], color=[COLOURS[c] for c, _ in ranked])
    axes.set_yticks(range(len(ranked)), [DISPLAY_NAMES[code] for code, _ in ranked])
    for tick, (code, _) in zip(axes.get_yticklabels(), ranked, strict=True):
        tick.set_weight("bold" if code == MELANOMA else "normal")
    for position, (_, p) in enumerate(ranked):
        axes.text(p + 0.01, position, wording.percent(p), va="center", fontsize=8)
    axes.set_xlim(0, 1.15)
    axes.set_xticks([])
    axes.tick_params(labelsize=8, length=0)
    axes.set_title("calibrated probability of each diagnosis", fontsize=8, loc="left")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
