"""The executed notebooks of a run as web pages, to be read without running anything."""

import html
import re
from pathlib import Path

from melanoma_lib.artifacts import PROJECT, MelanomaError, write_text

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
"""


def build(run_dir: Path, folder: Path) -> Path:
    """Writes a page for every executed notebook and document, and a contents page; returns that.

    Raises `MelanomaError` when the run holds no executed notebook.
    """
    from nbconvert import HTMLExporter  # slow to import
    from nbconvert.filters import markdown2html
    from pygments.formatters import HtmlFormatter

    books = sorted((run_dir / "notebooks").glob("*.ipynb"))
    books = [path for path in books if not path.stem.endswith(".failed")]
    if not books:
        raise MelanomaError(f"{run_dir} holds no executed notebook; see melanoma run")
    documents = [run_dir / "summary.md", PROJECT / "data" / "README.md"]
    documents = [path for path in documents if path.exists()] + sorted(PROJECT.glob("docs/*.md"))
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True,
                            exclude_output_prompt=True)  # fmt: skip
    bodies = {path: exporter.from_filename(str(path))[0] for path in books}
    bodies |= {path: markdown2html(path.read_text(encoding="utf-8")) for path in documents}
    titles = {path: _title(path, body) for path, body in bodies.items()}
    pages = {path: _page_name(path) for path in bodies}
    for path, body in bodies.items():
        page = PAGE.format(title=titles[path], body=_linked(body, list(pages.values())))
        write_text(folder / pages[path], page)
    write_text(folder / "site.css", HtmlFormatter().get_style_defs(".highlight") + STYLE)
    lists = [
        f"<h2>{head}</h2>\n<ul>\n"
        + "\n".join(f'<li><a href="{pages[path]}">{titles[path]}</a></li>' for path in paths)
        + "\n</ul>"
        for head, paths in (("Chapters", books), ("Documents", documents))
    ]
    body = "\n".join([f"<h1>{html.escape(run_dir.name)}: what was run</h1>", *lists])
    return write_text(folder / "index.html", PAGE.format(title="Contents", body=body))


def _page_name(path: Path) -> str:
    """The page of a notebook or document: `05_calibration.html`, `data-readme.html`."""
    return f"{path.parent.name}-readme.html" if path.stem == "README" else f"{path.stem}.html"


def _title(path: Path, body: str) -> str:
    heading = re.search(r"<h1[^>]*>(.*?)(?:<a class=\"anchor-link\".*?)?</h1>", body, re.DOTALL)
    title = re.sub(r"<[^>]+>", "", heading[1]).strip() if heading else path.stem.capitalize()
    _, _, architecture = path.stem.partition("-")  # chapter 04 is executed for each
    return f"{title} ({architecture})" if architecture else title


def _linked(body: str, pages: list[str]) -> str:
    """Leads links to notebooks and documents to their pages; the text of other local ones stays."""

    def link(match: re.Match) -> str:
        target, text = match[1], match[2]
        if re.match(r"https?:|mailto:|#", target):
            return match[0]
        name = _page_name(Path(target.partition("#")[0]))
        of_architecture = [page for page in pages if page.startswith(f"{Path(name).stem}-")]
        found = [name] if name in pages else of_architecture
        return f'<a href="{found[0]}">{text}</a>' if found else text

    return re.sub(r'<a href="([^"]+)"[^>]*>(.*?)</a>', link, body, flags=re.DOTALL)
