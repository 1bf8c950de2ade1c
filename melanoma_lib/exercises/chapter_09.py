"""The exercises of chapter 09: what answers change, a decision, file formats, sessions."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.predictions import softmax
from melanoma_lib.exercises import exercise, number, require, require_close

OUTPUTS = ("probability", "decision", "advice")


@exercise("09.1", "a list of names")
def outputs_of_questions(answer: Sequence[str]) -> None:
    known = not isinstance(answer, str) and set(answer) <= set(OUTPUTS)
    require(known, f"Give a list of some of {', '.join(OUTPUTS)}.")
    hint = "The model does not see the answers: they cannot change what it predicts."
    require("probability" not in answer and "decision" not in answer, hint)
    require("advice" in answer, "What does the summary say to somebody who named three signs?")


@exercise("09.2", "a function of (logits, temperature, threshold) that returns a pair")
def calibrated_decision(answer: Callable[..., tuple[float, bool]]) -> None:
    logits, temperature = np.array([0.2, -1.0, 0.5, 0.0, 1.2, 2.0, -0.4]), 1.5
    column = CLASS_NAMES.index(MELANOMA)
    right = float(softmax(logits, temperature)[column])
    probability, predicted = answer(logits, temperature, right)
    raw = "That probability is not calibrated: where does the temperature go?"
    hint = f"For one image it gives a probability of {probability:.3f}, and not {right:.3f}."
    require_close(probability, right, hint, {raw: softmax(logits)[column]})
    require(number(predicted) == 1, "A probability equal to the threshold is positive too.")
    _, predicted = answer(logits, temperature, right + 0.01)
    require(number(predicted) == 0, "A probability below the threshold is predicted positive.")


@exercise("09.3", "a function of (data) that returns 'JPEG', 'PNG' or None")
def image_format(answer: Callable[[bytes], str | None]) -> None:
    for name, expected in {"JPEG": "JPEG", "PNG": "PNG", "BMP": None}.items():
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, name)
        given = answer(buffer.getvalue())
        require(given == expected, f"Of the bytes of a {name} file it says {given!r}.")
    for data in (b"", b"not a picture", b"a PNG, it says", b"JFIF JPEG"):
        require(answer(data) is None, f"{data!r} is no image: look at how the two formats begin.")


@exercise("09.4", "a function of (state) that returns the new state and a number")
def session_counts(answer: Callable[..., tuple[object, int]]) -> None:
    states: dict[str, object] = dict.fromkeys("ab")
    counts = []
    for visitor in "aabab":
        states[visitor], count = answer(states[visitor])
        counts.append(count)
    hint = "It counts the images of all visitors together: what is stored outside of the state?"
    require(counts != [1, 2, 3, 4, 5], hint)
    require(counts == [1, 2, 1, 3, 2], f"For the visitors a, a, b, a, b it counts {counts}.")
