import dataclasses
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_lib.config import Config, preset
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json
from melanoma_lib.core.locks import lock
from melanoma_lib.data.synthetic import generate_sample
from melanoma_lib.evaluation.calibration import fit_temperature
from melanoma_lib.evaluation.latency import measure_latency
from melanoma_lib.evaluation.metrics import auc
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.evaluation.trained_run import load_reference_distances
from melanoma_lib.training import train
from melanoma_lib.training.train import OUTPUTS, train_architecture

KEY = "test_efficientnet"


def config_of(dataset, output_dir, **changes):
    recipe = {"epochs": 2, "batch_size": 16, "image_size": 32, "learning_rate": 3e-3}
    return Config(data_dir=str(dataset), output_dir=str(output_dir), architectures=(KEY,),
                  pretrained=False, device="cpu", **recipe | changes)  # fmt: skip


@pytest.fixture
def config(_dataset, tmp_path):
    return config_of(_dataset, tmp_path / "run")


@pytest.fixture(scope="module")
def _finished(_dataset, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished")
    train_architecture(config_of(_dataset, run), KEY)
    return run


@pytest.fixture
def folder(config, _finished):
    """The folder of a training that is finished."""
    return Path(shutil.copytree(_finished, config.output_dir)) / KEY


def state(folder):
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir()}


def test_a_temperature_at_the_end_of_its_range_is_said(config, monkeypatch, capsys):
    monkeypatch.setattr(train, "fit_temperature", lambda *_: 20.0)
    train_architecture(dataclasses.replace(config, epochs=1), KEY)
    assert "The temperature 20.00 is at the end of its range" in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["lesion", "image"])
def test_a_run_folder_is_complete(config, protocol):
    folder = train_architecture(dataclasses.replace(config, split=protocol), KEY)
    assert all((folder / name).exists() for name in OUTPUTS)
    record = read_json(folder / "run.json")
    assert record["finished"] and record["config"]["split"] == protocol
    assert record["dataset"]["images"] == 105
    assert torch.__version__.startswith(record["versions"]["torch"])
    split = pd.read_csv(folder.parent / "split.csv")
    predictions = load_predictions(folder / "predictions.parquet")
    for name in ("val", "test"):
        expected = split["image_id"][split["part"].str.contains(name)]
        assert predictions.split(name).image_ids.tolist() == expected.tolist()
    val, test = load_reference_distances(folder)
    assert (len(val), len(test)) == tuple(len(predictions.split(n).labels) for n in ("val", "test"))
    limit = read_json(folder / "bundle.json")["known_limit"]
    assert 0 < np.median(val) <= limit and (protocol == "lesion" or np.array_equal(val, test))
    if protocol == "image":
        val, test = predictions.split("val"), predictions.split("test")
        assert np.array_equal(val.logits, test.logits)


def used(folder):
    return read_json(folder / "run.json")["arithmetic"]


def test_settings_are_recorded_and_kept(config, monkeypatch, capsys):
    """A resumed or longer training goes on as it began, whatever the device computes in by now."""
    monkeypatch.setattr(train, "computes_bfloat16", lambda device: True)
    folder, threads = train_architecture(config, KEY), torch.get_num_threads()
    settings = {"precision": "bfloat16", "layout": "channels_last", "threads": threads}
    assert used(folder) == settings
    assert f"computes in bfloat16, channels_last, {threads}" in capsys.readouterr().out
    monkeypatch.setattr(train, "computes_bfloat16", lambda device: False)
    given, fit = [], train.fit
    monkeypatch.setattr(train, "fit", lambda *inputs: given.append(inputs[5]) or fit(*inputs))
    train_architecture(dataclasses.replace(config, epochs=3), KEY)
    assert dataclasses.asdict(given[0]) == settings == used(folder)
    asked = dataclasses.replace(config, precision="float32")
    assert asked.training_key(KEY, "") != config.training_key(KEY, "")
    assert used(train_architecture(asked, KEY))["precision"] == "float32"


def test_the_precision_is_chosen_once_for_all_trainings_of_a_run(config, monkeypatch):
    """By the device where it is the first with these parameters, whatever else lies there."""
    monkeypatch.setattr(train, "fit", None)  # stops each after its record is written
    for native, key, seed, expected in [
        (True, "test_efficientnet", 1, "bfloat16"),
        (False, "test_resnet", 1, "bfloat16"),  # on another device
        (False, "test_vit", 2, "float32"),  # another seed is another training
        (True, "test_resnet", 2, "float32"),
    ]:
        monkeypatch.setattr(train, "computes_bfloat16", lambda _, native=native: native)
        with pytest.raises(TypeError):
            train_architecture(dataclasses.replace(config, seed=seed), key)
        assert used(Path(config.output_dir) / key)["precision"] == expected


def test_temperature_and_thresholds_come_from_validation(folder):
    bundle = read_json(folder / "bundle.json")
    val = load_predictions(folder / "predictions.parquet").split("val")
    assert bundle["temperature"] == fit_temperature(val.logits, val.labels)
    score = val.melanoma_probability(bundle["temperature"])
    point = bundle["operating_points"][0]
    assert (score[~val.is_melanoma] < point["threshold"]).mean() >= point["target"]
    assert bundle["class_names"][4] == "mel" and bundle["image_size"] == 32


