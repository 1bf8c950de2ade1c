"""README: its Python runs on a trained network, its table of rooms is theirs."""

import ast
import re

from helpers import KEYS, ROOT

from melanoma_lib.data.classes import CLASS_NAMES

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_block_runs(sample_run, sample_dir, tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    for link, target in {
        "runs/sample/resnet10t": sample_run / KEYS[1],
        "data/sample": sample_dir,
    }.items():
        (tmp_path / link).parent.mkdir(parents=True)
        (tmp_path / link).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["heat"].shape == names["image"].shape[:2] and names["heat"].max() <= 1
    printed = capsys.readouterr().out
    assert all(code in printed for code in CLASS_NAMES) and "melanoma: " in printed


def test_jupyterlab_starts_in_the_project():
    """Given a folder or a notebook it serves that folder alone, and links to documents are dead."""
    pages = [ROOT / "README.md", *ROOT.glob("*/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    said = "".join(page.read_text() for page in pages)
    assert set(re.findall("jupyter lab[^`]*", said)) == {"jupyter lab"}


def test_the_table_of_rooms_has_the_first_sentence_of_each():
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", README, re.M))
    rooms = (ROOT / "melanoma_lib").glob("*/__init__.py")
    doc = {path.parent.name: ast.get_docstring(ast.parse(path.read_text())) for path in rooms}
    assert listed == {name: " ".join(text.split("\n\n")[0].split()) for name, text in doc.items()}
