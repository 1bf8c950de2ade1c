"""Exercises: an answer is right, open, or told what is wrong with it, and never stops a run."""

import ast
import inspect
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import KEYS

from melanoma_lib import batch, exercises
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.pixels import HAM10000Dataset, loader

SOLUTIONS = sorted((batch.NOTEBOOKS / "solutions").glob("*.ipynb"))
CHECKED = re.compile(r"exercises\.check\(\"(.+?)\"")
TITLE = re.compile(r"^### (\d\d\.\d+) ", re.MULTILINE)  # of an exercise: ### 05.2 Fit a temperature


@pytest.fixture
def checks(monkeypatch):
    def seven(answer):
        return None if answer == 7 else "count again"

    monkeypatch.setattr(exercises, "checks_of", lambda chapter: {"99.1": seven, "99.2": len})


def test_a_right_answer(checks, capsys):
    exercises.check("99.1", 7)
    assert capsys.readouterr().out == "Exercise 99.1: right\n"


def test_a_wrong_answer_is_told_what_is_wrong(checks):
    assert exercises.verdict("99.1", 8) == "not yet. count again"


def test_an_untouched_exercise_is_open(checks):
    assert exercises.verdict("99.1", ...) == "open"


def test_an_answer_that_raises_does_not_stop_the_notebook(checks):
    assert exercises.verdict("99.2", 3).startswith("not yet. TypeError")


def test_an_exercise_that_does_not_exist_is_the_authors_error(checks):
    with pytest.raises(KeyError, match=r"99\.3"):
        exercises.check("99.3", 1)


def cells(path, kind):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def text(path, kind):
    return "\n\n".join(cell.source for cell in cells(path, kind))


@pytest.fixture(params=SOLUTIONS, ids=lambda path: path.stem)
def solution(request):
    return request.param


@pytest.fixture
def chapter(solution):
    return batch.NOTEBOOKS / solution.name


def test_the_first_chapters_have_solutions():
    assert {path.stem[:2] for path in SOLUTIONS} >= {"00", "01", "02", "03"}


def test_every_exercise_is_asked_and_solved(solution, chapter):
    number = chapter.stem[:2]
    titles = TITLE.findall(text(chapter, "markdown"))
    assert titles == [f"{number}.{n + 1}" for n in range(max(4, len(titles)))]
    assert TITLE.findall(text(solution, "markdown")) == titles
    checks = list(exercises.checks_of(number))
    for path in (chapter, solution):
        assert CHECKED.findall(text(path, "code")) == checks


def test_nonsense_is_never_right(solution):
    for name, check in exercises.checks_of(solution.stem[:2]).items():
        nonsense = [object()] * len(inspect.signature(check).parameters)
        assert exercises.verdict(name, *nonsense).startswith("not yet"), name


@pytest.fixture(scope="module")
def table():
    """Eight lesions a diagnosis, every second one with two images."""
    rows = [(f"HAM_{dx}{n}", dx) for dx in CLASS_NAMES for n in range(8) for _ in range(1 + n % 2)]
    rows = pd.DataFrame(rows, columns=["lesion_id", "dx"])
    return rows.assign(image_id=[f"ISIC_{n}" for n in rows.index])


