"""The web page: one picture, what a trained model makes of it, and what that means."""

import asyncio
import base64
import hmac
import html
import io
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read while gradio is imported

import gradio as gr
import numpy as np
from PIL import Image

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, COLOURS, DISPLAY_NAMES, MELANOMA
from melanoma_lib.data.images import MAX_PIXELS, read_image
from melanoma_lib.data.synthetic import paint, photograph
from melanoma_lib.inference import wording
from melanoma_lib.inference.predictor import (
    MAX_FILE_BYTES,
    Decision,
    Prediction,
    Predictor,
    heat_layer,
    log_odds,
)

HERE = ("127.0.0.1", "localhost", "::1")
QUEUE = 32  # requests that may wait; a further one is told to come back
KEPT = 60  # seconds until an uploaded file is deleted
PAUSE = 1.0  # seconds that a failed log-in costs, and whoever comes after it waits
WAITING = 20  # log-ins that may wait; further ones are refused
OTHER = "#666666"
STRETCH = log_odds(0.999)  # the scale ends at 0.1 % and 99.9 %

# Only moves one layer over the other, so nothing is sent to the server.
FADE = "(s) => { document.querySelectorAll('.heat').forEach(e => { e.style.opacity = s }); }"


# -- what is shown -----------------------------------------------------------------------------


def stacked(reading: Prediction, heat: np.ndarray, code: str, strength: float) -> str:
    """The picture, and over it the heat map of a class as a layer of its own."""
    below = _data(Image.fromarray(reading.picture))
    return (
        f'<div class="stack"><img alt="the picture" src="{below}">'
        f'<img class="heat" alt="where the evidence for {DISPLAY_NAMES[code]} lies" '
        f'style="opacity:{strength}" src="{_data(heat_layer(heat))}"></div>'
    )


