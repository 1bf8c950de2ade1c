"""The web page in a real browser, and the functions behind it."""

import asyncio
import dataclasses
import os
import re
import shutil
import signal
import socket
import threading
import time
import urllib.request

import papermill
import pytest
from helpers import KEYS
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import DISPLAY_NAMES
from melanoma_lib.inference import app, wording
from melanoma_lib.pipeline.run import NOTEBOOKS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_the_fragments_show_the_numbers_of_the_prediction(predictor, prediction):
    decision = predictor.decide(prediction)
    names = re.findall(r'class="name(?: mel)?">(.+?)<', app.probabilities_html(prediction))
    assert names[0] == DISPLAY_NAMES[prediction.predicted_class] and len(names) == 7
    for fragment in (app.score_axis_html(predictor, prediction, decision),
                     app.decision_html(prediction, decision)):  # fmt: skip
        assert wording.percent(prediction.melanoma_probability) in fragment
        assert wording.percent(decision.operating_point["threshold"]) in fragment
    heat = predictor.heat_maps([prediction.image], ["mel"])[0]
    shown = app.image_html(prediction, heat, "mel", 0.3)
    assert "opacity:0.3" in shown and shown.count("data:image/png") == 2
    header = app.header_html(predictor)
    assert wording.DISCLAIMER in header and wording.GENERATED in header
    assert wording.OUT_OF_DISTRIBUTION not in app.decision_html(prediction, decision)
    foreign = dataclasses.replace(prediction, out_of_distribution=True)
    assert wording.OUT_OF_DISTRIBUTION in app.decision_html(foreign, decision)


def test_another_machine_needs_a_password(monkeypatch):
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"MELANOMA_{name}", raising=False)
    assert app.credentials("127.0.0.1") is None
    with pytest.raises(MelanomaError, match="MELANOMA_USER and MELANOMA_PASSWORD"):
        app.credentials("0.0.0.0")
    monkeypatch.setenv("MELANOMA_USER", "ada")
    with pytest.raises(MelanomaError, match="a password"):
        app.credentials("127.0.0.1")
    monkeypatch.setenv("MELANOMA_PASSWORD", "secret")
    assert app.credentials("0.0.0.0") == ("ada", "secret")


def test_wrong_passwords_wait_for_each_other_and_the_right_one_opens(monkeypatch):
    monkeypatch.setattr(app, "LOGIN_DELAY", 0.05)

    async def log_in():
        authenticate = app.make_authenticator("ada", "geheim-ü")
        start = time.perf_counter()
        tries = [("ada", "x"), ("eve", "geheim-ü"), ("", ""), ("ada", "geheim-ü")]
        found = await asyncio.gather(*(authenticate(*pair) for pair in tries))
        seconds = time.perf_counter() - start
        crowd = [("ada", "x")] * app.MAX_WAITING_LOGINS + [tries[-1]]  # the last is one too many
        refused = await asyncio.gather(*(authenticate(*pair) for pair in crowd))
        return found, seconds, refused, await authenticate(*tries[-1])

    found, seconds, refused, later = asyncio.run(log_in())
    assert found == [False, False, False, True] and seconds > 0.14
    assert not any(refused) and later


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "nowhere"], "melanoma run --preset sample"),
        (["--port", "70000"], "70000; it must be 1 to 65535"),
        (["--port", "0"], "0; it must be 1 to 65535"),
        (["--operating-point", "best"], "has no operating point 'best'"),
    ],
)
def test_what_cannot_be_served_is_one_line(predictor, capsys, options, message):
    assert main(["serve", "--bundle", str(predictor.folder), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "number"),
    [("127.0.0.1", signal.SIGTERM), ("::1", signal.SIGHUP), ("localhost", signal.SIGINT)],
)
def test_a_page_is_served_until_a_signal(predictor, capsys, monkeypatch, host, number):
    """Whatever proxy the environment names: the page is on this machine."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    start, answers = app.start_server, []

    def start_then_signal(*arguments):
        page, url = start(*arguments)
        with urllib.request.urlopen(url, timeout=30) as answer:
            answers.append(answer.status)
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        return page, url

    monkeypatch.setattr(app, "start_server", start_then_signal)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--bundle", str(predictor.folder), "--host", host, "--port", str(port)]
    assert main(["serve", *options]) == 128 + number and answers == [200]
    assert capsys.readouterr().err.strip() == "melanoma: interrupted"


def test_chapter_09_runs_behind_a_proxy_that_is_not_there(sample_run, tmp_path, monkeypatch):
    """It opens pages, its own and the real one, and asks its own over the network."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    source = next(NOTEBOOKS.glob("09_*.ipynb"))
    papermill.execute_notebook(
        str(source), str(tmp_path / "09.ipynb"),
        {"output_dir": str(sample_run), "architecture": KEYS[0]},
        kernel_name="python3", cwd=str(source.parent), progress_bar=False,
    )  # fmt: skip
    assert "the page's most probable" in (tmp_path / "09.ipynb").read_text()


