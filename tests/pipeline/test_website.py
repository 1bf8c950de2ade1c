import contextlib
import io
import re
import shutil
from html import unescape

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from melanoma_lib.cli import main
from melanoma_lib.core import environment
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT
from melanoma_lib.pipeline import website

pytestmark = pytest.mark.filterwarnings("ignore:'myst_parser:PendingDeprecationWarning")
PNG = (  # one black pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of three executed notebooks, two of them of one chapter, and a failed one."""
    books = tmp_path_factory.mktemp("site") / "run" / "notebooks"
    books.mkdir(parents=True)
    links = (
        "[next](04_training.ipynb) [start](00_start_here.ipynb) [card](../data/README.md) "
        "[solved](solutions/04_training.ipynb) [cloud](10_in_the_cloud.ipynb#Exercises) "
        "[results](../docs/results.md) [code](../melanoma_lib/cli.py) [out](https://example.org)"
    )
    wide = "<th>a heading without a break</th>" * 30
    outputs = [
        new_output("stream", text="printed <text> " + "and more " * 50),
        new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": "A dot."}}),
        new_output("execute_result", {"text/html": f"<table><tr>{wide}<td>7</td></tr></table>"}),
        new_output("execute_result", {"text/markdown": "| a | b |\n|---|---|\n| c | d |"}),
    ]
    for stem, title in (("00_start_here", "00 · Find"), ("04_training-resnet50", "04 · Train"),
                        ("04_training-vit_b_16", "04 · Train"), ("05_x.failed", "05")):  # fmt: skip
        cells = [new_markdown_cell(f"{links}\n\n# {title}"),
                 new_code_cell("# a comment\nprint('new')", outputs=outputs)]  # fmt: skip
        given = {"parameters": {"epochs": 2, "architecture": stem.partition("-")[2]}}
        about = {"papermill": given, "language_info": {"name": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=about), books / f"{stem}.ipynb")
    (books.parent / "summary.md").write_text("Melanoma AUC 0.9 of the run")
    return books.parent


@pytest.fixture(scope="module")
def site(run_dir):
    """The pages by their path in the site, which the command made again beside the run."""
    old = run_dir / "site" / "notebooks" / "04_training-of_a_network_that_is_gone.html"
    old.parent.mkdir(parents=True)
    old.write_text("<html>")
    (run_dir / "site" / "objects.inv").touch()
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert main(["site", "--output-dir", str(run_dir)]) == 0
    assert errors.getvalue() == ""  # nothing to say of pages, docstrings and settings
    folder = run_dir / "site"
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.html")}


def links(text):
    return [unescape(link) for link in re.findall(r'(?:href|src)="([^"]*)"', text)]


def link_of(text, label):
    """Where the link with a label leads to; nothing where the label is plain text."""
    found = re.search(rf'href="([^"]*)"[^>]*>(?:<[^>]*>)*{label}<', text)
    return found and found[1]


def test_pages_hold_text_code_and_outputs(site):
    page = site["notebooks/00_start_here.html"]
    assert "printed &lt;text&gt;" in page and "<td>7</td>" in page and "new" in page
    assert re.search(r"<td[^>]*>(<p>)?c(</p>)?</td>", page)  # Markdown outputs too
    assert re.search(r'<img [^>]*alt="A dot\."', page)
    assert not any("failed" in name for name in site)
    assert "Melanoma AUC 0.9 of the run" in site["summary.html"]


def test_the_first_page_names_every_page_and_what_was_run(site):
    contents = site["index.html"].partition("<article")[2]
    for name in site.keys() - {"index.html", "search.html"}:
        listed = not re.match(r"api/melanoma_lib\.", name)  # the first names the rest
        assert not listed or f'href="{name}"' in contents, name
    assert "<h1>Run run" in contents and re.search(r"epochs.*?2.*?</tr>", contents, re.DOTALL)
    assert "04 · Train (resnet50)" in contents and "04 · Train (vit_b_16)" in contents
    chapters = re.findall(r'href="notebooks/(\d\d)_', contents)
    assert chapters[:12] == ["00", "01", "02", "03", "04", "04", *(f"{n:02}" for n in range(5, 11))]
    documents = [path.stem for path in PROJECT.glob("docs/*.md")]
    assert site.keys() >= {"data/README.html", "figures/README.html"}
    assert documents and site.keys() >= {f"docs/{name}.html" for name in documents}


def test_pages_of_notebooks_that_are_gone_go(site):
    assert "notebooks/04_training.html" in site and not any("gone" in name for name in site)


def test_no_link_is_dead_and_nothing_is_fetched_from_elsewhere(site, run_dir):
    ids = {name: set(re.findall(r'id="([^"]*)"', text)) for name, text in site.items()}
    folder = run_dir / "site"
    for name, text in site.items():
        for link in links(text):
            if re.match(r"https?:|mailto:|data:", link):
                continue
            target, _, part = link.partition("#")
            path = (folder / name).parent / target.partition("?")[0] if target else folder / name
            assert path.exists(), (name, link)
            page = path.resolve().relative_to(folder.resolve()).as_posix()
            fake = page.startswith(("notebooks/00", "notebooks/04"))  # have no exercises
            assert not part or fake or part in ids[page], (name, link)
        for tag in re.findall(r"<(?:script|img|link)\b[^>]*>", text):
            assert "//" not in tag, (name, tag)


def test_links_lead_to_pages(site):
    page = site["notebooks/04_training-vit_b_16.html"]
    assert link_of(page, "next") == "04_training.html"  # the first architecture's
    assert link_of(page, "card") == "../data/README.html"
    assert link_of(page, "results") == "../docs/results.html"
    assert link_of(page, "out") == "https://example.org"
    assert not link_of(page, "code") and "code</span> " in page  # a file without a page
    assert re.search(r'<img [^>]*src="\.\./_images/', site["docs/findings.html"])


def test_what_was_not_executed_is_there_as_it_is(site):
    page = site["notebooks/04_training-vit_b_16.html"]
    assert link_of(page, "solved") == "solutions/04_training.html"
    assert link_of(page, "cloud") == "10_in_the_cloud.html#exercises"
    solutions = site["notebooks/solutions/10_in_the_cloud.html"]
    assert "../10_in_the_cloud.html#exercises" in links(solutions)
    title = re.compile(r"<h1>(.*?)<")
    assert title.search(site["notebooks/10_in_the_cloud.html"])[1].endswith("(not executed)")
    assert title.search(site["notebooks/04_training.html"])[1].endswith("(resnet50)")


def test_the_reference_finds_the_library_by_itself(site, run_dir):
    reference = "".join(text for name, text in site.items() if name.startswith("api/"))
    for name in ("fit", "choose_threshold", "MelanomaError"):
        assert re.search(rf'<dt [^>]*id="melanoma_lib\.[\w.]*\b{name}"', reference), name
    modules = {path.stem for path in (PROJECT / "melanoma_lib").rglob("*.py")}
    for module in modules - {"__init__", "__main__"}:
        assert f"{module} module" in reference, module
    assert "choose_threshold" in (run_dir / "site" / "searchindex.js").read_text()


def test_what_cannot_be_built_is_refused(run_dir, tmp_path, monkeypatch):
    (taken := tmp_path / "taken").write_text("a file")
    with pytest.raises(MelanomaError, match="no executed notebook"):
        website.build(tmp_path, tmp_path / "site")
    with pytest.raises(MelanomaError, match="taken"):
        website.build(run_dir, taken)
    monkeypatch.setattr(environment, "find_spec", lambda name: name != "furo" or None)
    with pytest.raises(MelanomaError, match=r"furo.*pip install -e '\.\[site\]'"):
        website.build(run_dir, taken)
    assert taken.read_text() == "a file"


@pytest.fixture
def browser():
    if not (chromium := shutil.which("chromium")):
        pytest.skip("needs a browser (Debian: chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_a_phone_or_a_desktop(site, run_dir, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    excess = """Math.max(...[document.documentElement, ...document.querySelectorAll(".content")]
        .map(box => box.scrollWidth - box.clientWidth))"""
    for name in site:
        page.goto((run_dir / "site" / name).as_uri())
        assert page.evaluate(excess) <= 0, name


def test_the_search_finds_a_function_without_a_server(site, run_dir, browser):
    page = browser.new_page()
    page.goto((run_dir / "site" / "search.html").as_uri() + "?q=choose_threshold")
    page.get_by_role("link", name=re.compile(r"choose_threshold$")).wait_for(timeout=20_000)
