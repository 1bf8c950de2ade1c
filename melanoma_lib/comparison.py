"""Many trained models side by side: comparison_results.json, from predictions alone.

The fields of the results are documented in docs/results.md.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.artifacts import MelanomaError, offenders, read_json
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.intervals import (
    FEW,
    LEVEL,
    RESAMPLES,
    SEED,
    difference,
    estimate,
    interval,
    lesion_weights,
    p_value,
    resample,
    varies,
)
from melanoma_lib.map_scores import agreement, summarise
from melanoma_lib.metrics import (
    confusion_matrix,
    sensitivity,
    specificity,
    table_metrics,
    top_class,
)
from melanoma_lib.predictions import Predictions, load_predictions
from melanoma_lib.significance import delong, holm, mcnemar
from melanoma_lib.subgroups import by_subgroup, confident_errors
from melanoma_lib.thresholds import per_thousand, predictive_values

SCHEMA = 2
CALIBRATION = ("ece", "ece_equal_mass", "classwise_ece", "mce", "brier", "nll")
METRICS = table_metrics(CLASS_NAMES.index(MELANOMA))

# What the tables show: the metric, its column head, and whether more is better.
COLUMNS = {
    "accuracy": ("Accuracy", True),
    "balanced_accuracy": ("Balanced accuracy", True),
    "melanoma_auc": ("Melanoma AUC", True),
    "melanoma_average_precision": ("Melanoma AP", True),
    "macro_f1": ("Macro F1", True),
    "ece": ("ECE", False),
}
RECORDED = (
    "name", "timm_name", "parameters", "epochs", "best_epoch", "train_seconds", "device"
)  # fmt: skip


def compare(
    run_dir: Path,
    latency: Mapping[str, dict],
    metadata: pd.DataFrame,
    resamples: int = RESAMPLES,
) -> dict:
    """The results of several trained architectures of one run, ready for JSON.

    `latency` names them and says how fast each is (see `experiment.latency`); `metadata` is the
    dataset's table, for the groups of patients. Raises `MelanomaError` when one is not trained,
    or when they were not trained in the same precision or evaluated on the same images.
    """
    models = {key: load(run_dir / key) for key in latency}
    require_one_precision({key: record for key, (record, *_) in models.items()})
    results = side_by_side(run_dir.name, models, metadata, resamples)
    test = next(iter(models.values()))[2].part("test")
    weights = lesion_weights(test.lesion_ids, resamples)
    for key, speed in latency.items():
        _, bundle, predictions = models[key]
        results["models"][key] |= {
            "latency": speed,
            "explanations": summarise(run_dir / key, bundle, predictions.part("test"), weights),
        }
    for row in results["differences"]:
        pair = row["first"], row["second"]
        if all(results["models"][key]["explanations"] for key in pair):
            row["agreement"] = agreement([run_dir / key for key in pair], test, weights)
    return results


def side_by_side(
    run: str, models: Mapping[str, tuple], metadata: pd.DataFrame, resamples: int = RESAMPLES
) -> dict:
    """The results of models on the same test part; each is what `load` gives, by its key.

    `metadata` and errors as in `compare`; of the fields only `latency` and `explanations` are
    missing.
    """
    record, _, first = next(iter(models.values()))
    for key, (_, _, other) in models.items():
        if not np.array_equal(other.image_ids, first.image_ids):
            raise MelanomaError(f"{key} was evaluated on other images; train it again")
    test = first.part("test")
    lesions, melanomas = len(np.unique(test.lesion_ids)), _lesions(test, test.is_melanoma)
    weights = lesion_weights(test.lesion_ids, resamples)
    drawn = {key: draw(*models[key][1:], weights) for key in models}
    return {
        "schema": SCHEMA,
        "run": run,
        "dataset": record["dataset"],
        "split": record["config"]["split"],
        "optimistic": record["config"]["split"] == "image",
        "class_names": CLASS_NAMES,
        "interval": {"level": LEVEL, "resamples": resamples, "unit": "lesion"},
        "test_images": len(test.labels),
        "test_lesions": lesions,
        "test_melanomas": int(test.is_melanoma.sum()),
        "prevalence": melanomas / lesions,
        "models": {
            key: evaluate(*models[key], drawn[key], weights, metadata) for key in models
        },
        "differences": differences(models, drawn),
    }


def load(folder: Path) -> tuple[dict, dict, Predictions]:
    """The record, the bundle's facts and the predictions of one trained architecture.

    Raises `MelanomaError` when it is not trained to the end, or for other classes than ours.
    """
    record = read_json(folder / "run.json")
    if not record.get("finished"):
        raise MelanomaError(f"not trained yet in {folder.parent}: {folder.name}")
    missing = [name for name in (*RECORDED, "dataset", "config") if name not in record]
    if missing:
        raise MelanomaError(f"{folder / 'run.json'} lacks {offenders(missing)}; train again")
    predictions = load_predictions(folder / "predictions.parquet")
    if predictions.class_names != CLASS_NAMES:
        raise MelanomaError(f"{folder} has other classes: {offenders(predictions.class_names)}")
    return record, read_json(folder / "bundle.json"), predictions


def require_one_precision(records: Mapping[object, Mapping]) -> None:
    """Raises `MelanomaError` when trainings, by name, did not all compute in the same precision.

    Their differences would be those of the precisions as well. Records of before there were
    several precisions hold none: it was float32.
    """
    used = {
        name: record.get("arithmetic", {}).get("precision", "float32")
        for name, record in records.items()
    }
    if len(set(used.values())) > 1:
        found = ", ".join(f"{name} in {precision}" for name, precision in used.items())
        raise MelanomaError(
            f"trained in different precisions, so not comparable: {found}; train them in one, with "
            "melanoma run --precision float32 or bfloat16 and what else they were run with"
        )


def draw(bundle: dict, predictions: Predictions, weights: np.ndarray) -> dict[str, tuple]:
    """Every metric on the test part, at the model's temperature, as `interval` takes it.

    Its value, its resamples, and how many lesions decide it at least: all of them for accuracy,
    else those of the rarest kind it looks at; None for a calibration error.
    """
    test = predictions.part("test")
    probabilities = test.probabilities(bundle["temperature"])
    rarest = min(_lesions(test, test.labels == label) for label in np.unique(test.labels))
    of_melanoma = min(_lesions(test, test.is_melanoma), _lesions(test, ~test.is_melanoma))
    deciding = dict.fromkeys(METRICS, rarest) | dict.fromkeys(CALIBRATION)
    deciding |= {"accuracy": _lesions(test, test.labels >= 0), "melanoma_auc": of_melanoma,
                 "melanoma_average_precision": of_melanoma}  # fmt: skip
    return {
        name: (*resample(metric, test.labels, probabilities, weights=weights), deciding[name])
        for name, metric in METRICS.items()
    }


def _lesions(part: Predictions, rows: np.ndarray) -> int:
    """How many lesions some rows of a part show; `rows` boolean (n,)."""
    return len(np.unique(part.lesion_ids[rows]))


def evaluate(
    record: dict,
    bundle: dict,
    predictions: Predictions,
    drawn: dict[str, tuple],
    weights: np.ndarray,
    metadata: pd.DataFrame,
) -> dict:
    """One model's figures on the test part, each with its interval over lesions.

    Temperature and thresholds come from the bundle, where validation put them.
    """
    test, points = predictions.part("test"), bundle["operating_points"]
    temperature = bundle["temperature"]
    return {
        **{name: record[name] for name in RECORDED},
        **measured(bundle, predictions, drawn, weights),
        "subgroups": by_subgroup(test, metadata, temperature, points[0]["threshold"], weights),
        "confident_errors": confident_errors(test, temperature),
    }


def measured(
    bundle: dict, predictions: Predictions, drawn: dict[str, tuple], weights: np.ndarray
) -> dict:
    """Those of one model's figures that need neither its record nor a table of patients."""
    validation, test = predictions.part("val"), predictions.part("test")
    temperature = bundle["temperature"]
    return {
        "temperature": temperature,
        "metrics": {name: interval(*each) for name, each in drawn.items()},
        "uncalibrated": {
            name: estimate(METRICS[name], test.labels, test.probabilities(), weights=weights)
            for name in CALIBRATION
        },
        "operating_points": [
            point
            | {
                "validation": rates_at(validation, temperature, point["threshold"]),
                "test": figures_at(test, temperature, point["threshold"], weights),
            }
            for point in bundle["operating_points"]
        ],
        "confusion_matrix": confusion_matrix(test.labels, test.probabilities())
        .astype(int)
        .tolist(),
    }


