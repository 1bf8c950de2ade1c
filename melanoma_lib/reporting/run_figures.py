"""The figures of a run from its results alone: no training, model or image."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.dataset_files import read_metadata
from melanoma_lib.data.split import is_leaked, lesion_groups, make_split
from melanoma_lib.evaluation import calibration, operating_points, trained_run
from melanoma_lib.evaluation.bootstrap import bootstrap_weights, format_estimate
from melanoma_lib.evaluation.metrics import nll, top_class
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.subgroups import ATTRIBUTES
from melanoma_lib.explanation.map_metrics import (
    CENTRE_PRIOR,
    METHOD_NAMES,
    UNIFORM_MAP,
    map_estimates,
)
from melanoma_lib.reporting import compare, figures, tables

OVERLAPS = {
    "inside": "Heat inside the lesion",
    "pointing": "Hottest pixel in the lesion",
    "iou": "Overlap with the lesion (IoU)",
}


@dataclass(frozen=True)
class Run:
    """A finished run: its results, predictions by model, and the dataset's table."""

    folder: Path
    results: dict
    predictions: dict[str, Predictions]
    metadata: pd.DataFrame | None = None  # None: the figures of the table are taken over
    seed: int = 0  # of the split

    def of(self, keys: Sequence[str], value: Callable) -> dict:
        """`value(key, the model's results)` of several models by their names in print."""
        models = self.results["models"]
        return {models[key]["name"]: value(key, models[key]) for key in keys}


def open_run(results_file: Path, metadata: Path | str = "") -> Run:
    """Reads a run by its results; raises `MelanomaError` where files do not belong together."""
    results, folder = read_json(results_file), Path(results_file).parent
    if results.get("schema") != compare.SCHEMA:
        raise MelanomaError(f"{results_file} has another layout; run chapter 08 again")
    loaded = {key: trained_run.load_trained_run(folder / key) for key in results["models"]}
    for key, (record, bundle, _) in loaded.items():
        theirs = record["dataset"]["fingerprint"], bundle["temperature"]
        model = results["models"][key]
        if theirs != (results["dataset"]["fingerprint"], model["temperature"]):
            raise MelanomaError(f"{key} was trained again after {results_file}; run chapter 08")
    table = read_metadata(metadata) if metadata else None
    if table is not None and len(table) != results["dataset"]["images"]:
        raise MelanomaError(f"{metadata} is not the table that the run used")
    seed = next(iter(loaded.values()))[0]["config"].get("seed", 0)
    return Run(folder, results, {key: p for key, (_, _, p) in loaded.items()}, table, seed)


def open_trained(run_dir: Path | str, keys: Iterable[str]) -> Run:
    """A run whose models are trained and not compared yet: enough for chapters 04, 05 and 06.

    keys: the architectures. Raises `MelanomaError` where one is not trained to the end.
    """
    loaded = {key: trained_run.load_trained_run(Path(run_dir) / key) for key in keys}
    models = {}
    for key, (record, bundle, predictions) in loaded.items():
        weights = bootstrap_weights(predictions.split("test").lesion_ids)
        drawn = compare.bootstrap_metrics(bundle, predictions, weights)
        measured = compare.test_estimates(bundle, predictions, drawn, weights)
        models[key] = {"name": record["name"], **measured}
    return Run(Path(run_dir), {"models": models}, {key: p for key, (_, _, p) in loaded.items()})


# -- one function a figure: a run and the models shown in, a figure out ------------------------


def _lesion_leak(run: Run, _keys: Sequence[str]) -> Figure:
    leak = is_leaked(make_split(run.metadata, "image", run.seed))
    return figures.lesion_leak(lesion_groups(run.metadata).value_counts(), leak)


def _training_curves(run: Run, keys: Sequence[str]) -> Figure:
    histories = run.of(keys, lambda key, _: pd.read_csv(run.folder / key / "history.csv"))
    return figures.training_curves(histories)


def _confusion_matrices(run: Run, keys: Sequence[str]) -> Figure:
    matrices = run.of(keys, lambda _, model: np.array(model["confusion_matrix"]))
    return figures.confusion_matrices(matrices, CLASS_NAMES)


def _reliability(run: Run, keys: Sequence[str], of_melanoma: bool) -> Figure:
    def bins(key: str, model: dict) -> dict:
        return reliability_pair(run.predictions[key], model["temperature"], of_melanoma)

    labels = ("Melanoma probability", "Melanomas") if of_melanoma else ()
    return figures.reliability(run.of(keys, bins), *labels)


def reliability_pair(
    predictions: Predictions, temperature: float, of_melanoma: bool = False
) -> dict[str, pd.DataFrame]:
    """The bins on the test split `before` and `after` scaling, as `figures.reliability` takes them.

    Of the top class, or of melanoma's own probability.
    """
    test, pair = predictions.split("test"), {}
    for moment, divisor in (("before", 1.0), ("after", temperature)):
        p = test.probabilities(divisor)
        melanoma = p[:, CLASS_NAMES.index(MELANOMA)], test.is_melanoma
        pair[moment] = calibration.reliability(
            *(melanoma if of_melanoma else top_class(test.labels, p))
        )
    return pair


