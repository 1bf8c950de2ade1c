import dataclasses
from collections import namedtuple

import pytest
from helpers import CONFIG, KEYS

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import write_json
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.training import preflight

Usage = namedtuple("Usage", "free")


@pytest.fixture
def config(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("MELANOMA_CACHE", str(tmp_path / "cache"))
    return dataclasses.replace(
        CONFIG, data_dir=str(dataset), output_dir=str(tmp_path / "run"), architectures=("a",)
    )


def free(monkeypatch, count):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Usage(count))


def test_what_does_not_fit_on_the_disk_is_said_in_one_line(config, monkeypatch):
    """Of 1000 parameters three checkpoints of 16 kB and 4 kB of weights; 105 images decoded."""
    files, need = open_dataset(config.data_dir), 3 * 16_000 + 4_000 + 105 * 32 * 32 * 3
    free(monkeypatch, need)
    preflight._check_disk(config, files, {"a": 1000})
    free(monkeypatch, need - 1)
    with pytest.raises(MelanomaError, match=r"too little disk space: .*melanoma clean"):
        preflight._check_disk(config, files, {"a": 1000})
    preflight._check_disk(config, files, {})  # only the pixels
    several = dataclasses.replace(config, trainings=3)
    free(monkeypatch, need + 2 * (2 * 16_000 + 4_000) - 1)
    with pytest.raises(MelanomaError, match="too little disk space"):
        preflight._check_disk(several, files, {"a": 1000})


def test_what_a_training_has_written_already_is_not_needed_again(config, monkeypatch, tmp_path):
    files = open_dataset(config.data_dir)
    key = config.training_key("a", files.fingerprint)
    (tmp_path / "run" / "a").mkdir(parents=True)
    (tmp_path / "run" / "a" / "checkpoint-0001-x.pt").write_bytes(bytes(20_000))
    free(monkeypatch, 3 * 16_000 + 4_000 + 105 * 32 * 32 * 3 - 20_000)
    for found, fits in ((key, True), ("other", False)):
        write_json(tmp_path / "run" / "a" / "run.json", {"training_key": found})
        if fits:
            preflight._check_disk(config, files, {"a": 1000})
        else:
            with pytest.raises(MelanomaError):
                preflight._check_disk(config, files, {"a": 1000})


def test_a_long_training_that_falls_on_the_cpu_is_announced(config, monkeypatch):
    """With 2 images a second, two trainings of 100 epochs of 76 images take over two hours."""
    monkeypatch.setattr(preflight, "_images_per_second", lambda *_: 2.0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    files, sizes = open_dataset(config.data_dir), {"a": 1}
    long = dataclasses.replace(config, device="auto", epochs=100, trainings=2)
    split = preflight.make_split(files.metadata, "lesion", 42)
    images = len(preflight.split_rows(split, "train"))
    expected = preflight.duration(2 * 100 * images / 2.0)
    text = preflight.cpu_warning(long, files, sizes)
    assert expected in text and "h" in expected and "--device cpu" in text and "a 2.0" in text
    for calm in ({"device": "cpu"}, {"epochs": 10}):
        assert preflight.cpu_warning(dataclasses.replace(long, **calm), files, sizes) == ""
    assert preflight.cpu_warning(long, files, {}) == ""


def test_the_estimate_comes_from_steps_of_the_network(config):
    assert preflight._images_per_second(KEYS[1], config) > 1
