"""Exercises: an answer is right, open, or gets a hint, and never stops a run."""

import ast
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import KEYS
from torch.nn import functional as F

from melanoma_lib import exercises
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.torch_dataset import HAM10000Dataset, loader
from melanoma_lib.evaluation.calibration import fit_temperature
from melanoma_lib.evaluation.conformal import conformal_quantile
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.exercises.chapter_01 import CRITERIA, pick_quiz_lesions
from melanoma_lib.pipeline import run

SOLUTIONS = sorted((run.NOTEBOOKS / "solutions").glob("*.ipynb"))
CHECKED = re.compile(r"exercises\.check\(\"(.+?)\"")
TITLE = re.compile(r"^### (\d\d\.\d+) ", re.MULTILINE)  # of an exercise: ### 05.2 Fit a temperature


def seven(answer):
    exercises.require_close(answer, 7, "count again")


def seventh(answer, table):
    exercises.require(answer(table)[6] == 7, "count again")


@pytest.mark.parametrize(
    ("name", "answer", "verdict"),
    [
        ("99.1", (7,), "right"),
        ("99.1", (...,), "open"),
        ("99.1", (8,), "not yet. count again"),
        ("99.1", (np.nan,), "not yet. NaN is not a number. count again"),
        ("99.1", ("7",), "not yet. Give a number, not '7'."),
        ("99.1", ([7, 7],), "not yet. The shape is (2,) and should be ()."),
        ("99.2", (str.split, "1 2 3 4 5 6 7"), "not yet. count again"),
        ("99.2", (next, 0), "not yet. Your code raises TypeError: 'int' object is not an iterator"),
        ("99.2", (len, "seven"), "not yet. Give a function; yours returns 5."),
        ("99.2", (len,), 'not yet. The call is exercises.check("99.2", answer, table).'),
    ],
)
def test_an_answer_gets_one_line(name, answer, verdict, monkeypatch, capsys):
    checks = {"99.1": (seven, "a number"), "99.2": (seventh, "a function")}
    monkeypatch.setattr(exercises, "checks_of", lambda chapter: checks)
    exercises.check(name, *answer)
    assert capsys.readouterr().out == f"Exercise {name}: {verdict}\n"


def test_an_exercise_that_does_not_exist_is_the_authors_error():
    with pytest.raises(KeyError, match=r"05\.99"):
        exercises.check("05.99", 1)


def cells(path, kind):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def text(path, kind):
    return "\n\n".join(cell.source for cell in cells(path, kind))


@pytest.fixture(params=SOLUTIONS, ids=lambda path: path.stem)
def solution(request):
    return request.param


@pytest.fixture
def chapter(solution):
    return run.NOTEBOOKS / solution.name


def test_every_chapter_has_solutions():
    chapters = {path.name for path in run.NOTEBOOKS.glob("*.ipynb")}
    assert chapters == {path.name for path in SOLUTIONS}


def test_every_goal_is_tied_to_exercises_that_exist():
    goals = text(run.NOTEBOOKS / "00_start_here.ipynb", "markdown")
    goals = goals.partition("| You can | tested in |")[2].partition("\n\n")[0].splitlines()[2:]
    there = {name for path in SOLUTIONS for name in TITLE.findall(text(path, "markdown"))}
    assert len(goals) > 10
    for goal in goals:
        _, can, tested, _ = goal.split("|")
        named = re.findall(r"\b\d\d\.\d+\b", tested)
        assert named and set(named) <= there, can
        ((link, target),) = re.findall(r"\[(.+?)\]\((.+?)#Exercises\)", tested)
        assert link == named[0] and (run.NOTEBOOKS / target).exists() and target[:2] == link[:2]


def test_every_exercise_is_asked_and_solved(solution, chapter):
    number = chapter.stem[:2]
    titles = TITLE.findall(text(chapter, "markdown"))
    assert titles == [f"{number}.{n + 1}" for n in range(max(4, len(titles)))]
    assert TITLE.findall(text(solution, "markdown")) == titles
    checks = list(exercises.checks_of(number))
    for path in (chapter, solution):
        assert CHECKED.findall(text(path, "code")) == checks


def lesions():
    """Eight lesions a diagnosis, every second one with two images."""
    rows = [(f"HAM_{dx}{n}", dx) for dx in CLASS_NAMES for n in range(8) for _ in range(1 + n % 2)]
    rows = pd.DataFrame(rows, columns=["lesion_id", "dx"])
    return rows.assign(image_id=[f"ISIC_{n}" for n in rows.index])


