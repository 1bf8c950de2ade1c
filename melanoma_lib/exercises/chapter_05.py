"""The exercises of chapter 05: the ECE by hand and in words, temperature and vector scaling."""

import re
from collections.abc import Callable

import numpy as np

from melanoma_lib.evaluation import metrics
from melanoma_lib.evaluation.calibration import fit_temperature
from melanoma_lib.evaluation.predictions import softmax

CHANGES = {"accuracy": False, "confusion matrix": False, "ECE": True, "NLL": True,
           "Brier score": True, "melanoma AUC": True}  # fmt: skip
# Words that somebody outside the field does not know.
JARGON = ("logit", "softmax", "bin", "bins", "temperature", "neural", "network", "calibration",
          "calibrated", "distribution", "expectation", "metric", "dataset", "histogram",
          "classifier", "ece")  # fmt: skip


def ece_on_paper(answer: float) -> str | None:
    near = {
        0.16: "A distance has no sign: the two bins do not cancel out.",
        0.175: "Each bin is weighted by the number of its images.",
        0.12: "The averages of confidence and accuracy hide the two bins.",
        20: "Right as a percentage; give it as a fraction, from 0 to 1.",
    }
    for value, hint in near.items():
        if abs(answer - value) < 0.0005:
            return hint
    return None if abs(answer - 0.2) < 0.0005 else "How far off is each bin, and how large is it?"


def what_changes(answer: list[str]) -> str | None:
    unknown = sorted(set(answer) - set(CHANGES))
    if unknown:
        return f"{unknown[0]!r} is not one of {', '.join(CHANGES)}."
    unchanged = [name for name in answer if not CHANGES[name]]
    if unchanged:
        return f"The {unchanged[0]} depends only on which logit of an image is the largest."
    missing = sum(CHANGES.values()) - len(set(answer))
    if missing and "melanoma AUC" not in answer:
        return "The order within an image stays; which measure compares different images?"
    if missing:
        return f"{missing} more can change: which depend on the probability itself?"
    return None


def own_ece(answer: Callable[..., float]) -> str | None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 300)
    correct = rng.random(300) < confidence**2
    result = answer(confidence, correct, 15)
    probabilities = np.column_stack([confidence, np.zeros(300)])
    right = float(metrics.ece(1 - correct.astype(int), probabilities))
    if np.isnan(result):
        return "It gives NaN: what is the mean of a bin without an image?"
    if np.isclose(result, abs(confidence.mean() - correct.mean())):
        return "That is one bin for all images."
    if not np.isclose(result, right, atol=1e-9):
        return f"For 300 predictions and 15 bins it gives {result:.4f}, which is not their ECE."
    # In halves, 0.5 belongs to the lower one: off by 0.5 there, by 0.1 above.
    confidence, correct = np.array([0.5, 0.9]), np.array([True, True])
    if not np.isclose(answer(confidence, correct, 2), 0.3):
        return "With 2 bins, a confidence of 0.5 is in the lower one: a bin has its upper edge."
    return None


def own_temperature(answer: Callable[..., float]) -> str | None:
    rng = np.random.default_rng(0)
    for true in (1.8, 0.6):
        logits = rng.normal(0, 2, (2000, 7))
        labels = np.array([rng.choice(7, p=p) for p in softmax(logits)])
        found, right = answer(logits * true, labels), fit_temperature(logits * true, labels)
        if abs(np.log(found * right)) < 0.01:
            return "Upside down: logits are divided by the temperature."
        if abs(np.log(found / right)) > 0.01:
            return f"For labels sampled at T = {true} it finds {found:.3f}; {right:.3f} is better."
    if not abs(np.log(answer(logits * true + 1000, labels) / right)) < 0.01:  # or NaN
        return "With logits around 1,000 it fails: their exponential overflows."
    return None


def explained(answer: str) -> str | None:
    words = re.findall(r"[\w'-]+", answer.lower())
    if len(words) > 120:
        return f"It has {len(words)} words; 120 are allowed."
    unknown = [word for word in JARGON if word in words]
    if unknown:
        return f"Your reader does not know the word {unknown[0]!r}."
    if len(words) < 40:
        return f"{len(words)} words are not enough to explain it; give an example."
    numbers = re.findall(r"\d+|\b(?:seven|eight|nine|ten|hundred)\b", answer.lower())
    hint = "An example needs numbers: what was predicted, and how often was it right?"
    return None if len(numbers) > 1 else hint


def vector_scaling(answer: Callable[..., tuple]) -> str | None:
    rng = np.random.default_rng(0)
    factor, offset = np.array([0.5, 1.0, 0.7]), np.array([0.0, -1.0, 0.8])
    logits = rng.normal(0, 2, (4000, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(factor * logits + offset)])
    mine, add = (np.asarray(values, float) for values in answer(logits[:2000], labels[:2000]))
    if mine.shape != (3,) or add.shape != (3,):
        return "Give a factor and an offset for each of the classes."
    fresh, truth = logits[2000:], labels[2000:]
    reached = metrics.nll(truth, softmax(mine * fresh + add))
    best = metrics.nll(truth, softmax(factor * fresh + offset))
    one = metrics.nll(truth, softmax(fresh, fit_temperature(logits[:2000], labels[:2000])))
    if reached > one:
        return f"On new images one temperature reaches an NLL of {one:.3f}, yours {reached:.3f}."
    if reached > best + 0.01:
        return f"Better than one temperature; but the NLL on new images can be {best:.3f}."
    return None


CHECKS = {
    "05.1": ece_on_paper,
    "05.2": what_changes,
    "05.3": own_ece,
    "05.4": own_temperature,
    "05.5": explained,
    "05.6": vector_scaling,
}
