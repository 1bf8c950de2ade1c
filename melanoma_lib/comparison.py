"""Many trained models side by side: comparison_results.json, the tables, a summary in words.

The fields of the results are documented in docs/results.md.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from melanoma_lib.artifacts import MelanomaError, offenders, read_json, write_csv, write_text
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.intervals import LEVEL, RESAMPLES, estimate, lesion_weights
from melanoma_lib.metrics import confusion_matrix, sensitivity, specificity, table_metrics
from melanoma_lib.predictions import Predictions, load_predictions

SCHEMA = 1
CALIBRATION = ("ece", "ece_equal_mass", "classwise_ece", "mce", "brier", "nll")

# What the tables show: the metric, its column head, and whether more is better.
COLUMNS = {
    "accuracy": ("Accuracy", True),
    "balanced_accuracy": ("Balanced accuracy", True),
    "melanoma_auc": ("Melanoma AUC", True),
    "melanoma_average_precision": ("Melanoma AP", True),
    "macro_f1": ("Macro F1", True),
    "ece": ("ECE", False),
}


def compare(run_dir: Path, latency: Mapping[str, dict], resamples: int = RESAMPLES) -> dict:
    """The results of several trained architectures of one run, ready for JSON.

    `latency` names them and says how fast each is (see `experiment.latency`). Raises
    `MelanomaError` when one is not trained, or when they were not evaluated on the same images.
    """
    architectures = list(latency)
    records = {key: read_json(run_dir / key / "run.json") for key in architectures}
    unfinished = [key for key, record in records.items() if not record.get("finished")]
    if unfinished:
        raise MelanomaError(f"not trained yet in {run_dir}: {offenders(unfinished)}")
    predictions = {
        key: load_predictions(run_dir / key / "predictions.parquet") for key in architectures
    }
    first = predictions[architectures[0]]
    for key, other in predictions.items():
        if other.class_names != CLASS_NAMES:
            raise MelanomaError(f"{key} has other classes: {offenders(other.class_names)}")
        if not np.array_equal(other.image_ids, first.image_ids):
            raise MelanomaError(f"{key} was evaluated on other images; train it again")
    test = first.part("test")
    weights = lesion_weights(test.lesion_ids, resamples)
    bundles = {key: read_json(run_dir / key / "bundle.json") for key in architectures}
    dataset, config = (records[architectures[0]][name] for name in ("dataset", "config"))
    return {
        "schema": SCHEMA,
        "run": run_dir.name,
        "dataset": dataset,
        "split": config["split"],
        "optimistic": config["split"] == "image",
        "class_names": CLASS_NAMES,
        "interval": {"level": LEVEL, "resamples": resamples, "unit": "lesion"},
        "test_images": len(test.labels),
        "test_lesions": len(np.unique(test.lesion_ids)),
        "test_melanomas": int(test.is_melanoma.sum()),
        "models": {
            key: evaluate(records[key], bundles[key], predictions[key], weights)
            | {"latency": latency[key]}
            for key in architectures
        },
        "differences": [
            difference(predictions, bundles, pair, weights)
            for pair in combinations(architectures, 2)
        ],
    }


def difference(predictions: dict, bundles: dict, pair: tuple[str, str], weights) -> dict:
    """How much two models differ on the same resamples, the first minus the second."""
    tests = [predictions[key].part("test") for key in pair]
    probabilities = [
        test.probabilities(bundles[key]["temperature"])
        for test, key in zip(tests, pair, strict=True)
    ]
    metrics = table_metrics(CLASS_NAMES.index(MELANOMA))

    def minus(metric):
        return lambda labels, p, q, w: metric(labels, p, w) - metric(labels, q, w)

    figures = {
        name: estimate(minus(metrics[name]), tests[0].labels, *probabilities, weights=weights)
        for name in ("accuracy", "melanoma_auc")
    }
    return {"first": pair[0], "second": pair[1], **figures}


def evaluate(record: dict, bundle: dict, predictions: Predictions, weights: np.ndarray) -> dict:
    """One model's figures on the test part, each with its interval over lesions.

    Temperature and thresholds come from the bundle, where validation put them.
    """
    validation, test = predictions.part("val"), predictions.part("test")
    temperature = bundle["temperature"]
    metrics = table_metrics(CLASS_NAMES.index(MELANOMA))

    def all_metrics(names, probabilities) -> dict:
        return {
            name: estimate(metrics[name], test.labels, probabilities, weights=weights)
            for name in names
        }

    calibrated = test.probabilities(temperature)
    return {
        **{name: record[name] for name in RECORDED},
        "temperature": temperature,
        "metrics": all_metrics(metrics, calibrated),
        "uncalibrated": all_metrics(CALIBRATION, test.probabilities()),
        "operating_points": [
            point
            | {
                "validation": rates_at(validation, temperature, point["threshold"]),
                "test": rates_at(test, temperature, point["threshold"], weights),
            }
            for point in bundle["operating_points"]
        ],
        "confusion_matrix": confusion_matrix(test.labels, calibrated).astype(int).tolist(),
    }


RECORDED = (
    "name",
    "timm_name",
    "parameters",
    "epochs",
    "best_epoch",
    "train_seconds",
    "device",
)


def rates_at(
    predictions: Predictions,
    temperature: float,
    threshold: float,
    weights: np.ndarray | None = None,
) -> dict:
    """Sensitivity and specificity of one part, as figures if there are resamples, else plain."""
    positive, scores = predictions.is_melanoma, predictions.melanoma_score(temperature)

    def one(metric, kind):
        if weights is None:
            return float(metric(positive, scores, threshold))
        lesions = len(np.unique(predictions.lesion_ids[kind]))
        return estimate(metric, positive, scores, threshold, weights=weights, lesions=lesions)

    return {"sensitivity": one(sensitivity, positive), "specificity": one(specificity, ~positive)}


def interval_text(figure: dict, digits: int = 3) -> str:
    """`0.892 [0.874, 0.909]`, or a dash for a figure that is not defined."""
    if figure["value"] is None:
        return "–"
    value, low, high = (f"{figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def write_tables(results: dict, folder: Path) -> list[Path]:
    """Writes comparison_table.csv (numbers) and comparison_table.tex (booktabs)."""
    rows = []
    for key, model in results["models"].items():
        row = {"architecture": key, "name": model["name"], "parameters": model["parameters"]}
        for metric in COLUMNS:
            row |= {
                metric + suffix: model["metrics"][metric][part]
                for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
        rows.append(row)
    return [
        write_csv(folder / "comparison_table.csv", rows),
        write_text(folder / "comparison_table.tex", latex_table(results)),
    ]


def latex_table(results: dict) -> str:
    """The comparison as a LaTeX table; needs the package booktabs."""
    heads = " & ".join(head for head, _ in COLUMNS.values())
    lines = [
        f"% {describe(results)}",
        f"\\begin{{tabular}}{{l{'c' * len(COLUMNS)}}}",
        "\\toprule",
        f"Architecture & {heads} \\\\",
        "\\midrule",
    ]
    for model in results["models"].values():
        cells = [_latex_cell(model["metrics"][metric]) for metric in COLUMNS]
        lines.append(f"{model['name'].replace('_', chr(92) + '_')} & {' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_cell(figure: dict) -> str:
    value, _, interval = interval_text(figure).partition(" ")
    return f"\\shortstack{{{value}\\\\{{\\scriptsize {interval}}}}}"


def describe(results: dict) -> str:
    """What the figures rest on, in one sentence."""
    optimistic = (
        " The split is by image: the held-out images also chose epoch, temperature and "
        "thresholds, and many show lesions seen in training, so every figure is optimistic."
        if results["optimistic"]
        else ""
    )
    return (
        f"{results['dataset']['name']}, split by {results['split']}: {results['test_images']} "
        f"test images of {results['test_lesions']} lesions, {results['test_melanomas']} of the "
        f"images melanomas; {results['interval']['level']:.0%} intervals over lesions, one "
        f"training a model.{optimistic}"
    )


def summary(results: dict) -> str:
    """The outcome in words, every number taken from the results."""
    models = sorted(
        results["models"].values(),
        key=lambda model: model["metrics"]["melanoma_auc"]["value"] or 0,
        reverse=True,
    )
    lines = [describe(results), ""]
    for model in models:
        metrics = model["metrics"]
        point = model["operating_points"][0]
        lines.append(
            f"- {model['name']}: melanoma AUC {interval_text(metrics['melanoma_auc'])}, accuracy "
            f"{interval_text(metrics['accuracy'])}, balanced accuracy "
            f"{interval_text(metrics['balanced_accuracy'])}. Temperature "
            f"{model['temperature']:.2f} takes its ECE from "
            f"{interval_text(model['uncalibrated']['ece'])} to {interval_text(metrics['ece'])}. "
            f"At the threshold chosen for {point['criterion']} >= {point['target']:.0%} on "
            f"validation, test sensitivity is {interval_text(point['test']['sensitivity'])} and "
            f"specificity {interval_text(point['test']['specificity'])}."
        )
    if results["differences"]:
        lines += ["", "Differences in melanoma AUC, on the same resamples:", ""]
        lines += [f"- {_difference_text(results, pair)}" for pair in results["differences"]]
    return "\n".join(lines) + "\n"


def _difference_text(results: dict, pair: dict) -> str:
    names = [results["models"][pair[side]]["name"] for side in ("first", "second")]
    figure = pair["melanoma_auc"]
    if figure["value"] is None:
        return f"{names[0]} and {names[1]}: not defined"
    if figure["value"] < 0:
        names.reverse()
        figure = {
            "value": -figure["value"], "low": -figure["high"], "high": -figure["low"]
        }
    verdict = "clear of zero" if figure["low"] > 0 else "not settled by these images"
    return f"{names[0]} over {names[1]}: {interval_text(figure)}, {verdict}"
