"""The exercises of chapter 09: what answers change, a decision, file formats, sessions."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.predictions import softmax

OUTPUTS = ("probability", "decision", "advice")


def may_change(answer: Sequence[str]) -> str | None:
    unknown = [name for name in answer if name not in OUTPUTS]
    if unknown or isinstance(answer, str):
        return f"Give a list of some of {', '.join(OUTPUTS)}."
    if "probability" in answer or "decision" in answer:
        return "The model does not see the answers: they cannot change what it predicts."
    return None if answer else "What does the summary say to somebody who named three signs?"


def decision(answer: Callable[..., tuple[float, bool]]) -> str | None:
    logits, temperature = np.array([0.2, -1.0, 0.5, 0.0, 1.2, 2.0, -0.4]), 1.5
    column = CLASS_NAMES.index(MELANOMA)
    right = softmax(logits, temperature)[column]
    probability, predicted = answer(logits, temperature, float(right))
    if np.isclose(probability, softmax(logits)[column]):
        return "That probability is not calibrated: where does the temperature go?"
    if not np.isclose(probability, right):
        return f"For one image it gives a probability of {probability:.3f}, and not {right:.3f}."
    if not predicted:
        return "A probability equal to the threshold is predicted positive too."
    if answer(logits, temperature, float(right) + 0.01)[1]:
        return "A probability below the threshold is predicted positive."
    return None


def recognised(answer: Callable[[bytes], str | None]) -> str | None:
    for name in ("JPEG", "PNG", "BMP"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, name)
        expected = name if name != "BMP" else None
        if (given := answer(buffer.getvalue())) != expected:
            return f"Of the bytes of a {name} file it says {given!r}."
    for data in (b"", b"not a picture", b"a PNG, it says", b"JFIF JPEG"):
        if answer(data) is not None:
            return f"The bytes {data!r} are not an image: look at how the two formats begin."
    return None


def visitors(answer: Callable[..., tuple[object, int]]) -> str | None:
    states: dict[str, object] = dict.fromkeys("ab")
    counts = []
    for visitor in "aabab":
        states[visitor], count = answer(states[visitor])
        counts.append(count)
    if counts == [1, 2, 3, 4, 5]:
        return "It counts the images of all visitors together: what is stored outside of the state?"
    if counts != [1, 2, 1, 3, 2]:
        return f"For the visitors a, a, b, a, b it counts {counts}."
    return None


CHECKS = {"09.1": may_change, "09.2": decision, "09.3": recognised, "09.4": visitors}