STATEMENT = "word " * 90 + "dermoscopy HAM10000 AUC split esteva2017dermatologist"
MATRIX = np.full((7, 7), 2) + 5 * np.eye(7, dtype=int)  # 7 of 19 melanomas are found
TRUTH, SCORES = np.array([False, False, False, True]), np.array([0.1, 0.2, 0.3, 0.9])
JOB = {"command": "run ${{inputs.data}}", "inputs": {"data": {}}, "outputs": {}}
CHOSEN = dict.fromkeys(["learning rate", "recipe", "temperature", "threshold"], "val") | {
    "weights": "train", "the number in the abstract": "test",
}  # fmt: skip
PLAN = {"machine": "four", "price_per_hour": 2.0, "looked_up": "2026-01-31", "speed_up": 10,
        "hours": 4.0, "dollars": 9.0}  # fmt: skip


def sums(weights, images, labels, rate):
    """A traced step whose gradient is that of the summed losses."""
    probabilities = (images @ weights.T).softmax(1)
    loss = -probabilities[range(len(labels)), labels].log().mean()
    gradient = (probabilities - torch.eye(len(weights))[labels]).T @ images
    return loss, gradient, weights - rate * gradient


def no_zero(model, optimizer, images, labels):
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss


def wrong_cam(
    combine=lambda g, f: (g.mean((2, 3), keepdim=True) * f).sum(1).relu(),
    one_class=False, remove=True,
):  # fmt: skip
    """A Grad-CAM with one thing wrong."""

    def answer(model, layer, images, classes):
        kept = []
        hook = layer.register_forward_hook(lambda *call: kept.append(call[2]))
        logits = model(images)
        if remove:
            hook.remove()
        classes = [classes[0]] * len(images) if one_class else classes
        score = logits[range(len(images)), classes].sum()
        return combine(torch.autograd.grad(score, kept[0])[0], kept[0])

    return answer


def wrong_frame(lesion=True, middle=True, rest=True, copy=True):
    """A function for 07.8 with one mistake."""

    def frame(image, mask, width):
        hidden = mask.copy() if lesion else np.zeros_like(mask)
        if middle:
            hidden[width:-width, width:-width] = True
        shown = image.copy() if copy else image
        shown[hidden] = np.uint8(image[~hidden if rest else ...].reshape(-1, 3).mean(0))
        return shown

    return frame


def wrong_cover(heat=1, sign=1, mean=(2, 3), colour=None, copy=True):
    """A deletion test with one thing wrong; `heat` is the sign of the order."""
    factor = heat

    def answer(model, images, classes, heat, fraction):
        rank = torch.as_tensor(-factor * heat).flatten(1).argsort(1).argsort(1)
        hidden = (rank < fraction * rank.shape[1]).view(len(images), 1, *images.shape[2:])
        fill = images.mean(mean, keepdim=True) if colour is None else torch.tensor(float(colour))
        before = model(images).softmax(1)
        after = model(torch.where(hidden, fill, images)).softmax(1)
        if not copy:
            images.copy_(torch.where(hidden, fill, images))
        return sign * (before - after)[range(len(images)), classes]

    return answer


def by_image(values, lesions, resamples, seed):
    """An interval that does not know of lesions."""
    drawn = np.random.default_rng(seed).choice(values, (resamples, len(values)))
    return np.quantile(drawn.mean(1), [0.025, 0.975])


def extreme():
    """Four lesions, each the most extreme in another criterion: A, B, C, D in this order."""
    measured = pd.DataFrame(np.eye(4), columns=list(CRITERIA.values()))
    return measured.assign(image_id=list("abcd"))


def predictions(seed):
    logits = np.random.default_rng(seed).normal(0, 2, (6, 7))
    ids = np.arange(6).astype(str)
    return Predictions(ids, ids, np.full(6, "test"), np.arange(6), logits)


def mean_variance(of_trainings, of_lesions=2e-4):
    """The variance of a mean, and the fraction that is due to trainings."""
    return of_lesions + of_trainings, of_trainings / (of_lesions + of_trainings)


def risks(uncertainty, wrong):
    return np.cumsum(wrong[np.argsort(uncertainty)]) / np.arange(1, len(wrong) + 1)


