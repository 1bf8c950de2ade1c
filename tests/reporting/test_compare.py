import json
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from helpers import computed_in, fast, make_run, table_of

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, read_json, write_csv, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.metrics import accuracy, auc, nll
from melanoma_lib.evaluation.operating_points import (
    operating_point_estimates,
    sensitivity_and_specificity,
)
from melanoma_lib.evaluation.predictions import (
    Predictions,
    isic_submission,
    load_predictions,
    save_predictions,
)
from melanoma_lib.evaluation.significance import delong
from melanoma_lib.reporting.compare import (
    COLUMNS,
    clearly_best,
    compare,
    starting_weights,
)
from melanoma_lib.reporting.summary import summarize
from melanoma_lib.reporting.tables import all_tables


@pytest.fixture
def results(trained):
    return compare(*trained, resamples=200)


def test_part(folder, key="model_0"):
    return load_predictions(folder / key / "predictions.parquet").split("test")


test_part.__test__ = False

def test_figures_are_those_of_the_test_part_at_the_fitted_temperature(results, trained):
    test = test_part(trained[0])
    probabilities = test.probabilities(1.3)
    model = results["models"]["model_0"]
    assert model["metrics"]["accuracy"]["value"] == float(accuracy(test.labels, probabilities))
    assert model["metrics"]["melanoma_auc"]["value"] == float(
        auc(test.labels == 4, probabilities[:, 4])
    )
    point = model["operating_points"][0]
    called = probabilities[:, 4] >= 0.4
    assert point["test"]["sensitivity"]["value"] == pytest.approx(called[test.labels == 4].mean())
    assert point["test"]["specificity"]["value"] == pytest.approx(
        1 - called[test.labels != 4].mean()
    )
    assert np.sum(model["confusion_matrix"]) == 200 == results["test_images"]
    assert results["test_lesions"] == 100 and not results["optimistic"]


def test_what_the_temperature_takes_away_is_paired_and_said(results, trained):
    """The networks of these runs are honest, so that a temperature of 1.3 can only harm."""
    test, model = test_part(trained[0]), results["models"]["model_0"]
    expected = nll(test.labels, test.probabilities()) - nll(test.labels, test.probabilities(1.3))
    assert model["gain"]["nll"]["value"] == pytest.approx(float(expected))
    sides = model["metrics"]["nll"], model["uncalibrated"]["nll"]
    assert model["gain"]["nll"]["high"] < sides[1]["high"] - sides[0]["low"]  # narrower than apart
    verdicts = []
    for low, high in ((0.1, 0.3), (-0.3, -0.1), (-0.1, 0.1)):
        gain = {"gain": {"nll": {"value": (low + high) / 2, "low": low, "high": high}}}
        changed = results | {"models": {"model_0": model | gain}, "differences": []}
        verdicts.append(summarize(changed))
    assert len(set(verdicts)) == 3
    assert "random weights" in verdicts[0] and starting_weights(
        {"architecture": "a", "config": {"weights": {"a": "file"}}}
    ) != starting_weights({"architecture": "b", "config": {"weights": {"a": "file"}}})


def test_every_figure_has_an_interval_around_it(results):
    for model in results["models"].values():
        for figure in [*model["metrics"].values(), *model["uncalibrated"].values()]:
            assert figure["low"] < figure["value"] < figure["high"]


def figures_in(results):
    """Every figure, wherever it stands in the results."""
    if isinstance(results, dict) and {"value", "low", "high"} <= set(results):
        yield results
    else:
        inner = results.values() if isinstance(results, dict) else results
        for each in inner if isinstance(results, dict | list) else []:
            yield from figures_in(each)


