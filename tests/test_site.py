import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from melanoma_lib.artifacts import MelanomaError
from melanoma_lib.cli import main
from melanoma_lib.site import build

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"  # the head of a picture


@pytest.fixture
def run_dir(tmp_path):
    """A run of three executed notebooks, one of them of one architecture, and a failed one."""
    books = tmp_path / "run" / "notebooks"
    books.mkdir(parents=True)
    links = (
        "[next](04_training.ipynb) [start](00_start_here.ipynb) [card](../data/README.md) "
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
    return tmp_path / "run"


def test_pages_hold_text_code_and_outputs(run_dir, tmp_path):
    build(run_dir, tmp_path / "site")
    page = (tmp_path / "site" / "00_start_here.html").read_text()
    assert "printed &lt;text&gt;" in page and PNG in page and "<td>7</td>" in page
    assert "print" in page and 'name="viewport"' in page and "In&nbsp;[" not in page
    assert not list((tmp_path / "site").glob("*failed*"))


def test_the_contents_name_every_page_and_no_link_is_dead(run_dir, tmp_path):
    contents = build(run_dir, tmp_path / "site").read_text()
    pages = {path.name for path in (tmp_path / "site").glob("*.html")}
    for name in pages - {"index.html"}:
        assert f'href="{name}"' in contents
    assert "04 · Train (resnet50)" in contents and "04 · Train (vit_b_16)" in contents
    for name in pages:
        text = (tmp_path / "site" / name).read_text()
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            there = (tmp_path / "site" / link.partition("#")[0]).exists()
            assert there or link.startswith(("https:", "#", "data:")), (name, link)


def test_links_lead_to_pages(run_dir, tmp_path):
    build(run_dir, tmp_path / "site")
    page = (tmp_path / "site" / "04_training-vit_b_16.html").read_text()
    assert '<a href="04_training-resnet50.html">next</a>' in page  # the first of its kind
    assert '<a href="data-readme.html">card</a>' in page
    assert '<a href="results.html">results</a>' in page and " code " in page
    assert "https://example.org" in page


def test_the_command_builds_beside_the_run_and_needs_notebooks(run_dir, tmp_path, capsys):
    assert main(["site", "--output-dir", str(run_dir)]) == 0
    assert (run_dir / "site" / "index.html").exists()
    with pytest.raises(MelanomaError, match="no executed notebook"):
        build(tmp_path / "empty", tmp_path / "site")