def _data(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def bars(reading: Prediction) -> str:
    """The calibrated probabilities, the largest first, with names spelled out."""
    ranked = sorted(reading.probabilities.items(), key=lambda pair: -pair[1])
    return '<div class="bars">' + "".join(
        f'<span class="name{" mel" * (code == MELANOMA)}">{DISPLAY_NAMES[code]}</span>'
        f'<span class="track"><i style="width:{100 * share:.1f}%;background:{COLOURS[code]}"></i>'
        f'</span><span class="share">{wording.percent(share)}</span>'
        for code, share in ranked
    ) + "</div>"  # fmt: skip


def scale(reader: Predictor, reading: Prediction, decision: Decision) -> str:
    """Where the picture lies among the validation scores, and where the threshold is.

    The axis is that of the log-odds: most scores are close to 0.
    """
    here, limit = (_place(p) for p in (reading.melanoma, decision.point["threshold"]))
    rows = "".join(
        f'<div class="row"><span>{name}</span>{_histogram(reader.scores[kind], colour)}</div>'
        for kind, name, colour in (
            ("other", "other images", OTHER), (MELANOMA, "melanomas", COLOURS[MELANOMA])
        )
    )  # fmt: skip
    ticks = "".join(
        f'<span style="{_at(_place(p))}">{100 * p:g} %</span>'
        for p in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    )
    words = (
        f"This picture: {wording.percent(reading.melanoma)}. Threshold: "
        f"{wording.percent(decision.point['threshold'])}."
    )
    return (
        f'<div class="scale" role="img" aria-label="{words}">'
        f'<div class="marks"><b style="{_at(here)}">this picture</b></div>'
        f'<div class="plot">{rows}<i class="limit" style="left:{limit:.1f}%"></i>'
        f'<i class="here" style="left:{here:.1f}%"></i></div>'
        f'<div class="marks"><em style="{_at(limit)}">threshold</em></div>'
        f'<div class="ticks">{ticks}</div>'
        "<p>Probability of melanoma, on a scale stretched at both ends; above it how often the "
        "validation part's images have each.</p></div>"
    )


def _place(probability: float) -> float:
    """Where a probability lies on the scale, 0 to 100."""
    return 50 + 50 * float(np.clip(log_odds(probability) / STRETCH, -1, 1))


def _at(place: float) -> str:
    return f"left:{place:.1f}%;transform:translateX(-{place:.1f}%)"  # never beyond the ends


def _histogram(scores: np.ndarray, colour: str) -> str:
    counts, _ = np.histogram([_place(score) for score in scores], 40, (0, 100))
    return (
        '<svg viewBox="0 0 40 1" preserveAspectRatio="none" aria-hidden="true">'
        + "".join(
            f'<rect x="{x}" y="{1 - tall:.3f}" width="0.9" height="{tall:.3f}" fill="{colour}"/>'
            for x, tall in enumerate(counts / max(counts.max(), 1))
            if tall
        )
        + "</svg>"
    )


def decided(reading: Prediction, decision: Decision) -> str:
    """The warning if there is one, the class, the decision, and what it means."""
    code = reading.predicted
    warning = f'<p class="warning" role="alert">{wording.FOREIGN}</p>' * reading.foreign
    words = "".join(f"<li>{text}</li>" for text in wording.meaning(reading, decision))
    return (
        f'{warning}<p class="answer">{DISPLAY_NAMES[code].capitalize()} '
        f"<span>{wording.percent(reading.probabilities[code])}</span></p>"
        f'<p class="decision{" called" * decision.called}">{wording.verdict(decision)}.</p>'
        f"<ul>{words}</ul>"
    )


def conversation(reading: Prediction, decision: Decision, answers: Sequence[str]) -> str:
    """The questions so far with what their answers mean, then the next one or the summary."""
    said = [
        "<p>The probability is near the threshold: the model is not sure. Three questions about "
        "what it cannot see. Your answers change neither the probability nor the decision.</p>"
    ]
    for number, answer in enumerate(answers):
        said.append(f'<p class="asked">{wording.QUESTIONS[number][0]}</p>')
        said.append(f'<p class="given">{answer}</p><p>{wording.reply(number, answer)}</p>')
    if len(answers) < len(wording.QUESTIONS):
        said.append(f'<p class="asked">{wording.QUESTIONS[len(answers)][0]}</p>')
    else:
        said.append(f'<p class="summary">{wording.summary(reading, decision, answers)}</p>')
    return f'<div class="talk" aria-live="polite">{"".join(said)}</div>'


def header(reader: Predictor) -> str:
    """What the page is, and what must be known before it is used."""
    caveats = "".join(f'<p class="warning">{text}</p>' for text in wording.caveats(reader))
    return (
        "<header><h1>What the model makes of one picture</h1>"
        f'<p class="notice" role="note">{wording.NOTICE}</p>{caveats}'
        f"<p>Model: {html.escape(reader.name)}, trained for the thesis. An uploaded picture is "
        "not kept: its file is deleted within two minutes.</p></header>"
    )


def examples(side: int) -> list[np.ndarray]:
    """A generated picture of each class, in their order, uint8 (side, side, 3)."""
    return [
        read_image(np.asarray(photograph(paint(code, rng), rng)[0]), side)
        for code in CLASS_NAMES
        for rng in [np.random.default_rng(7)]
    ]


# -- the page ----------------------------------------------------------------------------------


def build(reader: Predictor, point: str = "") -> gr.Blocks:
    """The page for one trained model, its events connected; `point` is chosen at first."""
    made = examples(reader.size)
    with gr.Blocks(
        title="One picture", analytics_enabled=False, delete_cache=(KEPT // 2, KEPT)
    ) as page:
        gr.HTML(header(reader))
        with gr.Row(equal_height=False, elem_id="sides"):
            with gr.Column(scale=2, min_width=300):
                asked = _asking(made)
            with gr.Column(scale=3, min_width=300):
                answered = _answering(reader, point)
        _connect(reader, made, SimpleNamespace(**asked, **answered))
    return page


def _asking(made: Sequence[np.ndarray]) -> dict[str, gr.Component]:
    """The side where a picture is given, and seen with its heat map."""
    upload = gr.File(label="A dermoscopic picture (JPEG, PNG, WebP, BMP, TIFF)",
                     height=150, elem_id="upload")  # fmt: skip
    gallery = gr.Gallery(
        made, label="or a generated one, one of each diagnosis", columns=7,
        allow_preview=False, interactive=False, elem_id="examples", height="auto",
        object_fit="cover", buttons=[],
    )  # fmt: skip
    with gr.Column(visible=False) as seen_side:
        picture = gr.HTML(elem_id="picture")
        strength = gr.Slider(0, 1, 0.6, step=0.05, label="Strength of the heat map",
                             elem_id="strength", buttons=[])  # fmt: skip
        heat_of = gr.Dropdown(
            [(name, code) for code, name in DISPLAY_NAMES.items()],
            label="Evidence for", elem_id="class", filterable=False,
        )  # fmt: skip
    return {"upload": upload, "gallery": gallery, "seen_side": seen_side, "picture": picture,
            "strength": strength, "heat_of": heat_of}  # fmt: skip


def _answering(reader: Predictor, point: str) -> dict[str, gr.Component]:
    """The side where the answer stands: class, decision, conversation, probabilities."""
    problem = gr.HTML(elem_id="problem")
    with gr.Column(visible=False) as result:
        answer = gr.HTML(elem_id="answer")
        point_choice = gr.Radio(
            [(wording.operating_point_label(p), name) for name, p in reader.points.items()],
            value=reader.point(point)["name"], label="Operating point: chosen for a",
            elem_id="point",
        )  # fmt: skip
        place = gr.HTML(elem_id="place")
        with gr.Column(visible=False, elem_id="talk") as talk:
            said = gr.HTML()
            with gr.Row() as replies:
                buttons = [
                    gr.Button(text.capitalize(), size="sm", min_width=80)
                    for text in wording.ANSWERS
                ]
        chances = gr.HTML(elem_id="chances")
    reading, answers = (gr.State(time_to_live=1800) for _ in range(2))
    return {"problem": problem, "result": result, "answer": answer, "point": point_choice,
            "place": place, "talk": talk, "said": said, "replies": replies, "buttons": buttons,
            "chances": chances, "reading": reading, "answers": answers}  # fmt: skip


def _connect(reader: Predictor, made: Sequence[np.ndarray], on: SimpleNamespace) -> None:
    """What each event does to the parts of the page; what one visitor sees is their own."""

    def decide(seen: Prediction, name: str) -> dict:
        decision = reader.decide(seen, name)
        return {
            on.answer: decided(seen, decision), on.place: scale(reader, seen, decision),
            on.talk: gr.Column(visible=decision.near), on.replies: gr.Row(visible=True),
            on.answers: [], on.said: conversation(seen, decision, []),
        }  # fmt: skip

    def show(opened: np.ndarray, name: str, faded: float) -> dict:
        (seen,) = reader.read([opened])
        return decide(seen, name) | {
            on.reading: seen, on.problem: "", on.upload: None,
            on.result: gr.Column(visible=True), on.seen_side: gr.Column(visible=True),
            on.chances: bars(seen), on.heat_of: seen.predicted,
            on.picture: redraw(seen, seen.predicted, faded),
        }  # fmt: skip

    def take(path: str, name: str, faded: float) -> dict:
        try:
            return show(reader.open(path), name, faded)
        except MelanomaError as error:
            words = html.escape(str(error).replace(str(path), "This file"))
            return {on.problem: f'<p class="warning" role="alert">{words}</p>', on.upload: None,
                    on.result: gr.Column(visible=False), on.seen_side: gr.Column(visible=False),
                    on.reading: None}  # fmt: skip

    def take_made(chosen: gr.SelectData, name: str, faded: float) -> dict:
        return show(made[chosen.index], name, faded)

    def redraw(seen: Prediction, code: str, faded: float) -> str:
        return stacked(seen, reader.heat([seen.picture], [code])[0], code, faded)

    def hear(given: str, seen: Prediction, name: str, before: list) -> dict:
        now = [*before, given.lower()][: len(wording.QUESTIONS)]
        return {on.answers: now, on.said: conversation(seen, reader.decide(seen, name), now),
                on.replies: gr.Row(visible=len(now) < len(wording.QUESTIONS))}  # fmt: skip

    judged = [on.answer, on.place, on.talk, on.replies, on.answers, on.said]
    parts = [*judged, on.reading, on.problem, on.result, on.seen_side, on.upload, on.chances,
             on.heat_of, on.picture]  # fmt: skip
    # One map at a time is made; a second request opens its picture meanwhile.
    model = {"concurrency_id": "model", "concurrency_limit": 2, "api_visibility": "private"}
    on.upload.upload(take, [on.upload, on.point, on.strength], parts, **model)
    on.gallery.select(take_made, [on.point, on.strength], parts, **model)
    on.heat_of.input(redraw, [on.reading, on.heat_of, on.strength], on.picture, **model)
    on.point.input(decide, [on.reading, on.point], judged, api_visibility="private")
    on.strength.input(None, on.strength, None, js=FADE)
    for button in on.buttons:
        button.click(hear, [button, on.reading, on.point, on.answers],
                     [on.answers, on.said, on.replies], api_visibility="private")  # fmt: skip


# -- the server --------------------------------------------------------------------------------


def make_authenticator(user: str, password: str) -> Callable[[str, str], Awaitable[bool]]:
    """Who may come in: compares in constant time, one log-in after the other.

    A wrong one holds up the next, so that guessing is slow however many guess at once.
    """
    lock, waiting = asyncio.Lock(), 0

    async def authenticate(name: str, word: str) -> bool:
        nonlocal waiting
        if waiting >= WAITING:
            return False
        waiting += 1
        try:
            async with lock:
                right = [
                    hmac.compare_digest(given.encode(), known.encode())
                    for given, known in ((name, user), (word, password))
                ]
                if not all(right):
                    await asyncio.sleep(PAUSE)
                return all(right)
        finally:
            waiting -= 1

    return authenticate


def credentials(host: str) -> tuple[str, str] | None:
    """User and password from the environment; raises `MelanomaError` where they are needed."""
    user, password = (os.environ.get(f"MELANOMA_{name}", "") for name in ("USER", "PASSWORD"))
    if user and password:
        return user, password
    if user or password or host not in HERE:
        raise MelanomaError(
            f"to be reached at {host}, the page needs a user name and a password; put both into "
            "the environment as MELANOMA_USER and MELANOMA_PASSWORD"
        )
    return None


def start(reader: Predictor, host: str, port: int, point: str = "") -> tuple[gr.Blocks, str]:
    """Serves the page in the background; returns it, to close, and its address.

    Uploads go to the folder that GRADIO_TEMP_DIR names. Raises `MelanomaError` when the port is
    taken, or another machine may listen without a password.
    """
    known = credentials(host)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    page = build(reader, point).queue(max_size=QUEUE, default_concurrency_limit=4)
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, auth=make_authenticator(*known) if known else None,
            max_file_size=MAX_FILE_BYTES, show_error=False, share=False, quiet=True,
            prevent_thread_lock=True, footer_links=[], run_history=False, ssr_mode=False,
            enable_monitoring=False, mcp_server=False, pwa=False, state_session_capacity=200,
            theme=gr.themes.Base(primary_hue="slate", font=["system-ui", "sans-serif"],
                                 font_mono=["monospace"]),
            css_paths=Path(__file__).with_suffix(".css"),
        )  # fmt: skip
    except OSError:
        raise MelanomaError(f"port {port} of {host} cannot be used; try another --port") from None
    return page, address


def serve(reader: Predictor, host: str, port: int, point: str = "") -> None:
    """Serves the page until it is interrupted; nothing that was uploaded is left."""
    reader.point(point)
    with tempfile.TemporaryDirectory(prefix="melanoma-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page, address = start(reader, host, port, point)
        print(f"the page is at {address}; Ctrl+C ends it", flush=True)
        page.block_thread()
