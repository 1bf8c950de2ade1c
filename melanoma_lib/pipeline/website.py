"""The notebooks of a run as web pages, to be read without running anything."""

import base64
import html
import os
import re
from pathlib import Path

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, write_text

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="site.css"></head>
<body><nav><a href="index.html">Contents</a></nav><main>
{body}
</main></body></html>
"""
STYLE = """
body { margin: 0; font: 17px/1.6 system-ui, sans-serif; color: #222; background: #fff; }
main, nav { max-width: 860px; margin: auto; padding: 0.6rem 1rem; }
a { color: #0058a3; } a.anchor-link { display: none; }
h1, h2, h3 { line-height: 1.25; margin-top: 1.6em; overflow-wrap: break-word; }
img, svg { max-width: 100%; height: auto; }
pre { margin: 0.6em 0; padding: 0.7em 0.9em; overflow-x: auto; font-size: 0.82rem;
      line-height: 1.45; }
code { overflow-wrap: anywhere; } pre code { overflow-wrap: normal; }
.highlight pre { background: #f5f5f5; border-left: 3px solid #bbb; }
.jp-OutputArea-output, .jp-RenderedMarkdown, table { overflow-x: auto; max-width: 100%; }
table { display: block; border: 0; border-collapse: collapse; font-size: 0.88rem; }
th, td { border: 1px solid #ddd; padding: 0.25em 0.6em; text-align: left; }
thead:not(:has(th:not(:empty))) { display: none; }
@media (max-width: 600px) { body { font-size: 16px; } h1 { font-size: 1.6rem; }
  ul, ol { padding-left: 1.3rem; } th, td { padding: 0.25em 0.4em; } }
"""


def build(run_dir: Path, folder: Path) -> Path:
    """Writes a page for every notebook and document, and a contents page; returns that.

    Chapters come as the run executed them; those that it does not execute, and the solutions,
    as they are. Raises `MelanomaError` when the run holds no executed notebook.
    """
    lists = _lists(run_dir)
    bodies = _bodies([path for paths in lists.values() for path in paths])
    titles = {path: _title(path, body) for path, body in bodies.items()}
    pages = {path: _page_name(path) for path in bodies}
    for path, body in bodies.items():
        page = PAGE.format(title=titles[path], body=_linked(body, path, list(pages.values())))
        write_text(folder / pages[path], page)
    write_text(folder / "site.css", _code_style() + STYLE)
    contents = [f"<h1>{html.escape(run_dir.name)}: what was run</h1>"]
    for head, paths in lists.items():
        items = [f'<li><a href="{pages[path]}">{titles[path]}</a></li>' for path in paths]
        contents += [f"<h2>{head}</h2>", "<ul>", *items, "</ul>"]
    body = "\n".join(contents)
    return write_text(folder / "index.html", PAGE.format(title="Contents", body=body))


def _lists(run_dir: Path) -> dict[str, list[Path]]:
    """The notebooks and documents of the site by their heading on the contents page."""
    executed = sorted((run_dir / "notebooks").glob("*.ipynb"))
    executed = [path for path in executed if not path.stem.endswith(".failed")]
    if not executed:
        raise MelanomaError(f"{run_dir} holds no executed notebook; see melanoma run")
    run = {path.stem.partition("-")[0] for path in executed}
    chapters = sorted((PROJECT / "notebooks").glob("*.ipynb"))
    documents = [run_dir / "summary.md", PROJECT / "data" / "README.md"]
    return {
        "Chapters": executed,
        "Chapters that were not executed": [path for path in chapters if path.stem not in run],
        "Solutions": sorted((PROJECT / "notebooks" / "solutions").glob("*.ipynb")),
        "Documents": [path for path in documents if path.exists()]
        + sorted(PROJECT.glob("docs/*.md")),
    }


def _bodies(paths: list[Path]) -> dict[Path, str]:
    """Notebooks and documents in HTML, without the frame of a page."""
    from nbconvert import HTMLExporter  # slow to import
    from nbconvert.filters import markdown2html

    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True,
                            exclude_output_prompt=True)  # fmt: skip
    return {
        path: markdown2html(path.read_text(encoding="utf-8")) if path.suffix == ".md"
        else exporter.from_filename(str(path))[0]
        for path in paths
    }  # fmt: skip


def _code_style() -> str:
    from pygments.formatters import HtmlFormatter  # slow to import

    return HtmlFormatter().get_style_defs(".highlight")


def _page_name(path: Path) -> str:
    """The page of a notebook or document: `05_calibration.html`, `data-readme.html`."""
    of_folder = path.parent.name == "solutions" or path.stem == "README"
    return f"{f'{path.parent.name}-' * of_folder}{path.stem}.html".replace("README", "readme")


def _title(path: Path, body: str) -> str:
    heading = re.search(r"<h1[^>]*>(.*?)(?:<a class=\"anchor-link\".*?)?</h1>", body, re.DOTALL)
    title = re.sub(r"<[^>]+>", "", heading[1]).strip() if heading else path.stem.capitalize()
    _, _, architecture = path.stem.partition("-")  # chapter 04 is executed for each
    return f"{title} ({architecture})" if architecture else title


def _linked(body: str, source: Path, pages: list[str]) -> str:
    """Leads links to notebooks and documents to their pages; the text of other local ones stays.

    Pictures beside the source, the notebook or document that holds the links, come into the page.
    """

    def link(match: re.Match) -> str:
        target, text = match[1], match[2]
        if re.match(r"https?:|mailto:|#", target):
            return match[0]
        target, mark, part = target.partition("#")
        name = _page_name(Path(os.path.normpath(source.parent / target)))
        of_architecture = [page for page in pages if page.startswith(f"{Path(name).stem}-")]
        found = [name] if name in pages else of_architecture
        return f'<a href="{found[0]}{mark}{part}">{text}</a>' if found else text

    def picture(match: re.Match) -> str:
        path = source.parent / match[1]
        if not path.is_file():
            return match[0]
        return f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"'

    body = re.sub(r'src="([^":]+\.png)"', picture, body)
    return re.sub(r'<a href="([^"]+)"[^>]*>(.*?)</a>', link, body, flags=re.DOTALL)