def test_without_a_single_error_every_figure_still_has_an_interval(tmp_path, trained):
    """Two models that are always right: nothing varies but the calibration errors."""
    latency = make_run(tmp_path / "perfect", skills=(12.0, 13.0))
    results = compare(tmp_path / "perfect", latency, trained[2], resamples=50)
    shown = results["models"], results["differences"]
    found = [figure for figure in figures_in(list(shown)) if figure["value"] is not None]
    assert sum(figure["value"] == 1 for figure in found) > 50
    assert all(figure["low"] < figure["high"] for figure in found)
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in found)
    figures, test = results["models"]["model_0"]["metrics"], test_part(tmp_path / "perfect")
    rarest = min(len(set(test.lesion_ids[test.labels == label])) for label in range(7))
    for name, lesions in (("accuracy", 100), ("balanced_accuracy", rarest)):
        low = pytest.approx(0.025 ** (1 / lesions))
        assert figures[name] == {"value": 1, "low": low, "high": 1}


def test_a_sensitivity_without_a_miss_leaves_room_for_one(tmp_path):
    make_run(tmp_path, skills=(60.0,))
    test = test_part(tmp_path)
    weights = bootstrap_weights(test.lesion_ids, 50)
    figures = operating_point_estimates(test, 1.0, 0.4, weights, prevalence=0.1)
    lesions = len(set(test.lesion_ids[test.is_melanoma]))
    least = pytest.approx(0.025 ** (1 / lesions))
    assert figures["sensitivity"] == {"value": 1, "low": least, "high": 1}
    assert figures["missed"]["value"] == 0
    assert figures["missed"]["high"] == pytest.approx(100 * (1 - 0.025 ** (1 / lesions)))
    others = len(set(test.lesion_ids[~test.is_melanoma]))
    found, spared = (0.025 ** (1 / count) for count in (lesions, others))  # the low ends
    low = 0.1 * found / (0.1 * found + 0.9 * (1 - spared))
    assert figures["ppv"] == {"value": 1, "low": pytest.approx(low), "high": 1}
    low = 0.9 * spared / (0.9 * spared + 0.1 * (1 - found))
    assert figures["npv"] == {"value": 1, "low": pytest.approx(low), "high": 1}
    assert sensitivity_and_specificity(test, 1.0, 0.4) == {"sensitivity": 1, "specificity": 1}


def test_what_an_operating_point_means_in_use(results, trained):
    """At the part's own prevalence of lesions, from its sensitivity and specificity, by hand."""
    test = test_part(trained[0])
    figures = results["models"]["model_0"]["operating_points"][0]["test"]
    found, spared = (figures[name]["value"] for name in ("sensitivity", "specificity"))
    share = len(set(test.lesion_ids[test.is_melanoma])) / len(set(test.lesion_ids))
    assert results["prevalence"] == share
    right, wrong = share * found, (1 - share) * (1 - spared)
    assert figures["ppv"]["value"] == pytest.approx(right / (right + wrong))
    assert figures["missed"]["value"] == pytest.approx(1000 * share * (1 - found))
    assert figures["false_alarms"]["value"] == pytest.approx(1000 * wrong)
    for figure in figures.values():
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_differences_are_paired(results, trained):
    folder, _, metadata = trained
    (pair,) = results["differences"]
    models = results["models"]
    figures = [models[pair[side]]["metrics"]["accuracy"]["value"] for side in ("first", "second")]
    assert pair["accuracy"]["value"] == pytest.approx(figures[0] - figures[1])
    first, second = test_part(folder), test_part(folder, "model_1")
    scores = first.melanoma_probability(1.3), second.melanoma_probability(1.3)
    assert pair["delong"]["p"] == delong(first.is_melanoma, *scores)["p"]
    right = [part.logits.argmax(1) == part.labels for part in (first, second)]
    assert pair["mcnemar"]["b"] - pair["mcnemar"]["c"] == right[0].sum() - right[1].sum()
    shutil.copytree(folder / "model_0", folder / "twin")
    (same,) = compare(folder, fast("model_0", "twin"), metadata, resamples=50)["differences"]
    assert same["accuracy"]["value"] == 0 and same["accuracy"]["p_holm"] == 1
    assert same["accuracy"]["high"] == -same["accuracy"]["low"] < 0.04  # none of 100 differs
    assert same["mcnemar"]["p"] == same["delong"]["p"] == 1


