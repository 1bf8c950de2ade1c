"""The texts of the web page and of `melanoma predict`, and three questions for unsure cases."""

from collections.abc import Mapping, Sequence

from melanoma_lib.core.errors import printable
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES, MELANOMA
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.inference.predictor import Decision, Prediction, Predictor

DISCLAIMER = (
    "For learning and research. This is not a medical device: it diagnoses nothing, and must not "
    "decide whether you see a doctor. Show a lesion that worries you to a dermatologist."
)
TITLE = "Melanoma detection: one picture, as a trained network sees it"
PURPOSE = (
    "Give the picture of one mole through a dermatoscope. You will see whether the network "
    "predicts melanoma, a dangerous skin cancer, how often that was right on its test images, "
    "where in the picture it saw the evidence, and the probabilities of seven diagnoses."
)
PRIVACY = (
    "Your picture is not stored: this server reads it in its memory and forgets it with the "
    "answer. The pictures of your visit stay in your browser until you close the page."
)
HEAT_MAP = (
    "Bright means: this part of the picture speaks most for the diagnosis chosen here. It says "
    "where the network looked, not why, and not whether it is right."
)
NO_VERDICT = "No verdict: this picture is unlike those that the model knows"
OUT_OF_DISTRIBUTION = (
    "It is farther from the images that the model was tested on than nearly all of these are from "
    "each other. The model assigns one of its diagnoses to any picture, also to one without skin; "
    "what it computed for this one means nothing."
)
GENERATED = (
    "This model was trained on generated pictures and knows only those. Its answer for a "
    "photograph of skin is meaningless."
)
OPTIMISTIC = (
    "Its test results are optimistic: the images it was tested on also chose its thresholds, and "
    "many show lesions seen in training."
)
REFERRED = "not answered: the model is too unsure of this image, which a doctor should see"
ANSWERS = ("yes", "no", "not sure")
# The ABCDE criteria that an image does not show, or that a patient sees better (Abbasi et al.,
# 2004): a question, the comment on "yes", and the one on "no".
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


def percent(fraction: float) -> str:
    """A fraction as `31%`, with a decimal below 10% and above 90%; never 0% or 100%."""
    if not 0.001 <= fraction <= 0.999:
        return "less than 0.1%" if fraction < 0.5 else "more than 99.9%"
    return f"{fraction:.{0 if 0.1 <= fraction <= 0.9 else 1}%}"


def format_rate(estimated: Mapping, unit: str = "%", of: str = "") -> str:
    """An estimate of a fraction as `83% (95% interval 71 to 92%)`; `of` follows the value."""
    if estimated["value"] is None:
        return f"an unknown {'fraction' if unit else 'number'}"
    value, low, high = (100 * (estimated[end] or 0) for end in ("value", "low", "high"))
    return f"{value:.0f}{unit}{of} (95% interval {low:.0f} to {high:.0f}{unit})"


def referral_text(operating_point: Mapping) -> str:
    """What a model's referrals did on its test split, in plain words; "" where it refers nobody."""
    found = operating_point.get("referral")
    if not found:
        return ""
    return (
        f"It would refer {format_rate(found['referred'], '', ' of 100')} images of its test split "
        "to a doctor. "
        f"Of the melanomas among the rest it finds {format_rate(found['sensitivity'])}; of all "
        f"melanomas, {format_rate(found['found_or_referred'])} are found or referred."
    )


def decision_text(decision: Decision) -> str:
    """The decision in one line, with its operating point."""
    if decision.referred:
        return REFERRED[0].upper() + REFERRED[1:]
    outcome = "positive" if decision.predicted_positive else "negative"
    label = operating_point_label(decision.operating_point)
    return f"Predicted {outcome} for melanoma at a {label}"


def short_verdict(prediction: Prediction, decision: Decision) -> str:
    """The decision in a cell of a table, with the probability; none if out of distribution."""
    if prediction.out_of_distribution:
        return "no verdict: unlike the pictures it knows"
    outcome = "positive" if decision.predicted_positive else "negative"
    if decision.referred:
        outcome = "not answered"
    return f"{outcome}, {percent(prediction.melanoma_probability)}"