WRONG = {  # mistakes, and a word of the hint for each
    "00.1": [(5, "from 0"), (0, "order")],
    "00.2": [(100 * 3 / 7, "fraction"), (1 / 7, "several")],
    "00.3": [("model.safetensors", "weights")],
    "00.4": [("no such folder", "no-such-folder")],
    "00.6": [
        ("word " * 201, "201 words"), (STATEMENT.replace("split", ""), "split"),
        ("novel " + STATEMENT, "praises"), (STATEMENT.replace("2017", ""), "source"),
    ],
    "01.1": [(12, "images")],
    "01.2": [([0.5] * 9, "not 9"), ([0.0] * 10, "seed 0")],
    "01.3": [("ABCC", "occurs once"), ("DCBA", "Look again")],
    "01.4": [(lambda image, mask: 1, "2 colours"), (lambda image, mask: 6, "1 colour")],
    "01.5": [
        (lambda table, seed: ["train"] * len(table), "needs one of"),
        (lambda table, seed: np.resize(["train", "val", "test"], len(table)), "images"),
        (lambda table, seed: table["lesion_id"].str[-1].map(lambda n: ["val", "train"][n < "7"])
         .where(table["lesion_id"].str[-1] != "6", "test"), "same split"),
    ],
    "02.1": [((355, 0), "add up"), ((353, 41), "Another whole batch"), ((8513 / 24, 0), "whole")],
    "02.2": [(lambda pixels, labels, _: HAM10000Dataset(pixels, labels, np.arange(12)), "length"),
             (lambda pixels, labels, _: HAM10000Dataset(pixels, labels, np.arange(7)), "another"),
             (lambda *given: torch.utils.data.Dataset(), "TypeError")],
    "02.3": [([0.1, 0.9, 0.5, 0.5, 0.5, 0.5], "horizontal"), ([0.0] * 6, "no change")],
    "02.4": [(lambda images, mean, std: images, "differ")],
    "02.5": [(lambda dataset, size, seed: loader(dataset, size), "2 whole"),
             (lambda dataset, size, seed: loader(dataset, size, torch.Generator()), "order")],
    "02.7": [(lambda images, numbers: images, "between"),
             (lambda images, numbers: images + 0.1, "brighter")],
    "03.1": [((256 * 512 * 9, 2 * 256 * 512 * 9 * 196), "FLOPs")],
    "03.2": [(["conv 1x1", "norm", "relu", "conv 1x1"], "first 3"), (["conv 1x1"], "steps"),
             (["pool"], "not one of")],
    "03.3": [(lambda channels, width: torch.nn.Conv2d(channels, channels, 1), "names")],
    "03.4": [(lambda q, k, v: (q @ k.mT).softmax(-1) @ v, "square root")],
    "03.5": [(483, "paper"), (35, "layer1"), (300, "Count")],
    "03.7": [((torch.nn.Linear(2, 7), 14), "raises RuntimeError"),
             ((torch.nn.Linear(1000, 1000), 1), "parameters")],
    "04.1": [(1.833, "mean over"), (-0.916, "minus"), (0.398, "base 10")],
    "04.2": [(0.75, "test split")],
    "04.3": [(sums, "summed"), (lambda *given: (9.0, 1, 2), "Forward"),
             (lambda w, x, y, rate: (*sums(w, x, y, rate)[:1], -sums(w, x, y, rate)[1] / 6, w),
              "sign")],
    "04.4": [(no_zero, "first step is right"), (lambda *given: 1.0, "tensor")],
    "04.5": [(lambda weight, gradients, rate: weight - rate * gradients[-1], "descent"),
             (lambda weight, gradients, rate: weight - rate * gradients[0].sign(), "after 2")],
    "04.7": [(lambda logits, labels, counts: F.cross_entropy(logits, labels), "unweighted")],
    "05.1": [(0.16, "no sign"), (0.175, "number"), (20, "fraction")],
    "05.2": [(["accuracy"], "largest"), (["ECE", "NLL", "Brier score"], "different images"),
             (["melanoma AUC"], "3 more"), (["recall"], "not one of")],
    "05.3": [(lambda confidence, correct, bins: abs(confidence.mean() - correct.mean()), "one"),
             (lambda confidence, correct, bins: np.nan, "NaN")],
    "05.4": [(lambda logits, labels: 1.0, "better"),
             (lambda logits, labels: 1 / fit_temperature(logits, labels), "Upside down")],
    "05.5": [("word " * 121, "121"), ("a softmax", "softmax"), ("too short", "not enough"),
             ("word " * 50, "numbers")],
    "05.6": [(lambda logits, labels: (np.ones(3), np.zeros(3)), "one temperature"),
             (lambda logits, labels: (1.0, 0.0), "each")],
    "06.1": [((0.5, 0.5), "one row"), ((7 / 19, 0.5), "six other rows"),
             ((102 / 114, 7 / 19), "first"), ((36.8, 89.5), "fraction")],
    "06.2": [(0.4, "60%"), (0.95, "lower"), ([0.5], "one number")],
    "06.3": [((497.5, 995), "false positives"), ((540, 1040), "no melanoma")],
    "06.4": [(lambda positive, scores, target: 0.0, "needlessly"),
             (lambda positive, scores, target: np.quantile(scores[positive], 1 - target) + 0.01,
              "reaches")],
    "06.5": [(("specificity", 1.0, 0.2), "missed"), (("sensitivity", 1.0, 0.2), "given up"),
             (("AUC", 1.0, 0.2), "one of"), (("specificity", 95, 0.2), "fraction")],
    "06.6": [(lambda positive, scores, price: 0.5, "costs")],
    "07.1": [([[0.4, -0.2], [0.1, -0.2]], "Negative"), ([[1.6, 0], [0.4, 0]], "not its sum"),
             ([[1, 0], [0.25, 0]], "normalise"), ([[0.4, 0], [0.2, 0.1]], "First add"),
             ([[1.2, 0], [0.2, 0]], "One weight"), ([[0.4, 0.2], [0.3, 0.4]], "sign"),
             ([0.4, 0, 0.1, 0], "shape")],
    "07.2": [([112, 56, 28, 14], "twice"), ([256, 512, 1024, 2048], "channels")],
    "07.3": [(wrong_cam(lambda g, f: (g.mean((2, 3), keepdim=True) * f).sum(1)), "Negative"),
             (wrong_cam(lambda g, f: (g * f).sum(1).relu()), "One weight"),
             (wrong_cam(lambda g, f: (g.sum((2, 3), keepdim=True) * f).sum(1).relu()), "sum"),
             (wrong_cam(one_class=True), "class of its own"), (wrong_cam(remove=False), "still on"),
             (lambda *given: torch.zeros(3, 32, 32), "(3, 4, 6)")],
    "07.5": [(lambda heat, masks: masks.reshape(4, -1).any(1), "without heat"),
             (lambda heat, masks: np.where(heat.max((1, 2)) > 0, 1, np.nan), "its maximum"),
             (lambda heat, masks: 2 / 3, "four results")],
    "07.6": [({}, "Case A"), (dict.fromkeys("ABCDEFG", "none"), "case B"),
             (dict.fromkeys("ABCDEFG", "hair"), "not one of")],
    "07.7": [(wrong_cover(heat=-1), "coldest"), (wrong_cover(sign=-1), "minus the one"),
             (wrong_cover(mean=(0, 2, 3)), "own mean"), (wrong_cover(colour=0), "Black"),
             (wrong_cover(copy=False), "a copy")],
    "07.8": [(wrong_frame(lesion=False), "reaches into"), (wrong_frame(rest=False), "what is left"),
             (wrong_frame(middle=False), "lesion alone"), (lambda image, *_: image, "wrong"),
             (wrong_frame(copy=False), "a copy")],
    "07.9": [({}, "Network A"), (dict.fromkeys("ABCD", "needs the lesion"), "network B"),
             (dict.fromkeys("ABCD", "hair"), "not one of")],
    "08.1": [(2, "square root"), (16, "quarter")],
    "08.2": [([0.04, 0.16, 0.12, 0.02], "Bonferroni"), ([0.03, 0.04, 0.06, 0.02], "Nearly"),
             ([0.02, 0.03, 0.06, 0.06], "order of the question")],
    "08.3": [(0.0384, "one-sided")],
    "08.4": [(lambda values, lesions, resamples, seed: (0.0, 1.0), "wide"),
             (lambda values, lesions, resamples, seed: values, "two numbers"),
             (by_image, "single images")],
    "08.7": [(lambda members, temperatures: members[0].probabilities() * 2, "add up"),
             (lambda members, temperatures: np.mean([m.probabilities() for m in members], 0),
              "before calibration")],
    "08.8": [(lambda values, covariance: mean_variance(np.var(values, ddof=1)), "one training"),
             (lambda values, covariance: mean_variance(np.var(values) / 4), "K - 1")],
    "09.1": [(["decision"], "not see"), ([], "summary"), ("advice", "list")],
    "09.2": [(lambda logits, t, threshold: ((p := np.exp(logits) / np.exp(logits).sum())[4],
                                            p[4] >= threshold), "temperature")],
    "09.3": [(lambda data: "JPEG", "PNG"), (lambda data: None, "JPEG")],
    "09.4": [(lambda state, counts=[]: counts.append(1) or (None, len(counts)), "together")],
    "10.1": [(0.245, "Upside down")],
    "10.2": [((10, 3), "with checkpoints"), ((36, 2.951), "first start")],
    "10.3": [(lambda gradients, sizes: gradients.mean(0), "smaller shard")],
    "10.4": [(lambda job: [], "undefined"), (lambda job: ["x"], "no undefined")],
    "10.5": [(PLAN | {"hours": 3.0}, "4 hours"), (PLAN | {"dollars": 8.0}, "what else"),
             ({"machine": "four"}, "missing"), (PLAN | {"looked_up": "today"}, "isoformat")],
    "11.1": [(lambda unsure, wrong: np.cumsum(wrong) / np.arange(1, 13), "order of the images"),
             (lambda unsure, wrong: np.cumsum(wrong[np.argsort(unsure)]) / 12, "not of all"),
             (lambda unsure, wrong: risks(-unsure, wrong), "least certain come first"),
             (lambda unsure, wrong: 1 - risks(unsure, wrong), "accuracy"),
             (lambda unsure, wrong: wrong.mean(), "shape")],
    "11.2": [(lambda scores, coverage: np.sort(scores)[int(np.ceil(len(scores) * coverage)) - 1],
              "+ 1"),
             (lambda scores, coverage: conformal_quantile(scores, min(coverage, len(scores) / 9)),
              "infinite"),
             (lambda scores, coverage: 0.5, "which rank")],
    "11.3": [((60, 93), "rule of three"), ((58, 93), "above 5%"), ((59, 59), "any of the n")],
    "11.4": [(lambda lesions, seed: np.arange(len(lesions)), "more than once"),
             (lambda lesions, seed: np.unique(lesions, return_index=True)[1], "never drawn"),
             (lambda lesions, seed: [0, 1], "none need be lost"),
             (lambda lesions, seed: [0.5], "whole")],
    "12.1": [(lambda progress: np.interp(progress, [0, 0.2, 1], [0, 1, 0]), "straight line"),
             (lambda progress: 1.0, "begins at 0")],
    "12.2": [((0.7, 0.2, -0.9), "without the weight"), ((0.7, 0.2, -4.5), "all three"),
             ((-3.5, -1.0, 4.5), "uphill")],
    "12.3": [("nv", "most probable"), ("mel", "exceeds")],
    "12.4": [(4 / 9, "odds"), (36 / 37, "wrong way round"), (0.16, "add up")],
    "12.5": [(lambda counts, fraction: np.where(
                 counts == counts.max(), counts * fraction, counts), "of the epoch"),
             (lambda counts, fraction: counts, "you return")],
    "12.6": [(CHOSEN | {"recipe": "test"}, "could judge"), ({}, "decisions are"),
             (CHOSEN | {"temperature": "train"}, "better than it is"),
             (CHOSEN | {"weights": "val"}, "again")],
}  # fmt: skip
# What the checks of some exercises take besides the answer.
CONTEXT = {
    **dict.fromkeys(["00.2", "01.1", "01.2", "01.5"], (lesions(),)),
    "01.3": (extreme(),),
    "04.2": (np.array([2, 2, 2, 1]), np.array([2, 1])),
    "06.1": (MATRIX,),
    "06.5": (TRUTH, SCORES),
    "08.7": ([predictions(0), predictions(1)], [1.5, 0.7]),
    "10.4": (JOB,),
    "10.5": ({"a": 40.0},),
}


