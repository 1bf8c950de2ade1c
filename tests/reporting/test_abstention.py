"""Chapter 11's results: what is chosen where, what is kept, and what is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import ROOT, make_run, shift_images

from melanoma_lib.config import TRAININGS
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.shifts import SHIFTS
from melanoma_lib.evaluation.abstention import ORDERS
from melanoma_lib.evaluation.conformal import METHODS
from melanoma_lib.evaluation.predictions import load_predictions, save_predictions
from melanoma_lib.explanation.occlusion_metrics import OCCLUSION_FILE
from melanoma_lib.reporting.abstention import (
    PREVALENCES,
    RESULTS,
    abstention_results,
    read_abstention,
)
from melanoma_lib.reporting.abstention_tables import (
    referral_at,
    summarize_abstention,
    verdict,
)
from melanoma_lib.reporting.tables import table

KEYS = ("model_0", "model_1")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    shift_images(folder, KEYS)
    return folder


@pytest.fixture(scope="module")
def results(run_dir):
    found = abstention_results(run_dir, KEYS, resamples=200)
    return json.loads(json.dumps(found, allow_nan=False))


def test_every_model_and_the_ensemble_are_ordered_in_every_way(results):
    assert list(results["models"]) == [*KEYS, "ensemble"]
    for key, model in results["models"].items():
        own = [order for order in ORDERS if key in KEYS or order != "ensemble_entropy"]
        assert list(model["risk_coverage"]) == own
        areas = {order: found["area"]["value"] for order, found in model["risk_coverage"].items()}
        # Distances without meaning order nothing; confidence does.
        assert areas["confidence"] < areas["distance"]
        assert model["risk_coverage"]["distance"]["minus_confidence"]["low"] > 0


def test_risk_falls_and_melanomas_are_found_when_the_unsure_are_referred(results):
    for model in results["models"].values():
        rows = [referral_at(model, fraction)["test"] for fraction in (0.0, 0.1, 0.2, 0.3)]
        assert rows[0]["referred"]["value"] is None  # by definition and not by measurement
        referred = [row["referred"]["value"] for row in rows[1:]]
        assert referred == sorted(referred) and referred[-1] > 0.15
        assert rows[-1]["accuracy"]["value"] > rows[0]["accuracy"]["value"]
        found = [row["found_or_referred"]["value"] for row in rows]
        assert found == sorted(found)


def test_nothing_is_chosen_on_the_test_split(run_dir, results, tmp_path):
    """With the labels of the test images turned round, all thresholds and limits stay."""
    make_run(tmp_path)
    for key in KEYS:
        file = tmp_path / key / "predictions.parquet"
        predictions = load_predictions(file)
        turned = np.where(predictions.splits == "test", 6 - predictions.labels, predictions.labels)
        save_predictions(file, replace(predictions, labels=turned))
    shift_images(tmp_path, KEYS)
    other = abstention_results(tmp_path, KEYS, resamples=50)
    for key in results["models"]:
        one, two = results["models"][key], other["models"][key]
        for field, names in (("referral", ["threshold"]), ("sets", ["limits"])):
            for name in names:
                assert [row[name] for row in one[field]] == [row[name] for row in two[field]]
        assert one["thresholds"][0]["plain"]["threshold"] == \
            two["thresholds"][0]["plain"]["threshold"]  # fmt: skip
        assert one["sets"][0]["test"] != two["sets"][0]["test"]


def test_a_promise_costs_sensitivity_and_is_kept_more_often(results):
    for model in results["models"].values():
        (point,), (kept,) = model["thresholds"], model["kept"]
        assert point["least_lesions"] == 59 < point["lesions"]
        assert kept["controlled"]["kept"]["low"] >= results["confidence"]
        assert kept["plain"]["kept"]["high"] < 0.9
        lower = point["controlled"]["sensitivity"]["value"]
        assert point["plain"]["sensitivity"]["value"] - lower == pytest.approx(
            point["cost"]["value"]
        )
    # The networks' thresholds are made up, the ensemble's is chosen on validation.
    assert results["models"]["ensemble"]["thresholds"][0]["cost"]["value"] >= 0


def test_a_shift_breaks_the_promise_and_another_prevalence_keeps_that_of_melanoma(results):
    shifts = {shift["name"]: shift["models"] for shift in results["shifts"]}
    assert list(shifts) == ["none", *SHIFTS, *(f"prevalence_{p:g}" for p in PREVALENCES)]
    for key in results["models"]:
        sets = {name: models[key]["sets"][0]["test"] for name, models in shifts.items()}
        assert sets["none"] == results["models"][key]["sets"][0]["test"]
        assert sets["darker"]["coverage"]["high"] < results["coverage"]
        for prevalence in PREVALENCES:
            other = sets[f"prevalence_{prevalence:g}"]
            assert other["melanoma_coverage"]["value"] == pytest.approx(
                sets["none"]["melanoma_coverage"]["value"]
            )


def test_at_another_prevalence_rates_are_those_of_bayes(results):
    shifts = {shift["name"]: shift["models"]["model_0"]["sets"][1]["test"]
              for shift in results["shifts"]}  # fmt: skip
    covered = {p: shifts[f"prevalence_{p:g}"]["coverage"]["value"] for p in PREVALENCES}
    of_melanoma = shifts["none"]["melanoma_coverage"]["value"]
    others = (covered[0.5] - 0.5 * of_melanoma) / 0.5
    assert covered[0.02] == pytest.approx(0.02 * of_melanoma + 0.98 * others)


def test_without_predictions_of_shifted_images_it_says_what_to_run(tmp_path):
    make_run(tmp_path)
    shift_images(tmp_path, KEYS)
    (tmp_path / KEYS[1] / OCCLUSION_FILE.format("test")).unlink()
    with pytest.raises(MelanomaError, match=r"model_1.*chapter 07"):
        abstention_results(tmp_path, KEYS, resamples=50)


def test_a_training_without_distances_says_what_to_run(tmp_path):
    make_run(tmp_path)
    shift_images(tmp_path, KEYS)
    path = tmp_path / KEYS[0] / "predictions.parquet"
    save_predictions(path, load_predictions(path))
    with pytest.raises(MelanomaError, match="train again"):
        abstention_results(tmp_path, KEYS, resamples=50)


def test_several_trainings_widen_the_intervals(tmp_path, run_dir):
    make_run(tmp_path)
    make_run(tmp_path / TRAININGS / "2", training_seed=2)
    shift_images(tmp_path, KEYS)
    found = abstention_results(tmp_path, KEYS, trainings=2, resamples=100)
    assert {"model_0", "ensemble-model_0", "ensemble"} < set(found["models"])
    model = found["models"]["model_0"]
    assert model["sets"][0]["test"]["coverage"]["trainings"] == 2
    assert model["risk_coverage"]["confidence"]["area"]["trainings"] == 2
    assert "trainings" not in model["risk_coverage"]["distance"]["area"]  # of the first alone


def test_results_of_other_weights_are_refused(run_dir, results, tmp_path):
    assert read_abstention(run_dir, KEYS) == {}
    make_run(tmp_path)
    write_json(tmp_path / RESULTS, results)
    assert read_abstention(tmp_path, KEYS) == results
    with pytest.raises(MelanomaError, match="chapter 11"):
        read_abstention(tmp_path, KEYS[:1])
    bundle = read_json(tmp_path / KEYS[0] / "bundle.json")
    write_json(tmp_path / KEYS[0] / "bundle.json", bundle | {"weights_sha256": "other"})
    with pytest.raises(MelanomaError, match="chapter 11"):
        read_abstention(tmp_path, KEYS)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.91, 0.99, "more"), (0.85, 0.95, "cannot tell"), (0.5, 0.89, "less"), (None, None, "tell")],
)
def test_a_verdict_needs_the_whole_interval(low, high, says):
    assert says in verdict({"value": 0.9, "low": low, "high": high}, 0.9)


def test_tables_and_summary_hold_every_model(results):
    whole = {"abstention": results, "models": {}, "dataset": {"name": "x"}}
    rows = {name: table(whole, name).rows for name in
            ("risk_coverage", "referral", "promised_thresholds", "prediction_sets", "shifts")}
    assert len(rows["prediction_sets"]) == 3 * len(METHODS)
    assert len(rows["promised_thresholds"]) == 3 * 2
    assert len(rows["shifts"]) == 3 * len(results["shifts"])
    text = "\n".join(summarize_abstention(results))
    for model in results["models"].values():
        assert model["name"] in text
        assert f"{referral_at(model, 0.2)['test']['accuracy']['value']:.3f}" in text


def test_every_field_is_documented(results):
    section = (ROOT / "docs" / "results.md").read_text().partition("## abstention_results.json")[2]
    documented = set(re.findall(r"`([\w.-]+)`", section.partition("\n## ")[0]))

    def fields(value):
        if isinstance(value, list):
            return set().union(*map(fields, value))
        if not isinstance(value, dict) or value.keys() >= {"value", "low", "high"}:
            return set()
        return set(value).union(*map(fields, value.values()))

    assert fields(results) - {*KEYS, *CLASS_NAMES} <= documented


def test_a_target_of_everything_cannot_be_promised(tmp_path):
    make_run(tmp_path, skills=(2.0,))
    file = tmp_path / KEYS[0] / "bundle.json"
    point = {"name": "sensitivity_100", "criterion": "sensitivity", "target": 1.0}
    write_json(file, read_json(file) | {"operating_points": [point | {"threshold": 0.01}]})
    shift_images(tmp_path, KEYS[:1])
    found = abstention_results(tmp_path, KEYS[:1], resamples=50)
    assert found["models"][KEYS[0]]["thresholds"][0]["controlled"] is None
    assert "no number of lesions" in summarize_abstention(found)[0]