def rates_at(predictions: Predictions, temperature: float, threshold: float) -> dict[str, float]:
    """Sensitivity and specificity of one part at a threshold, as plain numbers."""
    scored = predictions.is_melanoma, predictions.melanoma_score(temperature), threshold
    return {metric.__name__: float(metric(*scored)) for metric in (sensitivity, specificity)}


def figures_at(
    test: Predictions,
    temperature: float,
    threshold: float,
    weights: np.ndarray,
    prevalence: float | None = None,
) -> dict[str, dict]:
    """The figures of one operating point: sensitivity, specificity, and what they mean in use.

    Both are shares of images. `ppv` and `npv` (shares), `missed` melanomas and `false_alarms` per
    1,000 are of lesions with one image each, where melanoma is as common as `prevalence` says;
    without it, as among the lesions of the part.
    """
    positive = test.is_melanoma
    scored = positive, test.melanoma_score(temperature), threshold
    melanomas, others = _lesions(test, positive), _lesions(test, ~positive)
    if prevalence is None:
        prevalence = melanomas / len(np.unique(test.lesion_ids))
    drawn = [
        (*resample(rate, *scored, weights=weights), lesions)
        for rate, lesions in ((sensitivity, melanomas), (specificity, others))
    ]
    rates = [interval(*rate, share=True) for rate in drawn]
    return {
        "sensitivity": rates[0],
        "specificity": rates[1],
        **_predictive_figures(drawn, rates, prevalence),
        "missed": _falling(rates[0], lambda rate: per_thousand(rate, rate, prevalence)[0]),
        "false_alarms": _falling(rates[1], lambda rate: per_thousand(rate, rate, prevalence)[1]),
    }


