"""The results of a comparison as tables (CSV, LaTeX) and as a summary in words."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from melanoma_lib.core.files import write_csv, write_text
from melanoma_lib.data.classes import DISPLAY_NAMES
from melanoma_lib.data.layouts import describe_excluded
from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.evaluation.calibration import temperature_note
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.evaluation.subgroups import ATTRIBUTES
from melanoma_lib.explanation.map_metrics import METHOD_NAMES
from melanoma_lib.reporting.compare import COLUMNS, clearly_best

WIDEST = 18  # letters in a line of a table
# Captions by file name; below each stands what the numbers rest on (`describe`).
CAPTIONS = {
    "comparison_table": "The models on the test split. Bold: better than every other model by a "
    "significant difference.",
    "operating_points": "Thresholds on the predicted probability of melanoma, chosen on the "
    "validation split, with sensitivity and specificity on the test split. PPV and NPV: positive "
    "and negative predictive value; these and the last two columns are for lesions with one image "
    "each, with the test split's prevalence of melanoma. The intervals take threshold, temperature "
    "and prevalence as given.",
    "differences": "Differences between the models on the same resamples, with p-values adjusted "
    "for the number of pairs (Holm).",
    "subgroups": "The models on groups of the test split. Small groups have fewer than ten lesions "
    "with melanoma, or without; their intervals are the exact ones for so many.",
    "confident_errors": "The ten errors of each model with the highest confidence.",
    "explanations": "Heat maps scored on the test split, for the class that a model predicts and "
    "for melanoma: fraction of the heat inside the lesion mask, hottest pixel inside, intersection "
    "over union with the map cut where that was best on validation images, faithfulness (ROAD, on "
    "a part of the images), and the first score minus that of a centre prior and of the same "
    "network with random weights. Empty maps have no score.",
    "price_of_leakage": "One architecture trained and tested on data split by lesion and on data "
    "split by image.",
}


@dataclass(frozen=True)
class Table:
    """Rows of texts, numbers and estimates; `heads` holds the printed column heads by name.

    `bold` holds the cells (row number, column) that stand out.
    """

    heads: Mapping[str, str]
    rows: list[dict]
    bold: frozenset[tuple[int, str]] = frozenset()


def comparison_table(results: dict) -> Table:
    """Every model's metrics; bold where it is significantly better than every other model."""
    models = results["models"]
    rows = [
        {"architecture": key, "model": model["name"], "parameters": model["parameters"]}
        | {name: model["metrics"][name] for name in COLUMNS}
        for key, model in models.items()
    ]
    best = {name: clearly_best(results, name) for name in COLUMNS}
    bold = {(list(models).index(key), name) for name, key in best.items() if key}
    heads = {"model": "Architecture", **{name: head for name, (head, _) in COLUMNS.items()}}
    return Table(heads, rows, frozenset(bold))


def operating_points_table(results: dict) -> Table:
    """Every model at every operating point, chosen on validation and reported on test."""
    heads = {
        "model": "Architecture",
        "chosen": "Chosen on validation for",
        "threshold": "Threshold",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "PPV",
        "npv": "NPV",
        "missed": "Missed melanomas per 1,000 lesions",
        "false_alarms": "False alarms per 1,000 lesions",
    }
    rows = [
        {"model": model["name"], "chosen": operating_point_label(point),
         "threshold": point["threshold"], **point["test"]}
        for model in results["models"].values()
        for point in model["operating_points"]
    ]  # fmt: skip
    return Table(heads, rows)


def differences_table(results: dict) -> Table:
    """Every pair of models: differences on the same resamples, with significance tests."""
    heads = {
        "pair": "First minus second",
        "accuracy": "Accuracy",
        "accuracy_p": "Accuracy: p (lesions, Holm)",
        "mcnemar_p": "Accuracy: p (McNemar, Holm)",
        "melanoma_auc": "Melanoma AUC",
        "melanoma_auc_p": "AUC: p (lesions, Holm)",
        "delong_p": "AUC: p (DeLong, Holm)",
    }
    rows = [
        {
            "pair": " − ".join(pair_names(results, pair)),
            "accuracy": pair["accuracy"],
            "accuracy_p": pair["accuracy"]["p_holm"],
            "mcnemar_p": pair["mcnemar"]["p_holm"],
            "melanoma_auc": pair["melanoma_auc"],
            "melanoma_auc_p": pair["melanoma_auc"]["p_holm"],
            "delong_p": pair["delong"]["p_holm"],
        }
        for pair in results["differences"]
    ]
    return Table(heads, rows)


def pair_names(results: dict, pair: dict) -> list[str]:
    """The display names of the two models of a difference."""
    return [results["models"][pair[side]]["name"] for side in ("first", "second")]


