"""When not to answer: abstention, controlled thresholds, conformal sets, and their limits.

Everything is chosen on the validation split and reported on the test split. The fields of the
results are documented in docs/results.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json
from melanoma_lib.data.shifts import SHIFTS
from melanoma_lib.evaluation import conformal, risk_control
from melanoma_lib.evaluation.abstention import (
    ORDERS,
    Referral,
    area_under_risk_coverage,
    referral_estimates,
    referral_threshold,
    risk_coverage_curve,
    uncertainties,
)
from melanoma_lib.evaluation.bootstrap import LEVEL, RESAMPLES, SEED, bootstrap_weights
from melanoma_lib.evaluation.ensemble import averaged_models
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.evaluation.predictions import Predictions, concatenate
from melanoma_lib.evaluation.trained_run import TrainedRun, load_reference_distances, load_trainings
from melanoma_lib.evaluation.trainings import (
    Resampled,
    estimate_of_trainings,
    paired_difference,
    resample_fractions,
    resample_trainings,
)
from melanoma_lib.explanation.occlusion_metrics import load_altered_predictions

SCHEMA = 1  # of abstention_results.json; raise it when that changes
RESULTS = "abstention_results.json"  # in a run's folder
FRACTIONS = (0.0, 0.1, 0.2, 0.3)  # of the images that are referred on validation
COVERAGES = np.arange(1, 21) / 20  # at which a risk-coverage curve is kept
PREVALENCES = (0.02, 0.5)  # of melanoma among lesions, elsewhere than on the test split
NONE_REFERRED = ("referred", "melanomas_referred")  # estimates without a meaning there
Distances = tuple[np.ndarray, np.ndarray]  # of the images of validation, and of those of test
Uncertainties = Mapping[str, tuple[np.ndarray, np.ndarray]]  # on validation and on test, by order


def abstention_results(
    run_dir: Path, keys: Sequence[str], trainings: int = 1, resamples: int = RESAMPLES
) -> dict:
    """All results of chapter 11 for some networks of a run and their averages, ready for JSON.

    What the first training of each makes of shifted images is read as chapter 07 left it. Raises
    `MelanomaError` where it did not.
    """
    models = {key: load_trainings(run_dir, key, trainings) for key in keys}
    shifted = {key: _with_shifts(run_dir / key, trained[0]) for key, trained in models.items()}
    distances = {key: load_reference_distances(run_dir / key) for key in keys}
    averaged = averaged_models(models, {})
    test = next(iter(models.values()))[0].predictions.split("test")
    weights = bootstrap_weights(test.lesion_ids, resamples)
    known = _uncertainties(models, averaged, distances)
    found = {
        key: {
            "name": trained[0].record["name"],
            "risk_coverage": _risk_coverage(trained, known[key], weights),
            "kept": _fractions_meeting_target(trained[0]),
            **abstention_estimates(trained, weights, known[key]),
        }
        for key, trained in (models | averaged).items()
    }
    return {
        "schema": SCHEMA,
        "weights": {key: trained[0].bundle["weights_sha256"] for key, trained in models.items()},
        "coverage": conformal.COVERAGE,
        "confidence": LEVEL,
        "draws": risk_control.DRAWS,
        "models": found,
        "shifts": _shifts({key: trained[:1] for key, trained in models.items()}, shifted, weights),
    }


def _uncertainties(
    models: Mapping[str, Sequence[TrainedRun]],
    averaged: Mapping[str, Sequence[TrainedRun]],
    distances: Mapping[str, Distances],
) -> dict[str, list[Uncertainties]]:
    """Of each training of every model, the uncertainties by order.

    The ensemble's entropy orders the images of its members too. Distances, those of the first
    training, are in units of their mean on validation, so that those of members can be averaged.
    """
    splits = ("val", "test")
    relative = {key: tuple(each / of[0].mean() for each in of) for key, of in distances.items()}
    of_ensemble = None
    if averaged:  # the average of all networks, or else of one's trainings
        average = averaged["ensemble" if "ensemble" in averaged else next(iter(averaged))]
        of_ensemble = tuple(_own(average[0], split)["entropy"] for split in splits)
    found: dict[str, list[Uncertainties]] = {}
    for key, trained in (models | averaged).items():
        members = dict.fromkeys(trained[0].record.get("averages", [key]))
        distance = tuple(np.mean([relative[member][side] for member in members], 0)
                         for side in range(2))  # fmt: skip
        for training in trained:
            validation, test = (_own(training, split) for split in splits)
            orders = {name: (validation[name], test[name]) for name in validation}
            if of_ensemble and key in models:
                orders["ensemble_entropy"] = of_ensemble
            found.setdefault(key, []).append(orders)
        found[key][0]["distance"] = distance
    return found


def _own(training: TrainedRun, split: str) -> dict[str, np.ndarray]:
    predictions = training.predictions.split(split)
    return uncertainties(predictions.probabilities(training.bundle["temperature"]))


def _risk_coverage(
    trained: Sequence[TrainedRun], known: Sequence[Uncertainties], weights: np.ndarray
) -> dict[str, dict]:
    """By order the area under the risk-coverage curve, and the first training's curve.

    `minus_confidence` is the area minus that by confidence, training by training.
    """
    tests = [training.predictions.split("test") for training in trained]
    wrong = [
        training.predicted_classes("test") != test.labels
        for test, training in zip(tests, trained, strict=True)
    ]
    measured, found = {}, {}
    for order in [name for name in ORDERS if name in known[0]]:
        data = [(of[order][1], of_wrong) for of, of_wrong in zip(known, wrong, strict=True)
                if order in of]  # fmt: skip
        measured[order] = resample_trainings(
            area_under_risk_coverage, data, weights, tests[0].count_lesions()
        )
        curve = risk_coverage_curve(*data[0])
        at = np.searchsorted(curve["coverage"], COVERAGES - 1e-9)
        found[order] = {
            "area": estimate_of_trainings(measured[order]),
            "coverage": curve["coverage"].iloc[at].tolist(),
            "risk": curve["risk"].iloc[at].tolist(),
        }
        if order != "confidence":
            values, resamples, lesions = measured["confidence"]
            count = len(data)  # distances are those of the first training
            paired = Resampled(values[:count], resamples[:, :count], lesions)
            found[order]["minus_confidence"] = paired_difference(measured[order], paired)
    return found


def abstention_estimates(
    trained: Sequence[TrainedRun],
    weights: np.ndarray,
    known: Sequence[Uncertainties] | None = None,
    importance: np.ndarray | None = None,
) -> dict[str, list[dict]]:
    """What is chosen on validation, and its estimates on test, means over the trainings of a model.

    `referral`, `thresholds` and `sets`. `known`: the uncertainties of each training, by default its
    confidence alone; `importance` (n,): how much each test image counts, for another prevalence.
    """
    if known is None:
        known = [
            {"confidence": tuple(_own(each, split)["confidence"] for split in ("val", "test"))}
            for each in trained
        ]
    test = trained[0].predictions.split("test")
    base = test.lesion_weights * (1 if importance is None else importance)
    return {
        "referral": _referral(trained, known, weights, importance),
        "thresholds": [
            _threshold(trained, number, weights, base)
            for number in range(len(trained[0].bundle["operating_points"]))
        ],
        "sets": [_sets(trained, method, weights, base) for method in conformal.METHODS],
    }


def _referral(
    trained: Sequence[TrainedRun],
    known: Sequence[Uncertainties],
    weights: np.ndarray,
    importance: np.ndarray | None,
) -> list[dict]:
    """An entry for every order and fraction: the first training's threshold, estimates on test."""
    rows = []
    for order in [name for name in ORDERS if name in known[0]]:
        for fraction in FRACTIONS:
            if not fraction and order != "confidence":
                continue  # whoever refers none needs no order
            cases, thresholds = [], []
            for training, of in zip(trained, known, strict=True):
                if order not in of:
                    continue
                validation, test = of[order]
                threshold = referral_threshold(validation, fraction) if fraction else np.inf
                thresholds.append(threshold)
                melanoma_threshold = training.bundle["operating_points"][0]["threshold"]
                cases.append(Referral(training, melanoma_threshold, test > threshold))
            found = referral_estimates(cases, weights, importance)
            if not fraction:  # none is referred, by definition and not by measurement
                found |= {name: dict.fromkeys(found[name]) for name in NONE_REFERRED}
            rows.append({
                "order": order, "fraction": fraction,
                "threshold": thresholds[0] if fraction else None, "test": found,
            })  # fmt: skip
    return rows