def explain_decision(prediction: Prediction, decision: Decision) -> list[str]:
    """Four sentences: the threshold, its test results, these per 1,000 lesions, other scores.

    Of an image that is referred none of these, which would be a decision, but what referral did.
    """
    if decision.referred:
        return [referral_text(decision.operating_point)]
    point, positive = decision.operating_point, decision.predicted_positive
    test, probability = point["test"], percent(prediction.melanoma_probability)
    missed, false_alarms = (
        "an unknown number of" if test[name]["value"] is None else f"{test[name]['value']:.0f}"
        for name in ("missed", "false_alarms")
    )
    below = decision.fraction_below
    others = (
        f"images of other diagnoses in the validation split, {percent(1 - below['other'])} have a "
        "probability as high or higher"
        if positive
        else f"melanomas in the validation split, {percent(below[MELANOMA])} have a lower "
        "probability"
    )
    return [
        f"The probability of melanoma, {probability}, is {'at or above' if positive else 'below'} "
        f"the threshold of {percent(point['threshold'])}.",
        f"With this threshold, on its test split, the model predicted "
        f"{format_rate(test['sensitivity'])} of the melanoma images positive (sensitivity) and "
        f"{format_rate(test['specificity'])} of the others negative (specificity).",
        f"With one image each of 1,000 such lesions it would miss {missed} melanomas and raise "
        f"{false_alarms} false alarms.",
        f"Of the {others}.",
    ]


def model_warnings(predictor: Predictor) -> list[str]:
    """What must be said about a model before any prediction."""
    generated, optimistic = predictor.bundle["generated"], "optimistic" in predictor.note
    return [GENERATED] * generated + [OPTIMISTIC] * optimistic


def comment_answer(question: int, answer: str) -> str:
    """The comment on one of `ANSWERS` to the question of this index in `QUESTIONS`."""
    return dict(zip(ANSWERS, (*QUESTIONS[question][1:], NOT_SURE), strict=True))[answer]


def summarize_answers(prediction: Prediction, decision: Decision, answers: Sequence[str]) -> str:
    """Advice by the number of signs named, and the model's decision, which no answer changes."""
    signs = sum(answer == "yes" for answer in answers)
    named = f"You named {signs} of the three signs" if signs else "You named none of the signs"
    advice = "see a doctor soon" if signs else "have it looked at if it changes or worries you"
    return (
        f"{named}: {advice}, whatever the model predicts. Your answers are no part of its "
        f"decision, which remains: {decision_text(decision).lower()}, with a probability of "
        f"{percent(prediction.melanoma_probability)}."
    )


# -- the command -------------------------------------------------------------------------------

CSV_COLUMNS = (
    "image", "predicted", *(f"p_{code}" for code in CLASS_NAMES), "called_melanoma",
    "near_threshold", "referred", "foreign", "distance", "overlay", "error",
)  # fmt: skip


def model_text(predictor: Predictor, operating_point: Mapping) -> str:
    """Disclaimer, warnings and test results: the lines above those of `melanoma predict`."""
    test, threshold = operating_point["test"], percent(operating_point["threshold"])
    return "\n".join([
        DISCLAIMER,
        *model_warnings(predictor),
        f"{predictor.name}: {operating_point['name']}, threshold {threshold}; on its test split "
        f"sensitivity {format_rate(test['sensitivity'])}, "
        f"specificity {format_rate(test['specificity'])}",
        *filter(None, [referral_text(operating_point)]),
    ])  # fmt: skip


def json_document(predictor: Predictor, operating_point: Mapping, rows: Sequence[Mapping]) -> dict:
    """Results for programs: the model, the notice, the operating point, a row an image."""
    return {
        "model": predictor.name, "bundle": str(predictor.folder), "note": predictor.note,
        "notice": DISCLAIMER, "operating_point": operating_point, "images": rows,
    }  # fmt: skip


def prediction_text(row: Mapping) -> str:
    """One image's line, from its row of `predict_files`."""
    probabilities, code = row["probabilities"], row["predicted"]
    name = printable(row["image"])
    if row["foreign"]:
        parts = [f"{name}: no verdict, it is unlike the images the model was trained on"]
    else:
        called = f"predicted {'positive' if row['called_melanoma'] else 'negative'} for melanoma"
        parts = [
            f"{name}: {DISPLAY_NAMES[code]} {percent(probabilities[code])}",
            f"melanoma {percent(probabilities[MELANOMA])}",
            REFERRED if row["referred"] else called,
        ]
        parts += ["near the threshold"] * (row["near_threshold"] and not row["referred"])
    parts += [f"heat map in {printable(path)}" for path in [row.get("overlay")] if path]
    return "; ".join(parts)


def csv_row(row: Mapping) -> dict[str, object]:
    """One image's row by `CSV_COLUMNS`, from that of `predict_files`; "" for what it lacks."""
    probabilities = {f"p_{code}": p for code, p in row.get("probabilities", {}).items()}
    return {name: (row | probabilities).get(name, "") for name in CSV_COLUMNS}