def subgroups_table(results: dict) -> Table:
    """Every model in every subgroup of patients; small subgroups are marked."""
    heads = {
        "model": "Architecture",
        "attribute": "By",
        "group": "Group",
        "images": "Images",
        "lesions": "Lesions",
        "melanoma_lesions": "Melanomas (lesions)",
        "small": "Small",
        "accuracy": "Accuracy",
        "melanoma_auc": "Melanoma AUC",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
    }
    rows = [
        {"model": model["name"], **row, "attribute": ATTRIBUTES[row["attribute"]],
         "small": "small" if row["small"] else ""}
        for model in results["models"].values()
        for row in model["subgroups"]
    ]  # fmt: skip
    return Table(heads, rows)


def confident_errors_table(results: dict) -> Table:
    """The most confident errors of every model, by image."""
    heads = {
        "model": "Architecture",
        "image_id": "Image",
        "true": "True diagnosis",
        "predicted": "Predicted",
        "confidence": "Confidence",
    }
    rows = [
        {"model": model["name"], **error, "true": DISPLAY_NAMES[error["true"]],
         "predicted": DISPLAY_NAMES[error["predicted"]]}
        for model in results["models"].values()
        for error in model["confident_errors"]
    ]  # fmt: skip
    return Table(heads, rows)


def explanations_table(results: dict) -> Table:
    """The scores of every model's heat maps, and of the baselines on the same images."""
    heads = {
        "model": "Architecture",
        "network": "Weights",
        "map": "Map",
        "target": "Class",
        "empty": "Empty maps",
        "inside": "Heat inside",
        "pointing": "Hottest pixel inside",
        "iou": "IoU",
        "road": "ROAD",
        "minus_centre": "Inside minus centre prior",
        "minus_random": "Inside minus random",
    }
    nothing = {"value": None, "low": None, "high": None}
    rows = [
        {"model": model["name"], **row, "network": row["network"].replace("none", "–"),
         "map": METHOD_NAMES.get(row["map"], row["map"]),
         "minus_centre": row.get("minus_centre", {"inside": nothing})["inside"],
         "minus_random": row.get("minus_random", {"inside": nothing})["inside"]}
        for model in results["models"].values() if model.get("explanations")
        for row in model["explanations"]["maps"]
    ]  # fmt: skip
    return Table(heads, [{name: row[name] for name in heads} for row in rows])


def leakage_table(price: dict) -> Table:
    """One architecture on the split by lesion and on that by image, with the difference."""
    heads = {
        "metric": price["name"],
        "lesion": "Split by lesion",
        "image": "Split by image",
        "difference": "Image minus lesion",
    }
    sides = {"lesion": price["lesion"]["metrics"], "image": price["image"]["metrics"],
             "difference": price["difference"]}  # fmt: skip
    rows = [
        {"metric": head, **{side: figures[name] for side, figures in sides.items()}}
        for name, (head, _) in COLUMNS.items()
    ]
    return Table(heads, rows)


def external_table(results: dict) -> Table:
    """Every model on the run's own test split and on the external dataset, a row a metric.

    Calibration errors before and after the temperature; sensitivity and specificity at each
    threshold carried over.
    """
    heads = {
        "model": "Architecture",
        "measure": "Measure",
        "own": "Own test split",
        "external": results["dataset"]["name"],
        "difference": "Elsewhere minus own",
    }
    rows = []
    for model in results["models"].values():
        own = model["own"]
        sides = own["metrics"], model["metrics"], own["difference"]
        raw = own["uncalibrated"], model["uncalibrated"], own["difference_uncalibrated"]
        measures = [(head, *(side[name] for side in sides)) for name, (head, _) in COLUMNS.items()]
        measures += [(f"{name.upper()} without temperature", *(side[name] for side in raw))
                     for name in ("ece", "nll")]  # fmt: skip
        measures.append(("NLL", *(side["nll"] for side in sides)))
        for point, there in zip(own["operating_points"], model["operating_points"], strict=True):
            measures += [
                (f"{rate.capitalize()} at {operating_point_label(point)}", point["test"][rate],
                 there["test"][rate], None)
                for rate in ("sensitivity", "specificity")
            ]  # fmt: skip
        rows += [dict(zip(heads, (model["name"], *row), strict=True)) for row in measures]
    return Table(heads, rows)


def all_tables(results: dict) -> dict[str, Table]:
    """Every table of the results by its name; those of a run have `CAPTIONS`."""
    tables = {
        "comparison_table": comparison_table(results),
        "operating_points": operating_points_table(results),
        "differences": differences_table(results),
        "subgroups": subgroups_table(results),
        "confident_errors": confident_errors_table(results),
    }
    if any(model.get("explanations") for model in results["models"].values()):
        tables["explanations"] = explanations_table(results)
    if "price_of_leakage" in results:
        tables["price_of_leakage"] = leakage_table(results["price_of_leakage"])
    if "external" in results:
        tables["external"] = external_table(results)
    return tables


