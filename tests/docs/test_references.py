"""The bibliography and what cites it stay in step.

The rule: an item of *Further reading* names the first author, the year and the main title of an
entry for each title in italics; "(Guo et al., 2017)" in prose or a docstring names the first author
and year of one; a key in a document, such as `guo2017calibration`, is that of one; and every
entry is cited in one of these ways.
"""

import re
import shutil
import subprocess
import unicodedata

import nbformat
import pytest
from helpers import ROOT

BIB = ROOT / "docs" / "references.bib"
NEEDED = {
    "article": {"journal", "volume", "pages"},
    "inproceedings": {"booktitle"},
    "book": {"publisher"},
    "misc": {"howpublished"},
}
YEAR = r"(?:19|20)\d\d"
NAME = r"[A-Z][\w'-]+"
CITATION = re.compile(rf"({NAME})(?: et al\.|(?:, {NAME})* and {NAME})?, ({YEAR})\b")


def plain(text):
    """Lower-case letters and digits without accents, LaTeX and punctuation."""
    text = re.sub(r"\\['\"`^~]|\\(?=[A-Z])", "", text)
    text = unicodedata.normalize("NFKD", text.replace("ł", "l")).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[{}()*]", "", text).lower().replace("-", " ").split())


def entries():
    found = {}
    for kind, key, body in re.findall(r"^@(\w+)\{(\w+),\n(.*?)^\}", BIB.read_text(), re.M | re.S):
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, re.M)) | {"kind": kind}
    return found


ENTRIES = entries()
FIRST = {key: plain(entry["author"]).split(",")[0] for key, entry in ENTRIES.items()}


def texts():
    """Every text that may cite: chapters by cell, documents, modules."""
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            yield path.name, cell.source
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"),
                 *ROOT.glob("melanoma_lib/**/*.py")]:  # fmt: skip
        yield path.name, path.read_text()


def in_prose(text):
    """First author and year of every citation in brackets."""
    for bracket in re.findall(rf"\(([^()]*{YEAR}[^()]*)\)", text):
        for part in " ".join(bracket.replace("*", "").split()).split(";"):
            if match := CITATION.search(part):
                yield plain(match[1]), match[2]


def readings():
    for name, text in texts():
        _, _, section = text.partition("## Further reading")
        yield from ((name, item) for item in re.findall(r"^- (.+)$", section, re.M))


def of_reading(item):
    """The entries that an item of Further reading may mean."""
    item = plain(item)
    return [
        key for key, entry in ENTRIES.items()
        if FIRST[key] in item and entry["year"] in item
        and re.split(r"[:,?]", plain(entry["title"]))[0] in item
    ]  # fmt: skip


def of_prose(author, year):
    return [key for key, entry in ENTRIES.items()
            if entry["year"] == year and f" {author} " in f" {FIRST[key]} "]  # fmt: skip


def test_every_entry_is_complete_and_its_key_says_what_it_is():
    assert BIB.read_text().count("\n@") == len(ENTRIES)
    for key, entry in ENTRIES.items():
        assert {"author", "title", "year"} | NEEDED[entry["kind"]] <= set(entry), key
        author, year, word = re.fullmatch(rf"([a-z]+)({YEAR})(\w+)", key).groups()
        initials = "".join(re.findall("[A-Z]", entry["author"])).lower()  # of an organisation
        assert author in (FIRST[key].replace(" ", ""), initials) and year == entry["year"], key
        assert word in plain(entry["title"]).replace(" ", ""), key


def test_every_further_reading_has_its_entry():
    items = list(readings())
    assert len(items) > 30
    dated = [(name, item) for name, item in items if re.search(YEAR, item)]
    titles = {item: max(1, item.count("*") // 2) for _, item in dated}
    assert not [pair for pair in dated if len(of_reading(pair[1])) < titles[pair[1]]]


def test_every_citation_in_prose_has_its_entry():
    cited = {(name, *citation) for name, text in texts() for citation in in_prose(text)}
    assert ("calibration.py", "guo", "2017") in cited and len(cited) > 15
    assert not [(name, *rest) for name, *rest in cited if not of_prose(*rest)]


def test_every_entry_is_cited():
    cited = {key for _, item in readings() for key in of_reading(item)}
    cited |= {key for _, text in texts() for citation in in_prose(text) for key in
              of_prose(*citation)}  # fmt: skip
    assert not set(ENTRIES) - cited - keys_in_documents()


def keys_in_documents():
    pages = " ".join(path.read_text() for path in ROOT.glob("docs/*.md"))
    return set(re.findall(rf"`([a-z]+{YEAR}[a-z]\w*)`", pages))


def test_every_key_in_a_document_has_its_entry():
    assert "guo2017calibration" in keys_in_documents() and keys_in_documents() <= set(ENTRIES)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("scaling (Guo et al., 2017) divides", [("guo", "2017")]),
        ("(DeLong, DeLong and Clarke-Pearson, 1988;\n by midranks, Sun and Xu, 2014)",
         [("delong", "1988"), ("sun", "2014")]),
        ("(**Holm**, 1979)", [("holm", "1979")]),
        ("(seed 42, 2017 images) (in the year 2019)", []),
    ],
)  # fmt: skip
def test_citations_are_recognised(text, found):
    assert list(in_prose(text)) == found


@pytest.mark.skipif(not shutil.which("bibtex"), reason="needs bibtex (Debian: texlive-binaries)")
def test_bibtex_reads_the_bibliography_without_a_complaint(tmp_path):
    aux = "\\relax\n\\citation{*}\n\\bibstyle{plain}\n\\bibdata{references}\n"
    (tmp_path / "x.aux").write_text(aux)
    shutil.copy(BIB, tmp_path)
    done = subprocess.run(["bibtex", "x"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Warning" not in done.stdout, done.stdout
    assert (tmp_path / "x.bbl").read_text().count("\\bibitem") == len(ENTRIES)
