import numpy as np
import pandas as pd
import pytest
from helpers import table_of

from melanoma_lib.evaluation.bootstrap import MIN_LESIONS, bootstrap_weights, exact_interval
from melanoma_lib.evaluation.metrics import accuracy, auc
from melanoma_lib.evaluation.predictions import Predictions, load_predictions
from melanoma_lib.evaluation.subgroups import by_subgroup, confident_errors, groups


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
    rows = by_subgroup([(test_of, 1.3, 0.4)], metadata, weights)
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
    rows = by_subgroup([(test_of, 1.3, 0.4)], metadata, bootstrap_weights(test_of.lesion_ids, 50))
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
    metadata, scores = table_of(test_of), test_of.melanoma_score(1.3)
    surest = np.argsort(np.where(test_of.is_melanoma, -scores, 1))
    lowest = np.argsort(np.where(test_of.is_melanoma, 1, scores))[:30]
    metadata.loc[[*surest[:2], *lowest], "localization"] = "ear"
    row = in_group(test_of, metadata, "ear")
    low = 0.025 ** (1 / row["melanoma_lesions"])
    assert row["melanoma_auc"] == {"value": 1, "low": pytest.approx(low), "high": 1}