WRONG = {  # a mistake somebody makes, and a word of what it is told
    "00.1": [((5,), "from 0"), ((0,), "order")],
    "00.2": [((100 * 3 / 7, "table"), "share"), ((1 / 7, "table"), "several")],
    "00.3": [(("model.safetensors",), "weights")],
    "00.4": [(("no such folder",), "no-such-folder")],
    "01.1": [((12, "table"), "images")],
    "01.2": [(([0.5] * 9, "table"), "not 9"), (([0.0] * 10, "table"), "seed 0")],
    "01.4": [((lambda image, mask: 1,), "2 colours"), ((lambda image, mask: 6,), "1 colour")],
    "01.5": [
        ((lambda table, seed: ["train"] * len(table), "table"), "needs one of"),
        ((lambda table, seed: np.resize(["train", "val", "test"], len(table)), "table"), "images"),
        ((lambda table, seed: table["lesion_id"].str[-1].map(lambda n: ["val", "train"][n < "7"])
          .where(table["lesion_id"].str[-1] != "6", "test"), "table"), "same split"),
    ],
    "02.1": [(((355, 0),), "add up"), (((353, 41),), "Another whole batch")],
    "02.2": [((lambda pixels, labels, rows: HAM10000Dataset(pixels, labels, np.arange(12)),),
              "length"),
             ((lambda pixels, labels, rows: HAM10000Dataset(pixels, labels, np.arange(7)),),
              "another image")],
    "02.3": [(([0.1, 0.9, 0.5, 0.5, 0.5, 0.5],), "left to right"), (([0.0] * 6,), "no change")],
    "02.4": [((lambda images, mean, std: images,), "others")],
    "02.5": [((lambda dataset, size, seed: loader(dataset, size),), "2 whole"),
             ((lambda dataset, size, seed: loader(dataset, size, torch.Generator()),), "order")],
    "02.7": [((lambda images, numbers: images,), "between"),
             ((lambda images, numbers: images + 0.1,), "brighter")],
    "03.1": [(((256 * 512 * 9, 2 * 256 * 512 * 9 * 196),), "FLOPs")],
    "03.2": [((["conv 1x1", "norm", "relu", "conv 1x1"],), "first 3"), ((["conv 1x1"],), "steps")],
    "03.3": [((lambda channels, width: torch.nn.Conv2d(channels, channels, 1),), "names")],
    "03.4": [((lambda q, k, v: (q @ k.mT).softmax(-1) @ v,), "square root")],
    "03.5": [((483,), "paper"), ((35,), "layer1"), ((300,), "Count")],
    "03.7": [(((torch.nn.Linear(2, 7), 14),), "Error"),
             (((torch.nn.Linear(1000, 1000), 1),), "parameters")],
}


@pytest.mark.parametrize(
    ("name", "answer", "word"), [(n, *case) for n, cases in WRONG.items() for case in cases]
)
def test_a_mistake_is_named(name, answer, word, table):
    answer = [table if isinstance(part, str) and part == "table" else part for part in answer]
    told = exercises.verdict(name, *answer)
    assert told.startswith("not yet") and word in told


def test_an_exercise_without_a_check_has_criteria(chapter):
    checks = exercises.checks_of(chapter.stem[:2])
    parts = TITLE.split(text(chapter, "markdown"))
    for exercise, task in zip(parts[1::2], parts[2::2], strict=True):
        assert exercise in checks or "criteria" in task.lower(), exercise


def test_the_chapter_leaves_its_answers_open(chapter):
    asked = [cell.source for cell in cells(chapter, "code") if CHECKED.search(cell.source)]
    assert all(re.search(r"^\w+ = \.\.\.", source, re.MULTILINE) for source in asked)


def test_solutions_are_clean(solution):
    nbformat.validate(nbformat.read(solution, 4))
    assert not any(cell.outputs or cell.execution_count for cell in cells(solution, "code"))


def test_every_solution_is_right(solution, sample_dir, sample_run, tmp_path, monkeypatch, capsys):
    # In this process and not in a kernel: importing torch again takes longer than the solution.
    given = {"data_dir": sample_dir, "output_dir": sample_run, "figures_dir": tmp_path}
    given = {name: str(path) for name, path in given.items()}
    given |= {"architecture": KEYS[0], "architectures": ",".join(KEYS)}
    monkeypatch.chdir(solution.parent)
    names = {"__name__": "__main__"}
    capsys.readouterr()
    for cell in cells(solution, "code"):
        exec(compile(ast.parse(cell.source), solution.stem, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {name: value for name, value in given.items() if name in names}
    printed = re.findall(r"^Exercise (.+?): (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert printed == [(name, "right") for name in exercises.checks_of(solution.stem[:2])]