def _predictive_figures(drawn: list[tuple], rates: list[dict], prevalence: float) -> dict:
    """`ppv` and `npv` from sensitivity and specificity, as drawn and as figures.

    Where the resamples of either rate tell nothing, both rates are taken at their low ends, and
    at their high ends: both values rise with them, and such an interval is too wide if anything.
    """
    values, draws, lesions = zip(*drawn, strict=True)
    value, resampled = (predictive_values(*pair, prevalence) for pair in (values, draws))
    told = min(lesions) >= FEW and all(varies(each) for each in draws)
    figures = {}
    for index, name in enumerate(("ppv", "npv")):
        figures[name] = interval(value[index], resampled[index])
        if figures[name]["value"] is not None and not told:
            for end in ("low", "high"):
                pair = (rate[end] for rate in rates)
                figures[name][end] = float(predictive_values(*pair, prevalence)[index])
    return figures


def _falling(figure: dict, function: Callable[[float], float]) -> dict:
    """A figure carried through a function that falls, so that the interval's ends change places."""
    if figure["value"] is None:
        return figure
    ends = {"value": "value", "low": "high", "high": "low"}
    return {name: float(function(figure[other])) for name, other in ends.items()}


def differences(models: Mapping[str, tuple], drawn: Mapping[str, dict]) -> list[dict]:
    """How much every two models differ on the same resamples, the first minus the second.

    Each figure of `COLUMNS` has `p` and `p_holm`, adjusted for the number of pairs. Beside them
    `mcnemar` (accuracy) and `delong` (melanoma AUC), which take images for independent.
    """
    rows = []
    for pair in combinations(models, 2):
        row: dict = dict(zip(("first", "second"), pair, strict=True))
        for name in COLUMNS:
            first, second = (drawn[key][name] for key in pair)
            row[name] = difference(first, second) | {"p": p_value(first[1] - second[1])}
        tests = [models[key][2].part("test") for key in pair]
        right = [top_class(test.labels, test.probabilities())[1] for test in tests]
        scores = [
            test.melanoma_score(models[key][1]["temperature"])
            for key, test in zip(pair, tests, strict=True)
        ]
        rows.append(row | {"mcnemar": mcnemar(*right),
                           "delong": delong(tests[0].is_melanoma, *scores)})  # fmt: skip
    for name in (*COLUMNS, "mcnemar", "delong"):
        adjusted = holm(np.array([row[name]["p"] for row in rows], float))
        for row, p in zip(rows, adjusted, strict=True):
            row[name]["p_holm"] = float(p) if np.isfinite(p) else None
    return rows