def table_file(name: str) -> str:
    """The path of a table in a run folder, without suffix."""
    return name if name == "comparison_table" else f"tables/{name}"


def write_tables(results: dict, folder: Path) -> list[Path]:
    """Writes every table of the results as CSV (numbers) and LaTeX; needs the package booktabs."""
    paths = []
    for name, table in all_tables(results).items():
        rows, path = [_flat(row) for row in table.rows], folder / table_file(name)
        paths.append(write_csv(path.with_suffix(".csv"), rows, list(table.heads)))
        paths.append(write_text(path.with_suffix(".tex"), latex(table, describe_results(results))))
    return paths


def _flat(row: Mapping) -> dict:
    """A row in which an estimate is three columns: its name, and with `_low` and `_high`."""
    flat: dict = {}
    for name, value in row.items():
        if isinstance(value, dict):
            ends = {f"{name}_{end}": value[end] for end in ("low", "high")}
            flat |= {name: value["value"], **ends}
        else:
            flat[name] = value
    return flat


def latex(table: Table, comment: str) -> str:
    """A LaTeX tabular, with each interval below its value."""
    first = table.rows[0] if table.rows else {}
    sides = ["l" if isinstance(first.get(name, ""), str) else "c" for name in table.heads]
    lines = [
        f"% {comment}",
        f"\\begin{{tabular}}{{{''.join(sides)}}}",
        "\\toprule",
        " & ".join(_wrapped(head, "b") for head in table.heads.values()) + " \\\\",
        "\\midrule",
    ]
    for number, row in enumerate(table.rows):
        cells = [_cell(row[name], (number, name) in table.bold) for name in table.heads]
        lines += [" & ".join(cells) + " \\\\", "\\addlinespace[2pt]"]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _wrapped(text: str, level: str = "t") -> str:
    """A text escaped for LaTeX, in several lines where it would make its column wide.

    level: which line stands beside other cells, "t" the first or "b" the last.
    """
    escaped = escape_latex(text)
    lines = textwrap.wrap(escaped, WIDEST, break_long_words=False, break_on_hyphens=False)
    return _stacked(lines, "l", level) if len(lines) > 1 else "".join(lines)


def _stacked(lines: list[str], side: str, level: str) -> str:
    text = "\\\\".join(lines)
    return f"\\begin{{tabular}}[{level}]{{@{{}}{side}@{{}}}}{text}\\end{{tabular}}"


def _cell(value: object, bold: bool) -> str:
    """A cell in LaTeX: an estimate above its interval, a number, or an escaped text."""
    if not isinstance(value, dict) or value["value"] is None:
        return _wrapped(_text(value))
    text, _, ends = escape_latex(_text(value)).partition(" ")
    text = f"\\textbf{{{text}}}" if bold else text
    return _stacked([text, f"{{\\scriptsize {ends}}}"], "c", "t")