def test_p_values_are_raised_for_the_number_of_pairs(tmp_path, trained):
    latency = make_run(tmp_path / "three", skills=(2.0, 1.5, 0.5))
    results = compare(tmp_path / "three", latency, trained[2], resamples=100)
    assert len(results["differences"]) == 3
    for name in (*COLUMNS, "mcnemar", "delong"):
        p = np.array([[pair[name]["p"], pair[name]["p_holm"]] for pair in results["differences"]])
        assert (p[:, 1] >= p[:, 0]).all() and p[:, 1].max() <= 1
        assert p[:, 1].min() == pytest.approx(min(1, 3 * p[:, 0].min()))


def test_only_a_model_better_than_every_other_is_best(results):
    assert clearly_best(results, "accuracy") == "model_0"
    for pair in results["differences"]:
        pair["accuracy"]["p_holm"] = 0.051
    assert clearly_best(results, "accuracy") is None
    ece = {key: model["metrics"]["ece"]["value"] for key, model in results["models"].items()}
    results["differences"][0]["ece"]["p_holm"] = 0.01
    assert clearly_best(results, "ece") == min(ece, key=ece.get)  # less is better
    alone = results | {"models": {"model_0": results["models"]["model_0"]}, "differences": []}
    assert clearly_best(alone, "accuracy") is None


def test_trainings_of_different_precisions_are_not_compared(trained):
    folder, latency, metadata = trained
    computed_in(folder / "model_0", "float32")  # what the other one is taken for
    compare(folder, latency, metadata, resamples=10)
    computed_in(folder / "model_1", "bfloat16")
    with pytest.raises(MelanomaError, match=r"0 .*in float32, model_1 .*in bfloat16; .*melanoma"):
        compare(folder, latency, metadata)
    computed_in(folder / "model_0", "bfloat16")
    compare(folder, latency, metadata, resamples=10)


def test_results_are_json_and_name_their_classes(results):
    again = json.loads(json.dumps(results, allow_nan=False))
    assert tuple(again["class_names"]) == CLASS_NAMES and again["schema"] == 2


def test_every_field_is_documented(results):
    page = (PROJECT / "docs" / "results.md").read_text()

    def names(value):
        if isinstance(value, dict):
            yield from value
            value = list(value.values())
        for inner in value if isinstance(value, list) else []:
            yield from names(inner)

    named = set(re.findall(r"[`\"](\w+)[`\"]", page))
    assert set(names(results)) - named == set(results["models"])


def test_models_that_cannot_be_compared_are_named(trained):
    folder, latency, metadata = trained
    with pytest.raises(MelanomaError, match="absent"):
        compare(folder, latency | fast("absent"), metadata)
    path = folder / "model_1" / "predictions.parquet"
    predictions = load_predictions(path)
    save_predictions(path, predictions.split("test"))
    with pytest.raises(MelanomaError, match="model_1 was evaluated on other images"):
        compare(folder, latency, metadata)
    record = folder / "model_1" / "run.json"
    write_json(record, read_json(record) | {"finished": False})
    with pytest.raises(MelanomaError, match=r"not trained yet in .*: model_1"):
        compare(folder, latency, metadata)


def test_the_official_scorer_would_find_our_balanced_accuracy(results, trained, tmp_path):
    """The rules of ISIC 2018 task 3, as its scorer applies them to the file as it is written."""
    test = test_part(trained[0])
    table = isic_submission(test, 1.3)
    table = pd.read_csv(write_csv(tmp_path / "s.csv", table.to_dict("records")))
    categories = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    assert list(table) == ["image", *categories]
    assert table["image"].is_unique and table["image"].str.fullmatch(r"ISIC_\d{7}").all()
    values = table[categories]
    assert all(dtype == np.float64 for dtype in values.dtypes) and values.notna().all(axis=None)
    assert ((values >= 0) & (values <= 1)).all(axis=None)
    called = values.idxmax(axis=1)
    truth = [CLASS_NAMES[label].upper() for label in test.labels]
    score = np.mean([
        (called == kind)[np.array(truth) == kind].mean() for kind in categories if kind in truth
    ])
    ours = results["models"]["model_0"]["metrics"]["balanced_accuracy"]["value"]
    assert score == pytest.approx(ours)


