"""The server of the page, its command, and the page in a real browser."""

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import papermill
import pytest
import requests
from helpers import KEYS, wait_for
from PIL import Image

import melanoma_lib.inference
from melanoma_lib.cli import main
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES, MELANOMA
from melanoma_lib.inference import app, load_predictors, security, wording
from melanoma_lib.inference import page as html_page
from melanoma_lib.pipeline.run import NOTEBOOKS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def wait_until(opened, script, argument=None):
    """Until a script is true in a page, whose own policy forbids to evaluate one in it."""
    wait_for(lambda: opened.evaluate(script, argument), 60)


def test_the_answer_over_the_network_is_the_predictors(page, predictor, images):
    _, post = page
    for path in images[:2]:
        (prediction,) = predictor.predict([predictor.load_image(path)])
        answer = post("answer", path.read_bytes()).json()
        for name, shown in answer["points"].items():
            decision = predictor.decide(prediction, name)
            assert shown["verdict"] == html_page.verdict_html(prediction, decision)
        heat = predictor.heat_maps([prediction.image], [answer["code"]])[0]
        assert answer["heat"] == html_page.heat_url(heat)


def test_a_heat_map_of_another_class_is_drawn_from_what_the_model_saw(page, predictor, images):
    _, post = page
    answer = post("answer", images[0].read_bytes()).json()
    code = next(code for code in CLASS_NAMES if code != answer["code"])
    seen = base64.b64decode(answer["input"].partition(",")[2])
    drawn = post(f"heat-map?class={code}", seen).json()
    heat = predictor.heat_maps([predictor.load_image(images[0])], [code])[0]
    assert drawn == {"code": code, "heat": html_page.heat_url(heat)}