def calibration_lesions(training: TrainedRun) -> Predictions:
    """The validation split with one image a lesion, so that its rows are exchangeable."""
    return training.predictions.split("val").one_image_per_lesion(SEED)


def _threshold(
    trained: Sequence[TrainedRun], number: int, weights: np.ndarray, base: np.ndarray
) -> dict:
    """One operating point: the threshold that reaches its target on validation, and controlled.

    `plain` and `controlled` hold the first training's threshold and, with every lesion of the test
    split weighing the same, estimates of `sensitivity` and `specificity`; `cost` is the rate that
    pays, with the plain threshold minus with the controlled one.
    """
    point = trained[0].bundle["operating_points"][number]
    criterion, target = point["criterion"], point["target"]
    chosen: dict[str, list] = {"plain": [], "controlled": []}
    for training in trained:
        bundle, lesions = training.bundle, calibration_lesions(training)
        scores = lesions.melanoma_probability(bundle["temperature"])
        chosen["plain"].append(bundle["operating_points"][number]["threshold"])
        chosen["controlled"].append(risk_control.controlled_threshold(
            lesions.is_melanoma, scores, criterion, target))  # fmt: skip
    kind = lesions.is_melanoma if criterion == "sensitivity" else ~lesions.is_melanoma
    entry = {name: point[name] for name in ("name", "criterion", "target")} | {
        "lesions": int(kind.sum()), "least_lesions": risk_control.least_lesions(target),
    }  # fmt: skip
    pays = "specificity" if criterion == "sensitivity" else "sensitivity"
    measured = {}
    for name, thresholds in chosen.items():
        entry[name] = None
        if None not in thresholds:
            measured[name] = _rates(trained, thresholds, weights, base)
            entry[name] = {"threshold": thresholds[0]} | {
                rate: estimate_of_trainings(*found) for rate, found in measured[name].items()
            }
    paid = [rates[pays][0] for rates in measured.values()]
    return entry | {"cost": paired_difference(*paid) if len(paid) == 2 else None}