def _temperature_curve(run: Run, keys: Sequence[str]) -> Figure:
    fitted = run.of(keys, lambda _, model: model["temperature"])
    grid = np.geomspace(*calibration.BOUNDS, 1201)
    grid = grid[(grid >= min(0.25, *fitted.values())) & (grid <= max(4, *fitted.values()))]

    def curve(key: str, _model: dict) -> np.ndarray:
        val = run.predictions[key].split("val")
        return np.array([nll(val.labels, val.probabilities(float(t))) for t in grid])

    images = len(run.predictions[keys[0]].split("val").labels)
    return figures.temperature_curve(grid, run.of(keys, curve), fitted, images)


def _sweep(run: Run, keys: Sequence[str], function: Callable, *arguments: object) -> dict:
    """`function` of truth and melanoma score of every model's test split."""

    def of_model(key: str, model: dict) -> object:
        test = run.predictions[key].split("test")
        return function(test.is_melanoma, test.melanoma_score(model["temperature"]), *arguments)

    return run.of(keys, of_model)


def _counts(run: Run) -> tuple[int, int]:
    """Test images of melanomas and of others."""
    is_melanoma = next(iter(run.predictions.values())).split("test").is_melanoma
    return int(is_melanoma.sum()), int((~is_melanoma).sum())


def _points(run: Run, keys: Sequence[str]) -> pd.DataFrame:
    points = run.of(keys, lambda _, model: model["operating_points"])
    return points_table(points, dict.fromkeys(points, _counts(run)))


def points_table(
    points_of: Mapping[str, list[dict]], counts: Mapping[str, tuple[int, int]]
) -> pd.DataFrame:
    """One row a model and operating point, as `figures.operating_points` takes them.

    points_of: the operating points in the results by the model's name in print; counts: the
    images of melanomas and of others they were measured on, by the same names.
    """
    rows = [
        {
            "model": name, "point": operating_points.operating_point_label(point), **point,
            "melanomas": counts[name][0], "others": counts[name][1],
            **{measure + end: point["test"][measure][part]
               for measure in ("sensitivity", "specificity")
               for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))},
        }
        for name, points in points_of.items()
        for point in points
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    numbers = [name for name in table if name.startswith(("sensitivity", "specificity"))]
    return table.astype(dict.fromkeys(numbers, float))


def _roc(run: Run, keys: Sequence[str]) -> Figure:
    areas = run.of(keys, lambda _, model: format_estimate(model["metrics"]["melanoma_auc"]))
    sweep = _sweep(run, keys, operating_points.operating_curve)
    return figures.roc(sweep, areas, _points(run, keys))


def _threshold_curves(run: Run, keys: Sequence[str]) -> Figure:
    sweep = _sweep(run, keys, operating_points.operating_curve)
    return figures.threshold_curves(sweep, _points(run, keys))


def _decision_curves(run: Run, keys: Sequence[str]) -> Figure:
    at = np.arange(0.005, 0.6, 0.005)
    sweep = _sweep(run, keys, operating_points.decision_curve, at)
    return figures.decision_curves(sweep, sum(_counts(run)))


def _comparison(metrics: dict[str, dict], basis: str = "") -> Figure:
    """Dots of the printed metrics; metrics: name in print -> figures; basis: of all, in words."""
    return figures.comparison(
        pd.DataFrame(
            {"model": name, "metric": head, **values[metric]}
            for name, values in metrics.items()
            for metric, (head, _) in compare.COLUMNS.items()
        ),
        basis,
    )


def _accuracy_latency(run: Run, keys: Sequence[str]) -> Figure:
    def row(_key: str, model: dict) -> dict:
        latency, accuracy = model["latency"], model["metrics"]["accuracy"]
        return {
            "latency_ms": latency["median_ms"], "latency_low": latency["low_ms"],
            "latency_high": latency["high_ms"], "accuracy": accuracy["value"],
            "accuracy_low": accuracy["low"], "accuracy_high": accuracy["high"],
            "parameters": model["parameters"] / 1e6,
        }  # fmt: skip

    table = pd.DataFrame(run.of(keys, row)).T
    table = table.rename_axis("model").reset_index()
    return figures.accuracy_latency(table, run.results["test_images"])


def _subgroups(run: Run, keys: Sequence[str]) -> Figure:
    model = run.results["models"][keys[0]]
    measures = {"melanoma_auc": "Melanoma AUC", "sensitivity": "Sensitivity",
                "specificity": "Specificity"}  # fmt: skip
    groups = pd.DataFrame(model["subgroups"]).rename(columns=measures)
    at_point = model["metrics"] | model["operating_points"][0]["test"]
    return figures.subgroups(
        groups.assign(attribute=groups["attribute"].map(ATTRIBUTES)),
        {head: at_point[name]["value"] for name, head in measures.items()},
    )


