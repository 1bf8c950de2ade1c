"""The web page of `melanoma serve`: an uploaded image, its prediction, and what that means.

Functions named `_html` return fragments of the page; their class names are styled in app.css.
"""

import asyncio
import base64
import hmac
import html
import io
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

# Read while gradio is imported. The page asks no other machine: not to count its visitors, and not
# a proxy, where gradio looks whether its own page is there.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": "*"}

import gradio as gr
import numpy as np
from PIL import Image

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, COLOURS, DISPLAY_NAMES, MELANOMA
from melanoma_lib.data.images import read_image
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

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
QUEUE_SIZE = 32  # waiting requests; any beyond are refused with "try again"
UPLOAD_SECONDS = 60  # an uploaded file is deleted when it is older
LOGIN_DELAY = 1.0  # seconds after a failed login, during which no other is checked
MAX_WAITING_LOGINS = 20  # any beyond are refused
OTHER_COLOUR = "#666666"
AXIS_END = log_odds(0.999)  # the probability axis runs from 0.1% to 99.9%

SHOWN, HIDDEN = gr.update(visible=True), gr.update(visible=False)

# Changes the opacity in the browser, without a request to the server.
SET_OPACITY = "(s) => { document.querySelectorAll('.heat').forEach(e => { e.style.opacity = s }); }"


# -- fragments of the page ---------------------------------------------------------------------


def image_html(prediction: Prediction, heat: np.ndarray, code: str, opacity: float) -> str:
    """The image and above it, in its own layer, the heat map (side, side) of a class."""
    image = _data_url(Image.fromarray(prediction.image))
    return (
        f'<div class="stack"><img alt="the image" src="{image}">'
        f'<img class="heat" alt="where the evidence for {DISPLAY_NAMES[code]} lies" '
        f'style="opacity:{opacity}" src="{_data_url(heat_to_rgba(heat))}"></div>'
    )


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def probabilities_html(prediction: Prediction) -> str:
    """A bar for the calibrated probability of each class, in descending order."""
    ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
    return '<div class="bars">' + "".join(
        f'<span class="name{" mel" * (code == MELANOMA)}">{DISPLAY_NAMES[code]}</span>'
        f'<span class="track"><i style="width:{100 * p:.1f}%;background:{COLOURS[code]}"></i>'
        f'</span><span class="value">{wording.percent(p)}</span>'
        for code, p in ranked
    ) + "</div>"  # fmt: skip


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
        f'<div class="score-axis" role="img" aria-label="{label}">'
        f'<div class="marks"><b style="{_label_style(here)}">this image</b></div>'
        f'<div class="plot">{rows}<i class="limit" style="left:{limit:.1f}%"></i>'
        f'<i class="here" style="left:{here:.1f}%"></i></div>'
        f'<div class="marks"><em style="{_label_style(limit)}">threshold</em></div>'
        f'<div class="ticks">{ticks}</div>'
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


def decision_html(prediction: Prediction, decision: Decision) -> str:
    """Out-of-distribution warning if due, most probable class, decision, and its explanation."""
    code = prediction.predicted_class
    warning = f'<p class="warning" role="alert">{wording.OUT_OF_DISTRIBUTION}</p>'
    sentences = "".join(
        f"<li>{text}</li>" for text in wording.explain_decision(prediction, decision)
    )
    return (
        f"{warning * prediction.out_of_distribution}"
        f'<p class="predicted-class">{DISPLAY_NAMES[code].capitalize()} '
        f"<span>{wording.percent(prediction.probabilities[code])}</span></p>"
        f'<p class="decision{" positive" * decision.predicted_positive}">'
        f"{wording.decision_text(decision)}.</p><ul>{sentences}</ul>"
    )


def questions_html(prediction: Prediction, decision: Decision, answers: Sequence[str]) -> str:
    """The questions answered so far with comments, then the next question or the summary."""
    said = [
        "<p>The probability is near the threshold: the model is not sure. Three questions about "
        "what it cannot see. Your answers change neither the probability nor the decision.</p>"
    ]
    for number, answer in enumerate(answers):
        said.append(f'<p class="question">{wording.QUESTIONS[number][0]}</p>')
        said.append(f'<p class="reply">{answer}</p><p>{wording.comment_answer(number, answer)}</p>')
    if len(answers) < len(wording.QUESTIONS):
        said.append(f'<p class="question">{wording.QUESTIONS[len(answers)][0]}</p>')
    else:
        summary = wording.summarize_answers(prediction, decision, answers)
        said.append(f'<p class="summary">{summary}</p>')
    return f'<div class="questions" aria-live="polite">{"".join(said)}</div>'


def header_html(predictor: Predictor) -> str:
    """Title, disclaimer, warnings about the model, and what happens to uploads."""
    warnings = "".join(
        f'<p class="warning">{text}</p>' for text in wording.model_warnings(predictor)
    )
    return (
        "<header><h1>One image, as the model sees it</h1>"
        f'<p class="disclaimer" role="note">{wording.DISCLAIMER}</p>{warnings}'
        f"<p>Model: {html.escape(predictor.name)}, trained for the thesis. An uploaded image is "
        "not kept: its file is deleted within two minutes.</p></header>"
    )