def verdict(name, answer):
    return exercises.verdict(name, answer, *CONTEXT.get(name, ()))


def test_every_check_has_been_given_mistakes():
    chapters = (exercises.checks_of(path.stem[:2]) for path in SOLUTIONS)
    assert list(WRONG) == [name for checks in chapters for name in checks]


@pytest.mark.parametrize(
    ("name", "answer", "word"), [(n, *case) for n, cases in WRONG.items() for case in cases]
)
def test_a_mistake_is_named(name, answer, word):
    says = verdict(name, answer)
    assert says.startswith("not yet") and word in says


@pytest.mark.parametrize("seed", range(3))
def test_each_lesion_of_the_quiz_leads_the_four_in_its_criterion(seed):
    size = np.random.default_rng(seed).normal(size=(140, 1))  # in all four: they are correlated
    values = size + np.random.default_rng(seed + 9).normal(size=(140, 4))
    measured = pd.DataFrame(values, columns=list(CRITERIA.values()))
    measured = measured.assign(image_id=measured.index.map("ISIC_{:03d}".format))
    measured.loc[0, "border"] = np.nan  # an empty mask
    quiz = pick_quiz_lesions(measured)
    assert sorted(quiz["criterion"]) == list("ABCD") and quiz["image_id"].is_monotonic_increasing
    shown = measured.set_index("image_id").loc[quiz["image_id"]]
    for name, letter in zip(quiz["image_id"], quiz["criterion"], strict=True):
        assert shown[CRITERIA[letter]].idxmax() == name
    assert pick_quiz_lesions(measured[:4]).empty  # three that have all measures