def _rates(
    trained: Sequence[TrainedRun], thresholds: Sequence[float], weights: np.ndarray,
    base: np.ndarray,
) -> dict[str, tuple]:  # fmt: skip
    """Sensitivity and specificity on test as `resample_fractions` returns them."""
    cases: dict[str, list] = {"sensitivity": [], "specificity": []}
    for training, threshold in zip(trained, thresholds, strict=True):
        test = training.predictions.split("test")
        positive = test.melanoma_probability(training.bundle["temperature"]) >= threshold
        cases["sensitivity"].append((positive, test.is_melanoma))
        cases["specificity"].append((~positive, ~test.is_melanoma))
    return resample_fractions(cases, test.lesion_ids, weights, base)


def _fractions_meeting_target(training: TrainedRun) -> list[dict]:
    """By operating point, how often both kinds of threshold reach their target on new lesions.

    All lesions outside training stand for all that there are.
    """
    bundle, predictions = training.bundle, training.predictions
    lesions = predictions.one_image_per_lesion(SEED)
    scores = lesions.melanoma_probability(bundle["temperature"])
    validation = calibration_lesions(training).is_melanoma
    counts = int(validation.sum()), int((~validation).sum())
    return [
        {"name": point["name"], "label": operating_point_label(point)}
        | risk_control.fraction_meeting_target(lesions.is_melanoma, scores, point, counts)
        for point in bundle["operating_points"]
    ]