def test_programs_get_the_document_of_the_command(page, predictor, images, capsys):
    _, post = page
    arguments = ["predict", str(images[0]), "--bundle", str(predictor.folder), "--json"]
    assert main([*arguments, "--operating-point", "sensitivity_95"]) == 0
    expected = json.loads(capsys.readouterr().out)
    path = f"predict?point=sensitivity_95&name={images[0]}"
    assert post(path, images[0].read_bytes()).json() == expected


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("answer?model=none", 404, KEYS[0]),
        ("heat-map?class=none", 404, MELANOMA),
        ("predict?point=none", 422, "specificity_95"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(page, images, path, status, words):
    _, post = page
    answer = post(path, images[0].read_bytes())
    assert answer.status_code == status and words in answer.text


def test_many_visitors_at_once_get_their_own_answers(page, predictor, images):
    _, post = page
    expected = [
        html_page.probabilities_html(prediction)
        for prediction in predictor.predict([predictor.load_image(path) for path in images])
    ]
    wrong, right = [], []

    def visit(number):
        answer = post("answer", images[number % 8].read_bytes())
        good = answer.ok and answer.json()["probabilities"] == expected[number % 8]
        (right if good else wrong).append(number)

    threads = [threading.Thread(target=visit, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(right) == 24


def test_a_run_offers_all_its_networks(sample_run, images, served):
    site = app.WebPage(load_predictors(sample_run))
    assert set(site.predictors) == set(KEYS)
    url = served(site).url
    for key in KEYS:
        answer = requests.post(f"{url}answer?model={key}", images[0].read_bytes(), timeout=60)
        assert answer.json()["points"].keys() == site.predictors[key].operating_points.keys()
    names = json.loads(re.search('id="texts".*?>(.*?)</script>', site.page)[1])["models"]
    assert {model["id"] for model in names} == set(KEYS)


# -- the command -------------------------------------------------------------------------------


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
    with security.listen("127.0.0.1", None) as free:
        port = free.getsockname()[1]
    given = ["--bundle", str(predictor.folder), "--port", str(port), *options]
    assert main(["serve", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("reason", "message"),
    [("port", "-1; it must be 1 to 65535"), ("taken", "try another --port"),
     ("password", "MELANOMA_PASSWORD")],
)  # fmt: skip
def test_address_and_password_are_checked_before_a_model_is_loaded(
    predictor, capsys, monkeypatch, reason, message
):
    monkeypatch.setattr(
        melanoma_lib.inference, "load_predictors", lambda folder: pytest.fail("it was loaded"),
        raising=False,
    )  # fmt: skip
    with security.listen("127.0.0.1", None) as taken:
        port = {"port": -1, "taken": taken.getsockname()[1]}.get(reason, 7860)
        host = "0.0.0.0" if reason == "password" else "127.0.0.1"
        given = ["--bundle", str(predictor.folder), "--host", host, "--port", str(port)]
        assert main(["serve", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "number"),
    [("127.0.0.1", signal.SIGTERM), ("[::1]", signal.SIGHUP), ("localhost", signal.SIGINT)],
)
def test_a_page_is_served_until_a_signal_and_leaves_nothing(
    predictor, images, capsys, monkeypatch, tmp_path, host, number
):
    """Also while a picture is being sent."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answers, connections = [], []

    class Interrupted(app.Server):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            answers.append(requests.get(self.url, timeout=30).status_code)
            answers.append(requests.post(f"{self.url}answer", images[0].read_bytes(),
                                         timeout=60).status_code)  # fmt: skip
            address = (host.strip("[]"), int(self.url.rstrip("/").rpartition(":")[2]))
            connections.append(socket.create_connection(address))
            connections[0].sendall(b"POST /answer HTTP/1.1\r\nHost: localhost\r\n"
                                   b"Content-Length: 99999\r\n\r\nhalf a picture")  # fmt: skip
            threading.Timer(0.5, os.kill, (os.getpid(), number)).start()

    monkeypatch.setattr(app, "Server", Interrupted)
    with security.listen(host.strip("[]"), None) as free:
        port = free.getsockname()[1]
    options = ["--bundle", str(predictor.folder), "--host", host, "--port", str(port)]
    assert main(["serve", *options]) == 128 + number and answers == [200, 200]
    connections[0].close()
    assert capsys.readouterr().err.strip() == "melanoma: interrupted"
    assert not list(tmp_path.iterdir())


def test_chapter_09_runs_behind_a_proxy_that_is_not_there(sample_run, tmp_path, monkeypatch):
    """It opens pages, its own and the real one, and asks both over the network."""
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


# -- the visit: the part of the page that needs no browser --------------------------------------


def node():
    """Node, which playwright brings."""
    if found := shutil.which("node"):
        return found
    driver = pytest.importorskip("playwright._impl._driver")
    return driver.compute_driver_executable()[0]


def test_the_scripts_are_javascript(tmp_path):
    for script in html_page.STATIC.glob("*.js"):
        module = tmp_path / f"{script.stem}.mjs"
        shutil.copy(script, module)
        subprocess.run([node(), "--check", module], check=True, timeout=60)


def test_the_last_thing_asked_for_is_what_is_shown(tmp_path):
    shutil.copy(html_page.STATIC / "visit.js", tmp_path / "visit.mjs")
    script = (Path(__file__).parent / "visit_races.mjs").read_text()
    (tmp_path / "races.mjs").write_text(script.replace("VISIT", "./visit.mjs"))
    printed = subprocess.check_output([node(), tmp_path / "races.mjs"], text=True, timeout=60)
    found = json.loads(printed)
    assert found["whileWaiting"] == ["b", "waiting", None]
    assert found["lastWins"] == found["lateAnswer"] == ["b", "answered", "b"]
    assert found["bothAnswered"] == ["a", "b"]
    assert found["seventh"] == ["7", "answered", "7"]
    assert found["twoDropped"] == [["answered", "answered"], ["b", "answered", "b"]]
    assert found["backToTheFirst"] == ["a", "answered", "a"]
    assert found["failed"] == ["b", "failed", None, "b is bad"]
    assert found["after"] == ["c", "answered", "c"]
    assert found["again"] == ["a", "b", "c", "b"] and found["bounded"]


# -- in the browser ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(predictor):
    """A server for all tests in the browser."""
    server = app.Server(app.WebPage([predictor]), security.listen("127.0.0.1", None))
    yield server
    server.close()


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
    contexts, problems = [], []

    def open_page(width=1200, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        opened = context.new_page()
        opened.on("request", lambda r: None if r.url.startswith((site.url, "data:", "blob:"))
                  else problems.append(r.url))  # fmt: skip
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda message: problems.append(message.text)
                  if "Content Security Policy" in message.text else None)  # fmt: skip
        opened.goto(site.url)
        wait_until(opened, "document.querySelectorAll('#answers button').length === 3")
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert not problems, "other machines were asked, or a script failed"


def send(opened, *paths, wait="#verdict h2"):
    opened.set_input_files("#file", [str(path) for path in paths])
    opened.wait_for_selector(wait)


@pytest.fixture
def slow(monkeypatch):
    """Makes the reading of pictures that are larger than a number of bytes take a second."""
    read = app.read_picture

    def slow_read(data, size):
        if len(data) > 1_000_000:
            time.sleep(1)
        return read(data, size)

    monkeypatch.setattr(app, "read_picture", slow_read)


@pytest.fixture
def large(images, tmp_path):
    """A file that `slow` makes slow."""
    Image.open(images[0]).resize((800, 600)).save(tmp_path / "large.bmp")
    return tmp_path / "large.bmp"


def test_upload_fade_choose(visit, predictor, images):
    opened = visit()
    assert wording.DISCLAIMER in opened.inner_text("header")
    send(opened, images[0])
    (prediction,) = predictor.predict([predictor.load_image(images[0])])
    text = opened.inner_text("#verdict")
    assert DISPLAY_NAMES[prediction.predicted_class] in text
    assert wording.percent(prediction.melanoma_probability) in text
    assert len(opened.query_selector_all("#probabilities tr")) == 7
    opened.fill("#opacity", "25")
    wait_until(opened, "document.querySelector('#heat').style.opacity === '0.25'")
    before = opened.get_attribute("#heat", "src")
    other = "mel" if prediction.predicted_class != "mel" else "nv"
    opened.select_option("#heat-class", other)
    wait_until(opened, "old => document.querySelector('#heat').src !== old", before)
    opened.check("input[value=sensitivity_95]")
    opened.wait_for_selector("#verdict h2:has-text('sensitivity')")


def test_a_point_chosen_while_a_picture_is_read_is_the_one_of_its_verdict(
    visit, predictor, images, slow, large
):
    opened = visit()
    send(opened, images[0])
    opened.set_input_files("#file", str(large))
    opened.wait_for_selector("#progress:has-text('large.bmp')")
    assert not opened.query_selector("#verdict h2")  # nor is the old one left to be seen
    assert not opened.query_selector("[aria-busy=true] #progress")  # which would keep it silent
    opened.evaluate("document.querySelector('input[value=sensitivity_95]').click()")
    opened.wait_for_selector("#verdict h2")
    (prediction,) = predictor.predict([predictor.load_image(large)])
    expected = wording.decision_text(predictor.decide(prediction, "sensitivity_95"))
    if prediction.out_of_distribution:
        expected = wording.NO_VERDICT
    assert opened.inner_text("#verdict h2") == expected


def test_the_last_of_many_clicks_and_of_many_files_is_shown(visit, images, slow, large):
    opened = visit()
    examples = opened.query_selector_all(".example")
    for example in examples:
        example.click()
    opened.wait_for_selector("#verdict h2")
    assert "vascular lesion" in opened.get_attribute("#picture", "alt")
    assert "vascular lesion" in opened.get_attribute("#strip [aria-current=true]", "aria-label")
    opened.set_input_files("#file", str(large))  # slow, and another one is clicked meanwhile
    examples[4].click()
    wait_until(opened, "document.querySelector('#picture').alt.includes('melanoma')")
    wait_until(opened, "document.querySelectorAll('#strip .answered').length === 8")
    assert "melanoma" in opened.get_attribute("#picture", "alt")
    send(opened, *images[1:3], wait=f"#strip .answered[title='{images[1].name}']")
    assert images[2].name in opened.get_attribute("#picture", "alt")
    opened.click(f"#strip [title='{images[1].name}']")
    includes = "name => document.querySelector('#picture').alt.includes(name)"
    wait_until(opened, includes, images[1].name)


def test_after_the_server_has_gone_the_visitor_is_told_what_to_do(
    browser, visit, predictor, images
):
    server = app.Server(app.WebPage([predictor]), security.listen("127.0.0.1", None))
    opened = browser.new_page()
    opened.goto(server.url)
    wait_until(opened, "document.querySelectorAll('#answers button').length === 3")
    send(opened, images[0])
    server.close()
    opened.set_input_files("#file", str(images[1]))
    opened.wait_for_selector("#error .warning")
    assert "give the picture again" in opened.inner_text("#error")
    assert not opened.inner_text("#verdict").strip()
    opened.close()


def limit_distance(predictor, monkeypatch, limit):
    """Beyond which a picture is out of distribution."""
    changed = dataclasses.replace(predictor.reference_set, limit=limit)
    monkeypatch.setattr(predictor, "reference_set", changed)


def put_threshold(predictor, monkeypatch, threshold):
    """Of all operating points."""
    for name, point in predictor.operating_points.items():
        monkeypatch.setitem(predictor.operating_points, name, point | {"threshold": threshold})


def test_a_portrait_gets_no_verdict_and_its_details_are_folded(visit, predictor, monkeypatch):
    import matplotlib

    portrait = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    limit_distance(predictor, monkeypatch, 0.0)  # of one epoch, which knows little
    opened = visit()
    send(opened, portrait)
    assert opened.inner_text("#verdict h2") == wording.NO_VERDICT
    assert "%" not in opened.inner_text("#verdict")
    assert not opened.is_visible("#probabilities") and not opened.is_visible("#heat")
    opened.click("#details summary")
    opened.wait_for_selector("#probabilities", state="visible")


def test_answers_do_not_change_the_decision_and_stay_with_another_point(
    visit, predictor, images, monkeypatch
):
    (prediction,) = predictor.predict([predictor.load_image(images[1])])
    probability = prediction.melanoma_probability
    put_threshold(predictor, monkeypatch, probability)
    limit_distance(predictor, monkeypatch, np.inf)
    opened = visit()
    send(opened, images[1], wait="#questions .question")
    before = opened.inner_text("#verdict")
    for number, answer in enumerate(("yes", "no", "not sure")):
        opened.click(f"#answers button:text-is('{answer}')")
        replies = "n => document.querySelectorAll('#talk .reply').length === n"
        wait_until(opened, replies, number + 1)
    assert opened.evaluate("document.activeElement.id") == "talk"  # the buttons have gone
    assert opened.inner_text("#verdict") == before
    opened.check("input[value=sensitivity_95]")
    assert len(opened.query_selector_all("#talk .reply")) == 3
    decision = wording.decision_text(predictor.decide(prediction, "sensitivity_95")).lower()
    summary = opened.inner_text("#talk .summary")
    assert decision in summary and wording.percent(probability) in summary


def test_bad_files_are_told_in_a_line_and_the_page_goes_on(visit, images, tmp_path):
    (tmp_path / "corrupt.jpg").write_bytes(images[0].read_bytes()[:-400])
    opened = visit()
    send(opened, images[1])
    send(opened, tmp_path / "corrupt.jpg", wait="#error .warning")
    text = opened.inner_text("#error")
    assert "corrupt.jpg" in text and "JPEG or PNG" in text and str(tmp_path) not in text
    assert not opened.inner_text("#verdict").strip() and not opened.is_visible("#shown")
    send(opened, images[2])
    assert not opened.inner_text("#error").strip()


def test_a_circle_stays_a_circle_below_its_map(visit, tmp_path):
    Image.new("RGB", (600, 300), "bisque").save(tmp_path / "wide.png")
    opened = visit()
    send(opened, tmp_path / "wide.png")
    opened.evaluate("document.querySelector('#details').open = true")
    opened.wait_for_selector("#heat", state="visible")
    boxes = [opened.query_selector(name).bounding_box() for name in ("#picture", "#heat")]
    assert boxes[0] == boxes[1] and boxes[0]["width"] == pytest.approx(2 * boxes[0]["height"], 0.01)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1280, 800)])
def test_the_verdict_comes_into_view_and_nothing_is_wider_than_the_screen(
    visit, images, tmp_path, width, height
):
    (tmp_path / "bad.jpg").write_text("no picture")
    opened = visit(width, height)
    in_view = "name => { const { top, bottom } = document.querySelector(name)" \
        ".getBoundingClientRect(); return top >= 0 && bottom <= innerHeight; }"  # fmt: skip
    send(opened, images[0])
    wait_until(opened, in_view, "#verdict h2")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.evaluate("scrollTo(0, 0)")
    send(opened, tmp_path / "bad.jpg", wait="#error .warning")
    wait_until(opened, in_view, "#error")
    buttons = [button.bounding_box() for button in opened.query_selector_all("#drop .button")]
    examples = opened.query_selector("#examples").bounding_box()
    assert all(box is None or box["y"] + box["height"] <= examples["y"] for box in buttons)


def test_the_keyboard_reaches_everything_and_keeps_its_place(visit, images):
    opened = visit()
    send(opened, images[0])
    opened.focus("#file")
    send(opened, images[1])
    assert opened.evaluate("document.activeElement.id") == "file"
    reached = set()
    for _ in range(60):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate(
            "(e => e.id || e.name || e.className || e.tagName)(document.activeElement)"))
    assert {"operating-point", "heat-class", "opacity", "example", "report"} <= reached
    opened.focus("#opacity")
    opened.keyboard.press("ArrowRight")
    style = opened.evaluate("getComputedStyle(document.querySelector('#opacity')).outlineStyle")
    assert style == "solid"
    opened.focus(".report")
    with opened.expect_download() as download:
        opened.keyboard.press("Enter")
    assert download.value.suggested_filename == "report.pdf"
    assert opened.evaluate("document.activeElement.className") == "report"
    assert opened.get_attribute("#verdict", "aria-live") == "polite"
    assert opened.evaluate("document.querySelectorAll('h1').length") == 1


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core, which finds faults of accessibility."""
    package = pytest.importorskip(
        "axe_playwright_python", reason="needs axe: pip install axe-playwright-python"
    )
    return Path(package.__file__).with_name("axe.min.js").read_text()


# The other two are for `make test-all`: what differs by width hardly differs by colour.
@pytest.mark.parametrize(
    "width, scheme",
    [(390, "dark"), (1280, "light"), *(pytest.param(*of, marks=pytest.mark.slow)
                                       for of in ((390, "light"), (1280, "dark")))],
)  # fmt: skip
def test_axe_finds_nothing(
    visit, site, axe, predictor, images, tmp_path, monkeypatch, scheme, width
):
    def findings():
        opened.evaluate(axe)
        violations = opened.evaluate("axe.run()")["violations"]
        return [(each["id"], node["html"]) for each in violations for node in each["nodes"]]

    (tmp_path / "bad.jpg").write_text("no picture")
    opened = visit(width, color_scheme=scheme)
    assert not findings()
    limit_distance(predictor, monkeypatch, np.inf)
    put_threshold(predictor, monkeypatch, 1.0)
    send(opened, *images[:2])
    assert not findings()
    (prediction,) = predictor.predict([predictor.load_image(images[2])])
    put_threshold(predictor, monkeypatch, prediction.melanoma_probability)
    send(opened, images[2], wait="#questions .question")
    assert not findings()
    send(opened, tmp_path / "bad.jpg", wait="#error .warning")
    assert not findings()
    limit_distance(predictor, monkeypatch, 0.0)
    send(opened, images[3])
    assert not findings()
    opened.click("#details summary")
    assert not findings()
    for path in ("login", "figures", "model-card"):
        opened.goto(site.url + path)
        assert not findings()


def test_two_visitors_side_by_side_see_their_own(visit, predictor, images):
    pages = [visit(), visit(width=390, height=844)]
    for opened, path in zip(pages, images[:2], strict=True):
        opened.set_input_files("#file", str(path))
    for opened, path in zip(pages, images[:2], strict=True):
        opened.wait_for_selector("#verdict h2")
        data = opened.get_attribute("#picture", "src").partition(",")[2]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)
        given = np.asarray(Image.open(path).convert("RGB"), int)
        assert shown.shape == given.shape and np.abs(shown - given).mean() < 3