# -- in the browser ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(predictor, tmp_path_factory):
    """The page's address, and the folder of its uploads."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setattr(app, "UPLOAD_SECONDS", 2)
        page, address = app.start_server(predictor, "127.0.0.1", None)
        yield address, folder
        page.close()


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        options = ["--no-sandbox"]  # in a container the user is root
        yield driver.chromium.launch(executable_path=CHROMIUM, args=options)


@pytest.fixture
def visit(browser, site):
    """Opens the page anew, as another visitor each time."""
    contexts, outside = [], []

    def open_page(width=1200, height=900):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        page = contexts[-1].new_page()
        page.on("request", lambda r: None if r.url.startswith((site[0], "data:", "blob:"))
                else outside.append(r.url))  # fmt: skip
        page.goto(site[0])
        page.wait_for_selector("#upload input", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not outside, "the page asked other machines"


def send(page, path, wait="#decision .decision"):
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(wait)


def test_upload_fade_choose(visit, predictor, images):
    page = visit()
    assert wording.DISCLAIMER in page.inner_text("header")
    send(page, images[0])
    (prediction,) = predictor.predict([predictor.load_image(images[0])])
    text = page.inner_text("#decision")
    assert DISPLAY_NAMES[prediction.predicted_class] in text.lower()
    assert wording.percent(prediction.melanoma_probability) in text
    assert len(page.query_selector_all("#probabilities .name")) == 7
    page.fill("#opacity input[type=number]", "0.25")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.heat').style.opacity === '0.25'")
    before = page.get_attribute(".heat", "src")
    page.click("#heat-class input")
    other = "melanoma" if prediction.predicted_class != "mel" else "melanocytic nevus"
    page.click(f"[role=option][aria-label='{other}']")
    page.wait_for_function("old => document.querySelector('.heat').src !== old", arg=before)
    page.click("#operating-point label:has-text('sensitivity')")
    page.wait_for_selector("#decision .decision:has-text('sensitivity')")


def test_answers_do_not_change_the_decision(visit, predictor, images, monkeypatch):
    (prediction,) = predictor.predict([predictor.load_image(images[1])])
    probability = prediction.melanoma_probability
    near = predictor.operating_point() | {"threshold": probability}
    monkeypatch.setitem(predictor.operating_points, near["name"], near)
    page = visit()
    send(page, images[1], "#questions .question")
    before = page.inner_text("#decision")
    for answer in ("Yes", "No", "Not sure"):
        replies = len(page.query_selector_all("#questions .reply"))
        page.click(f"#questions button:has-text('{answer}') >> nth=0")
        page.wait_for_function(
            "n => document.querySelectorAll('#questions .reply').length === n", arg=replies + 1)
    summary = page.inner_text("#questions .summary")
    decision = wording.decision_text(predictor.decide(prediction)).lower()
    assert decision in summary and wording.percent(probability) in summary
    assert page.inner_text("#decision") == before


def test_bad_files_are_told_in_a_line_and_the_page_goes_on(visit, images, tmp_path):
    (tmp_path / "corrupt.jpg").write_bytes(images[0].read_bytes()[:-400])
    page = visit()
    send(page, tmp_path / "corrupt.jpg", "#error .warning")
    text = page.inner_text("#error")
    assert "not a readable image" in text
    assert "Traceback" not in page.content() and str(tmp_path) not in text
    send(page, images[2])
    assert not page.inner_text("#error").strip()


def test_two_visitors_side_by_side_see_their_own(visit, predictor, images):
    pages = [visit(), visit(width=390, height=844)]
    for page, path in zip(pages, images[:2], strict=True):
        page.set_input_files("#upload input[type=file]", path)
    for page, path in zip(pages, images[:2], strict=True):
        page.wait_for_selector("#decision .decision")
        image = Image.fromarray(predictor.load_image(path))
        assert app._data_url(image) == page.get_attribute(
            ".stack img:first-child", "src")  # fmt: skip
    assert pages[1].evaluate("document.documentElement.scrollWidth") <= 390
    wide = "document.querySelector('.stack').clientWidth"
    assert pages[1].evaluate(wide) > 250  # one column: the page is not squeezed into two


def test_uploads_are_deleted(site, visit, images):
    page = visit()
    send(page, images[3])
    for _ in range(80):
        if not list(site[1].rglob("ISIC*")):
            break
        time.sleep(0.1)
    assert not list(site[1].rglob("ISIC*"))
