"""The tables of the results: captions, column heads, rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from melanoma_lib.data.classes import DISPLAY_NAMES
from melanoma_lib.evaluation.bootstrap import (
    UNDEFINED,
    format_value,
)
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.evaluation.subgroups import ATTRIBUTES
from melanoma_lib.explanation.map_metrics import METHOD_NAMES, SCORES
from melanoma_lib.explanation.occlusion_metrics import ALTERATIONS
from melanoma_lib.reporting import abstention_tables
from melanoma_lib.reporting.compare import COLUMNS, clearly_best
from melanoma_lib.reporting.leakage import SETS

MELANOMA_COLUMNS = ("melanoma_ece", "melanoma_brier", "calibration_in_the_large")
# Captions by file name; below each stands what the numbers rest on (`describe_results`).
CAPTIONS = {
    "comparison_table": "The models on the test split, and averages of them. Bold: better than "
    "every other model by a significant difference.",
    "operating_points": "Thresholds on the predicted probability of melanoma, chosen on the "
    "validation split, with sensitivity and specificity on the test split. PPV and NPV: positive "
    "and negative predictive value; these and the last two columns are for lesions with one image "
    "each, with the test split's prevalence of melanoma. The intervals take threshold, temperature "
    "and prevalence as given.",
    "differences": "Differences between the models on the same resamples, with p-values adjusted "
    "for the number of pairs (Holm).",
    "averages": "Ensembles minus the network with the best melanoma AUC on validation, and "
    "networks that average an image with its mirror images minus the same networks without. Time: "
    "of all averaged networks, one after the other.",
    "trainings": "Several trainings of each network: standard deviations of a single training's "
    "result, over test lesions and over trainings, and the fraction of the variance of the mean "
    "that more trainings would remove.",
    "outperformance": "The probability that a new training of the first network has better "
    "results than a new training of the second on the same new lesions, with 95% intervals.",
    "subgroups": "The models on groups of the test split. Small groups have fewer than ten lesions "
    "with melanoma, or without; their intervals are the exact ones for so many.",
    "confident_errors": "The ten errors of each model with the highest confidence.",
    "diagnoses": "The models by diagnosis on the test split: recall of the diagnosis that is "
    "decided on, its mean predicted probability minus its frequency, and the calibration error of "
    "its own probability.",
    "explanations": "Heat maps scored on the test split, for the class that a model predicts and "
    "for melanoma: fraction of the heat inside the lesion mask, hottest pixel inside, intersection "
    "over union with the map cut where that was best on validation images, faithfulness (ROAD, on "
    "a part of the images), and the first score minus that of a centre prior and of the same "
    "network with random weights. Empty maps have no score.",
    "occlusion": "The models on altered images of the test split: parts hidden by the lesion "
    "masks, artifacts painted over all images, and removed from those of the generated sample that "
    "show them; images as another lamp, lens or camera would have taken them. Change: minus the "
    "same images as they are.",
    "leakage": "What leakage changes in one architecture, on the same test images: trained with "
    "other images of test lesions minus trained without. Above zero, and for ECE below, the model "
    "looks better than it is.",
    "price_of_leakage": "One architecture trained and tested on data split by lesion and on data "
    "split by image.",
    "risk_coverage": "Area under the risk-coverage curve of each order in which images may be "
    "answered, the most certain first: the mean fraction of errors over all coverages. Less is "
    "better; an order without information has the fraction of errors among all.",
    "referral": "What is left when the least certain images go to a doctor: thresholds chosen on "
    "the validation split, estimates on the test split. Sensitivity and specificity are those of "
    "the first operating point on the rest; found or referred: of all melanomas.",
    "promised_thresholds": "Thresholds that reach their target on validation, and thresholds that "
    "promise it for new lesions. Kept: how often such a threshold reaches its target, chosen on "
    "as many lesions as validation has, drawn from all held-out ones. Rates on the test split, "
    "every lesion weighing the same.",
    "prediction_sets": "Conformal sets of diagnoses on the test split, every lesion weighing the "
    "same.",
    "shifts": "The promises on the same test lesions when the images or the prevalence of melanoma "
    "differ from those of validation: marginal sets, melanoma's coverage by class-conditional "
    "sets, the first operating point, and the referral of a fifth by confidence.",
}


# Column heads by name; a column that is not here is headed by its own name.
HEADS = {name: head for name, (head, _) in COLUMNS.items()} | {
    "model": "Architecture",
    "chosen": "Chosen on validation for",
    "ppv": "PPV",
    "npv": "NPV",
    "missed": "Missed melanomas per 1,000 lesions",
    "false_alarms": "False alarms per 1,000 lesions",
    "pair": "First minus second",
    "pair_of_trainings": "New training of … beats one of …",
    "deviation_lesions": "SD over lesions",
    "deviation_trainings": "SD over trainings",
    "fraction_trainings": "Fraction due to trainings",
    "median_ms": "Time (ms per image)",
    "accuracy_p": "Accuracy: p (Holm)",
    "mcnemar_p": "Accuracy: p (McNemar, Holm)",
    "melanoma_auc_p": "AUC: p (Holm)",
    "delong_p": "AUC: p (DeLong, Holm)",
    "attribute": "By",
    "melanoma_lesions": "Melanomas (lesions)",
    "image_id": "Image",
    "melanoma_ece": "ECE of melanoma",
    "melanoma_brier": "Brier score of melanoma",
    "calibration_in_the_large": "Mean probability minus frequency",
    "true": "True diagnosis",
    "network": "Weights",
    "target": "Class",
    "empty": "Empty",
    "inside": "Heat inside",
    "pointing": "Hottest pixel inside",
    "iou": "IoU",
    "road": "ROAD",
    "minus_centre": "Inside minus centre prior",
    "balanced_accuracy_change": "Balanced accuracy: change",
    "melanoma_auc_change": "AUC: change",
    "score_change": "Melanoma probability: change",
    "minus_random": "Inside minus random",
    "lesion": "Split by lesion",
    "image": "Split by image",
    "difference": "Image minus lesion",
    "own": "Own test split",
    "leaked_fraction": "Leaked fraction",
    "set": "Test images",
    "order": "Ordered by",
    "area": "Area under the curve",
    "minus_confidence": "Minus that by confidence",
    "fraction": "To be referred",
    "found_or_referred": "Melanomas found or referred",
    "kind": "Threshold",
    "kept": "Promise kept",
    "coverage": "Coverage",
    "melanoma_coverage": "Coverage of melanoma",
    "holds_melanoma": "Melanoma in the set",
    "class_conditional": "Coverage of melanoma, class-conditional",
}


@dataclass(frozen=True)
class Table:
    """Rows of texts, numbers and estimates; `heads` holds the printed column heads by name.

    `bold` holds the cells (row number, column) that stand out.
    """

    heads: Mapping[str, str]
    rows: list[dict]
    bold: frozenset[tuple[int, str]] = frozenset()


def _of_models(rows_of: Callable[[dict], Iterable[dict]]) -> Callable[[dict], Iterator[dict]]:
    """Makes the rows of a model those of every model and average of the results, with its name."""

    def rows(results: dict) -> Iterator[dict]:
        for model in models_and_averages(results).values():
            for row in rows_of(model):
                yield {"model": model["name"], **row}

    return rows


def _comparison(results: dict) -> Iterator[dict]:
    for key, model in models_and_averages(results).items():
        yield {"architecture": key, "model": model["name"], "parameters": model["parameters"],
               **{name: model["metrics"][name] for name in COLUMNS}}  # fmt: skip


def _operating_points(model: dict) -> list[dict]:
    return [
        {"chosen": operating_point_label(point), "threshold": point["threshold"], **point["test"]}
        for point in model["operating_points"]
    ]


def _differences(results: dict) -> Iterator[dict]:
    for pair in results["differences"]:
        accuracy, auc = pair["accuracy"], pair["melanoma_auc"]
        yield {
            "pair": " − ".join(pair_names(results, pair)),
            "accuracy": accuracy, "accuracy_p": accuracy["p_holm"],
            "mcnemar_p": pair["mcnemar"]["p_holm"],
            "melanoma_auc": auc, "melanoma_auc_p": auc["p_holm"],
            "delong_p": pair["delong"]["p_holm"],
        }  # fmt: skip


def models_and_averages(results: dict) -> dict[str, dict]:
    """The models of the results, and what is averaged of them, by key."""
    return results["models"] | results.get("ensembles", {})


def pair_names(results: dict, pair: dict) -> list[str]:
    """The display names of the two models of a difference."""
    return [models_and_averages(results)[pair[side]]["name"] for side in ("first", "second")]


def _averages(results: dict) -> Iterator[dict]:
    for pair in results.get("ensemble_differences", []):
        latency = results["ensembles"][pair["first"]].get("latency") or {"median_ms": None}
        yield {"pair": " − ".join(pair_names(results, pair)), "median_ms": latency["median_ms"],
               **{name: pair[name] for name in COLUMNS}}  # fmt: skip


def _trainings(results: dict) -> Iterator[dict]:
    for model in results["models"].values():
        for name, (head, _) in COLUMNS.items():
            if variance := model["metrics"][name].get("variance"):
                of_trainings = variance["trainings"] + variance["interaction"]
                yield {
                    "model": model["name"], "metric": head, "mean": model["metrics"][name],
                    "deviation_lesions": variance["lesions"] ** 0.5,
                    "deviation_trainings": of_trainings**0.5,
                    "fraction_trainings": model["metrics"][name]["fraction_trainings"],
                }  # fmt: skip


def _outperformance(results: dict) -> Iterator[dict]:
    for pair in results["differences"]:
        if all("outperforms" in pair[name] for name in COLUMNS):
            yield {"pair_of_trainings": ", ".join(pair_names(results, pair)),
                   **{name: pair[name]["outperforms"] for name in COLUMNS}}  # fmt: skip


def _subgroups(model: dict) -> list[dict]:
    return [
        row | {"attribute": ATTRIBUTES[row["attribute"]], "small": "small" if row["small"] else ""}
        for row in model["subgroups"]
    ]


def _diagnoses(model: dict) -> list[dict]:
    return [
        row | {"diagnosis": DISPLAY_NAMES[row["diagnosis"]]} for row in model.get("diagnoses", [])
    ]


def _confident_errors(model: dict) -> list[dict]:
    return [
        error | {side: DISPLAY_NAMES[error[side]] for side in ("true", "predicted")}
        for error in model["confident_errors"]
    ]


def _explanations(model: dict) -> Iterator[dict]:
    nothing = {"inside": UNDEFINED}
    for row in (model.get("explanations") or {"maps": []})["maps"]:
        yield {
            "network": row["network"].replace("none", "–"),
            "map": METHOD_NAMES.get(row["map"], row["map"]),
            **{name: row[name] for name in ("target", "empty", *SCORES)},
            **{name: row.get(name, nothing)["inside"] for name in ("minus_centre", "minus_random")},
        }


def _occlusion(model: dict) -> Iterator[dict]:
    for row in model.get("occlusion") or []:
        yield {
            "alteration": ALTERATIONS[row["alteration"]], "images": row["images"],
            **row["metrics"],
            **{f"{name}_change": row["minus_original"][name] for name in row["metrics"]},
            "score_change": row["melanoma_score_change"],
        }  # fmt: skip


def _leakage(results: dict) -> Iterator[dict]:
    for design in results.get("leakage", {"fractions": []})["fractions"]:
        for name, found in design["sets"].items():
            changed = found["difference"]
            yield {
                "leaked_fraction": design["leaked_fraction"], "set": SETS[name],
                "images": found["images"], **changed,
                **{f"{metric}_p": changed[metric]["p"] for metric in COLUMNS},
            }  # fmt: skip


def _price_of_leakage(results: dict) -> Iterator[dict]:
    if price := results.get("price_of_leakage"):
        for name, (head, _) in COLUMNS.items():
            sides = {split: price[split]["metrics"][name] for split in ("lesion", "image")}
            yield {"metric": head, **sides, "difference": price["difference"][name]}


def _external(model: dict) -> Iterator[dict]:
    """Metrics, calibration errors without the temperature, and both rates at each threshold."""
    if not (own := model.get("own")):
        return
    raw = {
        "ece": "ECE without temperature", "nll": "NLL without temperature",
        "melanoma_ece": "ECE of melanoma without temperature",
    }  # fmt: skip
    calibrated = {name: HEADS[name] for name in (*COLUMNS, *MELANOMA_COLUMNS)}
    for field, suffix, heads in (
        ("metrics", "", calibrated),
        ("uncalibrated", "_uncalibrated", raw),
        ("metrics", "", {"nll": "NLL"}),
    ):
        for name, head in heads.items():
            if name not in own[field]:
                continue
            yield {"measure": head, "own": own[field][name], "external": model[field][name],
                   "difference": own[f"difference{suffix}"][name]}  # fmt: skip
    for point, there in zip(own["operating_points"], model["operating_points"], strict=True):
        for rate in ("sensitivity", "specificity"):
            yield {"measure": f"{rate.capitalize()} at {operating_point_label(point)}",
                   "own": point["test"][rate], "external": there["test"][rate],
                   "difference": None}  # fmt: skip


# The columns that a table shows, and its rows, which hold more in CSV.
TABLES = {
    "comparison_table": (" ".join(["model", *COLUMNS]), _comparison),
    "operating_points": (
        "model chosen threshold sensitivity specificity ppv npv missed false_alarms",
        _of_models(_operating_points),
    ),
    "differences": (
        "pair accuracy accuracy_p mcnemar_p melanoma_auc melanoma_auc_p delong_p", _differences
    ),
    "averages": (" ".join(["pair", *COLUMNS, "median_ms"]), _averages),
    "trainings": (
        "model metric mean deviation_lesions deviation_trainings fraction_trainings", _trainings
    ),
    "outperformance": (" ".join(["pair_of_trainings", *COLUMNS]), _outperformance),
    "subgroups": (
        "model attribute group images lesions melanoma_lesions small accuracy melanoma_auc "
        "sensitivity specificity",
        _of_models(_subgroups),
    ),
    "diagnoses": (
        "model diagnosis images lesions recall calibration_in_the_large ece",
        _of_models(_diagnoses),
    ),
    "confident_errors": (
        "model image_id true predicted confidence", _of_models(_confident_errors)
    ),
    "explanations": (
        "model network map target empty inside pointing iou road minus_centre minus_random",
        _of_models(_explanations),
    ),
    "occlusion": (
        "model alteration images balanced_accuracy melanoma_auc balanced_accuracy_change "
        "melanoma_auc_change score_change",
        _of_models(_occlusion),
    ),
    "leakage": (" ".join(["leaked_fraction set images", *COLUMNS]), _leakage),
    "price_of_leakage": ("metric lesion image difference", _price_of_leakage),
    "external": ("model measure own external difference", _of_models(_external)),
    "risk_coverage": ("model order area minus_confidence", abstention_tables.risk_coverage_rows),
    "referral": (
        "model order fraction referred accuracy sensitivity specificity found_or_referred",
        abstention_tables.referral_rows,
    ),
    "promised_thresholds": (
        "model chosen kind threshold kept sensitivity specificity",
        abstention_tables.threshold_rows,
    ),
    "prediction_sets": (
        "model sets coverage melanoma_coverage holds_melanoma size single empty",
        abstention_tables.set_rows,
    ),
    "shifts": (
        "shift model coverage melanoma_coverage size class_conditional sensitivity specificity "
        "referred accuracy",
        abstention_tables.shift_rows,
    ),
}
MELANOMA_TABLES = ("operating_points", "external")  # where only melanoma or not is known
# Written even without rows.
ALWAYS = ("comparison_table", "operating_points", "differences", "subgroups", "confident_errors")


def table(results: dict, name: str) -> Table:
    """One of `TABLES`; bold is a model that is significantly better than every other."""
    columns, rows_of = TABLES[name]
    heads = {column: HEADS.get(column, column.capitalize()) for column in columns.split()}
    if name == "external":
        heads |= {"external": results["dataset"]["name"], "difference": "Elsewhere minus own"}
    if name == "price_of_leakage":
        heads["metric"] = results.get("price_of_leakage", {}).get("name", "")
    bold = set()
    if name == "comparison_table":
        best = {metric: clearly_best(results, metric) for metric in COLUMNS}
        keys = list(results["models"])
        bold = {(keys.index(key), metric) for metric, key in best.items() if key}
    return Table(heads, list(rows_of(results)), frozenset(bold))


def as_dataframe(table: Table) -> pd.DataFrame:
    """The table as a DataFrame of printed texts under printed column heads."""
    return pd.DataFrame(
        [[format_value(row[name]) for name in table.heads] for row in table.rows],
        columns=list(table.heads.values()),
    )


def all_tables(results: dict) -> dict[str, Table]:
    """Every table of the results by its name; those of a run have `CAPTIONS`."""
    tables = {name: table(results, name) for name in _tables_of(results)}
    return {name: made for name, made in tables.items() if made.rows or name in ALWAYS}


def _tables_of(results: dict) -> Iterable[str]:
    return MELANOMA_TABLES if only_melanoma(results) else TABLES


def only_melanoma(results: dict) -> bool:
    """Whether the test images say no more than melanoma or not."""
    return results.get("external", {}).get("melanoma_only", False)
