"""Chapter 11 in tables and in words, from `abstention` of the results."""

from collections.abc import Iterator

from melanoma_lib.evaluation.abstention import ORDERS
from melanoma_lib.evaluation.bootstrap import UNDEFINED, format_estimate, format_estimates
from melanoma_lib.evaluation.conformal import METHODS
from melanoma_lib.evaluation.operating_points import operating_point_label

KINDS = {"plain": "reached on validation", "controlled": "promised"}  # of thresholds, in words
SHOWN_FRACTION = 0.2  # of the referrals, where only one is shown

# Sentences; estimates of the results are put in as their texts.
REFERRAL = (
    "- {name} refers {test[referred]} of the test images if it refers the least confident "
    "{fraction:.0%} of validation. On the rest its accuracy is {test[accuracy]} instead of "
    "{before[accuracy]}; of the melanomas {test[found_or_referred]} are predicted positive or "
    "referred."
)
SETS = (
    " Its {method} sets hold {test[size]} diagnoses and the true one in {test[coverage]} of the "
    "lesions, promised in {promise:.0%} ({verdict}); of melanomas, in {test[melanoma_coverage]}."
)
NO_THRESHOLD = (
    " No threshold promises a {label}: that takes {least} such lesions on validation without an "
    "error, and there are {lesions}."
)
NEVER = " No threshold promises a {label}, which no number of lesions can show."
THRESHOLD = (
    " The threshold that promises a {label} with {confidence:.0%} confidence has {reached} on "
    "test ({verdict})."
)
SHIFT = (
    "- {label}: the sets of {name} hold the true diagnosis in {test[coverage]} ({verdict}), "
    "melanoma in {test[melanoma_coverage]} of the melanomas."
)
BEYOND = (
    "A promise is for lesions like those of the validation split, and for no others. On the same "
    "test lesions, changed:"
)


def verdict(estimated: dict, promise: float) -> str:
    """Whether the interval of a rate lies above a promise, below it, or cannot tell."""
    if estimated["low"] is None or estimated["low"] <= promise <= estimated["high"]:
        return "these lesions cannot tell it from what was promised"
    return f"{'more' if estimated['low'] > promise else 'less'} than promised"


def referral_at(model: dict, fraction: float) -> dict:
    """The entry of one fraction in `referral` of a model, ordered by confidence."""
    return next(row for row in model["referral"]
                if (row["order"], row["fraction"]) == ("confidence", fraction))  # fmt: skip


def _of_models(results: dict) -> Iterator[tuple[str, dict]]:
    for model in results.get("abstention", {"models": {}})["models"].values():
        yield model["name"], model


def risk_coverage_rows(results: dict) -> Iterator[dict]:
    """A row a model and order."""
    for name, model in _of_models(results):
        for order, found in model.get("risk_coverage", {}).items():
            yield {"model": name, "order": ORDERS[order], "area": found["area"],
                   "minus_confidence": found.get("minus_confidence", UNDEFINED)}  # fmt: skip


def referral_rows(results: dict) -> Iterator[dict]:
    """A row a model, order and fraction."""
    for name, model in _of_models(results):
        for row in model["referral"]:
            yield {"model": name, "order": ORDERS[row["order"]] if row["fraction"] else "–",
                   "fraction": f"{row['fraction']:.0%}", **row["test"]}  # fmt: skip


def threshold_rows(results: dict) -> Iterator[dict]:
    """A row a model, operating point and kind of threshold."""
    for name, model in _of_models(results):
        kept = {point["name"]: point for point in model.get("kept", [])}
        for point in model["thresholds"]:
            for kind, words in KINDS.items():
                found = point[kind] or {"threshold": None, "sensitivity": UNDEFINED,
                                        "specificity": UNDEFINED}  # fmt: skip
                times = (kept.get(point["name"]) or {}).get(kind) or {"kept": UNDEFINED}
                yield {"model": name, "chosen": operating_point_label(point), "kind": words,
                       "kept": times["kept"], **found}  # fmt: skip


def set_rows(results: dict) -> Iterator[dict]:
    """A row a model and kind of sets."""
    for name, model in _of_models(results):
        for sets in model["sets"]:
            yield {"model": name, "sets": METHODS[sets["method"]][2], **sets["test"]}


def shift_rows(results: dict) -> Iterator[dict]:
    """A row a shift and model: marginal sets, first operating point, referral by confidence."""
    for shift in results.get("abstention", {}).get("shifts", []):
        for model in shift["models"].values():
            sets = {each["method"]: each["test"] for each in model["sets"]}
            referred, plain = referral_at(model, SHOWN_FRACTION)["test"], model["thresholds"][0]
            yield {
                "shift": shift["label"], "model": model["name"],
                "coverage": sets["marginal"]["coverage"],
                "melanoma_coverage": sets["marginal"]["melanoma_coverage"],
                "size": sets["marginal"]["size"],
                "class_conditional": sets["class_conditional"]["melanoma_coverage"],
                "sensitivity": plain["plain"]["sensitivity"],
                "specificity": plain["plain"]["specificity"],
                "referred": referred["referred"], "accuracy": referred["accuracy"],
            }  # fmt: skip


def summarize_abstention(found: dict) -> list[str]:
    """Chapter 11 in sentences, one or more a model; every number is taken from the results."""
    lines = []
    for model in found["models"].values():
        text = REFERRAL.format(
            name=model["name"], fraction=SHOWN_FRACTION,
            test=format_estimates(referral_at(model, SHOWN_FRACTION)["test"]),
            before=format_estimates(referral_at(model, 0.0)["test"]),
        )  # fmt: skip
        sets = model["sets"][0]
        text += SETS.format(
            method=METHODS[sets["method"]][2], test=format_estimates(sets["test"]),
            promise=found["coverage"],
            verdict=verdict(sets["test"]["coverage"], found["coverage"]),
        )  # fmt: skip
        lines.append(text + _threshold_text(model["thresholds"][0], found["confidence"]))
    if shifts := found.get("shifts"):
        lines += ["", BEYOND, "", *(_shift_text(shift, found["coverage"]) for shift in shifts)]
    return lines


def _threshold_text(point: dict, confidence: float) -> str:
    label = operating_point_label(point)
    if point["least_lesions"] is None:
        return NEVER.format(label=label)
    if point["controlled"] is None:
        return NO_THRESHOLD.format(label=label, least=point["least_lesions"],
                                   lesions=point["lesions"])  # fmt: skip
    reached = point["controlled"][point["criterion"]]
    return THRESHOLD.format(label=label, confidence=confidence, reached=format_estimate(reached),
                            verdict=verdict(reached, point["target"]))  # fmt: skip


def _shift_text(shift: dict, promise: float) -> str:
    """One shift, for the last model: the ensemble where there is one."""
    model = list(shift["models"].values())[-1]
    test = model["sets"][0]["test"]
    return SHIFT.format(
        label=shift["label"][0].upper() + shift["label"][1:], name=model["name"],
        test=format_estimates(test), verdict=verdict(test["coverage"], promise),
    )  # fmt: skip