def escape_latex(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    for character in "%&_#":
        text = text.replace(character, f"\\{character}")
    text = re.sub(r"(?<!\w)[-−](?=[\d ])", "$-$", text)  # a minus, not a hyphen
    return text.replace("<", "$<$")


def as_dataframe(table: Table) -> pd.DataFrame:
    """The table as a DataFrame of printed texts under printed column heads."""
    return pd.DataFrame(
        [[_text(row[name]) for name in table.heads] for row in table.rows],
        columns=list(table.heads.values()),
    )


def _text(value: object) -> str:
    """An estimate as `0.892 [0.874, 0.909]`, a number with three decimals, a text unchanged."""
    if isinstance(value, dict):
        return format_estimate(value)
    if value is None:
        return "–"
    if isinstance(value, float):
        return "<0.001" if 0 < value < 0.001 else f"{value:.3f}"
    return str(value)


def describe_results(results: dict) -> str:
    """What the results rest on: dataset, split, test images and interval, in one sentence."""
    basis, warning = f"split by {results['split']}", ""
    if external := results.get("external"):
        basis = f"from outside of the run {results['run']}"
        left_out = external["left_out"]
        warning = f" Left out: {describe_excluded(left_out)}." if left_out else ""
        warning += f" {external['overlap']}." if external["overlap"] else ""
    optimistic = (
        " The split is by image: the held-out images also chose epoch, temperature and "
        "thresholds, and many show lesions seen in training, so every figure is optimistic."
        if results["optimistic"]
        else warning
    )
    return (
        f"{results['dataset']['name']}, {basis}: {results['test_images']} "
        f"test images of {results['test_lesions']} lesions, {results['test_melanomas']} of the "
        f"images and {results['prevalence']:.1%} of the lesions melanomas; "
        f"{results['interval']['level']:.0%} intervals over lesions, "
        f"with one training, temperature and set of thresholds a model.{optimistic}"
    )


def summary(results: dict) -> str:
    """The results in words (summary.md); every number is taken from them."""
    models = sorted(
        results["models"].values(),
        key=lambda model: model["metrics"]["melanoma_auc"]["value"] or 0,
        reverse=True,
    )
    lines = [describe_results(results), ""]
    lines += [_model_text(model, results["prevalence"]) for model in models]
    if results["differences"]:
        lines += ["", "Differences in melanoma AUC, on the same resamples, p adjusted for the "
                  "number of pairs (Holm):", ""]  # fmt: skip
        lines += [_difference_text(results, pair) for pair in results["differences"]]
    if "price_of_leakage" in results:
        lines += ["", _leakage_text(results["price_of_leakage"])]
    if "external" in results:
        lines += ["", "Against the run's own test split, temperature and thresholds unchanged:", ""]
        lines += [_external_text(model) for model in results["models"].values()]
    return "\n".join(lines) + "\n"


def _model_text(model: dict, prevalence: float) -> str:
    metrics, point = model["metrics"], model["operating_points"][0]
    test, note = point["test"], temperature_note(model["temperature"])
    return (
        f"- {model['name']}: melanoma AUC {format_estimate(metrics['melanoma_auc'])}, accuracy "
        f"{format_estimate(metrics['accuracy'])}, balanced accuracy "
        f"{format_estimate(metrics['balanced_accuracy'])}. Temperature {model['temperature']:.2f} "
        f"takes its ECE from {format_estimate(model['uncalibrated']['ece'])} to "
        f"{format_estimate(metrics['ece'])}. At the threshold chosen on validation for a "
        f"{operating_point_label(point)}, test sensitivity is "
        f"{format_estimate(test['sensitivity'])} and specificity "
        f"{format_estimate(test['specificity'])}: with one image each of 1,000 lesions, "
        f"{prevalence:.1%} of them melanomas, {format_estimate(test['missed'])} missed melanomas "
        f"and {format_estimate(test['false_alarms'])} false alarms.{note and ' ' + note}"
    )


def _difference_text(results: dict, pair: dict) -> str:
    names = pair_names(results, pair)
    figure = pair["melanoma_auc"]
    if figure["value"] is None:
        return f"- {names[0]} and {names[1]}: not defined"
    if figure["value"] < 0:
        names.reverse()
        figure = figure | {
            "value": -figure["value"], "low": -figure["high"], "high": -figure["low"]
        }
    significant = figure["p_holm"] < 1 - results["interval"]["level"]
    verdict = "significant" if significant else "not significant"
    return (
        f"- {names[0]} over {names[1]}: {format_estimate(figure)}, p {_text(figure['p_holm'])} "
        f"(DeLong {_text(pair['delong']['p_holm'])}), {verdict}"
    )


def _leakage_text(price: dict) -> str:
    name = "melanoma_auc"
    low, high = (price["difference"][name][end] for end in ("low", "high"))
    significant = low is not None and not low <= 0 <= high
    return (
        f"The price of leakage: {price['name']} reaches a melanoma AUC of "
        f"{format_estimate(price['lesion']['metrics'][name])} split by lesion and of "
        f"{format_estimate(price['image']['metrics'][name])} split by image, a difference of "
        f"{format_estimate(price['difference'][name])}"
        f"{'' if significant else ', not significant'}; one training each."
    )


def _external_text(model: dict) -> str:
    """A model's calibration and first operating point on the external dataset."""
    own, away = model["own"], model["operating_points"][0]
    home = own["operating_points"][0]
    gain = own["gain"]["ece"]
    significant = gain["low"] is not None and not gain["low"] <= 0 <= gain["high"]
    rates = " and ".join(
        f"{rate} {format_estimate(home['test'][rate])} there and "
        f"{format_estimate(away['test'][rate])} here"
        for rate in ("sensitivity", "specificity")
    )
    return (
        f"- {model['name']}: ECE {format_estimate(own['metrics']['ece'])} there and "
        f"{format_estimate(model['metrics']['ece'])} here, a difference of "
        f"{format_estimate(own['difference']['ece'])}. Without the temperature it would be "
        f"{format_estimate(model['uncalibrated']['ece'])} here: what the temperature takes away, "
        f"{format_estimate(gain)}, is {'' if significant else 'not '}significant. At the "
        f"threshold chosen for a {operating_point_label(home)}: {rates}."
    )
