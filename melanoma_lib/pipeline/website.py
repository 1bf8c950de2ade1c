"""A run as a website, made by Sphinx: its executed notebooks, the documents, the API reference."""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from melanoma_lib.core.environment import require_packages
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, read_json, write_text

CONFIG = {  # what Sphinx and its extensions call a conf.py
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.apidoc"],
    "exclude_patterns": ["api/modules.rst"],  # a second list of the same modules
    # Links to files without a page become text (see _unlink); solutions skip a level of headings.
    "suppress_warnings": ["myst.xref_missing", "myst.header"],
    "language": "en",
    "html_theme": "furo",
    "html_static_path": ["_static"],
    "html_css_files": ["site.css"],
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_use_index": False,
    "html_domain_indices": False,
    "nb_execution_mode": "off",  # the run has executed them
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",
    "myst_heading_anchors": 3,
    "default_role": "py:obj",  # a name in backticks is code, and a link where it is known
    "add_module_names": False,
    "toc_object_entries_show_parents": "hide",
    "maximum_signature_line_length": 80,
    "autodoc_member_order": "bysource",
    "autodoc_default_options": {"ignore-module-all": True},  # each name where it is defined
    "apidoc_module_first": True,
    "apidoc_max_depth": 2,
    "apidoc_modules": [{"path": str(PROJECT / "melanoma_lib"), "destination": "api"}],
}
CONTENTS = {
    "Chapters": "notebooks/*",
    "Solutions": "notebooks/solutions/*",
    "Documents": "summary*\ndocs/*\ndata/*\nfigures/*",
    "Library": "API reference <api/melanoma_lib>",
}
TOCTREE = """
```{{toctree}}
:caption: {caption}
:maxdepth: 1
:glob:

{pages}
```
"""
STYLE = """
.cell_output { overflow-x: auto; }
.cell_output table { border: 0; border-collapse: collapse; font-size: 0.85em; }
.cell_output th, .cell_output td { border: 1px solid var(--color-background-border);
                                   padding: 0.25em 0.6em; text-align: left; }
table.docutils { margin-left: 0; }
thead:not(:has(th:not(:empty))) { display: none; }
"""


def build(run_dir: Path, folder: Path) -> Path:
    """Writes the website of a run into `folder` and returns its first page.

    Chapters come as the run executed them; those that it does not execute, and the solutions,
    as they are. Raises `MelanomaError` when the run holds no executed notebook, when the
    generator is not installed, or when the pages cannot be written.
    """
    require_packages("site", "sphinx", "myst_nb", "furo")
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.console import nocolor
    from sphinx.util.docutils import docutils_namespace

    nocolor()
    title = f"Run {run_dir.name}"
    with tempfile.TemporaryDirectory() as temporary, docutils_namespace():
        source, trees = Path(temporary, "source"), Path(temporary, "trees")
        _stage(run_dir, source)
        print(f"{folder}: being written, which takes about a minute", flush=True)
        config = CONFIG | {"project": title, "html_title": title}
        try:
            app = Sphinx(source, None, folder, trees, "html", config, None, sys.stderr)
            app.connect("doctree-resolved", _unlink)
            rebuilt = (folder / "objects.inv").exists()  # every site of Sphinx has one
            app.build()
            if rebuilt:
                _remove_old_pages(folder, app.env.found_docs)
        except (SphinxError, OSError) as error:
            raise MelanomaError(f"the website cannot be written to {folder} ({error})") from error
    return folder / "index.html"


def _remove_old_pages(folder: Path, names: Collection[str]) -> None:
    """Deletes the pages of an earlier site whose sources, such as a notebook, are gone since."""
    for room in {name.partition("/")[0] for name in names if "/" in name}:
        for page in (folder / room).rglob("*.html"):
            if page.relative_to(folder).with_suffix("").as_posix() not in names:
                page.unlink()


def _stage(run_dir: Path, source: Path) -> None:
    """Lays out the sources of the site as the repository does, so that links lead to pages."""
    executed = sorted((run_dir / "notebooks").glob("*.ipynb"))
    executed = [path for path in executed if not path.stem.endswith(".failed")]
    if not executed:
        raise MelanomaError(f"{run_dir} holds no executed notebook; see melanoma run")
    books = PROJECT / "notebooks"
    pages = {f"solutions/{path.stem}": path for path in books.glob("solutions/*.ipynb")}
    pages |= {path.stem: path for path in books.glob("*.ipynb")}
    for path in executed:  # chapter 04 once per architecture: links to it lead to the first
        name, _, _ = path.stem.partition("-")
        pages[path.stem if pages.get(name) in executed else name] = path
    values: dict[str, dict[str, None]] = {}  # of each parameter, each once
    for name, path in sorted(pages.items()):
        notebook, (_, _, architecture) = read_json(path), path.stem.partition("-")
        given = notebook["metadata"].get("papermill", {}).get("parameters", {})
        for parameter, value in given.items():
            if value != "":
                values.setdefault(parameter, {})[f"`{value}`"] = None
        note = "not executed" if path.parent == books else architecture
        write_text(source / "notebooks" / f"{name}.ipynb", json.dumps(_prepared(notebook, note)))

    shutil.copytree(PROJECT / "docs", source / "docs")
    for name in ("data/README.md", "figures/README.md"):
        write_text(source / name, (PROJECT / name).read_text(encoding="utf-8"))
    if (run_dir / "summary.md").exists():
        summary = (run_dir / "summary.md").read_text(encoding="utf-8")
        write_text(source / "summary.md", f"# Summary of the results\n\n{summary}")
    write_text(source / "_static" / "site.css", STYLE)
    head = [f"# Run {run_dir.name}", "", "The parameters that the chapters were executed with:"]
    head += ["", "| Parameter | Value |", "|---|---|"]
    rows = [f"| {name} | {', '.join(found)} |" for name, found in values.items()]
    lists = [TOCTREE.format(caption=caption, pages=pages) for caption, pages in CONTENTS.items()]
    write_text(source / "index.md", "\n".join([*head, *rows, *lists]))


def _prepared(notebook: dict, note: str) -> dict:
    """A notebook with a note in its title, and with its pictures' widths and descriptions."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if note and cell["cell_type"] == "markdown":
            text, found = re.subn(r"(?m)^# .*", rf"\g<0> ({note})", text, count=1)
            note = "" if found else note
        # Jupyter's anchors have capital letters; those of documents, and of this site, have none.
        cell["source"] = re.sub(r"\.ipynb#[\w-]+", lambda match: match[0].lower(), text)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                about = {"alt": "no description"} | output["metadata"].get("image/png", {})
                options = {key: f"{about[key]}" for key in ("alt", "width") if key in about}
                cell["metadata"]["mystnb"] = {"image": options}
    return notebook


def _unlink(app, doctree, page: str) -> None:
    """Makes text of a page's links to files of the repository that have no page."""
    from docutils.nodes import reference

    for link in list(doctree.findall(reference)):
        if "refid" in link and link["refid"] not in doctree.ids:
            link.replace_self(link.children)
