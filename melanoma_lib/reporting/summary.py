"""The results in words: every number of a sentence is taken from them."""

from melanoma_lib.data.layouts import describe_excluded
from melanoma_lib.evaluation.bootstrap import (
    UNDEFINED,
    format_estimate,
    format_estimates,
    format_value,
    transform_decreasing,
)
from melanoma_lib.evaluation.calibration import temperature_note
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.reporting import abstention_tables
from melanoma_lib.reporting.leakage import summarize_leakage
from melanoma_lib.reporting.tables import HEADS, models_and_averages, only_melanoma, pair_names

# Sentences of `summarize`; estimates of the results are put in as their texts.
BASIS = (
    "{dataset[name]}, {basis}: {test_images} test images of {test_lesions} lesions, "
    "{test_melanomas} of the images and {prevalence:.1%} of the lesions melanomas; "
    "{interval[level]:.0%} intervals over lesions{trainings}."
)
ONE_TRAINING = ", with one training, temperature and set of thresholds a model"
SEVERAL_TRAININGS = " and trainings, {trainings} a network"
OPTIMISTIC = (
    " The split is by image: the held-out images also chose epoch, temperature and thresholds, and "
    "many show lesions seen in training, so every figure is optimistic."
)
MODEL = (
    "- {name}, from {start}: melanoma AUC {metrics[melanoma_auc]}, accuracy "
    "{metrics[accuracy]}, balanced accuracy {metrics[balanced_accuracy]}. Temperature "
    "{temperature:.2f} takes its ECE from {uncalibrated[ece]} to {metrics[ece]}. "
)
MELANOMA_MODEL = (
    "- {name}, from {start}: melanoma AUC {metrics[melanoma_auc]}, average precision "
    "{metrics[melanoma_average_precision]}. Temperature {temperature:.2f} takes the ECE of its "
    "melanoma probability from {uncalibrated[melanoma_ece]} to {metrics[melanoma_ece]}; the mean "
    "probability minus the frequency is {metrics[calibration_in_the_large]}. "
)
AT_THRESHOLD = (
    "At the threshold chosen on validation for a {point}, test sensitivity is "
    "{operating_points[0][test][sensitivity]} and specificity "
    "{operating_points[0][test][specificity]}: with one image each of 1,000 lesions, "
    "{prevalence:.1%} of them melanomas, {operating_points[0][test][missed]} missed melanomas and "
    "{operating_points[0][test][false_alarms]} false alarms."
)
AVERAGE = (
    "- {name}: melanoma AUC {metrics[melanoma_auc]}, accuracy {metrics[accuracy]}, ECE "
    "{metrics[ece]} at temperature {temperature:.2f}; against {other}: melanoma AUC "
    "{difference[melanoma_auc]}, accuracy {difference[accuracy]}; {members} predictions an image."
)
LEAKAGE = (
    "Two splits with test images of their own: {name} reaches a melanoma AUC of "
    "{lesion[metrics][melanoma_auc]} split by lesion and of {image[metrics][melanoma_auc]} split "
    "by image, a difference of {difference[melanoma_auc]}{verdict}; one training each."
)
EXTERNAL = (  # ERROR: the metric, ece or melanoma_ece
    "- {name}: {head} {own[metrics][ERROR]} there and {metrics[ERROR]} here, a difference of "
    "{own[difference][ERROR]}. Without the temperature it would be {uncalibrated[ERROR]} here: "
    "what the temperature takes away, {gain[ERROR]}, is {verdict}significant. At the threshold "
    "chosen for a {point}: sensitivity {own[operating_points][0][test][sensitivity]} there and "
    "{operating_points[0][test][sensitivity]} here and specificity "
    "{own[operating_points][0][test][specificity]} there and "
    "{operating_points[0][test][specificity]} here."
)


def headlines(results: dict) -> list[str]:
    """A line for each model with its estimates on the test split, the best melanoma AUC first."""
    text = "{name}: melanoma AUC {metrics[melanoma_auc]}, accuracy {metrics[accuracy]}"
    return [text.format(**format_estimates(model)) for model in _best_first(results)]


def _best_first(results: dict) -> list[dict]:
    return sorted(results["models"].values(),
                  key=lambda model: -(model["metrics"]["melanoma_auc"]["value"] or 0))  # fmt: skip


