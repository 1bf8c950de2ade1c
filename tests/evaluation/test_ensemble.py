import dataclasses

import numpy as np
import pytest
from helpers import make_run

from melanoma_lib.evaluation.calibration import fit_temperature
from melanoma_lib.evaluation.ensemble import (
    averaged_models,
    ensemble,
    log_mean_probabilities,
    with_logits,
)
from melanoma_lib.evaluation.metrics import nll
from melanoma_lib.evaluation.predictions import softmax
from melanoma_lib.evaluation.trained_run import load_trained_run


@pytest.fixture
def models(tmp_path):
    """Two trainings of each of two architectures."""
    for number in (1, 2):
        make_run(tmp_path / str(number), training_seed=number)
    return {
        key: [load_trained_run(tmp_path / number / key) for number in "12"]
        for key in ("model_0", "model_1")
    }


def test_probabilities_are_averaged_and_not_logits():
    first, second = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    assert softmax(log_mean_probabilities([first, second], [1.0, 1.0])) == pytest.approx(
        np.array([[0.7, 0.3]]), abs=1e-6
    )
    # At temperature 0.5 odds of 9 are odds of 81.
    assert softmax(log_mean_probabilities([first, second], [0.5, 1.0])) == pytest.approx(
        np.array([[(81 / 82 + 0.5) / 2, (1 / 82 + 0.5) / 2]]), abs=1e-6
    )


def test_an_ensemble_has_a_temperature_and_thresholds_of_its_own(models):
    made = ensemble(models, "All")
    validation = made.predictions.split("val")
    assert made.bundle["temperature"] == fit_temperature(validation.logits, validation.labels)
    (point,) = made.bundle["operating_points"]
    negative = validation.melanoma_probability(made.bundle["temperature"])[~validation.is_melanoma]
    assert (negative < point["threshold"]).mean() >= 0.95
    likelihoods = made.record["averaging"]["validation_nll"]
    probabilities = validation.probabilities(made.bundle["temperature"])
    assert min(likelihoods.values()) == pytest.approx(float(nll(validation.labels, probabilities)))
    assert likelihoods[made.record["averaging"]["chosen"]] == min(likelihoods.values())
    assert made.record["averages"] == ["model_0", "model_0", "model_1", "model_1"]
    assert made.record["parameters"] == 40


def test_of_equal_members_the_ensemble_is_each_of_them(models):
    (one, _), _ = models.values()
    made = ensemble({"model_0": [one, one]}, "Twice")
    again = with_logits(one, one.predictions.logits)
    assert made.bundle["temperature"] * 1 == pytest.approx(again.bundle["temperature"], rel=1e-3)
    expected = one.predictions.probabilities(again.bundle["temperature"])
    found = made.predictions.probabilities(made.bundle["temperature"])
    assert found == pytest.approx(expected, abs=1e-3)


def test_what_is_averaged_has_two_members_and_mirror_images_where_they_were_predicted(models):
    flipped = {
        "model_0": [dataclasses.replace(each.predictions, logits=each.predictions.logits * 2)
                    for each in models["model_0"]],
        "model_1": [],
    }  # fmt: skip
    found = averaged_models(models, flipped)
    assert {key: len(trained) for key, trained in found.items()} == {
        "ensemble-model_0": 1, "ensemble-model_1": 1, "ensemble": 1, "flips-model_0": 2
    }  # fmt: skip
    for each, trained in zip(found["flips-model_0"], models["model_0"], strict=True):
        usual = fit_temperature(trained.predictions.split("val").logits,
                                trained.predictions.split("val").labels)  # fmt: skip
        assert each.bundle["temperature"] == pytest.approx(2 * usual, rel=1e-5)
        assert each.record["name"] == "Model_0 with flips"
    single = averaged_models({"model_0": models["model_0"][:1]}, {})
    assert single == {}
