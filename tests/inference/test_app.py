"""The page as its user meets it, in a real browser, and what lies behind it."""

import asyncio
import re
import shutil
import threading
import time

import numpy as np
import papermill
import pytest
from helpers import KEYS
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import DISPLAY_NAMES
from melanoma_lib.inference import app, wording
from melanoma_lib.inference.predictor import Predictor
from melanoma_lib.pipeline.run import NOTEBOOKS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def reader(sample_run):
    return Predictor(sample_run / KEYS[0])


@pytest.fixture(scope="module")
def images(sample_dir):
    return sorted((sample_dir / "images").iterdir())[:8]


@pytest.fixture
def reading(reader, images):
    return reader.read([reader.open(images[0])])[0]


def test_the_parts_show_the_readings_numbers(reader, reading):
    decision = reader.decide(reading)
    names = re.findall(r'class="name(?: mel)?">(.+?)<', app.bars(reading))
    assert names[0] == DISPLAY_NAMES[reading.predicted] and len(names) == 7
    for part in (app.scale(reader, reading, decision), app.decided(reading, decision)):
        assert wording.percent(reading.melanoma) in part
        assert wording.percent(decision.point["threshold"]) in part
    shown = app.stacked(reading, reader.heat([reading.picture], ["mel"])[0], "mel", 0.3)
    assert "opacity:0.3" in shown and shown.count("data:image/png") == 2


def test_the_header_cannot_be_without_the_notice(reader):
    assert wording.NOTICE in app.header(reader) and wording.GENERATED in app.header(reader)


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
    monkeypatch.setattr(app, "PAUSE", 0.05)

    async def knock():
        authenticate = app.make_authenticator("ada", "geheim-ü")
        start = time.perf_counter()
        tries = [("ada", "x"), ("eve", "geheim-ü"), ("", ""), ("ada", "geheim-ü")]
        found = await asyncio.gather(*(authenticate(*pair) for pair in tries))
        seconds = time.perf_counter() - start
        crowd = [("ada", "x")] * app.WAITING + [tries[-1]]  # the right one finds no place
        refused = await asyncio.gather(*(authenticate(*pair) for pair in crowd))
        return found, seconds, refused, await authenticate(*tries[-1])

    found, seconds, refused, later = asyncio.run(knock())
    assert found == [False, False, False, True] and seconds > 0.14
    assert not any(refused) and later


def test_serve_without_a_model_says_what_to_run(tmp_path, capsys):
    assert main(["serve", "--bundle", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "melanoma run --preset sample" in error and error.count("\n") == 1


def test_chapter_09_runs_and_leaves_no_server(sample_run, tmp_path):
    source = next(NOTEBOOKS.glob("09_*.ipynb"))
    papermill.execute_notebook(
        str(source), str(tmp_path / "09.ipynb"),
        {"output_dir": str(sample_run), "architecture": KEYS[0]},
        kernel_name="python3", cwd=str(source.parent), progress_bar=False,
    )  # fmt: skip
    assert "the page's most probable" in (tmp_path / "09.ipynb").read_text()


# -- in the browser ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(reader, tmp_path_factory):
    """The page's address, and the folder of its uploads."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setattr(app, "KEPT", 2)
        page, address = app.start(reader, "127.0.0.1", None)
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


def send(page, path, wait="#answer .decision"):
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_selector(wait)


def test_upload_read_fade_choose(visit, reader, images):
    page = visit()
    assert wording.NOTICE in page.inner_text("header")
    send(page, images[0])
    (reading,) = reader.read([reader.open(images[0])])
    text = page.inner_text("#answer")
    assert DISPLAY_NAMES[reading.predicted] in text.lower()
    assert wording.percent(reading.melanoma) in text
    assert len(page.query_selector_all("#chances .name")) == 7
    page.fill("#strength input[type=number]", "0.25")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.heat').style.opacity === '0.25'")
    before = page.get_attribute(".heat", "src")
    page.click("#class input")
    other = "melanoma" if reading.predicted != "mel" else "melanocytic nevus"
    page.click(f"[role=option][aria-label='{other}']")
    page.wait_for_function("old => document.querySelector('.heat').src !== old", arg=before)
    page.click("#point label:has-text('sensitivity')")
    page.wait_for_selector("#answer .decision:has-text('sensitivity')")


def test_the_conversation_changes_no_verdict(visit, reader, images, monkeypatch):
    (reading,) = reader.read([reader.open(images[1])])
    near = reader.point() | {"threshold": reading.melanoma}
    monkeypatch.setitem(reader.points, near["name"], near)
    page = visit()
    send(page, images[1], "#talk .asked")
    before = page.inner_text("#answer")
    for answer in ("Yes", "No", "Not sure"):
        said = len(page.query_selector_all("#talk .given"))
        page.click(f"#talk button:has-text('{answer}') >> nth=0")
        page.wait_for_function(
            "n => document.querySelectorAll('#talk .given').length === n", arg=said + 1)
    summary = page.inner_text("#talk .summary")
    assert "called melanoma" in summary and wording.percent(reading.melanoma) in summary
    assert page.inner_text("#answer") == before


def test_bad_files_are_told_in_a_line_and_the_page_goes_on(visit, images, tmp_path):
    (tmp_path / "corrupt.jpg").write_bytes(images[0].read_bytes()[:-400])
    page = visit()
    send(page, tmp_path / "corrupt.jpg", "#problem .warning")
    text = page.inner_text("#problem")
    assert "not a readable image" in text
    assert "Traceback" not in page.content() and str(tmp_path) not in text
    send(page, images[2])
    assert not page.inner_text("#problem").strip()


def test_a_foreign_picture_is_warned_of(visit, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page = visit()
    send(page, tmp_path / "noise.png")
    assert wording.FOREIGN in page.inner_text("#answer .warning")


def test_two_visitors_side_by_side_see_their_own(visit, reader, images):
    pages = [visit(), visit(width=390, height=844)]
    for page, path in zip(pages, images, strict=False):
        page.set_input_files("#upload input[type=file]", path)
    for page, path in zip(pages, images, strict=False):
        page.wait_for_selector("#answer .decision")
        (reading,) = reader.read([reader.open(path)])
        assert app._data(Image.fromarray(reading.picture)) == page.get_attribute(
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


@pytest.mark.slow
def test_eight_visitors_for_a_minute_each_get_their_own_map(reader, site, images):
    """Through the functions behind the page, as many at once as visitors."""
    opened = [reader.open(path) for path in images]
    right = [reader.heat([picture], ["mel"]) for picture in opened]
    wrong, done, end = [], [], time.monotonic() + 60

    def visitor(number):
        while time.monotonic() < end:
            reader.read([opened[number]])
            same = np.allclose(reader.heat([opened[number]], ["mel"]), right[number], atol=1e-5)
            (done if same else wrong).append(number)

    threads = [threading.Thread(target=visitor, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and set(done) == set(range(8))