@pytest.mark.slow
def test_four_models_at_the_size_of_the_thesis_take_seconds(tmp_path, capsys):
    """All figures of 1,502 images on 2,000 resamples; 10 s are meant on two cores."""
    rng, count = np.random.default_rng(0), 3004
    labels = rng.choice(7, count, p=[0.033, 0.051, 0.11, 0.012, 0.111, 0.67, 0.013])
    latency = make_run(tmp_path / "run", skills=(3.0, 2.0, 2.5, 0.8))
    for key, skill in zip(latency, (3.0, 2.0, 2.5, 0.8), strict=True):
        logits = rng.normal(size=(count, 7)) + skill * np.eye(7)[labels]
        predictions = Predictions(
            image_ids=np.array([f"ISIC_{i:07d}" for i in range(count)]),
            lesion_ids=np.array([f"HAM_{i * 3 // 4:07d}" for i in range(count)]),
            splits=np.repeat(["val", "test"], count // 2), labels=labels, logits=logits,
        )  # fmt: skip
        save_predictions(tmp_path / "run" / key / "predictions.parquet", predictions)
    metadata = table_of(predictions)
    metadata["localization"] = rng.choice(["back", "trunk", "face", "ear", "foot"], count)
    start = time.perf_counter()
    results = compare(tmp_path / "run", latency, metadata)
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f" {seconds:.1f} s ", end="")
    assert results["test_images"] == 1502 and seconds < 60  # many times more on a busy machine


@pytest.fixture
def trained_again(trained):
    """The run of `trained` with two further trainings of its models."""
    folder, latency, metadata = trained
    for number in (2, 3):
        make_run(folder / "trainings" / str(number), training_seed=number)
    return folder, latency, metadata


def test_several_trainings_are_means_with_both_sources_of_variance(trained_again, results):
    several = compare(*trained_again, resamples=200, trainings=3)
    assert several["trainings"] == 3 and results["trainings"] == 1
    model, single = several["models"]["model_0"], results["models"]["model_0"]
    values = [training["metrics"]["accuracy"] for training in model["trainings"]]
    assert [training["seed"] for training in model["trainings"]] == [0, 2, 3]
    assert model["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(values))
    assert values[0] == single["metrics"]["accuracy"]["value"]
    assert set(single["metrics"]["accuracy"]) == {"value", "low", "high"}
    (pair,) = several["differences"]
    assert pair["accuracy"]["outperforms"]["value"] > 0.9  # the first is much better
    (of_one,) = results["differences"]
    assert "outperforms" not in of_one["accuracy"]
    sensitivity = model["operating_points"][0]["test"]["sensitivity"]
    assert sensitivity["trainings"] == 3
    assert all(row["accuracy"].get("trainings") == 3 for row in model["subgroups"])
    assert {"ensemble", "ensemble-model_0", "ensemble-model_1"} == set(several["ensembles"])
    best = [row["second"] for row in several["ensemble_differences"]]
    assert best == ["model_0"] * 3
    assert several["ensembles"]["ensemble"]["latency"]["median_ms"] == 6 * 1.0


def test_trainings_that_are_missing_or_of_another_recipe_are_refused(trained_again):
    folder, latency, metadata = trained_again
    with pytest.raises(MelanomaError, match=r"trainings/4/model_0"):
        compare(folder, latency, metadata, trainings=4)
    path = folder / "trainings" / "2" / "model_1" / "run.json"
    write_json(path, read_json(path) | {"epochs": 9})
    with pytest.raises(MelanomaError, match="trainings/2/model_1 was trained otherwise"):
        compare(folder, latency, metadata, trainings=3)


def test_tables_and_summary_say_what_trainings_change(trained_again):
    results = compare(*trained_again, resamples=100, trainings=3)
    made = all_tables(results)
    assert len(made["trainings"].rows) == 2 * len(COLUMNS)
    assert len(made["outperformance"].rows) == 1 and len(made["averages"].rows) == 3
    text = summarize(results)
    assert "over lesions and trainings, 3 a network" in text and "Ensemble of all 6" in text
    one = compare(*trained_again, resamples=100)
    assert "with one training" in summarize(one)
    assert not {"trainings", "outperformance"} & set(all_tables(one))