class Unprintable:
    def __repr__(self):
        raise RuntimeError


VALUES = [np.nan, None, "text", "0.2", -1, [], [np.nan], (np.nan, np.nan), [np.nan] * 4, {"a": 1},
          np.zeros((2, 3)), torch.tensor([np.nan]), object(), Unprintable(), 10**400]  # fmt: skip
NONSENSE = [
    *VALUES,
    *(lambda *given, value=value: value for value in VALUES),
    lambda *given: given,
    lambda: 1,
    lambda *given: 1 / 0,
    torch.nn.Identity,
]


@pytest.mark.parametrize("name", WRONG)
def test_nonsense_gets_one_line_and_is_never_right(name):
    for answer in NONSENSE:
        assert re.fullmatch(r"not yet\. .{15,350}", verdict(name, answer))


def test_an_exercise_without_a_check_has_criteria(chapter):
    checks = exercises.checks_of(chapter.stem[:2])
    parts = TITLE.split(text(chapter, "markdown"))
    for exercise, task in zip(parts[1::2], parts[2::2], strict=True):
        assert exercise in checks or "criteria" in task.lower(), exercise


def test_the_chapter_leaves_its_answers_open(chapter):
    asked = [cell.source for cell in cells(chapter, "code") if CHECKED.search(cell.source)]
    assert asked and all(re.search(r"^\w+ = \.\.\.", source, re.MULTILINE) for source in asked)


