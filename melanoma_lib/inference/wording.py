"""What a reading means in plain words, and three questions for when the model is not sure."""

from collections.abc import Mapping, Sequence

from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES, MELANOMA
from melanoma_lib.inference.predictor import Decision, Prediction, Predictor

NOTICE = (
    "For learning and research. This is not a medical device: it diagnoses nothing, and must not "
    "decide whether you see a doctor. Show a lesion that worries you to a dermatologist."
)
FOREIGN = (
    "This picture is unlike those the model was made for. Whatever it says below is worth nothing."
)
GENERATED = (
    "This model was trained on generated pictures and knows only those. On a photograph of skin "
    "it says nothing of value."
)
OPTIMISTIC = (
    "Its test figures are optimistic: it was tested on images that chose its thresholds, many "
    "of lesions seen in training."
)
ANSWERS = ("yes", "no", "not sure")
# The criteria of ABCDE that a picture does not show, or that a patient sees better
# (Abbasi et al., 2004): a question, and what each answer means.
QUESTIONS = (
    (
        "Has it changed in size, shape or colour in recent weeks or months, or does it itch or "
        "bleed?",
        "Evolution. Change is the most telling of the five signs, and one picture cannot show it. "
        "A mole that changes should be seen by a doctor soon.",
        "Evolution. No change is reassuring, as far as it was watched: many people cannot say what "
        "a mole looked like half a year ago. A photograph today makes it comparable later.",
    ),
    (
        "Is it wider than 6 millimetres, about the eraser of a pencil?",
        "Diameter. Most melanomas are wider than 6 millimetres when they are found, and so are "
        "many harmless moles. The model does not know the size: its pictures have no scale.",
        "Diameter. Small melanomas exist, so a small one is not safe for being small; together "
        "with change, it counts as much as a large one.",
    ),
    (
        "Is its border ragged or blurred, or has it several colours (brown, black, red, white, "
        "blue)?",
        "Border and colour. Both are signs to have it looked at. Some harmless growths, "
        "seborrheic keratoses among them, show both.",
        "Border and colour. An even outline and one colour are usual in harmless moles, and also "
        "in nodular melanoma, which grows fast.",
    ),
)
NOT_SURE = "This is what to ask a doctor to look at: a dermatoscope shows it better than the eye."


def percent(share: float) -> str:
    """`31 %`, with one digit more below 10 and above 90, and never a certainty."""
    if not 0.001 <= share <= 0.999:
        return "less than 0.1 %" if share < 0.5 else "more than 99.9 %"
    return f"{100 * share:.{0 if 0.1 <= share <= 0.9 else 1}f} %"


def operating_point_label(point: Mapping) -> str:
    """`specificity of at least 95 %`."""
    return f"{point['criterion']} of at least {100 * point['target']:.4g} %"


def rate(figure: Mapping) -> str:
    """A figure of the test part as `83 % (95 % interval 71 to 92 %)`."""
    if figure["value"] is None:
        return "not known"
    value, low, high = (100 * (figure[end] or 0) for end in ("value", "low", "high"))
    return f"{value:.0f} % (95 % interval {low:.0f} to {high:.0f} %)"


def verdict(decision: Decision) -> str:
    """The decision in a line."""
    called = "Called melanoma" if decision.called else "Not called melanoma"
    return f"{called} at a {operating_point_label(decision.point)}"


def meaning(reading: Prediction, decision: Decision) -> list[str]:
    """What the decision means: the threshold, the model's own test figures, the others' scores."""
    point, test = decision.point, decision.point["test"]
    side = "at or above" if decision.called else "below"
    kind = "other" if decision.called else MELANOMA
    beyond = 1 - decision.below[kind] if decision.called else decision.below[kind]
    who = "images of the other diagnoses" if decision.called else "melanomas"
    return [
        f"The probability of melanoma, {percent(reading.melanoma)}, is {side} the threshold of "
        f"{percent(point['threshold'])}.",
        f"At this threshold the model found {rate(test['sensitivity'])} of the melanoma images of "
        f"its test part, and rightly did not call {rate(test['specificity'])} of the others.",
        f"With one image each of 1,000 such lesions it would miss {_count(test['missed'])} "
        f"melanomas and raise {_count(test['false_alarms'])} false alarms.",
        f"Of the {who} of the validation part, {percent(beyond)} score "
        f"{'as high or higher' if decision.called else 'lower still'}.",
    ]


def _count(figure: Mapping) -> str:
    return "an unknown number of" if figure["value"] is None else f"{figure['value']:.0f}"


def caveats(reader: Predictor) -> list[str]:
    """What must be said of a model before anything else."""
    return [GENERATED] * reader.bundle["generated"] + [OPTIMISTIC] * ("optimistic" in reader.note)


def reply(question: int, answer: str) -> str:
    """What an answer to one of `QUESTIONS` means; it changes neither probability nor decision."""
    return dict(zip(ANSWERS, (*QUESTIONS[question][1:], NOT_SURE), strict=True))[answer]


def summary(reading: Prediction, decision: Decision, answers: Sequence[str]) -> str:
    """How many signs were named, beside the model's own verdict, which stays as it was."""
    signs = sum(answer == "yes" for answer in answers)
    named = f"You named {signs} of the three signs" if signs else "You named none of the signs"
    advice = "see a doctor soon" if signs else "have it looked at if it changes or worries you"
    return (
        f"{named}: {advice}, whatever the model says. Your answers are no part of its verdict, "
        f"which remains: {verdict(decision).lower()}, with a probability of "
        f"{percent(reading.melanoma)}."
    )


# -- the command -------------------------------------------------------------------------------

HEADS = (
    "image", "predicted", *(f"p_{code}" for code in CLASS_NAMES), "called_melanoma",
    "near_threshold", "foreign", "distance", "overlay", "error",
)  # fmt: skip


def about(reader: Predictor, point: Mapping) -> str:
    """What stands above the lines of `melanoma predict`."""
    test = point["test"]
    lines = [
        NOTICE,
        *caveats(reader),
        f"{reader.name}: {point['name']}, threshold {percent(point['threshold'])}; on its test "
        f"part sensitivity {rate(test['sensitivity'])}, specificity {rate(test['specificity'])}",
    ]
    return "\n".join(lines)


def line(row: Mapping) -> str:
    """One picture's line, from what `diagnose.predict_files` says of it."""
    probabilities = row["probabilities"]
    code = row["predicted"]
    parts = [
        f"{row['image']}: {DISPLAY_NAMES[code]} {percent(probabilities[code])}",
        f"melanoma {percent(probabilities[MELANOMA])}",
        "called melanoma" if row["called_melanoma"] else "not called melanoma",
    ]
    parts += ["near the threshold"] * row["near_threshold"]
    parts += ["unlike the pictures the model was made for"] * row["foreign"]
    parts += [f"heat map in {path}" for path in [row.get("overlay")] if path]
    return "; ".join(parts)


def flat(row: Mapping) -> dict[str, object]:
    """One picture's row of the table, by `HEADS`."""
    probabilities = {f"p_{code}": p for code, p in row.get("probabilities", {}).items()}
    return {head: (row | probabilities).get(head, "") for head in HEADS}