def test_other_operating_points_renew_the_bundle_of_a_finished_training(
    config, folder, monkeypatch
):
    monkeypatch.setattr(train, "fit", None)  # would raise if called
    train_architecture(dataclasses.replace(config, operating_points=(("sensitivity", 0.9),)), KEY)
    bundle = read_json(folder / "bundle.json")
    (point,) = bundle["operating_points"]
    assert (point["name"], point["target"]) == ("sensitivity_90", 0.9)
    validation = load_predictions(folder / "predictions.parquet").split("val")
    scores = validation.melanoma_probability(bundle["temperature"])[validation.is_melanoma]
    assert (scores >= point["threshold"]).mean() >= 0.9


def test_a_finished_training_is_only_read_unless_it_is_damaged(config, folder):
    before = state(folder)
    assert train_architecture(config, KEY) == folder and state(folder) == before
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(MelanomaError, match=r"model\.safetensors is damaged; move .* away"):
        train_architecture(config, KEY)


def test_more_epochs_go_on_and_fewer_or_others_are_set_aside(config, folder, capsys):
    first = (folder / "history.csv").read_text()
    longer = dataclasses.replace(config, epochs=3)
    train_architecture(longer, KEY)
    assert (folder / "history.csv").read_text().startswith(first)
    assert "going on after epoch 2 of 3" in capsys.readouterr().out
    longer_state = state(folder)

    train_architecture(dataclasses.replace(config, seed=7), KEY)
    assert len(list((folder.parent / "replaced").iterdir())) == 1
    train_architecture(longer, KEY)  # the earlier training comes back untouched
    assert state(folder) == longer_state
    for again in (config, longer, config):  # back and forth, any number of times
        train_architecture(again, KEY)
        assert read_json(folder / "run.json")["epochs"] == again.epochs


def test_an_earlier_training_comes_back_after_a_detour_that_got_nowhere(
    config, folder, monkeypatch
):
    """Another training is begun by mistake and interrupted before its first checkpoint."""
    before = state(folder)
    monkeypatch.setattr("melanoma_lib.training.loop.train_epoch", None)
    with pytest.raises(TypeError):
        train_architecture(dataclasses.replace(config, learning_rate=1.0), KEY)
    assert not (folder / "history.csv").exists()
    assert train_architecture(config, KEY) == folder and state(folder) == before


def test_a_killed_run_goes_on(config, monkeypatch):
    """The last step of a run fails: the next one needs no epoch again."""
    monkeypatch.setattr("melanoma_lib.training.train.save_predictions", None)
    with pytest.raises(TypeError):
        train_architecture(config, KEY)
    monkeypatch.undo()
    monkeypatch.setattr("melanoma_lib.training.loop.train_epoch", None)
    folder = train_architecture(config, KEY)
    assert read_json(folder / "run.json")["finished"]


def test_results_are_the_same_for_a_seed_and_differ_for_another(config, tmp_path):
    logits = []
    for number, seed in enumerate((1, 1, 2)):
        changed = dataclasses.replace(config, seed=seed, output_dir=str(tmp_path / str(number)))
        folder = train_architecture(changed, KEY)
        logits.append(load_predictions(folder / "predictions.parquet").logits)
    assert np.array_equal(logits[0], logits[1])
    assert logits[0].shape != logits[2].shape or not np.array_equal(logits[0], logits[2])


def test_an_architecture_is_trained_by_one_process_at_a_time(config, tmp_path):
    waits = pytest.raises(MelanomaError, match="in use by process")
    with lock(tmp_path / "run" / f".{KEY}.lock"), waits:
        train_architecture(config, KEY)


@pytest.mark.parametrize("device, orders", [("cpu", ["abab", "baba", "abba", "baab"]),
                                            ("mps", ["aabb", "bbaa"])])  # fmt: skip
def test_trainings_of_a_run_take_turns_on_a_gpu(tmp_path, device, orders, capsys):
    order, both = [], threading.Barrier(2)

    def compute(name: str) -> None:
        with train.gpu_lock(tmp_path, torch.device(device)):
            order.append(name)
            time.sleep(0.2) if device == "mps" else both.wait(60)
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compute, "ab"))
    assert "".join(order) in orders
    waited = "waiting: another training computes on mps" in capsys.readouterr().out
    assert waited == (device == "mps")


def test_latency_is_measured_an_image_and_the_models_in_turn():
    order = []

    class Slow(torch.nn.Linear):
        def forward(self, images):
            assert images.shape == (1, 3, 8, 8)
            order.append(self.out_features)
            time.sleep(0.001 * self.out_features)
            return super().forward(images.flatten(1))

    figures = measure_latency({"a": Slow(192, 1), "b": Slow(192, 20)}, 8, repeats=5)
    assert order == [1, 20] * 8  # three to warm up
    assert 1 <= figures["a"]["low_ms"] <= figures["a"]["median_ms"] < 20
    assert 20 <= figures["b"]["median_ms"] <= figures["b"]["high_ms"]
    assert "CPU" in json.loads(json.dumps(figures))["a"]["device"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"architectures": preset("thesis").architectures, "image_size": 64, "epochs": 4,
          "learning_rate": 2e-4}],
)  # fmt: skip
def test_three_of_four_architectures_learn_to_tell_melanoma_on_the_sample(changes, tmp_path):
    """The small networks as `make figures` trains them, and the thesis's four for a short time."""
    data = generate_sample(tmp_path / "sample")
    config = preset("sample", data_dir=str(data), output_dir=str(tmp_path / "run"), **changes)
    aucs = {}
    for key in config.architectures:
        folder = train_architecture(config, key)
        test = load_predictions(folder / "predictions.parquet").split("test")
        score = test.melanoma_probability(read_json(folder / "bundle.json")["temperature"])
        aucs[key] = float(auc(test.is_melanoma, score))
    assert sorted(aucs.values())[1] >= 0.85, aucs
