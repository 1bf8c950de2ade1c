"""The web page as HTML: its frame, and the fragments that show a prediction.

Functions named `_html` return fragments; their class names are styled in static/page.css.
"""

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from melanoma_lib.data.classes import CLASS_NAMES, COLOURS, DISPLAY_NAMES, MELANOMA
from melanoma_lib.data.images import FORMATS
from melanoma_lib.data.synthetic import paint, photograph
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.inference import wording
from melanoma_lib.inference.predictor import (
    MAX_FILE_BYTES,
    Decision,
    Prediction,
    Predictor,
    heat_to_rgba,
    log_odds,
)
from melanoma_lib.inference.uploads import TOO_LARGE, Picture

STATIC = Path(__file__).parent / "static"
OTHER_COLOUR = "#666666"
AXIS_END = log_odds(0.999)  # the probability axis runs from 0.1% to 99.9%


def page_html(predictors: Sequence[Predictor], operating_point: str, figures: bool = False) -> str:
    """The page around the model that comes first; the others can be asked beside it.

    operating_point: the name of the one that is selected at first; figures: whether there are any
    to be linked to.
    """
    predictor = predictors[0]
    questions = [
        {"question": question, "comments": {
            answer: wording.comment_answer(number, answer) for answer in wording.ANSWERS
        }}
        for number, (question, *_) in enumerate(wording.QUESTIONS)
    ]  # fmt: skip
    texts = {
        "questions": questions, "answers": wording.ANSWERS, "max_bytes": MAX_FILE_BYTES,
        "too_large": TOO_LARGE,
        "models": [{"id": each.folder.name, "name": each.name} for each in predictors],
    }  # fmt: skip
    return Template((STATIC / "page.html").read_text()).substitute(
        title=wording.TITLE, purpose=wording.PURPOSE, disclaimer=wording.DISCLAIMER,
        warnings="".join(
            f'<p class="warning">{text}</p>' for text in wording.model_warnings(predictor)
        ),
        model=html.escape(predictor.name), privacy=wording.PRIVACY, legend=wording.HEAT_MAP,
        examples="".join(map(_example_html, CLASS_NAMES)),
        operating_points="".join(
            _radio_html(point, point["name"] == operating_point)
            for point in predictor.operating_points.values()
        ),
        classes="".join(
            f'<option value="{code}">{name}</option>' for code, name in DISPLAY_NAMES.items()
        ),
        formats=", ".join(FORMATS), megabytes=f"{MAX_FILE_BYTES / 1e6:.0f}",
        figures='<a href="figures">its figures</a>' if figures else "",
        other_models="" if len(predictors) > 1 else "hidden",
        texts=json.dumps(texts).replace("<", "\\u003c"),  # it stands inside a script element
    )  # fmt: skip


def _example_html(code: str) -> str:
    name = DISPLAY_NAMES[code]
    return (
        f'<li><button type="button" class="example" data-code="{code}" '
        f'aria-label="example: {name}"><img src="examples/{code}" alt="">{name}</button></li>'
    )


def _radio_html(point: Mapping, checked: bool) -> str:
    return (
        f'<label><input type="radio" name="operating-point" value="{html.escape(point["name"])}"'
        f"{' checked' * checked}> {operating_point_label(point)}</label>"
    )


def login_html(message: str = "") -> str:
    """The page that asks for name and password, with what came of the last try."""
    return Template((STATIC / "login.html").read_text()).substitute(
        title=wording.TITLE, message=html.escape(message)
    )


def figures_html(names: Sequence[str]) -> str:
    """A page of the run's figures, by the names of their files."""
    return document_html("Figures of the run", "".join(
        f'<figure><img src="figures/{html.escape(name)}" alt="" loading="lazy">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name in names
    ))  # fmt: skip


def model_card_html(text: str) -> str:
    """The model card, Markdown, as plain text whose lines are as long as the screen is wide."""
    heading, _, text = text.partition("\n\n")
    text = re.sub(r"\*\*|`|\]\(.*?\)|\[", "", text)
    text = re.sub(r"(?<!\n)\n *(?![\n-])", " ", text)
    return document_html(heading.strip("# "), f"<pre>{html.escape(text)}</pre>")


def document_html(heading: str, content: str) -> str:
    """A page to read beside the one that answers."""
    return Template((STATIC / "document.html").read_text()).substitute(
        title=wording.TITLE, heading=heading, content=content
    )


# -- one answer --------------------------------------------------------------------------------


def answer_fragments(
    predictor: Predictor, prediction: Prediction, picture: Picture, code: str, heat: np.ndarray
) -> dict:
    """All that the page shows of one picture, as JSON: every operating point, one heat map.

    So the page needs nothing more to show another operating point, and always shows the one that
    is selected. `input` is the model's own picture, from which further heat maps are drawn.
    """
    points = {}
    for name in predictor.operating_points:
        decision = predictor.decide(prediction, name)
        points[name] = {
            "verdict": verdict_html(prediction, decision),
            "short": wording.short_verdict(prediction, decision),
            "axis": score_axis_html(predictor, prediction, decision),
            "asks": decision.near_threshold and not prediction.out_of_distribution,
            "summaries": [
                wording.summarize_answers(prediction, decision, ["yes"] * signs)
                for signs in range(len(wording.QUESTIONS) + 1)
            ],
        }
    ranked = DISPLAY_NAMES[prediction.predicted_class]
    return {
        "points": points,
        "out_of_distribution": prediction.out_of_distribution,
        "most_probable": "" if prediction.out_of_distribution else ranked,
        "probabilities": probabilities_html(prediction),
        "picture": data_url(picture.view, "JPEG", quality=92),
        "input": data_url(Image.fromarray(picture.image), "PNG", compress_level=1),
        "code": code, "heat": heat_url(heat),
    }  # fmt: skip