def example_images(side: int) -> list[np.ndarray]:
    """A generated image of each class, in the order of `CLASS_NAMES`, uint8 (side, side, 3)."""
    return [
        read_image(np.asarray(photograph(paint(code, rng), rng)[0]), side)
        for code in CLASS_NAMES
        for rng in [np.random.default_rng(7)]
    ]


# -- the page ----------------------------------------------------------------------------------


def build_page(predictor: Predictor, operating_point: str = "") -> gr.Blocks:
    """The page for one model with its events; `operating_point` is selected at first."""
    examples = example_images(predictor.image_size)
    parts = SimpleNamespace()  # the components by name
    with gr.Blocks(
        title="One image", analytics_enabled=False,
        delete_cache=(UPLOAD_SECONDS // 2, UPLOAD_SECONDS),
    ) as page:  # fmt: skip
        gr.HTML(header_html(predictor))
        with gr.Row(equal_height=False, elem_id="columns"):
            with gr.Column(scale=2, min_width=300):
                _add_input_column(parts, examples)
            with gr.Column(scale=3, min_width=300):
                _add_result_column(parts, predictor, operating_point)
        _connect_events(parts, predictor, examples)
    return page


def _add_input_column(parts: SimpleNamespace, examples: Sequence[np.ndarray]) -> None:
    """Upload and examples; below them, once chosen, the image with its heat map."""
    parts.upload = gr.File(label="A dermoscopic image (JPEG, PNG, WebP, BMP, TIFF)",
                           height=150, elem_id="upload")  # fmt: skip
    parts.gallery = gr.Gallery(
        examples, label="or a generated one, one of each diagnosis", columns=7,
        allow_preview=False, interactive=False, elem_id="examples", height="auto",
        object_fit="cover", buttons=[],
    )  # fmt: skip
    with gr.Column(visible=False) as parts.image_column:
        parts.image = gr.HTML(elem_id="image")
        parts.opacity = gr.Slider(0, 1, 0.6, step=0.05, label="Strength of the heat map",
                                  elem_id="opacity", buttons=[])  # fmt: skip
        parts.heat_class = gr.Dropdown(
            [(name, code) for code, name in DISPLAY_NAMES.items()],
            label="Evidence for", elem_id="heat-class", filterable=False,
        )  # fmt: skip


def _add_result_column(parts: SimpleNamespace, predictor: Predictor, operating_point: str) -> None:
    """Error message, decision, score axis, questions and class probabilities."""
    parts.error = gr.HTML(elem_id="error")
    with gr.Column(visible=False) as parts.result_column:
        parts.decision = gr.HTML(elem_id="decision")
        parts.operating_point = gr.Radio(
            [(operating_point_label(p), name) for name, p in predictor.operating_points.items()],
            value=predictor.operating_point(operating_point)["name"],
            label="Operating point: chosen for a", elem_id="operating-point",
        )  # fmt: skip
        parts.score_axis = gr.HTML(elem_id="score-axis")
        with gr.Column(visible=False, elem_id="questions") as parts.question_column:
            parts.questions = gr.HTML()
            with gr.Row() as parts.answer_row:
                parts.buttons = [
                    gr.Button(text.capitalize(), size="sm", min_width=80)
                    for text in wording.ANSWERS
                ]
        parts.probabilities = gr.HTML(elem_id="probabilities")
    parts.prediction, parts.answers = (gr.State(time_to_live=1800) for _ in range(2))


def _connect_events(page: SimpleNamespace, predictor: Predictor, examples: list) -> None:
    """Connects the page's components; what belongs to one visitor is kept in `gr.State`."""

    def decide(prediction: Prediction, point: str) -> dict:
        decision = predictor.decide(prediction, point)
        return {
            page.decision: decision_html(prediction, decision),
            page.score_axis: score_axis_html(predictor, prediction, decision),
            page.question_column: gr.update(visible=decision.near_threshold),
            page.questions: questions_html(prediction, decision, []),
            page.answer_row: SHOWN, page.answers: [],
        }  # fmt: skip

    def show(image: np.ndarray, point: str, opacity: float) -> dict:
        (prediction,) = predictor.predict([image])
        code = prediction.predicted_class
        return decide(prediction, point) | {
            page.prediction: prediction, page.error: "", page.upload: None,
            page.result_column: SHOWN, page.image_column: SHOWN, page.heat_class: code,
            page.probabilities: probabilities_html(prediction),
            page.image: draw_heat_map(prediction, code, opacity),
        }  # fmt: skip

    def show_upload(path: str, point: str, opacity: float) -> dict:
        try:
            return show(predictor.load_image(path), point, opacity)
        except MelanomaError as error:
            message = html.escape(str(error).replace(str(path), "This file"))
            return {page.error: f'<p class="warning" role="alert">{message}</p>',
                    page.prediction: None, page.upload: None,
                    page.result_column: HIDDEN, page.image_column: HIDDEN}  # fmt: skip

    def show_example(selected: gr.SelectData, point: str, opacity: float) -> dict:
        return show(examples[selected.index], point, opacity)

    def draw_heat_map(prediction: Prediction, code: str, opacity: float) -> str:
        heat = predictor.heat_maps([prediction.image], [code])[0]
        return image_html(prediction, heat, code, opacity)

    def add_answer(answer: str, prediction: Prediction, point: str, answers: list) -> list:
        answers = [*answers, answer.lower()][: len(wording.QUESTIONS)]
        talk = questions_html(prediction, predictor.decide(prediction, point), answers)
        return [answers, talk, SHOWN if len(answers) < len(wording.QUESTIONS) else HIDDEN]

    questions = [page.answers, page.questions, page.answer_row]
    decision = [page.decision, page.score_axis, page.question_column, *questions]
    everything = [*decision, page.prediction, page.error, page.result_column, page.image_column,
                  page.upload, page.probabilities, page.heat_class, page.image]  # fmt: skip
    point, opacity, private = page.operating_point, page.opacity, {"api_visibility": "private"}
    # The predictor computes for one request at a time; a second one decodes its image meanwhile.
    model = {"concurrency_id": "model", "concurrency_limit": 2, **private}
    page.upload.upload(show_upload, [page.upload, point, opacity], everything, **model)
    page.gallery.select(show_example, [point, opacity], everything, **model)
    shown = [page.prediction, page.heat_class, opacity]
    page.heat_class.input(draw_heat_map, shown, page.image, **model)
    point.input(decide, [page.prediction, point], decision, **private)
    opacity.input(None, opacity, None, js=SET_OPACITY)
    for button in page.buttons:
        inputs = [button, page.prediction, point, page.answers]
        button.click(add_answer, inputs, questions, **private)


# -- the server --------------------------------------------------------------------------------


def make_authenticator(user: str, password: str) -> Callable[[str, str], Awaitable[bool]]:
    """A function (name, password) -> bool that checks logins, as `gr.Blocks.launch` takes it.

    Compares in constant time. Logins are checked one after the other and a wrong one takes
    `LOGIN_DELAY` seconds, so that guessing in parallel is no faster.
    """
    known = repr((user, password)).encode()
    lock, places = asyncio.Lock(), asyncio.Semaphore(MAX_WAITING_LOGINS)

    async def authenticate(*given: str) -> bool:
        if places.locked():
            return False
        async with places, lock:
            correct = hmac.compare_digest(repr(given).encode(), known)
            if not correct:
                await asyncio.sleep(LOGIN_DELAY)
            return correct

    return authenticate


def credentials(host: str) -> tuple[str, str] | None:
    """User and password from the environment, None if there are none and `host` is local.

    Raises `MelanomaError` if one is missing, or both where other machines can connect.
    """
    user, password = (os.environ.get(f"MELANOMA_{name}", "") for name in ("USER", "PASSWORD"))
    if user and password:
        return user, password
    if user or password or host not in LOCAL_HOSTS:
        raise MelanomaError(
            f"to be reached at {host}, the page needs a user name and a password; put both into "
            "the environment as MELANOMA_USER and MELANOMA_PASSWORD"
        )
    return None


def start_server(
    predictor: Predictor, host: str, port: int | None, operating_point: str = ""
) -> tuple[gr.Blocks, str]:
    """Serves the page in a background thread; returns it, with its method `close`, and its URL.

    Uploads go to the folder GRADIO_TEMP_DIR in the environment. Raises `MelanomaError` if the
    port is in use or none, or if other machines could connect without a password.
    """
    host = host.strip("[]")  # around an address of IPv6
    login = credentials(host)
    if port is not None and not 0 < port < 2**16:
        raise MelanomaError(f"--port is {port}; it must be 1 to {2**16 - 1}")
    page = build_page(predictor, operating_point)
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=4)
    try:
        _, url, _ = page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port, auth=make_authenticator(*login) if login else None,
            max_file_size=MAX_FILE_BYTES, show_error=False, share=False, quiet=True,
            prevent_thread_lock=True, footer_links=[], run_history=False, ssr_mode=False,
            enable_monitoring=False, mcp_server=False, pwa=False, state_session_capacity=200,
            theme=gr.themes.Base(primary_hue="slate", font=["system-ui", "sans-serif"],
                                 font_mono=["monospace"]),
            css_paths=Path(__file__).with_suffix(".css"),
        )  # fmt: skip
    except OSError:
        raise MelanomaError(f"port {port} of {host} cannot be used; try another --port") from None
    return page, url


def serve(predictor: Predictor, host: str, port: int, operating_point: str = "") -> None:
    """Serves the page until interrupted; uploads are in a temporary folder deleted at the end.

    Raises `MelanomaError` as `start_server` does.
    """
    predictor.operating_point(operating_point)
    with tempfile.TemporaryDirectory(prefix="melanoma-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page, url = start_server(predictor, host, port, operating_point)
        try:
            print(f"the page is at {url}; Ctrl+C ends it", flush=True)
            while True:  # `page.block_thread` would keep the interrupt to itself
                time.sleep(0.5)  # and one long wait could begin just after a signal
        finally:
            page.close(verbose=False)