def clearly_best(results: dict, metric: str) -> str | None:
    """The model that is better than every other by a significant difference, if there is one."""
    more_is_better = COLUMNS[metric][1]
    values = {key: model["metrics"][metric]["value"] for key, model in results["models"].items()}
    values = {key: value for key, value in values.items() if value is not None}
    if len(values) < 2:
        return None
    best = (max if more_is_better else min)(values, key=values.get)
    pairs = [pair for pair in results["differences"] if best in (pair["first"], pair["second"])]
    adjusted = [pair[metric]["p_holm"] for pair in pairs]
    return best if all(p is not None and p < 1 - LEVEL for p in adjusted) else None


def price_of_leakage(
    run_dir: Path, other_dir: Path, key: str, resamples: int = RESAMPLES
) -> dict:
    """One architecture trained on the split by lesion and on that by image, side by side.

    Fields: `architecture`, `name`, `lesion` and `image` (each with `test_images`,
    `test_lesions` and `metrics`), and `difference`, image minus lesion, from separate resamples
    of the two test parts. Raises `MelanomaError` unless the two runs differ in the split alone.
    """
    sides: dict[str, dict] = {}
    for folder in (run_dir / key, other_dir / key):
        record, bundle, predictions = load(folder)
        test = predictions.part("test")
        split = record["config"]["split"]
        weights = lesion_weights(test.lesion_ids, resamples, seed=SEED + len(sides))
        sides[split] = {"record": record, "test": test, "drawn": draw(bundle, predictions, weights)}
    if set(sides) != {"lesion", "image"}:
        raise MelanomaError(f"{run_dir} and {other_dir} must be one run by lesion and one by image")
    require_one_precision({f"{key} by {name}": side["record"] for name, side in sides.items()})
    first, second = (side["record"] for side in sides.values())
    if any(first.get(name) != second.get(name) for name in ("recipe", "epochs")):
        raise MelanomaError(f"{run_dir} and {other_dir} differ in more than the split")
    figures = {
        split: {
            "test_images": len(side["test"].labels),
            "test_lesions": len(np.unique(side["test"].lesion_ids)),
            "metrics": {name: interval(*side["drawn"][name]) for name in COLUMNS},
        }
        for split, side in sides.items()
    }
    return {
        "architecture": key,
        "name": sides["lesion"]["record"]["name"],
        **figures,
        "difference": shift(sides["lesion"]["drawn"], sides["image"]["drawn"], COLUMNS),
    }


def shift(first: Mapping, second: Mapping, names: Iterable[str]) -> dict[str, dict]:
    """The second minus the first, by metric, from what `draw` gave of two test parts."""
    return {name: difference(second[name], first[name]) for name in names}