def _sets(
    trained: Sequence[TrainedRun], method: str, weights: np.ndarray, base: np.ndarray
) -> dict:
    """One kind of conformal sets: the first training's `limits`, None where infinite; `test`."""
    tests, finite = [], []
    for training in trained:
        temperature, lesions = training.bundle["temperature"], calibration_lesions(training)
        limits = conformal.fit_limits(method, lesions.probabilities(temperature), lesions.labels)
        test = training.predictions.split("test")
        sets = conformal.prediction_sets(method, limits, test.probabilities(temperature))
        tests.append((test, sets))
        finite.append([float(limit) if np.isfinite(limit) else None for limit in limits])
    return {
        "method": method,
        "limits": dict(zip(test.class_names, finite[0], strict=True)),
        "test": conformal.set_estimates(tests, weights, base),
    }


def _shifts(
    models: Mapping[str, Sequence[TrainedRun]],
    shifted: Mapping[str, Mapping[str, TrainedRun]],
    weights: np.ndarray,
) -> list[dict]:
    """Estimates on the test split as it is, shifted, and at other prevalences of melanoma."""
    test = next(iter(models.values()))[0].predictions.split("test")
    of_lesions = test.lesion_weights
    prevalence = float(of_lesions[test.is_melanoma].sum() / of_lesions.sum())
    rows = [_shift("none", "as it is", models, weights)]
    for name, (_, words) in SHIFTS.items():
        elsewhere = {key: [shifted[key][name]] for key in models}
        rows.append(_shift(name, words, elsewhere, weights))
    for other in PREVALENCES:
        if 0 < prevalence < 1:
            odds = other / (1 - other) * (1 - prevalence) / prevalence
            importance = np.where(test.is_melanoma, odds, 1.0)
            words = f"{other:.0%} melanomas, here {prevalence:.0%}"
            rows.append(_shift(f"prevalence_{other:g}", words, models, weights, importance))
    return rows


def _with_shifts(folder: Path, training: TrainedRun) -> dict[str, TrainedRun]:
    """By name of `SHIFTS`, the training with the shifted images as its test split."""
    altered = load_altered_predictions(folder, training)
    if altered is None or not set(SHIFTS) <= set(altered.splits):
        raise MelanomaError(f"{folder} has no predictions of shifted images; run chapter 07 first")
    found = {name: altered.split(name) for name in SHIFTS}
    return {name: with_test(training, replace(test, splits=np.full(len(test.labels), "test")))
            for name, test in found.items()}  # fmt: skip


def _shift(
    name: str,
    words: str,
    models: Mapping[str, Sequence[TrainedRun]],
    weights: np.ndarray,
    importance: np.ndarray | None = None,
) -> dict:
    averaged = averaged_models(models, {})
    return {
        "name": name,
        "label": words,
        "models": {
            key: {"name": trained[0].record["name"]}
            | abstention_estimates(trained, weights, importance=importance)
            for key, trained in (models | averaged).items()
        },
    }


def external_abstention(models: Mapping[str, TrainedRun], resamples: int = RESAMPLES) -> dict:
    """The `abstention_estimates` of networks whose test split are images from elsewhere."""
    test = next(iter(models.values())).predictions.split("test")
    weights = bootstrap_weights(test.lesion_ids, resamples)
    return {
        "coverage": conformal.COVERAGE,
        "confidence": LEVEL,
        "models": {
            key: {"name": model.record["name"]} | abstention_estimates([model], weights)
            for key, model in models.items()
        },
    }


def with_test(training: TrainedRun, test: Predictions) -> TrainedRun:
    """A training with the validation split it has, and other predictions as its test split."""
    both = concatenate([training.predictions.split("val"), test])
    return training._replace(predictions=both)


def read_abstention(run_dir: Path, keys: Sequence[str]) -> dict:
    """The results of chapter 11 in a run's folder; {} where it has none.

    Raises `MelanomaError` when they are of other networks than `keys`, or of other weights.
    """
    results = read_json(run_dir / RESULTS, {})
    if not results:
        return {}
    weights = {key: read_json(run_dir / key / "bundle.json", {}).get("weights_sha256")
               for key in keys}  # fmt: skip
    if results.get("schema") != SCHEMA or results["weights"] != weights:
        raise MelanomaError(
            f"{run_dir / RESULTS} is of other networks; run chapter 11 again, or delete the file"
        )
    return results
