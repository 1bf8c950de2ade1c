"""The price of leakage: known gains are found where they are, and nowhere else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import computed_in, make_run

from melanoma_lib.config import LEAKAGE_RESULTS, Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation.predictions import Predictions, save_predictions
from melanoma_lib.reporting.compare import COLUMNS
from melanoma_lib.reporting.leakage import (
    paired_leakage,
    price_of_leakage,
    read_leakage,
    summarize_leakage,
)
from melanoma_lib.reporting.tables import table

KEY = "model_0"


def write_training(config, labels, logits, leaking):
    """A training that is finished; every test lesion has one image, some also one in training."""
    folder = make_folder(config)
    ids = np.array([f"I{n}" for n in range(len(labels))])
    lesions = np.char.replace(ids, "I", "L")
    predictions = Predictions(ids, lesions, np.full(len(ids), "test"), labels, logits)
    save_predictions(folder / "predictions.parquet", predictions)
    train = pd.DataFrame({"image_id": ["T0", "T1"], "lesion_id": ["M0", "M1"]})
    siblings = pd.DataFrame({"image_id": [f"S{n}" for n in leaking],
                             "lesion_id": lesions[leaking]})  # fmt: skip
    test = pd.DataFrame({"image_id": ids, "lesion_id": lesions})
    split = pd.concat([train.assign(part="train"), siblings.assign(part="train"),
                       test.assign(part="test")])  # fmt: skip
    split.assign(dx="nv").to_csv(folder.parent / "split.csv", index=False)


def make_folder(config):
    folder = config_folder(config)
    make_run(folder.parent, skills=(1.0,))
    record = read_json(folder / "run.json")
    seed = {"split": "lesion", "training_seed": config.training_seed}
    write_json(folder / "run.json", record | {"config": seed, "training_key": "clean"})
    return folder


def config_folder(config):
    return Path(config.output_dir) / KEY


def simulate(run_dir, trainings=3, gain=1.5, fractions=(0.4,), images=300, seed=0):
    """Fake predictions in which leaked lesions gain `gain` on the logit of their class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % len(CLASS_NAMES)
    truth = np.eye(len(CLASS_NAMES))[labels]
    hard = rng.normal(size=truth.shape)  # of a lesion, whoever judges it
    config = Config(output_dir=str(run_dir), trainings=trainings)
    for fraction in (0.0, *fractions):
        design = config.with_leakage(fraction) if fraction else config
        leaking = np.arange(round(fraction * images))
        for number in range(1, trainings + 1):
            logits = hard + 1.2 * truth + 0.5 * rng.normal(size=truth.shape)
            logits[leaking] += gain * truth[leaking]
            write_training(design.training(number), labels, logits.astype(np.float32), leaking)
    return config


def test_leaked_lesions_gain_and_others_do_not(tmp_path):
    results = paired_leakage(simulate(tmp_path), KEY, [0.4], resamples=200)
    sets = results["fractions"][0]["sets"]
    assert [sets[name]["images"] for name in ("all", "leaked", "not_leaked")] == [300, 120, 180]
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "melanoma_auc"):
        gained = {name: found["difference"][metric] for name, found in sets.items()}
        assert gained["leaked"]["low"] > 0 and gained["leaked"]["p"] < 0.05
        assert gained["not_leaked"]["low"] < 0 < gained["not_leaked"]["high"]
        assert gained["not_leaked"]["p"] > 0.05
        for name, found in sets.items():
            both = [found[design][metric]["value"] for design in ("leaky", "clean")]
            assert gained[name]["value"] == pytest.approx(both[0] - both[1])
            assert gained[name]["value"] == pytest.approx(np.mean(gained[name]["of_each_training"]))
            assert gained[name]["trainings"] == 3
    gained = [found["difference"]["accuracy"] for found in sets.values()]
    values = [estimate["value"] for estimate in gained]
    assert values[0] == pytest.approx(0.4 * values[1] + 0.6 * values[2])
    true = true_gain()
    assert gained[0]["low"] < 0.4 * true < gained[0]["high"]
    assert gained[1]["low"] < true < gained[1]["high"]
    write_json(tmp_path / "results.json", results)  # without NaN


def true_gain(gain=1.5, lesions=40000):
    """The accuracy that a leaked lesion of `simulate` gains, of very many."""
    noise = np.random.default_rng(1).normal(scale=1.25**0.5, size=(lesions, len(CLASS_NAMES)))
    clean, leaky = ((noise[:, 0] + skill > noise[:, 1:].max(1)).mean()
                    for skill in (1.2, 1.2 + gain))  # fmt: skip
    return leaky - clean


def test_an_example_by_hand(tmp_path):
    """Four lesions, two of which leak. Clean: right on one of these and on both others."""
    labels = np.array([4, 5, 4, 5])
    config = Config(output_dir=str(tmp_path))
    right = {None: [True, False, True, True], 0.5: [True, True, True, True]}
    for fraction, hits in right.items():
        logits = np.zeros((4, len(CLASS_NAMES)), np.float32)
        logits[np.arange(4), np.where(hits, labels, 0)] = 9.0
        design = config.with_leakage(fraction) if fraction else config
        write_training(design, labels, logits, [0, 1] if fraction else [])
    results = paired_leakage(config, KEY, [0.5], resamples=200)
    (design,) = results["fractions"]
    gained = [found["difference"]["accuracy"]["value"] for found in design["sets"].values()]
    assert gained == [0.25, 0.5, 0.0]
    assert (design["training_images"], design["replaced_images"]) == (4, 0)
    assert "trainings" not in design["sets"]["all"]["difference"]["accuracy"]
    assert "0.250 [" in summarize_leakage(results)
    assert "intervals over lesions, not over trainings" in summarize_leakage(results)


