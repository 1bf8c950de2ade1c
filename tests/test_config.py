import dataclasses
import json

import pytest

from melanoma_lib.config import (
    PRESETS,
    Augmentation,
    Config,
    Recipe,
    basis_note,
    format_operating_points,
    parse_operating_points,
    preset,
    reasons,
)
from melanoma_lib.core.errors import MelanomaError


def test_the_default_is_the_recipe_of_the_thesis():
    config = preset("thesis")
    assert config == Config()
    assert (config.epochs, config.batch_size, config.image_size) == (20, 32, 224)
    assert (config.learning_rate, config.seed, config.split) == (1e-4, 42, "lesion")
    assert config.pretrained and len(config.architectures) == 4


@pytest.mark.parametrize("configuration", [Config, Recipe, Augmentation])
def test_every_value_has_its_reason(configuration):
    given = reasons(configuration)
    assert list(given) == [entry.name for entry in dataclasses.fields(configuration)]
    assert all(len(reason.split()) > 2 for reason in given.values())


def test_none_leaves_a_value_and_presets_state_only_what_differs():
    assert preset("sample", epochs=None, seed=1).epochs == PRESETS["sample"]["epochs"]
    for values in PRESETS.values():
        assert all(getattr(Config(), name) != value for name, value in values.items())


@pytest.mark.parametrize(
    "values",
    [
        {"split": "patient"},
        {"epochs": 0},
        {"batch_size": 1},
        {"image_size": 8},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"architectures": ()},
        {"seed": -1},
        {"seed": 2**32},
        {"leaked_fraction": 0.0},
        {"leaked_fraction": 1.1},
    ],
)
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(MelanomaError, match=next(iter(values)).rstrip("s")):
        Config(**values)


def test_a_preset_that_does_not_exist_is_named():
    with pytest.raises(MelanomaError, match="'tiny' is not one of thesis, sample"):
        preset("tiny")


def test_the_training_key_follows_what_weights_depend_on(tmp_path):
    config = Config()
    key = config.training_key("resnet50", "data")
    same = [
        dataclasses.replace(config, epochs=3),
        dataclasses.replace(config, output_dir="elsewhere", architectures=("resnet50",)),
    ]
    assert {c.training_key("resnet50", "data") for c in same} == {key}
    weights = tmp_path / "w"
    weights.write_bytes(b"1")
    others = [
        config.training_key("vit_b_16", "data"),
        config.training_key("resnet50", "other data"),
        dataclasses.replace(config, seed=1).training_key("resnet50", "data"),
        dataclasses.replace(config, weights={"resnet50": str(weights)}).training_key(
            "resnet50", "data"
        ),
        dataclasses.replace(
            config, augmentation=dataclasses.replace(config.augmentation, flip=0.4)
        ).training_key("resnet50", "data"),
    ]
    assert len({key, *others}) == 6


def test_leakage_is_another_training_of_the_same_recipe_in_the_same_run():
    config = Config(output_dir="run", trainings=3)
    leaky = config.with_leakage(0.25)
    assert leaky.training_key("resnet50", "data") != config.training_key("resnet50", "data")
    assert leaky.recipe_key("resnet50", "data") == config.recipe_key("resnet50", "data")
    assert leaky.output_dir == "run/leakage/0.25" and leaky.trainings == 3
    second = leaky.training(2)
    assert second.output_dir == "run/leakage/0.25/trainings/2" and str(second.run_dir) == "run"
    assert second.training_seed == config.training(2).training_seed
    with pytest.raises(MelanomaError, match="needs the split by lesion"):
        Config(split="image", leaked_fraction=0.25)


def test_figures_say_what_they_rest_on():
    assert basis_note(False) == ""
    assert basis_note(True, "image") == "generated sample; split by image: optimistic"


def test_operating_points_are_read_as_they_are_written():
    points = Config().operating_points
    assert parse_operating_points(format_operating_points(points).split(",")) == points
    twice = ["sensitivity=0.9", " sensitivity = .9"]
    assert parse_operating_points(twice) == (("sensitivity", 0.9),)


@pytest.mark.parametrize(
    "text", ["auc=0.9", "specificity", "specificity=95", "sensitivity=0", "sensitivity=0.9.5"]
)
def test_what_is_no_operating_point_is_refused(text):
    with pytest.raises(MelanomaError, match="no operating point"):
        parse_operating_points([text])


def test_a_configuration_comes_back_from_json():
    config = preset("sample", architectures=("a", "b"), operating_points=(("sensitivity", 0.9),))
    assert Config.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_training_seed_is_part_of_the_key_and_not_of_the_recipe():
    config = Config()
    keys = {config.training(n).training_key("resnet50", "data") for n in (1, 2, 3)}
    assert len(keys) == 3 and config.training_key("resnet50", "data") in keys
    recipes = {config.training(n).recipe_key("resnet50", "data") for n in (1, 2)}
    assert len(recipes) == 1


def test_a_record_of_one_seed_for_split_and_training_is_what_it_was():
    values = dataclasses.asdict(Config())
    del values["training_seed"], values["trainings"]
    old = Config.from_json(values)
    assert (old.seed, old.training_seed, old.trainings) == (42, 42, 1)
    # The digest that versions with a single seed recorded for these values.
    assert old.training_key("resnet50", "data") == "de72bce8096b173f"


def test_a_further_training_lives_in_the_folder_of_its_run(tmp_path):
    config = Config(output_dir=str(tmp_path), training_seed=5, trainings=3)
    third = config.training(3)
    assert third.output_dir == str(tmp_path / "trainings" / "3")
    assert (third.training_seed, third.trainings, third.run_dir) == (7, 1, tmp_path)
    assert config.training(1).run_dir == config.run_dir == tmp_path
