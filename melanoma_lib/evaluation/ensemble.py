"""Averaged predictions: an ensemble of several networks, or of one network's flipped images."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from melanoma_lib.evaluation.calibration import fit_temperature
from melanoma_lib.evaluation.metrics import nll
from melanoma_lib.evaluation.operating_points import choose_operating_points
from melanoma_lib.evaluation.predictions import Predictions, softmax
from melanoma_lib.evaluation.trained_run import TrainedRun


def log_mean_probabilities(
    logits: Sequence[np.ndarray], temperatures: Sequence[float]
) -> np.ndarray:
    """Logarithms of the mean of several softmax distributions, (n, classes), float32.

    `logits` (n, classes) of each member, which its temperature divides. The softmax of the result
    is the mean.
    """
    members = [softmax(each, t) for each, t in zip(logits, temperatures, strict=True)]
    return np.log(np.maximum(np.mean(members, 0), np.finfo(np.float32).tiny)).astype(np.float32)


def ensemble(models: Mapping[str, Sequence[TrainedRun]], name: str) -> TrainedRun:
    """One model that averages the probabilities of all trainings (Lakshminarayanan et al., 2017).

    The members' probabilities are averaged as they are, or each calibrated first: whichever has the
    lower negative log-likelihood on validation, once the average has a temperature of its own. The
    record's `averaging` has both likelihoods and the choice. Temperature and operating points are
    those of the average, chosen on validation.
    """
    members = [training for trained in models.values() for training in trained]
    ways = {
        "uncalibrated": [1.0] * len(members),
        "calibrated": [member.bundle["temperature"] for member in members],
    }
    likelihoods, averages = {}, {}
    for way, temperatures in ways.items():
        logits = [member.predictions.logits for member in members]
        averages[way] = with_logits(members[0], log_mean_probabilities(logits, temperatures))
        validation = averages[way].predictions.split("val")
        probabilities = validation.probabilities(averages[way].bundle["temperature"])
        likelihoods[way] = float(nll(validation.labels, probabilities))
    chosen = min(likelihoods, key=likelihoods.get)
    records = [member.record for member in members]
    record = averages[chosen].record | {
        "name": name,
        "averages": [key for key, trained in models.items() for _ in trained],
        "averaging": {"validation_nll": likelihoods, "chosen": chosen},
        "best_epoch": None,
        "parameters": sum(record["parameters"] for record in records),
        "train_seconds": sum(record["train_seconds"] for record in records),
    }
    return averages[chosen]._replace(record=record)


def with_logits(trained: TrainedRun, logits: np.ndarray) -> TrainedRun:
    """A trained network with other logits for the same images, (n, classes).

    Temperature and thresholds, for the same operating points, are chosen on validation anew.
    """
    predictions = dataclasses.replace(trained.predictions, logits=logits)
    validation = predictions.split("val")
    temperature = fit_temperature(validation.logits, validation.labels)
    points = choose_operating_points(
        validation.is_melanoma,
        validation.melanoma_probability(temperature),
        [(point["criterion"], point["target"]) for point in trained.bundle["operating_points"]],
    )
    bundle = trained.bundle | {"temperature": temperature, "operating_points": points}
    return trained._replace(bundle=bundle, predictions=predictions)


def averaged_models(
    models: Mapping[str, Sequence[TrainedRun]], flipped: Mapping[str, Sequence[Predictions]]
) -> dict[str, list[TrainedRun]]:
    """Everything that can be averaged, as further models by key, each with its trainings.

    `models` holds the trainings of each architecture, `flipped` what they predict with mirror
    images, or nothing. There are the ensembles of an architecture's trainings and of all trainings,
    if they have two members, and each architecture with mirror images. The record's `averages` has
    the architecture of every member.
    """
    found = {}
    for key, trained in models.items():
        name = f"Ensemble of {len(trained)} {trained[0].record['name']}"
        found[f"ensemble-{key}"] = [ensemble({key: trained}, name)] if len(trained) > 1 else []
    if len(models) > 1:
        count = sum(map(len, models.values()))
        found["ensemble"] = [ensemble(models, f"Ensemble of all {count} networks")]
    for key, predictions in flipped.items():
        record = {"name": f"{models[key][0].record['name']} with flips", "averages": 4 * [key]}
        found[f"flips-{key}"] = [
            with_logits(training, each.logits)._replace(record=training.record | record)
            for training, each in zip(models[key], predictions, strict=False)  # all or none
        ]
    return {key: trained for key, trained in found.items() if trained}
