import numpy as np
import pandas as pd
import pytest
from helpers import table_of

from melanoma_lib.evaluation.bootstrap import MIN_LESIONS, bootstrap_weights, exact_interval
from melanoma_lib.evaluation.metrics import accuracy, auc
from melanoma_lib.evaluation.predictions import Predictions, load_predictions
from melanoma_lib.evaluation.subgroups import (
    by_diagnosis,
    by_subgroup,
    confident_errors,
    groups,
)
from melanoma_lib.evaluation.trained_run import TrainedRun


@pytest.fixture
def test_of(trained):
    return load_predictions(trained[0] / "model_0" / "predictions.parquet").split("test")


def test_every_image_is_in_one_group_of_each_kind(test_of):
    table = groups(table_of(test_of))
    assert table["age"].tolist()[:4] == ["0 to 29", "45 to 59", "75 or older", "unknown"]
    assert table["dx_type"].tolist()[:2] == ["histopathology", "follow-up"]
    assert table.notna().all(axis=None)


def test_an_age_at_the_edge_belongs_to_the_band_it_opens():
    ages = pd.DataFrame({"image_id": list("abc"), "age": [29.9, 30, 75], "sex": "male",
                         "localization": "back", "dx_type": "histo"})  # fmt: skip
    assert groups(ages)["age"].tolist() == ["0 to 29", "30 to 44", "75 or older"]


def test_figures_of_a_group_are_those_of_its_images(test_of):
    metadata = table_of(test_of)
    weights = bootstrap_weights(test_of.lesion_ids, 50)
    rows = by_subgroup([(test_of, 1.3, 0.4)], [test_of.probabilities(1.3)], metadata, weights)
    for attribute in ("sex", "age", "localization", "dx_type"):
        parts = [row for row in rows if row["attribute"] == attribute]
        assert sum(row["images"] for row in parts) == len(test_of.labels)
    inside = (metadata["sex"] == "female").to_numpy()
    (row,) = (row for row in rows if row["group"] == "female")
    probabilities = test_of.probabilities(1.3)[inside]
    positive = test_of.is_melanoma[inside]
    assert row["accuracy"]["value"] == accuracy(test_of.labels[inside], probabilities)
    assert row["melanoma_auc"]["value"] == auc(positive, probabilities[:, 4])
    called = probabilities[:, 4] >= 0.4
    assert row["sensitivity"]["value"] == pytest.approx(called[positive].mean())
    assert row["melanoma_lesions"] == len(set(test_of.lesion_ids[inside][positive]))
    assert all(row["small"] == (row["melanoma_lesions"] < MIN_LESIONS) for row in rows)


def test_the_surest_errors_come_first_by_hand():
    logits = np.full((4, 7), 0.0)
    logits[[0, 1, 2, 3], [4, 5, 5, 0]] = [3.0, 1.0, 5.0, 9.0]
    part = Predictions(
        image_ids=np.array(list("abcd")), lesion_ids=np.array(list("wxyz")),
        splits=np.array(["test"] * 4), labels=np.array([5, 4, 4, 0]), logits=logits,
    )  # fmt: skip
    errors = confident_errors(part, 1.0, count=2)
    assert [(e["image_id"], e["true"], e["predicted"]) for e in errors] == [
        ("c", "mel", "nv"), ("a", "nv", "mel")
    ]  # fmt: skip
    assert errors[0]["confidence"] == pytest.approx(np.exp(5) / (np.exp(5) + 6))


def in_group(test_of, metadata, name):
    weights = bootstrap_weights(test_of.lesion_ids, 50)
    rows = by_subgroup([(test_of, 1.3, 0.4)], [test_of.probabilities(1.3)], metadata, weights)
    return next(row for row in rows if row["group"] == name)


def test_few_lesions_have_the_exact_interval_of_so_many(test_of):
    metadata = table_of(test_of)
    few = np.flatnonzero(test_of.is_melanoma)[:3]
    metadata.loc[few, "localization"] = "ear"
    lesions = len(set(test_of.lesion_ids[few]))
    row = in_group(test_of, metadata, "ear")
    assert row["small"] and row["melanoma_auc"]["value"] is None  # nothing to tell them from
    figure = row["sensitivity"]
    ends = exact_interval(figure["value"] * lesions, lesions)
    assert (figure["low"], figure["high"]) == pytest.approx([float(end) for end in ends])


def test_two_melanomas_above_all_others_leave_room_for_one_below(test_of):
    """An AUC of 1 from k melanomas is worth k pairs, all won."""
    metadata, scores = table_of(test_of), test_of.melanoma_probability(1.3)
    surest = np.argsort(np.where(test_of.is_melanoma, -scores, 1))
    lowest = np.argsort(np.where(test_of.is_melanoma, 1, scores))[:30]
    metadata.loc[[*surest[:2], *lowest], "localization"] = "ear"
    row = in_group(test_of, metadata, "ear")
    low = 0.025 ** (1 / row["melanoma_lesions"])
    assert row["melanoma_auc"] == {"value": 1, "low": pytest.approx(low), "high": 1}


def small_run(**bundle):
    """Two classes that matter: eight images, six nevi (one seems a melanoma) and two melanomas."""
    odds = np.log([9, 9, 9, 9, 9, 1 / 4, 2 / 3, 4])  # of nevus to melanoma
    logits = np.full((8, 7), -50.0)
    logits[:, 5], logits[:, 4] = odds, 0
    ids = np.arange(8).astype(str)
    labels = np.array([5] * 6 + [4] * 2)
    predictions = Predictions(ids, ids, np.array(["test"] * 8), labels, logits)
    return TrainedRun({}, {"temperature": 1.0} | bundle, predictions)


def test_recall_and_calibration_of_a_diagnosis_by_hand():
    """Melanoma probabilities .1 five times, .8, .6, .2: the mean is .2625, the frequency .25."""
    run = small_run()
    rows = by_diagnosis([run], bootstrap_weights(run.predictions.lesion_ids, 200))
    melanoma, nevus = ({row["diagnosis"]: row for row in rows}[code] for code in ("mel", "nv"))
    assert (melanoma["images"], nevus["images"]) == (2, 6)
    assert melanoma["recall"]["value"] == 0.5 and nevus["recall"]["value"] == pytest.approx(5 / 6)
    assert (melanoma["recall"]["low"], melanoma["recall"]["high"]) == pytest.approx(
        np.ravel(exact_interval(1, 2)))  # fmt: skip
    assert melanoma["calibration_in_the_large"]["value"] == pytest.approx(0.0125)
    assert nevus["calibration_in_the_large"]["value"] == pytest.approx(-0.0125)
    # Bins of .1, .2, .6 and .8: gaps .5, .2 (a melanoma), .4 and .8, over eight images.
    assert melanoma["ece"]["value"] == pytest.approx((0.5 + 0.8 + 0.4 + 0.8) / 8)


def test_a_balanced_decision_divides_by_the_prevalence_by_hand():
    """With one melanoma to four nevi, a fifth is as much as four fifths: .2 is a tie, .6 is not."""
    priors = np.full(7, 1e-9)
    priors[[4, 5]] = 0.19, 0.81
    run = small_run(decision_priors=priors.tolist())
    assert run.decision_scores("test").argmax(1).tolist() == [5, 5, 5, 5, 5, 4, 4, 4]
    assert small_run().decision_scores("test").argmax(1).tolist() == [5, 5, 5, 5, 5, 4, 4, 5]
