import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.pipeline.website import build

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"  # the head of a picture


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of three executed notebooks, two of them of one architecture, and a failed one."""
    books = tmp_path_factory.mktemp("site") / "run" / "notebooks"
    books.mkdir(parents=True)
    links = (
        "[next](04_training.ipynb) [start](00_start_here.ipynb) [card](../data/README.md) "
        "[solved](solutions/04_training.ipynb) [cloud](10_in_the_cloud.ipynb) "
        "[results](../docs/results.md#x) [code](../melanoma_lib/cli.py) [out](https://example.org)"
    )
    outputs = [
        new_output("stream", text="printed <text>"),
        new_output("display_data", {"image/png": PNG}),
        new_output("execute_result", {"text/html": "<table><tr><td>7</td></tr></table>"}),
    ]
    for stem, title in (("00_start_here", "00 · Find"), ("04_training-resnet50", "04 · Train"),
                        ("04_training-vit_b_16", "04 · Train"), ("05_x.failed", "05")):  # fmt: skip
        cells = [new_markdown_cell(f"{links}\n\n# {title}"),
                 new_code_cell("print('code')", outputs=outputs)]  # fmt: skip
        nbformat.write(new_notebook(cells=cells), books / f"{stem}.ipynb")
    return books.parent


@pytest.fixture(scope="module")
def site(run_dir):
    """The pages by their name."""
    folder = build(run_dir, run_dir.parent / "pages").parent
    return {path.name: path.read_text() for path in folder.glob("*.html")}


def test_pages_hold_text_code_and_outputs(site):
    page = site["00_start_here.html"]
    assert "printed &lt;text&gt;" in page and PNG in page and "<td>7</td>" in page
    assert "print" in page and 'name="viewport"' in page and "In&nbsp;[" not in page
    assert not any("failed" in name for name in site)


def test_the_contents_name_every_page_and_no_link_is_dead(site):
    contents = site["index.html"]
    for name in site.keys() - {"index.html"}:
        assert f'href="{name}"' in contents
    assert "04 · Train (resnet50)" in contents and "04 · Train (vit_b_16)" in contents
    for name, text in site.items():
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            page, _, part = link.partition("#")
            known = page in site or page == "site.css" or link.startswith(("https:", "#", "data:"))
            assert known, (name, link)
            if part and page in site and not page.endswith("results.html"):
                assert f'id="{part}"' in site[page] or page[:2] in ("00", "04"), (name, link)


def test_links_lead_to_pages(site):
    page = site["04_training-vit_b_16.html"]
    assert '<a href="04_training-resnet50.html">next</a>' in page  # the first of its kind
    assert '<a href="data-readme.html">card</a>' in page
    assert '<a href="results.html#x">results</a>' in page and " code " in page
    assert "https://example.org" in page
    assert '<img src="data:image/png;base64,iVBORw0KGgo' in site["reproduce.html"]


def test_what_was_not_executed_is_there_as_it_is(site):
    page = site["04_training-vit_b_16.html"]
    assert '<a href="solutions-04_training.html">solved</a>' in page
    assert '<a href="10_in_the_cloud.html">cloud</a>' in page
    assert "04_training.html" not in site  # executed, for two architectures
    assert '<a href="10_in_the_cloud.html#Exercises">' in site["solutions-10_in_the_cloud.html"]


def test_the_command_builds_beside_the_run_and_needs_notebooks(run_dir, tmp_path, monkeypatch):
    bodies = "melanoma_lib.pipeline.website._bodies"
    monkeypatch.setattr(bodies, lambda paths: dict.fromkeys(paths, ""))
    assert main(["site", "--output-dir", str(run_dir)]) == 0
    assert (run_dir / "site" / "index.html").exists()
    with pytest.raises(MelanomaError, match="no executed notebook"):
        build(tmp_path / "empty", tmp_path / "site")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser (Debian: chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_a_phone_or_a_desktop(site, run_dir, width):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        for name in site:
            page.goto((run_dir.parent / "pages" / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        browser.close()
