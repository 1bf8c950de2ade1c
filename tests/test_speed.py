"""The benchmark measures what it says, at a tiny size; and README shows what it has measured."""

import importlib.util
import os
import subprocess
import sys

import pytest

from melanoma_lib import scaling
from melanoma_lib.config import Config
from melanoma_lib.core.files import PROJECT, read_json

SCRIPT = PROJECT / "benchmarks" / "speed.py"


@pytest.fixture(scope="module")
def speed():
    spec = importlib.util.spec_from_file_location("speed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["speed"] = module  # where `grow`'s process looks for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The file of two batches an epoch, measured in two pieces, and what the second printed."""
    output = tmp_path_factory.mktemp("speed") / "tiny.json"
    command = [
        sys.executable, SCRIPT, "--architectures", "test_resnet", "--image-size", "32",
        "--images", "64", "--repeats", "1", "--commit", "abc", "--output", output,
    ]  # fmt: skip
    run = {"check": True, "capture_output": True, "text": True, "env": os.environ}
    subprocess.run([*command, "--methods", "plain"], **run)
    first = read_json(output)["rates"]["test_resnet"]["plain"]
    again = subprocess.run([*command, "--growth", "100"], **run).stdout
    assert read_json(output)["rates"]["test_resnet"]["plain"] == first
    return read_json(output), again


def test_all_is_measured_once(measured):
    results, printed = measured
    rates = results["rates"]["test_resnet"]
    assert set(rates) == {"plain", "timm", "ours", "loading", "predicting"}
    assert all(len(rate["images_per_second"]) == 1 for rate in rates.values())
    assert all(rate["median"] > 0 for rate in rates.values())
    assert "timm: " in printed and "plain: " not in printed  # which was there
    assert results["commit"] == "abc" and results["images"] == 64 and results["cores"] > 0
    assert results["chosen"]["test_resnet"]["arithmetic"]["precision"] in ("float32", "bfloat16")
    assert len(results["growth"]["100"]) == 1 and results["growth"]["100"][0]["peak_gb"] > 0.1
    assert 2e5 < results["jpeg_bytes"] < 3.5e5  # HAM10000's are 277 kB


def test_another_setting_begins_anew(speed, measured):
    results, _ = measured
    options = speed.parser().parse_args(["--images", "96", "--commit", "abc"])
    config = speed.Config(image_size=32)
    known = speed.about(options, config, "")
    differing = {name for name, value in known.items() if results[name] != value}
    assert differing == {"images"}


def test_a_line_is_found_again(speed, measured):
    growth = {
        str(n): [{"train_seconds": 3 + 0.002 * n + late} for late in (0, 0, 50)]
        for n in (1000, 2500, 5000)
    }
    lines = speed.fits(growth)
    assert lines["train_seconds"] == pytest.approx({"constant": 3, "per_1000_images": 2, "r2": 1})
    shown = speed.growth_table(measured[0] | {"growth": growth, "growth_fits": lines})
    assert "| train, seconds | 5.00 | 8.00 | 13.00 | 3.00 | 2.000 | 1.000 |" in shown


def test_the_table_by_hand(speed, measured):
    rates = {"plain": 2.0, "timm": 5.0, "ours": 10.0, "loading": 250.0}
    found = {name: dict.fromkeys(("median", "lowest", "highest"), rate) | {
        "images_per_second": [rate]} for name, rate in rates.items()}  # fmt: skip
    found["plain"] |= {"lowest": 1.0, "highest": 200.0, "images_per_second": [1.0, 2.0, 200.0]}
    results = measured[0] | {"rates": {"resnet50": found, "vit_b_16": {"plain": found["plain"]}}}
    results |= {"chosen": {"resnet50": {"arithmetic": {"precision": "bfloat16"}}}}
    shown = speed.table(results)
    assert "| ResNet-50 | 2.0 (1.0 to 200) | 5.0 | 10.0 | 5.0 | 2.0 | 4.0% | bfloat16 |" in shown
    assert "ViT" not in shown and "commit abc" in shown and "Steps alone" not in shown
    assert "Steps alone" not in speed.table(results | {"device": "mps"})  # where nothing is tried
    results["chosen"]["resnet50"]["tried"] = {"float32": 9.0, "bfloat16": 12.5}
    on_gpu = speed.table(results | {"device": "NVIDIA H200"})
    assert "take 20.0% to 20.0% less time than our epochs." in on_gpu
    bars = [len(group) for group in speed.plot([results]).axes[0].containers]
    assert bars == [1, 1, 1]


def test_readme_shows_what_was_measured(speed, measured):
    machines = [read_json(path) for path in sorted(speed.FOLDER.glob("speed-*.json"))]
    text = speed.README.read_text()
    assert speed.page(text, machines) == text
    assert speed.page(text, [*machines, measured[0]]) != text


def test_the_calculator_takes_its_rates_from_a_file(measured):
    rates, kept = scaling.rates_of(measured[0]), read_json(scaling.RATES)
    assert set(kept) - set(rates) == {"schema", "price_per_hour"} and set(rates) < set(kept)
    assert scaling.needs(1000, rates, "test_resnet", 32)["epoch_hours"] > 0
    assert set(kept["train"]) == set(kept["predict"]) == set(Config().architectures)