def test_solutions_are_clean(solution):
    nbformat.validate(nbformat.read(solution, 4))
    assert not any(cell.outputs or cell.execution_count for cell in cells(solution, "code"))


def spoiled(answer):
    """The answer with one thing wrong, in every way; a function returns such things."""
    if callable(answer):
        yield lambda *given: spoil(answer(*given), None)
        yield lambda *given: spoil(answer(*given), np.nan)
        return
    yield None
    if isinstance(answer, str):
        yield [answer]
    elif isinstance(answer, dict):
        yield from (answer | {name: value} for name in answer for value in (None, np.nan))
    elif isinstance(answer, list | tuple):
        yield answer[1:]
        for place in range(len(answer)):
            for value in (None, np.nan):
                yield type(answer)([*answer[:place], value, *answer[place + 1 :]])
    else:
        yield from (np.nan, str(answer), [answer], [answer, answer])


def spoil(result, value):
    """The result of a function with `value` for its first number, or for the last of several."""
    if isinstance(result, tuple):
        return *result[:-1], spoil(result[-1], value)
    if value is None or not np.shape(result):
        return value
    result = torch.as_tensor(result).detach().clone().double()
    result.view(-1)[0] = value
    return result


def test_every_solution_is_right_and_spoiled_is_not(
    solution, sample_dir, sample_run, tmp_path, monkeypatch
):
    # In this process and not in a kernel: importing torch again takes longer than the solution.
    given = {"data_dir": sample_dir, "output_dir": sample_run, "figures_dir": tmp_path}
    given = {name: str(path) for name, path in given.items()}
    given |= {"architecture": KEYS[0], "architectures": ",".join(KEYS)}
    monkeypatch.chdir(solution.parent)
    answers = {}
    monkeypatch.setattr(exercises, "check", lambda name, *answer: answers.update({name: answer}))
    names = {"__name__": "__main__"}
    for cell in cells(solution, "code"):
        exec(compile(ast.parse(cell.source), solution.stem, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {name: value for name, value in given.items() if name in names}
    assert list(answers) == list(exercises.checks_of(solution.stem[:2]))
    for name, (answer, *context) in answers.items():
        assert exercises.verdict(name, answer, *context) == "right"
        for wrong in spoiled(answer):
            assert exercises.verdict(name, wrong, *context).startswith("not yet"), (name, wrong)
