"""The exercises of chapter 05: the ECE by hand and in words, temperature and vector scaling."""

import re
from collections.abc import Callable

import numpy as np

from melanoma_lib.evaluation import metrics
from melanoma_lib.evaluation.calibration import fit_temperature
from melanoma_lib.evaluation.predictions import softmax
from melanoma_lib.exercises import exercise, number, numbers, require, require_close

CHANGES = {"accuracy": False, "confusion matrix": False, "ECE": True, "NLL": True,
           "Brier score": True, "melanoma AUC": True}  # fmt: skip
# Words that somebody outside the field does not know.
JARGON = ("logit", "softmax", "bin", "bins", "temperature", "neural", "network", "calibration",
          "calibrated", "distribution", "expectation", "metric", "dataset", "histogram",
          "classifier", "ece")  # fmt: skip


@exercise("05.1", "a fraction from 0 to 1")
def expected_calibration_error(answer: float) -> None:
    mistakes = {
        "A distance has no sign: the two bins do not cancel out.": 0.16,
        "Each bin is weighted by the number of its images.": 0.175,
    }
    require_close(answer, 0.2, "How far off is each bin, and how large is it?", mistakes, 0.0005)


@exercise("05.2", "a list of names")
def changed_by_temperature(answer: list[str]) -> None:
    for name in answer:
        require(name in CHANGES, f"{name!r} is not one of {', '.join(CHANGES)}.")
        require(CHANGES[name], f"The {name} depends only on which logit of an image is largest.")
    missing = sum(CHANGES.values()) - len(set(answer))
    hint = "The order within an image stays; which measure compares different images?"
    require(not missing or "melanoma AUC" in answer, hint)
    require(not missing, f"{missing} more can change: which depend on the probability itself?")


@exercise("05.3", "a function of (confidence, correct, bins) that returns a number")
def own_ece(answer: Callable[..., float]) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 300)
    correct = rng.random(300) < confidence**2
    result = answer(confidence, correct, 15)
    probabilities = np.column_stack([confidence, np.zeros(300)])
    right = metrics.ece(1 - correct.astype(int), probabilities)
    require(not np.isnan(result), "It gives NaN: what is the mean of a bin without an image?")
    mistakes = {"That is one bin for all images.": abs(confidence.mean() - correct.mean())}
    hint = f"For 300 predictions and 15 bins it gives {result:.4f}, which is not their ECE."
    require_close(result, right, hint, mistakes, atol=1e-9)
    # In halves, 0.5 belongs to the lower one: off by 0.5 there, by 0.1 above.
    result = answer(np.array([0.5, 0.9]), np.array([True, True]), 2)
    require_close(result, 0.3, "With 2 bins, 0.5 is in the lower one: a bin has its upper edge.")


@exercise("05.4", "a function of (logits, labels) that returns a temperature")
def own_temperature(answer: Callable[..., float]) -> None:
    rng = np.random.default_rng(0)
    for true in (1.8, 0.6):
        logits = rng.normal(0, 2, (2000, 7))
        labels = np.array([rng.choice(7, p=p) for p in softmax(logits)])
        found, right = number(answer(logits * true, labels)), fit_temperature(logits * true, labels)
        hint = f"For labels sampled at T = {true} it finds {found:.3f}; {right:.3f} is better."
        mistakes = {"Upside down: logits are divided by the temperature.": 1 / right}
        require_close(found, right, hint, mistakes, rtol=0.01)
    hint = "With logits around 1,000 it fails: their exponential overflows."
    require_close(answer(logits * true + 1000, labels), right, hint, rtol=0.01)


@exercise("05.5", "your text, a string")
def ece_explanation(answer: str) -> None:
    words = re.findall(r"[\w'-]+", answer.lower())
    require(len(words) <= 120, f"It has {len(words)} words; 120 are allowed.")
    for word in JARGON:
        require(word not in words, f"Your reader does not know the word {word!r}.")
    require(len(words) >= 40, f"{len(words)} words are not enough to explain it; give an example.")
    numerals = re.findall(r"\d+|\b(?:seven|eight|nine|ten|hundred)\b", answer.lower())
    require(len(numerals) > 1, "Give numbers: what was predicted, and how often was it right?")


@exercise("05.6", "a function of (logits, labels) that returns a factor and an offset a class")
def vector_scaling(answer: Callable[..., tuple]) -> None:
    rng = np.random.default_rng(0)
    factor, offset = np.array([0.5, 1.0, 0.7]), np.array([0.0, -1.0, 0.8])
    logits = rng.normal(0, 2, (4000, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(factor * logits + offset)])
    mine, add = (numbers(values) for values in answer(logits[:2000], labels[:2000]))
    require(mine.shape == add.shape == (3,), "Give a factor and an offset for each of the classes.")
    fresh, truth = logits[2000:], labels[2000:]
    reached = metrics.nll(truth, softmax(mine * fresh + add))
    best = metrics.nll(truth, softmax(factor * fresh + offset))
    one = metrics.nll(truth, softmax(fresh, fit_temperature(logits[:2000], labels[:2000])))
    require(reached <= one, f"With one temperature the NLL is {one:.3f}, with yours {reached:.3f}.")
    require(reached <= best + 0.01, f"Better than one temperature; but the NLL can be {best:.3f}.")