def data_url(image: Image.Image, format: str, **options: int) -> str:
    """An image as an address that holds all of it, for the source of an <img>."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{encoded}"


def heat_url(heat: np.ndarray) -> str:
    """A heat map (side, side) in [0, 1] as the source of an <img>."""
    return data_url(heat_to_rgba(heat), "PNG", compress_level=1)


def verdict_html(prediction: Prediction, decision: Decision) -> str:
    """The decision as a heading, with its explanation; none for out-of-distribution pictures."""
    if prediction.out_of_distribution:
        return (
            f'<h2 class="decision none">{wording.NO_VERDICT}</h2>'
            f"<p>{wording.OUT_OF_DISTRIBUTION}</p>"
        )
    code = prediction.predicted_class
    kind = "none" if decision.referred else "positive" if decision.predicted_positive else ""
    sentences = "".join(
        f"<li>{text}</li>" for text in wording.explain_decision(prediction, decision)
    )
    return (
        f'<h2 class="decision {kind}">{wording.decision_text(decision)}</h2>'
        f'<p class="predicted-class">Most probable diagnosis: <b>{DISPLAY_NAMES[code]}</b>, '
        f'<span class="value">{wording.percent(prediction.probabilities[code])}</span></p>'
        f"<ul>{sentences}</ul>"
    )


def probabilities_html(prediction: Prediction) -> str:
    """A table with a bar for the calibrated probability of each class, in descending order."""
    ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
    rows = "".join(
        f'<tr><th scope="row" class="name{" mel" * (code == MELANOMA)}">{DISPLAY_NAMES[code]}</th>'
        f'<td class="track"><i style="width:{100 * p:.1f}%;background:{COLOURS[code]}"></i></td>'
        f'<td class="value">{_short_percent(p)}</td></tr>'
        for code, p in ranked
    )
    caption = "Calibrated probability of each diagnosis"
    return f'<table class="bars"><caption>{caption}</caption><tbody>{rows}</tbody></table>'


def _short_percent(fraction: float) -> str:
    """As `wording.percent`, narrow enough to leave a bar its place on a phone."""
    text = wording.percent(fraction).replace("less than", "<").replace("more than", ">")
    return html.escape(text)


def score_axis_html(predictor: Predictor, prediction: Prediction, decision: Decision) -> str:
    """The image's probability and the threshold, above histograms of the validation split.

    The axis is linear in the log-odds, since most probabilities are close to 0.
    """
    probability = prediction.melanoma_probability
    threshold = decision.operating_point["threshold"]
    here, limit = _position(probability), _position(threshold)
    rows = "".join(
        f'<div class="row"><span>{name}</span>'
        f"{_histogram_svg(predictor.validation_scores[kind], colour)}</div>"
        for kind, name, colour in (
            ("other", "other images", OTHER_COLOUR), (MELANOMA, "melanomas", COLOURS[MELANOMA])
        )
    )  # fmt: skip
    ticks = "".join(
        f'<span style="{_label_style(_position(p))}">{100 * p:g}%</span>'
        for p in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    )
    label = f"This image: {wording.percent(probability)}. Threshold: {wording.percent(threshold)}."
    return (
        f'<div class="score-axis"><div role="img" aria-label="{label}">'
        f'<div class="marks"><b style="{_label_style(here)}">this image</b></div>'
        f'<div class="plot">{rows}<i class="limit" style="left:{limit:.1f}%"></i>'
        f'<i class="here" style="left:{here:.1f}%"></i></div>'
        f'<div class="marks"><em style="{_label_style(limit)}">threshold</em></div>'
        f'<div class="ticks">{ticks}</div></div>'
        "<p>Probability of melanoma, on a scale stretched at both ends; above it, how many images "
        "of the validation split have each.</p></div>"
    )


def _position(probability: float) -> float:
    """Position of a probability on the axis, in percent of its length."""
    return 50 + 50 * float(np.clip(log_odds(probability) / AXIS_END, -1, 1))


def _label_style(position: float) -> str:
    return f"left:{position:.1f}%;transform:translateX(-{position:.1f}%)"  # stays within the axis


def _histogram_svg(scores: np.ndarray, colour: str) -> str:
    counts, _ = np.histogram([_position(score) for score in scores], 40, (0, 100))
    return (
        '<svg viewBox="0 0 40 1" preserveAspectRatio="none" aria-hidden="true">'
        + "".join(
            f'<rect x="{x}" y="{1 - tall:.3f}" width="0.9" height="{tall:.3f}" fill="{colour}"/>'
            for x, tall in enumerate(counts / max(counts.max(), 1))
            if tall
        )
        + "</svg>"
    )


def example_images() -> dict[str, Image.Image]:
    """A generated picture of each class, by class code."""
    return {
        code: Image.fromarray(np.asarray(photograph(paint(code, rng), rng)[0]))
        for code in CLASS_NAMES
        for rng in [np.random.default_rng(7)]
    }