def overlap_table(explained: Mapping[str, dict]) -> pd.DataFrame:
    """Scores of Grad-CAM against masks, and baselines', as `figures.mask_overlap` takes them.

    explained: what `summarize_map_scores` gives by the model's name in print.
    """
    first = next(iter(explained.values()))
    maps = {name: map_estimates(entry) for name, entry in explained.items()}
    maps |= {f"random weights: {name}": map_estimates(entry, "random")
             for name, entry in explained.items()}  # fmt: skip
    maps |= {f"baseline: {name}": map_estimates(first, "none", name)
             for name in (CENTRE_PRIOR, UNIFORM_MAP)}  # fmt: skip
    panels = {score: f"{head}\n(n = {first['images']:,})" for score, head in OVERLAPS.items()}
    panels["road"] = f"Faithfulness, ROAD\n(n = {first['faithful_images']:,})"
    return pd.DataFrame(
        [{"model": name, "score": head, **row[score]}
         for score, head in panels.items() for name, row in maps.items()]
    ).astype({"value": float, "low": float, "high": float})  # fmt: skip


def _mask_overlap(explained: Mapping[str, dict], _agreements: dict) -> Figure | None:
    scored = all(entry["images"] for entry in explained.values())
    return figures.mask_overlap(overlap_table(explained)) if scored else None


def randomised_curves(explained: Mapping[str, dict], *_: object) -> Figure:
    """Figure 07-4 from what `summarize_map_scores` gives by the model's name in print."""
    curves = {
        title: {
            name: pd.DataFrame([{"share": step["share"], **step["similarity"]} for step in
                                map_estimates(entry, method=method)["randomised"]])
            for name, entry in explained.items()
        }
        for method, title in METHOD_NAMES.items()
    }  # fmt: skip
    return figures.randomised_weights(curves, _faithful(explained))


def agreement_dots(explained: Mapping[str, dict], agreements: Mapping[str, dict]) -> Figure:
    """Figure 07-5; agreements: the figures of `map_agreement` by the pair's names."""
    rows = agreements | {f"{name}, centre prior": map_estimates(entry)["like_centre"]
                         for name, entry in explained.items()}  # fmt: skip
    head = f"Rank correlation of two maps (n = {_faithful(explained):,})"
    return figures.comparison(
        pd.DataFrame({"model": name, "metric": head, **figure} for name, figure in rows.items())
    )


def _faithful(explained: Mapping[str, dict]) -> int:
    return next(iter(explained.values()))["faithful_images"]


def _explained(run: Run, keys: Sequence[str], of_maps: Callable) -> Figure | None:
    """A figure of maps, where every model's are scored."""
    explained = run.of(keys, lambda _, model: model.get("explanations"))
    agreements = {
        ", ".join(tables.pair_names(run.results, pair)): pair["agreement"]
        for pair in run.results["differences"] if "agreement" in pair
    }  # fmt: skip
    return of_maps(explained, agreements) if all(explained.values()) else None


def _price_of_leakage(run: Run, _keys: Sequence[str]) -> Figure:
    price = run.results["price_of_leakage"]
    sides = {side: price[side] for side in ("lesion", "image")}
    return _comparison({
        f"split by {name}\n(n = {side['test_images']:,} images)": side["metrics"]
        for name, side in sides.items()
    })  # fmt: skip


def _all_models(run: Run, keys: Sequence[str]) -> Figure:
    basis = "n = {test_images:,} images of {test_lesions:,} lesions".format_map(run.results)
    return _comparison(run.of(keys, lambda _, model: model["metrics"]), basis)


PLOTS: dict[str, Callable[[Run, Sequence[str]], Figure | None]] = {
    "01-1-class-counts": lambda run, _: figures.class_counts(run.metadata),
    "01-2-patients": lambda run, _: figures.patients(run.metadata),
    "01-4-lesion-leak": _lesion_leak,
    "04-1-training-curves": _training_curves,
    "04-2-confusion-matrix": _confusion_matrices,
    "05-1-reliability": partial(_reliability, of_melanoma=False),
    "05-2-temperature": _temperature_curve,
    "05-3-melanoma-reliability": partial(_reliability, of_melanoma=True),
    "06-1-roc": _roc,
    "06-2-thresholds": _threshold_curves,
    "06-3-operating-points": lambda run, keys: figures.operating_points(_points(run, keys)),
    "06-4-decision-curves": _decision_curves,
    "07-2-mask-overlap": partial(_explained, of_maps=_mask_overlap),
    "07-4-randomised-weights": partial(_explained, of_maps=randomised_curves),
    "07-5-agreement": partial(_explained, of_maps=agreement_dots),
    "08-1-comparison": _all_models,
    "08-2-training-curves": _training_curves,
    "08-3-confusion-matrices": _confusion_matrices,
    "08-4-accuracy-latency": _accuracy_latency,
    "08-5-subgroups": _subgroups,
    "08-6-price-of-leakage": _price_of_leakage,
}


def plot(run: Run, name: str, key: str = "") -> Figure | None:
    """The figure `name`, of the model `key` where each model has one; None if it cannot be plotted.

    Some figures need models, images, the dataset's table, or a run on the other split.
    """
    table, price = run.metadata is not None, "price_of_leakage" in run.results
    if name not in PLOTS or (name < "02" and not table) or (name.startswith("08-6") and not price):
        return None
    return PLOTS[name](run, [key] if key else list(run.results["models"]))