def describe_results(results: dict) -> str:
    """What the results rest on: dataset, split, test images and interval, in one sentence."""
    basis, remark = f"split by {results['split']}", OPTIMISTIC if results["optimistic"] else ""
    if external := results.get("external"):
        basis = f"from outside of the run {results['run']}"
        if external["left_out"]:
            remark += f" Left out: {describe_excluded(external['left_out'])}."
        for warning in external["warnings"]:
            remark += f" {warning[0].upper()}{warning[1:]}."
        if external["melanoma_only"]:
            remark += " Of the images no more is known than melanoma or not."
    several = results.get("trainings", 1) > 1
    trainings = SEVERAL_TRAININGS.format_map(results) if several else ONE_TRAINING
    return BASIS.format_map(results | {"basis": basis, "trainings": trainings}) + remark


def summarize(results: dict) -> str:
    """The results in words (summary.md); every number is taken from them."""
    prevalence, models = results["prevalence"], list(results["models"].values())
    lines = [describe_results(results), ""]
    for model in _best_first(results):
        label = operating_point_label(model["operating_points"][0])
        known = {"start": "unknown weights"} | format_estimates(model)  # as older results are
        sentences = (MELANOMA_MODEL if only_melanoma(results) else MODEL) + AT_THRESHOLD
        text = sentences.format(**known, point=label, prevalence=prevalence)
        notes = temperature_note(model["temperature"]), _temperature_verdict(model)
        lines.append(" ".join([text, *filter(None, notes)]))
    if results["differences"]:
        lines += ["", "Differences in melanoma AUC, on the same resamples, p adjusted for the "
                  "number of pairs (Holm):", ""]  # fmt: skip
        lines += [_difference_text(results, pair) for pair in results["differences"]]
    if results.get("ensembles"):
        lines += ["", "Averages, with temperature and thresholds chosen on validation:", ""]
        lines += [_average_text(results, pair) for pair in results["ensemble_differences"]]
    if "leakage" in results:
        lines += ["", summarize_leakage(results["leakage"])]
    if price := results.get("price_of_leakage"):
        verdict = "" if _excludes_zero(price["difference"]["melanoma_auc"]) else ", not significant"
        lines += ["", LEAKAGE.format(**format_estimates(price), verdict=verdict)]
    if "abstention" in results:
        lines += ["", "When the least certain images are referred, and what is promised:", ""]
        lines += abstention_tables.summarize_abstention(results["abstention"])
    if "external" in results:
        lines += ["", "Against the run's own test split, temperature and thresholds unchanged:", ""]
        for model in models:
            label = operating_point_label(model["operating_points"][0])
            error = "melanoma_ece" if only_melanoma(results) else "ece"
            verdict = "" if _excludes_zero(model["gain"][error]) else "not "
            sentence = EXTERNAL.replace("ERROR", error)
            words = {"head": HEADS[error], "point": label, "verdict": verdict}
            lines.append(sentence.format(**format_estimates(model), **words))
    return "\n".join(lines) + "\n"


def _temperature_verdict(model: dict) -> str:
    """Whether the temperature helped on the test split; "" for results that do not hold it."""
    gain = model.get("gain", {}).get("nll", {"low": None})
    if gain["low"] is None:
        return ""
    low, high = gain["low"], gain["high"]
    verdict = "helped" if low > 0 else "did harm" if high < 0 else "may have changed nothing"
    return f"NLL before scaling minus after: {format_estimate(gain)}; the temperature {verdict}."


def _excludes_zero(difference: dict) -> bool:
    """Whether the interval of a difference is known and on one side of 0."""
    return difference["low"] is not None and not difference["low"] <= 0 <= difference["high"]


def _average_text(results: dict, pair: dict) -> str:
    average, other = (models_and_averages(results)[pair[side]] for side in ("first", "second"))
    way = average.get("averaging")
    text = AVERAGE.format(
        **format_estimates(average), other=other["name"], difference=format_estimates(pair),
        members=len(average["averages"]),
    )  # fmt: skip
    return text + (f" Members {way['chosen']} before averaging." if way else "")


def _difference_text(results: dict, pair: dict) -> str:
    names, figure = pair_names(results, pair), pair["melanoma_auc"]
    odds = figure.get("outperforms", UNDEFINED)
    if figure["value"] is None:
        return f"- {names[0]} and {names[1]}: not defined"
    if figure["value"] < 0:
        names.reverse()
        figure = figure | transform_decreasing(figure, lambda difference: -difference)
        odds = transform_decreasing(odds, lambda probability: 1 - probability)
    significant = figure["p_holm"] < 1 - results["interval"]["level"]
    p, by_delong = (format_value(each["p_holm"]) for each in (figure, pair["delong"]))
    beats = f"; a new training beats one of the other with probability {format_estimate(odds)}"
    return (
        f"- {names[0]} over {names[1]}: {format_estimate(figure)}, p {p} (DeLong {by_delong}), "
        f"{'' if significant else 'not '}significant"
        f"{beats if odds['value'] is not None else ''}"
    )