def test_several_fractions_are_a_curve_and_a_table(tmp_path):
    config = simulate(tmp_path / "run", trainings=1, fractions=(0.1, 0.4))
    results = paired_leakage(config, KEY, [0.4, 0.1], resamples=50)
    gained = [each["sets"]["all"]["difference"]["accuracy"]["value"]
              for each in results["fractions"]]  # fmt: skip
    assert gained[0] < gained[1]
    made = table({"leakage": results}, "leakage")
    assert [row["set"] for row in made.rows] == 2 * ["all", "lesion leaked", "lesion not leaked"]
    assert [row["leaked_fraction"] for row in made.rows] == 3 * [0.1] + 3 * [0.4]
    assert set(COLUMNS) <= set(made.heads)


def test_a_test_lesion_in_the_clean_training_split_is_refused(tmp_path):
    config = simulate(tmp_path / "run", trainings=1)
    path = tmp_path / "run" / "split.csv"
    split = pd.read_csv(path)
    split.loc[0, "lesion_id"] = "L3"
    split.to_csv(path, index=False)
    with pytest.raises(MelanomaError, match="lesions of the test split in training"):
        paired_leakage(config, KEY, [0.4])


def test_trainings_that_are_no_pair_are_refused(tmp_path):
    config = simulate(tmp_path / "run", trainings=1)
    leaky = config_folder(config.with_leakage(0.4))
    record = read_json(leaky / "run.json")
    for change in ({"recipe": "other"}, {"epochs": 9}, {"config": {"training_seed": 9}}):
        write_json(leaky / "run.json", record | change)
        with pytest.raises(MelanomaError, match="trained otherwise than without leakage"):
            paired_leakage(config, KEY, [0.4])
    write_json(leaky / "run.json", record)
    computed_in(leaky, "bfloat16")
    with pytest.raises(MelanomaError, match="different precisions"):
        paired_leakage(config, KEY, [0.4])
    with pytest.raises(MelanomaError, match="does not exist"):
        paired_leakage(config, KEY, [0.3])


def test_results_of_another_training_are_not_shown(tmp_path):
    config = simulate(tmp_path, trainings=1)
    assert read_leakage(tmp_path) == {}
    results = paired_leakage(config, KEY, [0.4], resamples=10)
    write_json(tmp_path / LEAKAGE_RESULTS, results)
    assert read_leakage(tmp_path) == results
    record = read_json(tmp_path / KEY / "run.json")
    write_json(tmp_path / KEY / "run.json", record | {"training_key": "another"})
    with pytest.raises(MelanomaError, match="another training of model_0"):
        read_leakage(tmp_path)


def test_the_price_of_leakage_is_the_difference_of_the_two_splits(tmp_path):
    for split, skill in (("lesion", 1.0), ("image", 2.0)):
        make_run(tmp_path / split, skills=(skill,), split=split)
    price = price_of_leakage(tmp_path / "lesion", tmp_path / "image", "model_0", resamples=200)
    assert price == price_of_leakage(tmp_path / "lesion", tmp_path / "image", "model_0", 200)
    values = [price[split]["metrics"]["accuracy"]["value"] for split in ("lesion", "image")]
    gained = price["difference"]["accuracy"]
    assert gained["value"] == pytest.approx(values[1] - values[0])
    assert 0 < gained["low"] < gained["value"] < gained["high"]
    sides = [price[split]["metrics"]["accuracy"] for split in ("lesion", "image")]
    widths = [side["high"] - side["low"] for side in sides]  # of separate draws: they add up
    assert gained["high"] - gained["low"] == pytest.approx(np.hypot(*widths), rel=0.25)
    with pytest.raises(MelanomaError, match="one run by lesion and one by image"):
        price_of_leakage(tmp_path / "image", tmp_path / "image", "model_0")
    record = read_json(tmp_path / "image" / "model_0" / "run.json")
    write_json(tmp_path / "image" / "model_0" / "run.json", record | {"epochs": 9})
    with pytest.raises(MelanomaError, match="differ in more than the split"):
        price_of_leakage(tmp_path / "lesion", tmp_path / "image", "model_0")


def test_leakage_has_no_price_between_different_precisions(tmp_path):
    for split in ("lesion", "image"):
        make_run(tmp_path / split, skills=(1.0,), split=split)
        computed_in(tmp_path / split / "model_0", "bfloat16")
    folders = tmp_path / "lesion", tmp_path / "image"
    price_of_leakage(*folders, "model_0", resamples=10)
    computed_in(tmp_path / "image" / "model_0", "float32")
    with pytest.raises(MelanomaError, match="by lesion in bfloat16, model_0 by image in float32"):
        price_of_leakage(*folders, "model_0")
