"""The reading plan has the minutes of the chapters, and the symptoms are the library's words."""

import re

import nbformat
from helpers import ROOT

PAGE = (ROOT / "docs" / "while_it_trains.md").read_text(encoding="utf-8")


def test_the_minutes_of_the_plan_are_those_of_the_chapters():
    rows = re.findall(r"\]\(\.\./notebooks/(\w+\.ipynb)\).* \| (\d+) \|", PAGE)
    assert len(rows) == 8
    for name, minutes in rows:
        head = nbformat.read(ROOT / "notebooks" / name, 4).cells[0].source
        assert f"{minutes} minutes to read" in head, name


def test_every_exercise_of_the_plan_exists():
    numbers = re.findall(r"\((0\d\.\d)\)", PAGE)
    text = "".join(path.read_text() for path in ROOT.glob("notebooks/0*.ipynb"))
    assert len(numbers) > 8 and all(f"### {number} " in text for number in numbers)


def test_the_symptoms_are_what_the_library_prints():
    code = "".join(path.read_text() for path in (ROOT / "melanoma_lib").rglob("*.py"))
    for words in ("out of memory: a batch is now", "its process died; run again to go on",
                  "too little disk space", "cannot be written (", "PyTorch finds no GPU",
                  "waiting: another training computes", "the loss is ",
                  "cannot be fetched from timm's hub"):  # fmt: skip
        assert words in PAGE and words in code, words
